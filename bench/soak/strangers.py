"""Clients on bare sockets, most of which do what no library would: vanish, never read, send what is no RESP.

    python -m bench.soak.strangers ORDER

I/O: talks to nodes through natproxy; prints JSON (orders.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Sequence

from bench.soak.orders import MOST_TOLD, REPLY_SECONDS, Order, Told, encode, order_of
from natproxy.wire.rewriter import Fallback

TASKS = 12
PAUSE_SECONDS = 0.02
SHORT_SECONDS = 0.3
LARGE_BYTES = 1 << 20
STREAM_LIMIT = 4 << 20
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time."""
RESP = (b"2", b"3")

Parsed = bytes | list["Parsed"] | None


class NoReplyError(Exception):
    """What came is no RESP."""


def command(*words: bytes) -> bytes:
    """Return a command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def reply(reader: StreamReader) -> Parsed:
    """Read one reply: a line with its mark, a bulk string's body, or a list."""
    line = await reader.readuntil(b"\r\n")
    mark, rest = line[:1], line[1:-2]
    if mark in b"+-:_,#(":
        return line[:-2]
    if mark in b"$=":
        return None if rest == b"-1" else (await reader.readexactly(int(rest) + 2))[:-2]
    if mark in b"*~>%":
        return [await reply(reader) for _ in range(int(rest) * (2 if mark == b"%" else 1))]
    raise NoReplyError(line[:80])


def texts(parsed: Parsed) -> bytes:
    """Return all that a reply says, to be searched."""
    if isinstance(parsed, list):
        return b"\n".join(map(texts, parsed))
    return parsed or b""


class Strangers:
    """Everybody of one program."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._chance = random.Random(f"{order.seed} strangers")
        self._hidden = [prefix.encode() for prefix in order.hidden]
        self.told = Told()
        self._acts: dict[str, Callable[[StreamReader, StreamWriter], Awaitable[None]]] = {
            "pipelines with topologies in them": self._ask_everything,
            "transactions with topologies in them": self._ask_in_transaction,
            "subscribers": self._subscribe,
            "monitors": self._monitor,
            "clients that want no replies": self._want_no_reply,
            "senders of what is no RESP": self._talk_nonsense,
            "senders of noise": self._make_noise,
            "commands that never end": self._stop_in_command,
            "values that never end": self._stop_in_value,
            "clients that never read": self._never_read,
            "clients that wait and vanish": self._wait_in_vain,
            "connections that say nothing": self._say_nothing,
        }

    async def come_and_go(self, until: float) -> None:
        """Be one after the other, until then (time.monotonic)."""
        while time.monotonic() < until:
            kind, act = self._chance.choice(list(self._acts.items()))
            await self._visit(kind, act)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _visit(self, kind: str, act: Callable[[StreamReader, StreamWriter], Awaitable[None]]) -> None:
        port = self._chance.choice(self._order.ports)
        try:
            reader, writer = await asyncio.open_connection(self._order.host, port, limit=STREAM_LIMIT)
        except OSError as error:
            self.told.errors[type(error).__name__] += 1
            return
        self.told.visits[kind] += 1
        try:
            await act(reader, writer)
        except TimeoutError:
            self._tell(self.told.silent, f"{kind}, port {port}")
        except NoReplyError as error:
            self._tell(self.told.wrong, f"{kind}, port {port}: {error}")
        except (OSError, asyncio.IncompleteReadError) as error:  # a node that changes takes its connections along
            self.told.errors[type(error).__name__] += 1
        finally:
            self._leave(writer)

    def _leave(self, writer: StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            if self._chance.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()

    def _tell(self, where: list[str], text: str) -> None:
        if len(where) < MOST_TOLD:
            where.append(text[:500])

    async def _next(self, reader: StreamReader) -> Parsed:
        """Read a reply in which no node's own address may be."""
        found = await asyncio.wait_for(reply(reader), REPLY_SECONDS)
        said = texts(found)
        if any(prefix in said for prefix in self._hidden):
            self._tell(self.told.leaked, said.decode(errors="replace"))
        return found

    async def _send_split(self, writer: StreamWriter, data: bytes) -> None:
        """Send it in pieces."""
        while data:
            count = self._chance.choice((1, 7, 40, 500, len(data)))
            writer.write(data[:count])
            await asyncio.sleep(0)
            data = data[count:]

    # who reads what is answered

    async def _hello(self, reader: StreamReader, writer: StreamWriter) -> bool:
        """Speak RESP2 or RESP3; return whether it is RESP3."""
        version = self._chance.choice(RESP)
        writer.write(command(b"HELLO", version))
        await self._next(reader)
        return version == b"3"

    def _puzzle(self) -> bytes:
        """Return a value that looks like something else."""
        return self._chance.choice(
            (
                b"x",
                b"-MOVED 1 10.0.0.1:6379\r\n",
                b"*1\r\n$4\r\nPING\r\n",
                b"\r\n$5\r\nhello\r\n",
                b"y" * 100,
                b"z" * 40_000,
            )
        )

    async def _ask_everything(self, reader: StreamReader, writer: StreamWriter) -> None:
        await self._hello(reader, writer)
        for _ in range(self._chance.randrange(1, 4)):
            words: list[tuple[Sequence[bytes], bytes | None]] = []
            for _ in range(self._chance.randrange(1, 60)):
                puzzle = self._puzzle()
                topology = self._chance.choice((b"SLOTS", b"SHARDS", b"NODES"))
                words.append(
                    self._chance.choice(
                        (
                            ((b"ECHO", puzzle), puzzle),
                            ((b"PING",), b"+PONG"),
                            ((b"CLUSTER", topology), None),
                            ((b"ROLE",), None),
                            ((b"INFO", b"replication"), None),
                            ((b"GET", b"somewhere:%d" % self._chance.randrange(10**6)), None),
                        )
                    )
                )
            await self._send_split(writer, b"".join(command(*asked) for asked, _ in words))
            for asked, wanted in words:
                found = await self._next(reader)
                if wanted is not None and found != wanted:
                    self._tell(self.told.wrong, f"{asked[0]!r} of {wanted[:60]!r}: {texts(found)[:200]!r}")

    async def _ask_in_transaction(self, reader: StreamReader, writer: StreamWriter) -> None:
        await self._hello(reader, writer)
        puzzle = self._puzzle()
        asked = [(b"ECHO", puzzle), (b"CLUSTER", b"SLOTS"), (b"PING",), (b"CLUSTER", b"NODES"), (b"ROLE",)]
        batch = [(b"MULTI",), *asked, (b"EXEC",), (b"ECHO", b"after")]
        await self._send_split(writer, b"".join(command(*words) for words in batch))
        *_, results, after = [await self._next(reader) for _ in batch]
        is_good = isinstance(results, list) and len(results) == len(asked) and results[0] == puzzle
        if not is_good or after != b"after":
            self._tell(self.told.wrong, f"EXEC: {texts(results)[:200]!r}, after it {texts(after)[:100]!r}")

    async def _subscribe(self, reader: StreamReader, writer: StreamWriter) -> None:
        await self._hello(reader, writer)
        channels = [b"channel:%d" % number for number in range(self._chance.randrange(1, 6))]
        writer.write(command(b"SUBSCRIBE", *channels) + command(b"PSUBSCRIBE", b"chan*"))
        for channel in (*channels, b"chan*"):
            found = await self._next(reader)
            if not isinstance(found, list) or found[1] != channel:
                self._tell(self.told.wrong, f"subscribed to {channel!r}: {texts(found)[:200]!r}")
        other_reader, other = await asyncio.open_connection(self._order.host, self._chance.choice(self._order.ports))
        try:
            for _ in range(20):
                other.write(command(b"PUBLISH", channels[0], self._puzzle()))
                await self._next(other_reader)
            with contextlib.suppress(TimeoutError):
                while True:
                    found = await asyncio.wait_for(reply(reader), SHORT_SECONDS)
                    if not isinstance(found, list) or found[0] not in (b"message", b"pmessage"):
                        self._tell(self.told.wrong, f"as a subscriber: {texts(found)[:200]!r}")
        finally:
            other.transport.abort()

    # whom natproxy does not read to the end

    async def _monitor(self, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(command(b"MONITOR"))
        if await self._next(reader) == b"+OK":
            self.told.provoked[Fallback.MONITOR] += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.readexactly(20_000), SHORT_SECONDS)

    async def _want_no_reply(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.told.provoked[Fallback.REPLY_OFF] += 1
        writer.write(command(b"CLIENT", b"REPLY", b"OFF") + command(b"PING") * 5 + command(b"CLIENT", b"REPLY", b"ON"))
        if (found := await self._next(reader)) != b"+OK":
            self._tell(self.told.wrong, f"CLIENT REPLY ON: {texts(found)[:200]!r}")

    async def _talk_nonsense(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.told.provoked[Fallback.REQUEST] += 1
        writer.write(self._chance.choice((b"*1\r\n!\r\n", b"*x\r\n", b"*2\r\n$-7\r\n", b"*1\r\n$999999999999999\r\n")))
        while await asyncio.wait_for(reader.read(STREAM_LIMIT), REPLY_SECONDS):
            pass  # the node says what it thinks of it, and closes

    async def _make_noise(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.told.provoked[Fallback.REQUEST] += 1
        self.told.provoked[Fallback.ANSWER] += 1  # what looks like a command of several words
        writer.write(self._chance.randbytes(self._chance.randrange(1, 20_000)))
        with contextlib.suppress(TimeoutError):
            while await asyncio.wait_for(reader.read(STREAM_LIMIT), SHORT_SECONDS):
                pass

    # who vanishes

    async def _stop_in_command(self, _: StreamReader, writer: StreamWriter) -> None:
        whole = command(b"SET", b"never", b"x" * 50)
        writer.write(command(b"PING") + whole[: self._chance.randrange(1, len(whole))])
        await asyncio.sleep(self._chance.random() * SHORT_SECONDS)

    async def _stop_in_value(self, _: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"*3\r\n$3\r\nSET\r\n$5\r\nnever\r\n$%d\r\n" % (8 * LARGE_BYTES))
        writer.write(b"x" * self._chance.randrange(8 * LARGE_BYTES))
        await asyncio.sleep(self._chance.random() * SHORT_SECONDS)

    async def _never_read(self, _: StreamReader, writer: StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(command(b"ECHO", b"x" * LARGE_BYTES) * 8 + command(b"CLUSTER", b"NODES") * 50)
        await asyncio.sleep(1 + self._chance.random())

    async def _wait_in_vain(self, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(command(b"BLPOP", b"never{%d}" % self._chance.randrange(1000), b"0"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reply(reader), 2 * SHORT_SECONDS)

    async def _say_nothing(self, _reader: StreamReader, _writer: StreamWriter) -> None:
        await asyncio.sleep(self._chance.random())


async def run(order: Order) -> Told:
    """Come and go."""
    strangers = Strangers(order)
    until = time.monotonic() + order.seconds
    await asyncio.gather(*(strangers.come_and_go(until) for _ in range(TASKS)))
    return strangers.told


if __name__ == "__main__":
    print(encode(asyncio.run(run(order_of(sys.argv[1])))))
