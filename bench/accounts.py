"""What processes have used: CPU to the nanosecond, memory. I/O: reads /proc.

``/proc/PID/task/*/schedstat`` begins with a thread's CPU time in nanoseconds, the kernel's own work for it included
(Documentation/scheduler/sched-stats.rst). Threads and children that have ended are found only in ``/proc/PID/stat``,
in ticks of 10 ms.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Account:
    """The processes that do a proxy's work."""

    pids: tuple[int, ...]
    is_fleeting: bool = False
    """It makes a thread or a process for each connection: counted in ticks, those that have ended included."""

    def cpu_seconds(self) -> dict[int, float]:
        """Return what each thread has used, by its id; of a fleeting one all of it under the first process's."""
        if self.is_fleeting:
            return {self.pids[0]: sum(sum(_ticks(pid)) for pid in (*self.pids, *self._children()))}
        return {thread: seconds for pid in self.pids for thread, seconds in _threads(pid)}

    def resident_bytes(self) -> int:
        """Return the resident memory of all of them."""
        return sum(resident_bytes(pid) for pid in self.pids)

    def _children(self) -> Iterable[int]:
        return (child for pid in self.pids for child in children(pid))


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that are there."""
    # The kernel lists them by the thread that started them.
    lists = (path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return sorted(int(child) for listed in lists for child in listed.split())


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def children_seconds() -> float:
    """Return the CPU time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def open_sockets(pid: int) -> int:
    """Return how many sockets a process has open."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(link.readlink()).startswith("socket:")
    return count


def spent(before: Mapping[int, float], after: Mapping[int, float]) -> dict[int, float]:
    """Return what each thread used between two looks; one that has come meanwhile began with nothing."""
    return {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}


def _threads(pid: int) -> Iterator[tuple[int, float]]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield int(thread.name), int((thread / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def _ticks(pid: int) -> list[float]:
    """Return utime, stime, cutime and cstime; nothing of a process that is gone: its parent has its time by now."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(field) * TICK_SECONDS for field in fields[11:15]]
