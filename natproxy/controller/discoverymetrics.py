"""What is counted and shown of asking AWS and DNS, and of what is new. Pure: makes metric families for metrics.py."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from natproxy.controller.changes import NodeChange
from natproxy.model import DiscoveryFailure


class DiscoveryCounts:
    """Counts since the start. ``now`` is the Unix time."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._runs = self._name_failures = 0
        self._failures: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()
        self._succeeded_at = self._refresh_seconds = 0.0
        self._is_ready = False

    def show(self, refresh_seconds: float, *, is_ready: bool) -> None:
        """Tell how often AWS is asked (0 where there is nothing to ask for), and what /readyz says."""
        self._refresh_seconds = refresh_seconds
        self._is_ready = is_ready

    def record_round(self, failure: DiscoveryFailure | None) -> None:
        """Count one round of asking AWS; ``failure`` None where it told everything."""
        self._runs += 1
        if failure is None:
            self._succeeded_at = self._now()
        else:
            self._failures[failure] += 1

    def record_change(self, change: NodeChange, number: int = 1) -> None:
        """Count changes of nodes and endpoints."""
        self._changes[change] += number

    def record_name_failure(self) -> None:
        """Count a host name that did not resolve."""
        self._name_failures += 1

    def families(self) -> Iterator[Metric]:
        """Return all families."""
        yield CounterMetricFamily("natproxy_discovery_runs", "Rounds of asking AWS.", value=self._runs)
        failures = CounterMetricFamily(
            "natproxy_discovery_failures",
            "Rounds in which AWS did not tell everything, by reason.",
            labels=["reason"],
        )
        for reason in DiscoveryFailure:
            failures.add_metric([reason.value], self._failures[reason])
        yield failures
        yield GaugeMetricFamily(
            "natproxy_discovery_last_success_timestamp_seconds",
            "Unix time of the last round in which AWS told everything; 0 before the first.",
            value=self._succeeded_at,
        )
        yield GaugeMetricFamily(
            "natproxy_discovery_refresh_seconds",
            "Seconds between two rounds of asking AWS while all is well; 0 where no cache is configured.",
            value=self._refresh_seconds,
        )
        yield GaugeMetricFamily(
            "natproxy_ready",
            "1 where AWS has told everything at least once since the start, or no cache is configured: as /readyz.",
            value=self._is_ready,
        )
        changes = CounterMetricFamily(
            "natproxy_node_changes", "Changes of nodes and endpoints that were followed.", labels=["change"]
        )
        for change in NodeChange:
            changes.add_metric([change.value], self._changes[change])
        yield changes
        yield CounterMetricFamily(
            "natproxy_name_failures", "Host names that did not resolve.", value=self._name_failures
        )
