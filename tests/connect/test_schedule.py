from __future__ import annotations

import pytest

from natproxy.connect.schedule import LOST_SECONDS, REFRESH_SECONDS, REFUSED_SECONDS, Schedule


@pytest.mark.parametrize(
    ("is_lost", "is_refused", "seconds"),
    [(False, False, REFRESH_SECONDS), (True, False, LOST_SECONDS), (True, True, REFUSED_SECONDS)],
    ids=["well", "lost", "refused"],
)
def test_how_long_it_waits(is_lost: bool, is_refused: bool, seconds: float) -> None:
    schedule = Schedule()
    schedule.asked(100.0, is_lost=is_lost, is_refused=is_refused)
    assert schedule.due - 100.0 == pytest.approx(seconds, rel=0.11)
    assert schedule.heeds_hints is not is_refused


def test_who_is_refused_asks_earlier_where_a_port_lets_it_in_but_not_all_the_time() -> None:
    schedule = Schedule()
    schedule.asked(100.0, is_lost=True, is_refused=True)
    schedule.let_in()
    assert schedule.due == 100.0 + REFRESH_SECONDS
    schedule.asked(200.0)
    due = schedule.due
    schedule.let_in()
    assert schedule.due == due
