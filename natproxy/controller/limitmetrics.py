"""Who is turned away, and how near the limits are. Pure: makes metric families for metrics.py.

Refusals are counted once more here, for the whole and from the start with 0: where a series begins with the first one,
no alert sees it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from natproxy.controller.activity import TURNED_AWAY
from natproxy.messages import RouteCounts
from natproxy.model import Route

GLOBAL_GROUP = "(global)"
"""What the ports without limits of their own are called: no entry of a config can have that name."""


class Refusals:
    """Connections that were turned away, by why."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, counts: RouteCounts) -> None:
        """Add what a worker counted on one port since it last said so."""
        self._counts.update(counts.ended)

    def family(self) -> Metric:
        """Return them; every reason is there from the start."""
        family = CounterMetricFamily(
            "natproxy_refusals",
            "Client connections that were turned away, by why; natproxy_connections_ended_total has them by route.",
            labels=["reason"],
        )
        for outcome in sorted(TURNED_AWAY):
            family.add_metric([outcome.value], self._counts[outcome.value])
        return family


def limit_families(routes: Iterable[Route], live: Mapping[int, int]) -> Iterator[Metric]:
    """Return what counts for each ``max_connections``, and that limit. ``live``: port -> connections open."""
    opened: Counter[str] = Counter()
    limits: dict[str, int] = {}
    for route in routes:
        group = route.limit_group or GLOBAL_GROUP
        opened[group] += live.get(route.port, 0)
        limits[group] = max(limits.get(group, 0), route.max_connections)
    counted = GaugeMetricFamily(
        "natproxy_limit_connections",
        "Client connections open now that count for a max_connections: of one entry, or of all without their own.",
        labels=["limit_group"],
    )
    most = GaugeMetricFamily("natproxy_limit_max_connections", "That max_connections.", labels=["limit_group"])
    for group, limit in limits.items():
        counted.add_metric([group], opened[group])
        most.add_metric([group], limit)
    yield from (counted, most)
