"""A worker: sockets and routes in, counts, outcomes and hints out. I/O: talks to the controller over its channel.

``python -m natproxy.worker.process FD [FD ROW]`` is how the controller starts one; ``Worker(channel).run()`` in a
thread is how a process that has no controller does. A worker ends when it is told to (Stop), or when its channel does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from natproxy import messages
from natproxy.channel import Channel, worker_end
from natproxy.errors import ChannelError
from natproxy.model import Address, Outcome
from natproxy.worker.access import Census, plain_ip
from natproxy.worker.connection import Connection
from natproxy.worker.credentials import Credentials
from natproxy.worker.handshake import Handshakes
from natproxy.worker.listener import ListeningSocket, Port
from natproxy.worker.liveness import dead_after_seconds
from natproxy.worker.loop import EXCLUSIVE, IN, OUT, Loop
from natproxy.worker.shared import SharedCounts

TICK_SECONDS = 1.0
"""How often counts are told and connections looked after."""
_SWEEP_AT_ONCE = 256
"""Connections looked after in one turn of the loop: a sweep over many must not delay a byte."""
_LOG_SECONDS = 0.05
_LOG_AT_ONCE = 256
_BACKLOG_BYTES = 8 * 1024 * 1024
"""With so much unread by the controller, log lines are dropped (and counted) rather than kept, and counts wait."""
_REFUSALS_LOGGED = 10
"""In a second, of each outcome: strangers can be turned away thousands of times a second, and must fill no disk."""
_ACCEPT_PAUSE_SECONDS = 0.1
"""How long accepting rests where the kernel has no memory or descriptor for one more connection."""
_SPARE_DESCRIPTORS = 32
"""Kept free of connections, for the sockets of new routes."""
_CHECKS_WHILE_DYING = 6


class Worker:
    """Serves ports as the controller says."""

    def __init__(self, channel: Channel[messages.Down], census: Census | None = None) -> None:
        self.loop = Loop()
        self.census = Census() if census is None else census
        self.credentials = Credentials()
        self.handshakes = Handshakes(self.loop)
        self.logs_connections = True
        self.open = 0
        """Connections, whether they count for a limit yet or not."""
        self._channel = channel
        self._channel_waits = False
        self._ports: dict[int, Port] = {}
        self._finished: list[messages.FinishedConnection] = []
        self._dropped_logs = 0
        self._sessions: Counter[tuple[str, str, str, bool]] = Counter()
        self._refusals: Counter[Outcome] = Counter()
        """Of this second."""
        self._accept_pauses = 0
        self._is_accepting = True
        self._is_stopping = False
        self._sweep: Iterator[Connection] = iter(())
        self._next_check: dict[int, float] = {}
        self._last_counts: list[messages.RouteCounts] = []
        """Of ports that are served no longer."""
        self._listening = 0
        self._has_said_stopped = False
        self._spare: int | None = None
        self._descriptor_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def run(self) -> None:
        """Serve until told to stop, or until the controller is gone."""
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.loop.watch(self._channel.fileno(), IN, self)
        self._tell(messages.Ready(os.getpid()))
        self.loop.call_later(TICK_SECONDS, self._tick)
        try:
            self.loop.run()
        finally:
            self._close()

    def _close(self) -> None:
        for port in self._ports.values():
            port.close(Outcome.STOPPED)
        self._ports.clear()
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
                for message, fds in self._channel.receive():
                    self._obey(message, fds)
        except ChannelError:
            # The controller is gone: nobody will ever tell this worker anything again.
            self.loop.stop()
            return
        self._watch_channel()

    def fail(self, error: Exception) -> None:
        """A worker that cannot do as it is told ends, and is replaced."""
        raise error

    def _obey(self, message: messages.Down, fds: list[int]) -> None:
        match message:
            case messages.Tls():
                self.credentials.take(message)
                for served in self._ports.values():
                    served.look_at_certificates()
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
                self.logs_connections = message.log_connections
            case messages.Stop():
                self._stop(message.seconds)

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
        if self._is_accepting and not self._is_stopping:
            port.resume()

    def _unserve(self, port: Port, outcome: Outcome) -> None:
        self._listening -= len(port.listening)
        port.close(outcome)
        del self._ports[port.serve.port]
        self._next_check.pop(port.serve.port, None)
        if (counts := port.counts.take(0)) is not None:
            self._last_counts.append(counts)

    def _stop(self, seconds: float) -> None:
        self._is_stopping = True
        for port in self._ports.values():
            port.stop_listening()
        self._listening = 0
        for port in self._ports.values():
            port.end_within(seconds, None, Outcome.STOPPED)
        self._stop_if_done()

    def connection_ended(self) -> None:
        """A port's connection has ended."""
        self.open -= 1
        if self._is_stopping:
            self._stop_if_done()

    def _stop_if_done(self) -> None:
        if self.open or self._has_said_stopped:
            return
        self._has_said_stopped = True
        self._flush_log()
        self._tell_counts()
        self._tell(messages.Stopped())
        self._leave_when_told()

    def _leave_when_told(self) -> None:
        if self._channel.wants_write:
            self.loop.call_later(0.01, self._leave_when_told)
        else:
            self.loop.stop()

    # What the controller is told.

    def _tell(self, message: messages.Up) -> None:
        # A controller that is gone shows as EOF on the channel; a message to it is no loss.
        with contextlib.suppress(ChannelError):
            self._channel.send(message)
        self._watch_channel()

    def _watch_channel(self) -> None:
        if self._channel.wants_write is not self._channel_waits:
            self._channel_waits = self._channel.wants_write
            self.loop.rewatch(self._channel.fileno(), IN | OUT if self._channel_waits else IN)

    def tell_dial_failed(self, port: int, outcome: Outcome, detail: str) -> None:
        """A hint: no address of this port answers."""
        self._tell(messages.DialFailed(port, outcome.value, detail))

    def tell_dial_recovered(self, port: int) -> None:
        """A hint: the port's node answers again."""
        self._tell(messages.DialRecovered(port))

    def session_begun(self, side: str, tls: ssl.SSLObject) -> None:
        """Count a TLS handshake that is done, by what was agreed on."""
        cipher = tls.cipher()
        self._sessions[side, tls.version() or "", cipher[0] if cipher else "", bool(tls.session_reused)] += 1

    def log_finished(self, finished: messages.FinishedConnection) -> None:
        """Queue what the log will say of a connection."""
        if self._channel.waiting_bytes > _BACKLOG_BYTES:
            self._dropped_logs += 1
            return
        if not self._finished:
            self.loop.call_later(_LOG_SECONDS, self._flush_log)
        self._finished.append(finished)
        if len(self._finished) >= _LOG_AT_ONCE:
            self._flush_log()

    def may_log_refusal(self, outcome: Outcome) -> bool:
        """Say whether one more client that was turned away gets its line; count the line where not."""
        self._refusals[outcome] += 1
        if self._refusals[outcome] <= _REFUSALS_LOGGED:
            return True
        self._dropped_logs += self.logs_connections
        return False

    def _flush_log(self) -> None:
        if self._finished:
            finished, self._finished = self._finished, []
            self._tell(messages.Finished(tuple(finished)))

    # Once a second.

    def _tick(self) -> None:
        self.loop.call_later(TICK_SECONDS, self._tick)
        self._refusals.clear()
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
        elif self._channel.waiting_bytes <= _BACKLOG_BYTES:
            self._tell_counts()

    def _look_after(self, connection: Connection, now: float, is_due: bool) -> None:
        serve = connection.port.serve
        relay = connection.relay
        if connection.port.counts.add_bytes(connection) or relay is None:
            connection.last_active = now
        elif serve.idle_seconds is not None and now - connection.last_active >= serve.idle_seconds:
            connection.end(Outcome.IDLE)
            return
        if is_due and relay is not None:
            relay.check(dead_after_seconds(serve.keepalive_seconds))

    def _tell_counts(self) -> None:
        routes, self._last_counts = self._last_counts, []
        for port in self._ports.values():
            counts = port.counts.take(len(port.connections))
            if counts is not None:
                routes.append(counts)
        self._tell(
            messages.Counts(
                open=self.open,
                routes=tuple(routes),
                accept_pauses=self._accept_pauses,
                dropped_logs=self._dropped_logs,
                sessions=tuple((*key, count) for key, count in self._sessions.items()),
            )
        )
        self._sessions.clear()
        self._accept_pauses = self._dropped_logs = 0

    # Descriptors.

    def has_descriptors(self) -> bool:
        """Say whether there is room for one more connection (two descriptors) and what natproxy itself may need."""
        return 2 * self.open + self._listening + _SPARE_DESCRIPTORS + 2 <= self._descriptor_limit

    def watch_listening(self, listening: ListeningSocket) -> None:
        """Accept on a listening socket; of several workers that share it one is woken, not all."""
        self.loop.watch(listening.sock.fileno(), IN | EXCLUSIVE, listening)

    def accept_failed(self, listening: ListeningSocket, error: OSError) -> None:
        """The kernel has no descriptor or memory left: turn away one who waits, by way of the spare, and rest."""
        del error
        self._accept_pauses += 1
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
        if not self._is_stopping:
            for port in self._ports.values():
                port.resume()


def main() -> None:
    """Serve on the channel whose descriptor the command line names; that of shared counts, and a row, may follow."""
    # A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group: the controller alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A core would hold keys, and what passes through.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What exists now lives for ever: the collector need not look at it, and need not look often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    channel, *counts = (int(word) for word in sys.argv[1:])
    shared = SharedCounts(*counts) if counts else None
    Worker(worker_end(socket.socket(fileno=channel)), Census(shared)).run()


if __name__ == "__main__":
    main()
