"""Rows of the table that are workloads, and measuring them. I/O: by loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.parts.how import How
from bench.peers.catalogue import Doors
from bench.peers.ports import Door
from bench.results import HAPROXY, Row
from bench.rounds import Load, each, measure, tell


@dataclass(frozen=True)
class Workload:
    """One row: what is asked, of which door, and what natproxy should reach."""

    name: str
    load: Load
    first: int
    """How much the warm-up does."""
    door: Door
    unit: str = "us"
    basis: Literal["cost", "p50", "rate"] = "cost"
    reach: float | None = None
    aim: float | None = None


def row(workload: Workload, doors: Doors, how: How, against: str) -> Row:
    """Measure a workload through all proxies that have its door."""
    tell(f"  {workload.name}")
    ways = each(doors, {name: opened.get(workload.door.name) for name, opened in doors.items()})
    readings = measure(workload.load, ways, how.pace, workload.first)
    return Row(workload.name, workload.unit, readings, workload.basis, workload.reach, workload.aim, against=against)


def rows(workloads: Sequence[Workload], doors: Doors, how: How, *, against: str = HAPROXY) -> list[Row]:
    """Measure workloads one after the other."""
    return [row(workload, doors, how, against) for workload in workloads]
