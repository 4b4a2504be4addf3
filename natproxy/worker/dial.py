"""One connection to a node: its addresses are tried in turn until one answers. I/O: connects sockets."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence

from natproxy.errors import unforeseen
from natproxy.model import Address, Outcome
from natproxy.worker.liveness import close_by_reset, set_up_dialling
from natproxy.worker.loop import READ_WRITE, Loop, Timer
from natproxy.worker.polling import ERROR, HUP, OUT

_PENDING = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})
_DONE = frozenset({0, errno.EISCONN})
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RESET = frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE})
"""It accepted, and had gone again before it was asked."""
_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)
"""Zero on macOS, where it takes a call of its own."""
_MAX_SHARES = 3
"""With several addresses each gets a share of the time, a third at least: a dead first one leaves time for more."""


class Dial:
    """Tries ``addresses`` one after another; ``seconds`` bounds them all together.

    ``on_done(sock, address, outcome, detail)`` is called once, at once or from a later turn of the loop: with a socket
    that is connected and watched for READ_WRITE (its receiver is to be replaced by ``loop.hand_over``), or with None
    and the outcome of the last address.
    """

    __slots__ = (
        "_addresses",
        "_deadline",
        "_loop",
        "_on_done",
        "_share",
        "_sock",
        "_timer",
        "_turn",
        "events",
        "failed",
    )

    def __init__(
        self,
        loop: Loop,
        addresses: Sequence[Address],
        seconds: float,
        on_done: Callable[[socket.socket | None, Address | None, Outcome, str], None],
    ) -> None:
        self._loop = loop
        self._addresses = list(addresses)
        self._deadline = loop.now + seconds
        self._share = seconds / min(max(len(addresses), 1), _MAX_SHARES)
        self._on_done = on_done
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self.failed: list[Address] = []
        """The addresses that did not answer."""
        self.events = 0
        """What was told of the socket when it was connected: the node may have spoken (or gone) already."""
        self._turn = 0

    def start(self) -> None:
        """Begin with the first address."""
        self._try_next(Outcome.NO_ADDRESS, "no address is known")

    def _try_next(self, outcome: Outcome, detail: str) -> None:
        while self._addresses and self._loop.now < self._deadline:
            failure = self._connect(self._addresses[0])
            if failure is None:
                return
            outcome, detail = failure
            if outcome is Outcome.NO_DESCRIPTORS:
                break
            self.failed.append(self._addresses.pop(0))
        self._on_done(None, self.failed[-1] if self.failed else None, outcome, detail)

    def _connect(self, address: Address) -> tuple[Outcome, str] | None:
        """Start connecting; None where that is under way."""
        family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | _NONBLOCK)
        except OSError as error:
            return _outcome(error.errno or 0), f"{address}: {error.strerror}"
        try:
            if not _NONBLOCK:
                sock.setblocking(False)
            set_up_dialling(sock)
            number = sock.connect_ex((address.ip, address.port))
        except (OSError, ValueError, OverflowError) as error:
            sock.close()
            return Outcome.NODE_UNREACHABLE, f"{address}: {error}"
        if number not in _PENDING and number not in _DONE:
            sock.close()
            return _outcome(number), f"{address}: {os.strerror(number)}"
        self._sock = sock
        self._loop.watch(sock.fileno(), READ_WRITE, self)
        self._turn = self._loop.turns
        left = self._deadline - self._loop.now
        share = left if len(self._addresses) == 1 else min(left, self._share)
        self._timer = self._loop.call_later(round(share, 3), self._time_out)  # mostly the same delay as others have
        return None

    def ready(self, events: int) -> None:
        """Find out whether the socket is connected: then, and only then, it can be written to and nothing is wrong."""
        sock = self._sock
        if sock is None or self._loop.turns == self._turn:
            return  # of a socket that had this number before
        address = self._addresses[0]
        if events & (ERROR | HUP):
            # The error first: macOS's connect(2) does not tell that of an attempt before.
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            number = number or sock.connect_ex((address.ip, address.port))
            if number in _PENDING:
                return
            if number not in _DONE:
                self._give_up(_outcome(number), f"{address}: {os.strerror(number)}")
                return
        elif not events & OUT:
            return
        self.events = events
        self._release()
        self._on_done(sock, address, Outcome.CLIENT_CLOSED, "")

    def _time_out(self) -> None:
        self._give_up(Outcome.CONNECT_TIMEOUT, f"{self._addresses[0]}: no answer")

    def _give_up(self, outcome: Outcome, detail: str) -> None:
        self.cancel()
        self.failed.append(self._addresses.pop(0))
        self._try_next(outcome, detail)

    def fail(self, error: Exception) -> None:
        """End the dial: its own code failed."""
        self.cancel()
        self._on_done(None, None, Outcome.INTERNAL, unforeseen(error))

    def cancel(self) -> None:
        """Close what is under way; ``on_done`` will not be called. A node that has just accepted sees a reset."""
        sock = self._sock
        self._release()
        if sock is not None:
            self._loop.forget(sock.fileno())
            close_by_reset(sock)

    def _release(self) -> None:
        self._sock = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _outcome(number: int) -> Outcome:
    if number == errno.ECONNREFUSED:
        return Outcome.REFUSED
    if number == errno.ETIMEDOUT:
        return Outcome.CONNECT_TIMEOUT
    if number in _RESET:
        return Outcome.NODE_RESET
    if number in _OUT_OF_DESCRIPTORS:
        return Outcome.NO_DESCRIPTORS
    return Outcome.NODE_UNREACHABLE
