"""What clients will run into although every port is open: by the config, and by what AWS says of the caches. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from natproxy.config import CacheEntry, Config
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.model import Cache, Kind, Mode, Route, Snapshot

DISCOVERED = (Mode.CLUSTER_ENABLED, Mode.CLUSTER_COMPATIBLE, Mode.SERVERLESS, Mode.MEMCACHED)
"""Caches whose clients ask them for their nodes."""


def client_findings(config: Config, snapshot: Snapshot, routes: Sequence[Route]) -> list[Finding]:
    """Return what to tell whoever operates clients; one good finding where there is nothing to tell."""
    found = [
        *_unadvertised(config, routes),
        *(finding for cache in snapshot.caches for finding in _of_cache(config, cache, routes)),
        *_static_discovery(config),
    ]
    if found:
        return found
    return [Finding(Check.CLIENTS, "", Verdict.GOOD, "what clients are told leads them to ports of natproxy's")]


def _of_cache(config: Config, cache: Cache, routes: Sequence[Route]) -> Iterator[Finding]:
    if cache.is_deleting:
        return
    entry = config.caches[cache.entry]
    yield from _passed_through(cache, entry)
    if cache.mode is Mode.SERVERLESS:
        yield from _second_port(cache, entry, routes)
    elif cache.mode in DISCOVERED:
        yield from _nodes_left_out(cache, entry, routes)
    if cache.mode is Mode.MEMCACHED:
        yield from _discovery_by_name(config, cache, routes)


def _unadvertised(config: Config, routes: Sequence[Route]) -> Iterator[Finding]:
    rewritten = sorted({route.key.cache for route in routes if route.rewrite})
    if config.public_host is None and rewritten and not config.is_loopback_only:
        evidence = (
            f"public_host is missing: clients of {_listed(rewritten)} that ask for the nodes are told the address at "
            "which they reached this host, and behind an Elastic IP that is one which they cannot dial"
        )
        mend = "write public_host: the DNS name or Elastic IP that clients dial"
        yield Finding(Check.CLIENTS, "public_host", Verdict.WARNING, evidence, mend)


def _passed_through(cache: Cache, entry: CacheEntry) -> Iterator[Finding]:
    if entry.clients.tls == "passthrough" and cache.mode in DISCOVERED and entry.rewrite != "off":
        evidence = (
            "clients speak TLS with the node itself, so natproxy cannot rewrite what it says: those that ask for the "
            "nodes are told addresses that only this side can reach"
        )
        mend = (
            "write clients: {tls: terminate} for it (with a `tls` section), give clients a map of addresses of their "
            "own, or write rewrite: off where this is meant"
        )
        yield Finding(Check.CLIENTS, cache.id, Verdict.WARNING, evidence, mend)


def _second_port(cache: Cache, entry: CacheEntry, routes: Sequence[Route]) -> Iterator[Finding]:
    """Serverless has a port for reads from replicas beside its own (6380 beside 6379)."""
    if Kind.READER not in cache.endpoints:
        return
    if not any(route.key.cache == cache.id and route.key.kind is Kind.READER for route in routes):
        why = "`endpoints` leaves reader out" if entry.endpoints and "reader" not in entry.endpoints else "none is left"
        evidence = (
            f"its second port ({cache.endpoints[Kind.READER].port}, for reads from replicas) has no port here: {why}"
        )
        mend = (
            "write reader among its `endpoints`, and leave room for two ports, or have clients not read from replicas"
        )
        yield Finding(Check.CLIENTS, cache.id, Verdict.WARNING, evidence, mend)


def _nodes_left_out(cache: Cache, entry: CacheEntry, routes: Sequence[Route]) -> Iterator[Finding]:
    own = [route for route in routes if route.key.cache == cache.id]
    if any(route.key.kind is Kind.NODE for route in own) or not any(route.rewrite for route in own):
        return
    if entry.endpoints is not None and "nodes" not in entry.endpoints:
        evidence = "clients ask it for its nodes, and none of them has a port here: `endpoints` leaves nodes out"
        mend = "write nodes among its `endpoints`, or leave `endpoints` out"
        yield Finding(Check.CLIENTS, cache.id, Verdict.WARNING, evidence, mend)


def _discovery_by_name(config: Config, cache: Cache, routes: Sequence[Route]) -> Iterator[Finding]:
    is_served = any(route.key.cache == cache.id and route.key.kind is Kind.CONFIGURATION for route in routes)
    if is_served and config.public_host is not None and ".cfg." not in config.public_host:
        evidence = (
            "its configuration endpoint is served; Amazon's Java client for memcached looks for the nodes only where "
            f"the name that it dials has `.cfg.` in it, which {config.public_host} has not (others do not mind)"
        )
        mend = "only for that client: give this host a second name such as cache.cfg.dev.example.com"
        yield Finding(Check.CLIENTS, cache.id, Verdict.GOOD, evidence, mend)


def _static_discovery(config: Config) -> Iterator[Finding]:
    for static in config.static:
        cache_id = _cluster_of(static.target.host)
        if cache_id is not None:
            evidence = (
                f"{static.target} tells clients of a cluster's nodes, and natproxy does not know those of a static "
                "target: clients are told addresses that only this side can reach"
            )
            mend = f"write it under `caches` as id: {cache_id}, with {static.port} among its ports"
            yield Finding(Check.CLIENTS, static.name, Verdict.WARNING, evidence, mend)


def _cluster_of(host: str) -> str | None:
    """Return the id in a configuration endpoint's name; None where the name is none of ElastiCache's.

    ``N.x.cfg.use1.cache.amazonaws.com``, ``G.x.clustercfg.use1...``, ``clustercfg.G.x.use1...``.
    """
    labels = host.lower().removesuffix(".").split(".")
    if labels[0] == "clustercfg" and len(labels) > 2:
        return labels[1]
    if len(labels) > 3 and labels[2] in {"cfg", "clustercfg"}:
        return labels[0]
    return None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
