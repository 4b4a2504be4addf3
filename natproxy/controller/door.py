"""A TCP side on which HTTP is spoken: who is let in, how fast, and for how long. I/O: listens, and accepts.

Theory. The controller follows AWS, names and workers in the loop that serves these sides, so nobody at them may take
much of it. Whoever is not at an allowed address costs an accept and a close. A handshake costs a signature before it is
known who is there: only so many are begun in a second, the others wait in the kernel's queue; only so many are under
way, and a client may have but a share of what is left of them, so that slow ones of a few keep nobody out.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable

from natproxy.controller.httpserver import HttpServer
from natproxy.controller.logs import event
from natproxy.controller.webmetrics import SideCounts
from natproxy.controller.webtls import RefusedError, WebTls
from natproxy.model import HandshakeFailure, Network
from natproxy.tasks import TaskOwner
from natproxy.worker.access import AllowList, client_of, plain_ip

_log = logging.getLogger(__name__)

MOST_HANDSHAKES = 128
"""Under way at once."""
SHARE_OF_A_CLIENT = 4
"""One client may have so much of what is left of them: the more are under way, the less."""
HANDSHAKES_PER_SECOND = 50
PAUSE_SECONDS = 0.2
"""How long no more connections are taken where the system has no room for one."""


class Pace:
    """Lets so many things happen in a second, and as many at once after a quiet one. ``clock`` in seconds."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._gap = 1 / per_second
        self._burst = 1.0
        self._clock = clock
        self._due = float("-inf")
        """When the next would be due, had none ever come early."""

    def wait_seconds(self) -> float:
        """Take one, and return how long it has to wait."""
        now = self._clock()
        self._due = max(self._due, now - self._burst) + self._gap
        return max(0.0, self._due - now)


class Door:
    """Lets clients in to ``http`` from ``listeners``, which belong to it from now on.

    ``name``: what the log calls the side. ``tls`` None: in the clear.
    """

    def __init__(
        self,
        name: str,
        listeners: Iterable[socket.socket],
        http: HttpServer,
        *,
        counts: SideCounts,
        allow: Iterable[Network] | None = None,
        tls: WebTls | None = None,
    ) -> None:
        self._name = name
        self._listeners = tuple(listeners)
        self._http = http
        self._counts = counts
        self._allow = AllowList(None if allow is None else map(str, allow))
        self._tls = tls
        self._handshakes: Counter[str] = Counter()
        """Client -> how many of its handshakes are under way."""
        self._pace = Pace(HANDSHAKES_PER_SECOND, asyncio.get_running_loop().time)
        self._tasks = TaskOwner(self._task_failed)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._listeners[0].getsockname()[1]
        return port

    @property
    def has_tls(self) -> bool:
        """Whether TLS is spoken here."""
        return self._tls is not None

    def open(self) -> None:
        """Begin to take connections; until then they wait."""
        for listener in self._listeners:
            self._tasks.start(f"{self._name} listener", self._take_in(listener))

    def tick(self) -> None:
        """End the connections of those who are not let in any more; to be called about once a second."""
        if self._tls is None:
            return
        for connection in self._http.connections:
            transport = connection.transport
            if transport is not None and (verdict := self._tls.verdict(transport)) is not None:
                self._tell_refused(verdict[0], verdict[1])
                transport.abort()

    async def close(self, timeout_seconds: float) -> None:
        """Stop listening; let requests that are being answered end for ``timeout_seconds``."""
        await self._tasks.cancel_all()
        for listener in self._listeners:
            listener.close()
        await self._http.shutdown(timeout_seconds)

    async def _take_in(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor is left, or the client has gone already
                event(_log, logging.DEBUG, f"{self._name} cannot take a connection", reason=error.strerror)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            ip = plain_ip(address[0])
            if not self._allow.allows(ip):
                self._turn_away(sock, "network")
            elif self._tls is None:
                self._tasks.start(f"{self._name} connection", self._greet(sock))
            elif not self._has_room(ip):
                self._turn_away(sock, HandshakeFailure.LIMIT)
            else:
                self._handshakes[client_of(ip)] += 1
                self._tasks.start(f"{self._name} handshake", self._shake(sock, ip, self._tls))
                if (wait_seconds := self._pace.wait_seconds()) > 0:
                    await asyncio.sleep(wait_seconds)

    def _turn_away(self, sock: socket.socket, reason: str) -> None:
        sock.close()
        self._tell_refused(reason, "")

    def _has_room(self, ip: str) -> bool:
        left = MOST_HANDSHAKES - self._handshakes.total()
        return left > 0 and self._handshakes[client_of(ip)] < max(1, left // SHARE_OF_A_CLIENT)

    async def _greet(self, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._http, sock)
        except OSError:
            sock.close()

    async def _shake(self, sock: socket.socket, ip: str, tls: WebTls) -> None:
        try:
            await tls.shake(sock, self._http)
        except RefusedError as error:
            self._tell_refused(error.failure, str(error))
        finally:
            client = client_of(ip)
            self._handshakes[client] -= 1
            if not self._handshakes[client]:
                del self._handshakes[client]

    def _tell_refused(self, reason: str, detail: str) -> None:
        self._counts.record_refusal(reason)
        event(_log, logging.DEBUG, f"{self._name} refused a client", reason=reason, detail=detail or None)

    def _task_failed(self, task: str, error: BaseException) -> None:
        event(_log, logging.ERROR, f"{self._name} failed, it goes on", part=task, exc_info=error)
