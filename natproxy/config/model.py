"""What the config file may say, as frozen data: every key is a field, every default stands here. Pure.

``Written`` is the file as it was written. ``Config`` is what the rest of natproxy works with: in it each entry carries
its effective values, its own ones laid over the global ones key by key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator

from natproxy.config import addresses, values
from natproxy.config.values import PortRange
from natproxy.model import PORTAL_PORT, Endpoint, Network


def _listed(what: str) -> BeforeValidator:
    """Take one value for a list of one; an empty list says nothing."""

    def as_list(value: object) -> object:
        if isinstance(value, str | bool):
            return [value]
        return value if value or value is None else values.refuse(f"is empty: write at least one {what}")

    return BeforeValidator(as_list)


def _or_empty(value: object) -> object:
    """Take a mapping that has nothing beneath it as not written."""
    return {} if value is None else value


def _or_none(value: object) -> object:
    """Take a list that has nothing beneath it as not written."""
    return [] if value is None else value


_Positive = Annotated[float, PlainValidator(values.duration(least="1us"))]
_Duration = Annotated[float, PlainValidator(values.duration())]
_Count = Annotated[int, PlainValidator(values.whole_number(1, 1_000_000))]
_Port = Annotated[int, PlainValidator(values.port)]
_Ports = Annotated[PortRange | None, PlainValidator(values.optional(values.port_range))]
_IpAddress = Annotated[str, PlainValidator(addresses.ip_address)]
_File = Annotated[Path, PlainValidator(values.file_path)]
_OptionalFile = Annotated[Path | None, PlainValidator(values.optional(values.file_path))]
_Allow = Annotated[tuple[Annotated[Network, PlainValidator(addresses.network)], ...] | None, _listed("network")]
_Certificates = Annotated[tuple[Annotated[str, PlainValidator(values.certificate_name)], ...] | None, _listed("name")]
_EndpointKind = Literal["nodes", "primary", "reader", "configuration"]
_Endpoints = Annotated[
    frozenset[
        Annotated[
            _EndpointKind,
            PlainValidator(values.choice("nodes", "primary", "reader", "configuration")),
        ]
    ]
    | None,
    _listed("of nodes, primary, reader, configuration"),
]
_Tags = Annotated[Mapping[str, Annotated[str, PlainValidator(values.tag_value)]] | None, _listed("tag")]


class Section(BaseModel):
    """A mapping in the file: frozen, and with no key but its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Listen(Section):
    """Where clients connect to."""

    address: Annotated[tuple[_IpAddress, ...], _listed("address")] = ("0.0.0.0",)
    ports: _Ports = None


class Aws(Section):
    """How AWS is asked."""

    region: Annotated[str | None, PlainValidator(values.optional(values.region))] = None
    endpoint_url: Annotated[str | None, PlainValidator(values.optional(addresses.endpoint_url))] = None
    role_arn: Annotated[str | None, PlainValidator(values.optional(values.role_arn))] = None
    refresh: _Positive = 15.0
    """Seconds between two rounds."""
    absent_after: _Positive = 60.0
    """Seconds after which a node missing from complete answers is gone."""


class Clients(Section):
    """Who may connect, and how."""

    allow: _Allow = None
    """None = everyone, which is refused beyond loopback where no certificate is demanded."""
    tls: Annotated[
        Literal["terminate", "off", "passthrough"],
        PlainValidator(values.choice("terminate", "off", "passthrough")),
    ] = "off"
    """Where it is not written and the section ``tls`` is, a settled config has ``terminate`` here."""
    certificates: _Certificates = None
    """Names of which a client's certificate must have one; None = any that client_ca vouches for."""
    max_connections: _Count = 4096
    max_connections_per_client: _Count = 512


class Nodes(Section):
    """How nodes are spoken to."""

    tls: Annotated[Literal["auto", "on", "off"], PlainValidator(values.choice("auto", "on", "off"))] = "auto"
    """auto = as AWS says of the cache; off for a static target."""
    ca: _OptionalFile = None
    """The CAs that vouch for nodes; None = the system's."""
    server_name: Annotated[str | None, PlainValidator(values.optional(addresses.host))] = None
    """What a node's certificate must name; None = the node's own host name."""


class Tls(Section):
    """What natproxy is a TLS server with. The files are named here, and never opened by this package."""

    certificate: _File
    """The certificate, then its intermediates."""
    key: _File
    client_ca: _OptionalFile = None
    """The CAs that vouch for clients; None = no certificate is asked of them."""
    crl: _OptionalFile = None
    """The revocation lists of those."""
    min_version: Annotated[Literal["1.2", "1.3"], PlainValidator(values.choice("1.2", "1.3"))] = "1.2"


class Timeouts(Section):
    """In seconds."""

    connect: _Positive = 3.0
    handshake: _Positive = 5.0
    """For each TLS handshake: the client's, and the node's."""
    idle: Annotated[float | None, PlainValidator(values.optional(values.duration(least="1us")))] = None
    """None = never."""
    keepalive: Annotated[float, PlainValidator(values.duration(least="1s", most="9h"))] = 30.0
    """The kernel counts whole seconds, up to 32767 of them."""
    drain: _Duration = 30.0
    stop: _Duration = 5.0


class Admin(Section):
    """Where the operator's read-only HTTP side listens, and who reaches it."""

    address: _IpAddress = "127.0.0.1"
    """Beyond loopback only with both of ``allow`` and ``tls``."""
    port: _Port = 9479
    allow: _Allow = None
    """None = everyone who reaches the address."""
    tls: Annotated[bool, PlainValidator(values.boolean)] = False
    """True = by the certificate of ``Tls``, and for those alone whom its client_ca vouches for."""


class Portal(Section):
    """Where developers find what they may use, over TLS with certificates of both sides."""

    port: Annotated[int | None, PlainValidator(values.optional(values.port))] = PORTAL_PORT
    """None = there is no portal, as where the section is not written."""
    allow: _Allow = None
    """None = everyone with a certificate that client_ca vouches for."""


class Log(Section):
    """How the log looks."""

    format: Annotated[
        Literal["text", "json"] | None, PlainValidator(values.optional(values.choice("text", "json")))
    ] = None
    """None = text on a terminal, else json."""
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        PlainValidator(values.choice("debug", "info", "warning", "error")),
    ] = "info"


class Probe(Section):
    """As whom natproxy asks the nodes of a cache for their roles. The file is named here, and never opened."""

    username: Annotated[str | None, PlainValidator(values.optional(values.username))] = None
    """None = the default user, by the password alone."""
    password_file: _OptionalFile = None
    """One of the two is written: this, or the secret."""
    secret_arn: Annotated[str | None, PlainValidator(values.optional(values.secret_arn))] = None


class Overrides(Section):
    """What an entry may say for itself; what it does not say is taken from the global values."""

    clients: Annotated[Clients, BeforeValidator(_or_empty)] = Clients()
    nodes: Annotated[Nodes, BeforeValidator(_or_empty)] = Nodes()
    timeouts: Annotated[Timeouts, BeforeValidator(_or_empty)] = Timeouts()
    rewrite: Annotated[
        Literal["auto", "off", "redis", "memcached"],
        PlainValidator(values.choice("auto", "off", "redis", "memcached")),
    ] = "auto"
    """auto = as AWS says of the cache; off for a static target."""


class WrittenCache(Overrides):
    """An entry of ``caches`` as it was written."""

    id: Annotated[str | None, PlainValidator(values.optional(values.cache_id))] = None
    tags: _Tags = None
    """All of them must be on the cache."""
    ports: _Ports = None
    """None = from listen.ports."""
    endpoints: _Endpoints = None
    """None = all that AWS has."""
    probe: Probe | None = None
    """None = nodes are asked for their roles without a password, where they let themselves be."""


class WrittenStatic(Overrides):
    """An entry of ``static`` as it was written."""

    name: Annotated[str, PlainValidator(values.static_name)]
    port: _Port
    target: Annotated[Endpoint, PlainValidator(addresses.target)]


class Written(Overrides):
    """The whole file as it was written."""

    public_host: Annotated[str | None, PlainValidator(values.optional(addresses.public_host))] = None
    public_ip: Annotated[str | None, PlainValidator(values.optional(addresses.public_ip))] = None
    listen: Annotated[Listen, BeforeValidator(_or_empty)] = Listen()
    aws: Annotated[Aws, BeforeValidator(_or_empty)] = Aws()
    caches: Annotated[tuple[WrittenCache, ...], BeforeValidator(_or_none)] = ()
    static: Annotated[tuple[WrittenStatic, ...], BeforeValidator(_or_none)] = ()
    tls: Tls | None = None
    """None = natproxy is no TLS server."""
    workers: Annotated[int | Literal["auto"], PlainValidator(values.workers)] = 1
    admin: Annotated[Admin, BeforeValidator(_or_empty)] = Admin()
    portal: Portal | None = None
    """None = there is none; a settled config has None where the port is null, too."""
    state_dir: Annotated[Path, PlainValidator(values.absolute_path)] = Path("/var/lib/natproxy")
    log: Annotated[Log, BeforeValidator(_or_empty)] = Log()
    resolver: Annotated[
        tuple[Annotated[str, PlainValidator(addresses.dns_server)], ...] | None,
        _listed("DNS server"),
    ] = None
    """None = the system's."""


class CacheEntry(WrittenCache):
    """An entry of ``caches`` with its effective values."""

    has_own_limits: bool = False
    """True where the entry itself writes a connection limit: its connections are then counted by themselves."""


class StaticEntry(WrittenStatic):
    """An entry of ``static`` with its effective values."""

    has_own_limits: bool = False


class Config(Written):
    """A config that has been found good."""

    path: Path
    caches: tuple[CacheEntry, ...] = ()
    static: tuple[StaticEntry, ...] = ()
    warnings: tuple[str, ...] = ()
    """What is allowed but should be known, each with file, line and place."""

    @property
    def worker_count(self) -> int:
        """How many workers run; ``auto`` = one for each processor that this process may use."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers

    @property
    def is_loopback_only(self) -> bool:
        """True where no other host can reach any port."""
        return all(addresses.is_loopback(address) for address in self.listen.address)

    @property
    def is_admin_port_taken(self) -> bool:
        """True where the admin side's port cannot be listened on for clients as well."""
        here = self.admin.address
        return any(addresses.covers(one, here) or addresses.covers(here, one) for one in self.listen.address)

    def own_ports(self) -> Mapping[int, str]:
        """Return the ports that clients cannot be served on as natproxy itself listens there, and what each is for."""
        own = {} if self.portal is None or self.portal.port is None else {self.portal.port: "the portal's port"}
        return {**own, self.admin.port: "the admin side's port"} if self.is_admin_port_taken else own

    @property
    def portal_port(self) -> int | None:
        """The portal's port; None = there is no portal."""
        return None if self.portal is None else self.portal.port

    @property
    def advertised(self) -> tuple[str, str]:
        """What clients are told to dial: the name or address, and the address; each empty where it is not known."""
        return self.public_host or "", self.public_ip or ""

    def demands_certificate(self, entry: Overrides) -> bool:
        """True where only clients with a certificate get through; the config itself stands for the global values."""
        return entry.clients.tls == "terminate" and self.vouches_for_clients

    @property
    def vouches_for_clients(self) -> bool:
        """True where there is a CA that clients' certificates can be of."""
        return self.tls is not None and self.tls.client_ca is not None

    def pool(self) -> tuple[int, ...]:
        """Return the ports for caches without a range of their own, ascending."""
        if self.listen.ports is None:
            return ()
        taken = {*(entry.port for entry in self.static), *self.own_ports()}
        for entry in self.caches:
            taken.update(entry.ports or ())
        return tuple(port for port in self.listen.ports if port not in taken)

    def candidate_ports(self, entry: CacheEntry) -> tuple[int, ...]:
        """Return the ports that the entry's caches may take, ascending: its own range, or the pool."""
        return self.pool() if entry.ports is None else tuple(entry.ports)

    def entry_for(self, cache_id: str, tags: Mapping[str, str]) -> CacheEntry | None:
        """Return the entry that a cache belongs to: the one with its id, else the first whose tags it all has."""
        by_id = (entry for entry in self.caches if entry.id == cache_id)
        by_tags = (entry for entry in self.caches if entry.tags and entry.tags.items() <= tags.items())
        return next(by_id, None) or next(by_tags, None)
