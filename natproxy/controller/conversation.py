"""Asks one node for its cluster's topology, on a connection of its own. I/O: talks to nodes.

It sends AUTH (where there is a login) and CLUSTER SHARDS, or SLOTS to a node that is too old for that, and nothing
else: ElastiCache refuses most of what looks at a node. What a node answers to AUTH is not repeated anywhere, as some
errors repeat the command.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import NamedTuple

from natproxy.controller.logins import Login
from natproxy.controller.shards import Topology, read_shards, read_slots
from natproxy.errors import NatproxyError
from natproxy.model import Address
from natproxy.tls.failures import why
from natproxy.wire.frames import NoFrameError, skip_frames

ANSWER_SECONDS = 3.0
"""For each answer, from the question to its last byte."""
MOST_ANSWER_BYTES = 8 * 1024 * 1024
REFUSALS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})
_CODE = re.compile(rb"-([A-Z]{2,32})[ \r]")
_CHUNK_BYTES = 64 * 1024
_QUESTIONS: tuple[tuple[bytes, Callable[[bytes, Address], Topology | None]], ...] = (
    (b"SHARDS", read_shards),
    (b"SLOTS", read_slots),
)


class NotToldError(NatproxyError):
    """The node did not answer as hoped; the text says how."""


class RefusedError(NotToldError):
    """It asks for other credentials, or for more rights; the text is one of REFUSALS."""


class Where(NamedTuple):
    """One node, and how it is spoken to."""

    address: Address
    tls: ssl.SSLContext | None
    server_name: str
    """What its certificate must name."""
    connect_seconds: float
    handshake_seconds: float


async def ask_topology(where: Where, login: Login | None) -> Topology:
    """Return what the node says. Raises NotToldError."""
    try:
        reader, writer = await _connect(where)
        try:
            return await _ask(reader, writer, where.address, login)
        finally:
            writer.transport.abort()
    except TimeoutError as error:
        raise NotToldError(str(error) or "it does not answer in time") from error
    except ssl.SSLError as error:
        reason, text = why(error, is_server=False)
        message = f"TLS handshake fails: {reason}: {text}"
        raise NotToldError(message) from error
    except OSError as error:
        raise NotToldError(error.strerror or str(error) or type(error).__name__) from error


async def _connect(where: Where) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    ip, port = where.address
    handshake_seconds = 0.0 if where.tls is None else where.handshake_seconds
    async with asyncio.timeout(where.connect_seconds + handshake_seconds):
        if where.tls is None:
            return await asyncio.open_connection(ip, port)
        return await asyncio.open_connection(ip, port, ssl=where.tls, server_hostname=where.server_name)


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Address, login: Login | None
) -> Topology:
    if login is not None:
        # A node without passwords answers with an error too, and then to what is asked.
        _raise_if_refused(await _answer(reader, writer, *login.words()))
    for question, read in _QUESTIONS:
        answer = await _answer(reader, writer, b"CLUSTER", question)
        if answer[:1] != b"-":
            topology = read(answer, asked)
            if topology is None:
                message = f"what it answers to CLUSTER {question.decode()} is not understood"
                raise NotToldError(message)
            return topology
        _raise_if_refused(answer)
    raise NotToldError("it knows neither CLUSTER SHARDS nor CLUSTER SLOTS")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *words: bytes) -> bytes:
    """Send a command, and return the whole reply to it."""
    writer.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
    data, next_frame, left = bytearray(), 0, 1
    async with asyncio.timeout(ANSWER_SECONDS):
        while left or next_frame > len(data):
            chunk = await reader.read(_CHUNK_BYTES)
            if not chunk:
                raise NotToldError("it closes the connection")
            data += chunk
            if len(data) > MOST_ANSWER_BYTES:
                message = f"its answer is longer than {MOST_ANSWER_BYTES} bytes"
                raise NotToldError(message)
            if next_frame < len(data):
                try:
                    pos, left, beyond = skip_frames(data, next_frame, left)
                except NoFrameError:
                    raise NotToldError("it does not speak as Redis does") from None
                next_frame = pos + beyond
    return bytes(data)


def _raise_if_refused(answer: bytes) -> None:
    code = _CODE.match(answer)
    if code is not None and (word := code[1].decode()) in REFUSALS:
        raise RefusedError(word)
