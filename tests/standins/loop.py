"""An asyncio loop in a thread, so that stand-ins serve sync tests, async tests and the demo alike. I/O: a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

CALL_SECONDS = 30.0


class LoopThread:
    """Runs an event loop in a daemon thread from ``start`` to ``stop``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; raises RuntimeError while it does not run."""
        if self._loop is None:
            message = f"{self.name} is not running"
            raise RuntimeError(message)
        return self._loop

    def start(self) -> None:
        """Start the thread and wait until its loop runs."""
        running = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._loop.call_soon(running.set)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        running.wait()

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def stop(self) -> None:
        """Cancel what still runs in the loop, close it, and wait for the thread to end. Idempotent."""
        if self._thread is None:
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self._thread = self._loop = None

    def call(self, work: Coroutine[object, object, T], seconds: float = CALL_SECONDS) -> T:
        """Run a coroutine in the loop and wait for its result."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    def soon(self, act: Callable[..., object], *arguments: object) -> None:
        """Call a plain function in the loop, some time soon; nothing where the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(act, *arguments)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
