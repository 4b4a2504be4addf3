"""The JSON that natproxy shows: what the admin side and the control socket answer, and what the commands read. Pure.

A field that is not known is ``null``. Fields may be added under the same version; a reader ignores those it does not
know.
"""

from __future__ import annotations

import msgspec

VERSION = 1


class NodeName(msgspec.Struct, frozen=True):
    """A node's identity: (CacheClusterId, CacheNodeId)."""

    cluster: str
    id: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.id}"


class RouteView(msgspec.Struct, frozen=True, kw_only=True):
    """One port and where it leads."""

    port: int | None
    """None for a route that found no free port in its range."""
    kind: str
    """A model.Kind value."""
    node: NodeName | None = None
    role: str | None = None
    zone: str | None = None
    target: str | None = None
    """``host:port`` as AWS or the config gives it."""
    addresses: tuple[str, ...] = ()
    """``ip:port`` of all that is dialled."""
    state: str
    """A model.RouteState value."""
    reason: str | None = None
    """Why the state is not ``open``."""
    tls: str = "off"
    """What clients speak: off (no TLS) | terminate (TLS with natproxy) | passthrough (TLS with the node)."""
    node_tls: str = "off"
    """What natproxy speaks to the node: off | on."""
    rewrite: str = "off"
    """How the node's replies are rewritten: off | redis | memcached."""
    rewrite_note: str | None = None
    """Why they are not, or not as the config says."""
    connections: int = 0


class CacheView(msgspec.Struct, frozen=True, kw_only=True):
    """One cache, or one static route, with its routes by port."""

    id: str
    engine: str | None = None
    mode: str | None = None
    """A model.Mode value; None for a cache that AWS has not told of yet."""
    tls: str | None = None
    """What the cache accepts: off | preferred | required."""
    reason: str | None = None
    """Why a cache of the config has no routes."""
    routes: tuple[RouteView, ...] = ()


class RoutesDocument(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /routes``."""

    version: int = VERSION
    public_host: str | None = None
    public_ip: str | None = None
    generated: str
    """UTC, RFC 3339."""
    notes: tuple[str, ...] = ()
    """What the operator should know of the last answer of AWS."""
    caches: tuple[CacheView, ...] = ()


class PortView(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the port map."""

    port: int
    name: str
    """What ``natproxy ports release`` takes: ``cluster/node id``, or ``cache:kind``."""
    cache: str
    kind: str
    node: NodeName | None = None
    gone_since: str | None = None
    """UTC, RFC 3339; None while the node exists."""


class PortsDocument(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /ports``."""

    version: int = VERSION
    generated: str
    ports: tuple[PortView, ...] = ()


class ReloadVerdict(msgspec.Struct, frozen=True):
    """What became of ``POST /reload``."""

    ok: bool
    message: str
    restart_needed: tuple[str, ...] = ()
    """Dotted paths of changed values that only a restart takes up."""
