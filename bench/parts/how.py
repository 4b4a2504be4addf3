"""How a part is to measure, and what it gives back. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.results import HAPROXY, NATPROXY, NGINX, Curve, Row
from bench.rounds import FULL, Pace

MAIN = (NATPROXY, HAPROXY, NGINX)
"""Who is measured also where it has to be quick."""


@dataclass(frozen=True)
class How:
    """What was asked for on the command line."""

    pace: Pace = FULL
    is_quick: bool = False
    python: tuple[str, ...] = ()
    """The interpreter natproxy is run with; none: this one."""

    def proxies(self, *others: str) -> tuple[str, ...]:
        """Return who is measured; ``others`` only where there is time."""
        return MAIN if self.is_quick else (*MAIN, *others)


@dataclass
class Found:
    """What a part found."""

    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, names: Iterable[str], reason: str) -> None:
        """Note what is not measured."""
        self.left_out |= dict.fromkeys(names, reason)


class CannotError(Exception):
    """A part cannot be measured here; the text says why."""
