"""Configs, caches and routes in one line each, for the tests of natproxy.plan."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from natproxy.config import Config, load_config
from natproxy.model import (
    Cache,
    Endpoint,
    Kind,
    Mode,
    Node,
    NodeId,
    NodeTls,
    PortMap,
    Role,
    Route,
    RouteKey,
    Snapshot,
)
from natproxy.plan.addresses import Addresses

GUIDE = """
clients: {allow: [198.51.100.27/32]}
caches:
  - {id: my-redis, ports: 6379-6388}
"""

SUFFIX = "x.euw1.cache.amazonaws.com"


@functools.cache
def config(text: str = GUIDE) -> Config:
    """Load a config from its text, as the daemon would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(text)
        return load_config(path)


def host(name: str) -> str:
    return f"{name}.{SUFFIX}"


def node(cluster: str, number: str = "0001", **facts: Any) -> Node:
    """A node whose host is named after it; ``endpoint=None`` for one that is being created."""
    node_id = NodeId(cluster, number)
    return Node(node_id, **{"endpoint": Endpoint(host(f"{cluster}.{number}"), 6379), **facts})


def redis(cache_id: str = "my-redis", clusters: Iterable[str] = ("-001", "-002", "-003"), **facts: Any) -> Cache:
    """A replication group with cluster mode disabled: the first node is the primary."""
    names = [cache_id + name if name.startswith("-") else name for name in clusters]
    roles = {name: Role.PRIMARY if name == names[0] else Role.REPLICA for name in names}
    given = {
        "engine": "redis",
        "mode": Mode.CLUSTER_DISABLED,
        "tls": NodeTls.OFF,
        "nodes": tuple(node(name, role=roles[name]) for name in names),
        "endpoints": {
            Kind.PRIMARY: Endpoint(host(f"{cache_id}-master"), 6379),
            Kind.READER: Endpoint(host(f"{cache_id}-ro"), 6379),
        },
    }
    return Cache(cache_id, **{**given, **facts})


def memcached(cache_id: str = "my-memcached", count: int = 3, **facts: Any) -> Cache:
    given = {
        "engine": "memcached",
        "mode": Mode.MEMCACHED,
        "tls": NodeTls.OFF,
        "nodes": tuple(node(cache_id, f"{n:04}") for n in range(1, count + 1)),
        "endpoints": {Kind.CONFIGURATION: Endpoint(host(f"{cache_id}.cfg"), 11211)},
    }
    return Cache(cache_id, **{**given, **facts})


def serverless(cache_id: str = "my-serverless", **facts: Any) -> Cache:
    given = {
        "engine": "valkey",
        "mode": Mode.SERVERLESS,
        "tls": NodeTls.REQUIRED,
        "nodes": (),
        "endpoints": {
            Kind.PRIMARY: Endpoint(host(f"{cache_id}.serverless"), 6379),
            Kind.READER: Endpoint(host(f"{cache_id}.serverless"), 6380),
        },
    }
    return Cache(cache_id, **{**given, **facts})


def snapshot(*caches: Cache, **facts: Any) -> Snapshot:
    return Snapshot(caches, **facts)


def key(text: str, cache_id: str = "my-redis") -> RouteKey:
    """``-001`` (node of ``cache_id``), ``other/0002`` or ``primary``."""
    if text in set(Kind):
        return RouteKey(cache_id, Kind(text))
    cluster, _, number = text.partition("/")
    return RouteKey(
        cache_id, Kind.NODE, NodeId(cache_id + cluster if cluster.startswith("-") else cluster, number or "0001")
    )


def shown(portmap: PortMap) -> dict[str, int]:
    """The map as ``ports list`` would show it, without those that are gone."""
    return {str(entry.key): entry.port for entry in portmap.entries if entry.gone_since is None}


def route(kind: Kind = Kind.NODE, mode: Mode = Mode.CLUSTER_DISABLED, **facts: Any) -> Route:
    """A route on port 6379 to ``target:6379`` of cache ``c``."""
    node_id = NodeId("c-001", "0001") if kind is Kind.NODE else None
    given = {"port": 6379, "key": RouteKey("c", kind, node_id), "target": Endpoint("target", 6379), "mode": mode}
    return Route(**{**given, **facts})


def answered(*ips: str, at: float = 0.0) -> Addresses:
    return Addresses(current=ips, seen=dict.fromkeys(ips, at), since=at)


def book(**names: Iterable[str]) -> Mapping[str, Addresses]:
    return {name: answered(*ips) for name, ips in names.items()}
