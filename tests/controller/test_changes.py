from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from natproxy.controller.changes import Change, NodeChange, find_changes
from natproxy.model import Cache, Endpoint, Kind, PortEntry, PortMap, Role, Snapshot
from tests.plan.samples import host, key, memcached, node, redis, snapshot

ONE = redis(clusters=["-001"])
TWO = redis(clusters=["-001", "-002"])
PROMOTED = replace(
    TWO,
    nodes=(replace(TWO.nodes[0], role=Role.REPLICA), replace(TWO.nodes[1], role=Role.PRIMARY)),
)
MOVED = replace(ONE, nodes=(replace(ONE.nodes[0], endpoint=Endpoint("elsewhere", 6380)),))
BEING_MADE = replace(TWO, nodes=(TWO.nodes[0], replace(TWO.nodes[1], endpoint=None)))
BEING_DELETED = replace(TWO, nodes=(TWO.nodes[0], replace(TWO.nodes[1], is_deleting=True)))
WITHOUT_ROLES = replace(ONE, nodes=(replace(ONE.nodes[0], role=None),))
WITHOUT_READER = replace(ONE, endpoints={Kind.PRIMARY: ONE.endpoints[Kind.PRIMARY]})

ADDED, GONE, RETURNED, ADDRESS, ROLE = (
    NodeChange.ADDED,
    NodeChange.GONE,
    NodeChange.RETURNED,
    NodeChange.ADDRESS,
    NodeChange.ROLE,
)

TABLE: dict[str, tuple[Cache | None, Cache | None, list[Change]]] = {
    "nothing": (TWO, TWO, []),
    "a node is added": (ONE, TWO, [Change(ADDED, key("-002"), after=f"{host('my-redis-002.0001')}:6379")]),
    "a node without an endpoint is added": (ONE, BEING_MADE, [Change(ADDED, key("-002"))]),
    "an added node gets its endpoint": (BEING_MADE, TWO, []),
    "a node goes": (TWO, ONE, [Change(GONE, key("-002"))]),
    "AWS deletes a node": (TWO, BEING_DELETED, [Change(GONE, key("-002"))]),
    "a deleted node is left out": (BEING_DELETED, ONE, []),
    "AWS deletes a cache": (
        ONE,
        replace(ONE, is_deleting=True),
        [Change(GONE, key(name)) for name in ("-001", "primary", "reader")],
    ),
    "a node's name changes": (
        ONE,
        MOVED,
        [Change(ADDRESS, key("-001"), f"{host('my-redis-001.0001')}:6379", "elsewhere:6380")],
    ),
    "a role moves": (
        TWO,
        PROMOTED,
        [
            Change(ROLE, key("-001"), Role.PRIMARY, Role.REPLICA),
            Change(ROLE, key("-002"), Role.REPLICA, Role.PRIMARY),
        ],
    ),
    "roles are told for the first time": (WITHOUT_ROLES, ONE, []),
    "roles are not told any more": (ONE, WITHOUT_ROLES, []),
    "an endpoint is added": (
        WITHOUT_READER,
        ONE,
        [Change(ADDED, key("reader"), after=f"{host('my-redis-ro')}:6379")],
    ),
    "an endpoint goes": (ONE, WITHOUT_READER, [Change(GONE, key("reader"))]),
    "another cache": (
        ONE,
        memcached("my-redis", 0),
        [
            Change(ADDED, key("configuration"), after=f"{host('my-redis.cfg')}:11211"),
            *(Change(GONE, key(name)) for name in ("-001", "primary", "reader")),
        ],
    ),
}


def of(cache: Cache | None) -> Snapshot:
    return snapshot(*(() if cache is None else (cache,)))


@pytest.mark.parametrize("case", TABLE)
def test_what_is_new(case: str) -> None:
    before, after, expected = TABLE[case]
    found: Sequence[Change] = find_changes(of(before), of(after), PortMap())
    assert list(found) == expected


def test_what_went_is_told_in_order() -> None:
    names = [f"-{number:03}" for number in range(1, 30)]
    gone = find_changes(of(redis(clusters=names)), of(None), PortMap())
    assert [change.key for change in gone] == [*(key(name) for name in names), key("primary"), key("reader")]


def test_a_key_whose_port_is_kept_has_returned() -> None:
    portmap = PortMap((PortEntry(key("-002"), 6380, gone_since=1.0), PortEntry(key("-001"), 6379)))
    (change,) = find_changes(of(ONE), of(TWO), portmap)
    assert change.what is RETURNED


def test_the_same_node_of_another_cache_is_another() -> None:
    old = replace(ONE, nodes=(node("shared"),), endpoints={})
    new = replace(old, id="other")
    assert {(change.what, change.key.cache) for change in find_changes(of(old), of(new), PortMap())} == {
        (ADDED, "other"),
        (GONE, "my-redis"),
    }
