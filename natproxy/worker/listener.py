"""One port: accepts clients, knows where to dial, counts what happened. I/O: accepts connections."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from natproxy.messages import FinishedConnection, Serve
from natproxy.model import Address, HandshakeFailure, Outcome
from natproxy.worker.access import AllowList, plain_ip
from natproxy.worker.connection import Connection
from natproxy.worker.counts import PortCounts
from natproxy.worker.liveness import set_up_listening
from natproxy.worker.loop import Loop
from natproxy.worker.sessions import Sessions

if TYPE_CHECKING:
    from natproxy.worker.process import Worker

ACCEPTS_PER_TURN = 16
"""Few, so that whoever connects thousands of times a second delays the bytes of others by little."""
STRANGERS = frozenset(
    {Outcome.CLIENT_HANDSHAKE, Outcome.REVOKED, Outcome.CERTIFICATE_NOT_ALLOWED, Outcome.TLS_ON_CLEAR_PORT}
)
"""Ends that whoever reaches the port can bring about as often as he likes: their log lines are limited."""
AVOID_SECONDS = 5.0
"""How long an address that did not answer is tried last."""
_GONE_BEFORE_ACCEPT = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM, errno.EINTR}
)
"""Errors of the new connection, not of the listener (accept(2), "Error handling")."""


class ListeningSocket:
    """One of a port's listening sockets (an address has one each)."""

    __slots__ = ("_accept", "_family", "_proto", "port", "sock")

    def __init__(self, port: Port, sock: socket.socket) -> None:
        self.port = port
        self.sock = sock
        # Half of what ``accept`` takes is the making of enumerations for these two.
        self._family, self._proto = int(sock.family), sock.proto
        self._accept: Callable[[], tuple[int, tuple[object, ...]]] = sock._accept  # type: ignore[attr-defined]  # noqa: SLF001

    def ready(self, events: int) -> None:
        """Accept those who wait; who is left over is reported again (level-triggered)."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                fd, peer = self._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE_BEFORE_ACCEPT:
                    continue
                self.port.worker.accept_failed(self, error)
                return
            client = socket.socket(self._family, socket.SOCK_STREAM, self._proto, fd)
            client.setblocking(False)
            self.port.accepted(client, peer)

    def fail(self, error: Exception) -> None:
        """A listener without accepting is of no use: the worker ends, and is replaced."""
        raise error


class Port:
    """A served port and its connections."""

    def __init__(self, worker: Worker, loop: Loop, serve: Serve, sockets: list[socket.socket]) -> None:
        self.worker = worker
        self.loop = loop
        self.listening = [ListeningSocket(self, sock) for sock in sockets]
        self.connections: dict[Connection, None] = {}
        self.counts = PortCounts(serve.port)
        self.sessions = Sessions()
        self._avoided: dict[Address, float] = {}
        self._turn = itertools.count()
        self._has_failed = False
        self._failure_told_at = float("-inf")
        self.serve = serve
        self._take(serve)

    def _take(self, serve: Serve) -> None:
        self.serve = serve
        self.addresses = tuple(Address(ip, port) for ip, port in serve.addresses)
        self.names = dict(zip(self.addresses, serve.names, strict=False))
        self.sessions.prune(frozenset(self.addresses))
        self._allow = AllowList(serve.allow)
        for listening in self.listening:
            set_up_listening(listening.sock, serve.keepalive_seconds)

    def update(self, serve: Serve) -> None:
        """Serve by new values from now on; connections whose client may no longer connect are closed at once."""
        before = self.serve
        self._take(serve)
        if serve.allow != before.allow:
            for connection in list(self.connections):
                if not self._allow.allows(connection.client_ip):
                    connection.end(Outcome.NOT_ALLOWED)
        if serve.certificates != before.certificates:
            self.look_at_certificates()

    def look_at_certificates(self) -> None:
        """Close the connections whose client's certificate is good no longer."""
        if self.serve.client_tls != "terminate":
            return
        for connection in list(self.connections):
            if connection.tls_versions[0]:
                verdict = self.worker.credentials.verdict(connection.shown, self.serve.certificates)
                if verdict is not None:
                    connection.end_by(*verdict)

    def accepted(self, client: socket.socket, peer: tuple[object, ...]) -> None:
        """Let a client in, or pass it on to a worker that has clearly fewer; who may not enter is not passed round."""
        spread = self.worker.spread
        if spread is not None and (row := spread.row_with_less()) is not None:
            ip = plain_ip(str(peer[0]))
            if self._may_enter(ip) and spread.pass_on(row, client, self.serve.port, ip, int(str(peer[1]))):
                return
        self.admit(client, peer)

    def _may_enter(self, ip: str) -> bool:
        serve = self.serve
        if serve.refuse is not None or not self._allow.allows(ip):
            return False
        if self._is_counted_later():
            return True
        maximum, per_client = serve.max_connections, serve.max_connections_per_client
        return self.worker.census.has_room(serve.limit_group, ip, maximum, per_client)

    def admit(self, client: socket.socket, peer: tuple[object, ...]) -> None:
        """Let a client in, or close it at once and count why."""
        serve = self.serve
        ip = plain_ip(str(peer[0]))
        is_counted_later = self._is_counted_later()
        outcome: Outcome | None
        if serve.refuse is not None:
            outcome = Outcome(serve.refuse)
        elif not self._allow.allows(ip):
            outcome = Outcome.NOT_ALLOWED
        elif not self.worker.has_descriptors():
            outcome = Outcome.NO_DESCRIPTORS
        elif serve.client_tls == "terminate" and not self.worker.handshakes.has_room(ip):
            outcome = Outcome.HANDSHAKE_LIMIT
            self.counts.shaken("client", HandshakeFailure.LIMIT)
        elif is_counted_later:
            outcome = None
        else:
            outcome = self.count_in(ip, serve.limit_group)
        client_port = int(str(peer[1]))
        if outcome is not None:
            self.turn_away(client, outcome, ip, client_port)
            return
        connection = Connection(self, client, ip, client_port, None if is_counted_later else serve.limit_group)
        self.connections[connection] = None
        self.counts.opened += 1
        self.worker.connection_opened()
        connection.start()

    def _is_counted_later(self) -> bool:
        """Say whether only those count who have shown a certificate: strangers must not use the limits up."""
        return self.serve.client_tls == "terminate" and self.worker.credentials.demands_certificate

    def count_in(self, ip: str, limit_group: str) -> Outcome | None:
        """Count one more connection, or say which limit turns it away."""
        serve = self.serve
        return self.worker.census.admit(limit_group, ip, serve.max_connections, serve.max_connections_per_client)

    def turn_away(self, client: socket.socket, outcome: Outcome, ip: str, client_port: int) -> None:
        """Close a client that is not let in."""
        with contextlib.suppress(OSError):
            client.close()
        self.counts.ended[outcome] += 1
        if self.worker.reports.may_log_refusal(outcome):
            self._log(ip, client_port, outcome)

    def forget(self, connection: Connection, outcome: Outcome, detail: str) -> None:
        """Count a connection that has ended. Called once for each."""
        del self.connections[connection]
        if connection.limit_group is not None:
            self.worker.census.leave(connection.limit_group, connection.client_ip)
        self.counts.ended[outcome] += 1
        if connection.relay is not None:
            self.counts.add_bytes(connection)
        if connection.is_live and connection.address is not None:
            self.counts.left(connection.address)
        if outcome not in STRANGERS or self.worker.reports.may_log_refusal(outcome):
            self._log(connection.client_ip, connection.client_port, outcome, detail, connection)
        self.worker.connection_ended()

    def _log(
        self, ip: str, client_port: int, outcome: Outcome, detail: str = "", connection: Connection | None = None
    ) -> None:
        if not self.worker.reports.logs_connections:
            return
        serve = self.serve
        address = None if connection is None else connection.address
        shown = None if connection is None else connection.shown
        reading = None if connection is None else connection.reading
        client_tls, node_tls = ("", "") if connection is None else connection.tls_versions
        self.worker.reports.log_finished(
            FinishedConnection(
                port=serve.port,
                cache=serve.cache,
                kind=serve.kind,
                node=serve.node,
                client=str(Address(ip, client_port)),
                address="" if address is None else str(address),
                client_bytes=0 if connection is None else connection.counted_client_bytes,
                node_bytes=0 if connection is None else connection.counted_node_bytes,
                seconds=0.0 if connection is None else round(self.loop.now - connection.started, 6),
                outcome=outcome.value,
                detail=detail,
                certificate="" if shown is None else shown.identity.name,
                serial="" if shown is None else shown.serial,
                client_tls=client_tls,
                node_tls=node_tls,
                is_verified=shown is None or shown.is_verified,
                unread="" if reading is None or reading.fallback is None else reading.fallback.value,
            )
        )

    def addresses_in_order(self) -> Sequence[Address]:
        """Return what to dial, best first: those that lately did not answer come last."""
        addresses = self.addresses
        if self.serve.rotates and len(addresses) > 1:
            first = next(self._turn) % len(addresses)
            addresses = addresses[first:] + addresses[:first]
        if not self._avoided:
            return addresses
        now = self.loop.now
        self._avoided = {address: until for address, until in self._avoided.items() if until > now}
        return sorted(addresses, key=self._avoided.__contains__)

    def avoid(self, address: Address) -> None:
        """Try ``address`` last for a while."""
        self._avoided[address] = self.loop.now + AVOID_SECONDS

    def dial_failed(self, outcome: Outcome, detail: str) -> None:
        """No address answered: tell the controller, not more often than once a second."""
        if outcome is Outcome.NO_DESCRIPTORS:
            return
        self._has_failed = True
        if self.loop.now - self._failure_told_at >= 1.0:
            self._failure_told_at = self.loop.now
            self.worker.reports.dial_failed(self.serve.port, outcome, detail)

    def dial_succeeded(self, address: Address, seconds: float) -> None:
        """Count a dial."""
        self._avoided.pop(address, None)
        self.counts.dialled(address, seconds)

    def node_reached(self) -> None:
        """Tell the controller if the node had been out of reach."""
        if self._has_failed:
            self._has_failed = False
            self._failure_told_at = float("-inf")
            self.worker.reports.dial_recovered(self.serve.port)

    def end_within(self, seconds: float | None, address: Address | None, outcome: Outcome) -> None:
        """Carry out an End order (messages.End)."""
        for connection in list(self.connections):
            if address is not None and connection.address != address:
                continue
            if seconds is None:
                connection.due_at = None
            elif seconds <= 0:
                connection.end(outcome)
            else:
                due = self.loop.now + seconds
                if connection.due_at is None or due < connection.due_at:
                    connection.due_at, connection.due_outcome = due, outcome
        if seconds:
            self.loop.call_later(seconds, self._end_due)

    def _end_due(self) -> None:
        for connection in list(self.connections):
            if connection.due_at is not None and connection.due_at <= self.loop.now:
                connection.end(connection.due_outcome)

    def pause(self) -> None:
        """Stop accepting; who connects waits in the kernel."""
        for listening in self.listening:
            self.loop.unwatch(listening.sock.fileno())

    def resume(self) -> None:
        """Accept (again)."""
        for listening in self.listening:
            self.worker.watch_listening(listening)

    def stop_listening(self) -> None:
        """Give this process's copies of the listening sockets up."""
        self.pause()
        for listening in self.listening:
            listening.sock.close()
        self.listening.clear()

    def close(self, outcome: Outcome) -> None:
        """Stop listening and end every connection."""
        self.stop_listening()
        for connection in list(self.connections):
            connection.end(outcome)
