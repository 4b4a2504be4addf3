"""What happened on a port since it was last told. Pure but for the counts it keeps."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from natproxy.messages import DIAL_BUCKETS, RouteCounts
from natproxy.model import Address, HandshakeFailure, Outcome
from natproxy.wire.rewriter import Fallback, Reply

if TYPE_CHECKING:
    from natproxy.worker.connection import Connection


class PortCounts:
    """What happened on a port since it was last told; refusals are counted among ``ended`` but never ``opened``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._live: defaultdict[Address, int] = defaultdict(int)
        self._start()

    def _start(self) -> None:
        self.opened = 0
        self.ended: defaultdict[Outcome, int] = defaultdict(int)
        self._client_bytes = 0
        self._node_bytes = 0
        self._dials: list[int] = []
        self._dial_seconds = 0.0
        self._handshakes: dict[str, Counter[str]] = {"client": Counter(), "node": Counter()}
        self._rewritten: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()

    def shaken(self, side: str, failure: HandshakeFailure | None) -> None:
        """Count a TLS handshake with the client or the node; ``failure`` None = it is done."""
        self._handshakes[side]["ok" if failure is None else failure.value] += 1

    def rewritten(self, reply: Reply) -> None:
        """Count a reply whose addresses were rewritten."""
        self._rewritten[reply.value] += 1

    def fell_back(self, reason: Fallback) -> None:
        """Count a connection that is read along with no longer."""
        self._fallbacks[reason.value] += 1

    def dialled(self, address: Address, seconds: float) -> None:
        """Count a successful dial to ``address``, where a connection now lives."""
        if not self._dials:
            self._dials = [0] * (len(DIAL_BUCKETS) + 1)
        self._dials[bisect.bisect_left(DIAL_BUCKETS, seconds)] += 1
        self._dial_seconds += seconds
        self._live[address] += 1

    def left(self, address: Address) -> None:
        """Count one live connection to ``address`` less."""
        self._live[address] -= 1
        if not self._live[address]:
            del self._live[address]

    def add_bytes(self, connection: Connection) -> bool:
        """Take in the bytes a connection has moved since it was last asked; True where there were any."""
        relay = connection.relay
        if relay is None:
            return False
        client_bytes = relay.client.received_bytes - connection.counted_client_bytes
        node_bytes = relay.node.received_bytes - connection.counted_node_bytes
        connection.counted_client_bytes += client_bytes
        connection.counted_node_bytes += node_bytes
        self._client_bytes += client_bytes
        self._node_bytes += node_bytes
        return bool(client_bytes or node_bytes)

    def take(self, open_now: int) -> RouteCounts | None:
        """Return the counts and start anew; None where there is nothing to tell."""
        if not (open_now or self.opened or self.ended or self._live):
            return None
        counts = RouteCounts(
            port=self._port,
            open=open_now,
            opened=self.opened,
            ended={outcome.value: count for outcome, count in self.ended.items()},
            client_bytes=self._client_bytes,
            node_bytes=self._node_bytes,
            dials=tuple(self._dials),
            dial_seconds=self._dial_seconds,
            live=tuple((address.ip, address.port, count) for address, count in self._live.items()),
            client_handshakes=dict(self._handshakes["client"]),
            node_handshakes=dict(self._handshakes["node"]),
            rewritten=dict(self._rewritten),
            fallbacks=dict(self._fallbacks),
        )
        self._start()
        return counts
