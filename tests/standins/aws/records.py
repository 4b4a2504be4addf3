"""What the stand-in's world consists of, as mutable data that only world.py changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

TlsMode = Literal["off", "preferred", "required"]
GroupMode = Literal["cluster-disabled", "cluster-enabled", "cluster-compatible"]
PartialKind = Literal[
    "missing-cluster",
    "missing-nodes",
    "missing-endpoint",
    "missing-group",
    "missing-members",
    "missing-serverless",
    "empty",
]


class WorldError(Exception):
    """The test asked the world for something that cannot be, such as a failover without a replica."""


@dataclass
class NodeRecord:
    """One cache node."""

    id: str
    address: str
    zone: str
    status: str = "available"
    """available | creating | rebooting | deleting."""


@dataclass
class ClusterRecord:
    """One cache cluster: memcached, standalone, or a member of a replication group (which then tells the rest)."""

    id: str
    engine: str
    version: str
    port: int
    created: datetime
    nodes: list[NodeRecord]
    group: str | None = None
    tls: TlsMode = "off"
    has_tls_names: bool = False
    status: str = "available"
    tags: dict[str, str] = field(default_factory=dict)

    def node(self, node_id: str) -> NodeRecord:
        """Return the node of that id, or raise WorldError."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        message = f"{self.id} has no node {node_id}"
        raise WorldError(message)


@dataclass
class ShardRecord:
    """One node group."""

    id: str
    members: list[str]
    """Cluster ids, in the order AWS lists them."""
    primary: str


@dataclass
class GroupRecord:
    """One replication group."""

    id: str
    engine: str
    mode: GroupMode
    port: int
    created: datetime
    shards: list[ShardRecord] = field(default_factory=list)
    tls: TlsMode = "off"
    has_tls_names: bool = False
    """Which names the answers show; DNS has both while ``tls`` is preferred."""
    status: str = "available"
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def members(self) -> list[str]:
        """Cluster ids of all shards."""
        return [member for shard in self.shards for member in shard.members]


@dataclass
class ServerlessRecord:
    """One serverless cache."""

    name: str
    engine: str
    addresses: tuple[str, ...]
    window: int | None
    created: datetime
    port: int = 6379
    reader_port: int = 6380
    status: str = "available"
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EventRecord:
    """One line of DescribeEvents."""

    source: str
    source_type: str
    message: str
    date: datetime
