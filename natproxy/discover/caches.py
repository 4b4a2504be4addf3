"""One structure of an AWS answer -> a Cache that says whether it is complete. Pure.

Every field is optional in practice: while a cluster is created or deleted it has no CacheNodes, a node being added
has no Endpoint, and any answer may leave something out. What is missing and should be there makes the cache
incomplete, so that nothing is concluded from it. Sources: botocore's service model (elasticache 2015-02-02) and the
API pages of AWS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from natproxy.discover.fields import LEAVING, Fields, Raw
from natproxy.model import Cache, Endpoint, Kind, Mode, Node, NodeId, NodeTls, Role

ONLY_NODE = "0001"
"""The CacheNodeId of a Redis or Valkey cluster's one node: AWS documents that it has no other."""

_MODES = {
    "disabled": Mode.CLUSTER_DISABLED,
    "compatible": Mode.CLUSTER_COMPATIBLE,
    "enabled": Mode.CLUSTER_ENABLED,
}
_TLS_MODES = frozenset({NodeTls.PREFERRED, NodeTls.REQUIRED})
_POSSIBLE_ENDPOINTS: Mapping[Mode, frozenset[Kind]] = {
    Mode.CLUSTER_DISABLED: frozenset({Kind.PRIMARY, Kind.READER}),
    Mode.CLUSTER_COMPATIBLE: frozenset({Kind.PRIMARY, Kind.READER, Kind.CONFIGURATION}),
    Mode.CLUSTER_ENABLED: frozenset({Kind.CONFIGURATION}),
    Mode.MEMCACHED: frozenset({Kind.CONFIGURATION}),
    Mode.SERVERLESS: frozenset({Kind.PRIMARY, Kind.READER}),
}
_NEEDED_ENDPOINTS: Mapping[Mode, frozenset[Kind]] = {
    Mode.CLUSTER_DISABLED: frozenset({Kind.PRIMARY, Kind.READER}),
    Mode.CLUSTER_COMPATIBLE: frozenset({Kind.CONFIGURATION}),
    Mode.CLUSTER_ENABLED: frozenset({Kind.CONFIGURATION}),
    Mode.MEMCACHED: frozenset({Kind.CONFIGURATION}),
    Mode.SERVERLESS: frozenset({Kind.PRIMARY}),
}


def group_cache(group_id: str, raw: Raw, clusters: Mapping[str, Raw]) -> Cache:
    """Build a replication group's Cache; ``clusters`` are the described cache clusters that belong to it, by id."""
    doubts: set[str] = set()
    group = Fields(raw, doubts)
    described = {cluster_id: Fields(cluster, doubts) for cluster_id, cluster in clusters.items()}
    mode = _group_mode(group)
    is_deleting = group.word("Status") in LEAVING
    members = _members(group)
    nodes: dict[NodeId, Node] = {}
    for cluster_id in sorted({member.cluster for member in members} | described.keys()):
        cluster = described.get(cluster_id)
        own = {member.node: fields for member, fields in members.items() if member.cluster == cluster_id}
        if cluster is None:
            doubts.add("CacheClusters")
        for node in _member_nodes(cluster_id, cluster, own):
            nodes[node.id] = node
    return Cache(
        id=group_id,
        engine=group.word("Engine") or next(filter(None, (fields.word("Engine") for fields in described.values())), ""),
        mode=mode,
        tls=_tls([group, *described.values()], doubts),
        nodes=_sorted(nodes.values(), all_leave=is_deleting),
        endpoints=_endpoints(mode, _group_endpoints(group), doubts, may_lack=is_deleting),
        is_complete=not doubts,
        is_deleting=is_deleting,
    )


def cluster_cache(cluster_id: str, raw: Raw) -> Cache:
    """Build the Cache of a memcached cluster, or of a Redis or Valkey cluster that is in no replication group."""
    doubts: set[str] = set()
    cluster = Fields(raw, doubts)
    engine, status = cluster.word("Engine"), cluster.word("CacheClusterStatus")
    is_memcached = engine == "memcached" or (not engine and cluster.has("ConfigurationEndpoint"))
    mode = Mode.MEMCACHED if is_memcached else Mode.STANDALONE
    is_deleting = status in LEAVING
    if not engine:
        doubts.add("Engine")
    if is_memcached:
        nodes = _cache_nodes(cluster_id, cluster)
        if not nodes or len(nodes) < (cluster.number("NumCacheNodes") or 0):
            doubts.add("CacheNodes")
    else:
        nodes = _member_nodes(cluster_id, cluster, {})
    told = {Kind.CONFIGURATION: cluster.endpoint("ConfigurationEndpoint")} if is_memcached else {}
    return Cache(
        id=cluster_id,
        engine=engine,
        mode=mode,
        tls=_tls([cluster], doubts),
        nodes=_sorted(nodes, all_leave=is_deleting),
        endpoints=_endpoints(mode, told, doubts, may_lack=is_deleting),
        is_complete=not doubts,
        is_deleting=is_deleting,
    )


def serverless_cache(name: str, raw: Raw) -> Cache:
    """Build a serverless cache's Cache: no nodes, always TLS, one name on two ports."""
    doubts: set[str] = set()
    cache = Fields(raw, doubts)
    is_deleting = cache.word("Status") in LEAVING
    engine = cache.word("Engine")
    told = {Kind.PRIMARY: cache.endpoint("Endpoint"), Kind.READER: cache.endpoint("ReaderEndpoint")}
    if engine != "memcached" and told[Kind.READER] is None and not is_deleting:
        doubts.add("ReaderEndpoint")
    return Cache(
        id=name,
        engine=engine,
        mode=Mode.SERVERLESS,
        tls=NodeTls.REQUIRED,
        nodes=(),
        endpoints=_endpoints(Mode.SERVERLESS, told, doubts, may_lack=is_deleting),
        is_complete=not doubts,
        is_deleting=is_deleting,
    )


def _group_mode(group: Fields) -> Mode:
    """ClusterMode is newer than ClusterEnabled; where it is missing, the endpoints tell more.

    A group has a primary endpoint in the modes disabled and compatible, a configuration endpoint in the other two.
    """
    told = group.word("ClusterMode")
    if told in _MODES:
        return _MODES[told]
    if told:
        group.doubt("ClusterMode")
    is_enabled = group.flag("ClusterEnabled")
    if is_enabled is None:
        group.doubt("ClusterEnabled")
        is_enabled = group.has("ConfigurationEndpoint")
    if not is_enabled:
        return Mode.CLUSTER_DISABLED
    has_primary = any(shard.has("PrimaryEndpoint") for shard in group.structures("NodeGroups"))
    return Mode.CLUSTER_COMPATIBLE if has_primary else Mode.CLUSTER_ENABLED


def _members(group: Fields) -> dict[NodeId, Fields]:
    """Everything the group names as a member, from its NodeGroups and its MemberClusters."""
    members: dict[NodeId, Fields] = {}
    shards = group.structures("NodeGroups")
    if not shards:
        group.doubt("NodeGroups")
    for shard in shards:
        structures = shard.structures("NodeGroupMembers")
        if not structures:
            shard.doubt("NodeGroupMembers")
        for member in structures:
            cluster, node = member.identifier("CacheClusterId"), member.identifier("CacheNodeId")
            if cluster is None or node is None:
                member.doubt("NodeGroupMembers")
            if cluster is not None:
                members.setdefault(NodeId(cluster, node or ONLY_NODE), member)
    named = {member.cluster for member in members}
    for cluster in group.identifiers("MemberClusters"):
        if cluster not in named:
            members[NodeId(cluster, ONLY_NODE)] = Fields({}, group.doubts)
    return members


def _member_nodes(cluster_id: str, cluster: Fields | None, members: Mapping[str, Fields]) -> list[Node]:
    """The nodes of one Redis or Valkey cluster: as described, and as its group names them."""
    described = {node.id.node: node for node in _cache_nodes(cluster_id, cluster)} if cluster is not None else {}
    status = cluster.word("CacheClusterStatus") if cluster is not None else ""
    names = described.keys() | members.keys() or {ONLY_NODE}
    nodes: list[Node] = []
    for name in sorted(names):
        node = described.get(name)
        if node is None:
            node = Node(NodeId(cluster_id, name), endpoint=None, is_deleting=status in LEAVING)
            if cluster is not None and status != "creating" and not node.is_deleting:
                cluster.doubt("CacheNodes")
        nodes.append(_as_member(node, members[name]) if name in members else node)
    return nodes


def _as_member(node: Node, member: Fields) -> Node:
    """Add what the group says of a member: its role (cluster mode disabled only), and what its cluster leaves out."""
    role, told = member.word("CurrentRole"), member.endpoint("ReadEndpoint")
    return Node(
        id=node.id,
        endpoint=node.endpoint or told,
        zone=node.zone or member.text("PreferredAvailabilityZone"),
        role=Role(role) if role in (Role.PRIMARY, Role.REPLICA) else None,
        is_deleting=node.is_deleting,
    )


def _cache_nodes(cluster_id: str, cluster: Fields) -> list[Node]:
    """The nodes in a cluster's CacheNodes; one without an id is in doubt and left out."""
    is_leaving = cluster.word("CacheClusterStatus") in LEAVING
    nodes: dict[NodeId, Node] = {}
    for fields in cluster.structures("CacheNodes"):
        name, endpoint = fields.identifier("CacheNodeId"), fields.endpoint("Endpoint")
        status = fields.word("CacheNodeStatus")
        is_deleting = is_leaving or status in LEAVING
        if endpoint is None and not is_deleting and status != "creating":
            fields.doubt("Endpoint")
        if name is None:
            fields.doubt("CacheNodeId")
            continue
        node_id = NodeId(cluster_id, name)
        zone = fields.text("CustomerAvailabilityZone")
        nodes.setdefault(node_id, Node(node_id, endpoint, zone=zone, is_deleting=is_deleting))
    return list(nodes.values())


def _group_endpoints(group: Fields) -> dict[Kind, Endpoint | None]:
    """What endpoints AWS gives: primary and reader stand in the first NodeGroup that has them."""
    told: dict[Kind, Endpoint | None] = {Kind.CONFIGURATION: group.endpoint("ConfigurationEndpoint")}
    for shard in group.structures("NodeGroups"):
        told[Kind.PRIMARY] = told.get(Kind.PRIMARY) or shard.endpoint("PrimaryEndpoint")
        told[Kind.READER] = told.get(Kind.READER) or shard.endpoint("ReaderEndpoint")
    return told


def _endpoints(
    mode: Mode, told: Mapping[Kind, Endpoint | None], doubts: set[str], *, may_lack: bool
) -> dict[Kind, Endpoint]:
    """Keep what is there and fits the mode, in a fixed order; a missing one that this mode always has is in doubt."""
    possible = _POSSIBLE_ENDPOINTS.get(mode, frozenset())
    endpoints = {kind: endpoint for kind in Kind if kind in possible and (endpoint := told.get(kind)) is not None}
    if not may_lack:
        doubts.update(f"{kind} endpoint" for kind in _NEEDED_ENDPOINTS.get(mode, frozenset()) - endpoints.keys())
    return endpoints


def _tls(structures: list[Fields], doubts: set[str]) -> NodeTls:
    """What the first that says anything says (a group, then its clusters). The mode may be absent even with TLS."""
    flags = [flag for fields in structures if (flag := fields.flag("TransitEncryptionEnabled")) is not None]
    modes = [mode for fields in structures if (mode := fields.word("TransitEncryptionMode")) in _TLS_MODES]
    if not flags and not modes:
        doubts.add("TransitEncryptionEnabled")
    if flags and not flags[0]:
        return NodeTls.OFF
    if modes:
        return NodeTls(modes[0])
    return NodeTls.REQUIRED if flags else NodeTls.OFF


def _sorted(nodes: Iterable[Node], *, all_leave: bool) -> tuple[Node, ...]:
    """Sort by id; where the whole cache leaves, every node of it does."""
    return tuple(
        replace(node, is_deleting=node.is_deleting or all_leave) for node in sorted(nodes, key=lambda node: node.id)
    )
