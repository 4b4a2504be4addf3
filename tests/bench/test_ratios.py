from __future__ import annotations

import msgspec
import pytest

from bench import ratios
from bench.ratios import Ratio
from bench.results import HAPROXY, NATPROXY, NGINX, Reading, Row
from tests.bench.samples import MEMORY, ROW


def test_a_ratio_is_the_median_of_the_rounds_with_its_spread() -> None:
    assert ratios.costs(ROW) == Ratio(0.9, 0.5, 1.0)
    assert ratios.costs(ROW, NGINX) == Ratio(0.5, 0.45, 0.5)


def test_less_cost_less_latency_and_more_done_are_all_above_one() -> None:
    p99, rate = ratios.p99s(ROW), ratios.rates(ROW)
    assert p99 is not None
    assert p99.median == 2.0
    assert rate is not None
    assert rate.median == pytest.approx(1.1)


def test_what_was_not_measured_has_no_ratio() -> None:
    alone = msgspec.structs.replace(ROW, readings={NATPROXY: [Reading(1.0)]})
    assert ratios.costs(alone) is None
    assert ratios.p50s(ROW, NGINX) is None
    assert ratios.median_cost(ROW, "stunnel") is None


def test_a_round_that_cost_nothing_to_be_seen_is_left_out() -> None:
    assert ratios.ratio([0.0, 2.0], [1.0, 1.0]) == Ratio(0.5, 0.5, 0.5)
    assert ratios.ratio([0.0], [1.0]) is None


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (ROW, (0.9, False)),
        (msgspec.structs.replace(ROW, reach=0.9), (0.9, True)),
        (msgspec.structs.replace(ROW, basis="p50", reach=0.8), (0.8, True)),
        (msgspec.structs.replace(ROW, basis="rate", reach=1.2), (pytest.approx(1.1), False)),
        (MEMORY, (1.5, True)),
        (msgspec.structs.replace(MEMORY, reach=1.0), (1.5, False)),
        (msgspec.structs.replace(ROW, reach=None), None),
    ],
)
def test_a_reach_is_compared_with_what_it_is_about(row: Row, reached: object) -> None:
    assert ratios.reached(row) == reached


def test_a_reach_without_a_peer_is_neither_met_nor_missed() -> None:
    assert ratios.reached(msgspec.structs.replace(ROW, readings={HAPROXY: [Reading(1.0)]})) is None
