"""Every byte arrives, and every end is passed on as it can be, whatever is spoken on the two legs."""

from __future__ import annotations

import hashlib
import random
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.peers import PlainNode, Talk, connect
from tests.scenarios.tlspeers import NODE_HOST, Papers, TlsNode, TlsTalk, Version, prepare_tls, secure
from tests.scenarios.waiting import eventually

Way = Literal["clear-clear", "tls-clear", "tls-tls", "clear-tls", "passthrough"]
WAYS: tuple[Way, ...] = ("clear-clear", "tls-clear", "tls-tls", "clear-tls", "passthrough")
PORTS = dict(zip(WAYS, range(FIRST_PORT, FIRST_PORT + len(WAYS)), strict=True))
Link = tuple[Talk, Talk]
MEBIBYTE = 1 << 20
SMALL_BUFFER = 64 * 1024

every_way = pytest.mark.parametrize("way", WAYS)
natproxys_tls = pytest.mark.parametrize("way", ["tls-clear", "tls-tls", "clear-tls"])
either_first = pytest.mark.parametrize("first", ["client", "node"])


@dataclass(frozen=True)
class House:
    """One daemon with a port for each way, a clear node and one that speaks TLS."""

    daemon: Daemon
    papers: Papers
    clear: PlainNode
    tls: TlsNode

    def link(self, way: Way, version: Version | None = None) -> Link:
        """Open a connection; return the client's end and the node's."""
        daemon, papers, port = self.daemon, self.papers, PORTS[way]
        node = self.clear if way.endswith("-clear") else self.tls
        self.tls.context = papers.node_side(version=version)
        with ThreadPoolExecutor(1) as pool:
            accepting = pool.submit(node.accept)
            if way == "passthrough":
                client: Talk = secure(daemon.ip, port, papers.node_client(), name=NODE_HOST)
            elif way.startswith("tls"):
                client = secure(daemon.ip, port, papers.client(papers.dev, version=version))
            else:
                client = connect(daemon.ip, port)
            return client, accepting.result()


@pytest.fixture(scope="module")
def house(module_natproxy: Natproxies) -> Iterator[House]:
    daemon, papers = prepare_tls(module_natproxy)
    with PlainNode(receive_bytes=SMALL_BUFFER) as clear, TlsNode(papers.node_side(), receive_bytes=SMALL_BUFFER) as tls:
        daemon.config["static"] = [
            {
                "name": way,
                "port": port,
                "target": (clear if way.endswith("-clear") else tls).target,
                "clients": {"tls": {"tls": "terminate", "cle": "off", "pas": "passthrough"}[way[:3]]},
                **({"nodes": papers.tls_node()} if way.endswith("-tls") else {}),
            }
            for way, port in PORTS.items()
        ]
        daemon.start()
        yield House(daemon, papers, clear, tls)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def in_background(act: Callable[[bytes], None], data: bytes) -> threading.Thread:
    thread = threading.Thread(target=act, args=(data,), daemon=True)
    thread.start()
    return thread


class Writer:
    """Sends data from a thread of its own, and tells how far it is."""

    def __init__(self, talk: Talk, data: bytes) -> None:
        self.sent = 0
        self._talk = talk
        self.thread = in_background(self._write, data)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), SMALL_BUFFER):
            self._talk.say(data[start : start + SMALL_BUFFER])
            self.sent = min(len(data), start + SMALL_BUFFER)

    def wait_until_stuck(self, daemon: Daemon) -> None:
        """Wait until it gets no further, as nobody reads: a worker does much in the time of two answers."""

        def is_stuck() -> bool:
            before = self.sent
            daemon.get("/healthz")
            daemon.get("/metrics")
            return bool(before) and self.sent == before

        eventually(lambda: all(is_stuck() for _ in range(3)), "the writer has to wait")


@every_way
def test_large_transfers_both_ways_at_once_arrive_whole(house: House, way: Way) -> None:
    client, node = house.link(way)
    question, answer = random.Random(1).randbytes(24 * MEBIBYTE), random.Random(2).randbytes(24 * MEBIBYTE)
    writers = [in_background(client.say, question), in_background(node.say, answer)]
    with ThreadPoolExecutor(2) as pool:
        at_node, at_client = pool.submit(node.hear, len(question)), pool.submit(client.hear, len(answer))
        assert digest(at_node.result()) == digest(question)
        assert digest(at_client.result()) == digest(answer)
    for writer in writers:
        writer.join()


@natproxys_tls
@pytest.mark.parametrize("reader", ["client", "node"])
def test_one_that_does_not_read_costs_little_memory_and_in_the_end_gets_every_byte(
    house: House, way: Way, reader: str
) -> None:
    client, node = house.link(way)
    slow, fast = (client, node) if reader == "client" else (node, client)
    before = house.daemon.resident_bytes()
    data = random.Random(3).randbytes(32 * MEBIBYTE)
    writer = Writer(fast, data)
    writer.wait_until_stuck(house.daemon)
    assert writer.sent < len(data)
    assert house.daemon.resident_bytes() - before < 8 * MEBIBYTE
    # While one way is stuck, the other is open.
    answering = in_background(slow.say, data[:MEBIBYTE])
    assert fast.hear(MEBIBYTE) == data[:MEBIBYTE]
    answering.join()
    assert digest(slow.hear(len(data))) == digest(data)
    writer.thread.join()
    assert house.daemon.resident_bytes() - before < 8 * MEBIBYTE


@every_way
@either_first
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_who_has_sent_its_last_byte_still_hears_all_that_the_other_says(
    house: House, way: Way, first: str, version: Version
) -> None:
    client, node = house.link(way, None if way == "passthrough" else version)
    finished, other = (client, node) if first == "client" else (node, client)
    question, answer = random.Random(4).randbytes(2 * MEBIBYTE), random.Random(5).randbytes(3 * MEBIBYTE)
    asking = in_background(finished.say_last, question)
    assert digest(other.hear_all()) == digest(question), "all bytes, then the end"
    asking.join()
    answering = in_background(other.say_last, answer)
    assert digest(finished.hear_all()) == digest(answer)
    answering.join()


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
    links = [(way, first, *house.link(way)) for way, first in cases]
    for _, first, client, node in links:
        finished, quiet = (client, node) if first == "client" else (node, client)
        finished.say_last(b"bye")
        assert quiet.hear_all() == b"bye"
    for way, first, client, node in links:
        assert (client if first == "client" else node).ended() == "eof"
        where = "{}:{}".format(*client.sock.getsockname()[:2])
        line = house.daemon.wait_for_log("connection ended", port=PORTS[way], client=where)
        assert line["outcome"] == f"{first}-closed"


@every_way
@either_first
def test_a_reset_is_passed_on_as_a_reset(house: House, way: Way, first: str) -> None:
    since = len(house.daemon.log)
    client, node = house.link(way)
    one, other = (client, node) if first == "client" else (node, client)
    one.say(b"half an ans")
    assert other.hear(11) == b"half an ans"
    one.reset()
    assert other.ended() == "reset"
    house.daemon.wait_for_log("connection ended", since=since, port=PORTS[way], outcome=f"{first}-reset")


@pytest.mark.parametrize("way", ["tls-clear", "clear-tls", "tls-tls"])
def test_what_comes_after_the_handshake_and_is_no_tls_ends_the_connection(house: House, way: Way) -> None:
    since = len(house.daemon.log)
    client, node = house.link(way)
    liar, other = (client, node) if way.startswith("tls") else (node, client)
    liar.say(b"the truth")
    assert other.hear(9) == b"the truth"
    liar.sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
    assert other.ended() in ("cut", "reset")
    who = "client" if liar is client else "node"
    house.daemon.wait_for_log("connection ended", since=since, port=PORTS[way], outcome=f"{who}-tls-error")


@natproxys_tls
def test_many_small_messages_arrive_in_order(house: House, way: Way) -> None:
    client, node = house.link(way)
    messages = [b"%d;" % number * (number % 7 + 1) for number in range(3000)]
    whole = b"".join(messages)

    def say_all(_: bytes) -> None:
        for message in messages:
            client.say(message)

    saying = in_background(say_all, b"")
    assert node.hear(len(whole)) == whole
    saying.join()


def test_first_words_that_come_with_the_last_flight_are_not_lost(house: House) -> None:
    """TLS 1.3's client may send with its Finished; so may a node with its tickets."""
    for way in ("tls-clear", "tls-tls"):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = house.papers.client(house.papers.dev).wrap_bio(incoming, outgoing, server_hostname="cache.example.com")
        with connect(house.daemon.ip, PORTS[way]) as talk:
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
