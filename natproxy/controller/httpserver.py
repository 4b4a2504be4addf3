"""A small HTTP server: tables of paths, strict limits and headers. I/O: speaks HTTP on connections it is given.

What answers is looked up by path, then by method. Whoever asks gets one of a few plain answers, and no name or version
of a library.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
from aiohttp import web

__all__ = [
    "HEADERS",
    "MAX_BODY_BYTES",
    "OVER_TLS",
    "Answer",
    "HttpServer",
    "Table",
    "guarded",
    "is_safe_host",
    "json_answer",
    "read_body",
    "table_answer",
    "text_answer",
]

MAX_BODY_BYTES = 4096
MAX_CONNECTIONS = 64
"""At once, on each side, by default. Whoever can connect must not use up the daemon's descriptors."""
BODY_SECONDS = 5.0
IDLE_SECONDS = 30.0
"""How long a connection may be without a whole request."""

HEADERS: Mapping[str, str] = {
    "Server": "natproxy",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer that does not bring its own: nothing is kept, framed, guessed at, or loaded from elsewhere."""
OVER_TLS: Mapping[str, str] = {"Strict-Transport-Security": "max-age=31536000"}
"""Of every answer over TLS, too: browsers never ask this host in the clear again."""

_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
"""A name, an IPv4 address or an IPv6 address in brackets, and perhaps a port."""

Answer = Callable[[web.BaseRequest], Awaitable[web.Response]]
Table = Mapping[str, Mapping[str, Answer]]
"""Path -> method -> what answers. A path that ends in a slash and is more than that stands for all right below it."""


class _Protocol(web.RequestHandler):
    """Answers what is no HTTP at all as plainly as the rest, without aiohttp's name and version."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer; a failure of our own is logged, a bad request is not."""
        if status >= 500:
            self.log_exception("request %s %s failed", request.method, request.path, exc_info=exc)
        response = text_answer(status, "internal error" if status >= 500 else "bad request")
        response.force_close()
        if isinstance(self._manager, HttpServer):
            self._manager.finish(response)
        return response


class HttpServer(web.Server):
    """Answers on every connection that it makes a protocol for, by being called.

    ``tell`` is called with the status of each answer; ``headers`` are added to each. At most one answer is begun
    whenever the loop has come round: a page takes it some milliseconds, and all connections may ask at once.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        most_connections: int = MAX_CONNECTIONS,
        tell: Callable[[int], None] = lambda _: None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        turn = asyncio.Lock()

        async def answer_and_finish(request: web.BaseRequest) -> web.Response:
            async with turn:
                await asyncio.sleep(0)
            response = await answer(request)
            self.finish(response)
            return response

        super().__init__(
            answer_and_finish,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=1.0,
            max_line_size=2048,
            max_field_size=4096,
            max_headers=64,
            auto_decompress=False,
        )
        self._most_connections = most_connections
        self._tell = tell
        self._headers = headers or {}

    def finish(self, response: web.Response) -> None:
        """Do what is done to every answer."""
        response.headers.update(self._headers)
        self._tell(response.status)

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of one more connection."""
        return _Protocol(self, loop=asyncio.get_running_loop(), access_log=cast("Any", None), **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take one more connection in; of too many the oldest go, so that whoever asks now is answered."""
        super().connection_made(handler, transport)
        connections = self.connections
        for old in connections[: max(0, len(connections) - self._most_connections)]:
            if old.transport is not None:  # it may be on its way out already
                old.transport.abort()


def table_answer(table: Table, not_found: str | None = None) -> Answer:
    """Return what answers by a table; ``not_found`` is said of other paths (None: which ones there are)."""
    missing = not_found or f"not found; there is {' '.join(sorted(table))}"

    async def answer_by_table(request: web.BaseRequest) -> web.Response:
        methods = _methods(table, request.path)
        if methods is None:
            return text_answer(404, missing)
        method = "GET" if request.method == "HEAD" else request.method
        if (answer := methods.get(method)) is not None:
            return await answer(request)
        allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in methods)
        return text_answer(405, f"method not allowed; use {allowed}", {"Allow": allowed})

    return answer_by_table


def _methods(table: Table, path: str) -> Mapping[str, Answer] | None:
    if len(path) > 1 and path.endswith("/"):
        return None  # nothing stands right there
    parent = path.rpartition("/")[0] + "/"
    return table.get(path) or (table.get(parent) if len(parent) > 1 else None)


def guarded(answer: Answer) -> Answer:
    """Return what answers only to those who call this host by an address, or localhost.

    So a web page that has its own name point at 127.0.0.1 (DNS rebinding) learns nothing.
    """

    async def guard(request: web.BaseRequest) -> web.Response:
        if is_safe_host(request.headers.get("Host")):
            return await answer(request)
        return text_answer(403, "this Host is not served here: use localhost or an address")

    return guard


def is_safe_host(host: str | None) -> bool:
    """Whether a Host header cannot be another site's name: an address, localhost, or none at all."""
    if host is None:
        return True
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].strip("[]")
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def read_body(request: web.BaseRequest) -> bytes:
    """Return the whole body. Raises HTTPRequestEntityTooLarge, or TimeoutError."""
    body = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        while chunk := await request.content.read(MAX_BODY_BYTES):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(body), headers=HEADERS)
    return bytes(body)


def json_answer(status: int, document: object) -> web.Response:
    """Return a document as JSON."""
    body = msgspec.json.encode(document) + b"\n"
    return web.Response(status=status, body=body, headers={**HEADERS, "Content-Type": "application/json"})


def text_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a plain text."""
    return web.Response(status=status, text=text + "\n", headers={**HEADERS, **(headers or {})})
