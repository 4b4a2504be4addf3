"""Judges what AWS lists: ids that lead to nothing, tags that no cache has, and the state of each cache. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from natproxy.config import CacheEntry, Config
from natproxy.discover.fields import LEAVING, Fields, Raw
from natproxy.discover.parse import RawAnswers
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.model import Cache, Mode, Snapshot

TAGS_OPERATION = "ListTagsForResource"

_AVAILABLE = "available"
_FAILED = frozenset({"create-failed", "restore-failed", "incompatible-network", "incompatible-parameters", "failed"})
_MENDS = {
    "create-failed": "AWS could not make it: look at its events (aws elasticache describe-events), and make it anew",
    "restore-failed": "AWS could not restore it from its backup: look at its events, and make it anew",
    "incompatible-network": "its subnets are full, or gone: mend its subnet group, or ask AWS's support",
    "incompatible-parameters": "its parameter group does not go with its engine's version: give it another one",
}
_WAIT = "wait until AWS is done: natproxy follows by itself"
_LEAVE = "take it out of the config, or name its successor: natproxy drains its ports and closes them"

GROUP, CLUSTER, SERVERLESS = "replication group", "cache cluster", "serverless cache"


def cache_findings(config: Config, answers: RawAnswers, snapshot: Snapshot, region: str) -> list[Finding]:
    """Judge every entry of the config, then every cache that is selected. ``region``: which one, and who said so."""
    listed = Listed(answers)
    findings = list(_entries(config, listed, snapshot, region))
    for cache in snapshot.caches:
        findings.extend(_states(cache, listed))
    return findings


class Listed:
    """What AWS listed, by id."""

    def __init__(self, answers: RawAnswers) -> None:
        self.groups = _by_id(answers.replication_groups, "ReplicationGroupId")
        self.clusters = _by_id(answers.cache_clusters, "CacheClusterId")
        self.serverless = _by_id(answers.serverless_caches, "ServerlessCacheName")
        self.tags = answers.tags
        self.has_all_tags = not any(failure.operation == TAGS_OPERATION for failure in answers.failures)
        self.missing = [
            kind
            for kind, listing in (
                (GROUP, answers.replication_groups),
                (CLUSTER, answers.cache_clusters),
                (SERVERLESS, answers.serverless_caches),
            )
            if listing is None
        ]

    def kinds(self) -> dict[str, str]:
        """Id -> what it is, of all that an entry may name; of a group's members, too."""
        return {
            **dict.fromkeys(self.serverless, SERVERLESS),
            **{
                cluster: f"a node of {self.group_of(cluster)}" if self.group_of(cluster) else CLUSTER
                for cluster in self.clusters
            },
            **dict.fromkeys(self.groups, GROUP),
        }

    def group_of(self, cluster: str) -> str:
        """Return the replication group that a cache cluster is a node of; empty where it is none."""
        return self.clusters[cluster].identifier("ReplicationGroupId") or ""

    def members(self, group: str) -> list[str]:
        """Name the cache clusters of a replication group."""
        return [cluster for cluster in self.clusters if self.group_of(cluster) == group]

    def security_groups(self, cache: Cache) -> tuple[str, ...]:
        """Name the security groups of a cache, of all its nodes."""
        if cache.mode is Mode.SERVERLESS:
            fields = self.serverless.get(cache.id)
            return () if fields is None else tuple(fields.identifiers("SecurityGroupIds"))
        found = [
            item.identifier("SecurityGroupId")
            for cluster in (cache.id, *self.members(cache.id))
            if cluster in self.clusters
            for item in self.clusters[cluster].structures("SecurityGroups")
        ]
        return tuple(dict.fromkeys(name for name in found if name))


def _entries(config: Config, listed: Listed, snapshot: Snapshot, region: str) -> Iterator[Finding]:
    used = {cache.entry for cache in snapshot.caches}
    kinds = listed.kinds()
    if config.caches and not kinds and not listed.missing:
        evidence = f"AWS lists no cache at all in {region}"
        mend = "write the region that the caches are in as aws.region, or use the credentials of their account"
        yield Finding(Check.CACHES, "", Verdict.BAD, evidence, mend)
        return
    for index, entry in enumerate(config.caches):
        if index in used:
            continue
        subject = f"caches[{index}]"
        if listed.missing and not (entry.id in listed.clusters and listed.group_of(entry.id)):
            evidence = f"{_wanted(entry)} is not among what could be asked for; not listed: {', '.join(listed.missing)}"
            near = _near_misses(entry.id or "", kinds)
            mend = (
                f"see the permissions above; what has a name like it: {near}" if near else "see the permissions above"
            )
            yield Finding(Check.CACHES, subject, Verdict.UNKNOWN, evidence, mend)
        elif entry.id is not None:
            yield _unknown_id(subject, entry.id, listed, kinds, region)
        elif not listed.has_all_tags:
            evidence = f"whether there is {_wanted(entry)} is not known: tags could not be read"
            yield Finding(Check.CACHES, subject, Verdict.UNKNOWN, evidence, "see the permissions above")
        else:
            yield _unmatched_tags(subject, entry, listed, region)


def _wanted(entry: CacheEntry) -> str:
    if entry.id is not None:
        return entry.id
    return "a cache with " + ", ".join(f"{key}={value}" for key, value in (entry.tags or {}).items())


def _unknown_id(subject: str, wanted: str, listed: Listed, kinds: Mapping[str, str], region: str) -> Finding:
    if wanted in listed.clusters and (group := listed.group_of(wanted)):
        evidence = f"{wanted} is a node of the replication group {group}, and not a cache of its own"
        return Finding(Check.CACHES, subject, Verdict.BAD, evidence, f"write id: {group}")
    if near := _near_misses(wanted, kinds):
        mend = f"write the id of one of these, if it is meant: {near}"
    else:
        named = ", ".join(cache_id for cache_id, kind in sorted(kinds.items()) if not kind.startswith("a node"))
        mend = f"write one that exists there: {_cut(named)}; or the region that it is in as aws.region"
    return Finding(Check.CACHES, subject, Verdict.BAD, f"AWS knows no cache called {wanted} in {region}", mend)


def _near_misses(wanted: str, kinds: Mapping[str, str]) -> str:
    """Name caches with an id like that, else nodes. AWS keeps ids in lower case, and the config has to."""
    caches = sorted(cache_id for cache_id, kind in kinds.items() if not kind.startswith("a node"))
    near = difflib.get_close_matches(wanted, caches) or difflib.get_close_matches(wanted, sorted(kinds))
    return ", ".join(f"{cache_id} ({kinds[cache_id]})" for cache_id in near)


def _unmatched_tags(subject: str, entry: CacheEntry, listed: Listed, region: str) -> Finding:
    evidence = f"no cache in {region} has the tags {_wanted(entry).removeprefix('a cache with ')}"
    seen = sorted({f"{key}={value}" for tags in listed.tags.values() for key, value in tags.items()})
    near = [
        match
        for key, value in (entry.tags or {}).items()
        for match in difflib.get_close_matches(f"{key}={value}", seen, cutoff=0.5)
    ]
    named = ", ".join(dict.fromkeys(near)) or _cut(", ".join(seen)) or "none at all"
    mend = f"tag the caches that are meant (aws elasticache add-tags-to-resource); tags that caches have: {named}"
    return Finding(Check.CACHES, subject, Verdict.BAD, evidence, mend)


def _states(cache: Cache, listed: Listed) -> Iterator[Finding]:
    """Judge a cache, and each of its nodes that is not as it should be."""
    fields = _fields(cache, listed)
    if fields is None:
        evidence = "not among what could be asked for; known from the state file"
        yield Finding(Check.CACHES, cache.id, Verdict.UNKNOWN, evidence)
        return
    status = fields.word("Status") or fields.word("CacheClusterStatus")
    amount = f"{len(cache.nodes)} {'node' if len(cache.nodes) == 1 else 'nodes'}"
    what = f"{_kind(cache)}, {amount}" if cache.nodes else _kind(cache)
    findings = list(_troubled(cache.id, status, "cache"))
    for cluster in (cache.id, *listed.members(cache.id)):
        if cluster in listed.clusters and cache.mode is not Mode.SERVERLESS and not cache.is_deleting:
            findings.extend(_troubled_nodes(cluster, listed.clusters[cluster], is_member=cluster != cache.id))
    if not findings and not cache.is_complete:
        evidence = f"{what}: AWS's answer leaves out a part of it, so that natproxy closes nothing of it"
        findings.append(Finding(Check.CACHES, cache.id, Verdict.WARNING, evidence, "ask again in a minute"))
    yield from findings or (Finding(Check.CACHES, cache.id, Verdict.GOOD, f"{what}: available"),)


def _kind(cache: Cache) -> str:
    return cache.engine if cache.mode is Mode.MEMCACHED else f"{cache.engine or 'cache'}, {cache.mode}"


def _troubled(subject: str, status: str, what: str) -> Iterator[Finding]:
    if status in ("", _AVAILABLE):
        return
    if status in _FAILED:
        yield Finding(
            Check.CACHES, subject, Verdict.BAD, f"the {what} is {status}", _MENDS.get(status, _MENDS["create-failed"])
        )
    elif status in LEAVING:
        verdict = Verdict.BAD if what == "cache" else Verdict.WARNING
        yield Finding(
            Check.CACHES, subject, verdict, f"AWS is deleting the {what}", _LEAVE if what == "cache" else _WAIT
        )
    elif status == "creating":
        evidence = f"the {what} is creating: AWS gives it no endpoints before it is done"
        yield Finding(Check.CACHES, subject, Verdict.WARNING, evidence, _WAIT)
    else:
        yield Finding(Check.CACHES, subject, Verdict.WARNING, f"the {what} is {status}", _WAIT)


def _troubled_nodes(cluster: str, fields: Fields, *, is_member: bool) -> Iterator[Finding]:
    if is_member and (found := list(_troubled(cluster, fields.word("CacheClusterStatus"), "node"))):
        yield from found
        return
    for node in fields.structures("CacheNodes"):
        name = f"{cluster}/{node.identifier('CacheNodeId') or '?'}"
        yield from _troubled(name, node.word("CacheNodeStatus"), "node")


def _fields(cache: Cache, listed: Listed) -> Fields | None:
    if cache.mode is Mode.SERVERLESS:
        return listed.serverless.get(cache.id)
    return listed.groups.get(cache.id) or listed.clusters.get(cache.id)


def _by_id(items: Sequence[Raw] | None, name: str) -> dict[str, Fields]:
    fields = [Fields(item, set()) for item in items or ()]
    return {cache_id: one for one in fields if (cache_id := one.identifier(name)) is not None}


def _cut(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}..."
