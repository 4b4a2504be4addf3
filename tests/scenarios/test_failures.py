"""What docs/operations.md says of failures: whatever breaks, no port changes its number, and what can be served is."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from natproxy.controller.statefile import StateFile
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon, wait_for_end
from tests.scenarios.disk import Disk
from tests.scenarios.peers import connect
from tests.scenarios.systemd import Systemd
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

ROUNDS = 8


def answers(daemon: Daemon, port: int) -> bool:
    with connect(daemon.ip, port) as talk:
        return talk.echoes()


def answer_all(daemon: Daemon, ports: dict[str, int]) -> None:
    for port in ports.values():
        assert answers(daemon, port)


def test_a_crash_loop_moves_no_port_and_refuses_nobody(echo_cloud: Cloud, natproxy: Natproxies) -> None:
    echo_cloud.replication_group("my-redis", replicas=2)
    daemon = natproxy.prepare(echo_cloud, caches=[{"id": "my-redis"}])
    chance = random.Random(6)
    with Systemd(daemon) as systemd:
        daemon.start()
        eventually(lambda: len(daemon.ports()) == 5, "all is known")
        before = {name: daemon.wait_for_route(name) for name in daemon.ports()}
        kept = systemd.names()
        waiting = []
        for _ in range(ROUNDS):
            daemon.kill()
            port = before["my-redis-001/0001"]
            waiting.append(connect(daemon.ip, port))
            daemon.start(is_ready=False)
            time.sleep(chance.uniform(0, 1.2))  # not for anything to happen: it is to crash anywhere in its start
        daemon.kill()
        for talk in waiting:
            talk.close()
        with connect(daemon.ip, before["my-redis:primary"]) as talk:
            daemon.start()
            assert talk.echoes()
        assert {name: daemon.wait_for_route(name) for name in before} == before
        assert systemd.names() == kept
    assert not list(daemon.state_dir.glob("*damaged*"))


def test_a_hung_controller_holds_nobody_up_and_says_where_it_hung_when_the_watchdog_aborts_it(
    natproxy: Natproxies, echo: str
) -> None:
    daemon = natproxy.prepare(static=[{"name": "a", "port": FIRST_PORT, "target": echo}])
    with Systemd(daemon) as systemd:
        daemon.start()
        workers = daemon.workers()
        with connect(daemon.ip, FIRST_PORT) as live:
            assert live.echoes()
            daemon.signal(signal.SIGSTOP)
            assert live.echoes()
            assert answers(daemon, FIRST_PORT), "who comes now is served, too"
            # What systemd does to who does not feed its watchdog.
            daemon.signal(signal.SIGABRT)
            daemon.signal(signal.SIGCONT)
            assert daemon.wait() == -signal.SIGABRT
            assert live.ended() in ("eof", "reset")
        for pid in workers:
            wait_for_end(pid)
        said = "".join(daemon.strange_lines)
        assert "Fatal Python error: Aborted" in said
        assert "natproxy/controller/daemon.py" in said
        daemon.strange_lines.clear()
        with connect(daemon.ip, FIRST_PORT) as waiting:
            daemon.start()
            assert waiting.echoes()
        assert len(systemd.names()) == 1


def test_a_worker_that_is_killed_for_want_of_memory_costs_its_connections_alone(
    echo_cloud: Cloud, natproxy: Natproxies
) -> None:
    echo_cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy(echo_cloud, caches=[{"id": "my-redis"}])
    before = {name: daemon.wait_for_route(name) for name in daemon.ports()}
    controller = daemon.process.pid
    for _ in range(3):
        (worker,) = daemon.workers()
        os.kill(worker, signal.SIGKILL)
        answer_all(daemon, before)
    assert daemon.process.pid == controller
    assert daemon.is_running
    assert {name: daemon.wait_for_route(name) for name in before} == before


@pytest.mark.root
@pytest.mark.parametrize("breaks", [Disk.fill, Disk.use_up_names, Disk.make_read_only])
def test_a_disk_that_takes_nothing_keeps_new_ports_closed_and_the_others_as_they_are(
    echo_cloud: Cloud, natproxy: Natproxies, breaks: Callable[[Disk], Callable[[], None]]
) -> None:
    echo_cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy.prepare(echo_cloud, caches=[{"id": "my-redis"}])
    with Disk(daemon) as disk:
        daemon.start()
        eventually(lambda: len(daemon.ports()) == 4, "all is known")
        before = {name: daemon.wait_for_route(name) for name in daemon.ports()}
        mend = breaks(disk)
        echo_cloud.add_replica("my-redis")
        daemon.wait_for_log("route has no port", route="my-redis-003/0001", level="error")
        answer_all(daemon, before)
        # It ends as it should, and comes back with what was written down.
        assert daemon.stop() == 0
        breaks(disk)  # the control socket's own place, too
        since = len(daemon.log)
        daemon.start()
        answer_all(daemon, before)
        daemon.wait_for_log("route has no port", since=since, route="my-redis-003/0001", level="error")
        assert daemon.routes()["my-redis-003/0001"].state == "error"
        assert daemon.ports().items() >= before.items()
        has_socket = breaks is Disk.fill
        assert bool(daemon.logged("control socket not opened, it will be tried again", since)) is not has_socket
        daemon.kill()
        daemon.start()
        answer_all(daemon, before)
        mend()
        port = daemon.wait_for_route("my-redis-003/0001")
        assert answers(daemon, port)
        eventually((disk.path / "control.sock").exists, "commands reach it again")
        loaded = StateFile(disk.path / "state.json").load()
        written = {str(entry.key): entry.port for entry in loaded.state.portmap.entries}
        assert written.items() >= {**before, "my-redis-003/0001": port}.items()
        assert daemon.stop() == 0
