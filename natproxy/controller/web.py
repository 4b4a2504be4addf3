"""The admin side: HTTP for the operator, read-only, and on the control socket. I/O: listens, and talks to HTTP clients.

Two small servers over one source. Both answer GET and HEAD of /metrics, /healthz, /readyz and /routes; the TCP side
also shows the pages (adminpages.py), and the control socket, which only root and the daemon's own user can open, has
GET /ports, POST /reload and POST /ports/release. In the clear, a web page that has its own name point at 127.0.0.1 (DNS
rebinding) is refused by its Host header; over TLS a browser would need the operator's certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import web

from natproxy.controller.adminpages import AdminPages
from natproxy.controller.controlsocket import ControlSocket
from natproxy.controller.door import Door
from natproxy.controller.httpserver import (
    HEADERS,
    OVER_TLS,
    Answer,
    HttpServer,
    Table,
    guarded,
    json_answer,
    read_body,
    table_answer,
    text_answer,
)
from natproxy.controller.sockets import BindError, Sockets
from natproxy.controller.webmetrics import SideCounts
from natproxy.controller.webtls import WebTls, verified
from natproxy.documents import ReloadVerdict, StatusDocument
from natproxy.errors import NatproxyError, ReleaseError, StateError
from natproxy.model import Network

__all__ = ["Admin", "AdminSource", "ReloadVerdict"]


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

    def status(self) -> StatusDocument:
        """Return how everything stands."""
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


class Admin:
    """Both servers; ``start`` and ``start_control`` once each, then ``stop``."""

    def __init__(self, source: AdminSource, counts: SideCounts | None = None) -> None:
        self._source = source
        self._counts = SideCounts("admin") if counts is None else counts
        self._doors: list[Door] = []
        self._servers: list[tuple[asyncio.Server, HttpServer]] = []
        self._control: ControlSocket | None = None

    async def start(
        self, address: str, port: int, *, allow: Iterable[Network] | None = None, tls: WebTls | None = None
    ) -> int:
        """Listen on ``address``; return the port (which 0 leaves to the system). Raises NatproxyError.

        ``allow`` None: everyone. ``tls`` None: in the clear, and answered from now on; else once ``open_tls`` is
        called.
        """
        try:
            listeners = Sockets([address]).open(port)
        except BindError as error:
            why = error.__cause__
            reason = why.strerror if isinstance(why, OSError) else error
            raise NatproxyError(f"cannot open the admin side on {address} port {port}: {reason}") from error
        answer = table_answer({**self._read_only(), **AdminPages(self._source).table()})
        tell = self._counts.record_request
        if tls is None:
            http = HttpServer(guarded(answer), tell=tell)
        else:
            http = HttpServer(verified(tls, answer), tell=tell, headers=OVER_TLS)
        door = Door("admin side", listeners, http, counts=self._counts, allow=allow, tls=tls)
        self._doors.append(door)
        if tls is None:
            door.open()
        return door.port

    def open_tls(self) -> None:
        """Begin to answer over TLS, now that the certificates have been read."""
        for door in self._doors:
            if door.has_tls:
                door.open()

    def tick(self) -> None:
        """End the connections of those who are not let in any more; to be called about once a second."""
        for door in self._doors:
            door.tick()

    async def start_control(self, path: Path) -> None:
        """Serve on a Unix socket at ``path``, for its owner only. Raises NatproxyError."""
        source = self._source
        table: Table = {
            **self._read_only(),
            "/ports": {"GET": lambda _: _json(200, source.ports())},
            "/reload": {"POST": self._reload},
            "/ports/release": {"POST": self._release},
        }
        http = HttpServer(table_answer(table))
        self._control = ControlSocket(path)
        server = await asyncio.get_running_loop().create_unix_server(http, sock=self._control.listener)
        self._servers.append((server, http))

    async def stop(self, timeout_seconds: float = 1.0) -> None:
        """Stop listening, let requests that are being answered end for ``timeout_seconds``, remove the socket."""
        if self._control is not None:
            self._control.remove()  # first: once nobody listens, the name may be a new daemon's
        for server, _ in self._servers:
            server.close()
        ends = [http.shutdown(timeout_seconds) for _, http in self._servers]
        await asyncio.gather(*ends, *(door.close(timeout_seconds) for door in self._doors))
        self._servers.clear()
        self._doors.clear()
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
            body = msgspec.json.decode(await read_body(request), type=_ReleaseBody)
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


async def _metrics(exposition: tuple[bytes, str]) -> web.Response:
    body, content_type = exposition
    return web.Response(body=body, headers={**HEADERS, "Content-Type": content_type})


async def _verdict(verdict: tuple[bool, str]) -> web.Response:
    is_good, text = verdict
    return text_answer(200 if is_good else 503, text)


async def _json(status: int, document: object) -> web.Response:
    return json_answer(status, document)
