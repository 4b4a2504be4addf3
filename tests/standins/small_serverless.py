"""A serverless cache in a few lines: one cluster behind one host name, with two ports. I/O: asyncio streams.

    data = Data("less.example", 6379, 6380)
    with SmallServerless("127.7.0.10", 6379, data), SmallServerless("127.7.0.10", 6380, data): ...

As ElastiCache's, it tells of itself as of a primary at the one port and a replica at the other, by its host name, and
all its addresses have the same data.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.standins.caches import CacheServer
from tests.standins.loop import LoopThread

SLOTS = 16384
IDS = ("1" * 40, "2" * 40)
"""Of the primary, and of the replica."""
COMMANDS = ((b"get", 2, "readonly"), (b"set", -3, "write"), (b"del", -2, "write"))
"""Those that clients have to know more of: name, arity, flag."""


@dataclass
class Data:
    """What all addresses of one cache share."""

    host: str
    port: int
    reader_port: int
    values: dict[bytes, bytes] = field(default_factory=dict)

    def nodes(self) -> list[tuple[str, int, str]]:
        """Return (role, port, id) of each."""
        return [("master", self.port, IDS[0]), ("replica", self.reader_port, IDS[1])]


class Flat(list[object]):
    """A map, which is a flat list in RESP2."""


class SmallServerless(CacheServer):
    """PING, ECHO, HELLO, GET, SET, DEL, CLUSTER SLOTS, SHARDS, NODES and MYID; to all else it says OK."""

    is_real = False

    def __init__(self, address: str, port: int, data: Data, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(address, port)
        self.data = data
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._thread: LoopThread | None = LoopThread(f"serverless-{address}:{port}")
        self._thread.start()
        try:
            self._thread.call(self._listen(tls))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.call(self._close())
            self._thread.stop()
            self._thread = None

    async def _listen(self, tls: ssl.SSLContext | None) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, self.port, ssl=tls)

    async def _close(self) -> None:
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
        protocol = 2
        try:
            while words := await _command(reader):
                if words[0].upper() == b"HELLO" and len(words) > 1:
                    protocol = int(words[1])
                writer.write(_encoded(self._answer(words), protocol))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    def _answer(self, words: Sequence[bytes]) -> object:
        values = self.data.values
        answer: object
        match [words[0].upper(), *words[1:]]:
            case [b"PING"]:
                answer = "PONG"
            case [b"PING" | b"ECHO", said]:
                answer = said
            case [b"HELLO", *more]:
                answer = Flat([b"server", b"redis", b"proto", int(more[0]) if more else 2, b"mode", b"cluster"])
            case [b"GET", key]:
                answer = values.get(key)
            case [b"DEL", *keys]:
                answer = sum(values.pop(key, None) is not None for key in keys)
            case [b"CLUSTER", what, *_]:
                answer = self._cluster(what.upper())
            case [b"COMMAND", *_]:
                answer = [[name, arity, [flag], 1, 1, 1, [], [], [], []] for name, arity, flag in COMMANDS]
            case [b"SET", key, value, *_]:
                values[key], answer = value, "OK"
            case _:
                answer = "OK"
        return answer

    def _cluster(self, what: bytes) -> object:
        data = self.data
        if what == b"SLOTS":
            nodes = [[data.host.encode(), port, node_id.encode(), Flat()] for _, port, node_id in data.nodes()]
            return [[0, SLOTS - 1, *nodes]]
        if what == b"SHARDS":
            shown = [_shards_node(data.host, *node) for node in data.nodes()]
            return [Flat([b"slots", [0, SLOTS - 1], b"nodes", shown])]
        if what == b"NODES":
            return "".join(self._row(*node) for node in data.nodes()).encode()
        return IDS[self.port == data.reader_port].encode() if what == b"MYID" else "OK"

    def _row(self, role: str, port: int, node_id: str) -> str:
        flags = "myself," * (port == self.port) + ("master" if role == "master" else "slave")
        tail = f"- 0 0 1 connected 0-{SLOTS - 1}" if role == "master" else f"{IDS[0]} 0 0 1 connected"
        return f"{node_id} {self.data.host}:{port}@1122 {flags} {tail}\n"


def _shards_node(host: str, role: str, port: int, node_id: str) -> Flat:
    named = {"id": node_id, "tls-port": port, "ip": host, "endpoint": host, "role": role}
    told = {**named, "replication-offset": 0, "health": "online"}
    return Flat([part.encode() if isinstance(part, str) else part for item in told.items() for part in item])


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the next command; nothing at the end."""
    line = await reader.readline()
    if not line.startswith(b"*"):
        return line.split() or ([b"PING"] if line else [])
    words = []
    for _ in range(int(line[1:])):
        length = int((await reader.readline())[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


def _encoded(value: object, protocol: int) -> bytes:
    match value:
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case str():
            return b"+%b\r\n" % value.encode()
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case list():
            head = (
                b"%%%d\r\n" % (len(value) // 2)
                if isinstance(value, Flat) and protocol == 3
                else b"*%d\r\n" % len(value)
            )
            return head + b"".join(_encoded(one, protocol) for one in value)
        case _:
            raise TypeError(value)
