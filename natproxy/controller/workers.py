"""Starts, feeds and replaces workers. I/O: runs child processes and talks to them over their channels."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

import msgspec

from natproxy import messages
from natproxy.channel import Channel, controller_end
from natproxy.controller.children import Child, Spawner
from natproxy.controller.logs import event
from natproxy.controller.systemd import MEANT_FOR_ONE
from natproxy.errors import ChannelError, NatproxyError
from natproxy.tasks import TaskOwner
from natproxy.worker.spread import Commons

_log = logging.getLogger(__name__)

START_SECONDS = 20.0
SILENT_SECONDS = 15.0
"""A worker that has said nothing for so long hangs: it tells its counts every second."""
RESTART_SECONDS = 1.0
"""Between the end of a worker and the start of the one that replaces it, so that a crash loop costs little."""
KILL_SECONDS = 2.0
AWAY_SECONDS = 5.0
"""When this process itself did not run for so long (a blocked disk, a paused machine), nobody's silence counts."""
WORKER_COMMAND = (sys.executable, "-P", "-m", "natproxy.worker.process")

_NOT_FOR_WORKERS = ("AWS_", *MEANT_FOR_ONE)

OnMessage = Callable[[int, messages.Up], None]
OnLoss = Callable[[int, str], None]
"""(worker, why): its connections are lost; another one follows."""
Served = tuple[messages.Serve, Sequence[socket.socket]]


class Worker:
    """One child process, as the controller sees it."""

    def __init__(self, number: int, row: int, process: Child, channel: Channel[messages.Up]) -> None:
        self.number = number
        self.row = row
        """Its place in what workers share; a worker that replaces it takes the same."""
        self.process = process
        self.channel = channel
        self.is_ready = asyncio.Event()
        """Set too when it has ended: nobody need wait any longer."""
        self.status: int | None = None
        """How it ended (``Child.returncode``); None while it runs, or until ``_reap`` has taken note."""
        self.has_stopped = False
        self.heard_at = asyncio.get_running_loop().time()
        self.is_writing = False
        self.is_deaf = False
        """Its channel is closed or broken."""


class Workers:
    """Keeps ``count`` workers running and tells each of them the same.

    ``command`` is what runs one; the descriptor of its channel is appended, and with several workers what they share
    (``Commons.handed_to``). ``spawner`` is this object's to close.
    """

    def __init__(
        self,
        count: int,
        on_message: OnMessage,
        on_loss: OnLoss,
        command: Sequence[str] = WORKER_COMMAND,
        spawner: Spawner | None = None,
    ) -> None:
        self.count = count
        self._command = command
        self._spawner = spawner or Spawner()
        self._on_message = on_message
        self._on_loss = on_loss
        self._workers: dict[int, Worker] = {}
        self._numbers = itertools.count(1)
        self._served: dict[int, Served] = {}
        self._policy = messages.Policy(log_connections=True)
        self._tls: messages.Tls | None = None
        self._books: dict[str, messages.Book] = {}
        self._is_stopping = False
        self._starting: Worker | None = None
        self._commons = Commons(count) if count > 1 else None
        """What several workers share. What a dead one has not taken out of its inbox is its successor's."""
        self._looked_at = float("-inf")
        self._tasks = TaskOwner(lambda name, error: event(_log, logging.ERROR, "task failed", task=name, error=error))

    @property
    def running(self) -> int:
        """How many are alive."""
        return len(self._workers)

    def silent(self, seconds: float = SILENT_SECONDS) -> list[int]:
        """Name the workers that have said nothing for ``seconds``."""
        now = asyncio.get_running_loop().time()
        return [worker.number for worker in self._workers.values() if now - worker.heard_at > seconds]

    async def start(self) -> None:
        """Start all and wait until each is ready. Raises NatproxyError."""
        for row in range(self.count):
            try:
                self._starting = worker = self._spawn(row)
                async with asyncio.timeout(START_SECONDS):
                    await worker.is_ready.wait()
            except OSError as error:  # TimeoutError is one
                why = f"it was not ready within {START_SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
                message = f"a worker cannot be started: {why} ({self._command[0]})"
                raise NatproxyError(message) from error
            if worker.status is not None:
                message = f"a worker cannot be started: it {_how_ended(worker.status)}"
                raise NatproxyError(message)
        self._starting = None

    def _spawn(self, row: int) -> Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        shared, fds = ([], []) if self._commons is None else self._commons.handed_to(row)
        try:
            with theirs:
                channel = theirs.fileno()
                command = [*self._command, *map(str, (channel, *shared))]
                process = self._spawner.start(command, pass_fds=[channel, *fds], env=_worker_environ(os.environ))
        except BaseException:
            ours.close()
            raise
        worker = Worker(next(self._numbers), row, process, controller_end(ours))
        self._workers[worker.number] = worker
        loop = asyncio.get_running_loop()
        loop.add_reader(worker.channel.fileno(), self._readable, worker)
        self._send(worker, self._policy)
        if self._tls is not None:  # before any port that needs it, as the books
            self._send(worker, self._tls)
        for book in self._books.values():
            self._send(worker, book)
        for serve, sockets in self._served.values():
            self._send(worker, serve, sockets)
        self._tasks.start(f"wait for worker {worker.number}", self._reap(worker))
        return worker

    async def _reap(self, worker: Worker) -> None:
        worker.status = await worker.process.wait()
        self._readable(worker)  # its last words
        self._forget(worker)
        is_starting = worker is self._starting and not worker.is_ready.is_set()
        worker.is_ready.set()
        if not (self._is_stopping or worker.has_stopped or is_starting):
            self._on_loss(worker.number, _how_ended(worker.status))
            await self._replace(worker.row)

    async def _replace(self, row: int) -> None:
        """Start another worker in the place of one that is gone, however often that has to be tried."""
        while True:
            await asyncio.sleep(RESTART_SECONDS)
            if self._is_stopping:
                return
            try:
                self._spawn(row)
            except OSError as error:
                event(_log, logging.ERROR, "worker not started, it will be tried again", error=error)
            else:
                return

    def _forget(self, worker: Worker) -> None:
        if self._workers.pop(worker.number, None) is not None:
            self._stop_watching(worker)
            worker.channel.close()
            if self._commons is not None:
                self._commons.forget(worker.row)

    def _stop_watching(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(worker.channel.fileno())
        if worker.is_writing:
            loop.remove_writer(worker.channel.fileno())
            worker.is_writing = False

    def _readable(self, worker: Worker) -> None:
        if worker.number not in self._workers:
            return
        try:
            received = worker.channel.receive()
        except ChannelError:
            self._give_up(worker)
            return
        if received:
            worker.heard_at = asyncio.get_running_loop().time()
        for message, _ in received:
            if isinstance(message, messages.Ready):
                worker.is_ready.set()
            elif isinstance(message, messages.Stopped):
                worker.has_stopped = True
            else:
                self._on_message(worker.number, message)

    def _send(self, worker: Worker, message: messages.Down, sockets: Sequence[socket.socket] = ()) -> None:
        # A worker that is gone is replaced, and its successor is told everything anew.
        if worker.is_deaf:
            return
        try:
            worker.channel.send(message, [sock.fileno() for sock in sockets])
        except ChannelError as error:
            if isinstance(message, messages.Serve) and sockets:
                event(_log, logging.ERROR, "worker gets no port", worker=worker.number, port=message.port, error=error)
            elif isinstance(message, messages.Tls):
                event(_log, logging.ERROR, "worker gets no certificates", worker=worker.number, error=error)
            elif isinstance(message, messages.Book):
                event(_log, logging.ERROR, "worker gets no book", worker=worker.number, book=message.name, error=error)
        self._watch_writing(worker)

    def _watch_writing(self, worker: Worker) -> None:
        if worker.channel.wants_write and not worker.is_writing:
            worker.is_writing = True
            asyncio.get_running_loop().add_writer(worker.channel.fileno(), self._writable, worker)
        elif worker.is_writing and not worker.channel.wants_write:
            worker.is_writing = False
            asyncio.get_running_loop().remove_writer(worker.channel.fileno())

    def _writable(self, worker: Worker) -> None:
        with contextlib.suppress(ChannelError):
            worker.channel.flush()
            self._watch_writing(worker)
            return
        self._give_up(worker)

    def _give_up(self, worker: Worker) -> None:
        """Let it end by itself, which says best why, but not live on: without its channel it is of no use."""
        if not worker.is_deaf:
            worker.is_deaf = True
            self._stop_watching(worker)
            asyncio.get_running_loop().call_later(KILL_SECONDS, self._kill, worker)

    def _kill(self, worker: Worker) -> None:
        worker.process.kill()

    def kill_silent(self) -> None:
        """Kill workers that hang; they are replaced as any that died. To be called about once a second."""
        now = asyncio.get_running_loop().time()
        was_away, self._looked_at = now - self._looked_at > AWAY_SECONDS, now
        if was_away:
            # What they said meanwhile has not been read, or they were paused as well.
            for worker in self._workers.values():
                worker.heard_at = now
        for number in self.silent():
            event(
                _log, logging.ERROR, "worker hangs and is killed", worker=number, pid=self._workers[number].process.pid
            )
            self._kill(self._workers[number])

    # What they are told.

    def serve(self, serve: messages.Serve, sockets: Sequence[socket.socket]) -> None:
        """Serve a port, or serve it by new values; then the sockets it was first served with stay."""
        known = self._served.get(serve.port)
        kept = sockets if known is None else known[1]  # for workers yet to come
        self._served[serve.port] = (with_sockets := _with_sockets(serve, len(kept)), kept)
        for worker in self._workers.values():
            if known is None:
                self._send(worker, with_sockets, kept)
            else:
                self._send(worker, _with_sockets(serve, 0))

    def unserve(self, port: int, outcome: str) -> None:
        """Close a port."""
        if self._served.pop(port, None) is not None:
            self._broadcast(messages.Unserve(port, outcome))

    def end(self, order: messages.End) -> None:
        """End live connections."""
        self._broadcast(order)

    def set_policy(self, policy: messages.Policy) -> None:
        """Tell what holds for all ports."""
        if policy != self._policy:
            self._policy = policy
            self._broadcast(policy)

    def set_tls(self, tls: messages.Tls) -> None:
        """Tell what TLS is spoken with from now on. It holds keys: no word of it may get into a log."""
        if tls != self._tls:
            self._tls = tls
            self._broadcast(tls)

    def set_book(self, book: messages.Book) -> None:
        """Tell by what addresses are rewritten from now on; to be told before the first port that names the book."""
        if book != self._books.get(book.name):
            self._books[book.name] = book
            self._broadcast(book)

    def forget_book(self, name: str) -> None:
        """Empty a book that no port names any more."""
        if self._books.pop(name, None) is not None:
            self._broadcast(messages.Book(name, (), "", "", 0))

    def _broadcast(self, message: messages.Down) -> None:
        for worker in self._workers.values():
            self._send(worker, message)

    async def stop(self, seconds: float) -> None:
        """Let live connections end for ``seconds``, then end every worker."""
        self._is_stopping = True
        self._broadcast(messages.Stop(seconds))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + KILL_SECONDS):
                await self._all_ended()
        self.kill_all()
        await self._all_ended()
        await self._tasks.cancel_all()
        for worker in list(self._workers.values()):
            self._forget(worker)
        self._spawner.close()
        if self._commons is not None:
            self._commons.close()
            self._commons = None

    async def _all_ended(self) -> None:
        while processes := [worker.process for worker in self._workers.values() if worker.status is None]:
            await asyncio.gather(*(process.wait() for process in processes))
            await asyncio.sleep(0)  # for ``_reap`` to take note

    def kill_all(self) -> None:
        """End every worker at once."""
        self._is_stopping = True
        for worker in self._workers.values():
            self._kill(worker)

    def pids(self) -> Mapping[int, int]:
        """Return worker number -> process id."""
        return {worker.number: worker.process.pid for worker in self._workers.values()}

    def slots(self) -> Mapping[int, int]:
        """Return the place that a worker has among those wanted (from 0) -> process id."""
        return {worker.row: worker.process.pid for worker in self._workers.values()}


def _with_sockets(serve: messages.Serve, count: int) -> messages.Serve:
    return serve if serve.sockets == count else msgspec.structs.replace(serve, sockets=count)


def _how_ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def _worker_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out AWS's credentials, and what the service manager means for this process alone."""
    return {name: value for name, value in environ.items() if not name.startswith(_NOT_FOR_WORKERS)}
