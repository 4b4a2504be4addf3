from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from natproxy.config import CacheEntry, Config
from natproxy.importing.ranges import KINDS, LEAST_GROWTH, Fit, best_fit, with_room
from natproxy.model import Cache, PortMap, RouteKey, Snapshot
from natproxy.plan.ports import assign_ports, wanted_keys
from tests.importing.samples import account


def cache(name: str) -> Cache:
    return next(one for one in account().snapshot.caches if one.id == name)


def keys(name: str) -> tuple[RouteKey, ...]:
    return wanted_keys(cache(name), CacheEntry(id=name))


def fit(name: str, wishes: Mapping[int, int], blocked: Collection[int] = ()) -> Fit | None:
    """``wishes``: port -> the index of what it leads to, among the nodes and endpoints in their order."""
    return best_fit(cache(name), {port: keys(name)[index] for port, index in wishes.items()}, blocked)


def shown(found: Fit | None) -> tuple[str, int, set[str] | None] | None:
    if found is None:
        return None
    return str(found.ports), len(found.kept), None if found.kinds is None else set(found.kinds)


def test_nodes_in_their_order_get_a_range_with_their_endpoints_behind() -> None:
    assert shown(fit("redis", {6379: 0, 6380: 1, 6381: 2})) == ("6379-6383", 3, None)
    assert shown(fit("memo", {11211: 0, 11212: 1, 11213: 2})) == ("11211-11214", 3, None)


def test_one_port_is_enough_to_place_the_others_around_it() -> None:
    assert shown(fit("redis", {6380: 1})) == ("6379-6383", 1, None)
    assert shown(fit("redis", {6390: 4})) == ("6386-6390", 1, None)


def test_endpoints_for_which_there_is_no_room_get_no_port() -> None:
    wishes = {6379: 0, 6380: 1, 6381: 2}
    assert shown(fit("redis", wishes, {6383})) == ("6379-6382", 3, {"nodes", "primary"})
    assert shown(fit("redis", wishes, {6382})) == ("6379-6381", 3, {"nodes"})


def test_a_range_keeps_as_many_ports_as_it_can_and_goes_round_the_others() -> None:
    assert shown(fit("redis", {6379: 2, 6380: 1, 6381: 0})) == ("6381-6385", 1, None)
    assert shown(fit("redis", {6379: 0, 6380: 1, 6390: 2})) == ("6379-6383", 2, None)


def test_endpoints_alone_get_a_range_where_the_nodes_have_no_room() -> None:
    blocked = set(range(1, 65536)) - {7000, 7001}
    assert shown(fit("redis", {7000: 3, 7001: 4}, blocked)) == ("7000-7001", 2, {"primary", "reader"})


def test_where_nothing_fits_there_is_no_range() -> None:
    assert fit("redis", {}) is None
    assert fit("redis", {6380: 1}, set(range(1, 65536)) - {6380}) is None


def test_a_range_ends_at_the_ends_of_all_ports() -> None:
    assert fit("standalone", {1: 0}) is not None
    assert shown(fit("redis", {1: 1})) is None
    assert shown(fit("redis", {65535: 2})) == ("65533-65535", 1, {"nodes"})


def test_ranges_grow_into_what_is_free_and_leave_it_to_the_first() -> None:
    first, second = fit("redis", {6379: 0}), fit("memo", {6386: 0})
    assert first is not None
    assert second is not None
    grown = with_room([first, second], {6392})
    assert [str(one.ports) for one in grown] == ["6379-6385", "6386-6391"]
    assert with_room([first], ())[0].room == LEAST_GROWTH


def test_a_cache_that_cannot_grow_is_given_no_room() -> None:
    alone, serverless = fit("standalone", {7000: 0}), fit("serverless", {8000: 0})
    assert alone is not None
    assert serverless is not None
    assert [str(one.ports) for one in with_room([alone, serverless], ())] == ["7000", "8000-8001"]


@given(st.data())
def test_natproxy_gives_out_the_ports_of_a_range_as_the_range_says(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([one.id for one in account().snapshot.caches]))
    indexes = st.integers(0, len(keys(name)) - 1)
    wishes = data.draw(st.dictionaries(st.integers(100, 112), indexes, min_size=1, max_size=6))
    blocked = data.draw(st.sets(st.integers(95, 120), max_size=6)) - wishes.keys()
    found = fit(name, wishes, blocked)
    if found is None:
        return
    (found,) = with_room([found], {*blocked, *wishes})
    entry = CacheEntry(id=name, ports=found.ports, endpoints=found.kinds)
    config = Config(path=Path("-"), caches=(entry,))
    given_out = assign_ports(PortMap(), Snapshot((_alone(cache(name)),)), config, 0.0)
    assert not given_out.errors
    ports = {one.port: one.key for one in given_out.portmap.entries}
    assert not ports.keys() & blocked
    assert {port for port in wishes if ports.get(port) == keys(name)[wishes[port]]} == found.kept
    assert set(found.ports).isdisjoint(blocked)
    assert set(found.ports) & wishes.keys() == found.kept
    assert ports == {found.port_of(key): key for key in found.keys}


def _alone(one: Cache) -> Cache:
    """The cache as the config's first entry selects it."""
    return dataclasses.replace(one, entry=0)


def test_the_kinds_are_those_of_the_config() -> None:
    assert set(KINDS) == {"nodes", "primary", "reader", "configuration"}
