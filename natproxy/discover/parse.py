"""The raw answers of one round -> a Snapshot of the caches that the config selects. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from natproxy.config import Config
from natproxy.discover.caches import cluster_cache, group_cache, serverless_cache
from natproxy.discover.fields import Fields, Raw
from natproxy.model import Cache, Snapshot


class Failure(NamedTuple):
    """One question that AWS did not answer in a round."""

    operation: str
    """The AWS operation, such as ``DescribeCacheClusters``."""
    reason: str
    """One of ``model.DiscoveryFailure``."""
    message: str


@dataclass(frozen=True, slots=True)
class RawAnswers:
    """What AWS said in one round, all pages, as boto3 returns it. A listing that failed is None."""

    replication_groups: Sequence[Raw] | None
    cache_clusters: Sequence[Raw] | None
    serverless_caches: Sequence[Raw] | None
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """ARN -> tags as last known; an ARN whose tags were never told is not in it."""
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """Something that is a cache, before it is known whether the config wants it."""

    id: str
    what: str
    """What AWS calls its kind."""
    raw: Raw
    arn: str | None


@dataclass(frozen=True, slots=True)
class _Account:
    """All that the answers tell of, before the config is looked at."""

    caches: Mapping[str, _Found]
    twins: Mapping[str, str]
    """Id -> the kind of cache that is not served because another kind has the same id."""
    members: Mapping[str, Mapping[str, Raw]]
    """Replication group id -> cache cluster id -> the cluster as described."""
    group_of: Mapping[str, str]
    """Cache cluster id -> the replication group it is a node of."""
    has_all_listings: bool
    """Whether every listing was answered and every item in it has a name."""
    has_all_but_serverless: bool


def parse_snapshot(raw: RawAnswers, config: Config) -> Snapshot:
    """Reduce a round's answers to what the config selects. Never raises, whatever is wrong with the answers."""
    account = _read_account(raw)
    wants_tags = any(entry.tags is not None for entry in config.caches)
    caches: list[Cache] = []
    has_all_tags = True
    for found in account.caches.values():
        tags = raw.tags.get(found.arn) if found.arn is not None else None
        entry = config.entry_for(found.id, tags or {})
        if entry is not None:
            index = next(number for number, candidate in enumerate(config.caches) if candidate is entry)
            known_tags = dict(tags) if wants_tags and tags is not None else None
            caches.append(replace(_cache(found, account), entry=index, tags=known_tags))
        elif wants_tags and tags is None:
            has_all_tags = False
    caches.sort(key=lambda cache: (cache.entry, cache.id))
    has_all_ids = all(entry.id is None or entry.id in account.caches for entry in config.caches)
    has_all_listings = account.has_all_listings or (account.has_all_but_serverless and has_all_ids and not wants_tags)
    return Snapshot(
        caches=tuple(caches),
        is_complete=has_all_listings and has_all_tags,
        is_empty=not account.caches,
        notes=tuple(_notes(config, account, caches, has_all_tags=has_all_tags)),
    )


def _cache(found: _Found, account: _Account) -> Cache:
    if found.what == "replication group":
        return group_cache(found.id, found.raw, account.members.get(found.id, {}))
    if found.what == "cache cluster":
        return cluster_cache(found.id, found.raw)
    return serverless_cache(found.id, found.raw)


def _read_account(raw: RawAnswers) -> _Account:
    groups = _listing("replication group", "ReplicationGroupId", raw.replication_groups)
    clusters = _listing("cache cluster", "CacheClusterId", raw.cache_clusters)
    serverless = _listing("serverless cache", "ServerlessCacheName", raw.serverless_caches)
    group_of, has_all_groups = _group_of(groups.found, clusters.found)
    members: dict[str, dict[str, Raw]] = {}
    loose: list[_Found] = []
    for cluster in clusters.found:
        if cluster.id in group_of:
            members.setdefault(group_of[cluster.id], {}).setdefault(cluster.id, cluster.raw)
        else:
            loose.append(cluster)
    caches: dict[str, _Found] = {}
    twins: dict[str, str] = {}
    for found in (*groups.found, *loose, *serverless.found):
        if caches.setdefault(found.id, found).what != found.what:
            twins[found.id] = found.what
    # An empty list that the other one contradicts says nothing of memcached either.
    is_contradicted = not clusters.found and bool(group_of)
    has_nodes = groups.is_whole and clusters.is_whole and has_all_groups and not is_contradicted
    return _Account(caches, twins, members, group_of, has_nodes and serverless.is_whole, has_nodes)


class _Listing(NamedTuple):
    found: list[_Found]
    is_whole: bool


def _listing(what: str, id_field: str, items: Sequence[object] | None) -> _Listing:
    """Name every item of a listing; one without a name makes it less than whole."""
    found: list[_Found] = []
    is_whole = items is not None
    for item in items or ():
        fields = Fields(item, set()) if isinstance(item, Mapping) else None
        name = fields.identifier(id_field) if fields is not None else None
        if fields is None or name is None:
            is_whole = False
        else:
            found.append(_Found(name, what, fields.raw, fields.text("ARN")))
    return _Listing(found, is_whole)


def _group_of(groups: Sequence[_Found], clusters: Sequence[_Found]) -> tuple[dict[str, str], bool]:
    """Cache cluster id -> its group, as either side tells; and whether every group that a cluster names is listed.

    Both sides are asked, so that a cluster whose ReplicationGroupId is damaged is not taken for a standalone cache.
    """
    group_of = {cluster: group.id for group in groups for cluster in _named_members(group)}
    is_whole = True
    listed = {group.id for group in groups}
    for cluster in clusters:
        doubts: set[str] = set()
        group_id = Fields(cluster.raw, doubts).identifier("ReplicationGroupId")
        if group_id is not None:
            group_of.setdefault(cluster.id, group_id)
        elif doubts:
            group_of.setdefault(cluster.id, "")
        is_whole = is_whole and (cluster.id not in group_of or group_of[cluster.id] in listed)
    return group_of, is_whole


def _named_members(group: _Found) -> Iterator[str]:
    fields = Fields(group.raw, set())
    yield from fields.identifiers("MemberClusters")
    for shard in fields.structures("NodeGroups"):
        for member in shard.structures("NodeGroupMembers"):
            name = member.identifier("CacheClusterId")
            if name is not None:
                yield name


def _notes(config: Config, account: _Account, caches: Sequence[Cache], *, has_all_tags: bool) -> Iterator[str]:
    """What the operator should be told once: entries that lead to nothing, and ids that mean two things."""
    used = {cache.entry for cache in caches}
    for index, entry in enumerate(config.caches):
        where = f"caches[{index}]"
        if entry.id is not None and entry.id in account.twins:
            served = account.caches[entry.id].what
            yield f"{where}: {entry.id} is both a {served} and a {account.twins[entry.id]}; the {served} is served"
        if index in used:
            continue
        if entry.id is None:
            if account.has_all_listings and has_all_tags:
                tags = ", ".join(f"{key}={value}" for key, value in (entry.tags or {}).items())
                yield f"{where}: no cache has the tags {tags}"
        elif group := account.group_of.get(entry.id):
            yield f"{where}: {entry.id} is a node of the replication group {group}; write id: {group}"
        elif account.has_all_listings and entry.id not in account.caches:
            yield f"{where}: AWS knows no cache called {entry.id}{_near_misses(entry.id, account)}"


def _near_misses(wanted: str, account: _Account) -> str:
    by_lower = {cache_id.lower(): cache_id for cache_id in sorted(account.caches)}
    near = [by_lower[match] for match in difflib.get_close_matches(wanted.lower(), by_lower)]
    return f"; did you mean {' or '.join(near)}?" if near else ""
