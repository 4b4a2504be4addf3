"""What the operator sees of the whole: the routes and ports as documents, and one line for systemd. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from natproxy.documents import CacheView, NodeName, PortsDocument, PortView, RoutesDocument, RouteView
from natproxy.model import (
    Address,
    Cache,
    Kind,
    NodeId,
    PortEntry,
    PortMap,
    Role,
    Route,
    RouteKey,
    RouteState,
    Snapshot,
)

if TYPE_CHECKING:  # pydantic is slow to import, and the commands that read documents do not need it
    from natproxy.config import Config

_REWRITTEN_AS = {"cluster": "redis", "replication": "redis", "memcached": "memcached"}


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """A route as it runs."""

    route: Route
    state: RouteState
    reason: str = ""
    """Why the state is not OPEN."""
    addresses: tuple[Address, ...] = ()
    connections: int = 0
    role: Role | None = None
    zone: str | None = None


def routes_document(
    config: Config,
    snapshot: Snapshot,
    statuses: Iterable[RouteStatus],
    generated: datetime,
    *,
    unplaced: Mapping[RouteKey, str] | None = None,
    waiting: str = "",
    outage: str = "",
) -> dict[str, Any]:
    """Return ``RoutesDocument`` as plain data.

    ``unplaced`` are routes that found no port, with the reason; ``waiting`` says what the first discovery waits for
    and is empty after it; ``outage`` is a note for as long as it lasts. Caches stand in the snapshot's order, then
    those only known from their routes, then ids of the config that have nothing yet, then static routes in the
    config's order.
    """
    routes: dict[str, list[RouteView]] = {}
    static: dict[str, list[RouteView]] = {}
    modes: dict[str, str] = {}
    for status in sorted(statuses, key=lambda status: status.route.port):
        key = status.route.key
        view = _route_view(status, vouches_for_clients=config.vouches_for_clients)
        (static if key.kind is Kind.STATIC else routes).setdefault(key.cache, []).append(view)
        modes.setdefault(key.cache, status.route.mode)
    for key, reason in (unplaced or {}).items():
        routes.setdefault(key.cache, []).append(_unplaced_view(key, reason))
    known = {cache.id: cache for cache in snapshot.caches}
    ids = [*known, *routes, *(entry.id for entry in config.caches if entry.id is not None)]
    caches = [
        _cache_view(cache_id, known.get(cache_id), modes.get(cache_id), tuple(routes.get(cache_id, ())), waiting)
        for cache_id in dict.fromkeys(ids)
    ]
    names = dict.fromkeys([*(entry.name for entry in config.static), *static])
    caches += [CacheView(id=name, mode="static", routes=tuple(static[name])) for name in names if name in static]
    document = RoutesDocument(
        public_host=config.public_host,
        public_ip=config.public_ip,
        portal_port=config.portal_port,
        generated=_utc(generated),
        notes=(*snapshot.notes, *((outage,) if outage else ())),
        caches=tuple(caches),
    )
    return _plain(document)


def ports_document(portmap: PortMap, generated: datetime) -> dict[str, Any]:
    """Return ``PortsDocument`` as plain data."""
    return _plain(PortsDocument(generated=_utc(generated), ports=tuple(map(_port_view, portmap.entries))))


def status_line(statuses: Iterable[RouteStatus], *, unplaced: int = 0, waiting: str = "") -> str:
    """Return one line for ``systemctl status``; ``waiting`` as for ``routes_document``."""
    statuses = tuple(statuses)
    is_open = [status.state is RouteState.OPEN for status in statuses]
    connections = sum(status.connections for status in statuses)
    parts = [f"{_count(sum(is_open), 'route')} open, {_count(connections, 'connection')}"]
    if troubled := len(is_open) - sum(is_open) + unplaced:
        parts.append(f"{_count(troubled, 'route')} not open, see natproxy routes")
    if waiting:
        parts.append(f"waiting for {waiting}")
    return "; ".join(parts)


def _cache_view(
    cache_id: str, cache: Cache | None, mode: str | None, routes: tuple[RouteView, ...], waiting: str
) -> CacheView:
    reason = None if routes else _why_no_routes(cache, waiting)
    if cache is None:
        return CacheView(id=cache_id, mode=mode, reason=reason, routes=routes)
    return CacheView(
        id=cache_id,
        engine=cache.engine or None,
        mode=cache.mode,
        tls=cache.tls,
        reason=reason,
        routes=routes,
    )


def _why_no_routes(cache: Cache | None, waiting: str) -> str:
    if cache is not None:
        return "the cache is being deleted" if cache.is_deleting else "AWS tells of no node and no endpoint of it yet"
    return f"waiting for {waiting}" if waiting else "AWS knows no cache of this id"


def _route_view(status: RouteStatus, *, vouches_for_clients: bool) -> RouteView:
    route = status.route
    return RouteView(
        port=route.port,
        kind=route.key.kind,
        node=_node_name(route.key.node),
        role=status.role,
        zone=status.zone,
        target=str(route.target) if route.target is not None else None,
        addresses=tuple(map(str, status.addresses)),
        state=status.state,
        reason=status.reason or None,
        tls=route.client_tls,
        certificate=route.client_tls == "terminate" and vouches_for_clients,
        node_tls=route.node_tls,
        rewrite=_REWRITTEN_AS.get(route.rewrite, "off"),
        rewrite_note=route.rewrite_note or None,
        connections=status.connections,
    )


def _unplaced_view(key: RouteKey, reason: str) -> RouteView:
    return RouteView(port=None, kind=key.kind, node=_node_name(key.node), state=RouteState.ERROR, reason=reason)


def _port_view(entry: PortEntry) -> PortView:
    gone_since = None if entry.gone_since is None else _utc(datetime.fromtimestamp(entry.gone_since, UTC))
    return PortView(
        port=entry.port,
        name=str(entry.key),
        cache=entry.key.cache,
        kind=entry.key.kind,
        node=_node_name(entry.key.node),
        gone_since=gone_since,
    )


def _node_name(node: NodeId | None) -> NodeName | None:
    return None if node is None else NodeName(node.cluster, node.node)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain(document: msgspec.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(document)
    return plain
