"""Ranges of ports that give each node just the port it had. Pure.

A cache's nodes and endpoints take the ports of its range one after the other (plan/ports.py), so a range keeps a port
where it was if that port is as far behind the range's first as its node is behind the first node. Every other port of
the range goes to a node or endpoint that had none, and has to be free.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Literal, get_args

from natproxy.config import CacheEntry, PortRange
from natproxy.model import Cache, Mode, RouteKey
from natproxy.plan.ports import wanted_keys

EndpointKind = Literal["nodes", "primary", "reader", "configuration"]
KINDS: tuple[EndpointKind, ...] = get_args(EndpointKind)
LEAST_GROWTH = 5
LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Fit:
    """A range for one cache, and what it does."""

    cache: Cache
    first: int
    keys: tuple[RouteKey, ...]
    """Whose ports these are, from the first on."""
    kinds: frozenset[EndpointKind] | None
    """What ``endpoints`` has to say; None = nothing, as all there are get ports."""
    kept: frozenset[int]
    """The ports that stay where they were."""
    room: int = 0
    """Ports behind those, for nodes to come."""

    @property
    def ports(self) -> PortRange:
        """The whole range."""
        return PortRange(self.first, self.first + len(self.keys) - 1 + self.room)

    @property
    def can_grow(self) -> bool:
        """Whether the cache may come to have more nodes or endpoints."""
        return self.cache.mode not in (Mode.STANDALONE, Mode.SERVERLESS)

    def port_of(self, key: RouteKey) -> int:
        """Return the port that one of the keys gets."""
        return self.first + self.keys.index(key)


def best_fit(cache: Cache, wishes: Mapping[int, RouteKey], blocked: Collection[int]) -> Fit | None:
    """Return the range that keeps most of the wished ports where they were; None where none keeps any.

    ``blocked`` are the ports that belong to somebody else. Of those that keep as many, the one with most endpoints is
    best, then the lowest.
    """
    fits = [fit for kinds in _choices(cache) for fit in _fits(cache, kinds, wishes, blocked)]
    return max(fits, key=lambda fit: (len(fit.kept), len(fit.keys), -fit.first), default=None)


def with_room(fits: Sequence[Fit], blocked: Collection[int]) -> list[Fit]:
    """Let each range grow into what is free behind it, so that nodes to come find a port."""
    taken = {port for fit in fits for port in fit.ports} | set(blocked)
    grown = []
    for fit in fits:
        wanted = max(LEAST_GROWTH, len(fit.keys) // 2) if fit.can_grow else 0
        behind = itertools.takewhile(
            lambda port: port <= LAST_PORT and port not in taken,
            range(fit.ports.last + 1, fit.ports.last + 1 + wanted),
        )
        room = list(behind)
        taken.update(room)
        grown.append(replace(fit, room=len(room)))
    return grown


def _choices(cache: Cache) -> Iterator[frozenset[EndpointKind] | None]:
    """Yield every choice of what gets ports, as ``endpoints`` has it; first all that there is."""
    yield None
    there = [kind for kind in KINDS if wanted_keys(cache, CacheEntry(id=cache.id, endpoints=frozenset((kind,))))]
    for count in range(len(there) - 1, 0, -1):
        yield from map(frozenset, itertools.combinations(there, count))


def _fits(
    cache: Cache, kinds: AbstractSet[EndpointKind] | None, wishes: Mapping[int, RouteKey], blocked: Collection[int]
) -> Iterator[Fit]:
    chosen = None if kinds is None else frozenset(kinds)
    keys = wanted_keys(cache, CacheEntry(id=cache.id, endpoints=chosen))
    where = {key: index for index, key in enumerate(keys)}
    firsts = {port - where[key] for port, key in wishes.items() if key in where}
    for first in sorted(firsts):
        ports = range(first, first + len(keys))
        if first < 1 or ports[-1] > LAST_PORT:
            continue
        kept = frozenset(port for port in ports if wishes.get(port) == keys[port - first])
        others = (port for port in ports if port not in kept)
        if not any(port in wishes or port in blocked for port in others):
            yield Fit(cache, first, keys, chosen, kept)
