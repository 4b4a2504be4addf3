"""What a bad day does to the service, and what becomes of it: nobody has to come, and no port is another's after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.network.aws import REDIS_ID
from tests.scenarios.waiting import eventually
from tests.system.clients import REFUSED, Clients
from tests.system.machine import Machine
from tests.system.service import STATE_DIRECTORY, Service
from tests.system.site import Site

NEW_NODE = "10.0.1.240"


@pytest.fixture(autouse=True)
def same_ports(service: Service) -> Iterator[None]:
    """Whatever happens, every port is in the end what it was."""
    service.wait_for_routes(len(service.targets()))
    before = service.targets()
    yield
    eventually(lambda: before.items() <= service.targets().items(), f"the ports are {before}")


def refused(clients: Clients) -> list[str]:
    """Return who was refused; a crash may end a connection that it was at, but keeps nobody out."""
    return [failure.kind for failure in clients.failures.all() if failure.kind.startswith(REFUSED)]


def test_a_killed_controller_is_started_again_and_nobody_is_refused(service: Service, clients: Clients) -> None:
    for _ in range(2):
        pid, restarts = service.pid, int(service.show("NRestarts"))
        service.kill(pid, "KILL")
        service.wait_for_another(pid)
        assert int(service.show("NRestarts")) == restarts + 1
        clients.wait_for_more()
    assert refused(clients) == []


def test_a_crash_loop_goes_on_until_the_cause_has_gone(service: Service, machine: Machine) -> None:
    machine.run("chmod", "0000", "/opt/natproxy/current/bin/natproxy")
    try:
        restarts, pid = int(service.show("NRestarts")), service.pid
        service.change_unit("quick", "[Service]\nRestartSec=100ms\n")
        service.kill(pid, "KILL")
        # More than systemd would grant where nothing is said: five within ten seconds.
        eventually(lambda: int(service.show("NRestarts")) > restarts + 6, "it is tried again and again", 30)
    finally:
        machine.run("chmod", "0755", "/opt/natproxy/current/bin/natproxy")
        service.restore_unit("quick")
    service.wait_for_another(pid)


def test_a_hung_controller_is_killed_by_the_watchdog_and_started_again(service: Service, clients: Clients) -> None:
    service.change_unit("watchdog", "[Service]\nWatchdogSec=2s\n")
    try:
        service.control("restart")
        pid = service.pid
        service.kill(pid, "STOP")
        service.wait_for_another(pid)
        clients.wait_for_more()
        assert refused(clients) == []
        assert any("Watchdog timeout" in line for line in service.said())
    finally:
        service.restore_unit("watchdog")
        service.control("restart")


def test_a_killed_worker_is_replaced_under_the_same_controller(service: Service, clients: Clients) -> None:
    # As for want of memory: what the kernel sends is SIGKILL, and OOMPolicy leaves the rest alone.
    assert service.show("OOMPolicy") == "continue"
    pid, restarts = service.pid, service.show("NRestarts")
    (worker,) = service.children()
    service.kill(worker, "KILL")
    eventually(lambda: service.children() not in ([], [worker]), "another worker")
    clients.wait_for_more()
    assert refused(clients) == []
    assert (service.pid, service.show("NRestarts")) == (pid, restarts)


def test_a_hung_worker_is_replaced_under_the_same_controller(service: Service, clients: Clients) -> None:
    pid = service.pid
    (worker,) = service.children()
    service.kill(worker, "STOP")
    eventually(lambda: service.children() not in ([], [worker]), "another worker", 60)
    clients.wait_for_more()
    assert refused(clients) == []
    assert service.pid == pid


def test_killed_as_a_whole_it_comes_back(service: Service, clients: Clients, machine: Machine) -> None:
    pid = service.pid
    machine.run("systemctl", "kill", "--signal=SIGKILL", "natproxy.service")
    service.wait_for_another(pid)
    clients.wait_for_more()
    assert refused(clients) == []


# Its state directory


@pytest.fixture
def small_disk(service: Service, machine: Machine) -> Iterator[None]:
    """The state directory is a file system of its own, of 256 KiB."""
    service.control("stop")
    machine.run("cp", "-a", STATE_DIRECTORY, "/var/local/state")
    machine.run("mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", STATE_DIRECTORY)
    machine.run("chown", "natproxy:natproxy", STATE_DIRECTORY)
    machine.run("sh", "-c", f"cp -a /var/local/state/*.json {STATE_DIRECTORY}")
    service.control("start")
    try:
        yield
    finally:
        service.control("stop")
        machine.run("umount", STATE_DIRECTORY)
        machine.run("rm", "-r", "/var/local/state")
        service.control("start")


def test_a_full_disk_stops_nobody_and_new_ports_open_once_there_is_room(
    site: Site, service: Service, machine: Machine, small_disk: None, clients: Clients
) -> None:
    assert machine.attempt("dd", "if=/dev/zero", f"of={STATE_DIRECTORY}/filler", "bs=1k").returncode != 0
    site.network.start_named_redis(NEW_NODE)
    site.aws.do("add_replica", group_id=REDIS_ID, address=NEW_NODE)
    eventually(lambda: service.heard("state cannot be saved, new ports stay closed"), "it says that it cannot save")
    service.control("restart")
    clients.wait_for_more()
    assert clients.failed() == []
    machine.run("rm", f"{STATE_DIRECTORY}/filler")
    eventually(lambda: service.heard("state can be saved again"), "it can save again")
    eventually(lambda: NEW_NODE in str(service.routes()), "the new node is served")


def test_a_read_only_disk_stops_nobody(service: Service, machine: Machine, small_disk: None, clients: Clients) -> None:
    service.control("stop")
    machine.run("mount", "-o", "remount,ro", STATE_DIRECTORY)
    try:
        service.control("start")
        clients.wait_for_more()
    finally:
        machine.run("mount", "-o", "remount,rw", STATE_DIRECTORY)
