from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.controller.activity import (
    MINUTES,
    RATE_STEPS,
    STEP_SECONDS,
    STEPS,
    TURNED_AWAY,
    Activity,
    quantile,
    turned_away,
)
from natproxy.documents import Traffic
from natproxy.messages import DIAL_BUCKETS, Counts, RouteCounts
from natproxy.model import REFUSALS, Kind, NodeId, Outcome, RouteKey
from tests.controller.samples import Clock

KEY = RouteKey("my-redis", Kind.NODE, NodeId("my-redis-001", "0001"))
OTHER = RouteKey("my-redis", Kind.PRIMARY)
DIALS = st.lists(st.integers(0, 1000), min_size=len(DIAL_BUCKETS) + 1, max_size=len(DIAL_BUCKETS) + 1)
SHARES = st.floats(0, 1)


def counted(
    port: int = 1,
    client_bytes: int = 0,
    node_bytes: int = 0,
    dials: tuple[int, ...] = (),
    ended: dict[str, int] | None = None,
) -> Counts:
    """What a worker tells of one port."""
    return Counts(0, (RouteCounts(port, 0, 0, ended or {}, client_bytes, node_bytes, dials, 0.0, ()),))


def dialled(**buckets: int) -> tuple[int, ...]:
    """Dials by the place of their bucket: ``_0``, ``_1`` ..."""
    return tuple(buckets.get(f"_{place}", 0) for place in range(len(DIAL_BUCKETS) + 1))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def activity(clock: Clock) -> Activity:
    activity = Activity(clock)
    activity.follow({1: KEY, 2: OTHER})
    return activity


# Quantiles.


@given(DIALS, SHARES, SHARES)
def test_a_larger_share_never_takes_less(dials: list[int], one: float, other: float) -> None:
    low, high = quantile(dials, min(one, other)), quantile(dials, max(one, other))
    if not any(dials):
        assert low is None
        assert high is None
        return
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= DIAL_BUCKETS[-1]


@given(DIALS, SHARES)
def test_a_quantile_lies_in_the_bucket_of_the_dial_that_it_stands_for(dials: list[int], share: float) -> None:
    found = quantile(dials, share)
    if found is None:
        return
    below = sum(number for number, bound in zip(dials, DIAL_BUCKETS, strict=False) if bound <= found)
    within = sum(
        number
        for number, lower in zip(dials, (0.0, *DIAL_BUCKETS), strict=True)
        if lower < found or (found == 0 and lower == 0) or lower == DIAL_BUCKETS[-1] == found
    )
    wanted = share * sum(dials)
    slack = 1e-6 * (1 + sum(dials))
    assert below <= wanted + slack
    assert within >= wanted - slack


def test_within_a_bucket_dials_lie_evenly() -> None:
    assert quantile(dialled(_1=10), 0.5) == pytest.approx(0.00075)
    assert quantile(dialled(_0=1, _2=1), 0.5) == pytest.approx(0.0005)
    assert quantile(dialled(_13=3), 0.5) == 5.0, "longer than the last bound is all that is known"


# What moves.


def test_bytes_become_a_rate_and_a_curve(activity: Activity, clock: Clock) -> None:
    for _ in range(10):
        activity.take(counted(client_bytes=1000, node_bytes=3000))
        clock.now += 1.0
    traffic = activity.traffic(1)
    assert (traffic.client_bytes_per_second, traffic.node_bytes_per_second) == (1000.0, 3000.0)
    assert len(traffic.history) == STEPS
    assert traffic.history[-5:] == (4000,) * 5
    assert set(traffic.history[:-5]) == {0}
    assert activity.total() == traffic
    assert activity.traffic(2) == activity.traffic(None) == activity.traffic(99) == Traffic()


def test_what_is_over_falls_to_nothing_and_out_of_the_curve(activity: Activity, clock: Clock) -> None:
    activity.take(counted(client_bytes=1000))
    clock.now += STEP_SECONDS * (RATE_STEPS + 1)
    assert activity.traffic(1).client_bytes_per_second == 0
    assert max(activity.traffic(1).history) == 500
    clock.now += STEP_SECONDS * STEPS
    assert activity.traffic(1).history == ()


@given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 10**9)), max_size=40))
def test_the_curve_holds_what_came_within_it_and_nothing_else(happened: list[tuple[float, int]]) -> None:
    clock = Clock(0.0)
    activity = Activity(clock)
    activity.follow({1: KEY})
    for pause, number in happened:
        clock.now += pause
        activity.take(counted(client_bytes=number * int(STEP_SECONDS)))
    now, at, expected = int(clock.now // STEP_SECONDS), 0.0, 0
    for pause, number in happened:
        at += pause
        expected += number if now - STEPS <= int(at // STEP_SECONDS) < now else 0
    assert sum(activity.traffic(1).history) == expected


def test_dials_and_refusals_count_for_some_minutes(activity: Activity, clock: Clock) -> None:
    activity.take(counted(dials=dialled(_1=4), ended={"not-allowed": 2, "client-closed": 5, "certificate-revoked": 1}))
    clock.now += 60.0 * (MINUTES - 1)
    activity.take(counted(dials=dialled(_5=1)))
    traffic = activity.traffic(1)
    assert traffic.refusals == 3
    assert traffic.dial_p50_seconds is not None
    assert 0.0005 < traffic.dial_p50_seconds < 0.001
    assert traffic.dial_p99_seconds is not None
    assert 0.01 < traffic.dial_p99_seconds <= 0.025
    clock.now += 60.0
    assert activity.traffic(1).refusals == 0
    assert activity.traffic(1).dial_p50_seconds == pytest.approx(0.0175)
    clock.now += 60.0 * MINUTES
    assert activity.traffic(1).dial_p50_seconds is None


def test_a_port_that_vanishes_or_leads_elsewhere_begins_anew(activity: Activity, clock: Clock) -> None:
    activity.take(counted(client_bytes=8))
    clock.now += STEP_SECONDS
    activity.follow({1: KEY})
    assert activity.traffic(1).history
    activity.follow({1: OTHER})
    assert activity.traffic(1) == Traffic()
    activity.follow({})
    activity.take(counted(client_bytes=8))
    clock.now += STEP_SECONDS
    assert activity.traffic(1) == Traffic()
    assert activity.total().history[-2:] == (4, 4), "the whole keeps what the parts did"


def test_who_is_turned_away_is_counted_and_nobody_else() -> None:
    (route,) = counted(ended=dict.fromkeys(Outcome, 1)).routes
    assert turned_away(route).keys() == set(TURNED_AWAY)
    assert set(TURNED_AWAY) > REFUSALS


def test_a_port_costs_little_however_much_happens() -> None:
    clock, ports = Clock(), range(100)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        activity = Activity(clock)
        activity.follow(dict.fromkeys(ports, KEY))
        for _ in range(4 * MINUTES):
            clock.now += 30.0
            for port in ports:
                activity.take(counted(port, 10**9, 10**9, (10**6,) * 14, {"limit": 10**6}))
        assert (tracemalloc.get_traced_memory()[0] - before) / len(ports) < 6 * 1024
    finally:
        tracemalloc.stop()
