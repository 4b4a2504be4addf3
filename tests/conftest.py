"""What holds for the whole test run: no process outlives it, and where CI says so, no test is skipped.

Every process that the run starts, and every process those start, carries the run's mark in its environment: that is
how orphans (a worker whose controller was killed) are found too. Where pytest-xdist spreads the tests over several
processes, each of them looks after its own, and the one that started them tells what they found.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FAIL_ON_SKIP = "NATPROXY_FAIL_ON_SKIP"
"""Set to 1 by .ci/run: a skipped test fails the run."""
MARK = "NATPROXY_TEST_RUN"
GRACE_SECONDS = 3.0
"""How long a process may take to end after the last test, when its end is already under way."""

verdicts_key = pytest.StashKey[list[str]]()


@dataclass(frozen=True)
class Process:
    """One process that is still there."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} {self.command}"


def pytest_configure(config: pytest.Config) -> None:
    os.environ[MARK] = f"{os.getpid()}-{time.time_ns()}"
    config.stash[verdicts_key] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what one of several processes has to say in its end."""
    node.config.stash[verdicts_key] += getattr(node, "workeroutput", {}).get("verdicts", [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    verdicts = session.config.stash[verdicts_key]
    if not session.config.getoption("numprocesses", None) and (left := wait_for_processes(GRACE_SECONDS)):
        verdicts += [f"left running, now killed: {process}" for process in left]
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(FAIL_ON_SKIP) == "1" and reporter is not None:
        verdicts += [f"skipped, and {FAIL_ON_SKIP}=1: {report.nodeid}" for report in reporter.stats.get("skipped", [])]
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["verdicts"] = verdicts
    elif verdicts and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if verdicts := config.stash[verdicts_key]:
        terminalreporter.section("the run as a whole FAILED", red=True)
        for verdict in verdicts:
            terminalreporter.line(verdict)


def wait_for_processes(seconds: float) -> list[Process]:
    """Wait until this run's processes have ended; return those that have not."""
    deadline = time.monotonic() + seconds
    while (left := list(processes())) and (remaining := deadline - time.monotonic()) > 0:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(left[0].pid)
            try:
                select.select([handle], [], [], remaining)
            finally:
                os.close(handle)
    return left


def processes() -> Iterator[Process]:
    """Yield the run's live processes: children of this one, and all that carry its mark."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or is another user's
            state, parent = (directory / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            is_ours = int(parent) == os.getpid() or mark in (directory / "environ").read_bytes().split(b"\0")
            is_pythons_own = "multiprocessing.resource_tracker" in command  # lives as long as the interpreter
            if is_ours and state not in "ZX" and not is_pythons_own and int(directory.name) != os.getpid():
                yield Process(int(directory.name), command)
