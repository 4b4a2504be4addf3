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
    certificate: bool = False
    """Whether clients have to show a certificate."""
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
    portal_port: int | None = None
    """Where the portal is; None where there is none."""
    generated: str
    """UTC, RFC 3339."""
    notes: tuple[str, ...] = ()
    """What the operator should know of the last answer of AWS."""
    caches: tuple[CacheView, ...] = ()


class DirectoryDocument(RoutesDocument, frozen=True, kw_only=True):
    """``GET /directory`` of the portal: the routes that one certificate may use.

    ``notes``, and of caches and routes ``reason``, ``target``, ``addresses``, ``connections`` and ``rewrite_note``, are
    not told there: a reader finds their defaults.
    """

    certificate: str = ""
    """The certificate's name: its CN, else its first SAN."""
    expires: str = ""
    """UTC, RFC 3339: when it does."""


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


# --- the lines that connect a client to a cache


class Snippet(msgspec.Struct, frozen=True, kw_only=True):
    """What one client is told to reach one cache."""

    client: str
    """Its stable name, one of ``natproxy.snippets.CLIENTS``."""
    title: str
    language: str
    """shell | python | javascript | java | go."""
    text: str
    """Whole lines, to be copied as they are."""
    note: str = ""
    """What there is to know of this client; plain sentences."""


class SnippetsDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What ``natproxy snippets --json`` prints."""

    version: int = VERSION
    cache: str
    """The cache's id."""
    remarks: tuple[str, ...] = ()
    """What there is to know whichever client it is; plain sentences."""
    snippets: tuple[Snippet, ...] = ()
    """Empty where the cache has no port yet."""


# --- what the status page shows


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What moves, and how long nodes take to answer a dial."""

    client_bytes_per_second: float = 0.0
    """From clients to the node, over the last few seconds."""
    node_bytes_per_second: float = 0.0
    """From the node to clients."""
    history: tuple[int, ...] = ()
    """Bytes per second both ways, oldest first, ``StatusDocument.step_seconds`` apart; empty where all are 0."""
    dial_p50_seconds: float | None = None
    """Half of the dials of the last minutes took no longer, about; None where there were none."""
    dial_p99_seconds: float | None = None
    refusals: int = 0
    """Connections turned away in the last minutes."""


class LiveRoute(RouteView, frozen=True, kw_only=True):
    """One port, and what happens there."""

    traffic: Traffic = Traffic()


class ShardView(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes that share a part of a cache's keys."""

    name: str | None = None
    """As AWS numbers it (``0001``); None for the nodes of a cache that is not in cluster mode."""
    nodes: tuple[LiveRoute, ...] = ()


class LiveCache(msgspec.Struct, frozen=True, kw_only=True):
    """One cache, or one static route."""

    id: str
    engine: str | None = None
    mode: str | None = None
    tls: str | None = None
    reason: str | None = None
    """As those of ``CacheView``."""
    endpoints: tuple[LiveRoute, ...] = ()
    """All that is not a node: ``primary``, ``reader``, ``configuration``; of a static route itself."""
    shards: tuple[ShardView, ...] = ()


class CertificateView(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate or revocation list in use."""

    use: str
    """certificate | client_ca | nodes_ca | crl."""
    subject: str
    """Of a revocation list its issuer."""
    expires: str
    """UTC, RFC 3339."""
    days_left: int
    """Whole days; negative once it is over."""
    state: str
    """valid | expiring | expired | not-yet-valid."""


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. Never holds a client's address."""

    id: int
    """Ascending in the order in which they happened."""
    time: str
    """UTC, RFC 3339; of several taken together the first."""
    kind: str
    """A controller.recent.Noted value."""
    level: str
    """info | warning | error."""
    text: str
    cache: str | None = None
    node: str | None = None
    port: int | None = None
    count: int = 1
    """How many of them were taken together."""


class DiscoveryView(msgspec.Struct, frozen=True, kw_only=True):
    """How AWS answers."""

    state: str
    """ok | failing | waiting (for the first answer) | off (the config names no cache)."""
    age_seconds: float | None = None
    """Since AWS last told everything; None where it never has."""
    interval_seconds: float
    """How often it is asked while all is well."""


class StatusDocument(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /status``."""

    version: int = VERSION
    natproxy: str
    """natproxy's own version."""
    generated: str
    """UTC, RFC 3339."""
    uptime_seconds: float
    public_host: str | None = None
    public_ip: str | None = None
    is_ready: bool
    readiness: str
    """The line that ``/readyz`` answers."""
    troubles: tuple[str, ...] = ()
    """What is not as it should be while what was good before is served on."""
    notes: tuple[str, ...] = ()
    discovery: DiscoveryView
    workers_running: int
    workers_wanted: int
    step_seconds: float
    """Between two points of a ``Traffic.history``."""
    total: Traffic = Traffic()
    """Of all ports together."""
    certificates: tuple[CertificateView, ...] = ()
    caches: tuple[LiveCache, ...] = ()
    events: tuple[EventView, ...] = ()
    """The newest first; about the last hundred."""


# --- what `natproxy connect --json` prints: one of these in each line


class LocalRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route of natproxy's, and where it is found on this computer."""

    cache: str
    kind: str
    """A model.Kind value."""
    node: NodeName | None = None
    role: str | None = None
    zone: str | None = None
    port: int | None
    """natproxy's."""
    local_host: str | None = None
    local_port: int | None = None
    """Where it is served here; None where it is not, and ``note`` tells why."""
    state: str
    """A model.RouteState value: how it stands at natproxy."""
    security: str
    """How it crosses the Internet: tls (with natproxy) | passthrough (the client's own TLS, with the node) | off."""
    command: str | None = None
    """What can be typed to talk to it."""
    note: str | None = None


class ConnectEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, and the routes that it is about."""

    version: int = VERSION
    time: str
    """UTC, RFC 3339."""
    event: str
    """serving | opened | changed | closing | trouble | healed | renewed | expiring | ended."""
    message: str
    routes: tuple[LocalRoute, ...] = ()
    """After ``serving``: all of them."""
