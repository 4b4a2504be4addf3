"""What is held back: an empty or partial answer, or a first absence, closes nothing. Pure.

AWS leaves facts out while a cluster is modified, and a listing may fail or come back empty. So what was known stays
known until complete answers have come without it for ``absent_after``, or AWS had said before that it is deleting it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from natproxy.config import Config
from natproxy.model import Cache, Kind, Node, RouteKey, Snapshot
from natproxy.plan.ports import natural_key


@dataclass(frozen=True, slots=True)
class Known:
    """What exists as far as is known, and what of it the newest complete answers no longer hold."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    missing_since: Mapping[RouteKey | str, float] = field(default_factory=dict)
    """A node's or endpoint's key, or a cache's id -> time of the first complete answer without it."""


def hold_back(known: Known, fresh: Snapshot, now: float, absent_after: float) -> Known:
    """Take a fresh answer in; what is missing from it stays for as long as the guard demands.

    Only a complete answer (of the whole, and for a node of its cache too) can start or end an absence, and it takes two
    at least: the first to miss something, and one ``absent_after`` seconds later. An account that looks
    empty counts as partial. What AWS was deleting goes with the first complete answer without it.
    """
    return _Round(known, fresh, now, absent_after).run()


def select(known: Known, config: Config) -> Known:
    """Keep what a new config still selects, each cache with the entry it belongs to now; the rest goes at once."""
    caches = []
    for cache in known.snapshot.caches:
        entry = config.entry_for(cache.id, cache.tags or {})
        if entry is not None:
            index = next(index for index, candidate in enumerate(config.caches) if candidate is entry)
            caches.append(replace(cache, entry=index))
    return _known(replace(known.snapshot, caches=tuple(caches)), known.missing_since)


class _Round:
    """One run of ``hold_back``; ``missing`` is the next round's ``missing_since``."""

    def __init__(self, known: Known, fresh: Snapshot, now: float, absent_after: float) -> None:
        self._known = known
        self._fresh = fresh
        self._now = now
        self._absent_after = absent_after
        self._missing: dict[RouteKey | str, float] = {}
        is_empty = not fresh.caches if fresh.is_empty is None else fresh.is_empty
        self._is_complete = fresh.is_complete and not is_empty

    def run(self) -> Known:
        before = {cache.id: cache for cache in self._known.snapshot.caches}
        caches = [self._merge(before[cache.id], cache) if cache.id in before else cache for cache in self._fresh.caches]
        answered = {cache.id for cache in self._fresh.caches}
        held = [
            cache
            for cache in before.values()
            if cache.id not in answered and self._stays(cache.id, self._is_complete, cache.is_deleting)
        ]
        caches += held
        # What a cache that is not told of at all was missing before, it still misses.
        held_ids = {cache.id for cache in held}
        for key, since in self._known.missing_since.items():
            if isinstance(key, RouteKey) and key.cache in held_ids:
                self._missing[key] = since
        return _known(replace(self._fresh, caches=tuple(caches)), self._missing)

    def _stays(self, key: RouteKey | str, is_complete: bool, is_deleting: bool) -> bool:
        """Tell whether something that this answer does not hold stays, and note how long it has been missing."""
        since = self._known.missing_since.get(key)
        if not is_complete:
            if since is not None:
                self._missing[key] = since
            return True
        if is_deleting:
            return False
        if since is not None and self._now - since >= self._absent_after:
            return False
        # A clock that was set back must not keep the absent one for as long as it was set back by.
        self._missing[key] = self._now if since is None else min(since, self._now)
        return True

    def _merge(self, old: Cache, new: Cache) -> Cache:
        # A cache with neither nodes nor endpoints is what AWS shows while it creates or deletes one.
        is_complete = self._is_complete and new.is_complete and bool(new.nodes or new.endpoints)
        is_made_anew = old.is_deleting and not new.is_deleting
        nodes = self._merge_nodes(old, new, is_complete, is_made_anew)
        endpoints = dict(new.endpoints)
        for kind, endpoint in old.endpoints.items():
            if kind not in endpoints and self._stays(RouteKey(old.id, kind), is_complete, is_made_anew):
                endpoints[kind] = endpoint
        merged = replace(new, nodes=nodes, endpoints=endpoints, engine=new.engine or old.engine)
        if new.tags is None:
            merged = replace(merged, tags=old.tags)
        if not new.is_complete:
            merged = replace(merged, engine=old.engine or new.engine, mode=old.mode, tls=old.tls)
        return merged

    def _merge_nodes(self, old: Cache, new: Cache, is_complete: bool, is_made_anew: bool) -> tuple[Node, ...]:
        before = {node.id: node for node in old.nodes if not is_made_anew}
        nodes = [_merge_node(before.get(node.id), node, new.is_complete) for node in new.nodes]
        answered = {node.id for node in new.nodes}
        nodes += [
            node
            for node in old.nodes
            if node.id not in answered
            and self._stays(RouteKey(old.id, Kind.NODE, node.id), is_complete, node.is_deleting or is_made_anew)
        ]
        return tuple(sorted(nodes, key=lambda node: tuple(natural_key(part) for part in node.id)))


def _merge_node(old: Node | None, new: Node, is_complete: bool) -> Node:
    """Fill in what the answer leaves out: a rebuilt node's endpoint and zone, and in a partial answer its role.

    Only a complete answer takes a deletion back, with a node made anew: one that goes between two listings is still
    named by the first of them, and described by neither.
    """
    if old is None:
        return new
    if old.is_deleting and not new.is_deleting:
        return new if is_complete else old
    role = old.role if new.role is None and not is_complete else new.role
    return replace(new, endpoint=new.endpoint or old.endpoint, zone=new.zone or old.zone, role=role)


def _known(snapshot: Snapshot, missing_since: Mapping[RouteKey | str, float]) -> Known:
    caches = tuple(sorted(snapshot.caches, key=lambda cache: (cache.entry, natural_key(cache.id))))
    return Known(replace(snapshot, caches=caches), _only_of(missing_since, caches))


def _only_of(missing_since: Mapping[RouteKey | str, float], caches: Iterable[Cache]) -> dict[RouteKey | str, float]:
    ids = {cache.id for cache in caches}
    return {
        key: since for key, since in missing_since.items() if (key.cache if isinstance(key, RouteKey) else key) in ids
    }
