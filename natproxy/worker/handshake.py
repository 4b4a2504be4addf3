"""TLS handshakes: one each, and how many of them may run. I/O: reads and writes sockets that are to speak TLS.

Theory. A handshake costs a hundred times what a request does, and anyone who reaches the port can ask for one. So no
handshake is carried on from the event that brings its bytes: it queues up, and ``Handshakes`` carries on as many as fit
a slice of the turn, after everybody's bytes have moved. How many may be under way at once is bounded too, in all and
for each client, and each has a deadline.

OpenSSL sees no socket: bytes go in and out through two memory BIOs. That leaves reading, writing and the watching of
descriptors to the loop, and lets the same object go on under the relay (tlsleg.py) with whatever bytes came early.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable

from natproxy.errors import unforeseen
from natproxy.model import HandshakeFailure
from natproxy.tls.failures import why
from natproxy.tls.first_bytes import is_text, is_tls, what_instead
from natproxy.worker.access import client_of
from natproxy.worker.loop import READ_WRITE, Loop, Timer
from natproxy.worker.polling import IN, OUT

MOST_AT_ONCE = 1024
"""With clients, in one worker."""
SHARE_OF_A_CLIENT = 4
"""One client may have so much of what is left: the more are under way, the less, so that a few cannot take all."""
SLICE_SECONDS = 0.001
"""What handshakes may take of one turn of the loop; the one that passes it is the last."""
CLEAR_TEXT_ANSWER = b"-ERR this port speaks TLS: connect with TLS\r\n"
"""Said to a client that speaks in the clear; Redis clients show it, and for others it is as good as none."""

_READ_BYTES = 16 * 1024
_RAW = bytearray(_READ_BYTES)
_RAW_VIEW = memoryview(_RAW)
"""One for the process: what is read is handed to OpenSSL at once."""

OnDone = Callable[["TlsEnd | None", HandshakeFailure | None, str], None]
"""(the end that speaks TLS now, why it does not and a line on it). After a failure the end, where there is one, still
tells which certificate was shown."""


class TlsEnd:
    """One end of a TLS connection without its socket."""

    __slots__ = ("incoming", "outgoing", "tls")

    def __init__(self, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        is_server = name is None
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=is_server, server_hostname=name, session=session
        )


class Handshakes:
    """Those under way in a worker."""

    def __init__(self, loop: Loop, clock: Callable[[], float] = time.perf_counter) -> None:
        self._loop = loop
        self._clock = clock
        self._waiting: deque[Handshake] = deque()
        self._of_client: Counter[str] = Counter()
        self._is_queued = False
        self.open = 0
        """With clients."""

    def has_room(self, ip: str) -> bool:
        """Say whether one more handshake with a client at ``ip`` may begin."""
        left = MOST_AT_ONCE - self.open
        return left > 0 and self._of_client[client_of(ip)] < max(1, left // SHARE_OF_A_CLIENT)

    def begun(self, ip: str) -> None:
        """Count one more with a client."""
        self.open += 1
        self._of_client[client_of(ip)] += 1

    def ended(self, ip: str) -> None:
        """Count one less."""
        client = client_of(ip)
        self.open -= 1
        self._of_client[client] -= 1
        if not self._of_client[client]:
            del self._of_client[client]

    def queue(self, handshake: Handshake) -> None:
        """Have ``handshake.step`` called when its turn comes."""
        self._waiting.append(handshake)
        if not self._is_queued:
            self._is_queued = True
            self._loop.again(self._carry_on)

    def _carry_on(self) -> None:
        self._is_queued = False
        until = self._clock() + SLICE_SECONDS
        waiting = self._waiting
        while waiting:
            handshake = waiting.popleft()
            try:
                handshake.step()
            except Exception as error:
                handshake.fail(error)
            if waiting and self._clock() >= until:
                self._is_queued = True
                self._loop.again(self._carry_on)
                return


class Handshake:
    """One handshake on a socket that the loop watches by edges; it is the receiver of its events until it is done.

    ``name`` is the node's, for its certificate and for SNI; None = natproxy is the server. ``events``: what edges have
    told of so far; a node that had nothing to say is spoken to, not read. ``on_done`` is called once, from a later turn
    of the loop. The socket stays the caller's: after a failure he closes it.
    """

    __slots__ = (
        "_end",
        "_handshakes",
        "_head",
        "_is_done",
        "_is_over",
        "_is_queued",
        "_is_server",
        "_is_silent",
        "_loop",
        "_on_done",
        "_pending",
        "_sock",
        "_timer",
        "events",
        "is_armed",
    )

    def __init__(
        self,
        loop: Loop,
        handshakes: Handshakes,
        sock: socket.socket,
        context: ssl.SSLContext,
        on_done: OnDone,
        *,
        seconds: float,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
        is_armed: bool = False,
        events: int = IN,
    ) -> None:
        self._loop = loop
        self._handshakes = handshakes
        self._sock = sock
        self._end = TlsEnd(context, name, session)
        self._is_server = name is None
        self._head: bytes | None = b"" if self._is_server else None
        """The client's first bytes, until they are known to be TLS."""
        self._on_done = on_done
        self._pending = b""
        self._is_done = False
        """Both have agreed; the last bytes of it may wait for room."""
        self.events = events
        """What edges have told of that was not read up to EAGAIN: for whoever takes the socket over."""
        self._is_over = False
        self._is_queued = False
        self._is_silent = not self._is_server and not events & ~OUT
        """A node from which nothing was heard: what is to be done is to speak, not to read."""
        self.is_armed = is_armed
        """The socket is watched for OUT as well."""
        self._timer: Timer | None = loop.call_later(seconds, self._time_out)

    def start(self) -> None:
        """Take the socket's events over, and begin: a node waits for the first word, a client may have said it."""
        self._loop.hand_over(self._sock.fileno(), self)
        self._queue()

    def _queue(self) -> None:
        if not self._is_queued:
            self._is_queued = True
            self._handshakes.queue(self)

    def ready(self, events: int) -> None:
        """Note that the socket has something to say, or room."""
        if not events & ~OUT and not self._pending:
            return
        self._is_silent &= not events & ~OUT
        # An end or an error comes with the edge of the last bytes, and with no other: it must be read up to EAGAIN.
        self.events |= events
        self._queue()

    def fail(self, error: Exception) -> None:
        """End the handshake: its own code failed, or that of whoever was told of its end; he is told (again)."""
        self.cancel()
        self._on_done(None, HandshakeFailure.INTERNAL, unforeseen(error))

    def cancel(self) -> None:
        """Forget it; ``on_done`` will not be called."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        detail = "the node did not finish in time; does it speak TLS?"
        if self._is_server:
            detail = f"the client said {'nothing' if self._head == b'' else 'too little'} in time"
        self._finish(None, HandshakeFailure.TIMEOUT, detail)

    def step(self) -> None:  # noqa: PLR0911 (a read can end in many ways)
        """Carry on with what has arrived."""
        self._is_queued = False
        if self._is_over or (self._pending and not self._send(b"")):
            return
        if self._is_done:
            self._finish(self._end, None, "")
            return
        if self._is_silent:
            self._is_silent = False
            self._shake(has_more=False)
            return
        try:
            count = self._sock.recv_into(_RAW)
        except BlockingIOError:
            if not self._is_server:
                self._shake(has_more=False)  # the first word is ours
            return
        except OSError as error:
            self._finish(None, HandshakeFailure.CLOSED, error.strerror or "")
            return
        if not count:
            self._finish(None, HandshakeFailure.CLOSED, "ended before the handshake was done")
            return
        data = bytes(_RAW_VIEW[:count])
        if self._head is not None:
            data = self._head = self._head + data
            if (verdict := is_tls(data)) is None:
                if self._has_ended():
                    self._queue()
                return
            if not verdict:
                self._refuse(data)
                return
            self._head = None
        self._end.incoming.write(data)
        self._shake(has_more=self._has_ended() or count == _READ_BYTES)

    def _has_ended(self) -> bool:
        return bool(self.events & ~(IN | OUT))

    def _shake(self, *, has_more: bool) -> None:
        end = self._end
        try:
            end.tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._send(end.outgoing.read()) and has_more:
                self._queue()
            return
        except ssl.SSLError as error:
            failure, detail = why(error, is_server=self._is_server)
            with contextlib.suppress(OSError):  # who is gone by now is told as what he was
                self._sock.send(self._pending + end.outgoing.read())  # the alert
            self._finish(end, failure, detail)
            return
        self._is_done = True
        if self._send(end.outgoing.read()):  # else what is left of the last flight goes first
            self._finish(end, None, "")

    def _send(self, data: bytes) -> bool:
        """Send what waits, then ``data``; True where all of it went."""
        if self._pending:
            data = self._pending + data
        if not data:
            return True
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._pending = b""
            if not self._is_over:
                self._finish(None, HandshakeFailure.CLOSED, error.strerror or "")
            return False
        self._pending = data[sent:]
        if self._pending and not self.is_armed:
            self.is_armed = True
            self._loop.rewatch(self._sock.fileno(), READ_WRITE)
        return not self._pending

    def _refuse(self, data: bytes) -> None:
        failure = what_instead(data)
        detail = "the client does not speak TLS"
        if failure is HandshakeFailure.CLEAR_TEXT:
            detail = "the client speaks in the clear to a port that speaks TLS"
            if is_text(data):
                with contextlib.suppress(OSError):
                    self._sock.send(CLEAR_TEXT_ANSWER)
        self._finish(None, failure, detail)

    def _finish(self, end: TlsEnd | None, failure: HandshakeFailure | None, detail: str) -> None:
        if not self._is_over:
            self.cancel()
            self._on_done(end, failure, detail)
