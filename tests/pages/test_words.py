from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.pages.words import count, day, delay, moment, rate, span


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 B/s"),
        (-3.0, "0 B/s"),
        (999.4, "999 B/s"),
        (999.5, "1.0 kB/s"),
        (1_250.0, "1.2 kB/s"),
        (12_500.0, "12 kB/s"),
        (999_499.0, "999 kB/s"),
        (999_999.0, "1.0 MB/s"),
        (3.2e9, "3.2 GB/s"),
        (5e15, "5000 TB/s"),
    ],
)
def test_a_rate_has_few_digits(value: float, text: str) -> None:
    assert rate(value) == text


@given(st.floats(0, 9e14))
def test_a_rate_reads_back_as_about_what_it_was(value: float) -> None:
    number, unit = rate(value).split()
    scale = {"B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.06, abs=0.51)
    assert len(number) <= 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.00042, "0.42 ms"), (0.0123, "12.3 ms"), (0.25, "250 ms"), (1.0, "1.0 s"), (12.34, "12.3 s")],
)
def test_a_delay_is_in_milliseconds_below_a_second(value: float | None, text: str) -> None:
    assert delay(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (86_400, "1 d"),
        (93_784, "1 d 2 h"),
    ],
)
def test_a_span_has_two_units_at_most(value: float, text: str) -> None:
    assert span(value) == text


def test_a_moment_tells_its_date_only_where_it_is_not_today() -> None:
    assert moment("2026-01-31T11:59:40Z", "2026-01-31") == "11:59:40"
    assert moment("2026-01-30T23:10:00Z", "2026-01-31") == "2026-01-30 23:10:00"
    assert moment("2026-01-30T23:10:00Z", "") == "2026-01-30 23:10:00"
    assert moment("later") == "later"
    assert day("2026-01-30T23:10:00Z") == "2026-01-30"


def test_a_count_agrees_with_its_noun() -> None:
    assert [count(number, "route") for number in (0, 1, 2, 3000)] == ["0 routes", "1 route", "2 routes", "3,000 routes"]
