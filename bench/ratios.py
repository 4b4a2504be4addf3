"""Ratios of what rounds showed, and their spread. Above 1: natproxy (or whoever is asked for) is better. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.results import NATPROXY, Reading, Row


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and the least and the greatest of them."""

    median: float
    least: float
    most: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Compare, round by round, what each of two needed; None where there is nothing to compare."""
    pairs = [their / our for our, their in zip(ours, theirs, strict=False) if our > 0 and their > 0]
    return Ratio(statistics.median(pairs), min(pairs), max(pairs)) if pairs else None


def costs(row: Row, proxy: str = NATPROXY) -> Ratio | None:
    """Return how much more a proxy does for its cost than the one that the row is against."""
    return _compared(row, proxy, lambda reading: reading.cost)


def p50s(row: Row, proxy: str = NATPROXY) -> Ratio | None:
    """Return how much sooner the median request is answered."""
    return _compared(row, proxy, lambda reading: reading.p50)


def p99s(row: Row, proxy: str = NATPROXY) -> Ratio | None:
    """Return how much sooner the slowest request but of one percent is answered."""
    return _compared(row, proxy, lambda reading: reading.p99)


def rates(row: Row, proxy: str = NATPROXY) -> Ratio | None:
    """Return how much more is done in the same time."""
    return _compared(row, proxy, lambda reading: 1 / reading.rate if reading.rate else None)


def _compared(row: Row, proxy: str, value: Callable[[Reading], float | None]) -> Ratio | None:
    ours, theirs = row.readings.get(proxy, []), row.readings.get(row.against, [])
    pairs = [(value(our), value(their)) for our, their in zip(ours, theirs, strict=False)]
    known = [(our, their) for our, their in pairs if our is not None and their is not None]
    return ratio([our for our, _ in known], [their for _, their in known])


def median_cost(row: Row, proxy: str) -> float | None:
    """Return the median of a proxy's costs, in the row's unit."""
    found = [reading.cost for reading in row.readings.get(proxy, [])]
    return statistics.median(found) if found else None


def basis(row: Row) -> Ratio | None:
    """Return the ratio that the row's reach is about; None where it is about natproxy's own cost."""
    return None if row.basis == "value" else {"cost": costs, "p50": p50s, "rate": rates}[row.basis](row)


def reached(row: Row) -> tuple[float, bool] | None:
    """Return what the row's reach is compared with, and whether it is reached; None where there is no reach."""
    if row.reach is None:
        return None
    if row.basis == "value":
        found = median_cost(row, NATPROXY)
        return None if found is None else (found, found <= row.reach)
    compared = basis(row)
    return None if compared is None else (compared.median, round(compared.median, 2) >= row.reach)
