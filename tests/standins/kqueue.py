"""``select.kqueue`` and ``select.kevent`` for a system that has epoll instead. I/O: epoll.

Faithful to kqueue(2) in what a poller of sockets sees of it: a filter each for reading and for writing; EV_ADD of one
that is there looks at it anew; EV_DELETE of one that is not there is ENOENT; EV_CLEAR tells of what is new only, and
for writing of every acknowledgement; EV_EOF with the error in ``fflags``, beside what is left to be read in ``data``;
a closed descriptor is dropped. Of an error epoll does not say which it is, so that ECONNRESET stands for each.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select as real
import termios
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

KQ_FILTER_READ: Final = -1
KQ_FILTER_WRITE: Final = -2
KQ_EV_ADD: Final = 0x0001
KQ_EV_DELETE: Final = 0x0002
KQ_EV_CLEAR: Final = 0x0020
KQ_EV_ERROR: Final = 0x4000
KQ_EV_EOF: Final = 0x8000
EV_OOBAND: Final = 0x2000
"""macOS sets it beside data at an urgent mark."""

_epoll = real.epoll
_IN, _OUT, _PRI, _ERR, _HUP, _RDHUP = (
    real.EPOLLIN,
    real.EPOLLOUT,
    real.EPOLLPRI,
    real.EPOLLERR,
    real.EPOLLHUP,
    real.EPOLLRDHUP,
)
_EDGE = real.EPOLLET
_WANTED = {KQ_FILTER_READ: _IN | _RDHUP | _PRI, KQ_FILTER_WRITE: _OUT}


@dataclass
class kevent:  # noqa: N801 (as it is called there)
    """A change that is asked for, or an event that is told."""

    ident: int
    filter: int = KQ_FILTER_READ
    flags: int = KQ_EV_ADD
    fflags: int = 0
    data: int = 0
    udata: int = 0


class kqueue:  # noqa: N801 (as it is called there)
    """A queue of events."""

    def __init__(self) -> None:
        self.closed = False
        self._filters = {kind: _epoll() for kind in _WANTED}
        self._flags: dict[tuple[int, int], int] = {}
        """(descriptor, filter) -> how it was added; those of closed descriptors stay until they are added again."""

    def control(
        self, changelist: Iterable[kevent] | None, max_events: int, timeout: float | None = None, /
    ) -> list[kevent]:
        """Make the changes, then wait ``timeout`` seconds (None = for ever) for events, ``max_events`` at most."""
        if max_events < 0:
            raise ValueError("Length of eventlist must be 0 or positive")
        if timeout is not None and timeout < 0:
            raise ValueError("timeout must be positive or None")
        for change in changelist or ():
            self._change(change)
        return self._wait(max_events, timeout) if max_events else []

    def _change(self, change: kevent) -> None:
        key, queue = (change.ident, change.filter), self._filters[change.filter]
        if change.flags & KQ_EV_DELETE:
            if self._flags.pop(key, None) is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            queue.unregister(change.ident)
            return
        wanted = _WANTED[change.filter] | (_EDGE if change.flags & KQ_EV_CLEAR else 0)
        try:
            queue.register(change.ident, wanted)
        except FileExistsError:
            queue.modify(change.ident, wanted)
        self._flags[key] = change.flags & KQ_EV_CLEAR

    def _wait(self, max_events: int, timeout: float | None) -> list[kevent]:
        poll = real.poll()
        for queue in self._filters.values():
            poll.register(queue.fileno(), real.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            poll.poll(None if left is None else -int(-left * 1000 // 1))
            if events := self._events(max_events):
                return events
            if deadline is not None and time.monotonic() >= deadline:
                return []

    def _events(self, max_events: int) -> list[kevent]:
        found: dict[tuple[int, int], kevent] = {}
        for kind, queue in self._filters.items():
            for fd, mask in queue.poll(0, max(1, (max_events - len(found)) // 3)):
                found[fd, kind] = self._event(fd, kind, mask)
        for fd, _ in [key for key in found if key[1] == KQ_FILTER_READ]:
            # What comes in carries an acknowledgement, mostly: a filter for writing tells of that.
            if (fd, KQ_FILTER_WRITE) in self._flags and (fd, KQ_FILTER_WRITE) not in found and _is_writable(fd):
                found[fd, KQ_FILTER_WRITE] = self._event(fd, KQ_FILTER_WRITE, _OUT)
        return list(found.values())

    def _event(self, fd: int, kind: int, mask: int) -> kevent:
        flags = self._flags[fd, kind]
        if mask & (_ERR | _HUP) or (kind == KQ_FILTER_READ and mask & _RDHUP):
            flags |= KQ_EV_EOF
        if kind == KQ_FILTER_READ and mask & _PRI:
            flags |= EV_OOBAND
        error = errno.ECONNRESET if mask & _ERR else 0
        return kevent(fd, kind, flags, error, _unread(fd) if kind == KQ_FILTER_READ else 0)

    def fileno(self) -> int:
        """Return a descriptor that stands for the queue."""
        return self._filters[KQ_FILTER_READ].fileno()

    def close(self) -> None:
        """Give the queue back."""
        self.closed = True
        for queue in self._filters.values():
            queue.close()


def _is_writable(fd: int) -> bool:
    poll = real.poll()
    poll.register(fd, real.POLLOUT)
    return any(events & real.POLLOUT for _, events in poll.poll(0))


def _unread(fd: int) -> int:
    """Return the bytes that can be read; 1 where a connection can be accepted."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, count)
    except OSError:
        return 1
    return count[0]
