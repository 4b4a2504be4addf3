"""The discovery loop: asks AWS again and again, sooner when a dial fails, later when AWS is in trouble. I/O: AWS.

The decisions about time are pure functions; time and chance are arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from natproxy.controller.logs import event
from natproxy.discover.parse import Failure, RawAnswers
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure

_log = logging.getLogger(__name__)

LONGEST_SECONDS = 120.0
"""AWS in trouble is asked at least this often."""
SHORTEST_SECONDS = 2.0
"""A hint cannot make AWS be asked sooner than this after the last answer."""
PATIENT_REASONS = frozenset({DiscoveryFailure.THROTTLED})
"""After these a hint does not shorten the wait."""


class Taken(NamedTuple):
    """What ``take`` made of an answer."""

    is_new: bool
    """It told something that was not known."""
    is_complete: bool
    """It told of everything that the config asks for; what failed beside it is nobody's concern."""


def pause_seconds(refresh_seconds: float, failures: int, chance: float) -> float:
    """Return how long to wait after ``failures`` failed rounds in a row (0: the last one was good).

    ``chance`` is a random number from 0 to 1: many daemons in one account must not ask in step.
    """
    if not failures:
        return refresh_seconds * (0.9 + 0.2 * chance)
    longest = max(LONGEST_SECONDS, refresh_seconds)
    full = min(longest, min(refresh_seconds, SHORTEST_SECONDS) * 2.0 ** min(failures, 16))
    return full * (0.5 + 0.5 * chance)


def spacing_seconds(refresh_seconds: float, fruitless_hints: int) -> float:
    """Return how long after the last answer a hint may have AWS asked again.

    Hints that found nothing new (a node that is simply down) double it, up to the usual pace.
    """
    return min(refresh_seconds, SHORTEST_SECONDS * 2.0 ** min(fruitless_hints, 16))


class Discovery:
    """Runs ``fetch`` in a loop and hands what it returns to ``take``.

    ``on_failure`` is called once for each round that was not complete, with the failure that came first in it.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[RawAnswers]],
        take: Callable[[RawAnswers], Taken],
        on_failure: Callable[[Failure], None],
        refresh_seconds: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._fetch = fetch
        self._take = take
        self._on_failure = on_failure
        self._refresh_seconds = refresh_seconds
        self._chance = chance
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._fruitless_hints = 0
        self._failures = 0
        self._is_patient = False
        self._told: tuple[str, ...] = ()

    def hint(self) -> None:
        """Something went wrong that a fresh answer may explain: ask soon."""
        self._woken.set()

    def hurry(self) -> None:
        """The config has changed: ask at once."""
        self._hurried.set()
        self._woken.set()

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.run_once()
            await self._rest()

    async def run_once(self) -> None:
        """Ask once and act on the answer."""
        was_hinted = self._woken.is_set() and not self._hurried.is_set()
        self._woken.clear()
        self._hurried.clear()
        failures, taken = await self._round()
        is_new = taken is not None and taken.is_new
        self._fruitless_hints = self._fruitless_hints + 1 if was_hinted and not is_new else 0
        self._is_patient = any(failure.reason in PATIENT_REASONS for failure in failures)
        # One listing that is denied for good must not slow down what the others tell.
        self._failures = self._failures + 1 if taken is None or self._is_patient else 0
        if failures and not (taken is not None and taken.is_complete):
            self._on_failure(failures[0])
        self._tell(failures)

    async def _round(self) -> tuple[tuple[Failure, ...], Taken | None]:
        try:
            answers = await self._fetch()
            return answers.failures, self._take(answers)
        except DiscoveryError as error:
            return (Failure("", error.reason, str(error)),), None
        except Exception as error:
            # A mistake of our own, brought to light by what AWS said: the next answer may be another one.
            event(_log, logging.ERROR, "the answer of AWS could not be taken in", exc_info=True)
            message = f"{type(error).__name__}: {error}"
            return (Failure("", DiscoveryFailure.NONSENSE, message),), None

    def _tell(self, failures: tuple[Failure, ...]) -> None:
        """Log each trouble once, and its end."""
        told = tuple(f"{failure.operation} {failure.reason}" for failure in failures)
        if told and told != self._told:
            for failure in failures:
                event(
                    _log,
                    logging.WARNING,
                    "discovery failed, the last known routes stay",
                    operation=failure.operation or None,
                    reason=failure.reason,
                    error=failure.message,
                )
        elif self._told and not told:
            event(_log, logging.INFO, "discovery works again")
        self._told = told

    async def _rest(self) -> None:
        refresh = self._refresh_seconds()
        pause = pause_seconds(refresh, self._failures, self._chance())
        least = pause if self._is_patient else min(pause, spacing_seconds(refresh, self._fruitless_hints))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(least):
                await self._hurried.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause - least):
                await self._woken.wait()
