"""Rules in the order in which a packet meets them, through every chain that is jumped to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from natproxy.netfilter.model import DnatRule, Match, Rules, Unread

MOST_RULES = 20_000
"""More than this many steps are not walked: chains that fan out into each other would never end."""

_OWNERS = (
    ("DOCKER", "Docker"),
    ("KUBE-", "Kubernetes"),
    ("CNI-", "a container network (CNI)"),
    ("NETAVARK", "Podman"),
    ("LIBVIRT_", "libvirt"),
    ("cali-", "Calico"),
    ("CILIUM_", "Cilium"),
    ("FLANNEL", "Flannel"),
    ("ISTIO_", "Istio"),
    ("PRE_", "firewalld"),
    ("PREROUTING_ZONES", "firewalld"),
    ("nat_PRE_", "firewalld"),
    ("nat_PREROUTING", "firewalld"),
)
"""Beginnings of the names of chains that programs write by themselves."""


_TOO_MANY = f"a packet may meet more than {MOST_RULES} rules from here on, and those behind them are not looked at"


class Way(Enum):
    """What becomes of a packet that a rule matches."""

    TRANSLATED = 1
    JUMP = 2
    GOTO = 3
    RETURN = 4
    ACCEPT = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One rule of a chain."""

    match: Match
    way: Way
    words: str
    """The rule in short, for the conditions of rules after it."""
    chain: str = ""
    """Where a jump or a goto leads."""
    rule: DnatRule | None = None
    """Set for TRANSLATED."""


def owner_of(chain: str) -> str:
    """Name the program that writes chains of this name by itself; empty where a person did."""
    return next((owner for start, owner in _OWNERS if chain.startswith(start)), "")


def in_order(chains: Mapping[str, Sequence[Step]], begin: Sequence[str]) -> Rules:
    """Return the translating rules as a packet meets them that begins in each of ``begin``, and those it never meets.

    A rule that is reached twice is there twice. What returned or was accepted before it is among its conditions.
    """
    walk = _Walk(chains)
    met = tuple(rule for name in begin for rule in walk.through(name, Match(), (), []))
    own = [step.rule for steps in chains.values() for step in steps if step.rule is not None]
    unread = () if walk.is_complete else (Unread(None, " ".join(begin), _TOO_MANY),)
    return Rules(met, tuple(rule for rule in own if rule.chain not in walk.seen), unread=unread)


class _Walk:
    def __init__(self, chains: Mapping[str, Sequence[Step]]) -> None:
        self._chains = chains
        self._left = MOST_RULES
        self.seen: set[str] = set()

    @property
    def is_complete(self) -> bool:
        """Tell whether every rule was looked at."""
        return self._left >= 0

    def through(
        self, name: str, outer: Match, path: tuple[str, ...], accepted: list[tuple[Match, str]]
    ) -> Iterator[DnatRule]:
        """Yield the rules met in one chain; ``accepted`` is what no later chain gets to see, and grows."""
        self.seen.add(name)
        returned: list[tuple[Match, str]] = []
        owner = owner_of(name) or next((found for found in map(owner_of, path) if found), "")
        for step in self._chains.get(name, ()):
            self._left -= 1
            match = step.match.within(outer)
            if match is None or self._left < 0:
                continue
            match = _unless(match, (*accepted, *returned))
            if step.rule is not None:
                yield replace(step.rule, match=match, owner=step.rule.owner or owner)
            elif step.way is Way.ACCEPT:
                accepted.append((match, step.words))
            elif step.way is Way.RETURN:
                returned.append((match, step.words))
            elif step.chain not in (*path, name):
                yield from self.through(step.chain, match, (*path, name), accepted)
            if step.way is Way.GOTO:
                returned.append((match, step.words))


def _unless(match: Match, before: Sequence[tuple[Match, str]]) -> Match:
    for passed, words in before:
        if match.within(replace(passed, conditions=())) is not None:
            match = match.unless(f"not ({words})")
    return match
