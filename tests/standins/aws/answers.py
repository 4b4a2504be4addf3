"""The world as AWS describes it: botocore-shaped dicts, whole or with the parts left out that AWS leaves out. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.standins.aws.network import CACHE_GROUP
from tests.standins.aws.records import ClusterRecord, GroupRecord, NodeRecord, ServerlessRecord, ShardRecord
from tests.standins.aws.world import AwsWorld

Answer = dict[str, object]

SLOTS = 16384
SUBNETS = ["subnet-0a1b2c3d4e5f60701", "subnet-0a1b2c3d4e5f60702"]


def cache_clusters(world: AwsWorld, *, show_nodes: bool, only_loose: bool = False) -> list[Answer]:
    """DescribeCacheClusters: memcached, standalone, and (unless ``only_loose``) every member of every group."""
    return [
        _cluster(world, cluster, show_nodes=show_nodes)
        for cluster in world.ordered(world.clusters.values())
        if not world.is_partial("missing-cluster", cluster.id) and not (only_loose and cluster.group)
    ]


def replication_groups(world: AwsWorld) -> list[Answer]:
    """DescribeReplicationGroups."""
    return [
        _group(world, group)
        for group in world.ordered(world.groups.values())
        if not world.is_partial("missing-group", group.id)
    ]


def serverless_caches(world: AwsWorld) -> list[Answer]:
    """DescribeServerlessCaches."""
    return [
        _serverless(world, cache)
        for cache in world.ordered(world.serverless.values())
        if not world.is_partial("missing-serverless", cache.name)
    ]


def events(world: AwsWorld, *, source_type: str | None, source: str | None, minutes: int) -> list[Answer]:
    """DescribeEvents: the window's events, newest first."""
    oldest = datetime.fromtimestamp(world.now(), UTC) - timedelta(minutes=minutes)
    return [
        {
            "SourceIdentifier": event.source,
            "SourceType": event.source_type,
            "Message": event.message,
            "Date": event.date,
        }
        for event in reversed(world.events)
        if event.date >= oldest and source_type in (None, event.source_type) and source in (None, event.source)
    ]


def tag_list(world: AwsWorld, arn: str) -> list[Answer] | None:
    """ListTagsForResource; None where nothing has this ARN. A group's tags hold for its members too."""
    kind, _, cache_id = arn.removeprefix(world.arn("", "")[:-1]).partition(":")
    tags: dict[str, str] | None = None
    if kind == "replicationgroup" and cache_id in world.groups:
        tags = world.groups[cache_id].tags
    elif kind == "serverlesscache" and cache_id in world.serverless:
        tags = world.serverless[cache_id].tags
    elif kind == "cluster" and cache_id in world.clusters:
        cluster = world.clusters[cache_id]
        tags = cluster.tags if cluster.group is None else world.groups[cluster.group].tags
    return None if tags is None else [{"Key": key, "Value": value} for key, value in tags.items()]


def _endpoint(host: str, port: int) -> Answer:
    return {"Address": host, "Port": port}


def _cluster(world: AwsWorld, cluster: ClusterRecord, *, show_nodes: bool) -> Answer:
    group = world.groups.get(cluster.group) if cluster.group is not None else None
    tls = group.tls if group is not None else cluster.tls
    answer: Answer = {
        "CacheClusterId": cluster.id,
        "CacheNodeType": "cache.t4g.micro",
        "Engine": cluster.engine,
        "EngineVersion": cluster.version,
        "CacheClusterStatus": cluster.status,
        "NumCacheNodes": len(cluster.nodes),
        "PreferredAvailabilityZone": cluster.nodes[0].zone if len(cluster.nodes) == 1 else "Multiple",
        "CacheClusterCreateTime": cluster.created,
        "PendingModifiedValues": {},
        "CacheSecurityGroups": [],
        "CacheSubnetGroupName": "caches",
        "AutoMinorVersionUpgrade": True,
        "SecurityGroups": [{"SecurityGroupId": CACHE_GROUP, "Status": "active"}],
        "AuthTokenEnabled": False,
        "TransitEncryptionEnabled": tls != "off",
        "AtRestEncryptionEnabled": False,
        "ARN": world.arn("cluster", cluster.id),
        "NetworkType": "ipv4",
        "IpDiscovery": "ipv4",
    }
    if tls != "off":
        answer["TransitEncryptionMode"] = tls
    if cluster.group is not None:
        answer["ReplicationGroupId"] = cluster.group
    has_nodes = cluster.status not in ("creating", "deleting") and not world.is_partial("missing-nodes", cluster.id)
    if cluster.engine == "memcached" and cluster.status != "creating":
        host = world.cluster_names(cluster).memcached_configuration()
        answer["ConfigurationEndpoint"] = _endpoint(host, cluster.port)
    if show_nodes and has_nodes:
        answer["CacheNodes"] = [_node(world, cluster, node) for node in world.ordered(cluster.nodes)]
    return world.patched("cluster", cluster.id, answer)


def _node(world: AwsWorld, cluster: ClusterRecord, node: NodeRecord) -> Answer:
    answer: Answer = {
        "CacheNodeId": node.id,
        "CacheNodeStatus": node.status,
        "CacheNodeCreateTime": cluster.created,
        "ParameterGroupStatus": "in-sync",
        "CustomerAvailabilityZone": node.zone,
    }
    name = f"{cluster.id}/{node.id}"
    if node.status != "creating" and not world.is_partial("missing-endpoint", name):
        answer["Endpoint"] = _endpoint(world.node_host(cluster.id, node.id), cluster.port)
    return world.patched("node", name, answer)


def _group(world: AwsWorld, group: GroupRecord) -> Answer:
    names = world.group_names(group)
    answer: Answer = {
        "ReplicationGroupId": group.id,
        "Description": " ",
        "GlobalReplicationGroupInfo": {},
        "Status": group.status,
        "PendingModifiedValues": {},
        "MemberClusters": world.ordered(group.members),
        "NodeGroups": [_shard(world, group, shard, number) for number, shard in world.ordered(enumerate(group.shards))],
        "AutomaticFailover": "enabled",
        "MultiAZ": "enabled",
        "SnapshotRetentionLimit": 0,
        "SnapshotWindow": "02:30-03:30",
        "ClusterEnabled": group.mode != "cluster-disabled",
        "ClusterMode": group.mode.removeprefix("cluster-"),
        "CacheNodeType": "cache.t4g.micro",
        "AuthTokenEnabled": False,
        "TransitEncryptionEnabled": group.tls != "off",
        "AtRestEncryptionEnabled": False,
        "ARN": world.arn("replicationgroup", group.id),
        "ReplicationGroupCreateTime": group.created,
        "AutoMinorVersionUpgrade": True,
        "NetworkType": "ipv4",
        "IpDiscovery": "ipv4",
        "Engine": group.engine,
    }
    if group.tls != "off":
        answer["TransitEncryptionMode"] = group.tls
    if group.mode != "cluster-disabled":
        answer["ConfigurationEndpoint"] = _endpoint(names.configuration(), group.port)
    return world.patched("group", group.id, answer)


def _shard(world: AwsWorld, group: GroupRecord, shard: ShardRecord, number: int) -> Answer:
    names = world.group_names(group)
    answer: Answer = {"NodeGroupId": shard.id, "Status": "available" if group.status == "available" else "modifying"}
    if group.mode != "cluster-enabled":
        answer["PrimaryEndpoint"] = _endpoint(names.primary(), group.port)
        answer["ReaderEndpoint"] = _endpoint(names.reader(), group.port)
    if group.mode != "cluster-disabled":
        count = len(group.shards)
        first, last = SLOTS * number // count, SLOTS * (number + 1) // count - 1
        answer["Slots"] = f"{first}-{last}"
    if not world.is_partial("missing-members", group.id):
        answer["NodeGroupMembers"] = [_member(world, group, shard, member) for member in world.ordered(shard.members)]
    return answer


def _member(world: AwsWorld, group: GroupRecord, shard: ShardRecord, member: str) -> Answer:
    """Describe one member; with cluster mode neither its endpoint nor its role is told."""
    cluster = world.cluster(member)
    answer: Answer = {
        "CacheClusterId": member,
        "CacheNodeId": "0001",
        "PreferredAvailabilityZone": cluster.nodes[0].zone,
    }
    if group.mode == "cluster-disabled":
        if cluster.status not in ("creating", "deleting"):
            answer["ReadEndpoint"] = _endpoint(world.group_names(group).member(member), group.port)
        answer["CurrentRole"] = "primary" if member == shard.primary else "replica"
    return answer


def _serverless(world: AwsWorld, cache: ServerlessRecord) -> Answer:
    host = world.serverless_host(cache.name)
    answer: Answer = {
        "ServerlessCacheName": cache.name,
        "Description": " ",
        "CreateTime": cache.created,
        "Status": cache.status.upper() if cache.status == "available" else cache.status,
        "Engine": cache.engine,
        "MajorEngineVersion": "8",
        "FullEngineVersion": "8.1",
        "SecurityGroupIds": [CACHE_GROUP],
        "ARN": world.arn("serverlesscache", cache.name),
        "SubnetIds": SUBNETS,
        "SnapshotRetentionLimit": 0,
        "NetworkType": "ipv4",
    }
    if cache.status != "creating":
        answer["Endpoint"] = _endpoint(host, cache.port)
        answer["ReaderEndpoint"] = _endpoint(host, cache.reader_port)
    return world.patched("serverless", cache.name, answer)
