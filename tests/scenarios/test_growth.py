"""Nodes come and go: new ones get new ports, gone ones keep theirs reserved, and nobody else's port moves."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import connect, is_refused
from tests.scenarios.waiting import eventually
from tests.standins.aws.records import PartialKind
from tests.standins.cloud import Cloud


def listed(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """What ``natproxy ports list --json`` tells, by name."""
    done = daemon.cli("ports", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {port["name"]: port for port in json.loads(done.stdout)["ports"]}


def two_more_rounds(cloud: Cloud) -> None:
    """Wait until everything was asked for twice from now on: what was said in between has been acted upon."""
    cloud.aws.wait_for_more("DescribeServerlessCaches", 3)


def without_last_node(cloud: Cloud, cluster_id: str) -> None:
    """Let AWS tell of one node less, in an answer that looks complete."""
    cloud.world.patch("cluster", cluster_id, CacheNodes=lambda nodes: nodes[:-1], NumCacheNodes=lambda count: count - 1)


def test_growth_gives_new_ports_and_moves_none(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=1)
    cloud.replication_group("my-cluster", mode="cluster-enabled", shards=1, replicas=0)
    cloud.memcached("mc", nodes=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}, {"id": "my-cluster"}, {"id": "mc"}])
    before = {name: daemon.wait_for_route(name) for name in daemon.ports()}
    assert list(before) == [
        "my-redis-001/0001", "my-redis-002/0001", "my-redis:primary", "my-redis:reader",
        "my-cluster-0001-001/0001", "my-cluster:configuration", "mc/0001", "mc:configuration",
    ]  # fmt: skip
    with connect(daemon.ip, before["my-redis-001/0001"]) as live:
        assert live.ping()
        replica = cloud.add_replica("my-redis")
        shard = cloud.add_shard("my-cluster", replicas=1)
        node = cloud.add_memcached_node("mc")
        new = [f"{replica}/0001", *(f"{member}/0001" for member in shard), f"mc/{node}"]
        for name in new:
            port = daemon.wait_for_route(name)
            with connect(daemon.ip, port) as talk:
                assert node in name or talk.ping()
        assert live.ping()
    after = daemon.ports()
    assert {name: after[name] for name in before} == before
    # Who is seen first comes first: the three may have been told of in three answers.
    assert sorted(port or 0 for name, port in after.items() if name in new) == [
        max(before.values()) + number for number in (1, 2, 3, 4)
    ]


def test_a_node_that_is_being_created_has_its_port_reserved_and_opens_once_it_has_an_address(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.memcached("mc", nodes=1)
    daemon = natproxy(cloud, caches=[{"id": "mc"}])
    node = cloud.add_memcached_node("mc", creating=True)
    port = daemon.wait_for_route(f"mc/{node}", "absent")
    assert is_refused(daemon.ip, port)
    assert daemon.routes()[f"mc/{node}"].reason
    cloud.settle()
    assert daemon.wait_for_route(f"mc/{node}") == port
    with connect(daemon.ip, port) as talk:
        talk.say(b"version\r\n")
        assert talk.hear(7) == b"VERSION"


def test_a_new_node_s_port_opens_with_the_first_answer_for_its_name(cloud: Cloud, natproxy: Natproxies) -> None:
    """Who is sent to a port that leads nowhere yet would take its node for broken."""
    cloud.replication_group("my-redis", replicas=0)
    daemon = natproxy(cloud, caches=[{"id": "my-redis", "endpoints": ["nodes"]}])
    daemon.wait_for_route("my-redis-001/0001")
    cloud.dns.fail("*", "silent")
    replica = cloud.add_replica("my-redis")
    cloud.dns.wait_for(cloud.world.node_host(replica), 1)
    port = daemon.ports()[f"{replica}/0001"]
    assert port is not None
    assert is_refused(daemon.ip, port)
    cloud.dns.heal()
    daemon.wait_for_log("port opened", port=port)
    with connect(daemon.ip, port) as talk:
        assert talk.ping()


def test_a_connection_to_a_removed_node_lives_on_for_drain_and_then_the_port_closes(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=2)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}], timeouts={"drain": "3s"})
    port, other = daemon.wait_for_route("my-redis-003/0001"), daemon.wait_for_route("my-redis-002/0001")
    with connect(daemon.ip, port) as live, connect(daemon.ip, other) as untouched:
        assert live.ping()
        assert untouched.ping()
        cloud.remove_node("my-redis-003")
        drains = daemon.wait_for_log("port drains", port=port, reason="node-gone")
        began = time.monotonic()
        assert drains["seconds"] == 3.0
        assert live.ping(), "a connection to a node that is being deleted lives on"
        with connect(daemon.ip, port) as late:
            assert late.ended() in ("eof", "reset"), "a new one is turned away"
        assert live.ping()
        assert live.ended() == "eof"
        assert 2.0 < time.monotonic() - began < 5.0
        assert untouched.ping()
    daemon.wait_for_log("port closed", port=port)
    eventually(lambda: is_refused(daemon.ip, port), "the port is closed")
    assert daemon.wait_for_log("connection ended", port=port, outcome="node-gone")


def test_a_gone_node_s_number_stays_its_own_and_is_there_when_it_comes_back(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=2)
    cloud.memcached("mc", nodes=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}, {"id": "mc"}], timeouts={"drain": "0s"})
    port = daemon.wait_for_route("my-redis-003/0001")
    cloud.remove_node("my-redis-003", settle=False)
    daemon.wait_until_gone("my-redis-003/0001")
    cloud.settle()
    gone = listed(daemon)["my-redis-003/0001"]
    assert gone["port"] == port
    assert gone["gone_since"]
    assert listed(daemon)["my-redis-002/0001"]["gone_since"] is None
    cloud.add_memcached_node("mc")
    assert daemon.wait_for_route("mc/0002") > port, "another cache's new node does not get it"
    assert cloud.add_replica("my-redis") == "my-redis-003"
    assert daemon.wait_for_route("my-redis-003/0001") == port
    with connect(daemon.ip, port) as talk:
        assert talk.ping()
    assert listed(daemon)["my-redis-003/0001"]["gone_since"] is None
    assert daemon.metric("natproxy_node_changes_total", change="returned") == 1


def test_ports_release_gives_the_number_of_a_gone_node_back(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=2)
    cloud.memcached("mc", nodes=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}, {"id": "mc"}], timeouts={"drain": "0s"})
    port = daemon.wait_for_route("my-redis-003/0001")
    refused = daemon.cli("ports", "release", "my-redis-003/0001")
    assert refused.returncode == 1
    assert "still exists" in refused.stderr
    cloud.remove_node("my-redis-003")
    daemon.wait_until_gone("my-redis-003/0001")
    cloud.settle()
    released = daemon.cli("ports", "release", "my-redis-003/0001")
    assert released.returncode == 0, released.stderr
    assert f"port {port} of my-redis-003/0001 is free again" in released.stdout
    assert "my-redis-003/0001" not in listed(daemon)
    cloud.add_memcached_node("mc")
    assert daemon.wait_for_route("mc/0002") == port
    assert daemon.cli("ports", "release", "my-redis-003/0001").returncode == 1


def test_a_node_missing_from_complete_answers_for_absent_after_is_gone_and_no_sooner(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.memcached("mc", nodes=2)
    daemon = natproxy(cloud, caches=[{"id": "mc"}], aws={"refresh": "200ms", "absent_after": "2s"})
    port = daemon.wait_for_route("mc/0002")
    began = time.monotonic()
    without_last_node(cloud, "mc")
    with connect(daemon.ip, port) as live:
        live.say(b"version\r\n")
        assert live.hear(7) == b"VERSION"
        two_more_rounds(cloud)
        with connect(daemon.ip, port) as fresh:
            fresh.say(b"version\r\n")
            assert fresh.hear(7) == b"VERSION", "one absence closes nothing"
        assert live.ended() == "eof"
        assert time.monotonic() - began >= 2.0
    daemon.wait_until_gone("mc/0002")
    cloud.world.whole()
    assert daemon.wait_for_route("mc/0002") == port


def test_one_node_that_is_missing_for_a_moment_closes_nothing(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.memcached("mc", nodes=2)
    cloud.serverless("my-serverless")
    daemon = natproxy(
        cloud, caches=[{"id": "mc"}, {"id": "my-serverless"}], clients={"tls": "passthrough"}, aws={"refresh": "200ms"}
    )
    port = daemon.wait_for_route("mc/0002")
    before = daemon.ports()
    with connect(daemon.ip, port) as live:
        for _ in range(3):
            without_last_node(cloud, "mc")
            cloud.world.partial("missing-serverless", "my-serverless")
            two_more_rounds(cloud)
            cloud.world.whole()
            two_more_rounds(cloud)
        live.say(b"version\r\n")
        assert live.hear(7) == b"VERSION"
    assert daemon.ports() == before
    assert not daemon.logged("port drains")


PARTIALS: list[tuple[PartialKind, str]] = [
    ("empty", "DescribeCacheClusters"),
    ("empty", "DescribeReplicationGroups"),
    ("missing-cluster", "my-redis-002"),
    ("missing-nodes", "my-redis-002"),
    ("missing-nodes", "mc"),
    ("missing-endpoint", "mc/0002"),
    ("missing-members", "my-redis"),
    ("missing-group", "my-redis"),
]


def test_an_empty_or_partial_answer_closes_nothing_however_often_it_comes(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=1)
    cloud.memcached("mc", nodes=2)
    # So short that whatever was concluded from these answers would show at once.
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}, {"id": "mc"}], aws={"refresh": "100ms", "absent_after": "1ms"})
    before = {name: daemon.wait_for_route(name) for name in daemon.ports()}
    with connect(daemon.ip, before["my-redis-002/0001"]) as live:
        for kind, name in PARTIALS:
            cloud.world.partial(kind, name)
            two_more_rounds(cloud)
            assert daemon.ports() == before, (kind, name)
            cloud.world.whole()
            two_more_rounds(cloud)
        for operation in ("DescribeCacheClusters", "DescribeReplicationGroups", "DescribeServerlessCaches"):
            cloud.world.partial("empty", operation)
        two_more_rounds(cloud)
        assert live.ping()
    assert {name: daemon.wait_for_route(name) for name in daemon.ports()} == before
    assert not daemon.logged("port drains")


@pytest.mark.parametrize("cache_id", ["my-redis", "mc"])
def test_a_cache_that_is_deleted_is_drained_and_its_ports_stay_reserved(
    cloud: Cloud, natproxy: Natproxies, cache_id: str
) -> None:
    cloud.replication_group("my-redis", replicas=1)
    cloud.memcached("mc", nodes=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}, {"id": "mc"}], timeouts={"drain": "0s"})
    before = {name: daemon.wait_for_route(name) for name in daemon.ports()}
    cloud.delete_cache(cache_id)
    eventually(lambda: not any(name.startswith(cache_id) for name in daemon.ports()), "its routes are gone")
    cloud.settle()
    two_more_rounds(cloud)
    kept = listed(daemon)
    assert {name: entry["port"] for name, entry in kept.items()} == before
    assert all(bool(entry["gone_since"]) == name.startswith(cache_id) for name, entry in kept.items())
