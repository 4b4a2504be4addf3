"""A front before a memcached that tells a node list as ElastiCache's nodes do. I/O: asyncio streams, stdin.

Stock memcached knows no ``config get cluster``. The front answers it, and binary opcode 0x60, in order with the
memcached's own answers; all else it passes on. ``is_old``: as before 1.4.14, where the list is an item instead.

    with FrontedMemcached("127.7.0.10", 11211) as node:
        node.front.tell(12, [("a.example", "127.7.0.10", 11211)])

As a program, inside a network namespace: it says ``ready``, takes a new list with each line, and ends with its stdin:

    python -m tests.standins.memcached_front 10.0.1.230:11211=127.0.0.1:21230 10.0.1.231:11211=127.0.0.1:21231
    12 a.example|10.0.1.230|11211 b.example|10.0.1.231|11211
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

from tests.standins.caches import CacheServer, start_memcached
from tests.standins.loop import LoopThread
from tests.standins.resp import ask_line

CONFIG_ITEM = "AmazonElastiCache:cluster"
LONGEST_KEY = 250
HEADER_BYTES = 24
CONFIG_GET, NOOP = 0x60, 0x0A
LIMIT_BYTES = 1 << 22

Node = tuple[str, str, int]
"""(host name, address, port) as told; the address may be empty."""


@dataclass
class Turn:
    """A question that memcached answers with VERSION, or NOOP: the client's own, or one asked to mark a place."""

    answer: bytes | None
    """What goes to the client in place of memcached's answer; None = that answer itself."""
    has_come: asyncio.Event = field(default_factory=asyncio.Event)


class MemcachedFront:
    """One front: any number of connections, each with one of its own to the memcached behind it."""

    def __init__(self, behind: tuple[str, int], *, is_old: bool = False) -> None:
        self.behind = behind
        self.is_old = is_old
        self.body = b"0\n\n"
        """What it tells: version and node list."""
        self.asked = 0
        """How many times it was asked for it."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    def tell(self, version: int, nodes: Iterable[Node]) -> None:
        """Tell this list from now on."""
        self.body = node_list(version, nodes)
        if self.is_old:
            ask_line(*self.behind, f"set {CONFIG_ITEM} 0 0 {len(self.body)}\r\n{self.body.decode()}")

    async def listen(self, address: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Start to serve."""
        self._server = await asyncio.start_server(self._serve, address, port, ssl=tls, limit=LIMIT_BYTES)

    async def close(self) -> None:
        """Stop to serve, and cut every connection."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            behind, behind_writer = await asyncio.open_connection(*self.behind, limit=LIMIT_BYTES)
            try:
                await self._join(reader, writer, behind, behind_writer)
            finally:
                behind_writer.transport.abort()
        except* (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        behind: asyncio.StreamReader,
        behind_writer: asyncio.StreamWriter,
    ) -> None:
        """Pass everything on until the memcached ends, which it does when the client does."""
        first = await reader.readexactly(1)
        turns: deque[Turn] = deque()
        asked, answered = (
            (self._binary_asked, _binary_answered) if first == b"\x80" else (self._text_asked, _text_answered)
        )
        async with asyncio.TaskGroup() as ways:
            ways.create_task(answered(behind, writer, turns))
            with contextlib.suppress(asyncio.IncompleteReadError):
                await asked(first, reader, behind_writer, turns)
            behind_writer.write_eof()

    async def _text_asked(
        self, first: bytes, reader: asyncio.StreamReader, behind: asyncio.StreamWriter, turns: deque[Turn]
    ) -> None:
        line = first if first == b"\n" else first + await reader.readuntil(b"\n")
        while True:
            words = split_words(line)
            if words == [b"config", b"get", b"cluster"] and not self.is_old:
                self.asked += 1
                told = b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(self.body), self.body)
                await _take_turn(behind, b"version\r\n", turns, told)
            elif words[:1] == [b"version"]:
                await _take_turn(behind, line, turns, None)
            else:
                behind.write(line)
                behind.write(await reader.readexactly(block_bytes(words)))
                await behind.drain()
            line = await reader.readuntil(b"\n")

    async def _binary_asked(
        self, first: bytes, reader: asyncio.StreamReader, behind: asyncio.StreamWriter, turns: deque[Turn]
    ) -> None:
        header = first + await reader.readexactly(HEADER_BYTES - 1)
        while True:
            body = await reader.readexactly(int.from_bytes(header[8:12], "big"))
            if header[1] == CONFIG_GET and body == b"cluster":
                self.asked += 1
                told = packet(CONFIG_GET, header[12:16], bytes(4), self.body)
                await _take_turn(behind, packet(NOOP, bytes(4), b"", b"", magic=0x80), turns, told)
            elif header[1] == NOOP:
                await _take_turn(behind, header + body, turns, None)
            else:
                behind.write(header + body)
                await behind.drain()
            header = await reader.readexactly(HEADER_BYTES)


async def _take_turn(behind: asyncio.StreamWriter, question: bytes, turns: deque[Turn], answer: bytes | None) -> None:
    """Ask, and wait for the answer: memcached 1.6 drops answers not sent yet where it then refuses a multi-get."""
    turns.append(turn := Turn(answer))
    behind.write(question)
    await behind.drain()
    await turn.has_come.wait()


def _answered(turns: deque[Turn], came: bytes) -> bytes:
    turn = turns.popleft()
    turn.has_come.set()
    return came if turn.answer is None else turn.answer


async def _text_answered(reader: asyncio.StreamReader, client: asyncio.StreamWriter, turns: deque[Turn]) -> None:
    while True:
        line = await reader.readuntil(b"\n")
        match split_words(line):
            case [b"VERSION", *_]:
                client.write(_answered(turns, line))
            case [b"VALUE", _, _, size, *_] | [b"VA", size, *_]:
                client.write(line + await reader.readexactly(int(size) + 2))
            case _:
                client.write(line)
        await client.drain()


async def _binary_answered(reader: asyncio.StreamReader, client: asyncio.StreamWriter, turns: deque[Turn]) -> None:
    while True:
        header = await reader.readexactly(HEADER_BYTES)
        came = header + await reader.readexactly(int.from_bytes(header[8:12], "big"))
        client.write(_answered(turns, came) if header[1] == NOOP else came)
        await client.drain()


def node_list(version: int, nodes: Iterable[Node]) -> bytes:
    """Return what a node tells."""
    return f"{version}\n{' '.join(f'{host}|{ip}|{port}' for host, ip, port in nodes)}\n".encode()


def split_words(line: bytes) -> list[bytes]:
    """Return a line's words; memcached splits at spaces only."""
    return [word for word in line.rstrip(b"\r\n").split(b" ") if word]


def block_bytes(words: Sequence[bytes]) -> int:
    """Return how many bytes memcached 1.6 takes after a command's line, CR LF included; 0 where it refuses the line."""
    match words:
        case [b"set" | b"add" | b"replace" | b"append" | b"prepend", key, flags, expires, size, *rest]:
            is_good = len(rest) <= 1 and _are_numbers(flags, expires, size)
        case [b"cas", key, flags, expires, size, unique, *rest]:
            is_good = len(rest) <= 1 and _are_numbers(flags, expires, size, unique)
        case [b"ms", key, size, *_]:
            is_good = _are_numbers(size)
        case _:
            return 0
    return int(size) + 2 if is_good and len(key) <= LONGEST_KEY and int(size) >= 0 else 0


def _are_numbers(*words: bytes) -> bool:
    return all(word.removeprefix(b"-").isdigit() for word in words)


def packet(opcode: int, opaque: bytes, extras: bytes, body: bytes, *, key: bytes = b"", magic: int = 0x81) -> bytes:
    """Return a binary packet: a successful answer, or with magic 0x80 a question."""
    head = bytes([magic, opcode]) + len(key).to_bytes(2, "big") + bytes([len(extras), 0, 0, 0])
    size = len(extras) + len(key) + len(body)
    return head + size.to_bytes(4, "big") + opaque + bytes(8) + extras + key + body


class FrontedMemcached(CacheServer):
    """A node of an ElastiCache cluster: a memcached at a port that nobody knows, and a front before it."""

    def __init__(
        self,
        address: str,
        port: int,
        *,
        prefer_real: bool = True,
        is_old: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(address, port)
        self.clear_port = _free_port(address)
        self.memcached = start_memcached(address, self.clear_port, prefer_real=prefer_real)
        self.is_real = self.memcached.is_real
        self.front = MemcachedFront((address, self.clear_port), is_old=is_old)
        self._thread: LoopThread | None = LoopThread(f"memcached-front-{address}")
        self._thread.start()
        try:
            self._thread.call(self.front.listen(address, port, tls))
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int | None:
        return self.memcached.pid

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.call(self.front.close())
            self._thread.stop()
            self._thread = None
        self.memcached.stop()


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class AutoDiscoveringClient(HashClient):  # type: ignore[misc]
    """Asks, reads and dials as pymemcache's own AWSElastiCacheHashClient, which no release has (4.0.0 is the latest).

    https://github.com/pinterest/pymemcache/pull/572
    """

    def __init__(self, configuration: tuple[str, int], *, by_name: bool = False, **options: object) -> None:
        super().__init__([], **options)
        self.configuration = configuration
        self.by_name = by_name
        """Dial host names; as there, addresses are dialled otherwise."""
        self.discover()

    def discover(self) -> list[tuple[str, str]]:
        """Take the node list as it is now, and dial the nodes in it."""
        asking = Client(self.configuration, **self.default_kwargs)
        try:
            answer = asking.raw_command(b"config get cluster", end_tokens=b"\n\r\nEND\r\n")
        finally:
            asking.close()
        nodes = [node.split("|") for node in answer.splitlines()[-1].decode().split(" ")]
        found = [(node[0 if self.by_name else 1], node[2]) for node in nodes]
        for client in self.clients.values():
            client.close()
        self.clients.clear()
        for key in list(self.hasher.nodes):
            self.hasher.remove_node(key)
        for server in found:
            self.add_server(server)
        return found


async def serve(pairs: Sequence[str]) -> None:
    """Be the program: ``address:port=address:port`` for each front and the memcached behind it."""
    fronts: list[MemcachedFront] = []
    for pair in pairs:
        where, behind = (_where(text) for text in pair.split("="))
        fronts.append(MemcachedFront(behind))
        await fronts[-1].listen(*where)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        version, *nodes = line.split()
        told = [(host, ip, int(port)) for host, ip, port in (node.split("|") for node in nodes)]
        for front in fronts:
            front.tell(int(version), told)
        print("told", flush=True)
    for front in fronts:
        await front.close()


def _where(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address, int(port)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
