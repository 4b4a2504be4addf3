"""One client's connection from accept to outcome. I/O: dials the node and hands both sockets to a relay.

accept -> handshake with the client, and who it is -> dial -> handshake with the node -> relay. What the route does not
ask for is left out; no node is dialled for a client that has not been let in.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from natproxy.errors import TlsError, unforeseen
from natproxy.model import Address, HandshakeFailure, Outcome
from natproxy.worker.credentials import Shown
from natproxy.worker.dial import Dial
from natproxy.worker.handshake import Handshake, TlsEnd
from natproxy.worker.liveness import acknowledge, close_by_reset
from natproxy.worker.loop import READ
from natproxy.worker.polling import OUT
from natproxy.worker.reading import Reading
from natproxy.worker.relay import Relay

if TYPE_CHECKING:
    from natproxy.worker.listener import Port

_BY_FAILURE = {
    HandshakeFailure.REVOKED: Outcome.REVOKED,
    HandshakeFailure.NOT_ALLOWED: Outcome.CERTIFICATE_NOT_ALLOWED,
}


class Connection:
    """A client that was let in. It belongs to ``port`` until ``port.forget`` is called with it."""

    __slots__ = (
        "_client",
        "_client_end",
        "_client_events",
        "_dial",
        "_dial_started",
        "_handshake",
        "_is_greeting",
        "_names",
        "_node",
        "address",
        "client_ip",
        "client_port",
        "counted_client_bytes",
        "counted_node_bytes",
        "due_at",
        "due_outcome",
        "is_in_doubt",
        "is_live",
        "is_over",
        "last_active",
        "limit_group",
        "node_name",
        "port",
        "reading",
        "relay",
        "shown",
        "started",
        "tls_versions",
    )

    def __init__(self, port: Port, client: socket.socket, ip: str, client_port: int, limit_group: str | None) -> None:
        self.port = port
        self.client_ip = ip
        self.client_port = client_port
        self.limit_group = limit_group
        """Where it is counted; None = not yet."""
        self.started = port.loop.now
        self.last_active = self.started
        self.address: Address | None = None
        """What the node's socket is connected to."""
        self.node_name: str | None = None
        """What the certificate there must name; None where TLS is not spoken to the node."""
        self.is_live = False
        """Counted among the live connections to ``address``."""
        self.shown: Shown | None = None
        """The client's certificate."""
        self.tls_versions = ("", "")
        """What is spoken with the client, and with the node."""
        self.relay: Relay | None = None
        self.reading: Reading | None = None
        """Set where a rewriter reads along."""
        self.due_at: float | None = None
        """When this connection is to be closed, if it has not ended by then."""
        self.due_outcome = Outcome.STOPPED
        self.is_in_doubt = False
        """The node may yet refuse the certificate it was shown: in TLS 1.3 its first word tells that it does not."""
        self.is_over = False
        self.counted_client_bytes = 0
        self.counted_node_bytes = 0
        """What the port's counters know of already."""
        self._client: socket.socket | None = client
        self._client_events = 0
        """What was told of its socket and waits for the relay."""
        self._client_end: TlsEnd | None = None
        self._is_greeting = False
        """Counted among the handshakes with clients."""
        self._handshake: Handshake | None = None
        self._dial: Dial | None = None
        self._dial_started = 0.0
        self._names: Mapping[Address, str] = {}
        """What the certificates of the addresses must name, as of the dial's beginning."""
        self._node: tuple[socket.socket, int] | None = None
        """The node's socket while TLS is agreed upon there, and what had been told of it by then."""

    def start(self) -> None:
        """Watch the client, and take the first step."""
        port = self.port
        if (client := self._client) is None:
            return
        port.loop.watch(client.fileno(), READ, self)
        if port.serve.client_tls != "terminate":
            self._dial_node()
            return
        worker = port.worker
        context = worker.credentials.server()
        if context is None:
            self._client_greeted(None, HandshakeFailure.INTERNAL, "no certificate is loaded")
            return
        self._is_greeting = True
        worker.handshakes.begun(self.client_ip)
        self._handshake = Handshake(
            port.loop,
            worker.handshakes,
            client,
            context,
            self._client_greeted,
            seconds=port.serve.handshake_seconds,
        )
        self._handshake.start()

    def ready(self, events: int) -> None:
        """Mind the client while the node is being dialled: its bytes wait in the kernel, its reset ends the dial."""
        self._client_events |= events
        client = self._client
        if events & ~(OUT | READ) and client is not None:
            number = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self.end(Outcome.CLIENT_RESET, "while the node was being dialled")

    def fail(self, error: Exception) -> None:
        """End the connection: its own code failed."""
        self.end(Outcome.INTERNAL, unforeseen(error))

    # The client's handshake.

    def _client_greeted(self, end: TlsEnd | None, failure: HandshakeFailure | None, detail: str) -> None:
        port, client = self.port, self._client
        if self._handshake is not None:
            self._client_events |= self._handshake.events
        self._handshake_over()
        if end is not None and failure is None:
            failure, detail = self._who_is_there(end)
        elif end is not None:
            with contextlib.suppress(TlsError):
                self.shown = port.worker.credentials.shown_in_vain(end.tls)
        port.counts.shaken("client", failure)
        if end is None or client is None or failure is not None:
            failure = failure or HandshakeFailure.INTERNAL
            self.end(_BY_FAILURE.get(failure, Outcome.CLIENT_HANDSHAKE), f"{failure}: {detail}" if detail else failure)
            return
        if self.limit_group is None:
            group = port.serve.limit_group
            if (outcome := port.count_in(self.client_ip, group)) is not None:
                self.end(outcome)
                return
            self.limit_group = group
        port.worker.reports.session_begun("client", end.tls)
        self.tls_versions = (end.tls.version() or "", "")
        self._client_end = end
        if port.worker.credentials.demands_certificate:
            # Without a ticket nothing goes back that would carry the ACK, and the first command would wait for it.
            acknowledge(client)
        port.loop.hand_over(client.fileno(), self)
        self._dial_node()

    def _who_is_there(self, end: TlsEnd) -> tuple[HandshakeFailure | None, str]:
        credentials = self.port.worker.credentials
        try:
            self.shown = credentials.shown(end.tls)
            return credentials.verdict_of_handshake(self.shown, self.port.serve.certificates) or (None, "")
        except TlsError as error:
            return HandshakeFailure.BAD_CERTIFICATE, str(error)

    def _handshake_over(self) -> None:
        self._handshake = None
        if self._is_greeting:
            self._is_greeting = False
            self.port.worker.handshakes.ended(self.client_ip)

    # The node.

    def _dial_node(self) -> None:
        port = self.port
        self._dial_started = port.loop.now
        self._names = port.names
        self._dial = Dial(
            port.loop,
            port.addresses_in_order(),
            port.serve.connect_seconds,
            self._dialled,
        )
        self._dial.start()

    def _dialled(self, node: socket.socket | None, address: Address | None, outcome: Outcome, detail: str) -> None:
        port = self.port
        dial, self._dial = self._dial, None
        if dial is not None:
            for failed in dial.failed:
                port.avoid(failed)
        self.address = address or self.address
        if node is None or address is None or dial is None:
            port.dial_failed(outcome, detail)
            self.end(outcome, detail)
            return
        self.is_live = True
        port.dial_succeeded(address, port.loop.now - self._dial_started)
        self._node = (node, dial.events)
        if port.serve.node_tls:
            self._greet_node(node, address, dial.events)
        else:
            self._join(None)

    def _greet_node(self, node: socket.socket, address: Address, events: int) -> None:
        port, worker = self.port, self.port.worker
        self.node_name = name = self._names.get(address)
        if name is None:
            self._node_greeted(None, HandshakeFailure.INTERNAL, "the route has come to speak TLS in the meantime")
            return
        try:
            context = worker.credentials.node(port.serve.node_ca)
            self._handshake = Handshake(
                port.loop,
                worker.handshakes,
                node,
                context,
                self._node_greeted,
                seconds=port.serve.handshake_seconds,
                name=name,
                session=port.sessions.find(context, address, name),
                is_armed=True,
                events=events,
            )
        except (TlsError, ValueError) as error:  # ValueError: no name that a certificate could have
            self._node_greeted(None, HandshakeFailure.INTERNAL, str(error))
            return
        self._handshake.start()

    def _node_greeted(self, end: TlsEnd | None, failure: HandshakeFailure | None, detail: str) -> None:
        port, address = self.port, self.address
        if self._handshake is not None and self._node is not None:
            self._node = (self._node[0], self._node[1] | self._handshake.events)
        self._handshake = None
        port.counts.shaken("node", failure)
        if end is None or address is None or self.node_name is None or failure is not None:
            self.end(Outcome.NODE_HANDSHAKE, self._node_refused(failure, detail))
            return
        port.worker.reports.session_begun("node", end.tls)
        port.sessions.keep(end.tls, address, self.node_name)
        self.tls_versions = (self.tls_versions[0], end.tls.version() or "")
        self._join(end)

    def _node_refused(self, failure: HandshakeFailure | None, detail: str) -> str:
        """Tell that TLS came to nothing with the node; return the line on it."""
        port, address = self.port, self.address
        port.sessions.drop(address)
        if address is not None:
            port.avoid(address)
        detail = f"{failure}: {address} as {self.node_name}: {detail}"
        port.dial_failed(Outcome.NODE_HANDSHAKE, detail)
        return detail

    def settle_doubt(self) -> None:
        """Tell that the node was reached, once it has said a word."""
        if self.relay is not None and self.relay.node.received_bytes:
            self.is_in_doubt = False
            self.port.node_reached()

    def _join(self, node_end: TlsEnd | None) -> None:
        port, client = self.port, self._client
        if client is None or self._node is None:
            return
        node, node_events = self._node
        client_end = self._client_end
        self._client = self._client_end = self._node = None
        self.is_in_doubt = node_end is not None and node_end.tls.version() == "TLSv1.3"
        if not self.is_in_doubt:
            port.node_reached()
        rewriter = None
        if port.serve.rewrite and self.address is not None:
            self.reading = Reading(port, client, self.address, speaks_tls=client_end is not None)
            rewriter = self.reading.rewriter()
        self.relay = Relay(
            port.loop, client, node, self._relay_ended, client_tls=client_end, node_tls=node_end, rewriter=rewriter
        )
        self.relay.client.is_strange = port.serve.sniffs
        self.relay.start(client_events=self._client_events, node_events=node_events)

    # The end.

    def _relay_ended(self, outcome: Outcome, detail: str) -> None:
        self.is_over = True
        if outcome is Outcome.NODE_HANDSHAKE:
            detail = self._node_refused(HandshakeFailure.ALERT, detail)
        elif self.is_in_doubt:
            self.settle_doubt()
        self.port.forget(self, outcome, detail)
        self.relay = None  # no ring that only the collector would find

    def end_by(self, failure: HandshakeFailure, detail: str) -> None:
        """Close at once: the client's certificate does not let it in any more."""
        self.end(_BY_FAILURE.get(failure, Outcome.CERTIFICATE_NOT_ALLOWED), detail)

    def end(self, outcome: Outcome, detail: str = "") -> None:
        """Close everything at once. Harmless when already over."""
        if self.is_over:
            return
        if self.relay is not None:
            self.relay.end(outcome, detail)
            return
        self.is_over = True
        if self._handshake is not None:
            self._handshake.cancel()
        self._handshake_over()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        loop = self.port.loop
        if self._node is not None:
            loop.forget(self._node[0].fileno())
            close_by_reset(self._node[0])
            self._node = None
        if self._client is not None:
            loop.forget(self._client.fileno())
            if outcome is Outcome.NODE_RESET:
                close_by_reset(self._client)
            else:
                self._client.close()
            self._client = None
        self.port.forget(self, outcome, detail)
