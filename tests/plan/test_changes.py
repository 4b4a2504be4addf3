from __future__ import annotations

import dataclasses
import ipaddress
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Endpoint, Kind, Limits, Mode, NodeId, Plan, Route, RouteKey
from natproxy.plan.changes import destination, ends_connections, plan_changes
from tests.plan.samples import route

routes = st.builds(
    lambda port, host, error, seconds: route(
        port=port, target=Endpoint(host, 6379), error=error, limits=Limits(drain_seconds=seconds)
    ),
    st.integers(6379, 6386),
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, None, "the cache requires TLS"]),
    st.sampled_from([5.0, 30.0]),
)
desired_routes = st.lists(routes, unique_by=lambda one: one.port)


def running(*some: Route) -> dict[int, Route]:
    return {one.port: one for one in some}


def applied(current: dict[int, Route], plan: Plan) -> dict[int, Route]:
    kept = {port: one for port, one in current.items() if one not in plan.close}
    return kept | running(*plan.open, *plan.retarget)


def test_nothing_runs_yet() -> None:
    assert plan_changes({}, [route(port=2), route(port=1)]) == Plan(open=(route(port=1), route(port=2)))


def test_nothing_has_changed() -> None:
    assert plan_changes(running(route()), [route()]) == Plan()


def test_a_route_that_is_no_longer_wanted_is_closed_as_it_ran() -> None:
    assert plan_changes(running(route(port=2), route(port=1)), []) == Plan(close=(route(port=1), route(port=2)))


@pytest.mark.parametrize(
    "change",
    [
        {"target": Endpoint("other", 6379)},
        {"target": None},
        {"fallback": (Endpoint("other", 6379),)},
        {"allow": (ipaddress.ip_network("198.51.100.27/32"),)},
        {"client_tls": "passthrough"},
        {"limits": Limits(idle_seconds=9.0)},
        {"max_connections": 1},
        {"key": RouteKey("other", Kind.PRIMARY)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_new_about_a_route_retargets_it(change: dict[str, Any]) -> None:
    new = route(**change)
    assert plan_changes(running(route()), [new]) == Plan(retarget=(new,))


def test_a_route_with_an_error_is_not_opened() -> None:
    assert plan_changes({}, [route(error="the cache requires TLS")]) == Plan()


def test_an_open_route_that_gains_an_error_is_closed_as_it_ran() -> None:
    assert plan_changes(running(route()), [route(error="the cache requires TLS")]) == Plan(close=(route(),))


def test_a_route_whose_error_is_mended_is_opened() -> None:
    assert plan_changes({}, [route()]) == Plan(open=(route(),))


@given(desired_routes, desired_routes)
def test_applying_the_plan_gives_what_is_desired_and_then_there_is_nothing_to_do(
    before: list[Route], after: list[Route]
) -> None:
    current = applied({}, plan_changes({}, before))
    plan = plan_changes(current, after)
    now = applied(current, plan)
    assert now == running(*(one for one in after if one.error is None))
    assert plan_changes(now, after) == Plan()


@given(desired_routes, desired_routes)
def test_no_port_is_in_two_parts_of_a_plan(before: list[Route], after: list[Route]) -> None:
    plan = plan_changes(running(*before), after)
    ports = [one.port for part in (plan.open, plan.retarget, plan.close) for one in part]
    assert len(ports) == len(set(ports))


@given(desired_routes, desired_routes, st.randoms())
def test_the_order_of_the_desired_means_nothing(before: list[Route], after: list[Route], rng: random.Random) -> None:
    plan = plan_changes(running(*before), after)
    rng.shuffle(after)
    assert plan_changes(running(*before), after) == plan


@given(desired_routes, desired_routes, st.data())
def test_a_plan_applied_in_part_and_planned_again_converges(
    before: list[Route], after: list[Route], data: st.DataObject
) -> None:
    current = applied({}, plan_changes({}, before))
    plan = plan_changes(current, after)
    steps = [(name, one) for name in ("close", "retarget", "open") for one in getattr(plan, name)]
    for name, one in data.draw(
        st.lists(st.sampled_from(steps), unique_by=lambda step: step[1].port) if steps else st.just([])
    ):
        current = applied(current, Plan(**{name: (one,)}))
    current = applied(current, plan_changes(current, after))
    assert current == running(*(one for one in after if one.error is None))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"client_tls": "passthrough"}, True),
        ({"client_tls": "terminate"}, True),
        ({"node_tls": "on"}, True),
        ({"node_ca": "/tls/nodes.crt"}, False),
        ({"server_name": "node.example"}, False),
        ({"certificates": ("dev1",)}, False),
        ({"key": RouteKey("other", Kind.NODE, NodeId("o-001", "0001"))}, True),
        ({"target": Endpoint("renamed-by-aws", 6379)}, False),
        ({"target": None}, False),
        ({"limits": Limits(drain_seconds=1.0)}, False),
        ({"allow": ()}, False),
        ({"max_connections": 1}, False),
        ({"mode": Mode.CLUSTER_COMPATIBLE}, False),
    ],
)
def test_what_about_a_retargeted_route_ends_its_connections(change: dict[str, Any], expected: bool) -> None:
    assert ends_connections(route(), route(**change), is_reload=True) is expected


@pytest.mark.parametrize(("before", "after"), [("off", "on"), ("on", "off")])
def test_what_aws_says_a_cache_accepts_ends_nothing(before: str, after: str) -> None:
    """Who is connected is, until the node itself ends it: a cache that begins to take TLS takes both for a while."""
    assert not ends_connections(route(node_tls=before), route(node_tls=after), is_reload=False)


@pytest.mark.parametrize("is_reload", [True, False])
def test_another_key_on_the_port_ends_connections_whoever_brings_it(*, is_reload: bool) -> None:
    other = route(key=RouteKey("other", Kind.NODE, NodeId("o-001", "0001")))
    assert ends_connections(route(), other, is_reload=is_reload)


def test_a_static_routes_new_target_ends_its_connections() -> None:
    old = route(Kind.STATIC, Mode.STATIC)
    assert ends_connections(old, dataclasses.replace(old, target=Endpoint("new", 6379)), is_reload=True)


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        (Kind.NODE, {}, True),
        (Kind.NODE, {"target": Endpoint("renamed-by-aws", 6379)}, True),
        (Kind.NODE, {"key": RouteKey("c", Kind.NODE, NodeId("c-002", "0001"))}, False),
        (Kind.PRIMARY, {"key": RouteKey("c", Kind.READER)}, False),
        (Kind.PRIMARY, {"key": RouteKey("other", Kind.PRIMARY)}, False),
        (Kind.STATIC, {"target": Endpoint("new", 6379)}, False),
        (Kind.STATIC, {"key": RouteKey("other", Kind.STATIC)}, False),
        (Kind.STATIC, {"limits": Limits(drain_seconds=1.0)}, True),
    ],
)
def test_whoever_connects_to_a_port_relies_on_its_node_endpoint_or_target(
    kind: Kind, change: dict[str, Any], expected: bool
) -> None:
    assert (destination(route(kind)) == destination(route(kind, **change))) is expected
