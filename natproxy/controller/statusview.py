"""The status document: how everything stands, what moves, and what happened of late, put together. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from natproxy.controller.activity import STEP_SECONDS
from natproxy.controller.expiring import DAY_SECONDS, Stage, stage_of
from natproxy.documents import (
    CacheView,
    CertificateView,
    DiscoveryView,
    EventView,
    LiveCache,
    LiveRoute,
    RoutesDocument,
    RouteView,
    ShardView,
    StatusDocument,
    Traffic,
)
from natproxy.model import Kind, Mode
from natproxy.tls.expiry import Expiry

_SHARDED = frozenset({Mode.CLUSTER_ENABLED, Mode.CLUSTER_COMPATIBLE})
_MEMBER = re.compile(r"-(\d{4})-\d{3}")
"""How AWS ends the name of a node of a cache in cluster mode: ``my-redis-0001-002``."""
_STATES = {
    None: "valid",
    Stage.SOON: "expiring",
    Stage.OVER: "expired",
    Stage.NOT_YET: "not-yet-valid",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How the daemon itself stands."""

    version: str
    uptime_seconds: float
    is_ready: bool
    readiness: str
    troubles: tuple[str, ...]
    discovery: DiscoveryView
    workers_running: int
    workers_wanted: int


def status_document(
    standing: Standing,
    routes: RoutesDocument,
    *,
    traffic: Callable[[int | None], Traffic],
    total: Traffic,
    expiries: Iterable[Expiry],
    events: tuple[EventView, ...],
    now: float,
) -> StatusDocument:
    """Return it. ``routes`` tells of all there is, ``traffic`` what moves on a port; ``now`` is the Unix time."""
    return StatusDocument(
        natproxy=standing.version,
        generated=routes.generated,
        uptime_seconds=round(standing.uptime_seconds, 1),
        public_host=routes.public_host,
        public_ip=routes.public_ip,
        is_ready=standing.is_ready,
        readiness=standing.readiness,
        troubles=standing.troubles,
        notes=tuple(note for note in routes.notes if note not in standing.troubles),
        discovery=standing.discovery,
        workers_running=standing.workers_running,
        workers_wanted=standing.workers_wanted,
        step_seconds=STEP_SECONDS,
        total=total,
        certificates=certificates(expiries, now),
        caches=tuple(_live(cache, traffic) for cache in routes.caches),
        events=events,
    )


def certificates(expiries: Iterable[Expiry], now: float) -> tuple[CertificateView, ...]:
    """Return what is in use, what ends first first."""
    return tuple(
        CertificateView(
            use=one.use,
            subject=one.subject,
            expires=datetime.fromtimestamp(one.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            days_left=math.floor((one.expires - now) / DAY_SECONDS),
            state=_STATES[stage_of(one, now)],
        )
        for one in sorted(expiries, key=lambda one: (one.expires, one.use, one.subject))
    )


def shard_of(cache: CacheView, route: RouteView) -> str | None:
    """Return the number of the shard that a node belongs to, as its name tells it; None where it tells none."""
    if route.node is None or cache.mode not in _SHARDED or not route.node.cluster.startswith(cache.id):
        return None
    member = _MEMBER.fullmatch(route.node.cluster, len(cache.id))
    return None if member is None else member[1]


def _live(cache: CacheView, traffic: Callable[[int | None], Traffic]) -> LiveCache:
    endpoints: list[LiveRoute] = []
    shards: dict[str | None, list[LiveRoute]] = {}
    for route in cache.routes:
        fields = {name: getattr(route, name) for name in route.__struct_fields__}
        live = LiveRoute(**fields, traffic=traffic(route.port))
        (shards.setdefault(shard_of(cache, route), []) if route.kind == Kind.NODE else endpoints).append(live)
    ordered = sorted(shards.items(), key=lambda shard: (shard[0] is None, shard[0] or ""))
    return LiveCache(
        id=cache.id,
        engine=cache.engine,
        mode=cache.mode,
        tls=cache.tls,
        reason=cache.reason,
        endpoints=tuple(endpoints),
        shards=tuple(ShardView(name=name, nodes=tuple(nodes)) for name, nodes in ordered),
    )
