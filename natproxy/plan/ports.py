"""Which port belongs to whom: sticky, deterministic, and a gone node's number is never handed on in silence. Pure.

A key keeps its port as long as the ports its config entry may use hold it. A new key takes the lowest free one, in the
guide's order: the nodes by id, then primary, reader, configuration. The port of a gone key stays reserved; another key
of the same cache gets it only when nothing else is left, the longest gone first. Static ports are the config's own and
never in the map.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from natproxy.config import CacheEntry, Config
from natproxy.errors import ReleaseError
from natproxy.model import ENDPOINT_KINDS, Cache, Kind, PortEntry, PortMap, RouteKey, Snapshot

NO_ROOM = "no port is left for it in {ports}"
NO_PORTS = "no ports are written for it: neither `ports` under its cache nor `listen.ports`"

_DIGITS = re.compile("([0-9]+)")


@dataclass(frozen=True, slots=True)
class Assignment:
    """What ``assign_ports`` found."""

    portmap: PortMap
    errors: Mapping[RouteKey, str] = field(default_factory=dict)
    """Keys that exist and have no port they may use, and why."""
    warnings: tuple[str, ...] = ()
    """Changes to the map an operator should know of: each is told by the round that makes it, and not again."""


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Return a sort key that counts: ``-2`` before ``-10``, ``-0002`` before ``-0010``."""
    return tuple(int(part) if part.isdecimal() else part for part in _DIGITS.split(name)), name


def wanted_keys(cache: Cache, entry: CacheEntry) -> tuple[RouteKey, ...]:
    """Name the routes a cache should have, in the order in which they take ports. Deleting ones count as gone."""
    if cache.is_deleting:
        return ()
    kinds = entry.endpoints
    nodes = sorted(
        (node.id for node in cache.nodes if not node.is_deleting and (kinds is None or "nodes" in kinds)),
        key=lambda node_id: (natural_key(node_id.cluster), natural_key(node_id.node)),
    )
    endpoints = [kind for kind in ENDPOINT_KINDS if kind in cache.endpoints and (kinds is None or kind.value in kinds)]
    return (
        *(RouteKey(cache.id, Kind.NODE, node_id) for node_id in dict.fromkeys(nodes)),
        *(RouteKey(cache.id, kind) for kind in endpoints),
    )


def assign_ports(portmap: PortMap, snapshot: Snapshot, config: Config, now: float) -> Assignment:
    """Give every key of ``snapshot`` a port and keep the ports of those that are gone since ``now`` or earlier."""
    wanted: dict[RouteKey, int] = {}
    for cache in sorted(snapshot.caches, key=lambda cache: (cache.entry, natural_key(cache.id))):
        wanted.update(dict.fromkeys(wanted_keys(cache, config.caches[cache.entry]), cache.entry))
    candidates = {entry: config.candidate_ports(config.caches[entry]) for entry in dict.fromkeys(wanted.values())}
    return _Assigner(portmap, wanted, candidates, now).run()


def release_port(portmap: PortMap, name: str) -> tuple[PortMap, PortEntry]:
    """Take a gone key's port out of the map, so that it is free again.

    ``name`` is the key as shown (``cluster/node``, ``cache:primary``), a cluster's name where it is gone as a whole and
    had one node, or the port number. Raises ReleaseError where nothing is called so, several are, or it still exists.
    """
    found = [entry for entry in portmap.entries if name in {str(entry.key), str(entry.port)}]
    if not found:
        found = [entry for entry in portmap.entries if entry.key.node is not None and entry.key.node.cluster == name]
    gone = [entry for entry in found if entry.gone_since is not None]
    if not found:
        message = f"no port is kept for {name!r}"
        raise ReleaseError(message)
    if not gone:
        message = f"{_named(found)} still exists: only the port of a gone node or endpoint can be released"
        raise ReleaseError(message)
    if len(gone) > 1:
        message = f"{name!r} means more than one gone node: {_named(gone)}; give the port number instead"
        raise ReleaseError(message)
    return PortMap(tuple(entry for entry in portmap.entries if entry is not gone[0])), gone[0]


class _Assigner:
    """One run of ``assign_ports``: ``kept`` is the map being built, by key; ``taken`` the ports in it."""

    def __init__(
        self,
        portmap: PortMap,
        wanted: Mapping[RouteKey, int],
        candidates: Mapping[int, Sequence[int]],
        now: float,
    ) -> None:
        self._wanted = wanted
        self._candidates = candidates
        self._allowed = {entry: frozenset(ports) for entry, ports in candidates.items()}
        self._free: dict[int, Iterator[int]] = {entry: iter(ports) for entry, ports in candidates.items()}
        self._displaced: dict[RouteKey, PortEntry] = {}
        self._kept: dict[RouteKey, PortEntry] = {}
        self._errors: dict[RouteKey, str] = {}
        self._warnings: list[str] = []
        for entry in portmap.entries:
            if entry.key not in wanted:
                gone_since = now if entry.gone_since is None else entry.gone_since
                self._kept[entry.key] = replace(entry, gone_since=gone_since)
            elif entry.port in self._allowed[wanted[entry.key]]:
                self._kept[entry.key] = replace(entry, gone_since=None)
            else:
                self._displaced[entry.key] = entry
        self._taken = {entry.port for entry in self._kept.values()}

    def run(self) -> Assignment:
        full = [key for key in self._wanted if key not in self._kept and not self._place(key)]
        for key in full:
            self._explain(key)
        self._keep_unmoved(full)
        entries = tuple(sorted(self._kept.values(), key=lambda entry: entry.port))
        return Assignment(PortMap(entries), self._errors, tuple(self._warnings))

    def _place(self, key: RouteKey) -> bool:
        """Give ``key`` the lowest free port, or else the one that its own cache has missed longest."""
        entry = self._wanted[key]
        # What was taken stays taken during a run, so nobody has to look at a port twice.
        port = next((port for port in self._free[entry] if port not in self._taken), None)
        if port is None and (gone := self._longest_gone(key.cache, entry)) is not None:
            del self._kept[gone.key]
            port = gone.port
            self._warnings.append(
                f"port {port}, reserved for gone {gone.key}, is given to {key}: "
                f"{_ranges(self._candidates[entry])} has no other left"
            )
        if port is None:
            return False
        if (old := self._displaced.get(key)) is not None:
            self._warnings.append(f"{key} moves from port {old.port} to {port}: its ports no longer hold {old.port}")
        self._kept[key] = PortEntry(key, port)
        self._taken.add(port)
        return True

    def _longest_gone(self, cache_id: str, entry: int) -> PortEntry | None:
        gone = [
            (kept.gone_since, kept.port, kept)
            for kept in self._kept.values()
            if kept.gone_since is not None and kept.key.cache == cache_id and kept.port in self._allowed[entry]
        ]
        return min(gone, key=lambda item: item[:2])[2] if gone else None

    def _explain(self, key: RouteKey) -> None:
        ports = self._candidates[self._wanted[key]]
        if not ports:
            self._errors[key] = NO_PORTS
            return
        held = [
            f"{kept.port} is reserved for gone node {kept.key}; natproxy ports release {kept.key}"
            for kept in self._kept.values()
            if kept.gone_since is not None and kept.port in self._allowed[self._wanted[key]]
        ]
        self._errors[key] = ": ".join((NO_ROOM.format(ports=_ranges(ports)), *held[:1]))
        if len(held) > 1:
            self._errors[key] += f" (and {len(held) - 1} more)"

    def _keep_unmoved(self, full: Iterable[RouteKey]) -> None:
        """Keep the number of a key whose range shrank, unless someone needed it: the range may grow back."""
        for key in full:
            old = self._displaced.get(key)
            if old is not None and old.port not in self._taken:
                self._kept[key] = replace(old, gone_since=None)
                self._taken.add(old.port)


def _named(entries: Iterable[PortEntry]) -> str:
    return ", ".join(f"{entry.key} (port {entry.port})" for entry in entries)


def _ranges(ports: Sequence[int]) -> str:
    """Write ``6379-6388, 6400`` for a list of ports."""
    runs = itertools.groupby(enumerate(sorted(ports)), key=lambda item: item[1] - item[0])
    spans = [[port for _, port in run] for _, run in runs]
    return ", ".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)
