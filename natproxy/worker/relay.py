"""Two legs joined: bytes go both ways until both ends are done. I/O: by its legs.

How a connection ends (interface of natproxy, "When a live connection ends"):

- EOF on one leg: what was read before is written to the peer first, then the peer's socket is shut for writing. The
  other direction lives on. When both directions have ended the relay is over.
- A reset on one leg resets the other (SO_LINGER 0), so that neither side takes a broken answer for a whole one.
- Writing to a leg fails, or it is reset after its EOF: its own last words may still lie in the kernel, unread or on
  their way (an error reply, then a close, while the peer went on sending). They are delivered before the reset is
  passed on (``endings.LastWords``), because a reset throws away what its receiver has not got yet.

The seam: ``Relay(loop, client, node, on_end)``, ``start()``, ``end(outcome)``, ``check(keepalive_seconds)``, and the
counts of bytes. A leg is clear (leg.py), or speaks TLS (tlsleg.py).
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable

from natproxy.model import HandshakeFailure, Outcome
from natproxy.tls.failures import why
from natproxy.wire.rewriter import Rewriter
from natproxy.worker import liveness
from natproxy.worker.framed import AnsweringLeg, AnsweringTlsLeg, AskingLeg, AskingTlsLeg
from natproxy.worker.handshake import TlsEnd
from natproxy.worker.leg import UNUSUAL, Leg
from natproxy.worker.loop import Loop
from natproxy.worker.polling import OUT
from natproxy.worker.tlsleg import TlsLeg

_TIMEOUT_ERRNOS = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


class Relay:
    """Joins a client's socket and a node's; owns both from ``start`` on and closes them at the end.

    ``on_end(outcome, detail)`` is called once, after both sockets are closed. ``..._tls``: what came of the handshake
    there; such a leg is pumped at the start in any case, for what came early. ``rewriter``: who reads along.
    """

    __slots__ = ("_ended_first", "_is_kept_alive", "_on_end", "client", "is_over", "loop", "node")

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        node: socket.socket,
        on_end: Callable[[Outcome, str], None],
        *,
        client_tls: TlsEnd | None = None,
        node_tls: TlsEnd | None = None,
        rewriter: Rewriter | None = None,
    ) -> None:
        self.loop = loop
        self.client: Leg
        self.node: Leg
        if rewriter is None or not rewriter.reads_requests:
            self.client = Leg(self, client) if client_tls is None else TlsLeg(self, client, client_tls)
        else:
            self.client = _asking_leg(self, client, client_tls, rewriter)
        if rewriter is None:
            self.node = Leg(self, node) if node_tls is None else TlsLeg(self, node, node_tls)
        else:
            self.node = _answering_leg(self, node, node_tls, rewriter)
        self.client.peer = self.node
        self.node.peer = self.client
        self.is_over = False
        self._ended_first: Leg | None = None
        self._on_end = on_end
        self._is_kept_alive = False
        """Both sockets have their timers; many connections are over before that matters, and an option is a call."""

    def start(self, *, client_events: int, node_events: int) -> None:
        """Take over two sockets that the loop already watches: the client's for READ, the node's for READ_WRITE.

        ``..._events``: what edges have told of there and nobody has acted upon.
        """
        self.node.is_armed = True
        self.loop.hand_over(self.client.fd, self.client)
        self.loop.hand_over(self.node.fd, self.node)
        for leg, events in ((self.client, client_events), (self.node, node_events)):
            if self.is_over:
                return
            if leg.speaks_tls:
                leg.pump(bool(events & UNUSUAL))
            elif events & ~OUT:
                leg.serve(events)

    def leg_ended(self, leg: Leg) -> None:
        """``leg`` sent its EOF: pass it on once everything before it has been written."""
        if self._ended_first is None:
            self._ended_first = leg
        if leg.peer.pending is None:
            self.shut(leg.peer)

    def shut(self, leg: Leg) -> None:
        """All bytes for ``leg`` are written and no more will come. To be called again once a goodbye was written."""
        if self.is_over or leg.peer.is_torn:
            leg.is_shut = True
            return
        if leg.has_eof and self._has_written_all():
            leg.is_shut = True
            leg.say_goodbye()
            leg.peer.say_goodbye()
            if self._has_written_all():
                self.end_well()
        elif not leg.is_shut:
            leg.is_shut = True
            leg.shut_write()

    def _has_written_all(self) -> bool:
        client, node = self.client, self.node
        return client.pending is None and node.pending is None and not (client.is_broken or node.is_broken)

    def end_well(self) -> None:
        """Both sides have said all, or have had their time to."""
        self.end(Outcome.CLIENT_CLOSED if self._ended_first is self.client else Outcome.NODE_CLOSED)

    def leg_failed(self, leg: Leg, error: OSError) -> None:
        """``leg`` was reset or timed out: the other one is reset."""
        is_client = leg is self.client
        if error.errno in _TIMEOUT_ERRNOS:
            outcome = Outcome.CLIENT_TIMEOUT if is_client else Outcome.NODE_TIMEOUT
            self.end(outcome, error.strerror or "", is_reset=True)
        else:
            self.end(Outcome.CLIENT_RESET if is_client else Outcome.NODE_RESET, is_reset=True)

    def tls_failed(self, leg: Leg, error: ssl.SSLError) -> None:
        """What ``leg`` sent is not the TLS that it should be, or its peer gave up with an alert."""
        is_client = leg is self.client
        failure, detail = why(error, is_server=is_client)
        outcome = Outcome.CLIENT_TLS if is_client else Outcome.NODE_TLS
        if failure is HandshakeFailure.ALERT and not (is_client or leg.received_bytes):
            # In TLS 1.3 the verdict on our certificate comes when our handshake is done already (RFC 8446, 4.4.2.4).
            outcome = Outcome.NODE_HANDSHAKE
        self.end(outcome, detail, is_reset=True)

    def check(self, keepalive_seconds: float) -> None:
        """Look after peers that neither read nor answer; to be called a few times while one dies of that."""
        if not self._is_kept_alive:
            self._is_kept_alive = True
            for leg in (self.client, self.node):
                liveness.keep_alive(leg.sock, keepalive_seconds)
        dead_seconds = liveness.dead_after_seconds(keepalive_seconds)
        for leg, outcome in ((self.client, Outcome.CLIENT_TIMEOUT), (self.node, Outcome.NODE_TIMEOUT)):
            if self.is_over:
                return
            is_dead, leg.is_patient = liveness.is_dead(leg.sock, leg.is_patient, dead_seconds)
            if is_dead:
                self.end(outcome, "does not acknowledge", is_reset=True)

    def end(self, outcome: Outcome, detail: str = "", *, is_reset: bool = False) -> None:
        """Close both sockets; with ``is_reset`` the peers see a reset. Harmless when already over."""
        if self.is_over:
            return
        self.is_over = True
        for leg in (self.client, self.node):
            self.loop.forget(leg.fd)
            leg.close(is_reset=is_reset)
        self._on_end(outcome, detail)
        # Whoever called this may yet look at the legs.
        self.loop.again(self._dissolve)

    def _dissolve(self) -> None:
        """Let go of each other: nobody else knows this relay, and its memory is free without the collector."""
        del self._on_end
        for leg in (self.client, self.node):
            del leg.peer, leg.relay


def _asking_leg(relay: Relay, sock: socket.socket, end: TlsEnd | None, rewriter: Rewriter) -> Leg:
    return AskingLeg(relay, sock, rewriter) if end is None else AskingTlsLeg(relay, sock, end, rewriter)


def _answering_leg(relay: Relay, sock: socket.socket, end: TlsEnd | None, rewriter: Rewriter) -> Leg:
    return AnsweringLeg(relay, sock, rewriter) if end is None else AnsweringTlsLeg(relay, sock, end, rewriter)
