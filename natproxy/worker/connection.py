"""One client's connection from accept to outcome. I/O: dials the node and hands both sockets to a relay."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from natproxy.errors import unforeseen
from natproxy.model import Address, Outcome
from natproxy.worker.dial import Dial
from natproxy.worker.liveness import close_by_reset
from natproxy.worker.loop import OUT, READ
from natproxy.worker.relay import Relay

if TYPE_CHECKING:
    from natproxy.worker.listener import Port


class Connection:
    """A client that was let in. It belongs to ``port`` until ``port.forget`` is called with it."""

    __slots__ = (
        "_client",
        "_client_is_readable",
        "_dial",
        "address",
        "client_ip",
        "client_port",
        "counted_client_bytes",
        "counted_node_bytes",
        "due_at",
        "due_outcome",
        "is_over",
        "last_active",
        "limit_group",
        "port",
        "relay",
        "started",
    )

    def __init__(self, port: Port, client: socket.socket, ip: str, client_port: int, limit_group: str) -> None:
        self.port = port
        self.client_ip = ip
        self.client_port = client_port
        self.limit_group = limit_group
        self.started = port.loop.now
        self.last_active = self.started
        self.address: Address | None = None
        """What the node's socket is connected to."""
        self.relay: Relay | None = None
        self.due_at: float | None = None
        """When this connection is to be closed, if it has not ended by then."""
        self.due_outcome = Outcome.STOPPED
        self.is_over = False
        self.counted_client_bytes = 0
        self.counted_node_bytes = 0
        """What the port's counters know of already."""
        self._client: socket.socket | None = client
        self._client_is_readable = False
        self._dial: Dial | None = None

    def start(self) -> None:
        """Watch the client and dial the node."""
        port = self.port
        if (client := self._client) is None:
            return
        port.loop.watch(client.fileno(), READ, self)
        self._dial = Dial(
            port.loop,
            port.addresses_in_order(),
            port.serve.connect_seconds,
            port.serve.keepalive_seconds,
            self._dialled,
        )
        self._dial.start()

    def ready(self, events: int) -> None:
        """Mind the client while the node is being dialled: its bytes wait in the kernel, its reset ends the dial."""
        self._client_is_readable = True
        client = self._client
        if events & ~(OUT | READ) and client is not None:
            number = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self.end(Outcome.CLIENT_RESET, "while the node was being dialled")

    def fail(self, error: Exception) -> None:
        """End the connection: its own code failed."""
        self.end(Outcome.INTERNAL, unforeseen(error))

    def _dialled(self, node: socket.socket | None, address: Address | None, outcome: Outcome, detail: str) -> None:
        port = self.port
        dial, self._dial = self._dial, None
        client = self._client
        if dial is not None:
            for failed in dial.failed:
                port.avoid(failed)
        if node is None or address is None or client is None or dial is None:
            self.address = address
            port.dial_failed(outcome, detail)
            self.end(outcome, detail)
            return
        self.address = address
        self._client = None
        port.dial_succeeded(self, port.loop.now - self.started)
        self.relay = Relay(port.loop, client, node, self._relay_ended)
        self.relay.start(client_is_readable=self._client_is_readable, node_is_readable=dial.is_readable)

    def _relay_ended(self, outcome: Outcome, detail: str) -> None:
        self.is_over = True
        self.port.forget(self, outcome, detail)

    def end(self, outcome: Outcome, detail: str = "") -> None:
        """Close everything at once. Harmless when already over."""
        if self.is_over:
            return
        if self.relay is not None:
            self.relay.end(outcome, detail)
            return
        self.is_over = True
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._client is not None:
            self.port.loop.forget(self._client.fileno())
            if outcome is Outcome.NODE_RESET:
                close_by_reset(self._client)
            else:
                self._client.close()
            self._client = None
        self.port.forget(self, outcome, detail)
