"""Several workers share the connections evenly. I/O: passes connections from one worker to another over Unix sockets.

Theory. All workers wait on the same listening sockets, and the kernel wakes one of them for each connection
(EPOLLEXCLUSIVE): always the first in its list that sleeps. Where there is little to do, that one gets nearly all, and
keeps them while they grow busy. A listening socket for each worker (SO_REUSEPORT) would spread by chance at best, and
let any process of the same user join a port unseen. Hence:

- Whoever accepts looks at how many connections each worker has (shared.py). Where it has clearly more than the one with
  the fewest, it passes the new connection on to that one: the descriptor (SCM_RIGHTS, unix(7)), the port, and whom it
  comes from, as one packet in the other's *inbox*. Whoever takes it out admits it as if it had accepted it. Nothing
  is passed on twice, and what cannot be passed on stays.
- *Clearly more* is two, and one for every 32 that the other has: below that a connection that comes and one that ends
  would only be passed to and fro, while 3 % more work cannot be felt.
- What is on its way does not show in the other's number yet. The receiver tells of each sender how many it has taken,
  the sender knows how many it has sent; what is unread counts as the receiver's. Else a burst would go to one worker
  as a whole. Where one of the two has been replaced the count starts anew, and may be too low for as long as the inbox
  holds what was sent before: no harm is done by that.
- The same difference bounds what a worker that hangs can swallow: nothing more is passed to one that has left what was
  sent to it for ``STUCK_SECONDS``, or has ``ON_THE_WAY_MOST`` before it. The controller keeps all inboxes open: what a
  dead worker has not taken is its successor's.
- A worker that is gone, or stops, has NOBODY's load, and is never chosen. What was on its way to one that stops was
  accepted, and is served: it ends with the others at the stop's end, and no worker leaves before all have stopped.

A connection that stays costs a read of shared memory (less than 1 us), one that is passed on some 10 us.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from natproxy.model import Outcome
from natproxy.worker.loop import Timer
from natproxy.worker.shared import NOBODY, Loads, create_shared_counts, wipe

if TYPE_CHECKING:
    from natproxy.worker.process import Worker

MORE_AT_LEAST = 2
MORE_IN = 32
"""One worker has clearly more than another who has n from n + MORE_AT_LEAST + n / MORE_IN on."""
STUCK_SECONDS = 0.05
ON_THE_WAY_MOST = 64
TAKEN_PER_TURN = 16
HOLD_SECONDS = 1.0
"""How long a connection waits for a port that its new worker does not serve (yet)."""
_HEAD = struct.Struct("=HHH")
"""The row it comes from, the port, the client's port; the client's address in text follows."""
_PACKET_BYTES = 128
_DESCRIPTOR = struct.Struct("=i")
_MODULO = 1 << 32


def create_inboxes(workers: int) -> list[tuple[socket.socket, socket.socket]]:
    """Return for each row the two ends of its inbox: where its worker receives, and where the others send."""
    inboxes = []
    for _ in range(workers):
        receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        receiving.setblocking(False)
        sending.setblocking(False)
        inboxes.append((receiving, sending))
    return inboxes


class Commons:
    """What several workers share, as long as whoever starts them holds it: the memory, and both ends of all inboxes."""

    def __init__(self, workers: int) -> None:
        self._counts = create_shared_counts(workers)
        self._inboxes = create_inboxes(workers)

    def handed_to(self, row: int) -> tuple[list[int], list[int]]:
        """Return what the command line of that row's worker ends with, and the descriptors among it."""
        boxes = [self._inboxes[row][0].fileno(), *(sending.fileno() for _, sending in self._inboxes)]
        return [self._counts, row, *boxes], [self._counts, *boxes]

    def forget(self, row: int) -> None:
        """That row's worker is gone."""
        wipe(self._counts, row)

    def close(self) -> None:
        """Give all of it back; connections that nobody has taken end by that."""
        os.close(self._counts)
        for inbox in self._inboxes:
            for end in inbox:
                end.close()


class Way:
    """What is on its way from this worker to another one."""

    __slots__ = ("_moved_at", "_pid", "_taken", "unread")

    def __init__(self, pid: int, taken: int) -> None:
        self._pid = pid
        self._taken = taken
        self._moved_at = 0.0
        self.unread = 0

    def look(self, pid: int, taken: int, now: float) -> None:
        """Take in what the other worker has told: who it is, and how many it has taken."""
        newly_taken = (taken - self._taken) % _MODULO
        if pid != self._pid:
            self.unread = 0
        elif newly_taken:
            self.unread = max(0, self.unread - newly_taken)
        elif self.unread:
            return
        self._pid, self._taken, self._moved_at = pid, taken, now

    def is_open(self, now: float) -> bool:
        """Say whether one more may be sent."""
        return self.unread < ON_THE_WAY_MOST and now - self._moved_at < STUCK_SECONDS


class Spread:
    """Who has how many connections, and the way to them, as the worker of ``row`` sees it.

    ``outboxes`` are the sending ends of all rows' inboxes, its own among them. ``clock`` is in seconds.
    """

    def __init__(
        self,
        loads: Loads,
        row: int,
        inbox: socket.socket,
        outboxes: Sequence[socket.socket],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inbox = inbox
        self.descriptors = 1 + len(outboxes)
        self._loads = loads
        self._row = row
        self._outboxes = outboxes
        self._open = 0
        self._is_there = False
        self._clock = clock
        self._ways = [Way(pid, taken) for pid, taken in zip(loads.pids(), loads.taken(), strict=True)]

    def come(self) -> None:
        """Be there for the others."""
        self._is_there = True
        self._loads.come()

    def leave(self) -> None:
        """Take no more from the others."""
        self._is_there = False
        self._loads.tell(NOBODY)

    def tell(self, count: int) -> None:
        """Let the others know how many connections this worker has."""
        self._open = count
        if self._is_there:
            self._loads.tell(count)

    def row_with_less(self) -> int | None:
        """Return the row that the next connection should be passed on to; None = it stays here."""
        loads = self._loads.all()
        if not _is_clearly_more(self._open, min(loads)):
            return None
        pids, taken, now = self._loads.pids(), self._loads.taken(), self._clock()
        least, found = self._open, None
        for row, load in enumerate(loads):
            if row == self._row or load >= least:
                continue
            way = self._ways[row]
            way.look(pids[row], taken[row], now)
            if way.is_open(now) and load + way.unread < least:
                least, found = load + way.unread, row
        return found if _is_clearly_more(self._open, least) else None

    def pass_on(self, row: int, client: socket.socket, port: int, ip: str, client_port: int) -> bool:
        """Pass a client's connection on, which then is none of this worker's; False where that did not work."""
        rights = array.array("i", (client.fileno(),))
        message = _HEAD.pack(self._row, port, client_port) + ip.encode()
        try:
            self._outboxes[row].sendmsg((message,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),))
        except OSError:  # full, or too many descriptors are on their way (ETOOMANYREFS)
            return False
        self._ways[row].unread += 1
        client.close()
        return True

    def is_over(self) -> bool:
        """Say whether nothing more will be passed on to this worker: all have left, or are gone."""
        return all(load == NOBODY for load in self._loads.all())

    def received(self) -> Iterator[tuple[socket.socket | None, int, str, int]]:
        """Take the connections that have come: (client, port, ip, client's port), so many as one turn allows.

        The client is None where this process had no descriptor left for it: the kernel has closed it.
        """
        space = socket.CMSG_SPACE(_DESCRIPTOR.size)
        for _ in range(TAKEN_PER_TURN):
            try:
                message, ancillary, _, _ = self.inbox.recvmsg(_PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            row, port, client_port = _HEAD.unpack_from(message)
            self._loads.take_over(row)
            client = None
            for _, _, payload in ancillary:
                client = socket.socket(fileno=_DESCRIPTOR.unpack_from(payload)[0])
                client.setblocking(False)
            yield client, port, message[_HEAD.size :].decode(), client_port

    def close(self) -> None:
        """Give all of it back. Idempotent."""
        if self.inbox.fileno() < 0:
            return
        self.leave()
        self._loads.close()
        for sock in (self.inbox, *self._outboxes):
            sock.close()


class Inbox:
    """Lets in what other workers have passed on to this one."""

    def __init__(self, worker: Worker, spread: Spread) -> None:
        self._worker = worker
        self._spread = spread
        self._held: defaultdict[int, list[tuple[socket.socket, str, int]]] = defaultdict(list)
        self._timers: dict[int, Timer] = {}
        """Port -> connections for it (with ip and client's port), which is not served yet. They count as open."""

    def ready(self, events: int) -> None:
        """Take those who have come; who is left over is reported again (level-triggered)."""
        self.take()

    def fail(self, error: Exception) -> None:
        """A worker that cannot take what is its own ends, and is replaced."""
        raise error

    def take(self) -> int:
        """Let in those who have come, so many as one turn allows; return how many came."""
        count = 0
        for client, number, ip, client_port in self._spread.received():
            count += 1
            port = self._worker.port(number)
            if client is None:
                self._worker.count_lost(number, Outcome.NO_DESCRIPTORS)
            elif port is None:
                self._hold(client, number, ip, client_port)
            else:
                port.admit(client, (ip, client_port))
                if self._worker.is_stopping:
                    self._worker.end_in_time(port)
        return count

    def _hold(self, client: socket.socket, number: int, ip: str, client_port: int) -> None:
        """Keep it for a moment: the accepting worker may have been told of the port before this one was."""
        if number not in self._held:
            self._timers[number] = self._worker.loop.call_later(HOLD_SECONDS, lambda: self._give_up(number))
        self._held[number].append((client, ip, client_port))
        self._worker.connection_opened()

    def _give_up(self, number: int) -> None:
        if (timer := self._timers.pop(number, None)) is not None:
            timer.cancel()
        for client, _, _ in self._held.pop(number, ()):
            client.close()
            self._worker.count_lost(number, Outcome.ROUTE_REMOVED)
            self._worker.connection_ended()

    def port_served(self, number: int) -> None:
        """Let in who waits for a port that is served from now on."""
        port = self._worker.port(number)
        if port is not None and number in self._held:
            self._timers.pop(number).cancel()
            for client, ip, client_port in self._held.pop(number, ()):
                self._worker.connection_ended()
                port.admit(client, (ip, client_port))

    def drain(self) -> None:
        """Let in all who have come, however many."""
        while self.take():
            pass

    def close(self) -> None:
        """Close what waits for a port."""
        for number in list(self._held):
            self._give_up(number)


def _is_clearly_more(count: int, other: int) -> bool:
    return count >= other + MORE_AT_LEAST + other // MORE_IN
