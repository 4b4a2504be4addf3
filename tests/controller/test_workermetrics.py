from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.controller.workermetrics import WorkerProcesses, usage

BUSY = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (321, 321))
held = [open("/dev/null") for _ in range(20)]
ballast = b"x" * 50_000_000
while time.process_time() < 0.2:
    pass
print("busy", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", BUSY]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        yield process


def shown(processes: WorkerProcesses) -> dict[str, float]:
    return {
        sample.name + sample.labels.get("slot", ""): sample.value
        for family in processes.families()
        for sample in family.samples
    }


def test_what_a_process_uses_is_read(busy: subprocess.Popen[str]) -> None:
    used = usage(busy.pid)
    assert 0.15 < used.cpu_seconds < 60
    assert 50_000_000 < used.resident_bytes < 500_000_000
    assert used.descriptors == len(list(Path(f"/proc/{busy.pid}/fd").iterdir())) >= 23
    assert used.max_descriptors == 321


def test_workers_are_shown_by_slot_and_one_that_has_ended_is_left_out(busy: subprocess.Popen[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    processes = WorkerProcesses()
    assert shown(processes) == {"natproxy_workers": 0, "natproxy_workers_wanted": 0}
    processes.show(3, {0: ended.pid, 2: busy.pid})
    found = shown(processes)
    assert found["natproxy_workers"] == 2
    assert found["natproxy_workers_wanted"] == 3
    assert found["natproxy_worker_max_fds2"] == 321
    assert found["natproxy_worker_open_fds2"] >= 23
    assert found["natproxy_worker_cpu_seconds_total2"] > 0
    assert found["natproxy_worker_resident_memory_bytes2"] > 0
    assert not [name for name in found if name.endswith("0")]


def test_one_that_has_ended_and_is_not_waited_for_yet_breaks_no_scrape() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        processes = WorkerProcesses()
        processes.show(1, {0: zombie.pid})
        found = shown(processes)
        assert found["natproxy_worker_open_fds0"] == found["natproxy_worker_resident_memory_bytes0"] == 0
