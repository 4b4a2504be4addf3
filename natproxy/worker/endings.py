"""How a leg ends that cannot end at once: what is still on its way is waited for. I/O: looks at sockets, by timers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from natproxy.worker import liveness

if TYPE_CHECKING:
    from natproxy.worker.leg import Leg
    from natproxy.worker.tlsleg import TlsLeg

LAST_WORDS_SECONDS = 5.0
"""How long a peer may take no more of what the other said before it broke."""
_LAST_WORDS_LOOK_SECONDS = 0.05
CLOSING_SECONDS = 2.0
"""How long a TLS peer that was told of the end may be quiet before its connection is closed."""
_CLOSING_LOOK_SECONDS = 0.25


class LastWords:
    """Delivers what a leg said before it broke, then resets the other one: a reset now would throw it away."""

    __slots__ = ("_error", "_left", "_leg", "_progress_at", "_relay")

    def __init__(self, leg: Leg, error: OSError) -> None:
        self._leg = leg
        self._relay = leg.relay
        self._error = error
        self._left = -1
        self._progress_at = leg.relay.loop.now

    def look(self) -> None:
        """End the relay, or look again in a while."""
        relay = self._relay
        if relay.is_over:
            return
        left = self._leg.unheard_bytes()
        if left != self._left:
            self._left, self._progress_at = left, relay.loop.now
        if not left or relay.loop.now - self._progress_at >= LAST_WORDS_SECONDS:
            relay.leg_failed(self._leg, self._error)
        else:
            relay.loop.call_later(_LAST_WORDS_LOOK_SECONDS, self.look)


class Closing:
    """Ends the relay of a leg that was told of the end, once it is quiet and has taken all."""

    __slots__ = ("_leg", "_quiet_since", "_received", "_relay")

    def __init__(self, leg: TlsLeg) -> None:
        self._leg = leg
        self._relay = leg.relay
        self._received = -1
        self._quiet_since = leg.relay.loop.now

    def look(self) -> None:
        """End the relay, or look again in a while."""
        leg, relay = self._leg, self._relay
        if relay.is_over:
            return
        has_work = leg.pending is not None or leg.peer.pending is not None or liveness.queued_bytes(leg.sock)
        if has_work or leg.received_bytes != self._received:
            self._received, self._quiet_since = leg.received_bytes, relay.loop.now
        if relay.loop.now - self._quiet_since >= CLOSING_SECONDS:
            relay.end_well()
        else:
            relay.loop.call_later(_CLOSING_LOOK_SECONDS, self.look)
