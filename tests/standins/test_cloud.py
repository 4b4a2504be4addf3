"""The whole cloud: what AWS says, what DNS answers, and what the caches do stay in line."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Iterator

import boto3
import dnslib
import pytest
from cryptography import x509

from tests.standins import caches
from tests.standins.cloud import Cloud
from tests.standins.fleet import Backing
from tests.standins.resp import ReplyError, ask, ask_line

needs_redis = pytest.mark.skipif(caches.redis_program() is None, reason="redis-server is not installed")
either = pytest.mark.parametrize(
    "backing", [pytest.param("real", marks=needs_redis), pytest.param("fake")], indirect=True
)


@pytest.fixture
def backing(request: pytest.FixtureRequest) -> Backing:
    chosen: Backing = request.param
    return chosen


@pytest.fixture
def cloud(backing: Backing) -> Iterator[Cloud]:
    with Cloud(backing=backing) as made:
        yield made


def resolved(cloud: Cloud, host: str) -> str:
    """Return the last line of a name's answer."""
    address, _, port = cloud.resolver.rpartition(":")
    answer = dnslib.DNSRecord.parse(dnslib.DNSRecord.question(host).send(address, int(port), timeout=5))
    return str(answer.rr[-1].rdata)


def primary(cloud: Cloud, group_id: str = "my-redis") -> tuple[str, int]:
    """Where the primary endpoint leads now."""
    return resolved(cloud, cloud.world.group_names(cloud.world.group(group_id)).primary()), cloud.port


def role(cloud: Cloud, cluster_id: str) -> object:
    answer = ask(*cloud.where(cluster_id), "ROLE")
    assert isinstance(answer, list)
    return answer[0]


@either
def test_data_written_to_the_primary_is_read_from_its_replicas_and_outlives_a_failover(cloud: Cloud) -> None:
    cloud.replication_group("my-redis", replicas=2)
    ask(*primary(cloud), "SET", "a", "1")
    before = primary(cloud)
    assert cloud.failover("my-redis") == "my-redis-002"
    assert primary(cloud) == cloud.where("my-redis-002") != before
    assert ask(*primary(cloud), "SET", "b", "2") == "OK"
    assert ask(*primary(cloud), "GET", "a") == "1"


@needs_redis
@pytest.mark.parametrize("backing", ["real"], indirect=True)
@pytest.mark.parametrize("kill", [False, True])
def test_after_a_failover_the_old_primary_is_a_replica(cloud: Cloud, kill: bool) -> None:
    cloud.replication_group("my-redis", replicas=2)
    pid = cloud.server("my-redis-001").pid
    cloud.failover("my-redis", to="my-redis-003", kill=kill)
    assert [role(cloud, f"my-redis-00{number}") for number in (1, 2, 3)] == ["slave", "slave", "master"]
    assert (cloud.server("my-redis-001").pid == pid) is not kill
    with pytest.raises(ReplyError, match="READONLY"):
        ask(*cloud.where("my-redis-001"), "SET", "a", "1")


@either
@pytest.mark.parametrize("same_address", [False, True])
def test_a_replaced_node_is_another_server_under_the_same_name(cloud: Cloud, same_address: bool) -> None:
    cloud.replication_group("my-redis", replicas=1)
    old, name = cloud.where("my-redis-002"), cloud.world.node_host("my-redis-002")
    first = cloud.server("my-redis-002")
    cloud.replace("my-redis-002", same_address=same_address)
    new = cloud.where("my-redis-002")
    assert cloud.server("my-redis-002") is not first
    assert (new == old) is same_address
    assert resolved(cloud, name) == new[0]
    assert ask(*new, "PING") == "PONG"
    if not same_address:
        with pytest.raises(ConnectionRefusedError):
            ask(*old, "PING")


@either
def test_a_primary_is_failed_over_before_it_is_replaced(cloud: Cloud) -> None:
    cloud.replication_group("my-redis", replicas=1)
    ask(*primary(cloud), "SET", "a", "1")
    cloud.replace("my-redis-001")
    assert primary(cloud) == cloud.where("my-redis-002")
    assert ask(*primary(cloud), "GET", "a") == "1"


@either
def test_nodes_come_serve_while_they_leave_and_go(cloud: Cloud) -> None:
    cloud.replication_group("my-redis", replicas=1)
    cloud.memcached("mc", nodes=1)
    assert cloud.add_replica("my-redis") == "my-redis-003"
    assert cloud.add_memcached_node("mc") == "0002"
    added, other = cloud.where("my-redis-003"), cloud.where("mc", "0002")
    assert ask(*added, "PING") == "PONG"
    assert ask_line(*other, "version").startswith("VERSION")
    cloud.remove_node("my-redis-003")
    cloud.remove_node("mc", "0002")
    assert ask(*added, "PING") == "PONG"
    cloud.settle()
    for where in (added, other):
        with pytest.raises(ConnectionRefusedError):
            ask(*where, "PING")
    cloud.delete_cache("my-redis", settle=True)
    assert [cluster for cluster, _, _, _ in cloud.world.nodes()] == ["mc"]


@either
def test_a_killed_node_stays_dead_until_it_is_revived(cloud: Cloud) -> None:
    cloud.standalone("alone")
    cloud.kill("alone")
    cloud.memcached("mc", nodes=1)
    with pytest.raises(ConnectionRefusedError):
        ask(*cloud.where("alone"), "PING")
    cloud.revive("alone")
    assert ask(*cloud.where("alone"), "PING") == "PONG"


@pytest.mark.parametrize("backing", ["fake"], indirect=True)
def test_cluster_mode_and_serverless_have_their_nodes_too(cloud: Cloud) -> None:
    cloud.replication_group("cme", mode="cluster-enabled", shards=2, replicas=1)
    cloud.serverless("less")
    assert cloud.add_shard("cme") == ["cme-0003-001", "cme-0003-002"]
    assert ask(*cloud.where("cme-0003-002"), "PING") == "PONG"
    cache = cloud.world.serverless_cache("less")
    assert ask(cache.addresses[0], cache.reader_port, "PING") == "PONG"


@pytest.mark.parametrize("backing", ["echo"], indirect=True)
def test_five_hundred_nodes_can_echo(cloud: Cloud) -> None:
    cloud.replication_group("large", mode="cluster-enabled", shards=100, replicas=4)
    assert len(cloud.world.nodes()) == 500
    assert ask_line(*cloud.where("large-0100-005"), "hello") == "hello"
    assert cloud.accepted("large-0100-005") == 1
    cloud.replace("large-0100-005")
    assert ask_line(*cloud.where("large-0100-005"), "again") == "again"


@pytest.mark.parametrize("backing", ["none"], indirect=True)
def test_nobody_needs_to_listen(cloud: Cloud) -> None:
    cloud.replication_group("my-redis")
    cloud.failover("my-redis")
    with pytest.raises(ConnectionRefusedError):
        ask(*cloud.where("my-redis-001"), "PING")


@pytest.mark.parametrize("backing", ["none"], indirect=True)
async def test_it_is_found_by_its_environment_from_async_tests_too(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.replication_group("my-redis", tags={"Environment": "dev"})
    for name, value in cloud.environ.items():
        monkeypatch.setenv(name, value)

    def ask_aws() -> list[int]:
        client = boto3.Session().client("elasticache", region_name=os.environ["AWS_REGION"])
        clusters = client.describe_cache_clusters(ShowCacheNodeInfo=True)["CacheClusters"]
        client.close()
        return [cluster["CacheNodes"][0]["Endpoint"]["Port"] for cluster in clusters]

    assert await asyncio.to_thread(ask_aws) == [cloud.port] * 3
    assert "AWS_ACCESS_KEY_ID" not in cloud.instance_environ


def test_two_clouds_do_not_meet() -> None:
    with Cloud(backing="echo") as one, Cloud(backing="echo") as other:
        for cloud in (one, other):
            cloud.memcached("mc", nodes=2)
        assert not {node[2] for node in one.world.nodes()} & {node[2] for node in other.world.nodes()}
        assert one.memcached_port == other.memcached_port


@needs_redis
def test_an_error_in_the_middle_leaves_nothing_behind() -> None:
    threads = threading.active_count()
    pids: list[int | None] = []

    def fail() -> None:
        with Cloud() as cloud:
            cloud.replication_group("my-redis", replicas=1)
            pids.extend(cloud.server(f"my-redis-00{number}").pid for number in (1, 2))
            raise LookupError("in the middle")

    with pytest.raises(LookupError, match="in the middle"):
        fail()
    assert threading.active_count() == threads
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# TLS


def shown_certificate(cloud: Cloud, where: tuple[str, int], name: str) -> x509.Certificate:
    """Return what a node shows whoever dials it by ``name``; raises where that does not verify."""
    trusting = ssl.create_default_context(cadata=cloud.authority.pem.decode())
    with (
        socket.create_connection(where, 5) as plain,
        trusting.wrap_socket(plain, server_hostname=name) as secured,
    ):
        return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")


@needs_redis
@pytest.mark.parametrize("backing", ["real"], indirect=True)
def test_nodes_of_a_cache_with_tls_show_certificates_for_their_names(cloud: Cloud) -> None:
    cloud.replication_group("my-redis", replicas=1, tls="required")
    cloud.memcached("mc", nodes=1, tls="required")
    cloud.serverless("less", speaks_tls=True)
    names = cloud.world.group_names(cloud.world.group("my-redis"))
    where = cloud.where("my-redis-001")
    for name in (cloud.world.node_host("my-redis-001"), names.primary(), names.reader()):
        shown_certificate(cloud, where, name)
    shown_certificate(cloud, cloud.where("mc", "0001"), cloud.world.node_host("mc", "0001"))
    shown_certificate(
        cloud, (cloud.world.serverless_cache("less").addresses[0], cloud.port), cloud.world.serverless_host("less")
    )
    assert ask(cloud.server("my-redis-001").address, cloud.server("my-redis-001").clear_port, "PING") == "PONG"
    cloud.failover("my-redis")
    cloud.replace("my-redis-002")
    shown_certificate(cloud, cloud.where("my-redis-002"), cloud.world.node_host("my-redis-002"))


@needs_redis
@pytest.mark.parametrize("backing", ["real"], indirect=True)
def test_a_node_can_show_another_certificate_and_a_cache_can_take_tls_up(cloud: Cloud) -> None:
    cloud.standalone("alone")
    assert ask(*cloud.where("alone"), "PING") == "PONG"
    cloud.tls_migration("alone", "preferred")
    shown_certificate(cloud, cloud.where("alone"), cloud.world.node_host("alone"))
    other = cloud.authority.issue("other", dns=["other.example"])
    cloud.show_certificate(other, "alone")
    assert shown_certificate(cloud, cloud.where("alone"), "other.example").serial_number == other.serial
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shown_certificate(cloud, cloud.where("alone"), cloud.world.node_host("alone"))


def owner_of_a(cloud: Cloud, cluster_id: str) -> str:
    """Who serves the key ``a`` (slot 15495), as a node tells: an address."""
    try:
        ask(*cloud.where(cluster_id), "GET", "a")
    except ReplyError as error:
        return str(error).rpartition(" ")[2].rpartition(":")[0]
    return cloud.where(cluster_id)[0]


@needs_redis
@pytest.mark.parametrize("backing", ["real"], indirect=True)
def test_a_group_in_cluster_mode_is_a_real_cluster_that_follows_what_happens(cloud: Cloud) -> None:
    cloud.replication_group("cme", mode="cluster-enabled", shards=2, replicas=1)
    first, second, replica = "cme-0001-001", "cme-0002-001", "cme-0002-002"
    assert owner_of_a(cloud, first) == cloud.where(second)[0]
    ask(*cloud.where(second), "SET", "a", "1")
    assert cloud.failover("cme", 1) == replica
    assert owner_of_a(cloud, first) == cloud.where(replica)[0]
    assert cloud.failover("cme", 1, kill=True) == second
    assert owner_of_a(cloud, first) == cloud.where(second)[0]
    assert ask(*cloud.where(second), "GET", "a") == "1"
    old = cloud.where(replica)[0]
    assert cloud.replace(replica) != old
    assert old not in str(cloud.cluster_node(first).ask("CLUSTER", "NODES"))
    [third] = cloud.add_shard("cme", replicas=0)
    assert owner_of_a(cloud, first) == cloud.where(third)[0]
    assert ask(*cloud.where(third), "GET", "a") == "1"
    cloud.remove_shard("cme", 2, settle=True)
    assert owner_of_a(cloud, first) == cloud.where(second)[0]
    assert ask(*cloud.where(second), "GET", "a") == "1"
    cloud.redis_cluster("cme").move_slots([15495], cloud.cluster_node(first))
    assert owner_of_a(cloud, second) == cloud.where(first)[0]


@needs_redis
@pytest.mark.parametrize("backing", ["real"], indirect=True)
def test_a_cluster_whose_node_is_down_is_left_alone_where_nobody_could_help(cloud: Cloud) -> None:
    cloud.replication_group("cme", mode="cluster-enabled", shards=2, replicas=0)
    cloud.kill("cme-0002-001")
    cloud.standalone("other")
    cloud.revive("cme-0002-001")
    assert owner_of_a(cloud, "cme-0001-001") == cloud.where("cme-0002-001")[0]


@needs_redis
@pytest.mark.parametrize("backing", ["real"], indirect=True)
def test_a_cluster_with_tls_calls_its_nodes_by_the_names_that_aws_tells(cloud: Cloud) -> None:
    cloud.replication_group("cme", mode="cluster-enabled", shards=2, replicas=0, tls="required")
    host = cloud.world.node_host("cme-0002-001")
    shown_certificate(cloud, cloud.where("cme-0002-001"), host)
    assert f",{host} " in str(cloud.cluster_node("cme-0001-001").ask("CLUSTER", "NODES"))
