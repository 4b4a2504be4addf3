"""What is counted of the daemon's own HTTP sides. Pure: makes metric families for metrics.py.

Every label has a closed set of values; who asked is none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric


class SideCounts:
    """What one side counts: ``admin`` or ``portal``. ``called``: as what people know it, where that is not its name."""

    def __init__(self, side: str, called: str | None = None) -> None:
        self._side = side
        self._called = called or side
        self._requests: Counter[int] = Counter()
        self._refusals: Counter[str] = Counter()
        self.dropped_lines = 0
        """Refusals that got no line in the log, because there were too many."""

    def record_request(self, code: int) -> None:
        """Count an answer by its HTTP status."""
        self._requests[code] += 1

    def record_refusal(self, reason: str) -> None:
        """Count a connection that was not let in: ``network`` (not an allowed one), or a HandshakeFailure."""
        self._refusals[reason] += 1

    def families(self) -> Iterator[Metric]:
        """Return both families."""
        requests = CounterMetricFamily(
            f"natproxy_{self._side}_requests",
            f"Requests that the {self._called} answered, by HTTP status; one appears once it has happened.",
            labels=["code"],
        )
        for code, number in self._requests.items():
            requests.add_metric([str(code)], number)
        refusals = CounterMetricFamily(
            f"natproxy_{self._side}_refusals",
            f"Connections to the {self._called} that were not let in, by reason; one appears once it has happened.",
            labels=["reason"],
        )
        for reason, number in self._refusals.items():
            refusals.add_metric([reason], number)
        yield from (requests, refusals)
