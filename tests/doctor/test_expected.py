from __future__ import annotations

import os
from pathlib import Path

import pytest

from natproxy.config import Config
from natproxy.controller.statefile import State, StateFile
from natproxy.controller.stateformat import STATE_FILE
from natproxy.doctor.expected import error_findings, expect, read_state, room_findings
from natproxy.doctor.findings import Check, Verdict
from natproxy.model import NodeTls
from tests.discover.samples import account, answers_of
from tests.plan.samples import GUIDE, config, redis, shown, snapshot

NOW = 1_800_000_000.0


def at(directory: Path, text: str = GUIDE) -> Config:
    return config(f"state_dir: {directory}\n{text}")


def remember(directory: Path, text: str = GUIDE) -> State:
    """Let the guide's cache be known, with its ports."""
    found = snapshot(redis())
    known = State(snapshot=found)
    expected = expect(config(text), known, None, NOW)
    assert len(expected.routes) == 5
    StateFile(directory / STATE_FILE).save(known)
    return known


def test_without_aws_the_last_state_stands_in(tmp_path: Path) -> None:
    known = remember(tmp_path)
    state, findings = read_state(at(tmp_path))
    assert (state, findings) == (known, [])
    expected = expect(at(tmp_path), state, None, NOW)
    assert [route.port for route in expected.routes] == [6379, 6380, 6381, 6382, 6383]
    assert [(one.check, one.verdict) for one in room_findings(expected)] == [(Check.PORTS, Verdict.GOOD)]


def test_ports_that_were_given_stay() -> None:
    wide = "clients: {allow: [198.51.100.27/32]}\ncaches: [{id: redis, ports: 6379-6399}]"
    first = expect(config(wide), State(), answers_of(account()), NOW)
    given = {str(route.key): route.port for route in first.routes}
    assert given["redis-001/0001"] == 6379
    world = account()
    world.add_replica("redis")
    again = expect(config(wide), State(snapshot=first.snapshot), answers_of(world), NOW)
    assert len(again.routes) == len(first.routes) + 1


def test_no_file_is_no_trouble(tmp_path: Path) -> None:
    assert read_state(at(tmp_path)) == (State(), [])
    assert room_findings(expect(at(tmp_path), State(), None, NOW)) == []


@pytest.mark.parametrize(
    ("content", "told"), [("{", "is damaged"), ('{"version": 99, "checksum": ""}', "newer")], ids=["damaged", "newer"]
)
def test_a_file_that_cannot_be_used_stays_where_it_is(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / STATE_FILE
    path.write_text(content)
    state, (bad,) = read_state(at(tmp_path))
    assert state == State()
    assert (bad.check, bad.subject, bad.verdict) == (Check.PORTS, str(path), Verdict.BAD)
    assert told in bad.evidence + bad.mend
    assert bad.mend
    assert [file.name for file in tmp_path.iterdir()] == [STATE_FILE]
    assert path.read_text() == content


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).mkdir()
    _, (bad,) = read_state(at(tmp_path))
    assert bad.verdict is Verdict.BAD
    assert "Is a directory" in bad.evidence


@pytest.mark.root
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    remember(tmp_path)
    tmp_path.chmod(0o700)
    before = os.geteuid()
    os.seteuid(65534)
    try:
        _, (one,) = read_state(at(tmp_path))
    finally:
        os.seteuid(before)
    assert one.verdict is Verdict.UNKNOWN
    assert "sudo" in one.mend


def test_what_has_no_port_is_named() -> None:
    small = config("clients: {allow: [198.51.100.27/32]}\ncaches: [{id: my-redis, ports: 6379-6380}]")
    expected = expect(small, State(snapshot=snapshot(redis())), None, NOW)
    assert shown(State().portmap) == {}
    found = room_findings(expected)
    assert [one.subject for one in found] == ["my-redis-003/0001", "my-redis:primary", "my-redis:reader"]
    assert {(one.verdict, one.evidence) for one in found} == {(Verdict.BAD, "no port is left for it in 6379-6380")}


def test_what_cannot_be_served_on_its_port_is_named() -> None:
    refused = config(
        "clients: {allow: [198.51.100.27/32]}\ncaches: [{id: my-redis, ports: 6379-6388, nodes: {tls: off}}]"
    )
    known = State(snapshot=snapshot(redis(tls=NodeTls.REQUIRED)))
    found = error_findings(expect(refused, known, None, NOW))
    assert len(found) == 5
    assert (found[0].check, found[0].subject) == (Check.NODE_TLS, "my-redis-001/0001")
    assert found[0].evidence.startswith("port 6379 is not opened: the cache requires TLS")
    assert found[0].mend.startswith("leave nodes.tls out")
