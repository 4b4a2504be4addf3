from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.doctor.spans import spans, written


@pytest.mark.parametrize(
    ("ports", "text"),
    [([], ""), ([6379], "6379"), ([6381, 6379, 6380], "6379-6381"), ([6381, 6379, 6380, 11211], "6379-6381, 11211")],
)
def test_they_are_written_as_a_person_does(ports: list[int], text: str) -> None:
    assert written(ports) == text


@given(st.sets(st.integers(1, 40)))
def test_runs_hold_every_port_once_and_do_not_touch(ports: set[int]) -> None:
    found = spans(ports)
    assert [port for first, last in found for port in range(first, last + 1)] == sorted(ports)
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(found))
