"""What should lead where -> entries and static routes of a config. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from natproxy.config import Admin
from natproxy.importing.places import Place, Places
from natproxy.importing.ranges import LAST_PORT, Fit, best_fit, with_room
from natproxy.importing.wishes import Wish, Wishes, wishes_of
from natproxy.model import Endpoint, Network, NodeTls, RouteKey, Snapshot
from natproxy.netfilter import Rules

ADMIN_PORT = Admin().port
"""Where the admin side listens by default: no range takes it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of ``caches``."""

    fit: Fit
    sources: tuple[Network, ...] | None
    """Who may connect, where its rules say so."""
    wishes: tuple[Wish, ...]
    """That it fulfils, by port."""

    @property
    def is_passed_through(self) -> bool:
        """Whether clients speak TLS with the nodes themselves, as they did through the rules."""
        return self.fit.cache.tls is not NodeTls.OFF

    @property
    def new(self) -> tuple[tuple[int, RouteKey], ...]:
        """The ports that no rule had, and to whom they lead."""
        numbered = enumerate(self.fit.keys, self.fit.first)
        return tuple((port, key) for port, key in numbered if port not in self.fit.kept)


@dataclass(frozen=True, slots=True)
class Static:
    """One entry of ``static``."""

    wish: Wish
    target: Endpoint
    why: str
    """Why it is in no entry of ``caches``."""


@dataclass(frozen=True, slots=True)
class Draft:
    """All that the config has to say about ports."""

    entries: tuple[Entry, ...]
    statics: tuple[Static, ...]
    """By port."""
    wishes: Wishes
    outgoing: tuple[str, ...]
    """The instance's own NAT rules, which nothing is done about."""

    @property
    def admin_port(self) -> int:
        """Where the admin side can listen: its usual port, unless a rule had that one."""
        taken = {wish.port for wish in self.wishes.wishes} | {
            port for entry in self.entries for port in entry.fit.ports
        }
        after = itertools.chain(range(ADMIN_PORT, LAST_PORT + 1), range(ADMIN_PORT, 1, -1))
        return next(port for port in after if port not in taken)

    @property
    def needs_allow(self) -> bool:
        """Whether something lets in everybody, unless it is written who may connect."""
        return any(
            part is None for part in (*(e.sources for e in self.entries), *(s.wish.sources for s in self.statics))
        )

    @property
    def needs_ipv6(self) -> bool:
        """Whether clients come by IPv6."""
        return any(":" in wish.place.address.ip for wish in self.wishes.wishes)


def draft_of(rules: Rules, snapshot: Snapshot, places: Places) -> Draft:
    """Return what keeps every port of the rules where it is, as far as natproxy can."""
    wishes = wishes_of(rules, places.find)
    caches = {cache.id: cache for cache in snapshot.caches}
    statics: list[Static] = []
    of_cache: dict[str, list[Wish]] = {}
    for wish in wishes.wishes:
        if wish.place.key is None:
            statics.append(_static(wish, wish.place.why))
        else:
            of_cache.setdefault(wish.place.key.cache, []).append(wish)
    fits: list[Fit] = []
    sources: dict[str, tuple[Network, ...] | None] = {}
    for cache_id, own in of_cache.items():
        allowed = {_sorted(wish.sources) for wish in own}
        if len(allowed) > 1:
            why = f"the rules of {cache_id} let different clients in, and an entry has one clients.allow"
            statics += [_static(wish, why) for wish in own]
            continue
        fit = best_fit(caches[cache_id], _keys(own), _blocked(wishes, own, fits))
        if fit is not None:
            fits.append(fit)
            sources[cache_id] = next(iter(allowed))
        statics += [_static(wish, _why_apart(fit, wish)) for wish in own if fit is None or wish.port not in fit.kept]
    grown = with_room(fits, {wish.port for wish in wishes.wishes} | wishes.taken | {ADMIN_PORT})
    entries = (_entry(fit, sources[fit.cache.id], of_cache[fit.cache.id]) for fit in grown)
    return Draft(
        entries=tuple(sorted(entries, key=lambda entry: entry.fit.first)),
        statics=tuple(sorted(statics, key=lambda static: static.wish.port)),
        wishes=wishes,
        outgoing=rules.outgoing,
    )


def _keys(wishes: Iterable[Wish]) -> dict[int, RouteKey]:
    return {wish.port: wish.place.key for wish in wishes if wish.place.key is not None}


def _blocked(wishes: Wishes, own: Sequence[Wish], fits: Iterable[Fit]) -> frozenset[int]:
    """Return the ports that a cache's range has to keep clear of."""
    mine = {wish.port for wish in own}
    others = {wish.port for wish in wishes.wishes} - mine
    return frozenset(others | wishes.taken | {ADMIN_PORT} | {port for fit in fits for port in fit.ports})


def _entry(fit: Fit, sources: tuple[Network, ...] | None, wishes: Iterable[Wish]) -> Entry:
    return Entry(fit, sources, tuple(wish for wish in wishes if wish.port in fit.kept))


def _static(wish: Wish, why: str) -> Static:
    """A known node goes by its name, which stays when its address changes."""
    place: Place = wish.place
    return Static(wish, place.endpoint or Endpoint(*place.address), why)


def _why_apart(fit: Fit | None, wish: Wish) -> str:
    key = wish.place.key
    if fit is None:
        return f"it leads to {key}, and no range of ports that is free has it there"
    if key in fit.keys:
        return f"it leads to {key}, which has port {fit.port_of(key)} in the range of {fit.cache.id}"
    return f"it leads to {key}, for which the range of {fit.cache.id} has no room"


def _sorted(sources: tuple[Network, ...] | None) -> tuple[Network, ...] | None:
    return None if sources is None else tuple(sorted(sources, key=lambda net: (net.version, net)))
