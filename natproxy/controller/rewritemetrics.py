"""What is counted of rewriting. Pure: makes metric families for metrics.py.

The kinds of replies, the reasons and the hints are closed lists; those of a port appear once they have happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, Metric

from natproxy.messages import RouteCounts
from natproxy.wire.rewriter import Hint


@dataclass(slots=True)
class Rewrites:
    """What was rewritten on one port, and what was not."""

    replies: Counter[str] = field(default_factory=Counter)
    """wire.rewriter.Reply -> how many."""
    fallbacks: Counter[str] = field(default_factory=Counter)
    """wire.rewriter.Fallback -> connections."""

    def add(self, counts: RouteCounts) -> None:
        """Add what a worker counted since it last said so."""
        self.replies.update(counts.rewritten)
        self.fallbacks.update(counts.fallbacks)


def rewrite_families(ports: Iterable[tuple[list[str], Rewrites]], route_labels: Iterable[str]) -> Iterator[Metric]:
    """Return what was counted on all ports, each given by the values of ``route_labels``."""
    replies = CounterMetricFamily(
        "natproxy_replies_rewritten",
        "Replies of nodes in which addresses were rewritten, by what they are.",
        labels=[*route_labels, "reply"],
    )
    fallbacks = CounterMetricFamily(
        "natproxy_rewrite_fallbacks",
        "Connections of rewriting ports that were passed on unread from some point on, by why.",
        labels=[*route_labels, "reason"],
    )
    for labels, rewrites in ports:
        for reply, number in rewrites.replies.items():
            replies.add_metric([*labels, reply], number)
        for reason, number in rewrites.fallbacks.items():
            fallbacks.add_metric([*labels, reason], number)
    yield from (replies, fallbacks)


def hint_family(hints: Counter[str]) -> Metric:
    """Return the hints by which replies had AWS and DNS asked; all are there from the start."""
    family = CounterMetricFamily(
        "natproxy_rewrite_hints",
        "Hints in replies (at most one a second of each port) that AWS and DNS may tell something new.",
        labels=["hint"],
    )
    for hint in Hint:
        family.add_metric([hint.value], hints[hint.value])
    return family
