"""Two sockets joined: bytes go both ways until both ends are done. I/O: reads and writes the two sockets.

Theory. A relay is two legs, each the other's peer. A leg reads from its own socket into one buffer that the whole
worker shares, and tries to write to its peer's socket at once; only what the kernel does not take is copied and kept
(``pending``). While a leg holds pending bytes its peer does not read: that is the backpressure, and it bounds memory
to one buffer for each direction of a stalled connection, and to nothing for the others.

How a connection ends (interface of natproxy, "When a live connection ends"):

- EOF on one leg: what was read before is written to the peer first, then the peer's socket is shut for writing. The
  other direction lives on. When both directions have ended the relay is over.
- A reset on one leg resets the other (SO_LINGER 0), so that neither side takes a broken answer for a whole one.
- Writing to a leg fails: its own last words may still lie unread in the kernel (an error reply, then a close). They are
  delivered before the reset is passed on.

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
import struct
from collections.abc import Callable

from natproxy.model import Outcome
from natproxy.worker import liveness
from natproxy.worker.loop import ERROR, IN, OUT, READ_WRITE, Loop

BUFFER_BYTES = 256 * 1024
"""What one read takes at most; docs/performance.md has the figures for other sizes."""
READS_PER_TURN = 4
"""A leg that has moved this many full buffers lets the others have their turn."""

_BUFFER = bytearray(BUFFER_BYTES)
_VIEW = memoryview(_BUFFER)
"""One for the process: a read is always followed by its write, with nothing in between."""
_LINGER_RESET = struct.pack("ii", 1, 0)
_TIMEOUT_ERRNOS = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


class Leg:
    """One socket of a relay."""

    __slots__ = (
        "fd",
        "has_eof",
        "is_armed",
        "is_broken",
        "is_patient",
        "is_readable",
        "is_shut",
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
        self.is_readable = False
        """An edge said that there is something to read, and it has not been used up."""
        self.is_armed = False
        """Registered for OUT."""
        self.is_patient = False
        """TCP_USER_TIMEOUT is lifted: the peer reads slowly, but lives (see liveness.py)."""

    def ready(self, events: int) -> None:
        """Serve the events of this socket."""
        if self.pending is not None and events & ~IN:
            self._flush()
        if events & ERROR and (self.has_eof or self.peer.pending is not None):
            # No read would find this error: there is nothing to read any more, or no room to read it to.
            self._take_error()
        if events & ~OUT and not self.relay.is_over:
            # Anything but plain IN (end, error, urgent data) must be read up to EAGAIN.
            self.pump(bool(events & ~(IN | OUT)))

    def resume(self) -> None:
        """Go on reading in a later turn: the peer has room again, or the fair share of the last turn was used up."""
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
        self.relay.loop.again(self.resume)

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
            self.relay.loop.again(peer.resume)

    def _take_error(self) -> None:
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if not self.relay.is_over else 0
        if number:
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
        if not self.has_eof:
            self.pump(True)
        # With last words still on their way, their end comes back here through ``resume``, or through ``shut``.
        if not self.relay.is_over and self.peer.pending is None and not self.is_readable:
            self.relay.leg_failed(self, error)
        return False


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
        if leg.peer.is_broken:
            self.end(self._reset_outcome(leg.peer), is_reset=True)
            return
        if leg.has_eof and leg.pending is None and leg.peer.pending is None:
            self.end(Outcome.CLIENT_CLOSED if self._ended_first is self.client else Outcome.NODE_CLOSED)
            return
        # ENOTCONN: reset meanwhile; its own event tells.
        with contextlib.suppress(OSError):
            leg.sock.shutdown(socket.SHUT_WR)

    def leg_failed(self, leg: Leg, error: OSError) -> None:
        """``leg`` was reset or timed out: the other one is reset."""
        if error.errno in _TIMEOUT_ERRNOS:
            outcome = Outcome.CLIENT_TIMEOUT if leg is self.client else Outcome.NODE_TIMEOUT
            self.end(outcome, error.strerror or "", is_reset=True)
        else:
            self.end(self._reset_outcome(leg), is_reset=True)

    def _reset_outcome(self, leg: Leg) -> Outcome:
        return Outcome.CLIENT_RESET if leg is self.client else Outcome.NODE_RESET

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
                with contextlib.suppress(OSError):
                    leg.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            leg.sock.close()
        self._on_end(outcome, detail)
