"""A reset is passed on as a reset at whatever moment it comes; what came before it is not changed by it.

``who`` resets. What the other one gets is always the beginning of what was said, then the reset.
"""

from __future__ import annotations

import functools
import socket

import pytest

from tests.scenarios.streams import background, ends_of, wait_until_still
from tests.scenarios.ways import MEBIBYTE, SIDES, House, Outcomes, Way, each_count_of_workers, every_way

BULK_BYTES = 32 * MEBIBYTE
"""More than all buffers on the way hold, where those at its ends are narrow."""
BURST_BYTES = MEBIBYTE + 1

pytestmark = [each_count_of_workers, every_way]


@pytest.mark.parametrize("moment", ["before the first byte", "after a word", "after its own words"])
def test_at_rest(tidy_house: House, way: Way, moment: str) -> None:
    outcomes = Outcomes(tidy_house)
    for who in SIDES:
        link = tidy_house.link(way)
        outcomes.expect(link[0], f"{who}-reset")
        one, other = ends_of(link, who)
        if moment == "after a word":
            other.say(11)
            one.hear(11)
        elif moment == "after its own words":
            one.say(11)
            other.hear(11)
        one.talk.reset()
        assert other.hear_to_the_reset() == one.said
    outcomes.check()


def test_right_after_its_own_burst(tidy_house: House, way: Way) -> None:
    outcomes = Outcomes(tidy_house)
    for who in SIDES:
        link = tidy_house.link(way)
        outcomes.expect(link[0], f"{who}-reset")
        one, other = ends_of(link, who)
        hearing = background(other.hear_to_the_reset)
        one.say(BURST_BYTES)
        one.talk.reset()
        assert hearing.result() <= one.said
    outcomes.check()


def test_within_its_own_burst_of_which_the_other_reads_nothing(tidy_house: House, way: Way) -> None:
    outcomes = Outcomes(tidy_house)
    silent = []
    for who in SIDES:
        link = tidy_house.link(way)
        outcomes.expect(link[0], f"{who}-reset")
        one, other = ends_of(link, who)
        one.stuff(tidy_house.daemon)
        one.talk.reset()
        silent.append((one, other))
    outcomes.check()
    for one, other in silent:
        assert other.hear_to_the_reset() < one.said


@pytest.mark.parametrize("is_stuck", [False, True], ids=["moving", "stuck"])
def test_in_the_middle_of_what_the_other_one_says(tidy_house: House, way: Way, is_stuck: bool) -> None:
    outcomes = Outcomes(tidy_house)
    for who in SIDES:
        link = tidy_house.link(way)
        outcomes.expect(link[0], f"{who}-reset")
        one, other = ends_of(link, who)
        one.narrow()
        other.narrow()
        saying = background(other.say_in_slices, BULK_BYTES)
        one.hear(BURST_BYTES)
        if is_stuck:
            wait_until_still(tidy_house.daemon, functools.partial(getattr, other, "said"))
        one.talk.reset()
        with pytest.raises(ConnectionError):
            saying.result()
    outcomes.check()


def test_after_the_other_one_s_end(tidy_house: House, way: Way) -> None:
    outcomes = Outcomes(tidy_house)
    for who in SIDES:
        link = tidy_house.link(way)
        outcomes.expect(link[0], f"{who}-reset")
        one, other = ends_of(link, who)
        other.say_last(BURST_BYTES)
        assert one.hear_to_the_end() == BURST_BYTES
        one.say(5)
        other.hear(5)
        one.talk.reset()
        assert other.hear_to_the_reset() == 5
    outcomes.check()


def test_after_its_own_end_which_the_other_one_learns_once_it_speaks(tidy_house: House, way: Way) -> None:
    outcomes = Outcomes(tidy_house)
    others = []
    for who in SIDES:
        link = tidy_house.link(way)
        outcomes.expect(link[0], f"{who}-reset")
        one, other = ends_of(link, who)
        one.say_last(BURST_BYTES)
        assert other.hear_to_the_end() == BURST_BYTES
        other.say(5)
        one.hear(5)
        one.talk.reset()
        others.append(other)
    outcomes.check()
    for other in others:
        with pytest.raises(ConnectionError):
            other.say_in_slices(BULK_BYTES)


def test_who_closes_without_having_read_everything_resets_and_its_last_words_are_heard(
    tidy_house: House, way: Way
) -> None:
    """Such a close is mostly an error reply's: "max number of clients reached"."""
    for who in SIDES:
        one, other = ends_of(tidy_house.link(way), who)
        other.say(BURST_BYTES)
        one.hear(1)
        one.say(35)
        assert one.talk.sock.recv(1, socket.MSG_PEEK), "there is more to be read"
        one.talk.close()
        assert other.hear_to_the_reset() == 35
