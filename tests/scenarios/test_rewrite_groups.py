"""Groups without cluster mode: ROLE and INFO name natproxy's ports, and a refused write ends stale connections."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.resptalk import RespTalk, command
from tests.scenarios.rewriting import Front, Side, both_protocols, private_words, start_front
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

NODES, ENDS = "nodes", "ends"
"""Groups with ports for all; and for ``primary`` and ``reader`` alone."""
MOVING: dict[Side, str] = {"clear": "moving-clear", "tls": "moving-tls"}
"""Those that are failed over."""
SLEEPLESS = 64
"""Commands after which natproxy looks at nothing but how each begins."""

both_sides = pytest.mark.parametrize("side", ["clear", "tls"])


@pytest.fixture(scope="module")
def groups() -> Iterator[Cloud]:
    with Cloud() as cloud:
        cloud.replication_group(NODES, replicas=2)
        cloud.replication_group(ENDS, replicas=2)
        for group in MOVING.values():
            cloud.replication_group(group, replicas=1)
        yield cloud


@pytest.fixture(scope="module")
def fronts(groups: Cloud, module_natproxy: Natproxies) -> dict[Side, Front]:
    def front(side: Side, workers: int) -> Front:
        caches = [{"id": NODES}, {"id": ENDS, "endpoints": ["primary", "reader"]}, {"id": MOVING[side]}]
        aws = {"refresh": "1h"}
        return start_front(module_natproxy, groups, side, caches=caches, aws=aws, workers=workers)

    return {"clear": front("clear", 1), "tls": front("tls", 2)}


@pytest.fixture
def front(fronts: dict[Side, Front], side: Side) -> Front:
    return fronts[side]


def info(talk: RespTalk, *sections: str) -> dict[str, str]:
    text = talk.ask("INFO", *sections).value
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def replicas_in(fields: dict[str, str]) -> set[tuple[str, int]]:
    lines = (value for name, value in fields.items() if name[:5] == "slave" and name[5:].isdigit())
    found = [dict(part.split("=") for part in line.split(",")) for line in lines]
    assert len(found) == int(fields["connected_slaves"])
    return {(one["ip"], int(one["port"])) for one in found}


def primary_in(fields: dict[str, str]) -> tuple[str, int]:
    return fields["master_host"], int(fields["master_port"])


def told_by_role(value: Any) -> set[tuple[str, int]]:
    if value[0] == "master":
        return {(ip, int(port)) for ip, port, _ in value[2]}
    return {(value[1], int(value[2]))}


# What ROLE and INFO say.


@both_sides
@both_protocols
def test_each_node_is_named_by_its_own_port(front: Front, protocol: int) -> None:
    primary, *replicas = (front.node_port(f"{NODES}-00{number}") for number in (1, 2, 3))
    for port in (primary, front.port(f"{NODES}:primary")):
        talk = front.dial(port, protocol)
        others = {(front.ip, replica) for replica in replicas}
        assert told_by_role(talk.ask("ROLE").value) == others
        for sections in (["replication"], [], ["all"], ["everything"]):
            assert replicas_in(info(talk, *sections)) == others
    for port in (*replicas, front.port(f"{NODES}:reader")):
        talk = front.dial(port, protocol)
        assert told_by_role(talk.ask("ROLE").value) == {(front.ip, primary)}
        for sections in (["replication"], [], ["all"]):
            assert primary_in(info(talk, *sections)) == (front.ip, primary)
        for words in (("ROLE",), ("INFO",)):
            assert not [word for word in private_words(front.cloud) if word in talk.ask(*words).raw]


@both_sides
@both_protocols
def test_without_ports_for_nodes_primary_and_reader_stand_for_them(front: Front, protocol: int) -> None:
    primary, reader = front.port(f"{ENDS}:primary"), front.port(f"{ENDS}:reader")
    talk = front.dial(primary, protocol)
    assert [told_by_role(talk.ask("ROLE").value), replicas_in(info(talk))] == [{(front.ip, reader)}] * 2
    talk = front.dial(reader, protocol)
    assert told_by_role(talk.ask("ROLE").value) == {(front.ip, primary)} == {primary_in(info(talk, "replication"))}


@both_sides
def test_one_asked_long_after_the_connection_began_is_rewritten_too(front: Front) -> None:
    expected = {(front.ip, front.node_port(f"{NODES}-001"))}
    talk = front.dial(front.node_port(f"{NODES}-002"), 3)
    for _ in range(3):
        for number in range(2 * SLEEPLESS):
            assert talk.ask("ECHO", number).value == str(number)
        assert told_by_role(talk.ask("role").value) == expected
        talk.talk.say(command("ECHO", "x" * 100_000) * 20)
        assert [len(talk.hear().value) for _ in range(20)] == [100_000] * 20
        assert primary_in(info(talk, "Replication")) == expected.copy().pop()
        talk.say("ROLE")
        talk.talk.say(command("PING", "after") * 100)
        assert told_by_role(talk.hear().value) == expected
        assert [talk.hear().value for _ in range(100)] == ["after"] * 100


@both_sides
def test_one_in_a_pipeline_or_a_transaction_at_the_connection_s_beginning_is_rewritten(front: Front) -> None:
    expected = {(front.ip, front.node_port(f"{NODES}-001"))}
    talk = front.dial(front.node_port(f"{NODES}-002"))
    talk.talk.say(command("PING") * 5 + command("ROLE") + command("MULTI") + command("ROLE") + command("EXEC"))
    assert [talk.hear().value for _ in range(5)] == ["PONG"] * 5
    assert told_by_role(talk.hear().value) == expected
    assert [talk.hear().value for _ in range(2)] == ["OK", "QUEUED"]
    assert told_by_role(talk.hear().value[0]) == expected


@both_sides
def test_what_was_rewritten_is_counted(front: Front, side: Side) -> None:
    group = MOVING[side]
    talk = front.dial(front.node_port(f"{group}-002"))
    for words in (("ROLE",), ("INFO",), ("INFO", "keyspace"), ("INFO", "replication"), ("PING", "ROLE")):
        talk.ask(*words)
    for reply, count in (("role", 1), ("info", 2)):
        front.daemon.wait_for_metric(count, "natproxy_replies_rewritten_total", reply=reply, cache=group)


# A primary that is none any more.


@pytest.mark.parametrize(("side", "is_asleep"), [("clear", False), ("tls", True)], ids=["awake", "asleep"])
def test_a_refused_write_ends_what_leads_to_the_old_primary_which_nothing_else_would_so_soon(
    front: Front, side: Side, is_asleep: bool
) -> None:
    cloud, group = front.cloud, MOVING[side]
    name = cloud.world.group_names(cloud.world.group(group)).primary()
    talks = [front.dial(front.port(f"{group}:primary")) for _ in range(3)]
    for _ in range(2 * SLEEPLESS if is_asleep else 1):
        assert [talk.ask("SET", "a", "1").value for talk in talks] == ["OK"] * 3
    hinted, logged = hints(front), len(front.daemon.log)
    asked = len(cloud.dns.wait_for_more(name, 2))  # by both families: and not again for more than four seconds
    began = time.monotonic()
    cloud.failover(group)
    assert [talk.ask("PING").value for talk in talks] == ["PONG"] * 3
    assert len(cloud.dns.queries(name)) == asked
    assert talks[0].ask("SET", "a", "2").value.text.startswith("READONLY ")
    assert {talk.talk.ended() for talk in talks} <= {"eof", "reset"}
    assert time.monotonic() - began < 3.5
    for _ in talks:
        ended = front.daemon.wait_for_log("connection ended", since=logged, kind="primary", cache=group)
        assert ended["outcome"] == "role-moved"
    assert front.dial(front.port(f"{group}:primary")).ask("SET", "a", "3").value == "OK"
    eventually(lambda: hints(front) == hinted + 1, "the hint is counted")


def hints(front: Front) -> float:
    return front.daemon.metric("natproxy_rewrite_hints_total", hint="read-only")


@pytest.mark.parametrize("name", [f"{NODES}-002/0001", f"{NODES}:reader"])
def test_a_write_that_a_replica_refuses_ends_nothing(fronts: dict[Side, Front], name: str) -> None:
    front = fronts["clear"]
    hinted, logged = hints(front), len(front.daemon.log)
    talk = front.dial(front.port(name))
    assert talk.ask("SET", "a", "1").value.text.startswith("READONLY ")
    eventually(lambda: hints(front) > hinted, "the hint is counted")
    assert talk.ask("GET", "a").value is None
    assert not front.daemon.logged("reply hints at a change", since=logged)
