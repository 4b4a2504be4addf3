"""What is written down holds: ports survive restarts, kill -9, a reordered AWS, a full range, and a bad disk."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from pathlib import Path

import msgspec
import pytest

from natproxy.controller.statefile import StateFile
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.peers import connect, is_refused
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

ROUNDS = 12
WITHOUT_ROOT_S_POWERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root may write where the mode forbids it; this is root without that."""


def written_ports(daemon: Daemon) -> dict[str, int]:
    """What the state file says, read as natproxy reads it: a damaged one is an error."""
    loaded = StateFile(daemon.state_dir / "state.json").load()
    assert loaded.warning is None
    return {str(entry.key): entry.port for entry in loaded.state.portmap.entries}


def test_a_restart_keeps_every_port_also_when_aws_lists_in_another_order_and_has_grown(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=2)
    cloud.memcached("mc", nodes=2)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}, {"id": "mc"}])
    before = {name: daemon.wait_for_route(name) for name in daemon.ports()}
    assert list(before.values()) == list(range(FIRST_PORT, FIRST_PORT + 8))
    assert daemon.stop() == 0
    cloud.world.reorder(7)
    cloud.failover("my-redis")
    cloud.add_replica("my-redis")
    daemon.config["caches"].reverse()
    daemon.start()
    assert daemon.wait_for_route("my-redis-004/0001") == FIRST_PORT + 8
    after = {name: daemon.wait_for_route(name) for name in daemon.ports()}
    assert {name: after[name] for name in before} == before
    with connect(daemon.ip, before["my-redis:primary"]) as talk:
        assert talk.ping()


def test_a_kill_in_the_middle_of_a_port_write_moves_no_port_and_damages_nothing(
    paper_cloud: Cloud, natproxy: Natproxies
) -> None:
    paper_cloud.memcached("mc", nodes=1)
    paper_cloud.replication_group("my-redis", replicas=0)
    daemon = natproxy.prepare(paper_cloud, caches=[{"id": "mc"}, {"id": "my-redis"}], aws={"refresh": "20ms"})
    chance = random.Random(2)
    opened: dict[str, int] = {}
    seen = 0
    for _ in range(ROUNDS):
        daemon.start()
        paper_cloud.aws.wait_for_more("DescribeServerlessCaches", 2)
        for _ in range(7):
            paper_cloud.add_memcached_node("mc")
            time.sleep(chance.uniform(0, 0.02))  # not for anything to happen: the kill is to come anywhere in it
        daemon.kill()
        written = written_ports(daemon)
        for line in daemon.logged("port opened", seen):
            # A port that anybody could have connected to has been written down, and for ever.
            assert opened.setdefault(line["route"], line["port"]) == line["port"]
        seen = len(daemon.log)
        assert opened.items() <= written.items()
        assert not list(daemon.state_dir.glob("*damaged*"))
    daemon.start()
    assert len(opened) > 3 * ROUNDS
    eventually(lambda: opened.items() <= daemon.ports().items(), "all ports are as they were")


def test_a_damaged_state_file_is_set_aside_said_loudly_and_rebuilt(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    before = {name: daemon.wait_for_route(name) for name in daemon.ports()}
    assert daemon.stop() == 0
    path = daemon.state_dir / "state.json"
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    daemon.start()
    line = daemon.wait_for_log("state damaged, starting without it", level="error")
    (aside,) = daemon.state_dir.glob("state.json.damaged-*")
    assert aside.name in line["detail"]
    assert aside.read_bytes() == half
    assert {name: daemon.wait_for_route(name) for name in before} == before, "on a fresh start ports are deterministic"
    assert written_ports(daemon) == before


def test_a_state_file_of_a_newer_version_is_refused_and_left_alone(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=0)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    assert daemon.stop() == 0
    path = daemon.state_dir / "state.json"
    newer = json.dumps({**json.loads(path.read_bytes()), "version": 99})
    path.write_text(newer, encoding="utf-8")
    daemon.start(is_ready=False)
    assert daemon.wait() == 1
    said = "".join(daemon.strange_lines)
    assert str(path) in said
    assert "99" in said
    assert "Traceback" not in said
    assert path.read_text(encoding="utf-8") == newer


def test_with_a_state_dir_it_cannot_write_it_serves_what_is_written_and_opens_new_ports_once_it_can(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    known = {name: daemon.wait_for_route(name) for name in daemon.ports()}
    assert daemon.stop() == 0
    daemon.state_dir.chmod(0o500)
    try:
        if os.geteuid() == 0:
            daemon.prefix = WITHOUT_ROOT_S_POWERS
        daemon.start()
        cloud.add_replica("my-redis")
        daemon.wait_for_log("state cannot be saved, new ports stay closed", level="error")
        eventually(lambda: "my-redis-003/0001" in daemon.routes(), "the new node is shown")
        route = daemon.routes()["my-redis-003/0001"]
        assert route.state == "error"
        assert "cannot be written down" in str(route.reason)
        for port in known.values():
            with connect(daemon.ip, port) as talk:
                assert talk.ping()
        assert daemon.metric("natproxy_unplaced_routes", cache="my-redis") == 1
        assert daemon.metric("natproxy_state_save_failures_total") >= 1
    finally:
        daemon.state_dir.chmod(0o700)
    port = daemon.wait_for_route("my-redis-003/0001")
    daemon.wait_for_log("state can be saved again")
    assert written_ports(daemon) == {**known, "my-redis-003/0001": port}


def test_a_second_natproxy_with_the_same_state_dir_is_refused_and_the_first_serves_on(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=0)
    first = natproxy(cloud, caches=[{"id": "my-redis"}])
    port = first.wait_for_route("my-redis-001/0001")
    second = natproxy.prepare(cloud, caches=[{"id": "my-redis"}], state_dir=str(first.state_dir))
    with connect(first.ip, port) as live:
        assert live.ping()
        second.start(is_ready=False)
        assert second.wait() == 1
        assert "another natproxy runs with this state_dir" in "".join(second.strange_lines)
        assert live.ping()
    assert first.cli("routes").returncode == 0
    assert (first.state_dir / "control.sock").exists()


def test_a_port_taken_by_another_program_is_an_error_of_that_route_alone_until_it_is_free(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy.prepare(cloud, caches=[{"id": "my-redis"}])
    with socket.socket() as thief:
        thief.bind((daemon.ip, FIRST_PORT + 1))
        thief.listen()
        daemon.start()
        reason = f"port {FIRST_PORT + 1} cannot be opened on {daemon.ip}: Address already in use"
        daemon.wait_for_log("port not opened", port=FIRST_PORT + 1, reason=reason, level="error")
        daemon.wait_for_route("my-redis-002/0001", "error")
        assert daemon.routes()["my-redis-002/0001"].reason == reason
        daemon.wait_for_metric(1, "natproxy_listener_state", state="error", port=str(FIRST_PORT + 1))
        with connect(daemon.ip, daemon.wait_for_route("my-redis-001/0001")) as talk:
            assert talk.ping()
        shown = daemon.cli("routes")
        assert reason in shown.stdout
        assert shown.returncode == 0
    assert daemon.wait_for_route("my-redis-002/0001") == FIRST_PORT + 1
    with connect(daemon.ip, FIRST_PORT + 1) as talk:
        assert talk.ping()
    assert len(daemon.logged("port not opened", port=FIRST_PORT + 1)) == 1, "said once, not at each try"


def test_a_range_that_is_too_small_serves_as_many_as_it_holds_and_a_wider_one_the_rest(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=1)
    narrow, wide = f"{FIRST_PORT}-{FIRST_PORT + 1}", f"{FIRST_PORT}-{FIRST_PORT + 9}"
    daemon = natproxy(cloud, caches=[{"id": "my-redis", "ports": narrow}])
    assert daemon.wait_for_route("my-redis-001/0001") == FIRST_PORT
    assert daemon.wait_for_route("my-redis-002/0001") == FIRST_PORT + 1
    for name in ("my-redis:primary", "my-redis:reader"):
        route = daemon.routes()[name]
        assert (route.port, route.state, route.reason) == (None, "error", f"no port is left for it in {narrow}")
    assert daemon.metric("natproxy_unplaced_routes", cache="my-redis") == 2
    assert len(daemon.logged("route has no port", level="error")) == 2
    daemon.config["caches"][0]["ports"] = wide
    daemon.reload()
    assert daemon.wait_for_route("my-redis:primary") == FIRST_PORT + 2
    assert daemon.wait_for_route("my-redis-001/0001") == FIRST_PORT
    assert daemon.metric("natproxy_unplaced_routes") == 0


def test_the_state_file_is_for_its_owner_only_and_complete(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.memcached("mc", nodes=1)
    daemon = natproxy(cloud, caches=[{"id": "mc"}])
    daemon.wait_for_route("mc/0001")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (daemon.state_dir, *daemon.state_dir.iterdir())}
    assert modes == {"state": 0o700, "state.json": 0o600, "control.sock": 0o600}
    assert msgspec.json.decode((daemon.state_dir / "state.json").read_bytes())["version"] == 1


@pytest.mark.parametrize("in_the_way", ["file", "directory"])
def test_a_state_dir_that_cannot_be_is_told_in_one_line(natproxy: Natproxies, tmp_path: Path, in_the_way: str) -> None:
    place = tmp_path / "state"
    if in_the_way == "file":
        place.write_text("a file")
    else:
        (place / "control.sock").mkdir(parents=True)
    daemon = natproxy.prepare(state_dir=str(place), static=[{"name": "a", "port": FIRST_PORT, "target": "127.0.0.1:1"}])
    daemon.start(is_ready=False)
    assert daemon.wait() == 1
    (said,) = daemon.strange_lines
    assert str(place) in said
    assert is_refused(daemon.ip, FIRST_PORT)
