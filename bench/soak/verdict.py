"""What must hold after a soak. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bench.soak.orders import Told

MOST_GROWTH = {"worker": 8_000_000, "controller": 16_000_000}
"""Bytes that a process may have more, with nobody connected, than after the first clients and changes had gone by.

Thousands of connections have come and gone in between, so that even a small object kept for each would show.
"""
MOST_SHOWN = 5


@dataclass
class Seen:
    """What there was to be seen."""

    told: Told = field(default_factory=Told)
    """By all client programs."""
    written: int = 0
    lost: list[str] = field(default_factory=list)
    """Writes that were acknowledged and are not there."""
    broken: list[str] = field(default_factory=list)
    """Client programs that did not end as they should."""
    changes: Counter[str] = field(default_factory=Counter)
    """What happened to the nodes -> how often."""
    connections: int = 0
    """That natproxy has accepted."""
    left_open: list[str] = field(default_factory=list)
    """Connections and sockets that are open with all clients gone."""
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Process -> resident bytes, after the warm-up and at the end."""
    fallbacks: Counter[str] = field(default_factory=Counter)
    rewritten: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """Lines of natproxy's log that tell of an error, and connections that its own code ended."""


@dataclass(frozen=True)
class Line:
    """One thing that must hold."""

    what: str
    found: str
    bound: str
    is_good: bool
    details: tuple[str, ...] = ()


def judge(seen: Seen) -> list[Line]:
    """Return all that must hold, and whether it does."""
    told = seen.told
    return [
        _none(f"of {seen.written:,} acknowledged writes, lost", seen.lost),
        _none("replies that are not what was asked for", told.wrong),
        _none("replies that never came", told.silent),
        _none("replies with a node's own address", told.leaked),
        _none(f"of {seen.connections:,} connections, open with all clients gone", seen.left_open),
        *_growth(seen.memory),
        _none(f"connections read no further ({counted(seen.fallbacks)}), not provoked", list(unprovoked(seen))),
        _none("errors in natproxy's log, ends by its own fault", seen.failures),
        _none("client programs that failed", seen.broken),
        _some("changes of nodes", seen.changes),
        _some("replies rewritten", seen.rewritten),
    ]


def unprovoked(seen: Seen) -> Iterator[str]:
    """Name the reasons for which more connections were given up than clients gave reason to."""
    for reason, count in seen.fallbacks.items():
        provoked = seen.told.provoked.get(reason, 0)
        if count > provoked:
            yield f"{reason}: {count}, of {provoked} provoked"


def _none(what: str, found: list[str]) -> Line:
    return Line(what, f"{len(found):,}", "none", not found, tuple(found[:MOST_SHOWN]))


def _some(what: str, found: Counter[str]) -> Line:
    return Line(what, counted(found), "some", bool(found.total()))


def _growth(memory: dict[str, tuple[int, int]]) -> Iterator[Line]:
    for name, (before, after) in memory.items():
        grown, most = after - before, MOST_GROWTH[name]
        found = f"{grown / 1e6:+.1f} MB, from {before / 1e6:.1f}"
        yield Line(f"growth of the {name}'s memory", found, f"{most / 1e6:.0f} MB", grown <= most)


def counted(found: Mapping[str, int]) -> str:
    """Return all with their numbers."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(found.items())) or "none"


def table(lines: list[Line]) -> str:
    """Return the lines as a table, with what there is to say of the bad ones below."""
    text = ["| what | found | bound | |", "|---|---|---|---|"]
    text += [f"| {one.what} | {one.found} | {one.bound} | {'good' if one.is_good else 'BAD'} |" for one in lines]
    text += [f"- {one.what}: {detail}" for one in lines if not one.is_good for detail in one.details]
    return "\n".join(text) + "\n"
