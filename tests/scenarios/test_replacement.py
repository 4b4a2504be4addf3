"""A node is replaced, a primary fails over, a name moves: natproxy follows, and ends what has to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
import redis
from pymemcache.client.base import Client
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon, Line
from tests.scenarios.peers import PlainNode, Talk, connect
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud
from tests.standins.echo import EchoNodes

SOON_SECONDS = 8.0
"""Within seconds: well before the next poll would be due at the default pace."""


def redis_at(daemon: Daemon, port: int) -> redis.Redis:
    return redis.Redis(daemon.ip, port, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0))


def pid_at(daemon: Daemon, port: int) -> int:
    with redis_at(daemon, port) as client:
        info = client.info("server")
    assert isinstance(info, dict)
    return int(info["process_id"])


def memcached_at(daemon: Daemon, port: int) -> contextlib.closing[Client]:
    return contextlib.closing(Client((daemon.ip, port), timeout=5))


def role_at(daemon: Daemon, port: int) -> object:
    with redis_at(daemon, port) as client:
        role = client.execute_command("ROLE")
    assert isinstance(role, list)
    return role[0]


@dataclass(frozen=True)
class Moving:
    """Two nodes whose names have moved, and a connection to where each was: one answers there still, one is dead."""

    daemon: Daemon
    at_living: int
    at_dead: int
    drained: Talk
    cut: Talk


@pytest.fixture(scope="module", autouse=True)
def moving(module_natproxy: Natproxies) -> Iterator[Moving]:
    """The name moves while the old machine still runs: the case of a resize, where nothing else would end them.

    natproxy gives it 10 s until it believes it, which pass beside the other tests.
    """
    with Cloud(backing="echo") as cloud, PlainNode(cloud.port) as old, PlainNode(cloud.port + 1) as elsewhere:
        zone = cloud.world.zone
        cloud.replication_group("my-redis", replicas=2)
        living, dead = (cloud.world.node_host(f"my-redis-00{number}") for number in (2, 3))
        zone.put(dead, old.ip)
        daemon = module_natproxy(cloud, caches=[{"id": "my-redis"}], timeouts={"drain": "2s"})
        at_living, at_dead = (daemon.wait_for_route(f"my-redis-00{number}/0001") for number in (2, 3))
        news = EchoNodes()
        news.start()
        try:
            news.open(elsewhere.ip, cloud.port)
            with connect(daemon.ip, at_dead) as cut, old.accept(), connect(daemon.ip, at_living) as drained:
                assert drained.echoes()
                old.leave()
                zone.put(living, elsewhere.ip)
                zone.put(dead, elsewhere.ip)
                yield Moving(daemon, at_living, at_dead, drained, cut)
        finally:
            news.stop()


def at(line: Line) -> datetime:
    return datetime.fromisoformat(line["time"])


def test_a_node_replaced_at_a_new_address_is_reached_within_seconds_and_its_old_connections_end(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=2)
    # With an hour between two rounds it is the failed dial that wakes discovery and the resolver.
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}], aws={"refresh": "1h"})
    port = daemon.wait_for_route("my-redis-002/0001")
    before = daemon.ports()
    with connect(daemon.ip, port) as old, connect(daemon.ip, daemon.wait_for_route("my-redis-003/0001")) as other:
        assert old.ping()
        assert other.ping()
        began = time.monotonic()
        address = cloud.replace("my-redis-002")
        assert old.ended() in ("eof", "reset")
        expected = cloud.server("my-redis-002").pid
        eventually(lambda: pid_at(daemon, port) == expected, "the new node is reached", SOON_SECONDS)
        assert time.monotonic() - began < SOON_SECONDS
        assert other.ping()
    assert daemon.ports() == before
    assert daemon.routes()["my-redis-002/0001"].addresses == (f"{address}:{cloud.port}",)
    assert daemon.logged("name resolves anew", after=address) or daemon.logged("name resolves anew", after=[address])


def test_a_node_replaced_at_the_same_address_is_reached_on_the_same_port(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=2)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    port = daemon.wait_for_route("my-redis-002/0001")
    before = daemon.ports()
    with connect(daemon.ip, port) as old:
        assert old.ping()
        cloud.replace("my-redis-002", same_address=True)
        assert old.ended() in ("eof", "reset")
    expected = cloud.server("my-redis-002").pid
    assert eventually(lambda: pid_at(daemon, port), "the new node is reached", SOON_SECONDS) == expected
    assert daemon.ports() == before
    assert not daemon.logged("name resolves anew")


def test_a_replaced_memcached_node_is_followed_and_the_others_keep_their_data(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.memcached("mc", nodes=2)
    daemon = natproxy(cloud, caches=[{"id": "mc"}])
    first, second = daemon.wait_for_route("mc/0001"), daemon.wait_for_route("mc/0002")
    seed = daemon.wait_for_route("mc:configuration")
    for port in (first, second):
        with memcached_at(daemon, port) as client:
            assert client.set("key", str(port), noreply=False)
    cloud.replace("mc", "0002")

    def is_anew() -> bool:
        with memcached_at(daemon, second) as client:
            return client.get("key") is None

    eventually(is_anew, "the new, empty node is reached", SOON_SECONDS)
    with memcached_at(daemon, first) as client:
        assert client.get("key") == str(first).encode()
    with memcached_at(daemon, seed) as client:
        assert client.version()


def test_a_failover_moves_the_primary_port_at_once_and_no_node_port(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=2)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    primary = daemon.wait_for_route("my-redis:primary")
    before = daemon.ports()
    writers = [connect(daemon.ip, primary) for _ in range(3)]
    node_ports = [daemon.wait_for_route(f"my-redis-00{number}/0001") for number in (1, 2, 3)]
    at_nodes = [connect(daemon.ip, port) for port in node_ports]
    assert all(talk.ping() for talk in (*writers, *at_nodes))
    assert cloud.failover("my-redis") == "my-redis-002"
    began = time.monotonic()
    assert [talk.ended() for talk in writers] == ["eof"] * 3
    assert time.monotonic() - began < SOON_SECONDS
    assert daemon.wait_for_log("connection ended", port=primary, outcome="role-moved")
    assert all(talk.ping() for talk in at_nodes)
    assert role_at(daemon, primary) == b"master"
    with redis_at(daemon, primary) as client:
        assert client.set("after", "the failover")
    assert pid_at(daemon, primary) == cloud.server("my-redis-002").pid == pid_at(daemon, node_ports[1])
    assert daemon.ports() == before
    routes = daemon.routes()
    assert [routes[f"my-redis-00{number}/0001"].role for number in (1, 2, 3)] == ["replica", "primary", "replica"]
    assert daemon.metric("natproxy_node_changes_total", change="role-moved") == 2
    for talk in (*writers, *at_nodes):
        talk.close()


def test_writes_go_on_within_seconds_after_the_primary_has_died(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=2)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}], aws={"refresh": "1h"})
    primary = daemon.wait_for_route("my-redis:primary")
    with redis_at(daemon, primary) as client:
        assert client.set("key", "before")
        promoted = cloud.failover("my-redis", kill=True)

        eventually(lambda: client.set("key", "after"), "the new primary takes writes", SOON_SECONDS)
    assert pid_at(daemon, primary) == cloud.server(promoted).pid


def test_a_reader_connection_to_the_node_that_becomes_primary_ends_and_the_others_stay(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    reader = daemon.wait_for_route("my-redis:reader")
    with connect(daemon.ip, reader) as moved:
        assert moved.ping()
        cloud.failover("my-redis")
        assert moved.ended() == "eof"
    daemon.wait_for_log("connection ended", port=reader, outcome="role-moved")
    assert role_at(daemon, reader) == b"slave"


def test_a_name_that_no_longer_resolves_keeps_its_last_addresses_also_over_a_restart(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    port = daemon.wait_for_route("my-redis-002/0001")
    with connect(daemon.ip, port) as live:
        assert live.ping()
        cloud.dns.fail(cloud.world.node_host("my-redis-002"), "nxdomain")
        daemon.wait_for_log("name does not resolve, its last addresses stay", reason="the name does not exist")
        assert live.ping()
        with connect(daemon.ip, port) as fresh:
            assert fresh.ping()
    assert daemon.metric("natproxy_name_failures_total") >= 1
    assert daemon.stop() == 0
    cloud.dns.fail("*", "silent")
    daemon.start()
    with connect(daemon.ip, port) as fresh:
        assert fresh.ping()


def test_names_that_rotate_close_nothing(echo_cloud: Cloud, natproxy: Natproxies) -> None:
    echo_cloud.replication_group("my-redis", replicas=3)
    echo_cloud.replication_group("my-cluster", mode="cluster-enabled", shards=2, replicas=2)
    echo_cloud.serverless("my-serverless")
    daemon = natproxy(
        echo_cloud,
        caches=[{"id": "my-redis"}, {"id": "my-cluster"}, {"id": "my-serverless"}],
        clients={"tls": "passthrough"},
    )
    names = ("my-redis:reader", "my-cluster:configuration", "my-serverless:primary", "my-serverless:reader")
    ports = [daemon.wait_for_route(name) for name in names]
    talks = [connect(daemon.ip, port) for port in ports for _ in range(6)]
    assert all(talk.echoes() for talk in talks)
    hosts = [str(daemon.routes()[name].target).rpartition(":")[0] for name in names]
    for host in hosts:
        echo_cloud.dns.wait_for(host, 4, seconds=20)  # IPv4 and IPv6, and a second time
    assert all(talk.echoes() for talk in talks)
    assert not daemon.logged("connections end")
    for talk in talks:
        talk.close()


def test_a_serverless_cache_has_a_port_for_each_of_its_two_endpoints(echo_cloud: Cloud, natproxy: Natproxies) -> None:
    echo_cloud.serverless("my-serverless")
    daemon = natproxy(echo_cloud, caches=[{"id": "my-serverless", "clients": {"tls": "passthrough"}}])
    primary = daemon.wait_for_route("my-serverless:primary")
    reader = daemon.wait_for_route("my-serverless:reader")
    assert daemon.ports() == {"my-serverless:primary": primary, "my-serverless:reader": primary + 1}
    routes = daemon.routes()
    for name, behind in (("my-serverless:primary", echo_cloud.port), ("my-serverless:reader", echo_cloud.port + 1)):
        assert str(routes[name].target).endswith(f":{behind}")
        assert {int(address.rpartition(":")[2]) for address in routes[name].addresses} == {behind}
    for port in (primary, reader):
        with connect(daemon.ip, port) as talk:
            assert talk.echoes()


def test_connections_to_an_address_that_left_its_name_are_drained_or_cut_where_it_is_dead(moving: Moving) -> None:
    daemon = moving.daemon
    assert moving.cut.ended() == "eof"
    assert moving.drained.ended() == "eof"
    with connect(daemon.ip, moving.at_living) as fresh, connect(daemon.ip, moving.at_dead) as also:
        assert fresh.echoes()
        assert also.echoes()
    daemon.wait_for_log("connection ended", port=moving.at_dead, outcome="address-changed")
    daemon.wait_for_log("connections end", port=moving.at_dead, reason="address-changed", seconds=0.0)
    ordered = daemon.wait_for_log("connections end", port=moving.at_living, reason="address-changed", seconds=2.0)
    ended = daemon.wait_for_log("connection ended", port=moving.at_living, outcome="address-changed")
    assert 1.5 < (at(ended) - at(ordered)).total_seconds() < 5, "an address that still answers has `drain`"
