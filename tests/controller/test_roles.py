from __future__ import annotations

import pytest

from natproxy.controller.changes import Change, NodeChange
from natproxy.controller.roles import Roles, Told, by_node, roles_of
from natproxy.model import Cache, Kind, Mode, NodeId, Role, RouteKey
from tests.plan.samples import book, host, node, redis, snapshot

PRIMARY, REPLICA = Role.PRIMARY, Role.REPLICA
ONE, TWO = NodeId("my-redis-001", "0001"), NodeId("my-redis-002", "0001")
HOST_ONE, HOST_TWO = host("my-redis-001.0001"), host("my-redis-002.0001")
BOOK = book(**{HOST_ONE: ["10.0.1.1"], HOST_TWO: ["10.0.1.2"]})


def cluster(*names: str) -> Cache:
    """A cache of which AWS tells no roles."""
    nodes = tuple(node(f"my-redis{name}") for name in names or ("-001", "-002"))
    return redis(mode=Mode.CLUSTER_ENABLED, nodes=nodes, endpoints={})


@pytest.mark.parametrize(
    ("told", "roles"),
    [
        ([("10.0.1.1", 6379, PRIMARY), ("10.0.1.2", 6379, REPLICA)], {ONE: PRIMARY, TWO: REPLICA}),
        ([(HOST_ONE, 6379, PRIMARY)], {ONE: PRIMARY}),
        ([(HOST_ONE.upper() + ".", 6379, PRIMARY)], {ONE: PRIMARY}),
        ([(HOST_ONE, 6379, PRIMARY), ("10.0.1.1", 6379, PRIMARY)], {ONE: PRIMARY}),
        ([("10.0.1.1", 6380, PRIMARY)], {}),
        ([("10.0.1.9", 6379, PRIMARY), ("", 6379, REPLICA)], {}),
        ([(HOST_ONE, 6379, PRIMARY), ("10.0.1.1", 6379, REPLICA)], {}),
        ([], {}),
    ],
)
def test_nodes_are_found_by_name_or_address_and_port(told: list[Told], roles: dict[NodeId, Role]) -> None:
    assert roles_of(cluster(), BOOK, told) == roles


def test_two_nodes_at_one_address_have_what_is_said_of_it() -> None:
    both = book(**{HOST_ONE: ["10.0.1.1"], HOST_TWO: ["10.0.1.1"]})
    assert roles_of(cluster(), both, [("10.0.1.1", 6379, PRIMARY)]) == {ONE: PRIMARY, TWO: PRIMARY}


def test_aws_s_word_counts_more_than_an_engine_s() -> None:
    cache = redis()  # AWS says that the first is the primary
    assert roles_of(cache, BOOK, [("10.0.1.1", 6379, REPLICA)]) == {}
    assert by_node(cache, BOOK, [("10.0.1.1", 6379, REPLICA)]) == {ONE: REPLICA}
    roles = Roles()
    assert roles.take(cache, BOOK, [("10.0.1.1", 6379, REPLICA)]) == ()
    assert roles.of(ONE, snapshot(cache)) is PRIMARY


def test_a_node_without_an_endpoint_has_no_role() -> None:
    cache = redis(mode=Mode.CLUSTER_ENABLED, nodes=(node("my-redis-001", endpoint=None),), endpoints={})
    assert roles_of(cache, BOOK, [("10.0.1.1", 6379, PRIMARY)]) == {}


def test_the_first_word_of_a_role_is_no_change_and_another_one_is() -> None:
    cache, roles = cluster(), Roles()
    known = snapshot(cache)
    assert roles.of(ONE, known) is None
    assert roles.take(cache, BOOK, [("10.0.1.1", 6379, PRIMARY), ("10.0.1.2", 6379, REPLICA)]) == ()
    assert (roles.of(ONE, known), roles.of(TWO, known)) == (PRIMARY, REPLICA)
    assert roles.take(cache, BOOK, [("10.0.1.1", 6379, PRIMARY)]) == ()
    assert roles.take(cache, BOOK, [("10.0.1.1", 6379, REPLICA), ("10.0.1.2", 6379, PRIMARY)]) == (
        Change(NodeChange.ROLE, RouteKey("my-redis", Kind.NODE, ONE), "primary", "replica"),
        Change(NodeChange.ROLE, RouteKey("my-redis", Kind.NODE, TWO), "replica", "primary"),
    )
    assert (roles.of(ONE, known), roles.of(TWO, known)) == (REPLICA, PRIMARY)


def test_the_snapshot_is_filled_with_roles_and_nothing_else_of_it_changes() -> None:
    cache, other, roles = cluster(), redis("other"), Roles()
    known = snapshot(cache, other)
    assert roles.fill(known) == known
    roles.take(cache, BOOK, [("10.0.1.2", 6379, REPLICA)])
    filled = roles.fill(known)
    assert [one.role for one in filled.caches[0].nodes] == [None, REPLICA]
    assert [one.id for one in filled.caches[0].nodes] == [ONE, TWO]
    assert filled.caches[1] is other
    assert roles.fill(known) is filled


def test_what_was_told_of_a_node_that_is_gone_is_forgotten() -> None:
    roles = Roles()
    roles.take(cluster(), BOOK, [("10.0.1.2", 6379, REPLICA)])
    assert roles.of(TWO, snapshot(cluster("-001"))) is None
    assert roles.of(TWO, snapshot(cluster())) is None
