"""Clusters and caches behind natproxy, in front of which replies are compared. I/O: processes, TCP, TLS, files."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest
from redis.crc import key_slot

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import connect
from tests.scenarios.resptalk import RespTalk, fields_of
from tests.scenarios.tlspeers import Papers, prepare_tls, secure
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

Side = Literal["clear", "tls"]

both_protocols = pytest.mark.parametrize("protocol", [2, 3], ids=["resp2", "resp3"])


@dataclass(frozen=True)
class Front:
    """One daemon before the caches of a cloud, and how its clients speak with it."""

    cloud: Cloud
    daemon: Daemon
    papers: Papers | None = None
    """None: clients speak in the clear."""
    _contexts: list[ssl.SSLContext] = field(default_factory=list)

    @property
    def ip(self) -> str:
        """Where it is dialled."""
        return self.daemon.ip

    @property
    def context(self) -> ssl.SSLContext | None:
        """A client's TLS context."""
        if self.papers is not None and not self._contexts:
            self._contexts.append(self.papers.client(self.papers.dev))
        return self._contexts[0] if self._contexts else None

    def dial(self, port: int, protocol: int = 2) -> RespTalk:
        """Connect to one of its ports as a client does."""
        if (context := self.context) is None:
            return RespTalk(connect(self.ip, port), protocol)
        return RespTalk(secure(self.ip, port, context), protocol)

    def port(self, name: str) -> int:
        """Return the port of a route that is open."""
        return self.daemon.wait_for_route(name)

    def node_port(self, cluster_id: str) -> int:
        """Return the port of a node."""
        return self.port(f"{cluster_id}/0001")

    def ports_by_id(self, group_id: str) -> dict[str, int]:
        """Return the port of each node of a real cluster, by the id that nodes call it by."""
        members = self.cloud.world.group(group_id).members
        return {self.cloud.cluster_node(member).id: self.node_port(member) for member in members}

    def shown(self, group_id: str, host: str = "", ip: str = "") -> Shown:
        """Return what its clients are shown where it has no ``public_host``, or that one (a name) and ``public_ip``."""
        ports = self.ports_by_id(group_id)
        return Shown(host or self.ip, ports, ip or host or self.ip, host, self.papers is not None)


def direct(cloud: Cloud, cluster_id: str, protocol: int = 2) -> RespTalk:
    """Connect to a node itself."""
    ip, port = cloud.where(cluster_id)
    if cloud.world.group(cloud.world.cluster(cluster_id).group or "").tls == "off":
        return RespTalk(connect(ip, port), protocol)
    context = ssl.create_default_context(cadata=cloud.authority.pem.decode())
    return RespTalk(secure(ip, port, context, name=cloud.world.node_host(cluster_id)), protocol)


def start_front(natproxies: Natproxies, cloud: Cloud, side: Side = "clear", **config: Any) -> Front:
    """Start a daemon that has heard of the cloud's caches, whose nodes it trusts."""
    if side == "clear":
        daemon, papers = natproxies.prepare(cloud, **config), None
    else:
        daemon, papers = prepare_tls(natproxies, cloud, **config)
    authority = daemon.path.parent / "amazon.crt"
    authority.write_bytes(cloud.authority.pem)
    daemon.config["nodes"] = {"ca": str(authority), **daemon.config.get("nodes", {})}
    daemon.start()
    if daemon.config.get("caches"):
        eventually(lambda: daemon.get("/readyz")[0] == 200, "AWS has answered")
        for name in daemon.routes():
            daemon.wait_for_route(name)  # nobody is told of nodes whose names have not been resolved
    return Front(cloud, daemon, papers)


def private_words(cloud: Cloud) -> list[bytes]:
    """Return what no client is ever to be told: every address, and what every host name ends in."""
    return [address.encode() for _, _, address, _ in cloud.world.nodes()] + [b".amazonaws.com"]


def key_in(cloud: Cloud, group: str, shard: str) -> tuple[str, int]:
    """Return a key that belongs to a shard, and its slot."""
    owner = cloud.cluster_node(f"{group}-{shard}-001")
    owned = owner.view()[owner.id].slots
    return next((key, slot) for number in range(1000) if (slot := key_slot((key := f"key-{number}").encode())) in owned)


# What a cluster's replies are, and what they are to become.


class Shown(NamedTuple):
    """What clients are shown in place of a cluster's own addresses."""

    host: str
    ports: Mapping[str, int]
    """By the id of a node."""
    ip: str
    """Where a reply has an address beside a name."""
    name: str = ""
    """Where a reply has a name beside an address; empty = none is shown."""
    speaks_tls: bool = False

    def names(self, names: Iterable[str]) -> dict[str, str]:
        """Return what is shown for those that the node tells of these: endpoint, ip, hostname."""
        told = {"endpoint": self.host, "ip": self.ip, "hostname": self.name}
        return {name: told[name] for name in names if told[name]}


def told_slots(shown: Shown, value: Any) -> Any:
    """Return what clients are to read where a node answers ``value`` to CLUSTER SLOTS."""
    return [
        [*row[:2], *([shown.host, shown.ports[node[2]], node[2], shown.names(node[3])] for node in row[2:])]
        for row in plain_slots(value)
    ]


def plain_slots(value: Any) -> Any:
    """Return it without the differences between the protocols, as the others do."""
    return [[*row[:2], *([*node[:3], fields_of(node[3])] for node in row[2:])] for row in value]


def told_shards(shown: Shown, value: Any) -> Any:
    """Return the same for CLUSTER SHARDS."""
    return [{**shard, "nodes": [_shards_node(shown, node) for node in shard["nodes"]]} for shard in plain_shards(value)]


def _shards_node(shown: Shown, node: dict[str, Any]) -> dict[str, Any]:
    port = {"tls-port" if shown.speaks_tls else "port": shown.ports[node["id"]]}
    names = shown.names(node.keys() & {"endpoint", "ip", "hostname"})
    return {key: value for key, value in node.items() if key in _TOLD_OF_ALL} | port | names


_TOLD_OF_ALL = ("id", "role", "replication-offset", "health")


def plain_shards(value: Any) -> Any:
    """All but how far each node has come."""
    shards = map(fields_of, value)
    nodes = [(shard["slots"], [fields_of(node) for node in shard["nodes"]]) for shard in shards]
    return [{"slots": slots, "nodes": [node | {"replication-offset": 0} for node in found]} for slots, found in nodes]


def told_nodes(shown: Shown, value: Any) -> Any:
    """Return the same for CLUSTER NODES and REPLICAS, by the ids of nodes."""
    told = {}
    for node_id, (address, *rest) in plain_nodes(value).items():
        has_name = bool(shown.name and address.partition(",")[2])
        told[node_id] = f"{shown.host}:{shown.ports[node_id]}@1122{f',{shown.name}' * has_name}", *rest
    return told


def plain_nodes(value: Any) -> Any:
    """Of each row all but when its node was last heard of."""
    rows = [row.split(" ") for row in (value.splitlines() if isinstance(value, str) else value)]
    return {row[0]: (row[1], row[2], row[3], *row[6:]) for row in rows}


TOPOLOGY: Mapping[str, tuple[Callable[[Shown, Any], Any], Callable[[Any], Any]]] = {
    "SLOTS": (told_slots, plain_slots),
    "SHARDS": (told_shards, plain_shards),
    "NODES": (told_nodes, plain_nodes),
    "REPLICAS": (told_nodes, plain_nodes),
    "SLAVES": (told_nodes, plain_nodes),
}
"""Each subcommand of CLUSTER that tells of nodes: what is to be told, and what is compared."""


def topology_words(cloud: Cloud, group: str, name: str) -> tuple[str, ...]:
    """Return the whole command; REPLICAS are those of the second shard."""
    if name in ("REPLICAS", "SLAVES"):
        return "CLUSTER", name, cloud.cluster_node(f"{group}-0002-001").id
    return "CLUSTER", name
