from __future__ import annotations

import pytest

from natproxy.doctor.handed import Papers, Port
from natproxy.doctor.speech import Answer, Said
from natproxy.doctor.trying import find_way, try_all, try_port
from natproxy.errors import DoctorError
from natproxy.model import Address, HandshakeFailure
from tests.doctor.speakers import Speaker, closes, is_memcached, is_redis, server_context
from tests.standins.certificates import Authority

HOST = "cache.example.com"
SECONDS = 5.0


def test_the_way_to_an_address() -> None:
    way = find_way("127.0.0.9")
    assert (way.addresses, way.sources) == (("127.0.0.9",), (("127.0.0.9", "127.0.0.1"),))


def test_a_name_that_does_not_resolve() -> None:
    way = find_way("nowhere.invalid")
    assert (way.addresses, bool(way.reason)) == ((), True)
    assert find_way("a" * 70 + ".invalid").addresses == ()


def test_ports_in_the_clear_are_asked_no_tls() -> None:
    with Speaker(is_redis) as redis, Speaker(is_memcached) as memcached:
        ports = (Port(redis.port), Port(memcached.port))
        found = try_all(["127.0.0.1"], ports, Papers(), HOST, SECONDS)
    assert [one.outcome for one in found] == ["open", "open"]
    assert [one.clear for one in found] == [Answer(Said.REDIS, "+PONG"), Answer(Said.MEMCACHED, "VERSION 1.6.18")]
    assert [one.tls for one in found] == [None, None]


def test_a_port_with_tls_shows_its_certificate_verified_or_not() -> None:
    authority = Authority()
    with Speaker(is_redis, context=server_context(authority.issue("natproxy", dns=[HOST]))) as speaker:
        place, port = Address(speaker.ip, speaker.port), Port(speaker.port)
        good = try_port(place, port, Papers(authority.pem), HOST, SECONDS)
        assert good.tls is not None
        assert (good.tls.failure, good.tls.answer) == (None, Answer(Said.REDIS, "+PONG"))
        assert good.clear == Answer(Said.NATPROXY_TLS)
        bad = try_port(place, port, Papers(), HOST, SECONDS)
        assert bad.tls is not None
        assert bad.tls.failure is HandshakeFailure.UNKNOWN_CA
        assert good.shown == bad.shown is not None


def test_nobody_there_and_nobody_who_speaks() -> None:
    with Speaker(closes) as speaker:
        place, port = Address(speaker.ip, speaker.port), Port(speaker.port)
        wordless = try_port(place, port, Papers(), HOST, SECONDS)
        assert (wordless.outcome, wordless.clear, wordless.shown) == ("open", Answer(Said.CLOSED), None)
        assert wordless.tls is not None
        assert wordless.tls.failure is HandshakeFailure.CLOSED
    gone = try_port(place, port, Papers(), HOST, SECONDS)
    assert (gone.outcome, gone.detail, gone.clear) == ("refused", "Connection refused", None)


def test_papers_that_cannot_be_used_are_told_before_anything_is_tried() -> None:
    with pytest.raises(DoctorError):
        try_all(["127.0.0.1"], (Port(1),), Papers(b"hello"), HOST, SECONDS)
