from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.controller import reconcile
from natproxy.controller.reconcile import (
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    Discovery,
    Taken,
    pause_seconds,
    spacing_seconds,
)
from natproxy.discover.parse import Failure, RawAnswers
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure

REFRESHES = st.floats(1.0, 3600.0)
CHANCES = st.floats(0.0, 1.0)
GOOD = RawAnswers([], [], [])
DENIED = Failure("DescribeServerlessCaches", DiscoveryFailure.DENIED, "not authorized")
THROTTLED = Failure("DescribeCacheClusters", DiscoveryFailure.THROTTLED, "Rate exceeded")
DOWN = DiscoveryError(DiscoveryFailure.UNREACHABLE, "no route to host")
TOO_FAST = DiscoveryError(DiscoveryFailure.THROTTLED, "Rate exceeded")


@given(REFRESHES, CHANCES)
def test_after_a_good_round_the_pace_is_the_usual_one(refresh: float, chance: float) -> None:
    assert 0.9 * refresh <= pause_seconds(refresh, 0, chance) <= 1.1 * refresh


@given(REFRESHES, st.integers(1, 10_000), CHANCES)
def test_trouble_makes_no_round_come_later_than_the_longest_pause(refresh: float, failures: int, chance: float) -> None:
    assert 0.0 < pause_seconds(refresh, failures, chance) <= max(LONGEST_SECONDS, refresh)


@given(REFRESHES, st.integers(1, 100), CHANCES)
def test_the_longer_the_trouble_the_longer_the_pause(refresh: float, failures: int, chance: float) -> None:
    assert pause_seconds(refresh, failures, chance) <= pause_seconds(refresh, failures + 1, chance)


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"),
    [(1, 1.0, 4.0), (1, 0.0, 2.0), (2, 1.0, 8.0), (4, 1.0, 32.0), (6, 1.0, 120.0), (6, 0.0, 60.0), (500, 1.0, 120.0)],
)
def test_the_pause_doubles(failures: int, chance: float, seconds: float) -> None:
    assert pause_seconds(15.0, failures, chance) == seconds


@pytest.mark.parametrize(("hints", "seconds"), [(0, 2.0), (1, 4.0), (2, 8.0), (3, 15.0), (10_000, 15.0)])
def test_hints_that_find_nothing_come_to_the_usual_pace(hints: int, seconds: float) -> None:
    assert spacing_seconds(15.0, hints) == seconds


@given(REFRESHES, st.integers(0, 10_000))
def test_a_hint_never_makes_it_slower_than_the_usual_pace(refresh: float, hints: int) -> None:
    assert min(refresh, SHORTEST_SECONDS) <= spacing_seconds(refresh, hints) <= refresh


class Aws:
    """Answers as scripted, then with ``GOOD``; every question can be waited for."""

    def __init__(self, *script: RawAnswers | Exception) -> None:
        self.script = list(script)
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self.number = 0
        self.failures: list[Failure] = []
        self.taken: list[RawAnswers] = []
        self.take: Callable[[RawAnswers], Taken] = lambda answers: Taken(is_new=False, is_complete=not answers.failures)
        self.discovery = Discovery(
            self.fetch, self._take, self.failures.append, lambda: self.refresh, chance=lambda: 0.5
        )
        self.refresh = 3600.0

    async def fetch(self) -> RawAnswers:
        self.number += 1
        self.asked.put_nowait(self.number)
        answer = self.script.pop(0) if self.script else GOOD
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _take(self, answers: RawAnswers) -> Taken:
        self.taken.append(answers)
        return self.take(answers)

    async def next(self) -> int:
        return await asyncio.wait_for(self.asked.get(), 10)

    async def is_left_alone(self, seconds: float = 0.1) -> bool:
        """Whether it is not asked for a while."""
        try:
            await asyncio.wait_for(self.asked.get(), seconds)
        except TimeoutError:
            return True
        return False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Aws]:
        task = asyncio.get_running_loop().create_task(self.discovery.run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "SHORTEST_SECONDS", 0.001)


async def test_aws_is_asked_at_the_start_and_then_at_its_pace() -> None:
    async with Aws().running() as aws:
        assert await aws.next() == 1
        assert await aws.is_left_alone()
    aws = Aws()
    aws.refresh = 0.001
    async with aws.running():
        for number in range(1, 6):
            assert await aws.next() == number


@pytest.mark.usefixtures("_at_once")
async def test_a_hint_has_aws_asked_soon() -> None:
    async with Aws().running() as aws:
        await aws.next()
        aws.discovery.hint()
        assert await aws.next() == 2


async def test_many_hints_are_one_question_and_not_at_once() -> None:
    async with Aws().running() as aws:
        await aws.next()
        for _ in range(100):
            aws.discovery.hint()
        assert await aws.is_left_alone()


@pytest.mark.usefixtures("_at_once")
async def test_a_hint_while_aws_is_being_asked_has_it_asked_again() -> None:
    aws = Aws()

    def take(answers: RawAnswers) -> Taken:
        if aws.number == 1:
            aws.discovery.hint()
        return Taken(is_new=False, is_complete=True)

    aws.take = take
    async with aws.running():
        assert [await aws.next(), await aws.next()] == [1, 2]
        assert await aws.is_left_alone()


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("trouble", [TOO_FAST, RawAnswers([], None, [], failures=(DENIED, THROTTLED))])
async def test_hints_do_not_press_aws_while_it_throttles(trouble: RawAnswers | Exception) -> None:
    aws = Aws(*[trouble] * 20)
    for _ in range(20):
        await aws.discovery.run_once()
    resting = asyncio.get_running_loop().create_task(aws.discovery._rest())
    aws.discovery.hint()
    done, _ = await asyncio.wait([resting], timeout=0.1)
    assert not done
    aws.discovery.hurry()
    await asyncio.wait_for(resting, 10)


@pytest.mark.usefixtures("_at_once")
async def test_hints_shorten_the_wait_in_any_other_trouble() -> None:
    aws = Aws(*[DOWN] * 20)
    for _ in range(20):
        await aws.discovery.run_once()
    resting = asyncio.get_running_loop().create_task(aws.discovery._rest())
    aws.discovery.hint()
    await asyncio.wait_for(resting, 10)


async def test_a_reload_has_aws_asked_at_once_and_counts_as_no_hint() -> None:
    async with Aws().running() as aws:
        await aws.next()
        for number in range(2, 6):
            aws.discovery.hurry()
            assert await aws.next() == number
        assert aws.discovery._fruitless_hints == 0


async def test_fruitless_hints_are_counted_until_something_is_new() -> None:
    aws = Aws()
    for _ in range(3):
        aws.discovery.hint()
        await aws.discovery.run_once()
    assert aws.discovery._fruitless_hints == 3
    aws.take = lambda _: Taken(is_new=True, is_complete=True)
    aws.discovery.hint()
    await aws.discovery.run_once()
    assert aws.discovery._fruitless_hints == 0


async def test_a_failure_is_told_once_for_each_round_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    aws = Aws(DOWN, DOWN, DOWN)
    with caplog.at_level(logging.INFO):
        for _ in range(4):
            await aws.discovery.run_once()
    assert aws.failures == [Failure("", DiscoveryFailure.UNREACHABLE, "no route to host")] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "discovery failed, the last known routes stay",
        "discovery works again",
    ]
    assert aws.discovery._failures == 0


async def test_a_partial_answer_is_taken_and_counts_as_one_failed_round() -> None:
    partial = RawAnswers([], None, None, failures=(DENIED, DENIED._replace(operation="DescribeCacheClusters")))
    aws = Aws(partial)
    await aws.discovery.run_once()
    assert aws.taken == [partial]
    assert aws.failures == [DENIED]
    assert aws.discovery._failures == 0  # the others go on at their pace


async def test_a_denied_listing_that_nobody_needs_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    aws = Aws(*[RawAnswers([], [], None, failures=(DENIED,))] * 3)
    aws.take = lambda _: Taken(is_new=False, is_complete=True)
    for _ in range(3):
        await aws.discovery.run_once()
    assert aws.failures == []
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("_at_once")
async def test_a_mistake_in_taking_an_answer_in_is_logged_and_counted_and_the_next_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    aws = Aws()
    aws.refresh = 0.001

    def take(answers: RawAnswers) -> Taken:
        if aws.number == 1:
            raise KeyError("surprise")
        return Taken(is_new=True, is_complete=True)

    aws.take = take
    async with aws.running():
        assert [await aws.next(), await aws.next()] == [1, 2]
    assert aws.failures == [Failure("", DiscoveryFailure.NONSENSE, "KeyError: 'surprise'")]
    (record, *_) = caplog.records
    assert record.exc_info is not None
    assert "could not be taken in" in record.getMessage()


async def test_a_cancelled_question_ends_the_loop() -> None:
    started = asyncio.Event()
    failures: list[Failure] = []

    async def fetch() -> RawAnswers:
        started.set()
        await asyncio.Event().wait()
        return GOOD

    discovery = Discovery(fetch, lambda _: Taken(is_new=False, is_complete=True), failures.append, lambda: 15.0)
    task = asyncio.get_running_loop().create_task(discovery.run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert failures == []
