"""One socket of a relay: reads it, hands what it read to its peer, and writes what its peer hands it. I/O: a socket.

Theory. A leg reads into one buffer that the whole worker shares, and its peer tries to write from there at once; only
what the kernel does not take is copied and kept (``pending``). While a leg holds pending bytes its peer does not read:
that is the backpressure, and it bounds memory to one buffer for each direction of a stalled connection, and to nothing
for the others.

Edges. A leg is registered once for reading, edge-triggered. ``OUT`` is added when a write first finds the socket full,
and stays: the kernel then reports it only after a full buffer has drained. An edge that arrives while a leg may not
read is not lost: ``is_readable`` remembers it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

from natproxy.errors import unforeseen
from natproxy.model import Outcome
from natproxy.tls.first_bytes import is_tls
from natproxy.worker import liveness
from natproxy.worker.loop import ERROR, IN, OUT, READ_WRITE

if TYPE_CHECKING:
    from natproxy.worker.relay import Relay

BUFFER_BYTES = 256 * 1024
"""What one read takes at most; docs/performance.md has the figures for other sizes."""
READS_PER_TURN = 4
"""A leg that has moved this many full buffers lets the others have their turn."""

LAST_WORDS_SECONDS = 5.0
"""How long a peer may take no more of what the other said before it broke."""
_LOOK_SECONDS = 0.05

BUFFER = bytearray(BUFFER_BYTES)
VIEW = memoryview(BUFFER)
"""One for the process: a read is always followed by its write, with nothing in between."""


class Leg:
    """One socket of a relay."""

    __slots__ = (
        "fd",
        "has_eof",
        "is_armed",
        "is_broken",
        "is_patient",
        "is_queued",
        "is_ragged",
        "is_readable",
        "is_shut",
        "is_strange",
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
        self.is_ragged = False
        """Its end came without the goodbye that its protocol has (TLS): it may have been cut."""
        self.is_strange = False
        """Its first bytes are to be looked at: a client that speaks TLS is wrong here."""
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
            self.flush()
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

    def pump(self, until_empty: bool) -> None:  # noqa: PLR0911 (a read can end in many ways)
        """Move what has arrived here to the peer, a fair share at most."""
        peer = self.peer
        if peer.pending is not None or self.has_eof:
            self.is_readable = True
            return
        self.is_readable = False
        receive = self.sock.recv_into
        for _ in range(READS_PER_TURN):
            try:
                count = receive(BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                self.relay.leg_failed(self, error)
                return
            if not count:
                self.has_eof = True
                self.relay.leg_ended(self)
                return
            if self.is_strange and not self._is_welcome(count):
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

    def _is_welcome(self, count: int) -> bool:
        """Look at the first bytes of the shared buffer; False where this ended the relay."""
        self.is_strange = False
        if is_tls(bytes(VIEW[: min(count, 3)])):
            self.relay.end(Outcome.TLS_ON_CLEAR_PORT, "the client speaks TLS, and this port does not")
            return False
        return True

    def write(self, count: int) -> bool:
        """Write the first ``count`` bytes of the shared buffer; keep what does not go. True where all went."""
        try:
            sent = self.sock.send(VIEW[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            return self._write_failed(error)
        if sent == count:
            return True
        self.pending = bytes(VIEW[sent:count])
        self.arm()
        return False

    def shut_write(self) -> None:
        """Tell this socket's peer that nothing more will come."""
        # ENOTCONN: reset meanwhile; its own event tells.
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def say_goodbye(self) -> None:
        """Say what the protocol says before a FIN: nothing. What does not go waits in ``pending``."""

    def close(self, *, is_reset: bool) -> None:
        """Close the socket; with ``is_reset`` its peer sees a reset."""
        self.pending = None
        if is_reset:
            liveness.close_by_reset(self.sock)
        else:
            self.sock.close()

    def flush(self) -> None:
        """Go on writing what waits."""
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
        if number == errno.EPIPE or (number == errno.ECONNRESET and self.has_eof):
            # Its end came before its reset, be it a FIN (tcp_reset() of the kernel in CLOSE_WAIT) or a goodbye of TLS:
            # what it said is whole.
            self._write_failed(OSError(number, os.strerror(number)))
        elif number:
            self.relay.leg_failed(self, OSError(number, os.strerror(number)))

    def arm(self) -> None:
        """Have OUT reported as well."""
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
