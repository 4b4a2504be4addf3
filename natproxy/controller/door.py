"""A TCP side on which HTTP is spoken: who is let in, how fast, and for how long. I/O: listens, and accepts.

Theory. The controller follows AWS, names and workers in the loop that serves these sides, so nobody at them may take
much of it. Whoever is not at an allowed address costs an accept and a close. A handshake costs a signature before it is
known who is there: only so many are begun in a second, the others wait in the kernel's queue; only so many are under
way, and a client may have but a share of what is left of them, so that slow ones of a few keep nobody out. While others
wait, a client may begin but a share of a second's, too, and what it begins beyond is closed, so that many quick ones of
a few keep nobody waiting.
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
from natproxy.model import Address, HandshakeFailure, Network
from natproxy.tasks import TaskOwner
from natproxy.worker.access import AllowList, client_of, plain_ip
from natproxy.worker.credentials import Shown

_log = logging.getLogger(__name__)

MOST_HANDSHAKES = 128
"""Under way at once."""
SHARE_OF_A_CLIENT = 4
"""One client may have the fourth part of what is left of them: the more are under way, the less."""
HANDSHAKES_PER_SECOND = 50
CLIENT_BURST_SECONDS = 2.0
"""One client may begin its share of so long at once, while others wait: a browser opens several connections."""
PAUSE_SECONDS = 0.2
"""How long no more connections are taken where the system has no room for one."""
REFUSALS_LOGGED = 10
"""In a second, of each reason, as of those whom a worker turns away: strangers must fill no disk."""


class Pace:
    """Lets so many things happen in a second, and ``burst_seconds``' worth at once after a quiet time.

    ``clock`` in seconds.
    """

    def __init__(self, per_second: float, clock: Callable[[], float], burst_seconds: float = 1.0) -> None:
        self._gap = 1 / per_second
        self._burst = burst_seconds
        self._clock = clock
        self._due = float("-inf")
        """When the next would be due, had none ever come early."""

    @property
    def is_used_up(self) -> bool:
        """Whether the next one would have to wait."""
        now = self._clock()
        return max(self._due, now - self._burst) + self._gap > now

    @property
    def is_rested(self) -> bool:
        """Whether nothing is owed for what has happened: a new one would do the same."""
        return self._due <= self._clock() - self._burst

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
        self._clock = asyncio.get_running_loop().time
        self._pace = Pace(HANDSHAKES_PER_SECOND, self._clock)
        self._paces: dict[str, Pace] = {}
        """Client -> its share of the pace, for those who have begun something of late."""
        self._lines: dict[str, Pace] = {}
        """Reason of refusals -> the pace of their lines in the log."""
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
        self._paces = {client: pace for client, pace in self._paces.items() if not pace.is_rested}
        for connection in self._http.connections:
            transport = connection.transport
            if transport is not None and (verdict := self._tls.verdict(transport)) is not None:
                peer = transport.get_extra_info("peername")  # uvloop's forgets it once the client has gone
                client = None if peer is None else Address(plain_ip(peer[0]), peer[1])
                self._tell_refused(*verdict, client, self._tls.shown(transport))
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
            client = Address(ip, address[1])
            if not self._allow.allows(ip):
                self._turn_away(sock, "network", client)
            elif self._tls is None:
                self._tasks.start(f"{self._name} connection", self._greet(sock))
            elif not self._has_room(ip):
                self._turn_away(sock, HandshakeFailure.LIMIT, client)
            else:
                self._handshakes[client_of(ip)] += 1
                self._tasks.start(f"{self._name} handshake", self._shake(sock, client, self._tls))
                await asyncio.sleep(self._taken(client_of(ip)))
                continue
            await asyncio.sleep(0)  # where more are in the queue, accepting does not give way by itself

    def _turn_away(self, sock: socket.socket, reason: str, client: Address) -> None:
        sock.close()
        self._tell_refused(reason, "", client)

    def _has_room(self, ip: str) -> bool:
        client, left = client_of(ip), MOST_HANDSHAKES - self._handshakes.total()
        if left <= 0 or self._handshakes[client] >= max(1, left // SHARE_OF_A_CLIENT):
            return False
        pace = self._paces.get(client)
        return pace is None or not (self._pace.is_used_up and pace.is_used_up)

    def _taken(self, client: str) -> float:
        """Count one more handshake; return for how many seconds no other is to begin."""
        pace = self._paces.get(client)
        if pace is None:
            per_second = HANDSHAKES_PER_SECOND / SHARE_OF_A_CLIENT
            pace = self._paces[client] = Pace(per_second, self._clock, CLIENT_BURST_SECONDS)
        if not pace.is_used_up:  # what it began while nobody waited is not held against it
            pace.wait_seconds()
        return self._pace.wait_seconds()

    async def _greet(self, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._http, sock)
        except OSError:
            sock.close()

    async def _shake(self, sock: socket.socket, address: Address, tls: WebTls) -> None:
        try:
            await tls.shake(sock, self._http)
        except RefusedError as error:
            self._tell_refused(error.failure, str(error), address, error.shown)
        finally:
            client = client_of(address.ip)
            self._handshakes[client] -= 1
            if not self._handshakes[client]:
                del self._handshakes[client]

    def _tell_refused(self, reason: str, detail: str, client: Address | None, shown: Shown | None = None) -> None:
        """Count it and log it. A name that nobody has verified goes by another field, as a connection's does."""
        self._counts.record_refusal(reason)
        if not self._may_log(reason):
            return
        name, serial = (None, None) if shown is None else (shown.identity.name or None, shown.serial)
        is_verified = shown is not None and shown.is_verified
        event(
            _log,
            logging.INFO,
            f"{self._name} refused a client",
            reason=reason,
            client=client,
            certificate=name if is_verified else None,
            serial=serial if is_verified else None,
            claimed_certificate=None if is_verified else name,
            claimed_serial=None if is_verified else serial,
            detail=detail or None,
        )

    def _may_log(self, reason: str) -> bool:
        """Say whether one more refusal gets its line; count the line where not."""
        if (pace := self._lines.get(reason)) is None:
            pace = self._lines[reason] = Pace(REFUSALS_LOGGED, self._clock)
        if pace.is_used_up:
            self._counts.dropped_lines += _log.isEnabledFor(logging.INFO)
            return False
        pace.wait_seconds()
        return True

    def _task_failed(self, task: str, error: BaseException) -> None:
        event(_log, logging.ERROR, f"{self._name} failed, it goes on", part=task, exc_info=error)
