"""How asking AWS goes: whether it has told everything yet, when it last did, and what is in the way. Pure.

The monotonic clock is an argument.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from natproxy.controller.discoverymetrics import DiscoveryCounts
from natproxy.discover.parse import Failure
from natproxy.documents import DiscoveryView
from natproxy.model import DiscoveryFailure


class Rounds:
    """What the rounds came to. ``is_asked``: the config names a cache, so that there is anything to ask for."""

    def __init__(self, counts: DiscoveryCounts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._counts = counts
        self._clock = clock
        self._succeeded_at: float | None = None
        """None: AWS has never told everything."""
        self._failure: Failure | None = None
        """Of the last round; None where that went well."""

    def succeed(self) -> None:
        """Take a round in which AWS told everything."""
        self._succeeded_at = self._clock()
        self._failure = None
        self._counts.record_round(None)

    def fail(self, failure: Failure) -> None:
        """Take any other."""
        self._failure = failure
        self._counts.record_round(DiscoveryFailure(failure.reason))

    def end(self) -> None:
        """Take it that AWS is asked no more: what went wrong last is nobody's trouble now."""
        self._failure = None

    def view(self, interval_seconds: float, *, is_asked: bool) -> DiscoveryView:
        """Return how it goes; ``interval_seconds`` lie between two rounds."""
        at = self._succeeded_at
        return DiscoveryView(
            state=self._state() if is_asked else "off",
            age_seconds=None if at is None else round(self._clock() - at, 1),
            interval_seconds=interval_seconds,
        )

    def waiting(self, *, is_asked: bool) -> str:
        """Say what the first discovery waits for; empty once it has succeeded, or where there is nothing to ask."""
        if self._succeeded_at is not None or not is_asked:
            return ""
        if self._failure is None:
            return "the first answer of AWS"
        return f"the first answer of AWS ({self._failure.reason}: {self._failure.message})"

    def troubles(self) -> list[str]:
        """Say what is wrong while what was known before is served on."""
        if self._succeeded_at is None or self._failure is None:
            return []
        return [f"AWS cannot be asked, what was known is served ({self._failure.reason}: {self._failure.message})"]

    def _state(self) -> str:
        if self._failure is not None:
            return "failing"
        return "waiting" if self._succeeded_at is None else "ok"
