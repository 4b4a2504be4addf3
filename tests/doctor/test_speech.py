from __future__ import annotations

import socket
import ssl
import time

import pytest

from natproxy.doctor import speech
from natproxy.doctor.speech import Answer, Said, ask_clear, look_at_certificate, talk_tls
from natproxy.model import Address, HandshakeFailure
from natproxy.tls.contexts import node_context
from tests.doctor.speakers import (
    Speaker,
    Talk,
    closes,
    is_memcached,
    is_redis,
    is_silent,
    says,
    server_context,
    wants_tls,
)
from tests.standins.certificates import Authority

SECONDS = 5.0
SHORT = 0.2
"""For peers that never answer."""
HOST = "cache.example.com"


def at(speaker: Speaker) -> Address:
    return Address(speaker.ip, speaker.port)


@pytest.mark.parametrize(
    ("talk", "seconds", "heard"),
    [
        (is_redis, SECONDS, Answer(Said.REDIS, "+PONG")),
        (
            says(b"-NOAUTH Authentication required.\r\n"),
            SECONDS,
            Answer(Said.REDIS, "-NOAUTH Authentication required."),
        ),
        (is_memcached, SECONDS, Answer(Said.MEMCACHED, "VERSION 1.6.18")),
        (wants_tls, SECONDS, Answer(Said.NATPROXY_TLS)),
        (says(b"\x15\x03\x03\x00\x02\x02\x46"), SECONDS, Answer(Said.TLS)),
        (says(b"HTTP/1.1 400 Bad\x07 Request\r\n"), SECONDS, Answer(Said.OTHER, "HTTP/1.1 400 Bad? Request")),
        (closes, SECONDS, Answer(Said.CLOSED)),
        (is_silent, SHORT, Answer(Said.SILENT)),
    ],
)
def test_what_a_port_says_in_the_clear(talk: Talk, seconds: float, heard: Answer) -> None:
    with Speaker(talk) as speaker:
        assert ask_clear(at(speaker), seconds) == heard


def test_memcached_s_answers_in_one_piece_are_read_line_by_line() -> None:
    def talk(sock: socket.socket) -> None:
        said = b""
        while b"version" not in said:
            said += sock.recv(4096)
            if said.count(b"\n") == 3:
                sock.sendall(b"ERROR\r\n")
        sock.sendall(b"ERROR\r\nERROR\r\nVERSION 1.6.22\r\n")
        is_silent(sock)

    with Speaker(talk) as speaker:
        assert ask_clear(at(speaker), SECONDS) == Answer(Said.MEMCACHED, "VERSION 1.6.22")


def test_who_closes_late_has_tried_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "AT_ONCE_SECONDS", 0.1)

    def closes_late(sock: socket.socket) -> None:
        sock.recv(4096)
        time.sleep(0.2)

    with Speaker(closes_late) as speaker:
        assert ask_clear(at(speaker), SECONDS) == Answer(Said.CLOSED, is_late=True)


def test_an_endless_line_is_cut() -> None:
    with Speaker(says(b"x" * 5000)) as speaker:
        assert ask_clear(at(speaker), SECONDS) == Answer(Said.OTHER, "x" * 120)


def test_tls_that_verifies_and_the_engine_behind_it() -> None:
    authority = Authority()
    shown = authority.issue("natproxy", dns=[HOST])
    with Speaker(is_redis, context=server_context(shown)) as speaker:
        talk = talk_tls(at(speaker), node_context(authority.pem), HOST, SECONDS)
    assert (talk.failure, talk.version, talk.answer) == (None, "TLSv1.3", Answer(Said.REDIS, "+PONG"))
    assert talk.certificate == ssl.PEM_cert_to_DER_cert(shown.certificate.decode())


def test_a_certificate_that_does_not_verify_can_be_looked_at() -> None:
    shown = Authority().issue("natproxy", dns=[HOST])
    context = node_context(Authority("Another CA").pem)
    with Speaker(is_redis, context=server_context(shown)) as speaker:
        talk = talk_tls(at(speaker), context, HOST, SECONDS)
        assert (talk.failure, talk.certificate) == (HandshakeFailure.UNKNOWN_CA, None)
        der = look_at_certificate(at(speaker), context, HOST, SECONDS)
    assert der == ssl.PEM_cert_to_DER_cert(shown.certificate.decode())


def test_a_server_that_asks_for_a_certificate_says_so_after_the_handshake_of_tls_1_3() -> None:
    authority = Authority()
    context = server_context(authority.issue("natproxy", dns=[HOST]), client_ca=authority.pem)
    with Speaker(is_redis, context=context) as speaker:
        talk = talk_tls(at(speaker), node_context(authority.pem), HOST, SECONDS)
    assert talk.failure is HandshakeFailure.ALERT
    assert "certificate required" in talk.detail
    assert talk.certificate is not None


@pytest.mark.parametrize(
    ("talk", "seconds", "failure"),
    [
        (is_redis, SECONDS, HandshakeFailure.CLEAR_TEXT),
        (closes, SECONDS, HandshakeFailure.CLOSED),
        (is_silent, SHORT, HandshakeFailure.TIMEOUT),
    ],
)
def test_who_speaks_no_tls(talk: Talk, seconds: float, failure: HandshakeFailure) -> None:
    with Speaker(talk) as speaker:
        assert talk_tls(at(speaker), node_context(None), HOST, seconds).failure is failure
        assert look_at_certificate(at(speaker), node_context(None), HOST, seconds) is None


def test_nobody_there() -> None:
    with Speaker(closes) as speaker:
        place = at(speaker)
    with pytest.raises(ConnectionRefusedError):
        ask_clear(place, SECONDS)
    with pytest.raises(ConnectionRefusedError):
        talk_tls(place, node_context(None), HOST, SECONDS)
