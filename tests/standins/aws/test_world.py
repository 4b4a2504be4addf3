"""What happens to caches, as the answers and the names show it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.standins.aws import MISSING, AwsWorld, WorldError
from tests.standins.aws.answers import cache_clusters, events, replication_groups, serverless_caches
from tests.standins.aws.records import TlsMode

SUFFIX = "use1.cache.amazonaws.com"


def cluster(world: AwsWorld, cluster_id: str) -> dict[str, Any] | None:
    """Describe one cluster; None where it is not listed."""
    return next((c for c in cache_clusters(world, show_nodes=True) if c["CacheClusterId"] == cluster_id), None)


def group(world: AwsWorld, group_id: str = "my-redis") -> dict[str, Any]:
    return next(g for g in replication_groups(world) if g["ReplicationGroupId"] == group_id)


def members(world: AwsWorld, group_id: str = "my-redis") -> dict[str, str | None]:
    """Return the members' roles by cluster id, in the order they are listed."""
    shards = group(world, group_id)["NodeGroups"]
    return {member["CacheClusterId"]: member.get("CurrentRole") for s in shards for member in s["NodeGroupMembers"]}


def statuses(world: AwsWorld) -> dict[object, object]:
    return {c["CacheClusterId"]: c["CacheClusterStatus"] for c in cache_clusters(world, show_nodes=True)}


@pytest.fixture
def world() -> AwsWorld:
    made = AwsWorld()
    made.add_replication_group("my-redis", replicas=2)
    return made


def test_a_group_without_cluster_mode_has_a_primary_two_replicas_and_names_without_tls(world: AwsWorld) -> None:
    shard = group(world)["NodeGroups"][0]
    assert members(world) == {"my-redis-001": "primary", "my-redis-002": "replica", "my-redis-003": "replica"}
    assert shard["PrimaryEndpoint"] == {"Address": f"my-redis.x7f3k.ng.0001.{SUFFIX}", "Port": 6379}
    assert shard["ReaderEndpoint"]["Address"] == f"my-redis-ro.x7f3k.ng.0001.{SUFFIX}"
    assert shard["NodeGroupMembers"][1]["ReadEndpoint"]["Address"] == f"my-redis-002.x7f3k.0001.{SUFFIX}"
    assert "ConfigurationEndpoint" not in group(world)
    assert world.zone.addresses(f"my-redis-002.x7f3k.0001.{SUFFIX}") == ("10.0.1.231",)
    assert world.zone.addresses(f"my-redis.x7f3k.ng.0001.{SUFFIX}") == ("10.0.1.230",)
    assert world.zone.addresses(f"my-redis-ro.x7f3k.ng.0001.{SUFFIX}") == ("10.0.1.231", "10.0.1.232")


def test_a_group_in_cluster_mode_tells_neither_roles_nor_endpoints_of_its_members() -> None:
    world = AwsWorld()
    world.add_replication_group("cme", mode="cluster-enabled", shards=2, replicas=1, tls="required")
    told = group(world, "cme")
    assert told["ConfigurationEndpoint"]["Address"] == f"clustercfg.cme.x7f3k.{SUFFIX}"
    assert [shard["Slots"] for shard in told["NodeGroups"]] == ["0-8191", "8192-16383"]
    for shard in told["NodeGroups"]:
        assert "PrimaryEndpoint" not in shard
        for member in shard["NodeGroupMembers"]:
            assert set(member) == {"CacheClusterId", "CacheNodeId", "PreferredAvailabilityZone"}
    described = cluster(world, "cme-0002-001")
    assert described is not None
    assert described["CacheNodes"][0]["Endpoint"]["Address"] == f"cme-0002-001.cme.x7f3k.{SUFFIX}"
    assert len(world.zone.addresses(f"clustercfg.cme.x7f3k.{SUFFIX}")) == 4


def test_a_compatible_group_has_every_kind_of_endpoint() -> None:
    world = AwsWorld()
    world.add_replication_group("both", mode="cluster-compatible")
    told = group(world, "both")
    assert (told["ClusterMode"], told["ClusterEnabled"]) == ("compatible", True)
    assert {"PrimaryEndpoint", "ReaderEndpoint", "Slots"} <= set(told["NodeGroups"][0])
    assert "ConfigurationEndpoint" in told


def test_memcached_standalone_and_serverless_have_their_own_shapes() -> None:
    world = AwsWorld()
    world.add_memcached("mc", nodes=2)
    world.add_standalone("alone", engine="valkey", tls="required")
    world.add_serverless("less")
    memcached, alone = cluster(world, "mc"), cluster(world, "alone")
    assert memcached is not None
    assert alone is not None
    assert [node["CacheNodeId"] for node in memcached["CacheNodes"]] == ["0001", "0002"]
    assert ".cfg." in memcached["ConfigurationEndpoint"]["Address"]
    assert "ReplicationGroupId" not in memcached
    assert "ReplicationGroupId" not in alone
    assert (alone["Engine"], alone["TransitEncryptionMode"]) == ("valkey", "required")
    [less] = serverless_caches(world)
    assert less["Endpoint"] == {"Address": f"less-x7f3k.serverless.{SUFFIX}", "Port": 6379}
    assert less["ReaderEndpoint"] == {"Address": f"less-x7f3k.serverless.{SUFFIX}", "Port": 6380}
    assert len(world.zone.answer(f"less-x7f3k.serverless.{SUFFIX}", "A") or ()) == 2
    assert len(world.zone.addresses(f"less-x7f3k.serverless.{SUFFIX}")) == 3


def test_a_failover_swaps_roles_and_moves_the_primarys_name_but_no_nodes_name(world: AwsWorld) -> None:
    nodes = {name: world.zone.addresses(name) for name in world.zone.names() if ".0001." in name and ".ng." not in name}
    assert world.failover("my-redis") == "my-redis-002"
    assert members(world) == {"my-redis-001": "replica", "my-redis-002": "primary", "my-redis-003": "replica"}
    assert world.zone.addresses(f"my-redis.x7f3k.ng.0001.{SUFFIX}") == ("10.0.1.231",)
    assert world.zone.addresses(f"my-redis-ro.x7f3k.ng.0001.{SUFFIX}") == ("10.0.1.230", "10.0.1.232")
    assert {name: world.zone.addresses(name) for name in nodes} == nodes
    messages = [e["Message"] for e in events(world, source_type=None, source="my-redis", minutes=60)]
    assert messages[0] == "Failover from primary node my-redis-001 to replica node my-redis-002 completed"


def test_a_failover_needs_a_replica() -> None:
    world = AwsWorld()
    world.add_replication_group("lone", replicas=0)
    with pytest.raises(WorldError, match="no replica"):
        world.failover("lone")
    assert world.zone.addresses(f"lone-ro.x7f3k.ng.0001.{SUFFIX}") == ("10.0.1.230",), "the reader leads to the primary"


@pytest.mark.parametrize("address", [None, "10.0.1.231"])
def test_a_replacement_keeps_id_and_name(world: AwsWorld, address: str | None) -> None:
    before, name = cluster(world, "my-redis-002"), world.node_host("my-redis-002")
    now = world.replace_node("my-redis-002", address=address)
    assert now == (address or "10.0.1.233")
    assert cluster(world, "my-redis-002") == before
    assert world.zone.addresses(name) == (now,)


def test_a_new_member_shows_no_nodes_until_it_is_there(world: AwsWorld) -> None:
    added = world.add_replica("my-redis", creating=True)
    described = cluster(world, added.id)
    assert described is not None
    assert described["CacheClusterStatus"] == "creating"
    assert "CacheNodes" not in described
    assert group(world)["Status"] == "modifying"
    assert "ReadEndpoint" not in group(world)["NodeGroups"][0]["NodeGroupMembers"][3]
    world.settle()
    described = cluster(world, added.id)
    assert described is not None
    assert described["CacheNodes"][0]["CacheNodeStatus"] == "available"


def test_a_new_memcached_node_has_no_endpoint_until_it_is_there() -> None:
    world = AwsWorld()
    world.add_memcached("mc", nodes=1)
    world.add_memcached_node("mc", creating=True)
    described = cluster(world, "mc")
    assert described is not None
    assert ["Endpoint" in node for node in described["CacheNodes"]] == [True, False]
    world.settle()
    described = cluster(world, "mc")
    assert described is not None
    assert ["Endpoint" in node for node in described["CacheNodes"]] == [True, True]


def test_a_removed_replica_is_deleting_first_and_then_gone(world: AwsWorld) -> None:
    name = world.node_host("my-redis-003")
    world.remove_node("my-redis-003")
    described = cluster(world, "my-redis-003")
    assert described is not None
    assert described["CacheClusterStatus"] == "deleting"
    assert "CacheNodes" not in described
    assert world.zone.addresses(name) == ("10.0.1.232",)
    world.settle()
    assert cluster(world, "my-redis-003") is None
    assert list(members(world)) == ["my-redis-001", "my-redis-002"]
    assert world.zone.record(name) is None


def test_a_removed_memcached_node_is_deleting_first_and_its_number_is_used_again() -> None:
    world = AwsWorld()
    world.add_memcached("mc", nodes=3)
    world.remove_node("mc", "0002")
    described = cluster(world, "mc")
    assert described is not None
    assert [node["CacheNodeStatus"] for node in described["CacheNodes"]] == ["available", "deleting", "available"]
    world.settle()
    described = cluster(world, "mc")
    assert described is not None
    assert [node["CacheNodeId"] for node in described["CacheNodes"]] == ["0001", "0003"]
    assert world.add_memcached_node("mc").id == "0002"


def test_a_primary_is_not_removed(world: AwsWorld) -> None:
    with pytest.raises(WorldError, match="fail over first"):
        world.remove_node("my-redis-001")


def test_shards_come_and_go() -> None:
    world = AwsWorld()
    world.add_replication_group("cme", mode="cluster-enabled", shards=2, replicas=0)
    assert world.add_shard("cme", replicas=1).members == ["cme-0003-001", "cme-0003-002"]
    assert [shard["NodeGroupId"] for shard in group(world, "cme")["NodeGroups"]] == ["0001", "0002", "0003"]
    world.remove_shard("cme", 0)
    assert statuses(world)["cme-0001-001"] == "deleting"
    world.settle()
    assert list(members(world, "cme")) == ["cme-0002-001", "cme-0003-001", "cme-0003-002"]


@pytest.mark.parametrize("cache_id", ["my-redis", "mc", "less"])
def test_a_deleted_cache_is_deleting_first_and_then_gone_with_its_names(world: AwsWorld, cache_id: str) -> None:
    world.add_memcached("mc")
    world.add_serverless("less")

    def listed() -> dict[object, object]:
        groups = {g["ReplicationGroupId"]: g["Status"] for g in replication_groups(world)}
        less = {s["ServerlessCacheName"]: s["Status"] for s in serverless_caches(world)}
        return {**groups, **less, **statuses(world)}

    world.delete_cache(cache_id)
    assert listed()[cache_id] == "deleting"
    world.settle()
    assert cache_id not in listed()
    assert not [name for name in world.zone.names() if cache_id in name]


def test_a_tls_migration_adds_the_new_names_and_then_takes_the_old_ones(world: AwsWorld) -> None:
    old, new = f"my-redis-001.x7f3k.0001.{SUFFIX}", f"my-redis-001.my-redis.x7f3k.{SUFFIX}"

    def state() -> tuple[object, ...]:
        described = cluster(world, "my-redis-001")
        assert described is not None
        host = described["CacheNodes"][0]["Endpoint"]["Address"]
        mode = described.get("TransitEncryptionMode")
        return described["TransitEncryptionEnabled"], mode, host, world.zone.addresses(old), world.zone.addresses(new)

    there = ("10.0.1.230",)
    assert state() == (False, None, old, there, ())
    world.tls_migration("my-redis", "preferred", show_tls_names=False)
    assert state() == (True, "preferred", old, there, there)
    world.tls_migration("my-redis", "preferred")
    assert state() == (True, "preferred", new, there, there)
    world.tls_migration("my-redis", "required")
    assert state() == (True, "required", new, (), there)
    assert world.zone.addresses(f"master.my-redis.x7f3k.{SUFFIX}") == there


@pytest.mark.parametrize(("start", "to"), [("off", "required"), ("required", "off")])
def test_a_tls_migration_goes_by_way_of_preferred(start: TlsMode, to: TlsMode) -> None:
    world = AwsWorld()
    world.add_standalone("alone", tls=start)
    with pytest.raises(WorldError, match="preferred"):
        world.tls_migration("alone", to)


def test_answers_can_leave_things_out_and_be_whole_again(world: AwsWorld) -> None:
    whole = (cache_clusters(world, show_nodes=True), replication_groups(world))
    world.partial("missing-cluster", "my-redis-001")
    world.partial("missing-nodes", "my-redis-002")
    world.partial("missing-endpoint", "my-redis-003/0001")
    world.partial("missing-members", "my-redis")
    assert cluster(world, "my-redis-001") is None
    second, third = cluster(world, "my-redis-002"), cluster(world, "my-redis-003")
    assert second is not None
    assert third is not None
    assert "CacheNodes" not in second
    assert "Endpoint" not in third["CacheNodes"][0]
    assert "NodeGroupMembers" not in group(world)["NodeGroups"][0]
    world.partial("missing-group", "my-redis")
    assert replication_groups(world) == []
    world.whole()
    assert (cache_clusters(world, show_nodes=True), replication_groups(world)) == whole


def test_a_patch_overwrites_or_drops_fields(world: AwsWorld) -> None:
    world.patch("cluster", "my-redis-001", Engine=MISSING, EngineVersion="9.9")
    world.patch("node", "my-redis-001/0001", CacheNodeStatus="rebooting")
    world.patch("group", "my-redis", MemberClusters=lambda old: old[:1])
    described = cluster(world, "my-redis-001")
    assert described is not None
    assert "Engine" not in described
    assert described["EngineVersion"] == "9.9"
    assert described["CacheNodes"][0]["CacheNodeStatus"] == "rebooting"
    assert group(world)["MemberClusters"] == ["my-redis-001"]


def test_listings_can_change_their_order_but_not_their_content(world: AwsWorld) -> None:
    world.add_memcached("mc")
    before = [str(c["CacheClusterId"]) for c in cache_clusters(world, show_nodes=False)]
    world.reorder(3)
    after = [str(c["CacheClusterId"]) for c in cache_clusters(world, show_nodes=False)]
    assert after != before
    assert sorted(after) == sorted(before)


@pytest.mark.parametrize("name", ["My-Redis", "1st", "a--b", "a_b", "", "my-redis"])
def test_names_that_aws_would_not_take_are_refused(world: AwsWorld, name: str) -> None:
    with pytest.raises(WorldError):
        world.add_memcached(name)


def test_addresses_can_be_given() -> None:
    world = AwsWorld(addresses=["10.9.9.9"])
    world.add_replication_group("given", replicas=2, addresses=["10.0.1.7", "10.0.1.8"])
    assert [address for _, _, address, _ in world.nodes()] == ["10.0.1.7", "10.0.1.8", "10.9.9.9"]
