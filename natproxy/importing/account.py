"""Which nodes there are, and where their names lead, asked once. I/O: talks to AWS and to DNS servers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from natproxy.config import Aws, CacheEntry, Config
from natproxy.config.values import cache_id
from natproxy.discover.elasticache import ElastiCache
from natproxy.discover.names import Names
from natproxy.discover.parse import RawAnswers, parse_snapshot
from natproxy.model import Snapshot

NAMES_SECONDS = 15.0
"""How long all names together may take."""

_ID_FIELDS = ("ReplicationGroupId", "CacheClusterId", "ServerlessCacheName")


@dataclass(frozen=True, slots=True)
class Account:
    """What AWS and DNS said."""

    raw: RawAnswers
    snapshot: Snapshot
    """Every cache there is; ``Cache.entry`` means nothing in it."""
    addresses: Mapping[str, tuple[str, ...]]
    """Host name -> its addresses; one that does not resolve is not in it."""
    doubts: tuple[str, ...] = ()
    """What could not be found out, in words for the operator."""


NOT_ASKED = Account(RawAnswers((), (), ()), Snapshot(), {})


async def ask_account(aws: Aws, resolver: tuple[str, ...] | None) -> Account:
    """Ask AWS for every cache, and DNS for every name of theirs. Raises DiscoveryError where AWS cannot be asked."""
    elasticache = ElastiCache(aws)
    try:
        raw = await elasticache.fetch(want_tags=False)
    finally:
        await elasticache.close()
    snapshot = parse_snapshot(raw, everything(raw))
    hosts = {endpoint.host for cache in snapshot.caches for endpoint in cache.endpoints.values()}
    hosts.update(node.endpoint.host for cache in snapshot.caches for node in cache.nodes if node.endpoint is not None)
    addresses, failures = await resolve(hosts, resolver)
    doubts = [f"{failure.operation}: {failure.message}" for failure in raw.failures]
    doubts += [
        f"what AWS says of {cache.id} is not complete (is it being created, or changed?): a node that is missing in it "
        "now may take another one's port later"
        for cache in snapshot.caches
        if not (cache.is_complete or cache.is_deleting)
    ]
    doubts += [
        f"{host}: {reason}; rules that lead to its address are not recognised"
        for host, reason in sorted(failures.items())
    ]
    return Account(raw, snapshot, addresses, tuple(doubts))


def everything(raw: RawAnswers) -> Config:
    """Return a config that selects every cache the answers name. Pure."""
    names = dict.fromkeys(_names(raw))
    return Config(path=Path("-"), caches=tuple(CacheEntry(id=name) for name in names))


async def resolve(
    hosts: Collection[str], resolver: tuple[str, ...] | None, seconds: float = NAMES_SECONDS
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the addresses of each host, and why each of the others has none."""
    addresses: dict[str, tuple[str, ...]] = {}
    failures = dict.fromkeys(hosts, "no DNS server has answered in time")
    is_done = asyncio.Event()
    waiting = set(hosts)

    def on_answer(host: str, found: tuple[str, ...] | None, reason: str) -> None:
        waiting.discard(host)
        if found:
            addresses[host] = found
            failures.pop(host, None)
        elif host not in addresses:
            failures[host] = reason
        if not waiting:
            is_done.set()

    if hosts:
        names = Names(resolver, on_answer)
        try:
            names.watch(hosts)
            async with asyncio.timeout(seconds):
                await is_done.wait()
        except TimeoutError:
            pass  # what has not answered is among the failures
        finally:
            await names.close()
    return addresses, failures


def _names(raw: RawAnswers) -> Iterator[str]:
    """Yield what may be the id of a cache; a member of a group selects nothing."""
    listings = (raw.replication_groups, raw.cache_clusters, raw.serverless_caches)
    for field_name, listing in zip(_ID_FIELDS, listings, strict=True):
        for item in listing or ():
            try:
                name = cache_id(item.get(field_name))
            except (ValueError, AttributeError):
                continue
            if isinstance(name, str):
                yield name
