"""Rounds: every proxy's turn comes once in each, so that what the machine does meanwhile meets all of them. I/O: loads.

A first, short run of each warms it up and tells how much fits into a round; what it cost is dropped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.accounts import spent
from bench.peers.ports import Open
from bench.results import Reading

SETTLE_SECONDS = 0.03
"""A proxy goes on closing connections after its client has gone."""

LEAST_SHARE = 0.01
"""Threads with less of the work are not told."""


@dataclass(frozen=True)
class Pace:
    """How long is measured."""

    rounds: int
    seconds: float
    """Of each round of each proxy."""


FULL, QUICK = Pace(rounds=4, seconds=0.4), Pace(rounds=3, seconds=0.35)


@dataclass(frozen=True)
class Done:
    """What a load did."""

    count: float
    """In what the row counts: requests, GB."""
    seconds: float
    p50: float | None = None
    """Milliseconds."""
    p99: float | None = None
    slowest: tuple[float, ...] = ()
    """The slowest percent, in order, milliseconds."""


Load = Callable[[Open, int], Done]
"""Do about so much through a door."""


def measure(load: Load, doors: Mapping[str, Open], pace: Pace, first: int) -> dict[str, list[Reading]]:
    """Return each proxy's rounds; ``first``: how much its first, dropped run does, less where rounds are very short."""
    amounts = {}
    first = max(1, round(first * min(1.0, pace.seconds / QUICK.seconds)))
    for name, door in doors.items():
        warm = load(door, first)
        amounts[name] = fitting(first, warm.seconds, pace.seconds)
    found: dict[str, list[Reading]] = {name: [] for name in doors}
    for number in range(pace.rounds):
        for name in rotated(list(doors), number):
            found[name].append(read(load, doors[name], amounts[name]))
    return found


def read(load: Load, door: Open, amount: int) -> Reading:
    """Run a load once; return what it cost the proxy."""
    before = door.account.cpu_seconds()
    done = load(door, amount)
    time.sleep(SETTLE_SECONDS)
    return reading(done, spent(before, door.account.cpu_seconds()))


def reading(done: Done, used: Mapping[int, float]) -> Reading:
    """Return microseconds of CPU for each that was done; ``used``: seconds, by thread."""
    total = sum(used.values())
    shares = sorted((one / total for one in used.values()), reverse=True) if total > 0 else []
    busy = tuple(share for share in shares if share >= LEAST_SHARE)
    return Reading(
        total / done.count * 1e6, done.p50, done.p99, done.count / done.seconds, busy if len(busy) > 1 else ()
    )


def fitting(amount: int, seconds: float, wanted: float) -> int:
    """Return how much takes ``wanted`` seconds when ``amount`` took so many."""
    return max(1, round(amount * wanted / max(seconds, 1e-6)))


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Return the order of a round: each begins with another one."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def tell(text: str) -> None:
    """Say what is going on, on stderr."""
    print(text, file=sys.stderr, flush=True)


def each(names: Iterable[str], found: Mapping[str, Open | None]) -> dict[str, Open]:
    """Return those of ``names`` that are there, in this order."""
    return {name: door for name in names if (door := found.get(name)) is not None}
