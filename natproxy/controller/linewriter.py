"""Writes log lines from a thread of its own: a reader who stops reading stops nothing else. I/O: a text stream."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from types import TracebackType
from typing import Self, TextIO

WAITING_LINES = 10_000
"""With so many lines unwritten, further ones are dropped and counted."""


class LineWriter:
    """Looks like a text stream; what is written goes to ``stream`` when that takes it.

    Leaving the ``with`` block gives lines that wait at most ``drain_seconds``.
    """

    def __init__(self, stream: TextIO, *, waiting_lines: int = WAITING_LINES, drain_seconds: float = 1.0) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(waiting_lines)
        self._drain_seconds = drain_seconds
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="natproxy-log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Take ``text`` to be written; never blocks."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1
        return len(text)

    def flush(self) -> None:
        """Return at once: the thread flushes."""

    def isatty(self) -> bool:
        """Say whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the stream's descriptor."""
        return self._stream.fileno()

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written, ``seconds`` at most; say whether it is."""
        deadline = time.monotonic() + seconds
        with self._lines.all_tasks_done:
            while self._lines.unfinished_tasks:
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._lines.all_tasks_done.wait(left)
        return True

    def _write_all(self) -> None:
        while (text := self._lines.get()) is not None:
            # A reader that is gone for good must not end the thread: the queue would fill, and nobody would know why.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    self._stream.write(f"{dropped} log lines were left out: nobody read them in time\n")
                if self._lines.empty():
                    self._stream.flush()
            self._lines.task_done()
        self._lines.task_done()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.drain(self._drain_seconds):
            self._lines.put(None)
            self._thread.join()
