from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.controller.stateformat import VERSION, DamagedError, State, decode_state, encode_state
from natproxy.errors import StateError
from natproxy.model import (
    Cache,
    Endpoint,
    Kind,
    Mode,
    Node,
    NodeId,
    NodeTls,
    PortEntry,
    PortMap,
    RouteKey,
    Snapshot,
)

words = st.text(max_size=12)
ports = st.integers(1, 65535)
node_ids = st.builds(NodeId, words, words)
endpoints = st.builds(Endpoint, words, ports)
times = st.floats(allow_nan=False, allow_infinity=False)
ips = st.ip_addresses().map(str)


def all_fields(kind: type[Any], **known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Build ``kind`` with every field varied, those too that the model gets after this test was written."""
    return st.builds(kind, **{field.name: known.get(field.name, ...) for field in dataclasses.fields(kind)})


keys = st.one_of(
    st.builds(RouteKey, words, st.just(Kind.NODE), node_ids),
    st.builds(RouteKey, words, st.sampled_from([kind for kind in Kind if kind is not Kind.NODE])),
)
entries = st.builds(PortEntry, keys, ports, st.none() | times)
portmaps = st.lists(entries, unique_by=(lambda entry: entry.port, lambda entry: entry.key), max_size=8).map(
    lambda found: PortMap(tuple(sorted(found, key=lambda entry: entry.port)))
)
nodes = all_fields(Node, id=node_ids, endpoint=st.none() | endpoints)
caches = all_fields(
    Cache,
    entry=st.integers(0, 1000),
    nodes=st.lists(nodes, max_size=3).map(tuple),
    endpoints=st.dictionaries(st.sampled_from(Kind), endpoints, max_size=3),
    tags=st.none() | st.dictionaries(words, words, max_size=3),
)
snapshots = all_fields(
    Snapshot, caches=st.lists(caches, max_size=3).map(tuple), notes=st.lists(words, max_size=2).map(tuple)
)
states = all_fields(
    State,
    portmap=portmaps,
    snapshot=snapshots,
    addresses=st.dictionaries(words, st.lists(ips, max_size=3).map(tuple), max_size=3),
    memcached_versions=st.dictionaries(words, st.integers(0, 2**63 - 1), max_size=3),
)

SAMPLE = State(
    PortMap(
        (
            PortEntry(RouteKey("my-redis", Kind.NODE, NodeId("my-redis-001", "0001")), 6379),
            PortEntry(RouteKey("my-redis", Kind.PRIMARY), 6380, 1700000000.5),
        )
    ),
    Snapshot(
        (
            Cache(
                "my-redis",
                "redis",
                Mode.CLUSTER_DISABLED,
                NodeTls.OFF,
                (Node(NodeId("my-redis-001", "0001"), Endpoint("a.example", 6379), "eu-west-1a"),),
                {Kind.PRIMARY: Endpoint("p.example", 6379)},
            ),
        )
    ),
    {"a.example": ("10.0.1.230", "fd00::1")},
    {"my-memcached": 7},
)


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode_state(SAMPLE))
    return found


def unsealed(**changes: object) -> bytes:
    """Return the sample without its checksum, with other values for its top-level keys."""
    found = document() | changes
    del found["checksum"]
    return json.dumps(found).encode()


@given(states)
def test_every_state_survives(state: State) -> None:
    found = decode_state(encode_state(state))
    assert found == state
    assert all(type(entry.key.kind) is Kind for entry in found.portmap.entries)
    assert all(type(entry.key.node) in {NodeId, type(None)} for entry in found.portmap.entries)


def test_the_file_is_read_by_a_human() -> None:
    found = document()
    assert list(found) == ["version", "checksum", "ports", "snapshot", "addresses", "memcached_versions"]
    assert found["version"] == 1
    assert found["ports"] == [
        {
            "port": 6379,
            "cache": "my-redis",
            "kind": "node",
            "node": {"cluster": "my-redis-001", "id": "0001"},
            "gone_since": None,
        },
        {"port": 6380, "cache": "my-redis", "kind": "primary", "node": None, "gone_since": 1700000000.5},
    ]
    assert found["snapshot"]["caches"][0]["endpoints"] == [{"kind": "primary", "host": "p.example", "port": 6379}]
    assert found["addresses"] == {"a.example": ["10.0.1.230", "fd00::1"]}
    assert encode_state(SAMPLE).count(b"\n") > 40


def test_every_truncation_is_damage() -> None:
    content = encode_state(SAMPLE)
    whole = content.rstrip()
    for length in range(len(whole)):
        with pytest.raises(DamagedError):
            decode_state(content[:length])


def test_every_changed_byte_is_damage_or_changes_nothing() -> None:
    content = encode_state(SAMPLE)
    seen: Counter[str] = Counter()
    for place in range(len(content)):
        for bit in (0, 1, 4, 7):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            try:
                seen["same" if decode_state(bytes(changed)) == SAMPLE else "wrong"] += 1
            except DamagedError:
                seen["damaged"] += 1
            except StateError:
                seen["newer"] += 1
    assert seen["wrong"] == 0
    assert seen["newer"] <= 4  # the version's own digit
    assert seen["damaged"] > 3 * len(content)


@given(st.binary())
def test_no_content_fails_in_another_way(content: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_state(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    ),
    st.sampled_from(["version", "ports", "snapshot", "addresses", "memcached_versions"]),
)
def test_no_strange_value_fails_in_another_way(value: object, key: str) -> None:
    try:
        decode_state(unsealed(**{key: value}))
    except DamagedError:
        pass
    except StateError:
        assert key == "version"


def test_deep_nesting_is_damage() -> None:
    with pytest.raises(DamagedError):
        decode_state(b"[" * 100_000)


def test_a_newer_version_is_refused_by_number() -> None:
    with pytest.raises(StateError, match=rf"version {VERSION + 1}, this natproxy knows version {VERSION}"):
        decode_state(json.dumps(document() | {"version": VERSION + 1}).encode())


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.5, None])
def test_no_version_is_damage(version: object) -> None:
    with pytest.raises(DamagedError, match="no version"):
        decode_state(unsealed(version=version))


def test_pretty_printing_it_otherwise_changes_nothing() -> None:
    assert decode_state(json.dumps(document(), indent=7, sort_keys=True).encode()) == SAMPLE


def test_an_edit_is_taken_where_the_checksum_is_removed_and_only_there() -> None:
    changed = document()
    changed["ports"][0]["port"] = 7000
    with pytest.raises(DamagedError, match="removes the checksum"):
        decode_state(json.dumps(changed).encode())
    found = decode_state(unsealed(ports=changed["ports"]))
    assert [entry.port for entry in found.portmap.entries] == [6380, 7000]


def test_fields_of_a_later_natproxy_are_ignored() -> None:
    assert decode_state(unsealed(later={"x": 1})) == SAMPLE


def port(**changes: object) -> dict[str, object]:
    return {"port": 6379, "cache": "c", "kind": "primary", "node": None, "gone_since": None} | changes


@pytest.mark.parametrize(
    ("ports", "reason"),
    [
        ([port(), port(kind="reader")], "a port stands in it twice"),
        ([port(), port(port=6380)], "a node or endpoint has two ports"),
        ([port(port=0)], "0 is no port"),
        ([port(port=65536)], "65536 is no port"),
        ([port(kind="node")], "kind node needs a node"),
        ([port(node={"cluster": "c", "id": "1"})], "kind primary has no node"),
        ([port(kind="strange")], "Invalid enum value 'strange'"),
        ([port(port="6379")], "Expected `int`"),
    ],
)
def test_what_cannot_be_a_port_map_is_damage(ports: list[dict[str, object]], reason: str) -> None:
    with pytest.raises(DamagedError, match=reason):
        decode_state(unsealed(ports=ports))


def test_a_time_that_is_none_is_damage() -> None:
    content = unsealed(ports=[port(gone_since=12345.0)]).replace(b"12345.0", b"1e999")
    with pytest.raises(DamagedError):
        decode_state(content)


def test_an_address_that_is_none_is_damage() -> None:
    with pytest.raises(DamagedError, match=r"10\.0\.1\.999"):
        decode_state(unsealed(addresses={"a.example": ["10.0.1.999"]}))
