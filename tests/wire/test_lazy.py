"""Which commands a lazy rewriter reads along with, and what wakes it."""

from __future__ import annotations

import pytest

from natproxy.wire.lazy import FEW, GUESSES, LazyRedisRewriter
from natproxy.wire.rewriter import Hint, Reply
from tests.wire.talk import EVERYWHERE, INFO, ROLE, Notes, Said, answer, ask, command, same, talk, topology, view

ASKED_INFO = topology(command("INFO", "replication"), Reply.INFO, INFO)
PINGED = same(command("PING"), b"+PONG\r\n")


def asleep() -> tuple[LazyRedisRewriter, Notes]:
    notes = Notes()
    rewriter = LazyRedisRewriter(view, notes)
    for _ in range(FEW + 1):
        ask(rewriter, PINGED.request)
        answer(rewriter, PINGED.reply)
    assert rewriter.reply_opaque > 1 << 60
    return rewriter, notes


def test_a_lazy_one_reads_along_with_the_first_commands() -> None:
    said = [same(command("HELLO", "3"), b"%0\r\n"), PINGED, PINGED, ASKED_INFO]
    for cuts in ((), EVERYWHERE):
        notes = Notes()
        assert talk(LazyRedisRewriter(view, notes), said, cuts, ()) == b"".join(one.expected for one in said)
        assert not notes.fallbacks


def test_a_lazy_one_does_not_fall_asleep_over_an_answer() -> None:
    notes = Notes()
    rewriter = LazyRedisRewriter(view, notes)
    for _ in range(FEW + 10):
        ask(rewriter, PINGED.request)
    ask(rewriter, ASKED_INFO.request)
    got = answer(rewriter, PINGED.reply * (FEW + 10) + INFO)
    assert got == PINGED.reply * (FEW + 10) + ASKED_INFO.expected


@pytest.mark.parametrize("question", [ASKED_INFO, topology(command("role"), Reply.ROLE, ROLE)])
def test_a_question_wakes_a_sleeper(question: Said) -> None:
    rewriter, notes = asleep()
    for _ in range(3):
        ask(rewriter, question.request)
        assert answer(rewriter, question.reply) == question.expected
        for _ in range(FEW + 5):
            ask(rewriter, PINGED.request)
            assert answer(rewriter, PINGED.reply) == PINGED.reply
    assert len(notes.replies) == 3
    assert not notes.fallbacks


@pytest.mark.parametrize("before", [b"+PONG\r\n", b"$3\r\nabc\r\n", b"-ERR x\r\n", b"*1\r\n:1\r\n", b"_\r\n"])
def test_a_sleeper_that_was_woken_finds_the_answer_behind_others(before: bytes) -> None:
    rewriter, notes = asleep()
    for _ in range(5):
        ask(rewriter, PINGED.request)
    ask(rewriter, ASKED_INFO.request)
    assert answer(rewriter, before * 2) == before * 2
    assert answer(rewriter, before * 3 + INFO) == before * 3 + ASKED_INFO.expected
    assert not notes.fallbacks


@pytest.mark.parametrize(
    "piece", [INFO[:-1], b"middle of a value", b"$100\r\nabc", b"*9\r\n", b"+PONG\r\n" * (GUESSES + 1)]
)
def test_a_sleeper_that_was_woken_holds_nothing_back(piece: bytes) -> None:
    rewriter, notes = asleep()
    ask(rewriter, ASKED_INFO.request)
    assert answer(rewriter, piece) == piece
    assert answer(rewriter, b"tail\r\n" + INFO) == b"tail\r\n" + INFO
    assert not notes.fallbacks


def test_a_sleeper_notices_that_its_node_is_no_primary_any_more() -> None:
    rewriter, notes = asleep()
    ask(rewriter, command("SET", "a", "b"))
    refusal = b"-READONLY You can't write against a read only replica.\r\n"
    assert answer(rewriter, refusal) == refusal
    assert notes.hints == [Hint.READ_ONLY]
