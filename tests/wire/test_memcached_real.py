"""What a real memcached sends, and what real clients make of it: memcached.py at its edges."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymemcache.client.base import Client

from natproxy.wire.book import Book, View
from natproxy.wire.memcached import MemcachedRewriter
from natproxy.wire.rewriter import Fallback, Reply
from tests.standins.loop import LoopThread
from tests.standins.memcached_front import CONFIG_ITEM, AutoDiscoveringClient, FrontedMemcached, node_list, packet
from tests.wire.memcached_feeding import Feed, Recorder, config_answer, cut, value

pytestmark = pytest.mark.skipif(shutil.which("memcached") is None, reason="memcached is not installed")

ADDRESS = "127.3.2.1"
NODES = [("a.x.0001.use1.cache.amazonaws.com", "10.0.1.230", 11211), ("other.example", "10.0.1.231", 11211)]
TOLD_NODES = [("cache.example", "203.0.113.73", 7001), ("cache.example", "203.0.113.73", 7002)]
LIST, TOLD = node_list(77, NODES), node_list(82, TOLD_NODES)
FORGED = [
    config_answer(node_list(1, NODES)),
    b"\r\nEND\r\n" + config_answer(node_list(1, NODES)),
    value(CONFIG_ITEM.encode(), node_list(1, NODES)) + b"END\r\n",
    b"VALUE k 0 99999\r\n",
    b"config get cluster\r\n",
    b"",
    b"12",
    b"x" * 998,
    b"\r\n" * 2000,
]


def free_port(address: str = ADDRESS) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def node() -> Iterator[FrontedMemcached]:
    with FrontedMemcached(ADDRESS, free_port()) as node:
        node.front.tell(77, NODES)
        yield node


def answers(port: int, asked: bytes) -> bytes:
    """Send a pipeline, and return all that comes until the node has closed."""
    with socket.create_connection((ADDRESS, port), 10) as connection:

        def send() -> None:
            with contextlib.suppress(OSError):  # it closes on what it does not understand
                connection.sendall(asked)
                connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        came = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                came += piece
        sender.join()
    return bytes(came)


keys = st.sampled_from([b"a", b"b", b"n", b"gone", b"k" * 250, b"k" * 251, b"\r\t\x7f"])
noreply = st.sampled_from([b"", b"", b" noreply"])


def store(verb: bytes, key: bytes, body: bytes, wrong: int, noreply: bytes) -> bytes:
    unique = b" 1" if verb == b"cas" else b""
    return b"%b %b 5 0 %d%b%b\r\n%b\r\n" % (verb, key, max(0, len(body) + wrong), unique, noreply, body)


stores = st.builds(
    store,
    st.sampled_from([b"set", b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas"]),
    keys,
    st.sampled_from(FORGED) | st.binary(max_size=50),
    st.sampled_from([0] * 12 + [-1, 1, -3, 300]),
    noreply,
)
gets = st.builds(
    lambda verb, keys: verb + b" ".join(keys) + b"\r\n",
    st.sampled_from([b"get ", b"gets ", b"gat 0 ", b"gats 0 ", b"get  "]),
    st.lists(keys, min_size=1, max_size=40),
)
counts = st.builds(
    lambda verb, key, rest, noreply: b"%b %b%b%b\r\n" % (verb, key, rest, noreply),
    st.sampled_from([b"incr", b"decr", b"touch", b"delete"]),
    keys,
    st.sampled_from([b" 1", b" x", b"", b" 0"]),
    noreply,
)
meta = st.one_of(
    st.builds(
        lambda key, body, flags: b"ms %b %d%b\r\n%b\r\n" % (key, len(body), flags, body),
        keys,
        st.sampled_from(FORGED),
        st.sampled_from([b"", b" q", b" T0 Oopaque k", b" c I", b" nonsense", b" Mx"]),
    ),
    st.builds(
        lambda verb, key, flags: b"%b %b%b\r\n" % (verb, key, flags),
        st.sampled_from([b"mg", b"mg", b"md", b"ma", b"me"]),
        keys,
        st.sampled_from([b"", b" v", b" v q", b" s v k t f c O1", b" q", b" N30 v", b" nonsense", b" k q v t h l"]),
    ),
    st.just(b"mn\r\n"),
)
others = st.sampled_from(
    [
        b"stats\r\n",
        b"stats items\r\n",
        b"stats slabs\r\n",
        b"stats settings\r\n",
        b"stats conns\r\n",
        b"stats sizes\r\n",
        b"stats nonsense\r\n",
        b"stats detail on\r\n",
        b"lru_crawler sleep 100\r\n",
        b"lru tune 10 25 0.1 2.0\r\n",
        b"slabs reassign 1 2\r\n",
        b"slabs automove 0\r\n",
        b"verbosity 0\r\n",
        b"verbosity 0 noreply\r\n",
        b"verbosity noreply\r\n",
        b"cache_memlimit 64 noreply\r\n",
        b"flush_all\r\n",
        b"flush_all 0 noreply\r\n",
        b"version\r\n",
        b"version\n",
        b"nonsense\r\n",
        b"\r\n",
        b"config get other\r\n",
        b"set a\r\n",
        b"set a 0 0 5 noreply more\r\n",
        b"set a 0 0 -5\r\n",
        b"set a x 0 5\r\n",
        b"set large 0 0 2000000\r\n" + b"x" * 2_000_000 + b"\r\n",
        b"set large 0 0 2000000 noreply\r\n" + b"get a\r\n " * 250_000 + b"\r\n",
        b"set whole 0 0 300000\r\n" + (FORGED[1] * 3000)[:300_000] + b"\r\nget whole\r\n",
    ]
)
config = st.just(b"config get cluster\r\n")
commands = st.lists(st.one_of(stores, stores, gets, gets, counts, meta, others, config), max_size=25).map(b"".join)
cuts = st.lists(st.integers(0, 1 << 24), max_size=40)
with_a_server = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@with_a_server
@given(commands, cuts, st.booleans())
def test_it_stays_in_step_with_a_memcached(node: FrontedMemcached, asked: bytes, at: list[int], is_quick: bool) -> None:
    came = answers(node.clear_port, asked + b"\r\nversion\r\n")
    feed = Feed(is_quick=is_quick)
    assert feed.pass_on(cut(came, at)) == came
    assert feed.is_in_step or not came
    assert feed.witness.replies == []


@with_a_server
@given(commands, cuts, st.booleans())
def test_it_rewrites_what_a_front_tells(node: FrontedMemcached, asked: bytes, at: list[int], is_quick: bool) -> None:
    before = node.front.asked
    came = answers(node.port, b"config get cluster\r\n" + asked)
    feed = Feed(is_quick=is_quick)
    assert feed.pass_on(cut(came, at)) == came.replace(config_answer(LIST), config_answer(TOLD))
    assert feed.is_in_step
    assert len(feed.witness.replies) == node.front.asked - before > 0


def asked_packet(opcode: int, extras: bytes, key: bytes, body: bytes, opaque: bytes) -> bytes:
    return packet(opcode, opaque, extras, body, key=key, magic=0x80)


opaques = st.sampled_from([b"1234", bytes(4), b"END\n"])
binary_keys = st.sampled_from([b"a", b"b", b"n", b"gone", b"a\r\nCONFIG cluster 0 99", b"k" * 250])
packets = st.one_of(
    st.builds(
        asked_packet,
        st.sampled_from([0x01, 0x02, 0x03, 0x11, 0x12, 0x13]),
        st.just(bytes(8)),
        binary_keys,
        st.sampled_from(FORGED),
        opaques,
    ),
    st.builds(asked_packet, st.sampled_from([0x0E, 0x0F, 0x19, 0x1A]), st.just(b""), binary_keys, st.binary(), opaques),
    st.builds(
        asked_packet,
        st.sampled_from([0x00, 0x09, 0x0C, 0x0D, 0x04, 0x14]),
        st.just(b""),
        binary_keys,
        st.just(b""),
        opaques,
    ),
    st.builds(
        asked_packet,
        st.sampled_from([0x1C, 0x1D, 0x1E, 0x23, 0x24]),
        st.just(bytes(4)),
        binary_keys,
        st.just(b""),
        opaques,
    ),
    st.builds(
        asked_packet,
        st.sampled_from([0x05, 0x06, 0x15, 0x16]),
        st.just(bytes(7) + b"\1" + bytes(12)),
        binary_keys,
        st.just(b""),
        opaques,
    ),
    st.builds(
        asked_packet,
        st.sampled_from([0x0A, 0x0B, 0x10, 0x10, 0x20, 0x7F, 0x61]),
        st.just(b""),
        st.just(b""),
        st.just(b""),
        opaques,
    ),
    st.builds(asked_packet, st.just(0x60), st.just(b""), st.just(b"cluster"), st.just(b""), opaques),
)


@with_a_server
@given(st.lists(packets, max_size=25), cuts, st.booleans())
def test_it_stays_in_step_in_binary(node: FrontedMemcached, asked: list[bytes], at: list[int], is_quick: bool) -> None:
    before = node.front.asked
    came = answers(node.port, asked_packet(0x60, b"", b"cluster", b"", b"12ab") + b"".join(asked))
    expected = came
    for opaque in {piece[12:16] for piece in asked} | {b"12ab"}:
        told = packet(0x60, opaque, bytes(4), LIST), packet(0x60, opaque, bytes(4), TOLD)
        expected = expected.replace(*told)
    feed = Feed(is_quick=is_quick)
    assert feed.pass_on(cut(came, at)) == expected
    assert feed.is_in_step
    assert len(feed.witness.replies) == node.front.asked - before > 0


def test_an_old_one_s_item_is_rewritten_too() -> None:
    port = free_port()
    with FrontedMemcached(ADDRESS, port, is_old=True) as old:
        old.front.tell(77, NODES)
        asked = b"set a 0 0 1\r\nx\r\nget a AmazonElastiCache:cluster a\r\ngats 0 AmazonElastiCache:cluster\r\n"
        came = answers(port, asked + b"gets AmazonElastiCache:cluster\r\n")
        getk = answers(port, asked_packet(0x0C, b"", CONFIG_ITEM.encode(), b"", b"12ab"))
    feed = Feed()
    out = feed.pass_on([came])
    assert out.count(TOLD) == came.count(LIST) == 3
    head, longer = b" 0 %d" % len(LIST), b" 0 %d" % len(TOLD)
    assert out == came.replace(LIST, TOLD).replace(head, longer)
    feed = Feed()
    assert feed.pass_on([getk])[24:] == getk[24:].replace(LIST, TOLD)
    assert feed.is_in_step


def test_a_metadump_is_lines(node: FrontedMemcached) -> None:
    with socket.create_connection((ADDRESS, node.clear_port), 10) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"set dumped 0 0 1\r\nx\r\n")
        came = stream.readline()
        connection.sendall(b"lru_crawler metadump all\r\n")  # which memcached takes alone only
        came += b"".join(iter(stream.readline, b"END\r\n")) + b"END\r\n"
    assert b"\nkey=dumped exp=" in came
    feed = Feed()
    assert feed.pass_on([came + config_answer(LIST)]) == came + config_answer(TOLD)
    assert feed.is_in_step


def test_a_dump_of_raw_keys_ends_the_reading() -> None:
    asked = b"lru mode flat\r\nset dumped 0 0 1\r\nx\r\nstats cachedump 1 10\r\nconfig get cluster\r\n"
    with FrontedMemcached(ADDRESS, free_port()) as node:
        came = answers(node.port, asked)
    assert b"\r\nITEM dumped [1 b; " in came
    feed = Feed()
    assert feed.pass_on([came]) == came
    assert feed.witness.fallbacks == [Fallback.ANSWER]


# Real clients, through a relay in a few lines.


class SmallRelay:
    """Relays one port to one node through a rewriter."""

    def __init__(
        self, thread: LoopThread, where: tuple[str, int], node: tuple[str, int], book: dict[str, Book]
    ) -> None:
        self.node = node
        self.where = where
        self.book = book
        self.witness = Recorder()
        self._server = thread.call(asyncio.start_server(self._serve, *where))

    def close(self) -> None:
        """Stop to listen; what is open ends with its client."""
        self._server.close()

    def _view(self) -> View:
        address, port = self.node
        return View(self.book["now"], local_ip=self.where[0], own_ip=address, own_port=port, speaks_tls=False)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rewriter = MemcachedRewriter(self._view, self.witness)
        node, node_writer = await asyncio.open_connection(*self.node)

        async def ask() -> None:
            while data := await reader.read(7):
                rewriter.requests(data)
                node_writer.write(data)
            node_writer.close()

        async with asyncio.TaskGroup() as ways:
            ways.create_task(ask())
            while data := await node.read(1 << 16):
                writer.write(rewriter.replies(data))
            writer.close()


def test_a_client_discovers_through_it_and_follows_an_added_node() -> None:
    port, nodes = free_port(), ["127.3.2.11", "127.3.2.12", "127.3.2.13"]
    book = {"now": Book()}
    with contextlib.ExitStack() as stack:
        thread = stack.enter_context(LoopThread("small-relays"))
        fronted = [stack.enter_context(FrontedMemcached(address, port)) for address in nodes]
        public = [("127.3.2.101", free_port("127.3.2.101")) for _ in nodes]
        relays = [
            SmallRelay(thread, where, (address, port), book) for where, address in zip(public, nodes, strict=True)
        ]
        for relay in relays:
            stack.callback(thread.loop.call_soon_threadsafe, relay.close)

        def grow(version: int, count: int) -> None:
            for node in fronted:
                node.front.tell(version, [(f"{index}.example", nodes[index], port) for index in range(count)])

        def open_ports(version: int, count: int) -> None:
            ports = {(nodes[index], port): public[index][1] for index in range(count)}
            book["now"] = Book(ports=ports, version=version)

        grow(1, 2)
        open_ports(1, 2)
        client = AutoDiscoveringClient(public[0], timeout=5, default_noreply=False)
        stack.callback(client.close)
        keys = {f"key-{number}": b"%d" % number for number in range(60)}
        assert client.set_many(keys) == []
        assert client.get_many(list(keys)) == keys
        for address in nodes[:2]:
            direct = Client((address, port), timeout=5)
            assert 10 < len(direct.get_many(list(keys))) < 50, "each node has its share"
            direct.close()
        grow(2, 3)
        assert [port for _, port in client.discover()] == [str(where[1]) for where in public[:2]], "not open yet"
        open_ports(2, 3)
        assert [port for _, port in client.discover()] == [str(where[1]) for where in public]
        assert client.set_many(keys) == []
        assert client.get_many(list(keys)) == keys
        direct = Client((nodes[2], port), timeout=5)
        assert len(direct.get_many(list(keys))) > 5
        direct.close()
        assert relays[0].witness.replies == [Reply.CONFIG] * 3
        assert [relay.witness.fallbacks for relay in relays] == [[], [], []]
