from __future__ import annotations

from natproxy.controller.activity import TURNED_AWAY
from natproxy.controller.limitmetrics import Refusals, limit_families
from natproxy.messages import RouteCounts
from natproxy.model import Kind, Mode, Route, RouteKey


def route(port: int, group: str, most: int) -> Route:
    key = RouteKey("my-redis", Kind.PRIMARY)
    return Route(port, key, None, Mode.CLUSTER_DISABLED, limit_group=group, max_connections=most)


def test_each_reason_is_there_before_it_happens() -> None:
    refusals = Refusals()
    before = {sample.labels["reason"]: sample.value for sample in refusals.family().samples}
    assert before == dict.fromkeys((outcome.value for outcome in TURNED_AWAY), 0)
    for _ in range(2):
        refusals.add(RouteCounts(6379, 0, 0, {"not-allowed": 2, "client-closed": 7}, 0, 0, (), 0.0, ()))
    after = {sample.labels["reason"]: sample.value for sample in refusals.family().samples}
    assert after == before | {"not-allowed": 4}


def test_ports_of_one_limit_are_counted_together() -> None:
    routes = [route(1, "", 4096), route(2, "small", 10), route(3, "small", 10), route(4, "", 4096)]
    counted, most = limit_families(routes, {1: 5, 2: 3, 3: 4, 9: 99})
    assert {sample.labels["limit_group"]: sample.value for sample in counted.samples} == {"(global)": 5, "small": 7}
    assert {sample.labels["limit_group"]: sample.value for sample in most.samples} == {"(global)": 4096, "small": 10}
