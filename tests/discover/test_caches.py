from __future__ import annotations

from typing import Any

import pytest

from natproxy.discover.caches import cluster_cache, group_cache, serverless_cache
from natproxy.discover.fields import Raw
from natproxy.model import Cache, Endpoint, Kind, Mode, Node, NodeId, NodeTls, Role
from tests.discover.samples import account, without
from tests.standins.aws import MISSING, AwsWorld, answers

X = "x7f3k"
DOMAIN = "use1.cache.amazonaws.com"


def group(world: AwsWorld, group_id: str) -> Cache:
    raw = next(item for item in answers.replication_groups(world) if item["ReplicationGroupId"] == group_id)
    described = answers.cache_clusters(world, show_nodes=True)
    clusters: dict[str, Raw] = {
        str(item["CacheClusterId"]): item for item in described if item.get("ReplicationGroupId") == group_id
    }
    return group_cache(group_id, raw, clusters)


def cluster(world: AwsWorld, cluster_id: str) -> Cache:
    described = answers.cache_clusters(world, show_nodes=True)
    return cluster_cache(cluster_id, next(item for item in described if item["CacheClusterId"] == cluster_id))


def serverless(world: AwsWorld, name: str) -> Cache:
    return serverless_cache(
        name, next(item for item in answers.serverless_caches(world) if item["ServerlessCacheName"] == name)
    )


def test_cluster_mode_disabled_has_nodes_with_roles_a_primary_and_a_reader() -> None:
    cache = group(account(), "redis")
    assert cache.engine == "redis"
    assert cache.mode is Mode.CLUSTER_DISABLED
    assert cache.tls is NodeTls.OFF
    assert cache.nodes[0] == Node(
        NodeId("redis-001", "0001"), Endpoint(f"redis-001.{X}.0001.{DOMAIN}", 6379), "us-east-1a", Role.PRIMARY
    )
    assert [(str(node.id), node.role) for node in cache.nodes] == [
        ("redis-001/0001", Role.PRIMARY),
        ("redis-002/0001", Role.REPLICA),
        ("redis-003/0001", Role.REPLICA),
    ]
    assert cache.endpoints == {
        Kind.PRIMARY: Endpoint(f"redis.{X}.ng.0001.{DOMAIN}", 6379),
        Kind.READER: Endpoint(f"redis-ro.{X}.ng.0001.{DOMAIN}", 6379),
    }
    assert cache.is_complete
    assert not cache.is_deleting


def test_cluster_mode_enabled_has_nodes_without_roles_and_a_configuration_endpoint() -> None:
    cache = group(account(), "enabled")
    assert cache.mode is Mode.CLUSTER_ENABLED
    assert cache.tls is NodeTls.REQUIRED
    assert [(str(node.id), node.role) for node in cache.nodes] == [
        ("enabled-0001-001/0001", None),
        ("enabled-0001-002/0001", None),
        ("enabled-0002-001/0001", None),
        ("enabled-0002-002/0001", None),
    ]
    assert cache.nodes[0].endpoint == Endpoint(f"enabled-0001-001.enabled.{X}.{DOMAIN}", 6379)
    assert cache.endpoints == {Kind.CONFIGURATION: Endpoint(f"clustercfg.enabled.{X}.{DOMAIN}", 6379)}
    assert cache.is_complete


def test_cluster_mode_compatible_has_all_endpoints_that_aws_gives() -> None:
    cache = group(account(), "compatible")
    assert (cache.engine, cache.mode, cache.tls) == ("valkey", Mode.CLUSTER_COMPATIBLE, NodeTls.PREFERRED)
    assert list(cache.endpoints) == [Kind.PRIMARY, Kind.READER, Kind.CONFIGURATION]
    assert cache.is_complete


def test_a_standalone_cache_is_one_node() -> None:
    cache = cluster(account(), "standalone")
    assert (cache.engine, cache.mode, cache.endpoints) == ("valkey", Mode.STANDALONE, {})
    assert [str(node.id) for node in cache.nodes] == ["standalone/0001"]
    assert cache.is_complete


def test_memcached_has_numbered_nodes_and_a_configuration_endpoint() -> None:
    cache = cluster(account(), "memo")
    assert (cache.engine, cache.mode) == ("memcached", Mode.MEMCACHED)
    assert [node.id for node in cache.nodes] == [NodeId("memo", name) for name in ("0001", "0002", "0003")]
    assert cache.endpoints == {Kind.CONFIGURATION: Endpoint(f"memo.{X}.cfg.{DOMAIN}", 11211)}
    assert cache.is_complete


def test_serverless_has_no_nodes_one_name_on_two_ports_and_always_tls() -> None:
    cache = serverless(account(), "serverless")
    host = f"serverless-{X}.serverless.{DOMAIN}"
    assert (cache.mode, cache.tls, cache.nodes) == (Mode.SERVERLESS, NodeTls.REQUIRED, ())
    assert cache.endpoints == {Kind.PRIMARY: Endpoint(host, 6379), Kind.READER: Endpoint(host, 6380)}
    assert cache.is_complete


def test_nodes_are_sorted_by_id_however_aws_lists_them() -> None:
    world = account()
    expected = group(world, "enabled"), cluster(world, "memo")
    for seed in range(5):
        world.reorder(seed)
        assert (group(world, "enabled"), cluster(world, "memo")) == expected


def no_primary(shards: list[Raw]) -> list[Raw]:
    return [without(shard, "PrimaryEndpoint", "ReaderEndpoint") for shard in shards]


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({"ClusterMode": MISSING, "ClusterEnabled": True}, Mode.CLUSTER_COMPATIBLE),
        ({"ClusterMode": MISSING, "ClusterEnabled": True, "NodeGroups": no_primary}, Mode.CLUSTER_ENABLED),
        ({"ClusterMode": MISSING, "ClusterEnabled": False}, Mode.CLUSTER_DISABLED),
        ({"ClusterMode": "disabled", "ClusterEnabled": True}, Mode.CLUSTER_DISABLED),
        ({"ClusterMode": "compatible", "ClusterEnabled": False}, Mode.CLUSTER_COMPATIBLE),
        ({"ClusterMode": "enabled", "ClusterEnabled": MISSING}, Mode.CLUSTER_ENABLED),
    ],
)
def test_cluster_mode_is_believed_before_the_older_cluster_enabled(fields: dict[str, Any], mode: Mode) -> None:
    world = account()
    world.patch("group", "compatible", **fields)  # it has endpoints of both kinds
    cache = group(world, "compatible")
    assert cache.mode is mode
    assert cache.is_complete


@pytest.mark.parametrize(("group_id", "mode"), [("redis", Mode.CLUSTER_DISABLED), ("enabled", Mode.CLUSTER_ENABLED)])
def test_a_mode_that_is_not_told_is_guessed_and_in_doubt(group_id: str, mode: Mode) -> None:
    world = account()
    world.patch("group", group_id, ClusterMode=MISSING, ClusterEnabled=MISSING)
    cache = group(world, group_id)
    assert cache.mode is mode
    assert not cache.is_complete


def test_a_cluster_mode_not_known_yet_is_in_doubt() -> None:
    raw = {"ClusterMode": "brand-new", "ClusterEnabled": True}
    cache = group_cache("g", raw, {})
    assert cache.mode is Mode.CLUSTER_ENABLED
    assert not cache.is_complete


@pytest.mark.parametrize(
    ("fields", "tls"),
    [
        ({"TransitEncryptionEnabled": False}, NodeTls.OFF),
        ({"TransitEncryptionEnabled": True}, NodeTls.REQUIRED),
        ({"TransitEncryptionEnabled": True, "TransitEncryptionMode": "required"}, NodeTls.REQUIRED),
        ({"TransitEncryptionEnabled": True, "TransitEncryptionMode": "preferred"}, NodeTls.PREFERRED),
        ({"TransitEncryptionEnabled": MISSING, "TransitEncryptionMode": "preferred"}, NodeTls.PREFERRED),
        ({"TransitEncryptionEnabled": MISSING, "TransitEncryptionMode": "required"}, NodeTls.REQUIRED),
    ],
)
def test_tls_is_as_told(fields: dict[str, Any], tls: NodeTls) -> None:
    world = account()
    world.patch("cluster", "standalone", **fields)
    cache = cluster(world, "standalone")
    assert cache.tls is tls
    assert cache.is_complete


def test_tls_that_a_group_does_not_tell_is_told_by_its_clusters() -> None:
    world = account()
    world.patch("group", "enabled", TransitEncryptionEnabled=MISSING, TransitEncryptionMode=MISSING)
    cache = group(world, "enabled")
    assert cache.tls is NodeTls.REQUIRED
    assert cache.is_complete


def test_tls_that_nobody_tells_is_in_doubt() -> None:
    world = account()
    world.patch("cluster", "standalone", TransitEncryptionEnabled=MISSING)
    cache = cluster(world, "standalone")
    assert cache.tls is NodeTls.OFF
    assert not cache.is_complete


# what AWS leaves out


def test_a_member_without_cache_nodes_keeps_its_place_and_makes_the_group_incomplete() -> None:
    world = account()
    world.partial("missing-nodes", "enabled-0001-002")
    cache = group(world, "enabled")
    assert len(cache.nodes) == 4
    assert cache.nodes[1].endpoint is None
    assert not cache.is_complete


def test_without_cluster_mode_a_member_that_is_not_described_still_has_the_endpoint_its_group_tells() -> None:
    world = account()
    world.partial("missing-cluster", "redis-002")
    cache = group(world, "redis")
    assert cache.nodes[1].endpoint == Endpoint(f"redis-002.{X}.0001.{DOMAIN}", 6379)
    assert cache.nodes[1].role is Role.REPLICA
    assert not cache.is_complete


def test_a_group_whose_clusters_are_all_missing_still_has_its_members() -> None:
    raw = next(item for item in answers.replication_groups(account()) if item["ReplicationGroupId"] == "enabled")
    cache = group_cache("enabled", raw, {})
    assert [node.endpoint for node in cache.nodes] == [None] * 4
    assert not cache.is_complete


def test_a_group_that_does_not_name_its_members_has_those_that_name_it() -> None:
    world = account()
    expected = group(world, "enabled").nodes
    world.partial("missing-members", "enabled")
    world.patch("group", "enabled", MemberClusters=MISSING)
    cache = group(world, "enabled")
    assert cache.nodes == expected
    assert not cache.is_complete


def test_a_node_being_added_has_no_endpoint_yet_and_that_is_no_doubt() -> None:
    world = account()
    world.add_memcached_node("memo", creating=True)
    cache = cluster(world, "memo")
    assert cache.nodes[3] == Node(NodeId("memo", "0004"), None, zone=cache.nodes[3].zone)
    assert cache.is_complete


def test_a_member_being_created_has_no_cache_nodes_yet_and_that_is_no_doubt() -> None:
    world = account()
    world.add_replica("redis", creating=True)
    cache = group(world, "redis")
    assert [str(node.id) for node in cache.nodes][-1] == "redis-004/0001"
    assert cache.is_complete


def test_a_node_in_service_without_an_endpoint_is_in_doubt() -> None:
    world = account()
    world.partial("missing-endpoint", "memo/0002")
    cache = cluster(world, "memo")
    assert cache.nodes[1].endpoint is None
    assert not cache.is_complete


@pytest.mark.parametrize("fields", [{"CacheNodes": MISSING}, {"CacheNodes": []}], ids=["missing", "empty"])
@pytest.mark.parametrize("cluster_id", ["memo", "standalone"])
def test_a_cluster_in_service_without_nodes_is_in_doubt(cluster_id: str, fields: dict[str, Any]) -> None:
    world = account()
    world.patch("cluster", cluster_id, **fields)
    assert not cluster(world, cluster_id).is_complete


def test_fewer_memcached_nodes_than_aws_counts_are_in_doubt() -> None:
    world = account()
    world.patch("cluster", "memo", CacheNodes=lambda nodes: nodes[:2])
    cache = cluster(world, "memo")
    assert len(cache.nodes) == 2
    assert not cache.is_complete


@pytest.mark.parametrize(
    ("group_id", "field"),
    [("redis", "PrimaryEndpoint"), ("redis", "ReaderEndpoint"), ("enabled", "ConfigurationEndpoint")],
)
def test_a_group_without_an_endpoint_that_its_mode_has_is_in_doubt(group_id: str, field: str) -> None:
    world = account()
    if field == "ConfigurationEndpoint":
        world.patch("group", group_id, ConfigurationEndpoint=MISSING)
    else:
        world.patch("group", group_id, NodeGroups=lambda shards: [dict(without(shard, field)) for shard in shards])
    cache = group(world, group_id)
    assert len(cache.nodes) > 2
    assert not cache.is_complete


@pytest.mark.parametrize("field", ["Endpoint", "ReaderEndpoint"])
def test_a_serverless_cache_without_one_of_its_endpoints_is_in_doubt(field: str) -> None:
    world = account()
    world.patch("serverless", "serverless", **{field: MISSING})
    cache = serverless(world, "serverless")
    assert len(cache.endpoints) == 1
    assert not cache.is_complete


def test_an_engine_that_is_not_told_is_seen_by_the_configuration_endpoint() -> None:
    world = account()
    world.patch("cluster", "memo", Engine=MISSING)
    cache = cluster(world, "memo")
    assert (cache.engine, cache.mode, cache.is_complete) == ("", Mode.MEMCACHED, False)


def test_a_group_that_does_not_tell_its_engine_has_that_of_its_clusters() -> None:
    world = account()
    world.patch("group", "compatible", Engine=MISSING)
    assert group(world, "compatible").engine == "valkey"


def test_a_cluster_with_no_field_at_all_is_a_cache_nothing_is_known_of() -> None:
    assert cluster_cache("c", {}) == Cache(
        id="c",
        engine="",
        mode=Mode.STANDALONE,
        tls=NodeTls.OFF,
        nodes=(Node(NodeId("c", "0001"), None),),
        is_complete=False,
    )
    assert not group_cache("g", {}, {}).is_complete
    assert not serverless_cache("s", {}).is_complete


# leaving


def test_a_member_being_deleted_is_flagged_and_leaves_no_doubt() -> None:
    world = account()
    world.remove_node("redis-003")
    cache = group(world, "redis")
    assert [node.is_deleting for node in cache.nodes] == [False, False, True]
    assert cache.is_complete
    assert not cache.is_deleting


def test_a_member_being_deleted_that_its_group_no_longer_names_is_still_flagged() -> None:
    clusters: dict[str, Raw] = {"g-002": {"CacheClusterId": "g-002", "CacheClusterStatus": "deleting"}}
    cache = group_cache("g", {"ReplicationGroupId": "g"}, clusters)
    assert cache.nodes == (Node(NodeId("g-002", "0001"), None, is_deleting=True),)


def test_a_memcached_node_being_deleted_is_flagged() -> None:
    world = account()
    world.remove_node("memo", "0002")
    cache = cluster(world, "memo")
    assert [node.is_deleting for node in cache.nodes] == [False, True, False]
    assert cache.is_complete


@pytest.mark.parametrize("status", ["deleting", "deleted", "DELETING", "Deleted"])
def test_a_cache_being_deleted_is_flagged_whatever_the_case_of_its_status(status: str) -> None:
    world = account()
    world.patch("group", "redis", Status=status)
    world.patch("cluster", "standalone", CacheClusterStatus=status, CacheNodes=MISSING)
    world.patch("cluster", "memo", CacheClusterStatus=status)
    world.patch("serverless", "serverless", Status=status, Endpoint=MISSING, ReaderEndpoint=MISSING)
    for cache in (group(world, "redis"), cluster(world, "standalone"), cluster(world, "memo")):
        assert cache.is_deleting
        assert cache.nodes
        assert all(node.is_deleting for node in cache.nodes)
    assert serverless(world, "serverless").is_deleting


@pytest.mark.parametrize("status", ["available", "AVAILABLE", "modifying", "snapshotting", "rebooting cluster nodes"])
def test_any_other_status_is_not_a_goodbye(status: str) -> None:
    world = account()
    world.patch("group", "redis", Status=status)
    world.patch("serverless", "serverless", Status=status)
    assert not group(world, "redis").is_deleting
    assert not serverless(world, "serverless").is_deleting


# what AWS would never say


def test_two_nodes_with_one_id_are_one() -> None:
    world = account()
    world.patch("cluster", "memo", CacheNodes=lambda nodes: [*nodes, nodes[0]])
    assert len(cluster(world, "memo").nodes) == 3


def test_a_role_not_known_is_none() -> None:
    world = account()
    member = {"CacheClusterId": "redis-001", "CacheNodeId": "0001", "CurrentRole": "emperor"}
    world.patch("group", "redis", NodeGroups=[{"NodeGroupMembers": [member]}])
    assert group(world, "redis").nodes[0].role is None


def test_a_standalone_cache_has_no_configuration_endpoint_even_if_it_is_told() -> None:
    world = account()
    world.patch("cluster", "standalone", ConfigurationEndpoint={"Address": "host", "Port": 6379})
    assert cluster(world, "standalone").endpoints == {}
