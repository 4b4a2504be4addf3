from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Address, Cache, Endpoint, Kind, Limits, Mode, Outcome, Role, Route
from natproxy.plan.addresses import Addresses, observe
from natproxy.plan.endings import KEPT, SETTLE_SECONDS, Ending, Facts, How, Live, ending, facts_of, role_at
from tests.plan.samples import book, node, redis, route

LEFT: dict[str, Any] = {"is_answered": False, "is_current": False, "missing_seconds": SETTLE_SECONDS}
JUST_LEFT = LEFT | {"missing_seconds": SETTLE_SECONDS - 0.1}

# One entry for each row of the table that the controller decides on: what is the case -> how it ends.
TABLE: dict[str, tuple[Facts, Ending]] = {
    "nothing has changed": (Facts(Kind.NODE), KEPT),
    "node: out of the set for 5 s": (Facts(Kind.NODE, **LEFT), Ending(How.DRAIN, 30.0, Outcome.ADDRESS_CHANGED)),
    "node: out of the set for less": (Facts(Kind.NODE, **JUST_LEFT), KEPT),
    "node: out of the set, and silent": (
        Facts(Kind.NODE, **LEFT, answers=False),
        Ending(How.NOW, 0.0, Outcome.ADDRESS_CHANGED),
    ),
    "node: out of the set for less than 5 s, and silent": (Facts(Kind.NODE, **JUST_LEFT, answers=False), KEPT),
    "node: in the set, and silent": (Facts(Kind.NODE, answers=False), KEPT),
    "static: out of the set for 5 s": (Facts(Kind.STATIC, **LEFT), Ending(How.DRAIN, 30.0, Outcome.ADDRESS_CHANGED)),
    "static: out of the set, and silent": (
        Facts(Kind.STATIC, **LEFT, answers=False),
        Ending(How.NOW, 0.0, Outcome.ADDRESS_CHANGED),
    ),
    "static name that rotates": (Facts(Kind.STATIC, is_rotating=True, **LEFT), KEPT),
    "reader that rotates": (Facts(Kind.READER, is_rotating=True, **LEFT), KEPT),
    "reader that rotates, and silent": (Facts(Kind.READER, is_rotating=True, **LEFT, answers=False), KEPT),
    "configuration that rotates": (Facts(Kind.CONFIGURATION, is_rotating=True, **LEFT), KEPT),
    "serverless that rotates": (Facts(Kind.PRIMARY, is_rotating=True, **LEFT), KEPT),
    "primary: moved": (Facts(Kind.PRIMARY, **JUST_LEFT), Ending(How.NOW, 0.0, Outcome.ROLE_MOVED)),
    "primary: AWS tells of the move before the name does": (Facts(Kind.PRIMARY, role_moved=True), KEPT),
    "reader: its node was promoted and left the answer": (
        Facts(Kind.READER, is_rotating=True, is_answered=False, role_moved=True),
        Ending(How.NOW, 0.0, Outcome.ROLE_MOVED),
    ),
    "reader: its node was promoted and is still answered": (
        Facts(Kind.READER, is_rotating=True, role_moved=True),
        KEPT,
    ),
    "reader: its node is a replica and not in this answer": (
        Facts(Kind.READER, is_rotating=True, is_answered=False),
        KEPT,
    ),
    "node: roles do not matter to it": (Facts(Kind.NODE, role_moved=True), KEPT),
    "node or cache is gone": (Facts(Kind.NODE, is_gone=True), Ending(How.DRAIN, 30.0, Outcome.GONE)),
    "serverless cache is gone": (
        Facts(Kind.PRIMARY, is_rotating=True, is_gone=True),
        Ending(How.DRAIN, 30.0, Outcome.GONE),
    ),
    "reload: client no longer allowed": (
        Facts(Kind.NODE, is_client_allowed=False),
        Ending(How.NOW, 0.0, Outcome.NOT_ALLOWED),
    ),
    "reload: target or TLS mode changed": (
        Facts(Kind.STATIC, is_route_changed=True),
        Ending(How.DRAIN, 30.0, Outcome.ROUTE_CHANGED),
    ),
    "reload: route removed": (
        Facts(Kind.NODE, is_route_removed=True),
        Ending(How.DRAIN, 30.0, Outcome.ROUTE_REMOVED),
    ),
    "stop": (Facts(Kind.NODE, is_stopping=True), Ending(How.DRAIN, 5.0, Outcome.STOPPED)),
}


@pytest.mark.parametrize(("facts", "expected"), TABLE.values(), ids=TABLE)
def test_a_row_of_the_table(facts: Facts, expected: Ending) -> None:
    assert ending(facts) == expected


@pytest.mark.parametrize("kind", [Kind.NODE, Kind.STATIC, Kind.PRIMARY, Kind.READER, Kind.CONFIGURATION])
@pytest.mark.parametrize(
    "event", ["is_gone", "is_route_changed", "is_route_removed", "is_stopping", "is_client_allowed"]
)
def test_what_happens_to_a_route_as_a_whole_is_the_same_for_every_kind(kind: Kind, event: str) -> None:
    change: dict[str, bool] = {event: event != "is_client_allowed"}
    assert ending(Facts(kind, **change)) == ending(Facts(Kind.NODE, **change)) != KEPT


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"is_gone": True, "is_client_allowed": False}, Outcome.NOT_ALLOWED),
        ({"is_gone": True, "answers": False, **LEFT}, Outcome.ADDRESS_CHANGED),
        ({"is_gone": True, "is_route_removed": True}, Outcome.GONE),
        ({"is_route_removed": True, "is_route_changed": True}, Outcome.ROUTE_REMOVED),
        ({"is_route_changed": True, **LEFT}, Outcome.ROUTE_CHANGED),
        ({"is_stopping": True, "is_gone": True}, Outcome.STOPPED),
        ({"is_stopping": True, "is_gone": True, "drain_seconds": 1.0}, Outcome.GONE),
        ({"is_stopping": True, "is_client_allowed": False}, Outcome.NOT_ALLOWED),
    ],
)
def test_the_most_severe_of_several_counts_and_the_sooner_of_two_drains(
    change: dict[str, Any], expected: Outcome
) -> None:
    assert ending(Facts(Kind.NODE, **change)).outcome is expected


def test_the_configured_seconds_are_taken() -> None:
    assert ending(Facts(Kind.NODE, is_gone=True, drain_seconds=7.0)).seconds == 7.0
    assert ending(Facts(Kind.NODE, is_stopping=True, stop_seconds=0.5)).seconds == 0.5
    assert ending(Facts(Kind.NODE, is_gone=True, drain_seconds=0.0)) == Ending(How.DRAIN, 0.0, Outcome.GONE)


EVENTS: dict[str, Any] = {
    "is_gone": True,
    "is_route_changed": True,
    "is_route_removed": True,
    "is_stopping": True,
    "is_client_allowed": False,
    "answers": False,
}
any_facts = st.builds(
    Facts,
    st.sampled_from(Kind),
    is_rotating=st.booleans(),
    is_answered=st.booleans(),
    is_current=st.booleans(),
    missing_seconds=st.floats(0, 100),
    answers=st.booleans(),
    role_moved=st.booleans(),
    is_gone=st.booleans(),
    is_route_changed=st.booleans(),
    is_route_removed=st.booleans(),
    is_client_allowed=st.booleans(),
    is_stopping=st.booleans(),
    drain_seconds=st.floats(0, 100),
    stop_seconds=st.floats(0, 100),
)


@given(any_facts, st.sampled_from(sorted(EVENTS)))
def test_one_more_reason_never_lets_a_connection_live_longer(facts: Facts, event: str) -> None:
    before, after = ending(facts), ending(dataclasses.replace(facts, **{event: EVENTS[event]}))
    assert after.how >= before.how
    if before.seconds is not None and after.how is before.how:
        assert after.seconds is not None
        assert after.seconds <= before.seconds


@given(any_facts)
def test_an_ending_names_its_outcome_and_its_seconds_and_keeping_names_neither(facts: Facts) -> None:
    decided = ending(facts)
    assert (decided.outcome is None) == (decided.seconds is None) == (decided.how is How.KEEP)
    assert decided.how is not How.NOW or decided.seconds == 0.0


A, B, C = "10.0.1.230", "10.0.1.231", "10.0.1.232"


def live(kind: Kind, ip: str = A, port: int = 6379, mode: Mode = Mode.CLUSTER_DISABLED) -> Live:
    return Live(6379, kind, mode, Address(ip, port), 1)


def pair(primary: str) -> Cache:
    """A cache of two nodes, at hosts n1 (address A) and n2 (address B), of which one is the primary."""
    roles = {name: Role.PRIMARY if name == primary else Role.REPLICA for name in ("n1", "n2")}
    return redis("c", nodes=tuple(node(name, endpoint=Endpoint(name, 6379), role=roles[name]) for name in roles))


def moved(*answers: str, always: bool = False) -> Addresses:
    """Observe one answer every 5 s, beginning at 0."""
    addresses: Addresses | None = None
    for number, answer in enumerate(answers):
        addresses = observe(addresses, answer.split(), 5.0 * number, always)
    assert addresses is not None
    return addresses


def decide(one: Live, on: Route, names: dict[str, Addresses], now: float, cache: Cache | None = None) -> Ending:
    return ending(facts_of(one, on, cache, {"n1": moved(A), "n2": moved(B), **names}, now))


class TestFactsOf:
    """From names and roles to the ending: the stories behind the table's rows."""

    def test_a_replaced_nodes_connections_drain_five_seconds_after_its_name_moved(self) -> None:
        on = route(limits=Limits(drain_seconds=12.0))
        assert decide(live(Kind.NODE), on, {"target": moved(A, B)}, 9.9) == KEPT
        assert decide(live(Kind.NODE), on, {"target": moved(A, B, B)}, 10.0) == Ending(
            How.DRAIN, 12.0, Outcome.ADDRESS_CHANGED
        )
        assert decide(live(Kind.NODE, B), on, {"target": moved(A, B, B)}, 10.0) == KEPT

    def test_an_address_that_comes_back_takes_the_drain_back(self) -> None:
        assert decide(live(Kind.NODE), route(), {"target": moved(A, B, B, A)}, 15.0) == KEPT

    def test_a_new_host_name_at_the_same_address_ends_nothing(self) -> None:
        on = route(target=Endpoint("renamed", 6379))
        assert decide(live(Kind.NODE), on, {"target": moved(B), "renamed": moved(A)}, 99.0) == KEPT

    def test_a_name_that_stops_resolving_ends_nothing(self) -> None:
        names = {"target": observe(moved(A), (), 500.0, always_rotates=False)}
        assert decide(live(Kind.NODE), route(), names, 999.0) == KEPT

    def test_a_failover_ends_the_primarys_connections_with_the_names_first_new_answer(self) -> None:
        on = route(Kind.PRIMARY)
        assert decide(live(Kind.PRIMARY), on, {"target": moved(A)}, 5.0, pair("n2")) == KEPT
        moved_away = Ending(How.NOW, 0.0, Outcome.ROLE_MOVED)
        assert decide(live(Kind.PRIMARY), on, {"target": moved(A, B)}, 5.0, pair("n1")) == moved_away

    def test_a_primary_that_fails_back_within_a_minute_is_not_taken_for_a_rotating_name(self) -> None:
        names = {"target": moved(A, B, A)}
        assert decide(live(Kind.PRIMARY, B), route(Kind.PRIMARY), names, 10.0) == Ending(
            How.NOW, 0.0, Outcome.ROLE_MOVED
        )

    def test_a_reader_that_rotates_ends_nothing(self) -> None:
        names = {"target": moved(A, B, C, always=True)}
        for now in (10.0, 70.0, 999.0):
            assert decide(live(Kind.READER), route(Kind.READER), names, now, pair("n2")) == KEPT

    def test_a_failover_ends_the_readers_connections_to_the_new_primary_only(self) -> None:
        names = {"target": moved(A, B, always=True)}
        on = route(Kind.READER)
        assert decide(live(Kind.READER), on, names, 5.0, pair("n1")) == Ending(How.NOW, 0.0, Outcome.ROLE_MOVED)
        assert decide(live(Kind.READER, B), on, names, 5.0, pair("n1")) == KEPT

    def test_a_reader_without_replicas_may_answer_with_the_primary(self) -> None:
        assert decide(live(Kind.READER), route(Kind.READER), {"target": moved(A)}, 5.0, pair("n1")) == KEPT

    def test_a_serverless_name_that_rotates_ends_nothing(self) -> None:
        on = route(Kind.PRIMARY, Mode.SERVERLESS)
        one = live(Kind.PRIMARY, mode=Mode.SERVERLESS)
        assert decide(one, on, {"target": moved(A, B, C, always=True)}, 999.0) == KEPT

    def test_a_configuration_endpoints_connection_to_any_node_is_kept(self) -> None:
        on = route(Kind.CONFIGURATION, Mode.CLUSTER_ENABLED, fallback=(Endpoint("n1", 6379),))
        assert decide(live(Kind.CONFIGURATION), on, {"target": moved(B, C, always=True)}, 999.0) == KEPT

    def test_what_is_told_of_an_address_that_no_longer_answers(self) -> None:
        names = {"target": moved(A, B)}
        facts = facts_of(live(Kind.NODE), route(), None, names, 10.0, answers=False)
        assert ending(facts) == Ending(How.NOW, 0.0, Outcome.ADDRESS_CHANGED)


class TestRoleAt:
    def test_the_node_at_the_address_tells(self) -> None:
        assert role_at(pair("n1"), book(n1=[A], n2=[B]), Address(A, 6379)) is Role.PRIMARY
        assert role_at(pair("n1"), book(n1=[A], n2=[B]), Address(B, 6379)) is Role.REPLICA

    @pytest.mark.parametrize(
        ("names", "address"),
        [
            ({"n1": [A], "n2": [B]}, Address(C, 6379)),
            ({"n1": [A], "n2": [B]}, Address(A, 6380)),
            ({}, Address(A, 6379)),
            ({"n1": [A], "n2": [A]}, Address(A, 6379)),
        ],
        ids=["no node there", "another port", "nothing resolved", "two nodes disagree"],
    )
    def test_nothing_is_told(self, names: dict[str, list[str]], address: Address) -> None:
        assert role_at(pair("n1"), book(**names), address) is None

    def test_a_node_that_is_being_created_is_nowhere(self) -> None:
        assert role_at(redis("c", nodes=(node("n1", endpoint=None, role=Role.REPLICA),)), {}, Address(A, 1)) is None
