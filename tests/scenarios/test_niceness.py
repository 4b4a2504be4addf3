"""The controller gives way to the workers: discovery, scrapes and reloads are the nicer part of natproxy."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from natproxy.controller.children import NICENESS
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.peers import connect
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

PORT = FIRST_PORT
STARTED_WITH = 3


def niceness(stat: Path) -> int:
    """The field of that name (proc(5))."""
    return int(stat.read_text(encoding="ascii").rpartition(")")[2].split()[16])


def of_processes(daemon: Daemon) -> tuple[int, set[int]]:
    """How nice the controller is, and how nice its workers are."""
    return (
        niceness(Path(f"/proc/{daemon.process.pid}/stat")),
        {niceness(Path(f"/proc/{pid}/stat")) for pid in daemon.workers()},
    )


def test_the_controller_is_nicer_than_natproxy_was_started_and_no_worker_is(
    natproxy: Natproxies, echo_cloud: Cloud, echo: str
) -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    if here > STARTED_WITH and os.geteuid() != 0:
        pytest.skip("these tests run too nicely")
    echo_cloud.replication_group("shop", replicas=1)
    daemon = natproxy.prepare(
        echo_cloud, caches=[{"id": "shop"}], static=[{"name": "a", "port": PORT + 90, "target": echo}], workers=2
    )
    daemon.prefix = ("nice", "-n", str(STARTED_WITH - here))
    daemon.start()
    eventually(lambda: daemon.get("/readyz")[0] == 200, "AWS has answered")
    expected = (STARTED_WITH + NICENESS, {STARTED_WITH})
    assert of_processes(daemon) == expected
    threads = [niceness(path) for path in Path(f"/proc/{daemon.process.pid}/task").glob("*/stat")]
    assert sorted(threads)[:2] == [STARTED_WITH, STARTED_WITH + NICENESS], "one thread, to start workers with"
    assert max(threads) == STARTED_WITH + NICENESS
    before = daemon.workers()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(daemon.workers()) == 2 and daemon.workers() != before, "it is replaced")
    assert of_processes(daemon) == expected
    with connect(daemon.ip, PORT + 90) as talk:
        assert talk.echoes()
