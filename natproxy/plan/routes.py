"""Which ports lead where, and on what terms: snapshot, port map and config joined into routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from natproxy.config import CacheEntry, Config, StaticEntry
from natproxy.model import (
    Cache,
    Endpoint,
    Kind,
    Limits,
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
from natproxy.plan.ports import natural_key, wanted_keys

TLS_REQUIRED = (
    "the cache requires TLS, which natproxy cannot add in this version; "
    "write clients: {tls: passthrough} so that clients speak TLS to the node themselves"
)
NO_PORT_YET = "no port has been assigned to it yet"


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Something that should have a route, and has no port for it."""

    key: RouteKey
    reason: str


@dataclass(frozen=True, slots=True)
class Desired:
    """All that should be served."""

    routes: tuple[Route, ...]
    """Sorted by port; each port once."""
    unplaced: tuple[Unplaced, ...] = ()


def desired_routes(config: Config, snapshot: Snapshot, portmap: PortMap, errors: Mapping[RouteKey, str]) -> Desired:
    """Join what exists with the ports it has. ``errors`` are those of ``assign_ports``.

    Nodes and caches that AWS is deleting are left out, so that their ports are drained and closed. A node that has no
    endpoint yet gets its route, with no target.
    """
    ports = {entry.key: entry.port for entry in portmap.entries}
    routes = {static.port: _static_route(static) for static in config.static}
    unplaced: list[Unplaced] = []
    for cache in snapshot.caches:
        entry = config.caches[cache.entry]
        targets = _targets(cache)
        for key in wanted_keys(cache, entry):
            port = ports.get(key)
            if key in errors or port is None or port in routes:
                unplaced.append(Unplaced(key, errors.get(key, NO_PORT_YET)))
            else:
                routes[port] = _cache_route(port, key, targets[key], cache, entry)
    return Desired(tuple(routes[port] for port in sorted(routes)), tuple(unplaced))


def hosts_to_watch(routes: Iterable[Route], snapshot: Snapshot) -> frozenset[str]:
    """Name every host whose addresses matter: what routes may dial, and the nodes behind each reader.

    The latter tell which address has which role, also where the config wants no routes for the nodes themselves.
    """
    routes = tuple(routes)
    readers = {route.key.cache for route in routes if route.key.kind is Kind.READER}
    dialled = (name for route in routes for name in (route.target, *route.fallback))
    behind = (node.endpoint for cache in snapshot.caches if cache.id in readers for node in cache.nodes if node.role)
    return frozenset(name.host for name in (*dialled, *behind) if name is not None)


def node_roles(cache: Cache) -> dict[NodeId, Role]:
    """Return the roles AWS tells of the cache's nodes; it tells none for cluster mode."""
    return {node.id: node.role for node in cache.nodes if node.role is not None}


def _targets(cache: Cache) -> dict[RouteKey, Endpoint | None]:
    nodes = {RouteKey(cache.id, Kind.NODE, node.id): node.endpoint for node in cache.nodes}
    endpoints = {RouteKey(cache.id, kind): endpoint for kind, endpoint in cache.endpoints.items()}
    return {**nodes, **endpoints}


def _cache_route(port: int, key: RouteKey, target: Endpoint | None, cache: Cache, entry: CacheEntry) -> Route:
    must_add_tls = cache.tls is NodeTls.REQUIRED and entry.clients.tls == "off" and entry.nodes.tls == "auto"
    return Route(
        port=port,
        key=key,
        target=target,
        mode=cache.mode,
        fallback=_node_endpoints(cache.nodes) if key.kind is Kind.CONFIGURATION else (),
        allow=entry.clients.allow,
        client_tls=entry.clients.tls,
        node_tls="on" if must_add_tls else "off",
        limits=_limits(entry),
        limit_group=_group(entry) if entry.has_own_limits else "",
        max_connections=entry.clients.max_connections,
        max_connections_per_client=entry.clients.max_connections_per_client,
        error=TLS_REQUIRED if must_add_tls else None,
    )


def _static_route(static: StaticEntry) -> Route:
    return Route(
        port=static.port,
        key=RouteKey(static.name, Kind.STATIC),
        target=static.target,
        mode=Mode.STATIC,
        allow=static.clients.allow,
        client_tls=static.clients.tls,
        limits=_limits(static),
        limit_group=static.name if static.has_own_limits else "",
        max_connections=static.clients.max_connections,
        max_connections_per_client=static.clients.max_connections_per_client,
    )


def _limits(entry: CacheEntry | StaticEntry) -> Limits:
    return Limits(
        connect_seconds=entry.timeouts.connect,
        idle_seconds=entry.timeouts.idle,
        keepalive_seconds=entry.timeouts.keepalive,
        drain_seconds=entry.timeouts.drain,
    )


def _group(entry: CacheEntry) -> str:
    """Name an entry: its id, or its tags. The limits written under an entry count all connections of that entry."""
    return entry.id if entry.id is not None else ",".join(f"{k}={v}" for k, v in sorted((entry.tags or {}).items()))


def _node_endpoints(nodes: Iterable[Node]) -> tuple[Endpoint, ...]:
    alive = sorted((n for n in nodes if not n.is_deleting), key=lambda n: tuple(natural_key(part) for part in n.id))
    return tuple(dict.fromkeys(node.endpoint for node in alive if node.endpoint is not None))
