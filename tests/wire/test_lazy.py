"""Which commands a lazy rewriter reads along with, and what wakes it."""

from __future__ import annotations

import gc

import pytest

from natproxy.wire.lazy import FEW, GUESSES, LazyRedisRewriter
from natproxy.wire.redis import RedisRewriter
from natproxy.wire.rewriter import Hint, Reply
from tests.wire.talk import EVERYWHERE, INFO, ROLE, Notes, Said, answer, ask, bulk, command, same, talk, topology, view

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
    assert rewriter.reply_opaque > 1 << 60


def test_a_sleeper_notices_that_its_node_is_no_primary_any_more() -> None:
    rewriter, notes = asleep()
    ask(rewriter, command("SET", "a", "b"))
    refusal = b"-READONLY You can't write against a read only replica.\r\n"
    assert answer(rewriter, refusal) == refusal
    assert notes.hints == [Hint.READ_ONLY]


@pytest.mark.parametrize("kind", [RedisRewriter, LazyRedisRewriter])
def test_nothing_of_a_rewriter_waits_for_the_collector(kind: type[RedisRewriter]) -> None:
    def count() -> int:
        return sum(isinstance(one, kind) for one in gc.get_objects())

    gc.collect()
    gc.disable()  # a worker's collector runs seldom, and each connection has a rewriter
    try:
        before = count()
        rewriter = kind(view, Notes())
        for said in (PINGED, ASKED_INFO):
            ask(rewriter, said.request)
            answer(rewriter, said.reply)
        del rewriter
        assert count() == before
    finally:
        gc.enable()


def test_a_lazy_one_falls_asleep_over_pipelines_too() -> None:
    rewriter = LazyRedisRewriter(view, Notes())
    for _ in range(FEW + 1):
        ask(rewriter, PINGED.request * 16)
        answer(rewriter, PINGED.reply * 16)
    assert rewriter.reply_opaque > 1 << 60


def test_a_lazy_one_that_would_fall_asleep_hears_a_question() -> None:
    rewriter = LazyRedisRewriter(view, Notes())
    for _ in range(FEW):
        ask(rewriter, PINGED.request)
        answer(rewriter, PINGED.reply)
    ask(rewriter, ASKED_INFO.request)
    assert answer(rewriter, ASKED_INFO.reply) == ASKED_INFO.expected


@pytest.mark.parametrize("unseen", [0, 60_000, 100_000])
def test_a_sleeper_sees_a_question_behind_a_large_value_that_went_on_unseen(unseen: int) -> None:
    rewriter, notes = asleep()
    stored = same(command("SET", "a", "x" * 100_000), b"+OK\r\n")
    unseen = min(unseen, len(stored.request))
    assert rewriter.large_request(stored.request[:256])
    assert rewriter.request_opaque == len(stored.request)
    assert rewriter.is_one_request(stored.request[:16_000]) is None
    rewriter.request_opaque -= unseen
    ask(rewriter, stored.request[unseen:] + ASKED_INFO.request)
    assert answer(rewriter, stored.reply + INFO) == stored.reply + ASKED_INFO.expected
    assert (notes.replies, notes.fallbacks) == ([Reply.INFO], [])


def test_a_sleeper_sees_a_question_that_follows_large_values() -> None:
    rewriter, notes = asleep()
    stored = same(command("SET", "a", "x" * 100_000), b"+OK\r\n")
    for _ in range(3):
        ask(rewriter, stored.request)
        assert answer(rewriter, stored.reply) == stored.reply
        assert rewriter.large_request(stored.request[:256])
        rewriter.request_opaque -= len(stored.request)
        assert not rewriter.large_request(ASKED_INFO.request), "a question is no large value, and goes on seen"
        assert rewriter.request_opaque == 0
        ask(rewriter, ASKED_INFO.request)
        assert answer(rewriter, stored.reply + INFO) == stored.reply + ASKED_INFO.expected
        for _ in range(FEW + 1):
            ask(rewriter, PINGED.request)
            answer(rewriter, PINGED.reply)
    assert len(notes.replies) == 3


def test_a_value_that_is_under_way_when_it_falls_asleep_is_no_question() -> None:
    rewriter, notes = asleep()
    ask(rewriter, ASKED_INFO.request)
    stored = command("SET", "a", "*1\r\n$4\r\nROLE\r\n" * 5000)
    rewriter.requests(stored[:60])
    assert answer(rewriter, INFO) == ASKED_INFO.expected
    assert rewriter.request_opaque == len(stored) - 60
    assert rewriter.is_one_request(stored[60:16_000]) is None
    rewriter.requests(stored[60:16_000])
    rewriter.requests(stored[16_000:] + PINGED.request)
    assert rewriter.is_one_request(PINGED.request) is not None
    assert answer(rewriter, ROLE) == ROLE, "it was not woken"
    assert len(notes.replies) == 1


def test_a_question_whose_answer_names_nobody_leads_nobody_astray() -> None:
    """It is not known again, and what is found instead answers another one: that makes nothing sure."""
    rewriter, notes = asleep()
    nameless = same(command("INFO", "server"), bulk(b"# Server\r\nredis_version:7.0.15\r\n"))
    for one in (
        nameless,
        ASKED_INFO,
        *[PINGED] * 5,
        ASKED_INFO,
        *[PINGED] * (GUESSES + 5),
        ASKED_INFO,
        nameless,
        ASKED_INFO,
    ):
        ask(rewriter, one.request)
        assert answer(rewriter, one.reply) == one.expected
    assert notes.replies == [Reply.INFO] * 4
    assert not notes.fallbacks


def test_several_questions_at_once_are_all_answered() -> None:
    rewriter, notes = asleep()
    for _ in range(3):
        ask(rewriter, ASKED_INFO.request + PINGED.request + ASKED_INFO.request)
        answered = INFO + PINGED.reply + INFO
        assert answer(rewriter, answered) == ASKED_INFO.expected + PINGED.reply + ASKED_INFO.expected
    assert not notes.fallbacks
