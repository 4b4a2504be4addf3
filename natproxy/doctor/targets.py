"""What this host should be able to reach: every node, endpoint and static target, with what it should speak. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from natproxy.config import CacheEntry, Config, StaticEntry
from natproxy.model import Cache, Endpoint, NodeTls, RouteKey, Snapshot


@dataclass(frozen=True, slots=True)
class Target:
    """One name and port that is to be dialled."""

    subject: str
    """As ``natproxy routes`` names it: ``cluster/node``, ``cache:kind``, or a static route's name."""
    host: str
    port: int
    tls: bool
    """What it is expected to speak, by AWS's word or the config's."""
    server_name: str | None
    """What its certificate must name; None = the host name."""
    ca: str | None
    """The file of CAs that vouch for it; None = the system's roots."""
    is_static: bool = False
    cache: str = ""
    """The id of its cache; empty for a static target."""
    may_be_local: bool = False
    """A loopback address is good here: natproxy refuses to dial one that a cache's name resolves to."""
    is_opaque: bool = False
    """Nobody has said what it speaks: clients talk to it past natproxy (a static passthrough)."""

    def __str__(self) -> str:
        return str(Endpoint(self.host, self.port))


def targets_of(config: Config, snapshot: Snapshot) -> tuple[Target, ...]:
    """Name all that the config's routes lead to; what AWS is deleting or has given no endpoint yet is left out.

    Every node of a selected cache is among them, also one that has no port: clients may be led there by an endpoint.
    """
    found = dict.fromkeys(target for cache in snapshot.caches for target in _of_cache(config, cache))
    return (*found, *(_of_static(config, static) for static in config.static))


def _of_cache(config: Config, cache: Cache) -> Iterator[Target]:
    if cache.is_deleting:
        return
    entry = config.caches[cache.entry]
    for node in cache.nodes:
        if node.endpoint is not None and not node.is_deleting:
            yield _target(config, entry, str(node.id), node.endpoint, cache)
    for kind, endpoint in cache.endpoints.items():
        if entry.endpoints is None or kind.value in entry.endpoints:
            yield _target(config, entry, str(RouteKey(cache.id, kind)), endpoint, cache)


def _target(config: Config, entry: CacheEntry, subject: str, endpoint: Endpoint, cache: Cache) -> Target:
    is_passed = entry.clients.tls == "passthrough"
    told = cache.tls is not NodeTls.OFF
    tls = told if entry.nodes.tls == "auto" or is_passed else entry.nodes.tls == "on"
    return Target(
        subject=subject,
        host=endpoint.host,
        port=endpoint.port,
        tls=tls,
        server_name=entry.nodes.server_name,
        ca=None if entry.nodes.ca is None else str(entry.nodes.ca),
        cache=cache.id,
        may_be_local=config.is_loopback_only,
    )


def _of_static(config: Config, static: StaticEntry) -> Target:
    return Target(
        subject=static.name,
        host=static.target.host,
        port=static.target.port,
        tls=static.nodes.tls == "on" and static.clients.tls != "passthrough",
        server_name=static.nodes.server_name,
        ca=None if static.nodes.ca is None else str(static.nodes.ca),
        is_static=True,
        may_be_local=True,
        is_opaque=static.clients.tls == "passthrough",
    )
