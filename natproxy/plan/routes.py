"""Which ports lead where, and on what terms: snapshot, port map and config joined into routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from natproxy.config import CacheEntry, Config, StaticEntry
from natproxy.model import (
    Cache,
    Endpoint,
    Kind,
    Limits,
    Mode,
    Network,
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
    "the cache requires TLS, and nodes.tls: off keeps natproxy from speaking it; leave nodes.tls out, "
    "or write clients: {tls: passthrough} so that clients speak TLS to the node themselves"
)
NO_PORT_YET = "no port has been assigned to it yet"
PASSTHROUGH_NOTE = "clients speak TLS with the node itself: a passthrough port cannot rewrite"
MISMATCH_NOTE = "the config says rewrite: {written}, and this is a {engine} cache: taken as rewrite: auto"

_AUTO = {
    Mode.CLUSTER_ENABLED: "cluster",
    Mode.CLUSTER_COMPATIBLE: "cluster",
    Mode.CLUSTER_DISABLED: "replication",
    Mode.STANDALONE: "",
    Mode.MEMCACHED: "memcached",
    Mode.SERVERLESS: "cluster",
}
"""What ``rewrite: auto`` is for a cache. A standalone one has no other node that it could tell of."""


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


class Rewriting(NamedTuple):
    """How replies are rewritten, as in Route.rewrite, and a note where that may surprise."""

    how: str
    note: str = ""


def desired_routes(config: Config, snapshot: Snapshot, portmap: PortMap, errors: Mapping[RouteKey, str]) -> Desired:
    """Join what exists with the ports it has. ``errors`` are those of ``assign_ports``.

    Nodes and caches that AWS is deleting are left out, so that their ports are drained and closed. A node that has no
    endpoint yet gets its route, with no target.
    """
    ports = {entry.key: entry.port for entry in portmap.entries}
    routes = {static.port: _static_route(config, static) for static in config.static}
    unplaced: list[Unplaced] = []
    for cache in snapshot.caches:
        entry = config.caches[cache.entry]
        targets = _targets(cache)
        for key in wanted_keys(cache, entry):
            port = ports.get(key)
            if key in errors or port is None or port in routes:
                unplaced.append(Unplaced(key, errors.get(key, NO_PORT_YET)))
            else:
                routes[port] = _cache_route(config, port, key, targets[key], cache)
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


def rewriting_of(entry: CacheEntry, cache: Cache) -> Rewriting:
    """Return how the replies of a cache are rewritten.

    AWS knows whether it is Redis or memcached: ``redis`` and ``memcached`` say no more of it than that rewriting is
    wished for, also where there seems to be nothing to rewrite.
    """
    if entry.rewrite == "off":
        return Rewriting("")
    is_memcached = cache.mode is Mode.MEMCACHED or cache.engine == "memcached"
    how, note = "memcached" if is_memcached else _AUTO[cache.mode], ""
    if entry.rewrite == ("redis" if is_memcached else "memcached"):
        note = MISMATCH_NOTE.format(written=entry.rewrite, engine="memcached" if is_memcached else "Redis or Valkey")
    elif entry.rewrite == "redis":
        how = how or "replication"
    return _readable(entry, Rewriting(how, note))


def static_rewriting(entry: StaticEntry) -> Rewriting:
    """Return how the replies of a static target are rewritten: as the config says, for nobody else knows it."""
    return _readable(entry, Rewriting({"redis": "cluster", "memcached": "memcached"}.get(entry.rewrite, "")))


def _readable(entry: CacheEntry | StaticEntry, wished: Rewriting) -> Rewriting:
    if wished.how and entry.clients.tls == "passthrough":
        return Rewriting("", PASSTHROUGH_NOTE)
    return wished


def _targets(cache: Cache) -> dict[RouteKey, Endpoint | None]:
    nodes = {RouteKey(cache.id, Kind.NODE, node.id): node.endpoint for node in cache.nodes}
    endpoints = {RouteKey(cache.id, kind): endpoint for kind, endpoint in cache.endpoints.items()}
    return {**nodes, **endpoints}


def _node_tls(told: NodeTls, entry: CacheEntry | StaticEntry) -> str:
    """Return what natproxy speaks to the node, off or on, where AWS tells ``told`` of its cache.

    A cache that takes either gets TLS, unless the config says otherwise. Where the client's own TLS passes through,
    natproxy speaks none itself.
    """
    if entry.clients.tls == "passthrough":
        return "off"
    if entry.nodes.tls == "auto":
        return "off" if told is NodeTls.OFF else "on"
    return entry.nodes.tls


def _cache_route(config: Config, port: int, key: RouteKey, target: Endpoint | None, cache: Cache) -> Route:
    entry = config.caches[cache.entry]
    is_refused = cache.tls is NodeTls.REQUIRED and entry.nodes.tls == "off" and entry.clients.tls != "passthrough"
    rewriting = rewriting_of(entry, cache)
    return Route(
        port=port,
        key=key,
        target=target,
        mode=cache.mode,
        fallback=_node_endpoints(cache.nodes) if key.kind is Kind.CONFIGURATION else (),
        rewrite=rewriting.how,
        rewrite_note=rewriting.note,
        book=cache.id if rewriting.how else "",
        limit_group=_group(entry) if entry.has_own_limits else "",
        error=TLS_REQUIRED if is_refused else None,
        **_terms(config, entry, _node_tls(cache.tls, entry)),
    )


def _static_route(config: Config, static: StaticEntry) -> Route:
    rewriting = static_rewriting(static)
    return Route(
        port=static.port,
        key=RouteKey(static.name, Kind.STATIC),
        target=static.target,
        mode=Mode.STATIC,
        rewrite=rewriting.how,
        rewrite_note=rewriting.note,
        book=f"static:{static.rewrite}" if rewriting.how else "",
        limit_group=static.name if static.has_own_limits else "",
        **_terms(config, static, _node_tls(NodeTls.OFF, static)),
    )


class _Terms(TypedDict):
    """What an entry says of all its routes alike, by the names of Route's fields."""

    allow: tuple[Network, ...] | None
    client_tls: str
    certificates: tuple[str, ...] | None
    node_tls: str
    node_ca: str
    server_name: str | None
    limits: Limits
    max_connections: int
    max_connections_per_client: int


def _terms(config: Config, entry: CacheEntry | StaticEntry, spoken: str) -> _Terms:
    """Return what the entry says, and of TLS only what matters where ``spoken`` is what the node is spoken to in."""
    clients, nodes, timeouts = entry.clients, entry.nodes, entry.timeouts
    is_tls = spoken == "on"
    return _Terms(
        allow=clients.allow,
        client_tls=clients.tls,
        certificates=clients.certificates if config.demands_certificate(entry) else None,
        node_tls=spoken,
        node_ca=str(nodes.ca) if is_tls and nodes.ca is not None else "",
        server_name=nodes.server_name if is_tls else None,
        limits=Limits(
            connect_seconds=timeouts.connect,
            handshake_seconds=timeouts.handshake,
            idle_seconds=timeouts.idle,
            keepalive_seconds=timeouts.keepalive,
            drain_seconds=timeouts.drain,
        ),
        max_connections=clients.max_connections,
        max_connections_per_client=clients.max_connections_per_client,
    )


def _group(entry: CacheEntry) -> str:
    """Name an entry: its id, or its tags. The limits written under an entry count all connections of that entry."""
    return entry.id if entry.id is not None else ",".join(f"{k}={v}" for k, v in sorted((entry.tags or {}).items()))


def _node_endpoints(nodes: Iterable[Node]) -> tuple[Endpoint, ...]:
    alive = sorted((n for n in nodes if not n.is_deleting), key=lambda n: tuple(natural_key(part) for part in n.id))
    return tuple(dict.fromkeys(node.endpoint for node in alive if node.endpoint is not None))
