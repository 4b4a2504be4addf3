"""One socket of a relay: reads it, hands what it read to its peer, and writes what its peer hands it. I/O: a socket.

Theory. A leg reads, and its peer writes at once; only what the kernel does not take is kept (``pending``). While
a leg holds pending bytes its peer does not read: that is the backpressure, and it bounds memory to what one read takes
for each direction of a stalled connection, and to nothing for the others.

Three ways of reading:

- Most of the time little comes and all of it goes: one ``read``, one ``write``, no loop, no call in between. That is
  ``ready`` while the leg ``is_smooth``; everything unusual makes it leave that path, and ``pump`` finds back to it.
- What fills a small read is large (``is_bulk``). Between two clear sockets it is spliced (pipe.py), else read into one
  large buffer that the whole worker shares.
- A few bytes again: small reads.

Edges. A leg is registered once for reading, edge-triggered. ``OUT`` is added when a write first finds the socket full,
and stays: the kernel then reports it only after a full buffer has drained. An edge that arrives while a leg may not
read is not lost: ``is_readable`` remembers it.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from natproxy.errors import unforeseen
from natproxy.model import Outcome
from natproxy.tls.first_bytes import is_tls
from natproxy.worker import liveness
from natproxy.worker.endings import LastWords
from natproxy.worker.loop import READ_WRITE
from natproxy.worker.pipe import PIPES, Pipe, unread_bytes
from natproxy.worker.polling import ERROR, IN, OUT

if TYPE_CHECKING:
    from natproxy.worker.relay import Relay

SMALL_BYTES = 16 * 1024
"""What a small read takes at most."""
BUFFER_BYTES = 256 * 1024
"""What a large read takes at most."""
SPLICE_BYTES = 128 * 1024
"""What a splice takes at most: of more at once the kernel makes bursts that it then paces."""
READS_PER_TURN = 4
"""A leg that has moved this many full buffers lets the others have their turn."""

UNUSUAL = ~(IN | OUT)
"""The end, an error, urgent data: the socket must then be read up to EAGAIN."""

BUFFER = bytearray(BUFFER_BYTES)
VIEW = memoryview(BUFFER)
"""One for the process: a read is always followed by its write, with nothing in between."""

_read = os.read
_write = os.write


class Leg:
    """One socket of a relay."""

    __slots__ = (
        "fd",
        "has_eof",
        "is_armed",
        "is_broken",
        "is_bulk",
        "is_patient",
        "is_queued",
        "is_ragged",
        "is_readable",
        "is_shut",
        "is_smooth",
        "is_strange",
        "is_torn",
        "peer",
        "pending",
        "received_bytes",
        "relay",
        "sock",
    )

    speaks_tls = False
    reads_along = False
    """A rewriter looks at what is read here (framed.py)."""
    most_read_bytes = BUFFER_BYTES
    """What a large read takes at most."""
    peer: Leg

    def __init__(self, relay: Relay, sock: socket.socket) -> None:
        self.relay = relay
        self.sock = sock
        self.fd = sock.fileno()
        self.pending: bytes | Pipe | None = None
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
        self.is_smooth = False
        """Nothing waits on either socket, this one has not ended, and little comes at once."""
        self.is_bulk = False
        """Lately much came at once."""

    def ready(self, events: int) -> None:
        """Serve the events of this socket."""
        if not self.is_smooth or events & UNUSUAL:
            self.serve(events)
            return
        try:
            data = _read(self.fd, SMALL_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.relay.leg_failed(self, error)
            return
        if not data:
            self._take_end()
            return
        peer, count = self.peer, len(data)
        self.received_bytes += count
        if peer.speaks_tls:
            sent = count if peer.write(data) else -1
        else:
            try:
                sent = _write(peer.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                sent = count if peer.write_failed(error) else -1
        if not sent == count < SMALL_BYTES:
            self._leave_smooth(data, sent)

    def _leave_smooth(self, data: bytes | memoryview, sent: int) -> None:
        """Go on after a read that filled the buffer, or a write that did not take it all; -1 = the peer saw to it."""
        if sent == len(data):
            self.is_bulk = True
            self.pump(until_empty=True)
            return
        if sent >= 0:
            self.peer.keep(bytes(data[sent:]))
        self.is_readable = True

    def serve(self, events: int) -> None:
        """Serve events whatever they are, and whatever state this leg is in."""
        if self.pending is not None and events & ~IN:
            self.flush()
        if events & ~OUT and not self.relay.is_over:
            self.pump(bool(events & UNUSUAL))
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
            self.pump(until_empty=True)

    def pump(self, until_empty: bool) -> None:
        """Move what has arrived here to the peer, a fair share at most."""
        peer = self.peer
        self.is_smooth = False
        if peer.pending is not None or self.has_eof:
            self.is_readable = True
            return
        self.is_readable = False
        is_clear = not (self.speaks_tls or peer.speaks_tls)
        is_large = self.is_bulk
        for _ in range(READS_PER_TURN):
            try:
                count = self._move_much(is_clear) if is_large else self._move_little()
            except BlockingIOError:
                break
            except OSError as error:
                self.relay.leg_failed(self, error)
                return
            if count < 0:
                return
            if is_large:
                # An edge may tell of what has been read already: that says nothing of what comes next.
                if count:
                    self.is_bulk = count >= SMALL_BYTES
                is_full = count == (SPLICE_BYTES if is_clear else self.most_read_bytes)
                is_large = is_full or (count > 0 and self._opaque_bytes() >= SMALL_BYTES)
                # A splice that took less has not necessarily emptied the socket.
                if not (is_large or until_empty or (is_clear and unread_bytes(self.fd))):
                    break
            elif count == SMALL_BYTES:
                self.is_bulk = is_large = True
            elif not until_empty:
                break
        else:
            self.is_readable = True
            self.read_later()
            return
        self.is_smooth = self.pending is None and not (self.is_bulk or self.is_strange)

    def _move_little(self) -> int:
        """Read once, at most SMALL_BYTES, and have that written; return how much, or -1 where reading may not go on."""
        data = _read(self.fd, SMALL_BYTES)
        if data and self.is_strange and not self._is_welcome(data):
            return -1
        return self._move(len(data), data)

    def _move_much(self, is_clear: bool) -> int:
        """The same, at most ``most_read_bytes``; 0 where there is nothing."""
        most = self._spliceable_bytes() if is_clear else 0
        if most and (pipe := PIPES.take()) is not None:
            try:
                count = pipe.fill(self.fd, most)
            except OSError as error:
                PIPES.give_back(pipe)
                if isinstance(error, BlockingIOError):
                    return 0
                if not PIPES.give_up(error):
                    raise
            else:
                if not count:
                    # Its end, or urgent data before its end: a ``read`` tells which.
                    PIPES.give_back(pipe)
                    return 0
                return self._move(count, pipe)
        count = self.sock.recv_into(BUFFER, self.most_read_bytes)
        return self._move(count, VIEW[:count])

    def _spliceable_bytes(self) -> int:
        """Return how much of what comes next may go on unseen, in one splice; 0 = it has to be looked at."""
        return SPLICE_BYTES

    def _opaque_bytes(self) -> int:
        """Return how many bytes that come next are known to be the inside of a value."""
        return 0

    def _move(self, count: int, data: bytes | memoryview | Pipe) -> int:
        if not count:
            self._take_end()
            return -1
        self.received_bytes += count
        if self._forward(data):
            return count
        # Edge-triggered: the kernel will not repeat this edge, so the reading is resumed from the flush.
        self.is_readable = True
        return -1

    def _forward(self, data: bytes | memoryview | Pipe) -> bool:
        """Have the peer write what was read here. True where all went."""
        return self.peer.write_pipe(data) if isinstance(data, Pipe) else self.peer.write(data)

    def _take_end(self) -> None:
        self.has_eof = True
        self.is_smooth = False
        self.relay.leg_ended(self)

    def _is_welcome(self, data: bytes) -> bool:
        """Look at the first bytes; False where this ended the relay."""
        self.is_strange = False
        if is_tls(data[:3]):
            self.relay.end(Outcome.TLS_ON_CLEAR_PORT, "the client speaks TLS, and this port does not")
            return False
        return True

    def write(self, data: bytes | memoryview) -> bool:
        """Write; keep what does not go. True where all went."""
        try:
            sent = _write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            return self.write_failed(error)
        if sent == len(data):
            return True
        self.keep(bytes(data[sent:]))
        return False

    def write_behind(self, data: bytes) -> None:
        """Write after the bytes that wait, if any do."""
        if isinstance(self.pending, bytes):
            self.pending += data
        else:
            self.write(data)

    def write_pipe(self, pipe: Pipe) -> bool:
        """Write what a pipe holds, and give it back; keep it where not all goes. True where all went."""
        try:
            is_empty = pipe.empty(self.fd)
        except OSError as error:
            PIPES.give_back(pipe)
            return self.write_failed(error)
        if is_empty:
            PIPES.give_back(pipe)
        else:
            self.keep(pipe)
        return is_empty

    def keep(self, rest: bytes | Pipe) -> None:
        """Write ``rest`` as soon as there is room; until then nothing more is read for this leg."""
        self.pending = rest
        self.is_smooth = self.peer.is_smooth = False
        self.arm()

    def shut_write(self) -> None:
        """Tell this socket's peer that nothing more will come."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # ENOTCONN: reset meanwhile; its own event tells

    def say_goodbye(self) -> None:
        """Say what the protocol says before a FIN: nothing. What does not go waits in ``pending``."""

    def close(self, *, is_reset: bool) -> None:
        """Close the socket; with ``is_reset`` its peer sees a reset."""
        self._drop_pending()
        self.is_smooth = False
        self.fd = -1  # another socket may soon have this number
        if is_reset:
            liveness.close_by_reset(self.sock)
        else:
            self.sock.close()

    def _drop_pending(self) -> None:
        if isinstance(self.pending, Pipe):
            PIPES.give_back(self.pending)
        self.pending = None

    def flush(self) -> None:
        """Go on writing what waits."""
        pending = self.pending
        if pending is None:
            return
        try:
            if isinstance(pending, Pipe):
                is_empty = pending.empty(self.fd)
            else:
                sent = _write(self.fd, pending)
                self.pending = pending[sent:]
                is_empty = sent == len(pending)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop_pending()
            self.write_failed(error)
            return
        if not is_empty:
            return
        self._drop_pending()
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
            self.write_failed(OSError(number, os.strerror(number)))
        elif number:
            self.relay.leg_failed(self, OSError(number, os.strerror(number)))

    def arm(self) -> None:
        """Have OUT reported as well."""
        if not self.is_armed:
            self.is_armed = True
            self.relay.loop.rewatch(self.fd, READ_WRITE)

    def write_failed(self, error: OSError) -> bool:
        """Writing to this socket failed: deliver its last words, then end. True where the peer may go on being read."""
        if self.is_broken:
            return True
        self.is_broken = True
        self.is_torn = error.errno != errno.EPIPE and not self.has_eof
        if not self.has_eof:
            self.pump(until_empty=True)
        if self.peer.is_broken:
            self.relay.leg_failed(self, error)
        else:
            LastWords(self, error).look()
        return False

    def unheard_bytes(self) -> int:
        """Return how much of what this leg said its peer has not acknowledged; 1 stands for what is not read yet."""
        waiting = len(self.peer.pending) if self.peer.pending is not None else 0
        return waiting + liveness.queued_bytes(self.peer.sock) + (self.is_readable and not self.has_eof)
