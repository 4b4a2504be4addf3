from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.controller.shards import Topology, read_shards, read_slots
from natproxy.model import Address, Role

ASKED = Address("10.0.1.230", 6379)
PRIMARY, REPLICA = Role.PRIMARY, Role.REPLICA
HOST = "my-redis-0001-001.my-redis.x7f3k.use1.cache.amazonaws.com"

Part = bytes | int | None | Sequence["Part"] | Mapping[bytes, "Part"]


def reply(part: Part, *, resp: int = 2) -> bytes:
    """Return a reply in bytes; maps are flat arrays in RESP2."""
    match part:
        case None:
            return b"_\r\n" if resp == 3 else b"$-1\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(part), part)
        case int():
            return b":%d\r\n" % part
        case Mapping():
            pairs = b"".join(reply(key, resp=resp) + reply(value, resp=resp) for key, value in part.items())
            head = b"%%%d\r\n" % len(part) if resp == 3 else b"*%d\r\n" % (2 * len(part))
            return head + pairs
        case _:
            return b"*%d\r\n" % len(part) + b"".join(reply(item, resp=resp) for item in part)


def node(ip: str, role: bytes, health: bytes = b"online", **more: Part) -> Mapping[bytes, Part]:
    """A node as Redis 7.0 tells it."""
    given: dict[str, Part] = {"id": b"f" * 40, "port": 6379, "ip": ip.encode(), "endpoint": ip.encode()}
    given |= {"role": role, "replication-offset": 14, "health": health, **more}
    return {name.replace("_", "-").encode(): value for name, value in given.items() if value is not None}


def shard(*nodes: Mapping[bytes, Part]) -> Mapping[bytes, Part]:
    return {b"slots": [0, 5460], b"nodes": [*nodes]}


TWO: Part = [shard(node("10.0.1.230", b"master"), node("10.0.1.231", b"replica"))]


@pytest.mark.parametrize("resp", [2, 3])
def test_shards_tell_roles_and_health(resp: int) -> None:
    topology = read_shards(reply(TWO, resp=resp), ASKED)
    assert topology == Topology(
        (("10.0.1.230", 6379, PRIMARY), ("10.0.1.231", 6379, REPLICA)),
        (("10.0.1.230", 6379, "online"), ("10.0.1.231", 6379, "online")),
    )


def roles(*nodes: Mapping[bytes, Part]) -> set[tuple[str, int, Role]]:
    topology = read_shards(reply([shard(*nodes)]), ASKED)
    assert topology is not None
    return set(topology.roles)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (node("10.0.1.9", b"primary"), {("10.0.1.9", 6379, PRIMARY)}),
        (node("10.0.1.9", b"slave"), {("10.0.1.9", 6379, REPLICA)}),
        (node("10.0.1.9", b"master", tls_port=6380), {("10.0.1.9", 6379, PRIMARY), ("10.0.1.9", 6380, PRIMARY)}),
        (node(HOST, b"master", port=None, tls_port=6379), {(HOST, 6379, PRIMARY)}),
        (
            node("10.0.1.9", b"master", endpoint=HOST.encode(), hostname=HOST.encode()),
            {(HOST, 6379, PRIMARY), ("10.0.1.9", 6379, PRIMARY)},
        ),
        (node("", b"master", endpoint=b"?"), {("10.0.1.230", 6379, PRIMARY)}),
        (node("", b"master", endpoint=b""), {("10.0.1.230", 6379, PRIMARY)}),
        (node("10.0.1.9", b"sentinel"), set()),
        (node("10.0.1.9", b"master", b"failed"), set()),
        (node("10.0.1.9", b"master", b"loading"), set()),
    ],
    ids=[
        "primary", "slave", "two ports", "host name", "both", "unknown endpoint", "no endpoint", "other role", "failed",
        "loading",
    ],
)  # fmt: skip
def test_a_node_s_role_is_told_by_every_name_that_it_has(
    told: Mapping[bytes, Part], expected: set[tuple[str, int, Role]]
) -> None:
    assert roles(told) == expected


def test_a_null_endpoint_is_the_node_that_is_asked() -> None:
    fields = {**node("", b"master"), b"endpoint": None}
    assert roles(fields) == {("10.0.1.230", 6379, PRIMARY)}


@pytest.mark.parametrize("health", ["failed", "fail", "loading"])
def test_how_a_node_is_is_told_in_a_closed_list_of_words(health: str) -> None:
    topology = read_shards(reply([shard(node("10.0.1.9", b"master", health.encode()))]), ASKED)
    assert topology == Topology((), (("10.0.1.9", 6379, health),))
    assert read_shards(reply([shard(node("10.0.1.9", b"master", b"\x1b[31m"))]), ASKED) == Topology(())


SLOTS_7: Part = [
    [0, 8191, [b"10.0.1.230", 6379, b"a" * 40, []], [b"10.0.1.231", 6379, b"b" * 40, []]],
    [8192, 16383, [b"10.0.1.232", 6379, b"c" * 40, []], [b"10.0.1.233", 6379, b"d" * 40, []]],
]


def test_slots_tell_the_primary_first_and_its_replicas_after_it() -> None:
    assert read_slots(reply(SLOTS_7), ASKED) == Topology(
        (
            ("10.0.1.230", 6379, PRIMARY),
            ("10.0.1.231", 6379, REPLICA),
            ("10.0.1.232", 6379, PRIMARY),
            ("10.0.1.233", 6379, REPLICA),
        )
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([b"10.0.1.9", 6379, b"a"], [("10.0.1.9", 6379, PRIMARY)]),
        ([b"10.0.1.9", 6379], [("10.0.1.9", 6379, PRIMARY)]),
        ([None, 6379, b"a", [b"ip", b"10.0.1.9"]], [("10.0.1.9", 6379, PRIMARY)]),
        ([None, 6379, b"a", {b"hostname": b"one.example"}], [("one.example", 6379, PRIMARY)]),
        ([b"?", 6379, b"a", [b"ip", b""]], [("10.0.1.230", 6379, PRIMARY)]),
        ([b"", 6379, b"a"], [("10.0.1.230", 6379, PRIMARY)]),
    ],
)
@pytest.mark.parametrize("resp", [2, 3])
def test_a_node_of_slots_may_be_named_otherwise(
    fields: list[Part], expected: list[tuple[str, int, Role]], resp: int
) -> None:
    topology = read_slots(reply([[0, 16383, fields]], resp=resp), ASKED)
    assert topology is not None
    assert list(topology.roles) == expected


def test_a_cluster_without_slots_tells_nothing() -> None:
    assert read_slots(reply([]), ASKED) == Topology(())
    assert read_shards(reply([]), ASKED) == Topology(())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"+OK\r\n",
        b"-ERR no\r\n",
        reply(b"text"),
        reply([b"text"]),
        reply([[0, 16383, b"text"]]),
        reply([[0, 16383, [b"10.0.1.9"]]]),
        reply([[0, 16383, [b"10.0.1.9", b"port"]]]),
        reply([{b"nodes": b"text"}]),
        reply([shard(node("10.0.1.9", b"master", port=b"none"))]),
        reply(TWO)[:-1],
        reply(TWO) + b"+OK\r\n",
        b"*1000000\r\n",
    ],
)
def test_what_is_something_else_is_not_read(answer: bytes) -> None:
    assert (read_shards(answer, ASKED) or Topology(())).roles == ()
    assert (read_slots(answer, ASKED) or Topology(())).roles == ()
    assert None in (read_shards(answer, ASKED), read_slots(answer, ASKED))


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_bytes_raise_anything(noise: bytes, cut: int) -> None:
    for good in (reply(TWO), reply(SLOTS_7), reply(TWO, resp=3)):
        for read in (read_shards, read_slots):
            read(noise, ASKED)
            read(good[:cut] + noise + good[cut + len(noise) :], ASKED)
