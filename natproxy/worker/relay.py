"""Two sockets joined: bytes go both ways until both ends are done. I/O: reads and writes the two sockets.

Theory. A relay is two legs, each the other's peer. A leg reads from its own socket into one buffer that the whole
worker shares, and tries to write to its peer's socket at once; only what the kernel does not take is copied and kept
(``pending``). While a leg holds pending bytes its peer does not read: that is the backpressure, and it bounds memory
to one buffer for each direction of a stalled connection, and to nothing for the others.

How a connection ends (interface of natproxy, "When a live connection ends"):

- EOF on one leg: what was read before is written to the peer first, then the peer's socket is shut for writing. The
  other direction lives on. When both directions have ended the relay is over.
- A reset on one leg resets the other (SO_LINGER 0), so that neither side takes a broken answer for a whole one.
- Writing to a leg fails, or it is reset after its EOF: its own last words may still lie in the kernel, unread or on
  their way (an error reply, then a close, while the peer went on sending). They are delivered before the reset is
  passed on (``LastWords``), because a reset throws away what its receiver has not got yet.

Edges. A leg is registered once for reading, edge-triggered. ``OUT`` is added when a write first finds the socket full,
and stays: the kernel then reports it only after a full buffer has drained. An edge that arrives while a leg may not
read is not lost: ``is_readable`` remembers it.

The seam: ``Relay(loop, client, node, on_end)``, ``start()``, ``end(outcome)``, ``check(dead_seconds)``, and the counts
of bytes. Another relay (TLS, rewriting) keeps these.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable

from natproxy.errors import unforeseen
from natproxy.model import Outcome
from natproxy.worker import liveness
from natproxy.worker.loop import ERROR, IN, OUT, READ_WRITE, Loop

BUFFER_BYTES = 256 * 1024
"""What one read takes at most; docs/performance.md has the figures for other sizes."""
READS_PER_TURN = 4
"""A leg that has moved this many full buffers lets the others have their turn."""

LAST_WORDS_SECONDS = 5.0
"""How long a peer may take no more of what the other said before it broke."""
_LOOK_SECONDS = 0.05

_BUFFER = bytearray(BUFFER_BYTES)
_VIEW = memoryview(_BUFFER)
"""One for the process: a read is always followed by its write, with nothing in between."""
_TIMEOUT_ERRNOS = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


class Leg:
    """One socket of a relay."""

    __slots__ = (
        "fd",
        "has_eof",
        "is_armed",
        "is_broken",
        "is_patient",
        "is_queued",
        "is_readable",
        "is_shut",
        "is_torn",
        "peer",
        "pending",
        "received_bytes",
        "relay",
        "sock",
    )

    peer: Leg

    def __init__(self, relay: Relay, sock: socket.socket) -> None:
        self.relay = relay
        self.sock = sock
        self.fd = sock.fileno()
        self.pending: bytes | None = None
        """What the peer sent and this socket did not take yet."""
        self.received_bytes = 0
        self.has_eof = False
        """This leg's side has sent its last byte."""
        self.is_shut = False
        """This socket is shut for writing."""
        self.is_broken = False
        """Writing to this socket failed; only its last words are still wanted."""
        self.is_torn = False
        """It was reset before it had sent its end: no end is to be passed on."""
        self.is_readable = False
        """An edge said that there is something to read, and it has not been used up."""
        self.is_queued = False
        """It has a turn coming (``Loop.again``); never two, or it would get ever more of them."""
        self.is_armed = False
        """Registered for OUT."""
        self.is_patient = False
        """TCP_USER_TIMEOUT is lifted: the peer reads slowly, but lives (see liveness.py)."""

    def ready(self, events: int) -> None:
        """Serve the events of this socket."""
        if self.pending is not None and events & ~IN:
            self._flush()
        if events & ~OUT and not self.relay.is_over:
            # Anything but plain IN (end, error, urgent data) must be read up to EAGAIN.
            self.pump(bool(events & ~(IN | OUT)))
        if events & ERROR and (self.has_eof or self.peer.pending is not None):
            # No read would find this error: there is nothing to read any more, or no room to read it to.
            self._take_error()

    def fail(self, error: Exception) -> None:
        """End the relay: its own code failed."""
        self.relay.end(Outcome.INTERNAL, unforeseen(error), is_reset=True)

    def read_later(self) -> None:
        """Go on reading in the next turn: the peer has room again, or the fair share of this turn is used up."""
        if not self.is_queued:
            self.is_queued = True
            self.relay.loop.again(self.resume)

    def resume(self) -> None:
        """Take the turn that was queued for."""
        self.is_queued = False
        if not self.relay.is_over and self.is_readable:
            self.pump(True)

    def pump(self, until_empty: bool) -> None:
        """Move what has arrived here to the peer, a fair share at most."""
        peer = self.peer
        if peer.pending is not None or self.has_eof:
            self.is_readable = True
            return
        self.is_readable = False
        receive = self.sock.recv_into
        for _ in range(READS_PER_TURN):
            try:
                count = receive(_BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                self.relay.leg_failed(self, error)
                return
            if not count:
                self.has_eof = True
                self.relay.leg_ended(self)
                return
            self.received_bytes += count
            if not peer.write(count):
                # Edge-triggered: the kernel will not repeat this edge, so the reading is resumed from the flush.
                self.is_readable = True
                return
            if count < BUFFER_BYTES and not until_empty:
                return
        self.is_readable = True
        self.read_later()

    def write(self, count: int) -> bool:
        """Write the first ``count`` bytes of the shared buffer; keep what does not go. True where all went."""
        try:
            sent = self.sock.send(_VIEW[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            return self._write_failed(error)
        if sent == count:
            return True
        self.pending = bytes(_VIEW[sent:count])
        self._arm()
        return False

    def _flush(self) -> None:
        pending = self.pending
        if pending is None:
            return
        try:
            sent = self.sock.send(pending)
        except BlockingIOError:
            return
        except OSError as error:
            self.pending = None
            self._write_failed(error)
            return
        if sent < len(pending):
            self.pending = pending[sent:]
            return
        self.pending = None
        peer = self.peer
        if peer.has_eof:
            self.relay.shut(self)
        elif peer.is_readable:
            peer.read_later()

    def _take_error(self) -> None:
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if not self.relay.is_over else 0
        if number == errno.EPIPE:
            # Its end came before its reset (tcp_reset() of the kernel in CLOSE_WAIT): what it said is whole.
            self._write_failed(OSError(number, os.strerror(number)))
        elif number:
            self.relay.leg_failed(self, OSError(number, os.strerror(number)))

    def _arm(self) -> None:
        if not self.is_armed:
            self.is_armed = True
            self.relay.loop.rewatch(self.fd, READ_WRITE)

    def _write_failed(self, error: OSError) -> bool:
        """Deliver this leg's last words, then end. Returns True where the peer may go on being read."""
        if self.is_broken:
            return True
        self.is_broken = True
        self.is_torn = error.errno != errno.EPIPE and not self.has_eof
        if not self.has_eof:
            self.pump(True)
        if self.peer.is_broken:
            self.relay.leg_failed(self, error)
        else:
            LastWords(self, error).look()
        return False

    def unheard_bytes(self) -> int:
        """Return how much of what this leg said its peer has not acknowledged; 1 stands for what is not read yet."""
        waiting = len(self.peer.pending) if self.peer.pending is not None else 0
        return waiting + liveness.queued_bytes(self.peer.sock) + (self.is_readable and not self.has_eof)


class LastWords:
    """Delivers what a leg said before it broke, then resets the other one: a reset now would throw it away."""

    __slots__ = ("_error", "_left", "_leg", "_progress_at")

    def __init__(self, leg: Leg, error: OSError) -> None:
        self._leg = leg
        self._error = error
        self._left = -1
        self._progress_at = leg.relay.loop.now

    def look(self) -> None:
        """End the relay, or look again in a while."""
        relay = self._leg.relay
        if relay.is_over:
            return
        left = self._leg.unheard_bytes()
        if left != self._left:
            self._left, self._progress_at = left, relay.loop.now
        if not left or relay.loop.now - self._progress_at >= LAST_WORDS_SECONDS:
            relay.leg_failed(self._leg, self._error)
        else:
            relay.loop.call_later(_LOOK_SECONDS, self.look)


class Relay:
    """Joins a client's socket and a node's; owns both from ``start`` on and closes them at the end.

    ``on_end(outcome, detail)`` is called once, after both sockets are closed.
    """

    __slots__ = ("_ended_first", "_on_end", "client", "is_over", "loop", "node")

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        node: socket.socket,
        on_end: Callable[[Outcome, str], None],
    ) -> None:
        self.loop = loop
        self.client = Leg(self, client)
        self.node = Leg(self, node)
        self.client.peer = self.node
        self.node.peer = self.client
        self.is_over = False
        self._ended_first: Leg | None = None
        self._on_end = on_end

    def start(self, *, client_is_readable: bool, node_is_readable: bool) -> None:
        """Take over two sockets that the loop already watches: the client's for READ, the node's for READ_WRITE.

        ``..._is_readable``: an edge told of something to read there, and nobody has read it.
        """
        self.node.is_armed = True
        self.loop.hand_over(self.client.fd, self.client)
        self.loop.hand_over(self.node.fd, self.node)
        if client_is_readable:
            self.client.pump(True)
        if node_is_readable and not self.is_over:
            self.node.pump(True)

    def leg_ended(self, leg: Leg) -> None:
        """``leg`` sent its EOF: pass it on once everything before it has been written."""
        if self._ended_first is None:
            self._ended_first = leg
        if leg.peer.pending is None:
            self.shut(leg.peer)

    def shut(self, leg: Leg) -> None:
        """All bytes for ``leg`` are written and no more will come."""
        if self.is_over or leg.is_shut:
            return
        leg.is_shut = True
        if leg.peer.is_torn:
            return
        is_broken = leg.is_broken or leg.peer.is_broken
        if leg.has_eof and leg.pending is None and leg.peer.pending is None and not is_broken:
            self.end(Outcome.CLIENT_CLOSED if self._ended_first is self.client else Outcome.NODE_CLOSED)
            return
        # ENOTCONN: reset meanwhile; its own event tells.
        with contextlib.suppress(OSError):
            leg.sock.shutdown(socket.SHUT_WR)

    def leg_failed(self, leg: Leg, error: OSError) -> None:
        """``leg`` was reset or timed out: the other one is reset."""
        is_client = leg is self.client
        if error.errno in _TIMEOUT_ERRNOS:
            outcome = Outcome.CLIENT_TIMEOUT if is_client else Outcome.NODE_TIMEOUT
            self.end(outcome, error.strerror or "", is_reset=True)
        else:
            self.end(Outcome.CLIENT_RESET if is_client else Outcome.NODE_RESET, is_reset=True)

    def check(self, dead_seconds: float) -> None:
        """Look after peers that neither read nor answer; to be called a few times within ``dead_seconds``."""
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
            leg.pending = None
            if is_reset:
                liveness.close_by_reset(leg.sock)
            else:
                leg.sock.close()
        self._on_end(outcome, detail)
