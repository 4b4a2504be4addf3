from __future__ import annotations

import pytest

from natproxy.controller.discoverymetrics import DiscoveryCounts
from natproxy.controller.rounds import Rounds
from natproxy.discover.parse import Failure
from natproxy.model import DiscoveryFailure
from tests.controller.samples import Clock

DENIED = Failure("DescribeCacheClusters", DiscoveryFailure.DENIED, "not authorized")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rounds(clock: Clock) -> Rounds:
    return Rounds(DiscoveryCounts(), clock=clock)


def standing(rounds: Rounds) -> tuple[str, float | None, str, list[str]]:
    view = rounds.view(15.0, is_asked=True)
    return view.state, view.age_seconds, rounds.waiting(is_asked=True), rounds.troubles()


def test_before_aws_has_told_everything_it_is_waited_for(rounds: Rounds) -> None:
    assert standing(rounds) == ("waiting", None, "the first answer of AWS", [])
    rounds.fail(DENIED)
    assert standing(rounds) == ("failing", None, "the first answer of AWS (denied: not authorized)", [])


def test_afterwards_a_failure_is_a_trouble_until_the_next_good_round(rounds: Rounds, clock: Clock) -> None:
    rounds.succeed()
    clock.now += 7
    assert standing(rounds) == ("ok", 7.0, "", [])
    rounds.fail(DENIED)
    trouble = "AWS cannot be asked, what was known is served (denied: not authorized)"
    assert standing(rounds) == ("failing", 7.0, "", [trouble])
    rounds.succeed()
    assert standing(rounds) == ("ok", 0.0, "", [])


def test_where_there_is_nothing_to_ask_nothing_is_waited_for(rounds: Rounds) -> None:
    rounds.fail(DENIED)
    assert rounds.waiting(is_asked=False) == ""
    assert rounds.view(15.0, is_asked=False).state == "off"
    rounds.succeed()
    rounds.fail(DENIED)
    rounds.end()
    assert rounds.troubles() == []


def test_each_round_is_counted() -> None:
    counts = DiscoveryCounts()
    rounds = Rounds(counts)
    rounds.fail(DENIED)
    rounds.succeed()
    (runs, failures, *_) = counts.families()
    assert runs.samples[0].value == 2
    assert [one.value for one in failures.samples if one.labels == {"reason": "denied"}] == [1]
