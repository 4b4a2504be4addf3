"""Rules -> which port should lead where, and which rules are left as they are. Pure.

A rule is taken over as a whole or not at all: natproxy gets the connections of a port only when no rule takes them
first. So where two rules do not agree about a port, or one of them asks for more than natproxy can, all of them stay.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from natproxy.importing.places import Place
from natproxy.model import Address, Network
from natproxy.netfilter import DnatRule, Rules

MOST_PORTS = 100
"""A rule for more ports than that was not written for caches."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A port that should lead somewhere."""

    port: int
    place: Place
    sources: tuple[Network, ...] | None
    """Who may connect; None = the rules let everyone."""
    rules: tuple[DnatRule, ...]
    """That say so."""


@dataclass(frozen=True, slots=True)
class Left:
    """A rule that stays as it is."""

    rule: DnatRule
    why: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the rules amount to."""

    wishes: tuple[Wish, ...] = ()
    """By port, each once."""
    left: tuple[Left, ...] = ()
    needless: tuple[DnatRule, ...] = ()
    """To be removed once natproxy serves these ports: each written rule once."""
    taken: frozenset[int] = frozenset()
    """The TCP ports that rules which stay were written for."""


def wishes_of(rules: Rules, find: Callable[[Address], Place]) -> Wishes:
    """Sort the rules: ``find`` tells what an address is."""
    left = {_name(rule): why for rule in rules.dnat if (why := _why_not(rule))}
    while True:
        staying = [rule for rule in rules.dnat if _name(rule) in left]
        candidates = [rule for rule in rules.dnat if _name(rule) not in left]
        more = {**_disagreeing(candidates, find), **_robbed(candidates, staying)}
        if not more:
            break
        left.update(more)
    by_port = _by_port(candidates)
    return Wishes(
        wishes=tuple(_wish(port, by_port[port], find) for port in sorted(by_port)),
        left=tuple(Left(rule, left[_name(rule)]) for rule in _each_once(staying)),
        needless=tuple(_each_once(candidates)),
        taken=frozenset(port for rule in staying if rule.takes_tcp and _is_narrow(rule) for port in _ports(rule)),
    )


def _why_not(rule: DnatRule) -> str:
    """Return why natproxy cannot stand in for a rule; empty where it can."""
    match = rule.match
    if rule.owner:
        return f"{rule.owner} writes it by itself"
    if not rule.takes_tcp:
        return f"it is for {match.protocol.upper()}: natproxy passes on TCP only"
    if match.conditions:
        return f"it asks for more than natproxy can: {'; '.join(match.conditions)}"
    if not _is_narrow(rule):
        return "it takes every port" if match.ports is None else f"it takes {_count(rule)} ports, too many to list"
    return _why_uncertain(rule)


def _why_uncertain(rule: DnatRule) -> str:
    """Return why it is not one certain address and port that each port of a rule leads to."""
    if rule.addresses is None:
        return "it leads to this host itself"
    if rule.addresses[0] != rule.addresses[1]:
        return f"it leads to several addresses, {rule.addresses[0]} to {rule.addresses[1]}"
    unsure = next((port for port in _ports(rule) if rule.target(port) is None), None)
    return "" if unsure is None else f"where it leads port {unsure} is not certain"


def _disagreeing(rules: Sequence[DnatRule], find: Callable[[Address], Place]) -> dict[object, str]:
    """Return the rules that lead one port to different places, unless the later one can never match."""
    found: dict[object, str] = {}
    why = "{} leads port {} to another place for other packets"
    for port, sharing in _by_port(rules).items():
        places = [_where(rule, port, find) for rule in sharing]
        if len(set(places)) == 1:
            continue
        for (earlier, place), (rule, other) in itertools.combinations(zip(sharing, places, strict=True), 2):
            if place != other and not _covers(earlier, rule):
                found.setdefault(_name(rule), why.format(_called(earlier), port))
                found.setdefault(_name(earlier), why.format(_called(rule), port))
    return found


def _by_port(rules: Iterable[DnatRule]) -> dict[int, list[DnatRule]]:
    found: dict[int, list[DnatRule]] = {}
    for rule in rules:
        for port in _ports(rule):
            found.setdefault(port, []).append(rule)
    return found


def _robbed(candidates: Iterable[DnatRule], staying: Iterable[DnatRule]) -> dict[object, str]:
    """Return the rules of whose ports another one takes some packets, which stays."""
    found: dict[object, str] = {}
    for other in staying:
        for rule in candidates:
            port = next((port for port in _ports(rule) if other.takes(port)), None)
            if port is not None and _may_meet(other, rule):
                found[_name(rule)] = f"{_called(other)}, which stays, takes port {port} as well"
    return found


def _wish(port: int, rules: Sequence[DnatRule], find: Callable[[Address], Place]) -> Wish:
    """Join the rules of one port; of those that lead elsewhere none can ever match."""
    first = rules[0]
    place = _place(first, port, find)
    agreeing = tuple(rule for rule in rules if _where(rule, port, find) == (place.key or place.address))
    sources: dict[Network, None] = {}
    for rule in agreeing:
        if rule.match.sources is None:
            return Wish(port, place, None, agreeing)
        sources.update(dict.fromkeys(rule.match.sources))
    return Wish(port, place, tuple(sources), agreeing)


def _place(rule: DnatRule, port: int, find: Callable[[Address], Place]) -> Place:
    address = rule.target(port)
    assert address is not None, "a rule without a certain target has been left out"  # noqa: S101
    return find(address)


def _where(rule: DnatRule, port: int, find: Callable[[Address], Place]) -> object:
    place = _place(rule, port, find)
    return place.key or place.address


def _covers(earlier: DnatRule, later: DnatRule) -> bool:
    """Whether every packet that the later rule matches on a common port is one that the earlier one takes."""
    one, other = earlier.match, later.match
    return (
        one.sources is None
        and one.interface in ("", other.interface)
        and (one.destinations is None or one.destinations == other.destinations)
    )


def _may_meet(one: DnatRule, other: DnatRule) -> bool:
    """Whether some packet may match both."""
    ins = one.match.interface, other.match.interface
    are_apart = ins[0] != ins[1] and all(name and not name.startswith("!") and not name.endswith("+") for name in ins)
    return not are_apart and one.match.within(other.match) is not None


def _ports(rule: DnatRule) -> list[int]:
    """Return the ports of a narrow rule."""
    return [port for span in rule.match.ports or () for port in range(span.first, span.last + 1)]


def _is_narrow(rule: DnatRule) -> bool:
    return rule.match.ports is not None and _count(rule) <= MOST_PORTS


def _count(rule: DnatRule) -> int:
    return sum(span.last - span.first + 1 for span in rule.match.ports or ())


def _name(rule: DnatRule) -> object:
    """Tell written rules apart: one may be met twice, on two ways."""
    return rule.number, rule.chain, rule.line, rule.delete


def _each_once(rules: Iterable[DnatRule]) -> list[DnatRule]:
    return list({_name(rule): rule for rule in reversed(list(rules))}.values())[::-1]


def _called(rule: DnatRule) -> str:
    return "another rule" if rule.number is None else f"line {rule.number}"
