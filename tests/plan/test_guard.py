from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Cache, Endpoint, Kind, Mode, Node, NodeTls, Role, Snapshot
from natproxy.plan.guard import Known, hold_back, select
from tests.plan.samples import config, key, node, redis, snapshot

ABSENT_AFTER = 60.0
TWO = redis(clusters=["-001", "-002"])
ONE = redis(clusters=["-001"])
OTHER = redis("other", ["-001"], entry=1)
LOST_NODE = key("-002")


def held(*answers: tuple[float, Snapshot]) -> Known:
    known = Known()
    for now, fresh in answers:
        known = hold_back(known, fresh, now, ABSENT_AFTER)
    return known


def names(known: Known, cache_id: str = "my-redis") -> list[str]:
    cache = known.snapshot.cache(cache_id)
    return [str(one.id) for one in cache.nodes] if cache is not None else []


BOTH = ["my-redis-001/0001", "my-redis-002/0001"]


def test_the_first_answer_is_taken_as_it_is() -> None:
    fresh = snapshot(TWO, OTHER, notes=("caches[2]: AWS knows no cache called x",))
    assert held((0.0, fresh)) == Known(fresh)


def test_new_caches_nodes_and_endpoints_are_taken_at_once_even_from_a_partial_answer() -> None:
    fresh = snapshot(replace(TWO, is_complete=False), OTHER, is_complete=False)
    assert held((0.0, snapshot(redis(clusters=["-001"], endpoints={}))), (15.0, fresh)).snapshot == fresh


class TestAbsence:
    def test_a_first_absence_closes_nothing(self) -> None:
        known = held((0.0, snapshot(TWO)), (1000.0, snapshot(ONE)))
        assert names(known) == BOTH
        assert known.missing_since == {LOST_NODE: 1000.0}

    def test_a_node_absent_for_long_enough_is_gone(self) -> None:
        until = [(0.0, snapshot(TWO)), (15.0, snapshot(ONE)), (74.9, snapshot(ONE))]
        assert names(held(*until)) == BOTH
        known = held(*until, (75.0, snapshot(ONE)))
        assert names(known) == ["my-redis-001/0001"]
        assert known.missing_since == {}

    def test_a_cache_absent_for_long_enough_is_gone(self) -> None:
        until = [(0.0, snapshot(TWO, OTHER)), (15.0, snapshot(TWO))]
        assert held(*until).missing_since == {"other": 15.0}
        assert held(*until, (74.9, snapshot(TWO))).snapshot.cache("other") == OTHER
        assert held(*until, (75.0, snapshot(TWO))) == Known(snapshot(TWO))

    def test_an_endpoint_absent_for_long_enough_is_gone(self) -> None:
        less = replace(TWO, endpoints={Kind.PRIMARY: TWO.endpoints[Kind.PRIMARY]})
        until = [(0.0, snapshot(TWO)), (15.0, snapshot(less))]
        assert held(*until).snapshot.caches == (TWO,)
        assert held(*until).missing_since == {key("reader"): 15.0}
        assert held(*until, (75.0, snapshot(less))) == Known(snapshot(less))

    def test_one_that_shows_up_meanwhile_begins_anew(self) -> None:
        known = held((0.0, snapshot(TWO)), (15.0, snapshot(ONE)), (30.0, snapshot(TWO)), (80.0, snapshot(ONE)))
        assert names(known) == BOTH
        assert known.missing_since == {LOST_NODE: 80.0}

    def test_a_first_absence_closes_nothing_even_where_none_is_granted(self) -> None:
        known = hold_back(Known(snapshot(TWO)), snapshot(ONE), 15.0, absent_after=0.0)
        assert names(known) == BOTH
        assert names(hold_back(known, snapshot(ONE), 15.0, absent_after=0.0)) == BOTH[:1]

    def test_a_clock_set_back_prolongs_nothing_by_more_than_it_takes(self) -> None:
        until = [(0.0, snapshot(TWO)), (90_000.0, snapshot(ONE)), (10.0, snapshot(ONE))]
        assert names(held(*until, (69.9, snapshot(ONE)))) == BOTH
        assert names(held(*until, (70.0, snapshot(ONE)))) == BOTH[:1]

    def test_a_cache_that_is_gone_leaves_nothing_behind(self) -> None:
        known = held((0.0, snapshot(TWO, OTHER)), (15.0, snapshot(ONE, OTHER)), (30.0, snapshot(OTHER)))
        assert known.missing_since == {"my-redis": 30.0, LOST_NODE: 15.0}
        assert hold_back(known, snapshot(OTHER), 90.0, ABSENT_AFTER) == Known(snapshot(OTHER))


PARTIAL = {
    "a listing failed": snapshot(ONE, is_complete=False),
    "a listing failed, and the cache with it": snapshot(OTHER, is_complete=False),
    "the cache is described in part": snapshot(replace(ONE, is_complete=False)),
    "the cache is described without nodes and endpoints": snapshot(redis(nodes=(), endpoints={})),
    "nothing at all": snapshot(),
    "nothing at all, and said so": snapshot(is_empty=True),
}


@pytest.mark.parametrize("fresh", PARTIAL.values(), ids=PARTIAL)
class TestPartialAnswer:
    def test_it_closes_nothing_however_often_it_comes(self, fresh: Snapshot) -> None:
        known = held((0.0, snapshot(TWO)), *((15.0 * n, fresh) for n in range(1, 100)))
        assert names(known) == BOTH
        assert known.missing_since == {}

    def test_it_ends_no_absence_and_is_no_end_of_one(self, fresh: Snapshot) -> None:
        known = held((0.0, snapshot(TWO)), (15.0, snapshot(ONE)), (80.0, fresh))
        assert names(known) == BOTH
        assert LOST_NODE in known.missing_since
        assert names(hold_back(known, snapshot(ONE), 81.0, ABSENT_AFTER)) == BOTH[:1]


def test_a_node_seen_in_a_partial_answer_is_not_absent() -> None:
    partial = snapshot(replace(TWO, is_complete=False), is_complete=False)
    assert held((0.0, snapshot(TWO)), (15.0, snapshot(ONE)), (30.0, partial)).missing_since == {}


def test_where_aws_lists_other_caches_only_the_selected_ones_may_go() -> None:
    """Such as when the only selected cache loses the tag that selected it."""
    none_selected = snapshot(is_empty=False)
    until = [(0.0, snapshot(TWO)), (15.0, none_selected)]
    assert names(held(*until)) == BOTH
    assert held(*until, (75.0, none_selected)) == Known(none_selected)


def test_the_caches_are_in_the_order_of_the_config_then_by_id() -> None:
    first, second, third = (redis(name, ["-001"], entry=entry) for name, entry in (("z", 0), ("a-9", 1), ("a-10", 1)))
    known = held((0.0, snapshot(third, first, second)), (15.0, snapshot(second)))
    assert known.snapshot.caches == (first, second, third)


class TestDeleting:
    def test_a_node_is_kept_flagged_until_a_complete_answer_no_longer_holds_it(self) -> None:
        deleting = replace(TWO, nodes=(TWO.nodes[0], replace(TWO.nodes[1], is_deleting=True)))
        until = [(0.0, snapshot(TWO)), (15.0, snapshot(deleting))]
        assert held(*until).snapshot.caches == (deleting,)
        assert held(*until, (30.0, snapshot(ONE, is_complete=False))).snapshot.caches == (deleting,)
        assert held(*until, (30.0, snapshot(ONE))) == Known(snapshot(ONE))

    def test_so_is_a_cache_whose_nodes_are_no_longer_told(self) -> None:
        deleting = redis(nodes=(), endpoints={}, is_deleting=True)
        until = [(0.0, snapshot(TWO, OTHER)), (15.0, snapshot(deleting, OTHER))]
        assert held(*until).snapshot.caches == (replace(TWO, is_deleting=True), OTHER)
        assert held(*until, (30.0, snapshot(OTHER))) == Known(snapshot(OTHER))

    def test_a_cache_made_anew_under_the_same_name_has_none_of_the_old_nodes(self) -> None:
        new = redis(nodes=(node("my-redis-001", endpoint=None), node("my-redis-003", endpoint=None)))
        known = held((0.0, snapshot(replace(TWO, is_deleting=True))), (15.0, snapshot(new)))
        assert known == Known(snapshot(new))

    def test_so_has_a_node_made_anew_nothing_of_the_old_one(self) -> None:
        deleting = replace(ONE, nodes=(node("my-redis-001", zone="eu-west-1a", is_deleting=True),))
        new = replace(ONE, nodes=(node("my-redis-001", endpoint=None),))
        assert held((0.0, snapshot(deleting)), (15.0, snapshot(new))) == Known(snapshot(new))

    def test_a_node_that_goes_between_two_listings_does_not_return(self) -> None:
        deleting = replace(TWO, nodes=(TWO.nodes[0], replace(TWO.nodes[1], is_deleting=True)))
        torn = replace(TWO, nodes=(TWO.nodes[0], replace(TWO.nodes[1], endpoint=None, zone=None)), is_complete=False)
        until = [(0.0, snapshot(TWO)), (15.0, snapshot(deleting)), (30.0, snapshot(torn))]
        assert held(*until).snapshot.caches == (replace(deleting, is_complete=False),)
        assert held(*until, (45.0, snapshot(ONE))) == Known(snapshot(ONE))


class TestFactsThatGoMissing:
    def test_a_node_that_is_rebuilt_keeps_its_endpoint_and_zone(self) -> None:
        known = replace(ONE, nodes=(node("my-redis-001", zone="eu-west-1a", role=Role.PRIMARY),))
        fresh = replace(ONE, nodes=(node("my-redis-001", endpoint=None, role=Role.PRIMARY),))
        assert held((0.0, snapshot(known)), (15.0, snapshot(fresh))).snapshot.caches == (known,)

    def test_a_new_endpoint_is_taken_at_once(self) -> None:
        fresh = replace(ONE, nodes=(node("my-redis-001", endpoint=Endpoint("new", 6379)),))
        assert held((0.0, snapshot(ONE)), (15.0, snapshot(fresh))).snapshot.caches == (fresh,)

    def test_a_partial_answer_changes_no_mode_tls_engine_or_role_it_leaves_out(self) -> None:
        known = replace(TWO, tls=NodeTls.REQUIRED)
        partial = replace(
            TWO,
            engine="",
            mode=Mode.STANDALONE,
            tls=NodeTls.OFF,
            nodes=tuple(replace(one, role=None) for one in TWO.nodes),
            is_complete=False,
        )
        found = held((0.0, snapshot(known)), (15.0, snapshot(partial)))
        assert found.snapshot.caches == (replace(known, is_complete=False),)

    def test_a_complete_answer_changes_them_all(self) -> None:
        fresh = replace(TWO, tls=NodeTls.REQUIRED, mode=Mode.CLUSTER_ENABLED, engine="valkey")
        fresh = replace(fresh, nodes=tuple(replace(one, role=None) for one in TWO.nodes))
        assert held((0.0, snapshot(TWO)), (15.0, snapshot(fresh))).snapshot.caches == (fresh,)

    def test_a_role_told_in_a_partial_answer_counts(self) -> None:
        swapped = {Role.PRIMARY: Role.REPLICA, Role.REPLICA: Role.PRIMARY, None: None}
        fresh = replace(TWO, is_complete=False, nodes=tuple(replace(one, role=swapped[one.role]) for one in TWO.nodes))
        assert held((0.0, snapshot(TWO)), (15.0, snapshot(fresh))).snapshot.caches == (fresh,)

    def test_tags_that_were_not_asked_for_are_remembered(self) -> None:
        known = held((0.0, snapshot(replace(ONE, tags={"Team": "x"}))), (15.0, snapshot(ONE)))
        assert known.snapshot.caches == (replace(ONE, tags={"Team": "x"}),)


SELECTING = """
clients: {allow: [198.51.100.27/32]}
listen: {ports: 6379-6478}
caches: [{id: other}, {tags: {Team: x}}]
"""


class TestSelect:
    def test_each_cache_finds_its_new_entry_and_the_rest_is_gone_at_once(self) -> None:
        tagged = replace(TWO, tags={"Team": "x", "Environment": "dev"}, entry=5)
        unwanted = redis("unwanted", ["-001"], tags={"Team": "y"})
        before = Known(
            snapshot(unwanted, OTHER, tagged),
            {LOST_NODE: 1.0, "unwanted": 2.0, key("-001", "unwanted"): 3.0, "other": 4.0},
        )
        assert select(before, config(SELECTING)) == Known(
            snapshot(replace(OTHER, entry=0), replace(tagged, entry=1)), {LOST_NODE: 1.0, "other": 4.0}
        )

    def test_an_entry_by_id_is_stronger_than_one_by_tags_that_comes_first(self) -> None:
        text = SELECTING.replace("{id: other}, {tags: {Team: x}}", "{tags: {Team: x}}, {id: my-redis}")
        known = select(Known(snapshot(replace(TWO, tags={"Team": "x"}))), config(text))
        assert [cache.entry for cache in known.snapshot.caches] == [1]

    def test_selecting_twice_changes_nothing(self) -> None:
        once = select(Known(snapshot(TWO, OTHER)), config(SELECTING))
        assert select(once, config(SELECTING)) == once


# Properties over rounds of arbitrary answers.
@st.composite
def answers(draw: st.DrawFn) -> Snapshot:
    def some(cache_id: str, entry: int) -> Cache:
        numbers = sorted(draw(st.sets(st.integers(1, 4))))
        nodes = tuple(node(f"{cache_id}-{n}", is_deleting=draw(st.integers(0, 4)) == 0) for n in numbers)
        return redis(
            cache_id,
            nodes=nodes,
            entry=entry,
            is_complete=draw(st.booleans()),
            is_deleting=draw(st.integers(0, 4)) == 0,
        )

    chosen = draw(st.sets(st.sampled_from(["a", "b"])))
    caches = [some(name, entry) for entry, name in enumerate("ab") if name in chosen]
    return snapshot(*caches, is_complete=draw(st.booleans()))


rounds = st.lists(st.tuples(st.floats(0, 100), answers()), max_size=8)


def replayed(history: list[tuple[float, Snapshot]]) -> tuple[Known, float]:
    known, now = Known(), 0.0
    for seconds, fresh in history:
        now += seconds
        known = hold_back(known, fresh, now, ABSENT_AFTER)
    return known, now


@given(rounds, answers())
def test_the_same_answer_twice_at_once_changes_nothing(history: list[tuple[float, Snapshot]], fresh: Snapshot) -> None:
    known, now = replayed(history)
    once = hold_back(known, fresh, now, ABSENT_AFTER)
    assert hold_back(once, fresh, now, ABSENT_AFTER).snapshot.caches == once.snapshot.caches


@given(rounds, answers(), st.randoms())
def test_the_order_of_an_answer_means_nothing(
    history: list[tuple[float, Snapshot]], fresh: Snapshot, rng: random.Random
) -> None:
    known, now = replayed(history)
    caches = [replace(one, nodes=tuple(rng.sample(one.nodes, len(one.nodes)))) for one in fresh.caches]
    shuffled = replace(fresh, caches=tuple(rng.sample(caches, len(caches))))
    once, again = (hold_back(known, one, now, ABSENT_AFTER) for one in (fresh, shuffled))
    in_order = [replace(one, nodes=by_id(one)) for one in again.snapshot.caches]
    assert [replace(one, nodes=by_id(one)) for one in once.snapshot.caches] == in_order
    assert once.missing_since == again.missing_since


def by_id(cache: Cache) -> tuple[Node, ...]:
    return tuple(sorted(cache.nodes, key=lambda one: one.id))


@given(rounds, answers(), st.floats(0, 1000))
def test_nothing_told_is_lost_and_nothing_known_goes_before_its_time(
    history: list[tuple[float, Snapshot]], fresh: Snapshot, seconds: float
) -> None:
    known, now = replayed(history)
    now += seconds
    after = hold_back(known, fresh, now, ABSENT_AFTER)
    assert {one.id for one in fresh.caches} <= {one.id for one in after.snapshot.caches}
    for cache in fresh.caches:
        kept = after.snapshot.cache(cache.id)
        assert kept is not None
        assert {one.id for one in cache.nodes} <= {one.id for one in kept.nodes}
    for cache in known.snapshot.caches:
        kept = after.snapshot.cache(cache.id)
        if kept is None:
            assert fresh.is_complete
            assert cache.is_deleting or now - known.missing_since[cache.id] >= ABSENT_AFTER
            continue
        left = {one.id for one in cache.nodes} - {one.id for one in kept.nodes}
        for one in (one for one in cache.nodes if one.id in left):
            assert fresh.is_complete
            since = known.missing_since.get(key(str(one.id), cache.id), now)
            assert one.is_deleting or (cache.is_deleting and not kept.is_deleting) or now - since >= ABSENT_AFTER
