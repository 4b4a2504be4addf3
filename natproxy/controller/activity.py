"""What moved on each port of late: bytes per second, dial times and refusals, for the status page. Pure but for that.

Everything is fed by what the workers tell once a second anyway. A port costs about 4 KiB, however much happens on it:
60 steps of 2 s, two numbers each, and 5 minutes of dials and refusals. A port that vanishes takes its past along.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from natproxy.documents import Traffic
from natproxy.messages import DIAL_BUCKETS, Counts, RouteCounts
from natproxy.model import REFUSALS, Outcome, RouteKey

STEP_SECONDS = 2.0
STEPS = 60
RATE_STEPS = 2
"""How many whole steps a rate of now is the mean of: workers tell about once a second, not in step with us."""
MINUTES = 5
"""How long dials and refusals count."""
TURNED_AWAY = REFUSALS | {
    Outcome.CLIENT_HANDSHAKE,
    Outcome.TLS_ON_CLEAR_PORT,
    Outcome.REVOKED,
    Outcome.CERTIFICATE_NOT_ALLOWED,
}
"""Outcomes that mean: this client does not get in."""


def turned_away(counts: RouteCounts) -> dict[str, int]:
    """Return the outcomes among those of ``counts`` that are refusals."""
    return {outcome: number for outcome, number in counts.ended.items() if outcome in TURNED_AWAY}


def quantile(dials: Sequence[int], share: float) -> float | None:
    """Return the time in seconds that ``share`` (0 to 1) of ``dials`` took at most; None where there are none.

    ``dials`` are counts by bucket of DIAL_BUCKETS, and one more for +Inf. Within a bucket they are taken to lie evenly;
    those of +Inf count as its lower bound, as Prometheus' histogram_quantile has it.
    """
    wanted = share * sum(dials)
    if not any(dials):
        return None
    lower, before = 0.0, 0
    for upper, number in zip(DIAL_BUCKETS, dials, strict=False):
        if number and before + number >= wanted:
            return lower + (upper - lower) * max(0.0, wanted - before) / number
        lower, before = upper, before + number
    return DIAL_BUCKETS[-1]


def _no_steps() -> array[int]:
    return array("Q", bytes(8 * (STEPS + 1)))


@dataclass(slots=True)
class _Minute:
    dials: array[int] = field(default_factory=lambda: array("Q", bytes(8 * (len(DIAL_BUCKETS) + 1))))
    refusals: int = 0


@dataclass(slots=True)
class _Past:
    """What one port did; the steps are rings with the one under way among them."""

    key: RouteKey | None
    client_bytes: array[int] = field(default_factory=_no_steps)
    node_bytes: array[int] = field(default_factory=_no_steps)
    minutes: deque[_Minute] = field(default_factory=lambda: deque([_Minute()], MINUTES))

    def add(self, step: int, counts: RouteCounts) -> None:
        self.client_bytes[step] += counts.client_bytes
        self.node_bytes[step] += counts.node_bytes
        minute = self.minutes[-1]
        for bucket, number in enumerate(counts.dials):
            minute.dials[bucket] += number
        minute.refusals += sum(turned_away(counts).values())


class Activity:
    """Remembers it. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ports: dict[int, _Past] = {}
        self._total = _Past(None)
        self._began = clock()
        self._steps = 0
        """Steps since then that are over."""
        self._minutes = 0

    def follow(self, routes: Mapping[int, RouteKey]) -> None:
        """Take these as all the ports there are."""
        known = self._ports
        self._ports = {
            port: known[port] if port in known and known[port].key == key else _Past(key)
            for port, key in routes.items()
        }

    def take(self, counts: Counts) -> None:
        """Add what a worker counted since it last said so."""
        self._go_on()
        step = self._steps % (STEPS + 1)
        for counted in counts.routes:
            self._total.add(step, counted)
            if (past := self._ports.get(counted.port)) is not None:
                past.add(step, counted)

    def traffic(self, port: int | None) -> Traffic:
        """Return what moves on ``port``: nothing where it is not known."""
        past = None if port is None else self._ports.get(port)
        return Traffic() if past is None else self._traffic(past)

    def total(self) -> Traffic:
        """Return what moves on all ports together, those that have vanished too."""
        return self._traffic(self._total)

    def _traffic(self, past: _Past) -> Traffic:
        self._go_on()
        client, node = self._whole_steps(past.client_bytes), self._whole_steps(past.node_bytes)
        both = tuple(round((one + other) / STEP_SECONDS) for one, other in zip(client, node, strict=True))
        dials = [sum(numbers) for numbers in zip(*(minute.dials for minute in past.minutes), strict=True)]
        return Traffic(
            client_bytes_per_second=sum(client[-RATE_STEPS:]) / (RATE_STEPS * STEP_SECONDS),
            node_bytes_per_second=sum(node[-RATE_STEPS:]) / (RATE_STEPS * STEP_SECONDS),
            history=both if any(both) else (),
            dial_p50_seconds=quantile(dials, 0.5),
            dial_p99_seconds=quantile(dials, 0.99),
            refusals=sum(minute.refusals for minute in past.minutes),
        )

    def _whole_steps(self, ring: array[int]) -> array[int]:
        """Return the steps that are over, oldest first."""
        now = self._steps % (STEPS + 1)
        return ring[now + 1 :] + ring[:now]

    def _go_on(self) -> None:
        """Begin the step and the minute of now, if they are not those of before."""
        passed = self._clock() - self._began
        steps, minutes = int(passed / STEP_SECONDS), int(passed / 60.0)
        pasts = (self._total, *self._ports.values()) if steps > self._steps or minutes > self._minutes else ()
        for past in pasts:
            for step in range(max(self._steps, steps - STEPS - 1) + 1, steps + 1):
                past.client_bytes[step % (STEPS + 1)] = past.node_bytes[step % (STEPS + 1)] = 0
            for _ in range(min(minutes - self._minutes, MINUTES)):
                past.minutes.append(_Minute())
        self._steps, self._minutes = max(steps, self._steps), max(minutes, self._minutes)
