"""Ends that only TLS has, and what only TLS can break; test_proof_transfers.py has what holds for every way."""

from __future__ import annotations

import ssl

import pytest

from tests.scenarios.peers import connect
from tests.scenarios.streams import background
from tests.scenarios.tlspeers import TlsTalk
from tests.scenarios.ways import House, Way, each_count_of_workers, natproxys_tls

pytestmark = each_count_of_workers


@pytest.fixture
def house(tidy_house: House) -> House:
    """All that is left open is closed, and natproxy has let go of it."""
    return tidy_house


@pytest.mark.parametrize("way", ["tls-clear", "tls-tls", "passthrough"])
def test_a_bare_fin_is_an_end_too(house: House, way: Way) -> None:
    client, node = house.link(way)
    assert isinstance(client, TlsTalk)
    client.say(b"my last words")
    client.finish_bare()
    assert node.hear(13) == b"my last words"
    assert node.ended() == ("eof" if way == "tls-clear" else "cut"), "a cut is no close_notify to one who could tell"
    if way == "tls-clear":  # OpenSSL says nothing more after a cut
        node.say_last(b"understood")
        assert client.hear_all() == b"understood"


def test_a_nodes_bare_fin_is_an_end_too(house: House) -> None:
    for way in ("clear-tls", "tls-tls"):
        client, node = house.link(way)
        assert isinstance(node, TlsTalk)
        node.say(b"my last words")
        node.finish_bare()
        assert client.hear(13) == b"my last words"
        assert client.ended() == ("eof" if way == "clear-tls" else "cut")


def test_close_notify_without_a_fin_is_an_end(house: House) -> None:
    client, node = house.link("tls-clear")
    assert isinstance(client, TlsTalk)
    client.say(b"my last words")
    client.say_goodbye()
    assert node.hear_all() == b"my last words"
    node.say_last(b"understood")
    assert client.hear_all() == b"understood"


def test_tls_peers_that_were_told_of_the_end_and_stay_quiet_are_closed_soon(house: House) -> None:
    cases: tuple[tuple[Way, str], ...] = (("tls-clear", "node"), ("clear-tls", "client"), ("tls-tls", "node"))
    since = len(house.daemon.log)
    links = [(first, *house.link(way)) for way, first in cases]
    for first, client, node in links:
        finished, quiet = (client, node) if first == "client" else (node, client)
        finished.say_last(b"bye")
        assert quiet.hear_all() == b"bye"
    for first, client, node in links:
        assert (client if first == "client" else node).ended() == "eof"
        assert house.ended(client, since=since)["outcome"] == f"{first}-closed"


@natproxys_tls
def test_what_comes_after_the_handshake_and_is_no_tls_ends_the_connection(house: House, way: Way) -> None:
    since = len(house.daemon.log)
    client, node = house.link(way)
    liar, other = (client, node) if way.startswith("tls") else (node, client)
    liar.say(b"the truth")
    assert other.hear(9) == b"the truth"
    liar.sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
    assert other.ended() in ("cut", "reset")
    who = "client" if liar is client else "node"
    house.daemon.wait_for_log(
        "connection ended", since=since, port=house.ports["node", way], outcome=f"{who}-tls-error"
    )


@natproxys_tls
def test_many_small_messages_arrive_in_order(house: House, way: Way) -> None:
    client, node = house.link(way)
    messages = [b"%d;" % number * (number % 7 + 1) for number in range(3000)]
    whole = b"".join(messages)

    def say_all() -> None:
        for message in messages:
            client.say(message)

    saying = background(say_all)
    assert node.hear(len(whole)) == whole
    saying.result()


def test_first_words_that_come_with_the_last_flight_are_not_lost(house: House) -> None:
    """TLS 1.3's client may send with its Finished; so may a node with its tickets."""
    for way in ("tls-clear", "tls-tls"):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = house.papers.client(house.papers.dev).wrap_bio(incoming, outgoing, server_hostname="cache.example.com")
        with connect(house.daemon.ip, house.ports["node", way]) as talk:
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    talk.say(outgoing.read())
                    incoming.write(talk.sock.recv(1 << 16))
                else:
                    break
            words = b"in one packet with Finished" * 2000
            tls.write(words)
            talk.say(outgoing.read())
            node = (house.clear if way == "tls-clear" else house.tls).accept()
            assert node.hear(len(words)) == words
