"""What is counted and shown of the config's reloads. Pure: makes metric families for metrics.py."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class ConfigCounts:
    """Counts since the start, which took up a config too. ``now`` is the Unix time."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._reloads: Counter[str] = Counter()
        self._is_last_good = True
        self._taken_up_at = now()

    def record_reload(self, *, is_accepted: bool) -> None:
        """Count a reload of the config."""
        self._reloads["accepted" if is_accepted else "refused"] += 1
        self._is_last_good = is_accepted
        if is_accepted:
            self._taken_up_at = self._now()

    def families(self) -> Iterator[Metric]:
        """Return all families."""
        reloads = CounterMetricFamily("natproxy_config_reloads", "Reloads of the config, by result.", labels=["result"])
        for result in ("accepted", "refused"):
            reloads.add_metric([result], self._reloads[result])
        yield reloads
        yield GaugeMetricFamily(
            "natproxy_config_last_reload_successful",
            "1 where the last reload of the config was accepted, or there was none.",
            value=self._is_last_good,
        )
        yield GaugeMetricFamily(
            "natproxy_config_last_reload_success_timestamp_seconds",
            "Unix time at which the config in use was taken up.",
            value=self._taken_up_at,
        )
