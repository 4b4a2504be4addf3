"""The admin side: HTTP on a loopback address, read-only, and on the control socket. I/O: talks to HTTP clients.

Two small servers over one source. Both answer GET and HEAD of /metrics, /healthz, /readyz and /routes; the control
socket, which only root and the daemon's own user can open, also GET /ports, POST /reload and POST /ports/release.
A web page that has its own name point at 127.0.0.1 (DNS rebinding) is refused by its Host header.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
from aiohttp import web

from natproxy.controller.controlsocket import ControlSocket
from natproxy.documents import ReloadVerdict
from natproxy.errors import NatproxyError, ReleaseError, StateError

__all__ = ["Admin", "AdminSource", "ReloadVerdict"]

MAX_BODY_BYTES = 4096
MAX_CONNECTIONS = 64
"""At once, on each side. Any user of the host can connect, and must not use up the daemon's descriptors."""
BODY_SECONDS = 5.0
IDLE_SECONDS = 30.0
"""How long a connection may be without a whole request."""

_HEADERS = {"Server": "natproxy", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
"""A name, an IPv4 address or an IPv6 address in brackets, and perhaps a port."""

Answer = Callable[[web.BaseRequest], Awaitable[web.Response]]
Table = Mapping[str, Mapping[str, Answer]]
"""Path -> method -> what answers."""


class AdminSource(Protocol):
    """What the admin side shows and asks for."""

    def metrics(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        ...

    def health(self) -> tuple[bool, str]:
        """Return whether the controller and its workers answer, and a line on it."""
        ...

    def readiness(self) -> tuple[bool, str]:
        """Return whether natproxy knows its caches, and a line on it."""
        ...

    def routes(self) -> dict[str, Any]:
        """Return ``status.routes_document``."""
        ...

    def ports(self) -> dict[str, Any]:
        """Return ``status.ports_document``."""
        ...

    async def reload(self) -> ReloadVerdict:
        """Reload the config, all or nothing."""
        ...

    def release(self, name: str) -> str:
        """Give a gone node's port back; return a line on it. Raises ReleaseError or StateError."""
        ...


class _Protocol(web.RequestHandler):
    """Answers what is no HTTP at all as plainly as the rest, without aiohttp's name and version."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer; a failure of our own is logged, a bad request is not."""
        if status >= 500:
            self.log_exception("admin request %s %s failed", request.method, request.path, exc_info=exc)
        response = _text(status, "internal error" if status >= 500 else "bad request")
        response.force_close()
        return response


class _Server(web.Server):
    """A server whose connections are ``_Protocol``."""

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=asyncio.get_running_loop(), access_log=cast("Any", None), **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take one more connection in; of too many the oldest go, so that whoever asks now is answered."""
        super().connection_made(handler, transport)
        connections = self.connections
        for old in connections[: max(0, len(connections) - MAX_CONNECTIONS)]:
            if old.transport is not None:  # it may be on its way out already
                old.transport.abort()


class Admin:
    """Both servers; ``start`` and ``start_control`` once each, then ``stop``."""

    def __init__(self, source: AdminSource) -> None:
        self._source = source
        self._servers: list[tuple[asyncio.Server, _Server]] = []
        self._control: ControlSocket | None = None

    async def start(self, address: str, port: int) -> int:
        """Serve on ``address``; return the port (which 0 leaves to the system). Raises NatproxyError."""
        protocol = _server(_guarded(_dispatch(self._read_only())))
        try:
            server = await asyncio.get_running_loop().create_server(protocol, address, port)
        except OSError as error:
            message = f"cannot open the admin side on {address} port {port}: {error.strerror or error}"
            raise NatproxyError(message) from error
        self._servers.append((server, protocol))
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def start_control(self, path: Path) -> None:
        """Serve on a Unix socket at ``path``, for its owner only. Raises NatproxyError."""
        source = self._source
        table: Table = {
            **self._read_only(),
            "/ports": {"GET": lambda _: _json(200, source.ports())},
            "/reload": {"POST": self._reload},
            "/ports/release": {"POST": self._release},
        }
        protocol = _server(_dispatch(table))
        self._control = ControlSocket(path)
        server = await asyncio.get_running_loop().create_unix_server(protocol, sock=self._control.listener)
        self._servers.append((server, protocol))

    async def stop(self, timeout_seconds: float = 1.0) -> None:
        """Stop listening, let requests that are being answered end for ``timeout_seconds``, remove the socket."""
        if self._control is not None:
            self._control.remove()  # first: once nobody listens, the name may be a new daemon's
        for server, _ in self._servers:
            server.close()
        await asyncio.gather(*(protocol.shutdown(timeout_seconds) for _, protocol in self._servers))
        self._servers.clear()
        self._control = None

    def _read_only(self) -> dict[str, Mapping[str, Answer]]:
        source = self._source
        return {
            "/metrics": {"GET": lambda _: _metrics(source.metrics())},
            "/healthz": {"GET": lambda _: _verdict(source.health())},
            "/readyz": {"GET": lambda _: _verdict(source.readiness())},
            "/routes": {"GET": lambda _: _json(200, source.routes())},
        }

    async def _reload(self, _: web.BaseRequest) -> web.Response:
        return await _json(200, await self._source.reload())

    async def _release(self, request: web.BaseRequest) -> web.Response:
        try:
            body = msgspec.json.decode(await _body(request), type=_ReleaseBody)
        except TimeoutError:
            return await _json(408, {"error": "the body did not come in time"})
        except msgspec.MsgspecError:
            return await _json(400, {"error": 'the body is not {"name": "..."}'})
        try:
            return await _json(200, {"message": self._source.release(body.name)})
        except ReleaseError as error:
            return await _json(409, {"error": str(error)})
        except StateError as error:
            return await _json(507, {"error": str(error)})


class _ReleaseBody(msgspec.Struct, frozen=True):
    name: str


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


def _server(answer: Answer) -> _Server:
    return _Server(
        answer,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=1.0,
        max_line_size=2048,
        max_field_size=4096,
        max_headers=64,
        auto_decompress=False,
    )


def _guarded(answer: Answer) -> Answer:
    async def guard(request: web.BaseRequest) -> web.Response:
        if is_safe_host(request.headers.get("Host")):
            return await answer(request)
        return _text(403, "this Host is not served here: use localhost or an address")

    return guard


def _dispatch(table: Table) -> Answer:
    async def dispatch(request: web.BaseRequest) -> web.Response:
        methods = table.get(request.path)
        if methods is None:
            return _text(404, f"not found; there is {' '.join(sorted(table))}")
        method = "GET" if request.method == "HEAD" else request.method
        if (answer := methods.get(method)) is not None:
            return await answer(request)
        allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in methods)
        return _text(405, f"method not allowed; use {allowed}", {"Allow": allowed})

    return dispatch


async def _body(request: web.BaseRequest) -> bytes:
    """Return the whole body. Raises HTTPRequestEntityTooLarge, or TimeoutError."""
    body = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        while chunk := await request.content.read(MAX_BODY_BYTES):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(body), headers=_HEADERS)
    return bytes(body)


async def _metrics(exposition: tuple[bytes, str]) -> web.Response:
    body, content_type = exposition
    return web.Response(body=body, headers={**_HEADERS, "Content-Type": content_type})


async def _verdict(verdict: tuple[bool, str]) -> web.Response:
    is_good, text = verdict
    return _text(200 if is_good else 503, text)


async def _json(status: int, document: object) -> web.Response:
    body = msgspec.json.encode(document) + b"\n"
    return web.Response(status=status, body=body, headers={**_HEADERS, "Content-Type": "application/json"})


def _text(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers={**_HEADERS, **(headers or {})})
