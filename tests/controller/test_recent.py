from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import msgspec
import pytest

import natproxy.controller
from natproxy.controller.activity import TURNED_AWAY
from natproxy.controller.changes import NodeChange
from natproxy.controller.logs import event, listen, listen_no_more
from natproxy.controller.recent import (
    MOST_CHARACTERS,
    MOST_EVENTS,
    MOST_REFUSALS,
    NOTED,
    REFUSALS_SECONDS,
    TOGETHER_SECONDS,
    Noted,
    Recent,
)
from natproxy.model import Endpoint, Kind, NodeId, RouteKey
from tests.controller.samples import Clock

NODE = NodeId("my-redis-002", "0001")
KEY = RouteKey("my-redis", Kind.NODE, NODE)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_769_860_800.0)


@pytest.fixture
def recent(clock: Clock) -> Recent:
    return Recent(clock)


def texts(recent: Recent) -> list[str]:
    return [event.text for event in recent.events()]


def test_a_line_of_the_log_becomes_a_sentence(recent: Recent) -> None:
    fields = {"cache": "my-redis", "node": NODE, "kind": Kind.NODE, "before": "replica", "after": "primary"}
    recent.hear(logging.INFO, "node role-moved", fields)
    (found,) = recent.events()
    assert msgspec.to_builtins(found) == {
        "id": 1,
        "time": "2026-01-31T12:00:00Z",
        "kind": "failover",
        "level": "info",
        "text": "my-redis-002/0001 is primary now; it was replica",
        "cache": "my-redis",
        "node": "my-redis-002/0001",
        "port": None,
        "count": 1,
    }


@pytest.mark.parametrize(
    ("level", "message", "fields", "kind", "text"),
    [
        (
            logging.INFO,
            "name resolves anew",
            {"host": "n2.example", "before": ("10.0.0.1",), "after": ("10.0.0.2", "10.0.0.3"), "route": KEY},
            "replacement",
            "n2.example leads to 10.0.0.2,10.0.0.3 now; it led to 10.0.0.1",
        ),
        (
            logging.INFO,
            "name resolves anew",
            {"host": "p.example", "before": ("1.1.1.1",), "after": ("2.2.2.2",), "route": RouteKey("c", Kind.PRIMARY)},
            "failover",
            "p.example leads to 2.2.2.2 now; it led to 1.1.1.1",
        ),
        (
            logging.INFO,
            "endpoint added",
            {"cache": "c", "node": None, "kind": Kind.READER, "after": Endpoint("r", 1)},
            "nodes",
            "c:reader is new",
        ),
        (
            logging.WARNING,
            "node does not answer",
            {"port": 6380, "route": KEY, "reason": "node-refused", "detail": "connection refused"},
            "reach",
            "my-redis-002/0001 does not answer: connection refused (node-refused)",
        ),
        (
            logging.ERROR,
            "worker is gone and is replaced, its connections are lost",
            {"worker": 1, "why": "was killed by signal 9"},
            "worker",
            "worker 1 was killed by signal 9; its connections are lost, another takes its place",
        ),
        (
            logging.ERROR,
            "reload refused, the old config stays",
            {"error": ValueError("natproxy.yaml:3: {bad}\n\x1b[2J")},
            "reload",
            "reload refused, the old config stays: natproxy.yaml:3: {bad}\\n\\x1b[2J",
        ),
    ],
)
def test_what_is_told(  # noqa: PLR0917
    recent: Recent, level: int, message: str, fields: dict[str, object], kind: str, text: str
) -> None:
    recent.hear(level, message, fields)  # type: ignore[arg-type]
    (found,) = recent.events()
    assert (found.kind, found.text) == (kind, text)


def test_what_is_not_among_it_is_not_kept(recent: Recent) -> None:
    recent.hear(logging.INFO, "connection ended", {"client": "198.51.100.27:5000", "port": 6380})
    recent.hear(logging.DEBUG, "name resolves anew", {"host": "reader.example"})
    assert recent.events() == ()


def test_a_field_that_is_missing_breaks_nothing(recent: Recent) -> None:
    for message in NOTED:
        for _ in range(2):
            recent.hear(logging.INFO, message, {})
    assert {Noted(found.kind) for found in recent.events()} == set(Noted) - {Noted.REFUSAL}


def test_every_line_that_is_told_of_is_one_that_is_logged() -> None:
    directory = Path(natproxy.controller.__file__).parent
    source = "".join(path.read_text() for path in directory.glob("*.py") if path.name != "recent.py")
    logged = set(re.findall(r'"([^"\n]+)"', source))
    logged |= {f"{what} {change}" for what in ("node", "endpoint") for change in NodeChange}
    assert set(NOTED) <= logged


def test_many_at_once_are_one_event(recent: Recent, clock: Clock) -> None:
    for number in range(50):
        clock.now += TOGETHER_SECONDS / 2
        key = RouteKey("my-redis", Kind.NODE, NodeId(f"my-redis-{number:03}", "0001"))
        recent.hear(logging.INFO, "node added", {"cache": "my-redis", "node": key.node, "kind": key.kind})
        recent.hear(logging.INFO, "port opened", {"port": 7000 + number, "route": key})
    recent.hear(logging.INFO, "port opened", {"port": 9000, "route": RouteKey("other", Kind.READER)})
    clock.now += TOGETHER_SECONDS + 1
    recent.hear(logging.INFO, "port opened", {"port": 9001, "route": RouteKey("other", Kind.PRIMARY)})
    assert texts(recent) == [
        "port 9001 is open for other:primary",
        "port 9000 is open for other:reader",
        "50 ports are open",
        "50 nodes are new",
    ]
    assert [(one.count, one.port, one.cache) for one in recent.events()][2] == (50, None, "my-redis")


def test_refusals_are_one_event_a_minute_for_each_port(recent: Recent, clock: Clock) -> None:
    for _ in range(6):
        recent.refused(6379, KEY, {"not-allowed": 2})
        clock.now += REFUSALS_SECONDS / 10
    recent.refused(6379, KEY, {"client-handshake": 1})
    recent.refused(6380, RouteKey("my-redis", Kind.PRIMARY), {"limit": 1})
    clock.now += REFUSALS_SECONDS
    recent.refused(6379, KEY, {"not-allowed": 1})
    assert [(one.text, one.count, one.node, one.level) for one in recent.events()] == [
        ("turned away on port 6379: address not allowed (1)", 1, "my-redis-002/0001", "warning"),
        ("turned away on port 6380: too many connections (1)", 1, None, "warning"),
        (
            *("turned away on port 6379: address not allowed (12), TLS handshake failed (1)", 13),
            *("my-redis-002/0001", "warning"),
        ),
    ]


def test_every_refusal_is_told_in_words(recent: Recent) -> None:
    for outcome in TURNED_AWAY:
        recent.refused(1, KEY, {outcome: 1})
    (found,) = recent.events()
    assert not re.search(r"[a-z]-[a-z]", found.text.partition(": ")[2]), "not by the name of an outcome"


def test_no_more_is_kept_than_there_is_room_for(recent: Recent, clock: Clock) -> None:
    recent.hear(logging.INFO, "node role-moved", {"node": NODE, "before": "replica", "after": "primary"})
    for number in range(5 * MOST_REFUSALS):
        clock.now += REFUSALS_SECONDS + 1
        recent.refused(number, KEY, {"not-allowed": 1})
    assert len(recent.events()) == MOST_REFUSALS + 1
    assert texts(recent)[-1].startswith("my-redis-002/0001 is primary"), "a scanner does not push it out"
    for number in range(5 * MOST_EVENTS):
        recent.hear(logging.WARNING, "worker hangs and is killed", {"worker": f"{number} {'x' * 10_000}"})
    found = recent.events()
    assert len(found) == MOST_REFUSALS + MOST_EVENTS
    assert max(len(one.text) for one in found) == MOST_CHARACTERS
    assert [one.id for one in found] == sorted((one.id for one in found), reverse=True)
    assert len(json.dumps(msgspec.to_builtins(found))) < 100_000


def test_it_hears_what_is_not_logged(recent: Recent, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("natproxy.test")
    logger.setLevel(logging.ERROR)
    listen(recent.hear)
    try:
        event(logger, logging.INFO, "natproxy runs", version="9")
    finally:
        listen_no_more(recent.hear)
        logger.setLevel(logging.NOTSET)
    event(logger, logging.INFO, "natproxy runs", version="10")
    listen_no_more(recent.hear)
    assert texts(recent) == ["natproxy 9 runs"]
    assert "natproxy 9" not in caplog.text
