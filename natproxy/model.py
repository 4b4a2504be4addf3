"""The words of the domain as frozen data, valid once built; equality is the diff. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PORTAL_PORT = 6378
"""Where the portal is, where nobody says otherwise."""


class Kind(StrEnum):
    """What a route leads to."""

    NODE = "node"
    PRIMARY = "primary"
    READER = "reader"
    CONFIGURATION = "configuration"
    STATIC = "static"


ENDPOINT_KINDS = (Kind.PRIMARY, Kind.READER, Kind.CONFIGURATION)
"""The order in which a cache's endpoints take ports, after its nodes."""


class Mode(StrEnum):
    """How a cache is laid out; AWS's own terms where it has any."""

    CLUSTER_ENABLED = "cluster-enabled"
    CLUSTER_COMPATIBLE = "cluster-compatible"
    CLUSTER_DISABLED = "cluster-disabled"
    STANDALONE = "standalone"
    MEMCACHED = "memcached"
    SERVERLESS = "serverless"
    STATIC = "static"


class NodeTls(StrEnum):
    """What a cache accepts (TransitEncryptionEnabled and TransitEncryptionMode)."""

    OFF = "off"
    PREFERRED = "preferred"
    REQUIRED = "required"


class Role(StrEnum):
    """A node's role as AWS tells it, or in cluster mode, of which AWS tells none, as an engine does."""

    PRIMARY = "primary"
    REPLICA = "replica"


class RouteState(StrEnum):
    """What ``routes`` shows of a route."""

    OPEN = "open"
    UNREACHABLE = "unreachable"
    ABSENT = "absent"
    ERROR = "error"


class DiscoveryFailure(StrEnum):
    """Why AWS could not be asked: a closed list, used as a metric label."""

    DENIED = "denied"
    THROTTLED = "throttled"
    CREDENTIALS = "credentials"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    SERVER = "server-error"
    NONSENSE = "nonsense"


class NodeId(NamedTuple):
    """A node's identity: (CacheClusterId, CacheNodeId). Never its host name or address."""

    cluster: str
    node: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.node}"


class Endpoint(NamedTuple):
    """A host name (or address) and a port, as AWS or the config tells it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(NamedTuple):
    """A numeric address and a port: what is dialled."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Node:
    """One cache node as last told by AWS."""

    id: NodeId
    endpoint: Endpoint | None
    """None while the node is being created."""
    zone: str | None = None
    role: Role | None = None
    is_deleting: bool = False


@dataclass(frozen=True, slots=True)
class Cache:
    """One replication group, cache cluster or serverless cache."""

    id: str
    engine: str
    """redis | valkey | memcached; empty where AWS left it out."""
    mode: Mode
    tls: NodeTls
    nodes: tuple[Node, ...]
    """Sorted by id. Empty for serverless."""
    endpoints: Mapping[Kind, Endpoint] = field(default_factory=dict)
    is_complete: bool = True
    """False where the answer left something out (a member that is not described yet): then nothing may be concluded
    from what is missing in it."""
    is_deleting: bool = False
    entry: int = 0
    """Index into ``config.caches`` of the entry that selects this cache."""
    tags: Mapping[str, str] | None = None
    """Its tags as last known; None where the config selects nothing by tags, so that they were never asked for."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What AWS said in one round, reduced to the caches that the config selects."""

    caches: tuple[Cache, ...] = ()
    """Sorted by the config's entries, then by id."""
    is_complete: bool = True
    """False where any listing failed or was cut short: then a cache missing from it may still exist."""
    notes: tuple[str, ...] = ()
    """Things to tell the operator once, such as an id in the config that AWS does not know."""
    is_empty: bool | None = None
    """True where AWS listed no cache at all, selected or not: such an answer is not believed. None = not told; then it
    is taken for one if ``caches`` is empty."""

    def cache(self, cache_id: str) -> Cache | None:
        """Return the cache of that id, or None."""
        return next((cache for cache in self.caches if cache.id == cache_id), None)


@dataclass(frozen=True, slots=True, order=True)
class RouteKey:
    """What a route is, however its port, target and address change."""

    cache: str
    """The cache's id, or a static route's name."""
    kind: Kind
    node: NodeId | None = None
    """Set for ``Kind.NODE`` only."""

    def __str__(self) -> str:
        return str(self.node) if self.node is not None else f"{self.cache}:{self.kind}"


@dataclass(frozen=True, slots=True)
class PortEntry:
    """One number of the port map."""

    key: RouteKey
    port: int
    gone_since: float | None = None
    """Unix time at which the node or endpoint was found gone; None while it exists. The number stays reserved."""


@dataclass(frozen=True, slots=True)
class PortMap:
    """Which port belongs to whom: what the state file keeps above all."""

    entries: tuple[PortEntry, ...] = ()
    """Sorted by port; each port and each key at most once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines and habits of one route's connections, in seconds (floats; None = never)."""

    connect_seconds: float = 3.0
    handshake_seconds: float = 5.0
    idle_seconds: float | None = None
    keepalive_seconds: float = 30.0
    drain_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Route:
    """One port and where it should lead."""

    port: int
    key: RouteKey
    target: Endpoint | None
    """None while AWS gives none (a node that is being created)."""
    mode: Mode
    fallback: tuple[Endpoint, ...] = ()
    """Other names that may serve when the target does not answer (``configuration``: any node)."""
    allow: tuple[Network, ...] | None = None
    """Who may connect; None = everyone (possible on loopback only, or where a certificate is demanded)."""
    client_tls: str = "off"
    """off | passthrough | terminate."""
    certificates: tuple[str, ...] | None = None
    """Names that a client's certificate must have one of; None = any that the client CA vouches for."""
    node_tls: str = "off"
    """off | on: what natproxy speaks to the node."""
    node_ca: str = ""
    """The file of CAs that vouch for the node; empty = the system's roots."""
    server_name: str | None = None
    """What the node's certificate must name; None = the host name that was dialled."""
    rewrite: str = ""
    """How replies that carry addresses are rewritten: cluster | replication | memcached; empty = not at all."""
    rewrite_note: str = ""
    """Why not, or why otherwise than the config says; empty where it is as one would expect."""
    book: str = ""
    """The name of the book that it is done by (``plan.books``); empty where nothing is rewritten."""
    limits: Limits = Limits()
    limit_group: str = ""
    """Empty: counted against the global connection limits; else against this entry's own."""
    max_connections: int = 4096
    max_connections_per_client: int = 512
    error: str | None = None
    """Why this route cannot be opened (its cache needs TLS, ...); then it has no listener."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between what runs and what should: three disjoint sets of ports."""

    open: tuple[Route, ...] = ()
    retarget: tuple[Route, ...] = ()
    """The port stays open; something about its route is new."""
    close: tuple[Route, ...] = ()
    """Gone or no longer wanted: drained, then closed."""


class Outcome(StrEnum):
    """How a connection ended: a closed list, used as a metric label and in the log."""

    CLIENT_CLOSED = "client-closed"
    NODE_CLOSED = "node-closed"
    CLIENT_RESET = "client-reset"
    NODE_RESET = "node-reset"
    CLIENT_TIMEOUT = "client-timeout"
    """The client stopped answering keepalive probes or acknowledging data."""
    NODE_TIMEOUT = "node-timeout"
    IDLE = "idle"
    REFUSED = "node-refused"
    """The node's address refused the connection."""
    CONNECT_TIMEOUT = "connect-timeout"
    NODE_UNREACHABLE = "node-unreachable"
    NO_ADDRESS = "no-address"
    NOT_ALLOWED = "not-allowed"
    LIMIT = "limit"
    CLIENT_LIMIT = "client-limit"
    NO_DESCRIPTORS = "no-descriptors"
    ADDRESS_CHANGED = "address-changed"
    ROLE_MOVED = "role-moved"
    GONE = "node-gone"
    ROUTE_CHANGED = "route-changed"
    ROUTE_REMOVED = "route-removed"
    CLIENT_HANDSHAKE = "client-handshake"
    """The TLS handshake with the client failed; the counts of handshakes tell why."""
    NODE_HANDSHAKE = "node-handshake"
    """The TLS handshake with the node failed: its certificate does not verify, ..."""
    CLIENT_TLS = "client-tls-error"
    """What the client sent after its handshake is not TLS as it should be, or its TLS gave up with an alert."""
    NODE_TLS = "node-tls-error"
    HANDSHAKE_LIMIT = "handshake-limit"
    """Too many handshakes were under way already."""
    TLS_ON_CLEAR_PORT = "tls-on-clear-port"
    """The client began a TLS handshake on a port that does not speak TLS."""
    REVOKED = "certificate-revoked"
    """The client's certificate was revoked while it was connected, or it resumed a session with a revoked one."""
    CERTIFICATE_NOT_ALLOWED = "certificate-not-allowed"
    """The client's certificate has none of the names that may connect, or its CA is trusted no longer."""
    STOPPED = "stopped"
    INTERNAL = "internal"

    __hash__ = str.__hash__  # Enum's own is a Python function, and every connection is counted by its outcome


class HandshakeFailure(StrEnum):
    """Why a TLS handshake failed: a closed list, used as a metric label and in the log."""

    TIMEOUT = "timeout"
    CLOSED = "closed"
    """The peer went away (EOF or reset) before it was done."""
    CLEAR_TEXT = "clear-text"
    """The client spoke Redis, memcached, HTTP ... in the clear to a port that speaks TLS."""
    GARBAGE = "garbage"
    """The first bytes are neither TLS nor text."""
    VERSION = "version"
    """No TLS version in common."""
    CIPHER = "cipher"
    """No cipher suite, group or signature scheme in common."""
    NO_CERTIFICATE = "no-certificate"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNKNOWN_CA = "unknown-ca"
    REVOKED = "revoked"
    CRL_EXPIRED = "crl-expired"
    CRL_MISSING = "crl-missing"
    """No revocation list of the certificate's issuer is configured."""
    WRONG_NAME = "wrong-name"
    """The node's certificate is for another host."""
    WRONG_USAGE = "wrong-usage"
    """The certificate is not for this purpose (a server's shown by a client ...)."""
    WEAK = "weak"
    """Its key or signature is too weak."""
    BAD_CERTIFICATE = "bad-certificate"
    """It does not verify, for a reason that is none of the others."""
    NOT_ALLOWED = "not-allowed"
    """The certificate is good, but has none of the names that `certificates` lists."""
    ALERT = "alert"
    """The peer gave up with a TLS alert: it does not trust our certificate, ..."""
    PROTOCOL = "protocol"
    """Broken TLS."""
    LIMIT = "limit"
    """Too many handshakes were under way already."""
    INTERNAL = "internal"


REFUSALS = frozenset(
    {Outcome.NOT_ALLOWED, Outcome.LIMIT, Outcome.CLIENT_LIMIT, Outcome.NO_DESCRIPTORS, Outcome.HANDSHAKE_LIMIT}
)
"""Outcomes of connections that were turned away before a node was dialled."""
