"""A worker: sockets and routes in, counts, outcomes and hints out. I/O: talks to the controller over its channel.

``python -m natproxy.worker.process CHANNEL [COUNTS ROW INBOX OUTBOX...]`` is how the controller starts one (all but the
row are descriptors); inprocess.py is how a process that has no controller does. A worker ends when it is told to
(Stop), or when its channel does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice

from natproxy import messages
from natproxy.channel import Channel, worker_end
from natproxy.errors import ChannelError
from natproxy.model import Address, Outcome
from natproxy.wire.book import Book
from natproxy.worker.access import Census, plain_ip
from natproxy.worker.connection import Connection
from natproxy.worker.counts import PortCounts
from natproxy.worker.credentials import Credentials
from natproxy.worker.handshake import Handshakes
from natproxy.worker.limits import descriptor_limit, raise_descriptor_limit
from natproxy.worker.listener import ListeningSocket, Port
from natproxy.worker.liveness import dead_after_seconds
from natproxy.worker.loop import Loop
from natproxy.worker.pipe import MOST_PIPES
from natproxy.worker.polling import EXCLUSIVE, IN, OUT
from natproxy.worker.reports import Reports
from natproxy.worker.shared import Loads, SharedCounts
from natproxy.worker.spread import Inbox, Spread

TICK_SECONDS = 1.0
"""How often counts are told and connections looked after."""
_SWEEP_AT_ONCE = 256
"""Connections looked after in one turn of the loop: a sweep over many must not delay a byte."""
_ACCEPT_PAUSE_SECONDS = 0.1
"""How long accepting rests where the kernel has no memory or descriptor for one more connection."""
_SPARE_DESCRIPTORS = 32
"""Kept free of connections, for the sockets of new routes."""
_CHECKS_WHILE_DYING = 6
_OTHERS_SECONDS = 1.0
"""How long after a stop's end other workers are waited for; the controller kills what is left a little later."""
_OTHERS_PAUSE_SECONDS = 0.01
_READS_AT_ONCE = 16
_ORDERS_AT_ONCE = 4
"""How much of what the controller says is read, and obeyed, in one turn of the loop: it may be 500 new routes."""


class Worker:
    """Serves ports as the controller says."""

    def __init__(
        self, channel: Channel[messages.Down], census: Census | None = None, spread: Spread | None = None
    ) -> None:
        self.loop = Loop()
        self.census = Census() if census is None else census
        self.credentials = Credentials()
        self.handshakes = Handshakes(self.loop)
        self.reports = Reports(self.loop, channel)
        self.books: dict[str, Book] = {}
        """Which public port stands for which node, by cache."""
        self.open = 0
        """Connections, whether they count for a limit yet or not."""
        self.spread = spread
        """The way to the other workers; None where there are none."""
        self.is_stopping = False
        self._stop_at = float("inf")
        """When what still lives at a stop ends."""
        self._is_awaiting_others = False
        self._inbox = None if spread is None else Inbox(self, spread)
        self._channel = channel
        self._orders: deque[tuple[messages.Down, list[int]]] = deque()
        """What the controller has said and is not done yet."""
        self._ports: dict[int, Port] = {}
        self._is_accepting = True
        self._sweep: Iterator[Connection] = iter(())
        self._next_check: dict[int, float] = {}
        self._listening = 0
        self._has_said_stopped = False
        self._spare: int | None = None
        self._descriptor_limit = descriptor_limit()

    def run(self) -> None:
        """Serve until told to stop, or until the controller is gone."""
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.loop.watch(self._channel.fileno(), IN, self)
        if self.spread is not None and self._inbox is not None:
            self.loop.watch(self.spread.inbox.fileno(), IN, self._inbox)
            self.spread.come()
        self.reports.tell(messages.Ready(os.getpid()))
        self.loop.call_later(TICK_SECONDS, self._tick)
        try:
            self.loop.run()
        finally:
            self._close()

    def _close(self) -> None:
        for port in self._ports.values():
            port.close(Outcome.STOPPED)
        self._ports.clear()
        if self.spread is not None and self._inbox is not None:
            self._inbox.close()
            self.spread.close()
        for fd in (fd for _, fds in self._orders for fd in fds):
            os.close(fd)
        self._channel.close()
        self.loop.close()
        if self._spare is not None:
            os.close(self._spare)

    # What the controller says.

    def ready(self, events: int) -> None:
        """Read the channel, or go on writing to it."""
        try:
            if events & OUT:
                self._channel.flush()
            if events & ~OUT:
                is_busy = bool(self._orders)
                self._orders.extend(self._channel.receive(_READS_AT_ONCE))
                if not is_busy:
                    self._obey_some()
        except ChannelError:
            # The controller is gone: nobody will ever tell this worker anything again. Who waits is for the next one.
            for port in self._ports.values():
                port.stop_listening()
            self.loop.stop()
            return
        self.reports.watch_channel()

    def fail(self, error: Exception) -> None:
        """A worker that cannot do as it is told ends, and is replaced."""
        raise error

    def _obey_some(self) -> None:
        for _ in range(min(len(self._orders), _ORDERS_AT_ONCE)):
            self._obey(*self._orders.popleft())
        if self._orders:
            self.loop.again(self._obey_some)

    def _obey(self, message: messages.Down, fds: list[int]) -> None:
        match message:
            case messages.Tls():
                self.credentials.take(message)
                for served in self._ports.values():
                    served.look_at_certificates()
            case messages.Book():
                self._take_book(message)
            case messages.Serve():
                self._serve(message, fds)
            case messages.Unserve():
                if (port := self._ports.get(message.port)) is not None:
                    self._unserve(port, Outcome(message.outcome))
            case messages.End():
                if (port := self._ports.get(message.port)) is not None:
                    address = None if message.address is None else Address(*message.address)
                    port.end_within(message.seconds, address, Outcome(message.outcome))
            case messages.Policy():
                self.reports.logs_connections = message.log_connections
            case messages.Stop():
                self._stop(message.seconds)

    def _take_book(self, told: messages.Book) -> None:
        ports = {(host, port): public for host, port, public in told.ports}
        self.books[told.name] = Book(ports, told.public_host, told.public_ip, told.version)

    def _serve(self, serve: messages.Serve, fds: list[int]) -> None:
        sockets = [socket.socket(fileno=fd) for fd in fds]
        port = self._ports.get(serve.port)
        if port is not None:
            for sock in sockets:
                sock.close()
            port.update(serve)
            return
        for sock in sockets:
            sock.setblocking(False)
        port = self._ports[serve.port] = Port(self, self.loop, serve, sockets)
        self._listening += len(sockets)
        if self._is_accepting and not self.is_stopping:
            port.resume()
        if self._inbox is not None:
            self._inbox.port_served(serve.port)

    def _unserve(self, port: Port, outcome: Outcome) -> None:
        self._listening -= len(port.listening)
        port.close(outcome)
        del self._ports[port.serve.port]
        self._next_check.pop(port.serve.port, None)
        self.reports.port_gone(port.counts)

    def _stop(self, seconds: float) -> None:
        self.is_stopping = True
        self._stop_at = self.loop.now + seconds
        for port in self._ports.values():
            port.stop_listening()
        if self.spread is not None and self._inbox is not None:
            self.spread.leave()
            self._inbox.drain()
            self._inbox.close()
        self._listening = 0
        for port in self._ports.values():
            port.end_within(seconds, None, Outcome.STOPPED)
        self._stop_if_done()

    def end_in_time(self, port: Port) -> None:
        """Have what has come to ``port`` since the stop began end with the others."""
        port.end_within(max(0.0, self._stop_at - self.loop.now), None, Outcome.STOPPED)

    def port(self, number: int) -> Port | None:
        """Return a port that is served."""
        return self._ports.get(number)

    def connection_opened(self) -> None:
        """A port has one more connection."""
        self.open += 1
        if self.spread is not None:
            self.spread.tell(self.open)

    def connection_ended(self) -> None:
        """A port's connection has ended."""
        self.open -= 1
        if self.spread is not None:
            self.spread.tell(self.open)
        if self.is_stopping:
            self._stop_if_done()

    def _stop_if_done(self) -> None:
        if self.open or self._has_said_stopped or self._must_await_others():
            return
        self._has_said_stopped = True
        self.reports.flush_log()
        self.reports.tell_counts(self._ports.values(), self.open, at_once=True)
        self.reports.tell(messages.Stopped())
        self._leave_when_told()

    def _must_await_others(self) -> bool:
        """Say whether others may still pass on, or have passed on, what they accepted before they stopped."""
        if self.spread is None or self._inbox is None:
            return False
        if not self.spread.is_over() and self.loop.now < self._stop_at + _OTHERS_SECONDS:
            if not self._is_awaiting_others:
                self._is_awaiting_others = True
                self.loop.call_later(_OTHERS_PAUSE_SECONDS, self._look_again)
            return True
        self._inbox.drain()
        return self.open > 0

    def _look_again(self) -> None:
        self._is_awaiting_others = False
        self._stop_if_done()

    def _leave_when_told(self) -> None:
        if self._channel.wants_write:
            self.loop.call_later(0.01, self._leave_when_told)
        else:
            self.loop.stop()

    def count_lost(self, number: int, outcome: Outcome) -> None:
        """Count a connection that was closed before any port had it."""
        port = self._ports.get(number)
        counts = PortCounts(number) if port is None else port.counts
        counts.ended[outcome] += 1
        if port is None:
            self.reports.port_gone(counts)

    # Once a second.

    def _tick(self) -> None:
        self.loop.call_later(TICK_SECONDS, self._tick)
        self.reports.second_begins()
        now = self.loop.now
        due = set()
        for number, port in self._ports.items():
            if self._next_check.get(number, 0.0) <= now:
                due.add(number)
                dead_seconds = dead_after_seconds(port.serve.keepalive_seconds)
                self._next_check[number] = now + min(10.0, max(0.5, dead_seconds / _CHECKS_WHILE_DYING))
        connections = [connection for port in self._ports.values() for connection in port.connections]
        self._sweep = iter(connections)
        self._go_on_sweeping(due)

    def _go_on_sweeping(self, due: set[int]) -> None:
        sweep, now = self._sweep, self.loop.now
        count = 0
        for connection in islice(sweep, _SWEEP_AT_ONCE):
            count += 1
            if not connection.is_over:
                self._look_after(connection, now, connection.port.serve.port in due)
        if count == _SWEEP_AT_ONCE:
            self.loop.again(lambda: self._go_on_sweeping(due) if self._sweep is sweep else None)
        else:
            self.reports.tell_counts(self._ports.values(), self.open)

    def _look_after(self, connection: Connection, now: float, is_due: bool) -> None:
        serve = connection.port.serve
        relay = connection.relay
        if connection.port.counts.add_bytes(connection) or relay is None:
            connection.last_active = now
            if connection.is_in_doubt:
                connection.settle_doubt()
        elif serve.idle_seconds is not None and now - connection.last_active >= serve.idle_seconds:
            connection.end(Outcome.IDLE)
            return
        if is_due and relay is not None:
            relay.check(serve.keepalive_seconds)

    # Descriptors.

    def has_descriptors(self) -> bool:
        """Say whether there is room for one more connection (two descriptors) and what natproxy itself may need."""
        own = self._listening + (0 if self.spread is None else self.spread.descriptors)
        return 2 * (self.open + MOST_PIPES) + own + _SPARE_DESCRIPTORS + 2 <= self._descriptor_limit

    def watch_listening(self, listening: ListeningSocket) -> None:
        """Accept on a listening socket; of several workers that share it one is woken, not all."""
        self.loop.watch(listening.sock.fileno(), IN | EXCLUSIVE, listening)

    def accept_failed(self, listening: ListeningSocket, error: OSError) -> None:
        """The kernel has no descriptor or memory left: turn away one who waits, by way of the spare, and rest."""
        del error
        self.reports.accept_pauses += 1
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with contextlib.suppress(OSError):
                client, peer = listening.sock.accept()
                listening.port.turn_away(client, Outcome.NO_DESCRIPTORS, plain_ip(str(peer[0])), int(str(peer[1])))
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if self._is_accepting:
            self._is_accepting = False
            for port in self._ports.values():
                port.pause()
            self.loop.call_later(_ACCEPT_PAUSE_SECONDS, self._accept_again)

    def _accept_again(self) -> None:
        self._is_accepting = True
        if not self.is_stopping:
            for port in self._ports.values():
                port.resume()


def main() -> None:
    """Serve on the channel whose descriptor the command line names, alone or as one of several."""
    # A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group: the controller alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise_descriptor_limit()
    # A core would hold keys, and what passes through.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What exists now lives for ever: the collector need not look at it, and need not look often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    channel, *others = (int(word) for word in sys.argv[1:])
    census, spread = _among_others(*others) if others else (None, None)
    Worker(worker_end(socket.socket(fileno=channel)), census, spread).run()


def _among_others(counts: int, row: int, *boxes: int) -> tuple[Census, Spread]:
    inbox, *outboxes = (socket.socket(fileno=fd) for fd in boxes)
    return Census(SharedCounts(counts, row)), Spread(Loads(counts, row), row, inbox, outboxes)


if __name__ == "__main__":
    main()
