"""The soak's judgement, and its shortest form."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import commands
from bench.parts.how import CannotError
from bench.soak import strangers
from bench.soak.ledger import Ledger, number_of, value
from bench.soak.orders import Order, Told, encode, order_of, told_of
from bench.soak.run import Course, soak
from bench.soak.verdict import MOST_GROWTH, Line, Seen, judge, table

GOOD = Seen(
    told=Told(provoked={"monitor": 3}),
    written=10,
    changes=Counter({"failover": 1}),
    connections=7,
    memory={"worker": (30_000_000, 31_000_000)},
    fallbacks=Counter({"monitor": 3}),
    rewritten=Counter({"moved": 2}),
)


@given(st.integers(1, 10**9), st.integers(0, 50))
def test_a_value_tells_its_number_and_a_damaged_one_tells_none(number: int, size: int) -> None:
    found = value(number, size)
    assert number_of(found) == number
    assert len(found) >= size
    assert number_of(found[:-1] + b"y") is None


def test_what_was_acknowledged_last_must_be_there() -> None:
    ledger = Ledger()
    first = ledger.attempt(["a", "b"], 8)
    ledger.acknowledge(["a", "b"])
    second = ledger.attempt(["a"], 100)
    assert ledger.is_doubtful("a")
    assert [ledger.flaw("a", found) for found in (first, second)] == [None, None]  # nobody knows which
    assert ledger.flaw("a", None) == "a has write None, of (1, 8) acknowledged and (2, 100) attempted"
    ledger.acknowledge(["a"])
    assert not ledger.is_doubtful("a")
    assert ledger.flaw("a", first) is not None
    assert ledger.flaw("a", second) is None
    assert "damaged" in str(ledger.flaw("a", second[:-1] + b"?"))
    assert ledger.flaw("a", value(2, 99)) is not None
    assert ledger.flaw("never", None) is None
    assert ledger.count == 3


def test_ledgers_come_together_as_they_were() -> None:
    one, other = Ledger(), Ledger()
    one.attempt(["a"], 8)
    other.attempt(["b"], 8)
    other.acknowledge(["b"])
    told = told_of(encode(Told(ledger=other.plain())))
    assert told.ledger is not None
    one.add(Ledger.of(told.ledger))
    assert one.attempted == {"a": (1, 8), "b": (1, 8)}
    assert one.acknowledged == {"b": (1, 8)}
    assert one.count == 1


def test_orders_and_what_is_told_go_over_a_command_line() -> None:
    order = Order("name", 7, 1.5, "127.0.0.1", (1, 2), ("10.",))
    assert order_of(encode(order)) == order
    told = Told(visits={"x": 1}, wrong=["y"])
    told.add(told_of(encode(Told(visits={"x": 2, "z": 1}, silent=["s"]))))
    assert told.visits == {"x": 3, "z": 1}
    assert (told.wrong, told.silent) == (["y"], ["s"])


def bad(seen: Seen) -> list[Line]:
    return [line for line in judge(seen) if not line.is_good]


def test_a_good_soak_is_good() -> None:
    assert bad(GOOD) == []
    assert table(judge(GOOD)).count("| good |") == len(judge(GOOD)) == 11


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lost": ["key a"]}, "of 10 acknowledged writes, lost"),
        ({"told": Told(wrong=["x"], provoked={"monitor": 3})}, "not what was asked for"),
        ({"told": Told(silent=["x"], provoked={"monitor": 3})}, "never came"),
        ({"told": Told(leaked=["x"], provoked={"monitor": 3})}, "a node's own address"),
        ({"told": Told(provoked={"monitor": 2})}, "not provoked"),
        ({"fallbacks": Counter({"answer": 1})}, "not provoked"),
        ({"left_open": ["1 on port 6379"]}, "of 7 connections, open with all clients gone"),
        ({"memory": {"worker": (0, MOST_GROWTH["worker"] + 1)}}, "growth of the worker's memory"),
        ({"memory": {"controller": (0, MOST_GROWTH["controller"] + 1)}}, "growth of the controller's memory"),
        ({"failures": ["task failed"]}, "errors in natproxy's log"),
        ({"broken": ["visitors"]}, "client programs that failed"),
        ({"changes": Counter[str]()}, "changes of nodes"),
        ({"rewritten": Counter[str]()}, "replies rewritten"),
    ],
)
def test_each_thing_that_must_hold_is_looked_at(change: dict[str, object], what: str) -> None:
    [line] = bad(replace(GOOD, **change))  # type: ignore[arg-type]
    assert what in line.what
    text = table(judge(replace(GOOD, **change)))  # type: ignore[arg-type]
    assert text.count("| BAD |") == 1
    assert all(f": {detail}\n" in text for detail in line.details)


def read(data: bytes) -> strangers.Parsed:
    async def parse() -> strangers.Parsed:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await strangers.reply(reader)

    return asyncio.run(parse())


def test_the_strangers_know_replies_from_what_is_none() -> None:
    assert read(b"*3\r\n:1\r\n$3\r\na\r\n\r\n%1\r\n+k\r\n$-1\r\n") == [b":1", b"a\r\n", [b"+k", None]]
    assert strangers.texts(read(b"*2\r\n$2\r\nab\r\n*1\r\n+cd\r\n")) == b"ab\n+cd"
    with pytest.raises(strangers.NoReplyError):
        read(b"hello\r\n")
    with pytest.raises(asyncio.IncompleteReadError):
        read(b"$5\r\nab")


def test_the_soak_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["soak", "relay"]) == 2
    assert "soak" in capsys.readouterr().err


def test_a_few_seconds_are_survived() -> None:
    try:
        lines = soak(Course(seconds=1.0, warm_up_seconds=1.0, warm_up=(), changes=("failover",), pause_seconds=0.2))
    except CannotError as error:
        pytest.skip(str(error))
    assert [line for line in lines if not line.is_good] == []
