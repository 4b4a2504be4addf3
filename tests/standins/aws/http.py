"""HTTP/1.1, as little of it as boto3 and a test need, with a hold on the raw connection. I/O: asyncio streams."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, and how it is spoilt, if it is."""

    status: int
    body: bytes
    content_type: str = "text/xml"
    ending: str = ""
    """Empty = properly. reset | close (nothing is sent) | cut-off (half of the body is sent, then the end)."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def head(self) -> bytes:
        """Everything before the body."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def json_reply(status: int, document: object) -> Reply:
    """Answer with JSON."""
    return Reply(status, json.dumps(document).encode(), "application/json")


Handler = Callable[[Request], Awaitable[Reply]]


class HttpServer:
    """Serves ``handler`` on TCP and Unix sockets. All its methods belong into the loop."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[object]] = set()

    async def listen(self, address: str, port: int) -> int:
        """Listen on an address; return the port, which is chosen where 0 is given."""
        server = await asyncio.start_server(self._serve, address, port)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket."""
        self._servers.append(await asyncio.start_unix_server(self._serve, path))

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports' own last callbacks

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (request := await _read(reader)) is not None:
                if not await _write(writer, await self._handler(request)):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if length > MAX_BODY_BYTES:
        raise ConnectionAbortedError
    return Request(method, target, headers, await reader.readexactly(length))


async def _write(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    """Send a reply; return whether the connection can carry another request."""
    match reply.ending:
        case "reset":
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        case "close":
            return False
        case "cut-off":
            writer.write(reply.head() + reply.body[: len(reply.body) // 2])
            await writer.drain()
            return False
        case _:
            writer.write(reply.head() + reply.body)
            await writer.drain()
            return True
