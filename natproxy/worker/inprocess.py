"""A worker inside another program's process, driven from asyncio. I/O: a thread, and a socket pair to it.

The worker has a loop of its own (loop.py), so it gets a thread; what is said to it and what it says goes over the same
channel as between processes. All of this module's functions are to be called on the asyncio loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

from natproxy import messages
from natproxy.channel import controller_end, worker_end
from natproxy.errors import ChannelError, NatproxyError
from natproxy.worker.limits import raise_descriptor_limit
from natproxy.worker.process import Worker

OnMessage = Callable[[messages.Up], None]
OnEnd = Callable[[BaseException | None], None]
"""Called once, after the last message: with what ended the worker; None where it ended as it was told to."""
END_SECONDS = 2.0
"""How long the thread may take beyond the time that a stop leaves to connections."""
THREAD_NAME = "natproxy worker"

_only_one = threading.Lock()
"""A worker's buffers are its process's (leg.py, tlsleg.py): two would mix up what passes through them."""


class WorkerThread:
    """A worker that runs in a thread of this process. Made by ``start_worker``."""

    def __init__(self, on_message: OnMessage, on_end: OnEnd) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._has_ended = asyncio.Event()
        self._is_writing = False
        self._is_deaf = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel = controller_end(ours)
        try:
            self._worker = Worker(worker_end(theirs))
        except OSError:
            self._channel.close()
            theirs.close()
            raise
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._thread.start()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._worker.run()
        except BaseException as raised:
            error = raised
        _only_one.release()
        with contextlib.suppress(RuntimeError):  # the asyncio loop is closed: there is nobody to be told
            self._loop.call_soon_threadsafe(self._ended, error)

    def _ended(self, error: BaseException | None) -> None:
        try:
            self._readable()  # its last words
        finally:
            self.close()
            self._thread.join()
            self._has_ended.set()
            self._on_end(error)

    # What it is told.

    def send(self, message: messages.Down, sockets: Sequence[socket.socket] = ()) -> None:
        """Tell the worker something; listening sockets go with Serve, are duplicated and stay the caller's.

        Raises ChannelError where the worker is gone, or a socket cannot be passed on.
        """
        if self._is_deaf:
            raise ChannelError("the worker has ended")
        self._channel.send(message, [sock.fileno() for sock in sockets])
        self._watch_writing()

    async def stop(self, seconds: float) -> None:
        """Stop accepting, let live connections end for ``seconds``, close the rest; return once the thread is over.

        Harmless when it is over already. Raises NatproxyError where the worker hangs.
        """
        if self._has_ended.is_set():
            return
        with contextlib.suppress(ChannelError):
            self.send(messages.Stop(seconds))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + END_SECONDS):
                await self._has_ended.wait()
                return
        self.close()  # at which it ends without waiting for anything
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._has_ended.wait()
        except TimeoutError:
            raise NatproxyError("the thread that moves the bytes hangs") from None

    def close(self) -> None:
        """Let go of the worker: it closes every connection and ends. Nothing more is heard of it but its end."""
        if not self._is_deaf:
            self._is_deaf = True
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._channel.close()

    def _watch_writing(self) -> None:
        if self._channel.wants_write is not self._is_writing:
            self._is_writing = self._channel.wants_write
            if self._is_writing:
                self._loop.add_writer(self._channel.fileno(), self._writable)
            else:
                self._loop.remove_writer(self._channel.fileno())

    def _writable(self) -> None:
        try:
            self._channel.flush()
        except ChannelError:
            self.close()
        else:
            self._watch_writing()

    # What it says.

    def _readable(self) -> None:
        if self._is_deaf:
            return
        try:
            received = self._channel.receive()
        except ChannelError:
            self.close()
            return
        for message, _ in received:
            self._on_message(message)


def start_worker(on_message: OnMessage, on_end: OnEnd) -> WorkerThread:
    """Start a worker in a thread; what it says is handed to ``on_message`` on the running asyncio loop.

    The first message is Ready. The process has as many descriptors as it may from now on. Raises NatproxyError where
    the process has a worker already, or no descriptor for one.
    """
    if not _only_one.acquire(blocking=False):
        raise NatproxyError("this process moves bytes already: one worker is all that fits a process")
    try:
        raise_descriptor_limit()
        return WorkerThread(on_message, on_end)
    except BaseException as error:
        _only_one.release()
        if isinstance(error, OSError):
            message = f"the worker cannot be started: {error.strerror or error}"
            raise NatproxyError(message) from error
        raise
