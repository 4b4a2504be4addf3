"""Which commands a client sends, however they come; what each of them means: test_commands.py."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.wire.asking import LONGEST_INLINE, Requests, UnreadableError
from natproxy.wire.commands import Awaited, How
from natproxy.wire.frames import MOST_ARGUMENTS, NoFrameError
from natproxy.wire.rewriter import Fallback, Reply
from tests.wire.talk import EVERYWHERE, FORGED, bulk, command, splits

SLOTS, INFO = Awaited(How.TOPOLOGY, Reply.SLOTS), Awaited(How.TOPOLOGY, Reply.INFO)
MULTI, EXEC = Awaited(How.MULTI), Awaited(How.EXEC)


@dataclass
class Asked:
    """Who is told. A number = so many plain ones."""

    told: list[int | Awaited] = field(default_factory=list)

    def plain_asked(self, count: int) -> None:
        assert count > 0
        if self.told and isinstance(last := self.told[-1], int):
            self.told[-1] = last + count
        else:
            self.told.append(count)

    def special_asked(self, awaited: Awaited) -> None:
        self.told.append(awaited)


def asked(data: bytes, cuts: Iterable[int] = ()) -> tuple[list[int | Awaited], Requests]:
    """Return what was asked by these bytes, cut so."""
    requests, asker = Requests(), Asked()
    for piece in splits(data, cuts):
        requests.take(piece, asker)
    return asker.told, requests


def subscribe(count: int, word: bytes = b"subscribe") -> Awaited:
    return Awaited(How.SUBSCRIBE, word=word, confirmations=count)


ASKED: dict[str, tuple[bytes, list[int | Awaited]]] = {
    "nothing": (b"", []),
    "plain ones": (command("GET", "a") + command("PING") * 3 + command("SET", "a", "b" * 200), [5]),
    "special ones": (command("cluster", "Slots") + command("INFO") + command("info", "all"), [SLOTS, INFO, INFO]),
    "in their order": (command("GET", "a") + command("MULTI") + command("PING") + command("EXEC"), [1, MULTI, 1, EXEC]),
    "commands in values": (command("SET", command("MULTI"), FORGED + command("CLUSTER", "SLOTS")) * 2, [2]),
    "names of other commands": (command("GET", "CLUSTER", "SLOTS") + command("ECHO", "INFO") + command("INFOX"), [3]),
    "many arguments": (command("MSET", *["x"] * 500, FORGED, *["y" * 300] * 20, "\n") + command("INFO"), [1, INFO]),
    "names for channels": (
        command("SUBSCRIBE", "a", "b" * 500) + command("unsubscribe") + command("PSUBSCRIBE", *"abc"),
        [subscribe(2), subscribe(0, b"unsubscribe"), subscribe(3, b"psubscribe")],
    ),
    "a long name": (command("x" * 33, "SLOTS") + command("CLUSTER", "x" * 1000) + command("CLUSTER" * 9, "SLOTS"), [3]),
    "an empty name": (command("") + command("", "INFO") + command("CLUSTER", ""), [3]),
    "a subcommand that is missing": (command("CLUSTER") + command("CLIENT") + command("INFO"), [2, INFO]),
    "blank lines": (b"\r\n\n\n\r\n*0\r\n*-1\r\n*0\r\n" * 3 + command("INFO") + b"\n*0\r\n", [INFO]),
    "what looks like an array behind a carriage return": (b"\n\r*1\r\n" + command("INFO"), [1, INFO]),
    "inline": (b"GET a\r\nPING\n  cluster   SLOTS\r\nInfo\tall\n\tGET a\n", [2, SLOTS, INFO, 1]),
    "inline with quotes": (b"SET a \"x y\" 'z'\nCLUSTER SLOTS 'x'\nINFO \"all\"\nGET \"a\"\n", [1, SLOTS, INFO, 1]),
    "inline with the names of others": (b"INFOX\nCLUSTERS SLOTS\nXMULTI\nMULTIX\nGET INFO\nMULTI\n", [5, MULTI]),
    "inline, to subscribe": (b"SUBSCRIBE a b\r\nUNSUBSCRIBE\n", [subscribe(2), subscribe(0, b"unsubscribe")]),
    "inline in turns": (b"PING\r\n" + command("PING") + b"MULTI\r\n" + command("EXEC") + b"x\n", [2, MULTI, EXEC, 1]),
    "as many arguments as there may be": (b"*%d\r\n" % (2**31 - 1) + bulk(b"MSET") + bulk(b"x") * 5, [1]),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_was_asked(name: str) -> None:
    data, told = ASKED[name]
    assert asked(data)[0] == told
    assert asked(data, EVERYWHERE)[0] == told


@pytest.mark.parametrize("name", ASKED)
def test_what_was_asked_in_two_pieces(name: str) -> None:
    data, told = ASKED[name]
    for cut in range(0, len(data), max(1, len(data) // 300)):
        assert asked(data, [cut])[0] == told


PARTS = st.sampled_from([ASKED[name] for name in ASKED if not name.startswith("as many")])


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=8), st.lists(st.integers(0, 1 << 20), max_size=20))
def test_any_pipeline_in_any_pieces(parts: list[tuple[bytes, list[int | Awaited]]], cuts: list[int]) -> None:
    expected = Asked()
    for _, told in parts:
        for one in told:
            if isinstance(one, int):
                expected.plain_asked(one)
            else:
                expected.special_asked(one)
    told, requests = asked(b"".join(data for data, _ in parts), cuts)
    assert told == expected.told
    assert requests.is_between


@pytest.mark.parametrize("data", [command("SET", "a", "b" * 500), b"PING \n", command("CLUSTER", "SLOTS")])
def test_between_commands_and_in_the_midst_of_one(data: bytes) -> None:
    requests, asker = Requests(), Asked()
    for place in range(len(data)):
        assert requests.is_between == (place == 0)
        requests.take(data[place : place + 1], asker)
    assert requests.is_between


def test_bytes_of_a_value_that_others_moved_need_not_be_shown() -> None:
    requests, asker = Requests(), Asked()
    data = command("SET", "a", "b" * 5000, "NX")
    requests.take(data[:200], asker)
    requests.opaque -= 4000
    requests.take(data[4200:] + command("INFO"), asker)
    assert asker.told == [1, INFO]


@pytest.mark.parametrize(
    "data",
    [
        b"*x\r\n",
        b"*1\r\n:1\r\n",
        b"*2\r\n$3\r\nGET\r\nx\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$1x\r\n",
        b"*1\r\n$ 1\r\n",
        b"*+1\r\n",
        b"*-2\r\n",
        b"*" + b"1" * 40,
        b"*1\r\n$" + b"1" * 40,
        b"*%d\r\n" % (MOST_ARGUMENTS + 1),
        b"*1\r\n$%d\r\n" % (1 << 41),
        b"*2\r\n$7\r\nCLUSTER\r\nx\r\n",
        b"'GET' x\r\n",
        b'GE"T" x\r\n',
        b'"MULTI"\n',
        b'MUL"TI"\n',
        b"CLUSTER 'SLOTS'\r\n",
        b"CLIENT \"REPLY\" OFF\r\n",
        b"SUBSCRIBE 'a b'\n",
        b'SUBSCRIBE a "b c"\n',
        b"x" * LONGEST_INLINE,
    ],
)  # fmt: skip
def test_what_is_no_command_or_cannot_be_told(data: bytes) -> None:
    for cuts in ((), EVERYWHERE):
        with pytest.raises(NoFrameError):
            asked(data, cuts)


def test_more_arguments_than_were_announced_in_one_piece() -> None:
    with pytest.raises(NoFrameError):
        asked(b"*7\r\n$4\r\nMSET\r\n" + bulk(b"x") * 8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (command("CLIENT", "REPLY", "OFF"), Fallback.REPLY_OFF),
        (b"client reply skip\n", Fallback.REPLY_OFF),
        (command("psync", "?", "-1"), Fallback.REPLICATION),
        (command("REPLCONF", "GETACK", "*"), Fallback.REPLICATION),
        (b"SYNC\r\n", Fallback.REPLICATION),
    ],
)
def test_what_nobody_can_read_on_after(data: bytes, reason: Fallback) -> None:
    for cuts in ((), EVERYWHERE):
        with pytest.raises(UnreadableError) as caught:
            asked(command("PING") + data, cuts)
        assert caught.value.reason is reason


FLOODS = {
    "blank lines": b"\n",
    "arrays of nothing": b"*0\r\n",
    "short lines": b"a\n",
    "lines in turns with arrays": b"a\n*0\r\n",
    "special lines": b"MULTI\n",
    "short names": command("a"),
    "names with line feeds": command("\n"),
    "special names": command("role"),
    "arguments": command("\n", *["\n"] * 1000),
    "long lines": b"x" * 60_000 + b"\n",
    "lines of blanks": b" " * 60_000 + b"\n",
    "lines of quotes": b"a " + b"'" * 60_000 + b"\n",
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_no_flood_takes_long(flood: bytes) -> None:
    """So much as one read takes; each of these was, or might be, a matter of seconds."""
    data = flood * ((1 << 18) // len(flood) + 1)
    for piece in (len(data), 4096):
        started = time.process_time()
        told, _ = asked(data, range(0, len(data), piece))
        assert time.process_time() - started < 1.0
        assert len(told) <= len(data)
