"""The data path's own event loop. I/O: waits on epoll, or on what stands for it elsewhere (polling.py).

Theory. A proxy's time is the kernel's: two ``recv`` and two ``send`` for each request. What is left to win is to make
no further system call, and to create no object that a byte does not need. Hence:

- Descriptors are registered once, edge-triggered (epoll(7)): an event says "something new", and its receiver acts
  until the kernel has no more. A ``recv`` that fills less than its buffer has emptied a stream socket, so the usual
  request costs no second ``recv`` that would only say EAGAIN (epoll(7), "Questions and answers", Q9).
- Whoever is ready gets a bounded turn and, if it could go on, queues up for another (``again``): one busy connection
  cannot starve the others.
- Receivers are plain objects with a ``ready(events)`` method, found by descriptor in a dictionary: no future, no task,
  no handle for each event. A task for each connection would cost a third of the connection rate.
- The clock is read once a turn (``now``). Most timers are never due: they guard dials and handshakes, all of them for
  the same few delays. Timers of one delay come due in the order they were set, so each delay has a queue, and only its
  first counts among all: to set one is an append, to cancel one a flag.

The loop is not asyncio's: a worker has nothing else to wait for than its sockets and the controller's channel, and a
loop of its own saves the second ``epoll_wait`` that watching this one from another would cost on every wake-up. A
process that has other work runs the worker in a thread.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from natproxy.worker.polling import EDGE, IN, OUT, PRI, RDHUP, new_poller

READ = IN | RDHUP | PRI | EDGE
"""What a leg is registered for: data, the end of data, urgent data (at which ``recv`` stops short), by edges."""
READ_WRITE = READ | OUT
_EVENTS_AT_ONCE = 512


class Receiver(Protocol):
    """Whatever a descriptor's events are delivered to."""

    def ready(self, events: int) -> None:
        """Act on the events (a mask of polling.IN, OUT ...)."""

    def fail(self, error: Exception) -> None:
        """``ready`` raised what nobody foresaw: end what this descriptor belongs to, or raise where that is all."""


class Timer:
    """A callback that is due at ``when`` (the loop's clock, seconds)."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Make the callback never run. Harmless when it has."""
        self.callback = None

    def take(self) -> Callable[[], None] | None:
        """Return the callback, which is to be run now; None where it was cancelled."""
        callback, self.callback = self.callback, None
        return callback


class Loop:
    """Waits for the kernel, hands out events, runs timers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._poller = new_poller()
        self._receivers: dict[int, Receiver] = {}
        self._again: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, float]] = []
        """(when, sequence, delay): not after the first of that delay's queue is due."""
        self._delays: dict[float, deque[Timer]] = {}
        self._sequence = itertools.count()
        self.turns = 0
        """How many have begun. An event of the turn in which a descriptor was opened is that of an older one."""
        self._is_stopping = False
        self.now = clock()

    def watch(self, fd: int, events: int, receiver: Receiver) -> None:
        """Deliver the events of ``fd`` to ``receiver`` until ``forget``."""
        self._poller.register(fd, events)
        self._receivers[fd] = receiver

    def rewatch(self, fd: int, events: int) -> None:
        """Wait for other events of a watched ``fd``. Edges that are already true are reported once more."""
        self._poller.modify(fd, events)

    def hand_over(self, fd: int, receiver: Receiver) -> None:
        """Deliver the events of a watched ``fd`` to another receiver from now on. No system call."""
        self._receivers[fd] = receiver

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``. To be called before it is closed; the kernel drops a closed one by itself."""
        self._receivers.pop(fd, None)

    def unwatch(self, fd: int) -> None:
        """Stop watching an ``fd`` that stays open, or of which another process holds a copy."""
        if self._receivers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def again(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` in the next turn, after everyone else who is ready."""
        self._again.append(callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` in ``seconds`` from now."""
        timer = Timer(self._clock() + seconds, callback)
        queue = self._delays.get(seconds)
        if queue is None:
            queue = self._delays[seconds] = deque()
            heapq.heappush(self._timers, (timer.when, next(self._sequence), seconds))
        queue.append(timer)
        return timer

    def run(self) -> None:
        """Turn until ``stop``."""
        self._is_stopping = False
        while not self._is_stopping:
            self.turn()

    def stop(self) -> None:
        """Let ``run`` return after the turn that is under way."""
        self._is_stopping = True

    def turn(self) -> None:
        """Wait until something is due, then serve each that is ready once."""
        timers, again, find = self._timers, self._again, self._receivers.get
        if again:
            timeout = 0.0
        elif timers:
            # By the clock of the last turn: a timer may be late by what that turn took.
            timeout = max(0.0, timers[0][0] - self.now)
        else:
            timeout = -1.0
        events = self._poller.poll(timeout, _EVENTS_AT_ONCE)
        self.turns += 1
        self.now = now = self._clock()
        for fd, mask in events:
            receiver = find(fd)
            # None: closed by another event of this same turn.
            if receiver is not None:
                try:
                    receiver.ready(mask)
                except Exception as error:
                    receiver.fail(error)
        if again:
            for _ in range(len(again)):
                again.popleft()()
        if timers and timers[0][0] <= now:
            self._run_timers()

    def _run_timers(self) -> None:
        timers, now = self._timers, self.now
        while timers and timers[0][0] <= now:
            delay = heapq.heappop(timers)[2]
            queue = self._delays[delay]
            callback = queue.popleft().take()
            while queue and queue[0].callback is None:
                queue.popleft()
            if queue:
                heapq.heappush(timers, (queue[0].when, next(self._sequence), delay))
            else:
                del self._delays[delay]
            if callback is not None:
                callback()

    def close(self) -> None:
        """Close the poller. Watched descriptors stay their owners'."""
        self._receivers.clear()
        self._again.clear()
        self._timers.clear()
        self._delays.clear()
        self._poller.close()
