from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from natproxy.pages.sparkline import box, in_words, points

HISTORIES = st.lists(st.integers(0, 10**12), max_size=60)


@given(HISTORIES)
def test_a_curve_has_a_point_for_each_value_and_stays_within_its_box(history: list[int]) -> None:
    drawn = [tuple(map(int, point.split(","))) for point in points(history).split()]
    curve = drawn[2:-2]
    assert [x for x, _ in curve] == list(range(max(2, len(history))))
    assert all(0 < y < 100 for _, y in curve)
    assert f"0 0 {curve[-1][0]} 100" == box(history)
    outside = [drawn[0], drawn[1], drawn[-2], drawn[-1]]
    assert all(x in (-1, curve[-1][0] + 1) for x, _ in outside), "its edges are not seen"


@given(HISTORIES)
def test_higher_values_are_never_drawn_lower(history: list[int]) -> None:
    drawn = [int(point.split(",")[1]) for point in points(history).split()[2:-2]][: len(history)]
    for (one, height), (other, other_height) in pairwise(zip(history, drawn, strict=True)):
        assert height >= other_height or one > other
    if any(history):
        assert drawn[history.index(max(history))] == 7


def test_what_it_says_is_said_in_words_too() -> None:
    assert in_words((), 2.0) == in_words((0, 0), 2.0) == "no traffic in the last minutes"
    assert in_words((0, 1500) * 30, 2.0) == "traffic of the last 2 min: at most 1.5 kB/s"
