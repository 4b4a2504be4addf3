"""Asks the kernel which sockets are ready: epoll(7) on Linux, kqueue(2) on macOS. I/O: waits on its event queue.

Theory. The loop speaks epoll's language, in which one mask tells all of a descriptor. On Linux ``new_poller`` is
``select.epoll`` itself: nothing stands in between. On macOS a ``KqueuePoller`` translates. There each descriptor has
two filters, one for reading and one for writing:

- EV_CLEAR makes a filter tell of what is new only, as EPOLLET does. That for writing tells of every acknowledgement,
  not only of one after a full buffer: more events, none lost.
- EV_EOF on the reading filter is the peer's FIN; with an error in ``fflags`` it is the connection's end. On the writing
  filter it may be our own FIN, so that without an error it says no more than that a write would not wait.
- A filter that is added once more is looked at anew, as EPOLL_CTL_MOD does; what is closed is dropped.
- EV_OOBAND, which macOS sets unasked, is urgent data: a read stops short there.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Protocol

IN = 0x001
PRI = 0x002
OUT = 0x004
ERROR = 0x008
HUP = 0x010
RDHUP = 0x2000
EXCLUSIVE = 1 << 28
"""Of several processes that wait for one listening socket not all are woken; where there is no such thing, they are."""
EDGE = 1 << 31
"""These are EPOLLIN, EPOLLPRI ...: part of Linux's ABI (sys/epoll.h), and names only where there is no epoll."""
_EV_OOBAND = 0x2000
"""sys/event.h of macOS; Python has no name for it."""


class Poller(Protocol):
    """What the loop uses of ``select.epoll``."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Tell of these events of ``fd`` from now on."""

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Tell of other events; those that are true already are told of once more."""

    def unregister(self, fd: int, /) -> None:
        """Tell nothing of ``fd`` any more."""

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Return [(fd, events)] as soon as there are any; after ``timeout`` seconds (-1 = never) without."""

    def close(self) -> None:
        """Give the queue back."""


class KqueuePoller:
    """``select.epoll``'s methods over a kqueue."""

    def __init__(self) -> None:
        self._select: Any = select  # whose stubs for Linux know nothing of it
        self._queue = self._select.kqueue()
        self._read = self._select.KQ_FILTER_READ
        self._end = self._select.KQ_EV_EOF
        self._masks: dict[int, int] = {}
        """Also of descriptors that have been closed meanwhile: whoever gets the number next is registered anew."""

    def register(self, fd: int, eventmask: int) -> None:
        """Tell of these events of ``fd`` from now on."""
        self._masks[fd] = 0
        self.modify(fd, eventmask)

    def modify(self, fd: int, eventmask: int) -> None:
        """Tell of other events; those that are true already are told of once more."""
        before, self._masks[fd] = self._masks[fd], eventmask
        kind = self._select
        flags = kind.KQ_EV_ADD | (kind.KQ_EV_CLEAR if eventmask & EDGE else 0)
        changes = []
        for event, kqueue_filter in ((IN, self._read), (OUT, kind.KQ_FILTER_WRITE)):
            if eventmask & event:
                changes.append(kind.kevent(fd, kqueue_filter, flags))
            elif before & event:
                changes.append(kind.kevent(fd, kqueue_filter, kind.KQ_EV_DELETE))
        self._queue.control(changes, 0)

    def unregister(self, fd: int) -> None:
        """Tell nothing of ``fd`` any more."""
        self.modify(fd, 0)
        del self._masks[fd]

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        """Return [(fd, events)] as soon as there are any; after ``timeout`` seconds (-1 = never) without."""
        masks: dict[int, int] = {}
        for event in self._queue.control(None, maxevents, None if timeout < 0 else timeout):
            masks[event.ident] = masks.get(event.ident, 0) | self._mask(event)
        return list(masks.items())

    def _mask(self, event: Any) -> int:
        flags = event.flags
        has_ended = flags & self._end
        if has_ended and event.fflags:
            mask = ERROR | HUP
        elif has_ended and event.filter == self._read:
            mask = RDHUP
        else:
            mask = 0
        if event.filter != self._read:
            return mask | OUT
        return mask | IN | (PRI if flags & _EV_OOBAND else 0)

    def close(self) -> None:
        """Give the queue back."""
        self._queue.close()


new_poller: Callable[[], Poller] = getattr(select, "epoll", KqueuePoller)
