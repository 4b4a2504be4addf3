from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from natproxy import messages
from natproxy.controller.changes import Change, NodeChange
from natproxy.controller.hearsay import EPISODE_SECONDS, Hearsay
from natproxy.controller.metrics import Metrics
from natproxy.controller.shards import Topology
from natproxy.model import Cache, Endpoint, Kind, Mode, NodeId, Role, Route, RouteKey
from natproxy.wire.rewriter import Hint
from tests.controller.samples import Clock, knowledge
from tests.plan.samples import host, node, redis, snapshot

PRIMARY, REPLICA = Role.PRIMARY, Role.REPLICA
ONE, TWO = NodeId("my-redis-001", "0001"), NodeId("my-redis-002", "0001")
HOST_ONE, HOST_TWO = host("my-redis-001.0001"), host("my-redis-002.0001")
MASTER, READER = host("my-redis-master"), host("my-redis-ro")


class Stage:
    """A Hearsay, and what it has asked and told."""

    def __init__(self, directory: Path, cache: Cache) -> None:
        self.clock = Clock()
        self.metrics = Metrics("0", CollectorRegistry())
        self.knowledge = knowledge(directory, snapshot=snapshot(cache), clock=self.clock)
        self.asked: list[tuple[str, list[str]]] = []
        self.changes: list[Change] = []
        self.hearsay = Hearsay(self.knowledge, self.metrics, self._ask, self.changes.extend, clock=self.clock)

    def _ask(self, cache: str, names: Iterable[str]) -> None:
        self.asked.append((cache, list(names)))

    def take(self) -> list[tuple[str, list[str]]]:
        asked, self.asked = self.asked, []
        return asked

    def count(self, hint: Hint) -> float | None:
        return self.metrics._registry.get_sample_value("natproxy_rewrite_hints_total", {"hint": hint.value})


def route(kind: Kind = Kind.NODE, target: str = HOST_ONE) -> Route:
    key = RouteKey("my-redis", kind, ONE if kind is Kind.NODE else None)
    return Route(6379, key, Endpoint(target, 6379), Mode.CLUSTER_DISABLED)


def cluster() -> Cache:
    nodes = (node("my-redis-001"), node("my-redis-002"))
    return redis(mode=Mode.CLUSTER_ENABLED, nodes=nodes, endpoints={})


def heard(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(record)["natproxy_fields"] for record in caplog.records if record.getMessage() == message]


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "natproxy")


# Hints.


def test_a_read_only_error_on_primary_has_the_names_by_role_resolved(tmp_path: Path) -> None:
    stage = Stage(tmp_path, redis(clusters=["-001", "-002"]))
    stage.hearsay.hinted(route(Kind.PRIMARY, MASTER), Hint.READ_ONLY)
    stage.hearsay.hinted(route(Kind.PRIMARY, MASTER), Hint.READ_ONLY)
    first, second = stage.take()
    assert first == ("my-redis", [MASTER, HOST_ONE, HOST_TWO, READER])
    assert second == ("my-redis", [MASTER, READER])
    assert stage.count(Hint.READ_ONLY) == 2.0


@pytest.mark.parametrize("kind", [Kind.NODE, Kind.READER])
def test_a_read_only_error_elsewhere_is_what_a_replica_says(tmp_path: Path, kind: Kind) -> None:
    stage = Stage(tmp_path, redis())
    stage.hearsay.hinted(route(kind), Hint.READ_ONLY)
    assert stage.take() == []
    assert stage.count(Hint.READ_ONLY) == 1.0


@pytest.mark.parametrize("hint", [Hint.MOVED_TO_SELF, Hint.UNKNOWN_NODE])
def test_a_hint_has_the_node_s_own_name_resolved_and_at_first_all_nodes(
    tmp_path: Path, hint: Hint, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(tmp_path, cluster())
    for _ in range(3):
        stage.hearsay.hinted(route(target=HOST_TWO), hint)
        stage.clock.now += 1.0
    first, *others = stage.take()
    assert first == ("my-redis", [HOST_TWO, HOST_ONE])
    assert others == [("my-redis", [HOST_TWO])] * 2
    assert stage.count(hint) == 3.0
    (fields,) = heard(caplog, "reply hints at a change")
    assert (fields["port"], fields["route"].node, fields["hint"]) == (6379, ONE, hint.value)


def test_each_sort_of_hint_about_each_cache_is_an_episode_of_its_own_that_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(tmp_path, cluster())

    def hinted(hint: Hint) -> int:
        stage.hearsay.hinted(route(), hint)
        return len(heard(caplog, "reply hints at a change"))

    assert [hinted(Hint.UNKNOWN_NODE), hinted(Hint.MOVED_TO_SELF), hinted(Hint.UNKNOWN_NODE)] == [1, 2, 2]
    stage.clock.now += EPISODE_SECONDS
    assert hinted(Hint.UNKNOWN_NODE) == 2
    stage.clock.now += EPISODE_SECONDS + 0.1
    assert hinted(Hint.UNKNOWN_NODE) == 3


def test_a_hint_about_what_aws_does_not_know_is_followed_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path, cluster())
    static = Route(6490, RouteKey("legacy", Kind.STATIC), Endpoint("legacy.internal", 6379), Mode.STATIC)
    stage.hearsay.hinted(static, Hint.UNKNOWN_NODE)
    assert stage.take() == [("legacy", ["legacy.internal"])]


# Roles and health.


def test_roles_that_passed_by_are_known_and_a_change_is_told(tmp_path: Path) -> None:
    stage = Stage(tmp_path, cluster())
    stage.knowledge.take_name(HOST_TWO, ("10.0.1.2",), "")
    stage.hearsay.learnt(messages.Learnt("my-redis", ((HOST_ONE, 6379, "primary"), ("10.0.1.2", 6379, "replica"))))
    assert (stage.knowledge.role_of(ONE), stage.knowledge.role_of(TWO)) == (PRIMARY, REPLICA)
    assert stage.changes == []
    stage.hearsay.learnt(messages.Learnt("my-redis", (("10.0.1.2", 6379, "primary"),)))
    assert stage.knowledge.role_of(TWO) is PRIMARY
    key = RouteKey("my-redis", Kind.NODE, TWO)
    assert stage.changes == [Change(NodeChange.ROLE, key, "replica", "primary")]


def test_roles_of_a_book_that_is_no_cache_s_say_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, cluster())
    stage.hearsay.learnt(messages.Learnt("static:redis", ((HOST_ONE, 6379, "primary"),)))
    stage.hearsay.answered("other", Topology(((HOST_ONE, 6379, PRIMARY),), ((HOST_ONE, 6379, "failed"),)))
    assert stage.knowledge.role_of(ONE) is None


def test_roles_that_a_node_answered_are_known_as_well(tmp_path: Path) -> None:
    stage = Stage(tmp_path, cluster())
    stage.hearsay.answered("my-redis", Topology(((HOST_ONE, 6379, PRIMARY),)))
    stage.hearsay.answered("my-redis", Topology(((HOST_ONE, 6379, REPLICA),)))
    assert stage.knowledge.role_of(ONE) is REPLICA
    assert [change.after for change in stage.changes] == ["replica"]


def test_how_a_node_is_is_logged_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(tmp_path, cluster())
    for health in ("online", "failed", "failed", "loading", "online", "online"):
        stage.hearsay.answered("my-redis", Topology((), ((HOST_ONE, 6379, health), (HOST_TWO, 6379, "online"))))
    assert [(fields["node"], fields["before"], fields["after"]) for fields in heard(caplog, "node health changed")] == [
        (ONE, "online", "failed"),
        (ONE, "failed", "loading"),
        (ONE, "loading", "online"),
    ]
