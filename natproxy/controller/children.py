"""Starts processes, at the niceness natproxy was started with, and sees them end. I/O: runs processes.

Theory. The controller's work (parsing what AWS says, laying out 500 routes, a scrape) must not take the processor from
the workers, so it runs niced. On Linux niceness belongs to a thread (sched(7)); what a thread starts, threads and
processes alike, inherits it, and nobody without privilege lowers it again. Hence one thread, which does nothing else,
is started before ``give_way`` makes this one nice: it is the parent of all workers. What counts is the difference:
natproxy may itself be started with any niceness (systemd's ``Nice=``, nice(1)).

The end of a process is waited for by a thread of its own, which only looks (WNOWAIT): the process is collected in the
loop's thread. So no signal can go to a process id that is another's by now, no SIGCHLD handler is needed, and the loop
may be asyncio's or uvloop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

NICENESS = 10
"""The controller's, above that of its workers."""


def give_way() -> None:
    """Make this thread nice, and all that it starts from now on."""
    os.nice(NICENESS)


class Child:
    """A process. To be made in, and asked from, the thread of the running loop."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._has_ended = asyncio.Event()
        self.pid = process.pid
        threading.Thread(target=self._watch, name=f"natproxy-wait-{self.pid}", daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(ChildProcessError):  # collected already: Popen looks before it sends a signal
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._process.wait()
        self._has_ended.set()

    @property
    def returncode(self) -> int | None:
        """How it ended, as subprocess.Popen.returncode tells it; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end; return how it ended."""
        await self._has_ended.wait()
        return self._process.wait()

    def kill(self) -> None:
        """Kill it. Harmless when it has ended."""
        self._process.kill()


class Spawner:
    """Starts processes from a thread that keeps the niceness this one has now."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="natproxy-spawn")
        self._thread.submit(threading.get_native_id).result()  # a pool's thread starts with its first job

    def start(self, command: Sequence[str], *, pass_fds: Sequence[int], env: Mapping[str, str]) -> Child:
        """Start ``command``, with nothing to read and these descriptors. Raises OSError. Takes a few milliseconds."""
        job = self._thread.submit(
            subprocess.Popen, command, stdin=subprocess.DEVNULL, pass_fds=tuple(pass_fds), env=env
        )
        return Child(job.result())

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._thread.shutdown()
