"""Before the two are joined, and just then: early words of either side, resets while dialling and shaking hands."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.scenarios.peers import PlainNode, connect
from tests.scenarios.streams import background, ends_of
from tests.scenarios.tlspeers import HOST, TlsTalk
from tests.scenarios.ways import (
    MEBIBYTE,
    SIDES,
    WAYS,
    House,
    Outcomes,
    Way,
    each_count_of_workers,
    every_way,
    speaks_tls,
)

EARLY_BYTES = 3 * MEBIBYTE + 1
"""More than the kernel keeps of one connection that nobody reads."""
TLS_RECORD = b"\x16"

pytestmark = each_count_of_workers


# Early words.


@pytest.fixture
def full_house(tidy_house: House) -> Iterator[House]:
    """The same; its full node is full again for the next test."""
    yield tidy_house
    tidy_house.full.fill()


def test_what_a_client_says_before_its_node_answers_the_dial_arrives_whole_and_so_does_its_end(
    full_house: House,
) -> None:
    house = full_house
    clients = []
    for number, (way, is_last) in enumerate((way, is_last) for way in WAYS for is_last in (False, True)):
        talk = house.knock(way, "full")
        talk.say(bytes([number]))  # by which its node's end is found
        client = ends_of((talk, talk), seed=number)[0]
        saying = background(client.say_last if is_last else client.say, EARLY_BYTES)
        clients.append((talk, is_last, client, saying))
    house.daemon.get("/healthz")
    for _ in clients:
        peer = house.full.accept()
        if peer.sock.recv(1, socket.MSG_PEEK) == TLS_RECORD:
            peer = TlsTalk(peer.sock, house.papers.node_side())
        number = peer.hear(1)[0]
        talk, is_last, client, saying = clients[number]
        node = ends_of((talk, peer), seed=number)[1]
        node.hear(EARLY_BYTES)
        saying.result()
        answering = background(node.say_last, EARLY_BYTES)
        assert client.hear_to_the_end() == EARLY_BYTES
        answering.result()
        if not is_last:
            client.say_last(7)
        assert node.hear_to_the_end() == client.said


@every_way
@pytest.mark.parametrize("who", ["node", "both"])
def test_a_node_that_speaks_first_is_heard_also_when_that_was_all(tidy_house: House, way: Way, who: str) -> None:
    for size in (1, EARLY_BYTES):
        for is_last in (False, True):
            client, node = ends_of(tidy_house.link(way))
            parts = [background(node.say_last if is_last else node.say, size)]
            if who == "both":
                parts.append(background(client.say, size))
                parts.append(background(node.hear, size))
            client.hear(size)
            for part in parts:
                part.result()
            client.say_last(3)
            assert node.hear_to_the_end() == client.said
            if not is_last:
                node.say_last(3)
            assert client.hear_to_the_end() == node.said


@every_way
def test_urgent_data_stays_in_its_place_in_the_stream(tidy_house: House, way: Way) -> None:
    for who in SIDES:
        one, other = ends_of(tidy_house.link(way), who)
        for size in (5, 2 * MEBIBYTE, 300_000, 1, 100_000):
            saying = background(one.say, size)
            other.hear(size // 3)
            saying.result()
            one.say_urgently(1)
            one.say_urgently(3)
        one.say(3)
        other.hear(one.said - other.heard)
        one.say_urgently(1)  # nothing comes after it
        other.hear(1)
        other.say(9)
        one.hear(9)


# Before the two are joined.


def hello(name: str) -> bytes:
    """Return the first words of a client's handshake."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("way", [way for way in WAYS if speaks_tls(way, "client")])
def test_a_client_s_reset_within_its_handshake_reaches_no_node(tidy_house: House, way: Way) -> None:
    outcomes = Outcomes(tidy_house)
    whole = hello(HOST)
    for words in (b"", TLS_RECORD, whole[:100], whole):
        client = connect(tidy_house.daemon.ip, tidy_house.ports["node", way])
        outcomes.expect(client, "client-handshake")
        client.say(words)
        if words is whole:
            assert client.hear(1) == TLS_RECORD
        client.reset()
    outcomes.check()
    assert not tidy_house.node(way).is_dialled()


@pytest.mark.parametrize("way", [way for way in WAYS if speaks_tls(way, "node")])
def test_resets_within_the_node_s_handshake(tidy_house: House, way: Way) -> None:
    outcomes = Outcomes(tidy_house)
    for who in SIDES:
        for heard in (1, 100):  # at 0 a node's reset may come within the dial
            client = tidy_house.knock(way)
            outcomes.expect(client, "client-reset" if who == "client" else "node-handshake")
            client.say(b"early words")
            node = PlainNode.accept(tidy_house.tls)
            assert len(node.hear(heard)) == heard
            (client if who == "client" else node).reset()
            if who == "client":
                assert node.ended() == "reset"
            else:
                assert client.ended() in ("eof", "cut", "reset")
            outcomes.check()
            tidy_house.wait_until_in_reach()


@every_way
def test_a_client_s_reset_while_its_node_is_dialled(tidy_house: House, way: Way) -> None:
    outcomes = Outcomes(tidy_house)
    for words in (b"", b"is anybody there?"):
        client = tidy_house.knock(way, "full")
        outcomes.expect(client, "client-reset")
        client.say(words)
        tidy_house.daemon.get("/healthz")
        client.reset()
    outcomes.check()


@every_way
def test_a_node_that_refuses_ends_its_client(tidy_house: House, way: Way) -> None:
    outcomes = Outcomes(tidy_house)
    client = connect(tidy_house.daemon.ip, tidy_house.ports["nobody", way])
    outcomes.expect(client, "node-refused")
    if speaks_tls(way, "client"):
        client = TlsTalk(client.sock, tidy_house.papers.client(tidy_house.papers.dev), name=HOST)
    assert client.ended() in ("eof", "cut", "reset")
    outcomes.check()
