"""What a client has to know to reach a cache: how it is laid out, what to dial, and what is spoken there. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from natproxy.documents import CacheView, RouteView
from natproxy.model import Kind, Mode, Role

NO_HOST = "NATPROXY-HOST"
"""Stands where nobody knows what to dial."""
NO_NAME = "NODE-NAME"
"""Stands for a node's host name, where whoever asks is not told it."""
LOOPBACK = "127.0.0.1"

_ENGINES = {"redis", "valkey"}
_REDIS_MODES = {Mode.CLUSTER_ENABLED, Mode.CLUSTER_COMPATIBLE, Mode.CLUSTER_DISABLED}


@dataclass(frozen=True, slots=True)
class Files:
    """Where a developer's bundle lies, as file names in the lines."""

    ca: str = "ca.crt"
    certificate: str = "client.crt"
    key: str = "client.key"


BUNDLE = Files()
"""A bundle's own names: the lines are run where it was unpacked."""


class Layout(StrEnum):
    """Which kind of client it takes."""

    CLUSTER = "cluster"
    """One that finds the nodes by itself; the one port leads to any of them."""
    GROUP = "group"
    """Two plain ones: the first port is for writing, the second for reading."""
    SINGLE = "single"
    """A plain one, on the one port."""
    MEMCACHED = "memcached"
    """One that spreads keys over the ports."""
    UNKNOWN = "unknown"
    """A plain one, on the one port; whether of Redis or of memcached, only the operator knows."""


@dataclass(frozen=True, slots=True)
class Port:
    """One port, and what stands behind it."""

    number: int
    route: RouteView
    name: str | None = None
    """The host name that the certificate has to be for, where it is the node's own."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What clients check with, and what they show."""

    ca: str | None = None
    """None: the system's roots."""
    certificate: str | None = None
    key: str | None = None
    """None, both: nobody asks for them."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that the lines are made of."""

    host: str
    layout: Layout
    ports: tuple[Port, ...]
    """At least one."""
    tls: Tls | None = None
    """None: in the clear."""
    discovery: Port | None = None
    """Where memcached's auto discovery is answered."""

    @property
    def first(self) -> Port:
        """The port for those who need one."""
        return self.ports[0]

    def dialled(self, port: Port) -> str:
        """Return what is dialled by a client that can check no other name than that."""
        return port.name or self.host


def scene_of(cache: CacheView, host: str, files: Files = BUNDLE, *, is_local: bool = False) -> Scene | None:
    """Return the scene; None where the cache has no port yet. ``is_local``: behind ``natproxy connect``."""
    routes = [route for route in cache.routes if route.port is not None]
    if not routes:
        return None
    layout = layout_of(cache)
    chosen = _memcached(routes) if layout is Layout.MEMCACHED else _dialled(routes, layout)
    discovery = next((route for route in routes if _discovers(route)), None)
    return Scene(
        host=LOOPBACK if is_local else host,
        layout=layout,
        ports=tuple(map(port_of, chosen)),
        tls=_tls(chosen[0], files, is_local=is_local),
        discovery=None if discovery is None or layout is not Layout.MEMCACHED else port_of(discovery),
    )


def layout_of(cache: CacheView) -> Layout:
    """Return how a cache that has ports is laid out, as far as its clients can tell through natproxy.

    Where replies are passed on as they are, a client that finds nodes by itself would find private addresses, and
    where TLS is the node's own, each port has a name of its own: both take plain clients.
    """
    routes = [route for route in cache.routes if route.port is not None]
    kinds = {route.kind for route in routes}
    rewritten = {route.rewrite for route in routes}
    if cache.engine == "memcached" or cache.mode == Mode.MEMCACHED or "memcached" in rewritten:
        return Layout.MEMCACHED
    is_redis = cache.engine in _ENGINES or cache.mode in _REDIS_MODES or "redis" in rewritten
    if not is_redis and not kinds & {Kind.PRIMARY, Kind.READER}:
        return Layout.UNKNOWN
    if "redis" in rewritten and is_cluster(cache):
        return Layout.CLUSTER
    is_group = {Kind.PRIMARY, Kind.READER} <= kinds and routes[0].tls != "passthrough"
    return Layout.GROUP if is_group else Layout.SINGLE


def is_cluster(cache: CacheView) -> bool:
    """Whether its keys are spread over nodes that clients have to find."""
    has_configuration = any(route.kind == Kind.CONFIGURATION for route in cache.routes)
    return cache.mode in (Mode.CLUSTER_ENABLED, Mode.SERVERLESS) or (cache.mode != Mode.MEMCACHED and has_configuration)


def port_of(route: RouteView) -> Port:
    """Return a route that has a port as what a client dials."""
    name = None
    if route.tls == "passthrough":
        name = NO_NAME if route.target is None else route.target.rpartition(":")[0].strip("[]")
    return Port(route.port or 0, route, name)


def _dialled(routes: Iterable[RouteView], layout: Layout) -> list[RouteView]:
    kinds = {route.kind: route for route in reversed(list(routes))}  # the first of each kind
    if layout is Layout.GROUP:
        return [kinds[Kind.PRIMARY], kinds[Kind.READER]]
    first = (Kind.CONFIGURATION, Kind.PRIMARY) if layout is Layout.CLUSTER else (Kind.PRIMARY,)
    chosen = next((kinds[kind] for kind in first if kind in kinds), None)
    return [chosen or min(routes, key=_fitness)]


def _fitness(route: RouteView) -> tuple[bool, bool, int]:
    """Least for the node that can be written to, and read now."""
    return route.role == Role.REPLICA, route.kind not in (Kind.NODE, Kind.STATIC), route.port or 0


def _memcached(routes: list[RouteView]) -> list[RouteView]:
    """Return where keys can be spread over; ``reader`` has the same ones as ``primary``."""
    nodes = [route for route in routes if route.kind == Kind.NODE]
    return nodes or routes[:1]


def _discovers(route: RouteView) -> bool:
    return route.rewrite == "memcached" and route.kind in (Kind.CONFIGURATION, Kind.STATIC)


def _tls(route: RouteView, files: Files, *, is_local: bool) -> Tls | None:
    if route.tls == "passthrough":
        return Tls()
    if route.tls == "off" or is_local:
        return None
    return Tls(files.ca, files.certificate, files.key) if route.certificate else Tls(files.ca)
