"""What the workers' processes use. I/O: reads /proc.

The process metrics of Prometheus' client are the controller's alone; the bytes are moved, and the descriptors held, by
the workers. A worker that replaces another takes its slot, so that the slots are a closed set.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MOST_DESCRIPTORS = "Max open files"


class Usage(NamedTuple):
    """What one process uses."""

    cpu_seconds: float
    resident_bytes: int
    descriptors: int
    max_descriptors: float


class WorkerProcesses:
    """The workers, by slot."""

    def __init__(self) -> None:
        self._wanted = 0
        self._pids: dict[int, int] = {}

    def show(self, wanted: int, pids: Mapping[int, int]) -> None:
        """Take these as all that run now. ``pids``: slot -> process id; ``wanted``: how many there should be."""
        self._wanted, self._pids = wanted, dict(pids)

    def families(self) -> Iterator[Metric]:
        """Return all families; a process that ends meanwhile is left out."""
        yield GaugeMetricFamily("natproxy_workers", "Worker processes running now.", value=len(self._pids))
        yield GaugeMetricFamily("natproxy_workers_wanted", "Worker processes that should run.", value=self._wanted)
        cpu = CounterMetricFamily(
            "natproxy_worker_cpu_seconds", "User and system CPU time of the worker in each slot.", labels=["slot"]
        )
        memory = GaugeMetricFamily(
            "natproxy_worker_resident_memory_bytes", "Resident memory of the worker in each slot.", labels=["slot"]
        )
        descriptors = GaugeMetricFamily(
            "natproxy_worker_open_fds", "File descriptors that the worker in each slot has open.", labels=["slot"]
        )
        most = GaugeMetricFamily(
            "natproxy_worker_max_fds", "File descriptors that the worker in each slot may open.", labels=["slot"]
        )
        for slot, pid in sorted(self._pids.items()):
            with contextlib.suppress(OSError):
                used = usage(pid)
                cpu.add_metric([str(slot)], used.cpu_seconds)
                memory.add_metric([str(slot)], used.resident_bytes)
                descriptors.add_metric([str(slot)], used.descriptors)
                most.add_metric([str(slot)], used.max_descriptors)
        yield from (cpu, memory, descriptors, most)


def usage(pid: int) -> Usage:
    """Return what a process of the same user uses. Raises OSError where it has ended."""
    process = Path("/proc") / str(pid)
    # The name in parentheses may hold anything; what follows begins with field 3 of proc_pid_stat(5).
    fields = (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    cpu_ticks, resident_pages = int(fields[11]) + int(fields[12]), int(fields[21])
    limits = (process / "limits").read_text(encoding="utf-8").splitlines()
    soft = next((line.split()[3] for line in limits if line.startswith(_MOST_DESCRIPTORS)), None)
    if soft is None:  # it has ended, and nobody has taken note yet
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return Usage(
        cpu_ticks / _TICKS,
        resident_pages * _PAGE_BYTES,
        _descriptors(process / "fd"),
        float("inf") if soft == "unlimited" else float(soft),
    )


def _descriptors(directory: Path) -> int:
    # Linux 6.2 and later tell the number as the directory's size; a hundred thousand names take long to list.
    return directory.stat().st_size or sum(1 for _ in directory.iterdir())
