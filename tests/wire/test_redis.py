"""The pairing of replies with commands, fed every way; what becomes of a topology reply is topology.py's."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.wire.lazy import LazyRedisRewriter
from natproxy.wire.redis import MOST_SPECIAL, RedisRewriter
from natproxy.wire.rewriter import MOST_HELD_BYTES, Fallback, Hint, Reply
from tests.wire.talk import (
    ASK,
    ASK_TO,
    EVERYWHERE,
    FORGED,
    INFO,
    MOVED,
    MOVED_TO,
    NODES,
    PRIVATE,
    ROLE,
    SLOTS,
    Notes,
    Said,
    answer,
    array,
    ask,
    becomes,
    bulk,
    command,
    same,
    splits,
    talk,
    topology,
    view,
)

ASKED_SLOTS = topology(command("CLUSTER", "SLOTS"), Reply.SLOTS, SLOTS)


def outcome(said: Sequence[Said]) -> tuple[bytes, Notes]:
    """Hold a conversation in one piece."""
    notes = Notes()
    return talk(RedisRewriter(view, notes), said, (), ()), notes


CONVERSATIONS: dict[str, tuple[Said, ...]] = {
    "slots": (ASKED_SLOTS,),
    "nodes in lower case": (topology(command("cluster", "nodes"), Reply.NODES, NODES),),
    "inline": (topology(b"CLUSTER SLOTS\r\n", Reply.SLOTS, SLOTS), same(b"\r\n", b""), same(b"PING\n", b"+PONG\r\n")),
    "role and info": (topology(command("role"), Reply.ROLE, ROLE), topology(command("Info", "all"), Reply.INFO, INFO)),
    "a value that looks like redirections": (
        same(command("GET", "x"), bulk(FORGED)),
        same(command("SET", "x", FORGED), b"+OK\r\n"),
        ASKED_SLOTS,
    ),
    "a value that holds the command": (same(command("SET", "x", command("CLUSTER", "SLOTS")), b"+OK\r\n"), ASKED_SLOTS),
    "moved": (Said(command("GET", "x"), MOVED, MOVED_TO), Said(command("GET", "x"), ASK, ASK_TO), ASKED_SLOTS),
    "elements that look like redirections": (same(command("EVAL", "...", "0"), array(MOVED, b":1\r\n")), ASKED_SLOTS),
    "a transaction": (
        same(command("MULTI"), b"+OK\r\n"),
        same(command("SET", "a", "1"), b"+QUEUED\r\n"),
        same(command("NOPE"), b"-ERR unknown command 'NOPE'\r\n"),
        same(command("CLUSTER", "SLOTS"), b"+QUEUED\r\n"),
        same(command("GET", "a"), b"+QUEUED\r\n"),
        same(command("GET", "b"), b"+QUEUED\r\n"),
        Said(
            command("EXEC"),
            array(b"+OK\r\n", SLOTS, bulk(FORGED), MOVED),
            array(b"+OK\r\n", becomes(Reply.SLOTS, SLOTS), bulk(FORGED), MOVED_TO),
        ),
        ASKED_SLOTS,
    ),
    "transactions that come to nothing": (
        same(command("MULTI"), b"+OK\r\n"),
        Said(command("GET", "x"), MOVED, MOVED_TO),
        same(command("EXEC"), b"-EXECABORT Transaction discarded because of previous errors.\r\n"),
        same(command("MULTI"), b"+OK\r\n"),
        same(command("CLUSTER", "SLOTS"), b"+QUEUED\r\n"),
        same(command("DISCARD"), b"+OK\r\n"),
        same(command("EXEC"), b"-ERR EXEC without MULTI\r\n"),
        same(command("MULTI"), b"+OK\r\n"),
        same(command("MULTI"), b"-ERR MULTI calls can not be nested\r\n"),
        same(command("GET", "x"), b"+QUEUED\r\n"),
        same(command("EXEC"), b"*-1\r\n"),
        same(command("MULTI"), b"+OK\r\n"),
        same(command("EXEC"), b"*0\r\n"),
        same(command("MULTI"), b"+OK\r\n"),
        same(command("RESET"), b"+RESET\r\n"),
        ASKED_SLOTS,
    ),
    "a large transaction": (
        same(command("MULTI"), b"+OK\r\n"),
        *[same(command("GET", "x"), b"+QUEUED\r\n")] * 20,
        same(command("EXEC"), array(*[b"+OK\r\n"] * 19, bulk(FORGED))),
        ASKED_SLOTS,
    ),
    "subscriptions": (
        Said(command("SSUBSCRIBE", "s"), MOVED, MOVED_TO),
        same(
            command("SUBSCRIBE", "a", "b"),
            array(bulk(b"subscribe"), bulk(b"a"), b":1\r\n")
            + array(bulk(b"message"), bulk(b"a"), bulk(FORGED))
            + array(bulk(b"subscribe"), bulk(b"b"), b":2\r\n"),
        ),
        same(command("PSUBSCRIBE", "p*"), array(bulk(b"psubscribe"), bulk(b"p*"), b":3\r\n")),
        same(command("PING"), array(bulk(b"pong"), bulk(b""))),
        Said(command("SSUBSCRIBE", "s"), ASK, ASK_TO),
        same(
            command("UNSUBSCRIBE"),
            array(bulk(b"pmessage"), bulk(b"p*"), bulk(b"p1"), bulk(b"x"))
            + array(bulk(b"unsubscribe"), bulk(b"a"), b":2\r\n")
            + array(bulk(b"unsubscribe"), bulk(b"b"), b":1\r\n"),
        ),
        same(command("PUNSUBSCRIBE", "p*"), array(bulk(b"punsubscribe"), bulk(b"p*"), b":0\r\n")),
        same(command("UNSUBSCRIBE"), array(bulk(b"unsubscribe"), b"$-1\r\n", b":0\r\n")),
        same(command("LRANGE", "l", "0", "-1"), array(bulk(b"message"), bulk(b"a"), bulk(b"b"))),
        ASKED_SLOTS,
    ),
    "subscriptions with RESP3": (
        same(command("HELLO", "3"), b"%1\r\n" + bulk(b"proto") + b":3\r\n"),
        same(
            command("SSUBSCRIBE", "a"),
            b">3\r\n"
            + bulk(b"ssubscribe")
            + bulk(b"a")
            + b":1\r\n"
            + b">3\r\n"
            + bulk(b"smessage")
            + bulk(b"a")
            + bulk(b"x"),
        ),
        same(command("LRANGE", "l", "0", "-1"), array(bulk(b"message"), bulk(b"a"), bulk(b"b"))),
        Said(
            command("CLUSTER", "SLOTS"),
            b">3\r\n" + bulk(b"sunsubscribe") + bulk(b"a") + b":0\r\n" + SLOTS,
            b">3\r\n" + bulk(b"sunsubscribe") + bulk(b"a") + b":0\r\n" + becomes(Reply.SLOTS, SLOTS),
        ),
    ),
    "subscriptions of two sorts with RESP3": (
        same(command("SUBSCRIBE", "a"), b">3\r\n" + bulk(b"subscribe") + bulk(b"a") + b":1\r\n"),
        same(command("PSUBSCRIBE", "p*"), b">3\r\n" + bulk(b"psubscribe") + bulk(b"p*") + b":2\r\n"),
        same(command("UNSUBSCRIBE"), b">3\r\n" + bulk(b"unsubscribe") + bulk(b"a") + b":1\r\n"),
        ASKED_SLOTS,
        same(command("PUNSUBSCRIBE"), b">3\r\n" + bulk(b"punsubscribe") + bulk(b"p*") + b":0\r\n"),
        same(command("UNSUBSCRIBE"), b">3\r\n" + bulk(b"unsubscribe") + b"_\r\n:0\r\n"),
        ASKED_SLOTS,
    ),
    "pushes in a transaction": (
        same(command("MULTI"), b"+OK\r\n"),
        same(command("PUBLISH", "a", "x"), b"+QUEUED\r\n"),
        same(command("ROLE"), b"+QUEUED\r\n"),
        Said(
            command("EXEC"),
            b"*2\r\n>3\r\n" + bulk(b"message") + bulk(b"a") + bulk(FORGED) + b":1\r\n>0\r\n" + ROLE,
            b"*2\r\n>3\r\n"
            + bulk(b"message")
            + bulk(b"a")
            + bulk(FORGED)
            + b":1\r\n>0\r\n"
            + becomes(Reply.ROLE, ROLE),
        ),
        ASKED_SLOTS,
    ),
    "every type": (
        *(
            same(command("X"), reply)
            for reply in (
                b"$-1\r\n",
                b"*-1\r\n",
                b"*0\r\n",
                b"_\r\n",
                b"#t\r\n",
                b",1.5e3\r\n",
                b",inf\r\n",
                b"(3492890328409238509324850943850943825024385\r\n",
                b"=16\r\ntxt:Some\r\nstring\r\n",
                b"!21\r\nSYNTAX invalid\r\nsynta\r\n",
                b"~2\r\n+a\r\n" + bulk(b"b" * 200),
                b"%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n%1\r\n+x\r\n*0\r\n",
                b"|1\r\n+ttl\r\n:3600\r\n" + bulk(FORGED),
                b"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
                array(*[bulk(b"x" * size) for size in range(120)], b":1\r\n", b"+OK\r\n", bulk(FORGED), b"$0\r\n\r\n"),
                b"-ERR unknown command\r\n",
            )
        ),
        ASKED_SLOTS,
    ),
    "many at once": (
        *[same(command("SET", "k", "v" * size), b"+OK\r\n") for size in range(3, 130)],
        *[same(command("GET", "k"), bulk(b"v" * size)) for size in range(3, 130)],
        same(command("MSET", *(str(number) for number in range(100))), b"+OK\r\n"),
        ASKED_SLOTS,
        *[same(command("PING"), b"+PONG\r\n")] * 20,
        ASKED_SLOTS,
        *[same(command("INCRBY", "k", "1"), b":7\r\n")] * 20,
    ),
    "a topology reply that is none": (
        same(command("CLUSTER", "SLOTS"), b"-NOAUTH Authentication required.\r\n"),
        same(command("CLUSTER", "SLOTS"), b"-ERR This instance has cluster support disabled\r\n"),
        same(command("ROLE"), array(bulk(b"sentinel"), array())),
        same(command("INFO", "server"), bulk(b"# Server\r\nredis_version:7.0.15\r\n")),
        same(command("CLUSTER", "NODES"), b"+odd\r\n"),
        ASKED_SLOTS,
    ),
    "commands without a reply of their own": (
        same(b"*0\r\n*-1\r\n\r\n", b""),
        same(command("CLUSTER", "MYID"), bulk(b"a" * 40)),
        same(command("CLUSTER"), b"-ERR wrong number of arguments for 'cluster' command\r\n"),
        same(command("CLUSTER", "x" * 100), b"-ERR unknown subcommand\r\n"),
        same(command("x" * 1000, "CLUSTER", "SLOTS"), b"-ERR unknown command\r\n"),
        same(command("CLIENT", "SETINFO", "lib-name", "x"), b"+OK\r\n"),
        same(command(""), b"-ERR unknown command ''\r\n"),
        ASKED_SLOTS,
    ),
}


def judge(said: Sequence[Said], got: bytes, notes: Notes) -> None:
    assert got == b"".join(one.expected for one in said)
    assert notes.fallbacks == []


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_in_whole_commands_and_replies(name: str) -> None:
    notes = Notes()
    rewriter = RedisRewriter(view, notes)
    got = b""
    for one in CONVERSATIONS[name]:
        ask(rewriter, one.request)
        got += answer(rewriter, one.reply)
    judge(CONVERSATIONS[name], got, notes)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_in_one_piece(name: str) -> None:
    judge(CONVERSATIONS[name], *outcome(CONVERSATIONS[name]))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_byte_by_byte(name: str) -> None:
    said, notes = CONVERSATIONS[name], Notes()
    got = talk(RedisRewriter(view, notes), said, EVERYWHERE, EVERYWHERE)
    judge(said, got, notes)


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if name not in ("many at once", "every type")])
def test_a_conversation_split_at_each_place(name: str) -> None:
    said = CONVERSATIONS[name]
    for cut in range(max(sum(len(one.request) for one in said), sum(len(one.reply) for one in said))):
        notes = Notes()
        judge(said, talk(RedisRewriter(view, notes), said, [cut], [cut]), notes)


REPLIES = st.one_of(
    st.sampled_from(
        [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"_\r\n", b"#t\r\n", b"-ERR x\r\n", b"-MOVEDx 1 2\r\n", b"-M\r\n"]
    ),
    st.binary(max_size=150).map(bulk),
    st.sampled_from([FORGED, SLOTS, INFO, MOVED, b"x" * 20_000]).map(bulk),
    st.lists(st.sampled_from([b":1\r\n", bulk(FORGED), bulk(b"x"), MOVED, b"*0\r\n"]), max_size=6).map(
        lambda e: array(*e)
    ),
)
PLAIN = st.builds(
    same,
    st.one_of(
        st.lists(st.binary(max_size=120), min_size=1, max_size=5).map(lambda words: command("get", *words)),
        st.sampled_from([command("SET", "k", FORGED), command("SET", "k", command("EXEC") * 9), b"GET x\r\n"]),
    ),
    REPLIES,
)
ELEMENTS = st.one_of(
    PLAIN,
    st.sampled_from([CONVERSATIONS["moved"][0], CONVERSATIONS["moved"][1], ASKED_SLOTS]),
    st.just(topology(command("CLUSTER", "NODES"), Reply.NODES, NODES)),
)


def transaction(elements: Sequence[Said]) -> list[Said]:
    return [
        same(command("MULTI"), b"+OK\r\n"),
        *(same(element.request, b"+QUEUED\r\n") for element in elements),
        Said(
            command("EXEC"),
            array(*(element.reply for element in elements)),
            array(*(element.expected for element in elements)),
        ),
    ]


PARTS = st.one_of(
    ELEMENTS.map(lambda one: [one]),
    st.lists(ELEMENTS, max_size=5).map(transaction),
    st.builds(lambda one, times: [one] * times, PLAIN, st.integers(2, 40)),
    st.sampled_from([list(said) for name, said in CONVERSATIONS.items() if name != "role and info"]),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(PARTS, min_size=1, max_size=6),
    st.lists(st.integers(0, 1 << 30), max_size=20),
    st.lists(st.integers(0, 1 << 30), max_size=20),
)
def test_only_addresses_change_whatever_is_said_and_however_it_comes(
    parts: list[list[Said]], request_cuts: list[int], reply_cuts: list[int]
) -> None:
    said = [one for part in parts for one in part]
    notes = Notes()
    judge(said, talk(RedisRewriter(view, notes), said, request_cuts, reply_cuts), notes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=20))
def test_any_bytes_pass(pieces: list[tuple[bool, bytes]]) -> None:
    """Nothing raises; and what holds no address of the book comes out as it went in."""
    rewriter = RedisRewriter(view, Notes())
    sent = got = b""
    for is_request, data in pieces:
        if is_request:
            ask(rewriter, data)
        else:
            sent += data
            got += answer(rewriter, data)
    assert got + rewriter.rest() == sent


@pytest.mark.parametrize(
    ("request_bytes", "reply", "reason"),
    [
        (command("MONITOR"), b"+OK\r\n" + MOVED, Fallback.MONITOR),
        (command("CLIENT", "REPLY", "OFF"), b"", Fallback.REPLY_OFF),
        (command("client", "reply", "skip"), b"", Fallback.REPLY_OFF),
        (command("PSYNC", "?", "-1"), b"+FULLRESYNC x 0\r\n$5\r\nhello", Fallback.REPLICATION),
        (b"*2\r\n:1\r\n:2\r\n", b"", Fallback.REQUEST),
        (b"*x\r\n", b"-ERR Protocol error\r\n", Fallback.REQUEST),
        (b"*1\r\n$-5\r\n", b"", Fallback.REQUEST),
        (b"'GET x\r\n", b"", Fallback.REQUEST),
        (b"x" * 70_000, b"", Fallback.REQUEST),
        (b"*2\r\n" + b"$" + b"1" * 40, b"", Fallback.REQUEST),
        (b"", b"+OK\r\n", Fallback.ANSWER),
        (command("GET", "x"), b"HTTP/1.1 200 OK\r\n", Fallback.ANSWER),
        (command("GET", "x"), b"$?\r\n;4\r\nHell\r\n;0\r\n", Fallback.ANSWER),
        (command("GET", "x"), b"*1\r\n$x\r\n", Fallback.ANSWER),
        (command("GET", "x"), b"$" + b"1" * 40, Fallback.ANSWER),
        (command("GET", "x"), b"+" + b"x" * 70_000, Fallback.ANSWER),
        (command("CLUSTER", "SLOTS"), b"*9\r\n", Fallback.TOO_LARGE),
        (command("CLUSTER", "SLOTS"), b"$99999999\r\n", Fallback.TOO_LARGE),
        (command("ROLE") * (MOST_SPECIAL + 1), b"", Fallback.TOO_LARGE),
        (command("REPLCONF", "ACK", "1"), b"", Fallback.REPLICATION),
        (command("CLUSTER", "SLOTS"), b"*1\r\n+" + b"x" * 70_000, Fallback.ANSWER),
        (b"", b"\x4a\x00\x00\x00\x0a8.0.36\x00", Fallback.ANSWER),
        (command("GET", "x"), b"$" + b"1" * 33, Fallback.ANSWER),
        (command("SUBSCRIBE", "a"), array(bulk(b"subscribe"), bulk(b"a")), Fallback.ANSWER),
        (command("SUBSCRIBE", "a"), array(bulk(b"subscribe"), bulk(b"\r\n:"), b":x\r\n"), Fallback.ANSWER),
        (command("SUBSCRIBE", "a"), array(bulk(b"subscribe"), bulk(b"a"), b":-2\r\n"), Fallback.ANSWER),
        (command("SUBSCRIBE", "a"), array(bulk(b"subscribe"), bulk(b"a" * 90_000), b":1\r\n"), Fallback.ANSWER),
        (command("MULTI") + command("SUBSCRIBE", "a"), b"+OK\r\n+QUEUED\r\n", Fallback.ANSWER),
    ],
)
def test_on_doubt_bytes_pass_untouched(request_bytes: bytes, reply: bytes, reason: Fallback) -> None:
    if reason is Fallback.TOO_LARGE and reply[:1] == b"*":
        reply += bulk(b"x" * 4_000_000) * (MOST_HELD_BYTES // 4_000_000 + 1)
    notes = Notes()
    rewriter = RedisRewriter(view, notes)
    ask(rewriter, request_bytes)
    got = b"".join(answer(rewriter, piece) for piece in splits(reply, range(0, len(reply), 16_000)))
    # And for good, also where it could be read again.
    for one in (Said(command("GET", "x"), MOVED, MOVED), ASKED_SLOTS):
        ask(rewriter, one.request)
        got += answer(rewriter, one.reply)
    assert got + rewriter.rest() == reply + MOVED + SLOTS
    assert notes.fallbacks == [reason]
    assert rewriter.request_opaque > 1 << 60
    assert rewriter.reply_opaque > 1 << 60


def test_the_inside_of_values_may_be_moved_unseen() -> None:
    notes = Notes()
    rewriter = RedisRewriter(view, notes)
    request = command("SET", "k", b"x" * 100_000)
    ask(rewriter, request[:50])
    assert rewriter.request_opaque == len(request) - 50
    rewriter.request_opaque -= len(request) - 50
    ask(rewriter, command("GET", "k"))
    assert answer(rewriter, b"+OK\r\n") == b"+OK\r\n"
    reply = bulk(b"x" * 100_000)
    assert answer(rewriter, reply[:20]) == reply[:20]
    assert rewriter.reply_opaque == len(reply) - 20
    rewriter.reply_opaque -= len(reply) - 20
    ask(rewriter, ASKED_SLOTS.request)
    assert answer(rewriter, SLOTS) == ASKED_SLOTS.expected
    assert not notes.fallbacks


def test_a_look_ahead_at_a_large_command_closes_the_short_way_until_its_end() -> None:
    """Its body may come in pieces of which one is a whole command."""
    rewriter = RedisRewriter(view, Notes())
    body = b"x" * 200 + command("PING") + b"y" * 200
    request = command("SET", "k", body)
    assert rewriter.large_request(request[:256])
    at = request.index(command("PING"))
    rewriter.request_opaque -= at
    for piece in (command("PING"), request[at + len(command("PING")) :], ASKED_SLOTS.request):
        ask(rewriter, piece)
    assert answer(rewriter, b"+OK\r\n") + answer(rewriter, SLOTS) == b"+OK\r\n" + ASKED_SLOTS.expected


@pytest.mark.parametrize("whole", [b"*0\r\n", b"*-1\r\n", b">0\r\n", b"+QUEUED\r\n", b"_\r\n"])
@pytest.mark.parametrize("is_subscribed", [True, False])
def test_what_is_whole_is_never_held_back(whole: bytes, is_subscribed: bool) -> None:
    """Also where it might be a message, as what would tell comes next."""
    rewriter = RedisRewriter(view, Notes())
    if is_subscribed:
        ask(rewriter, command("SUBSCRIBE", "a"))
        answer(rewriter, array(bulk(b"subscribe"), bulk(b"a"), b":1\r\n"))
    for _ in range(2):
        ask(rewriter, command("PING"))
        assert answer(rewriter, whole) == whole


@pytest.mark.parametrize("garbage", [b"\x4a\x00\x00\x00\x0a8.0.36\x00", b"SSH-2.0", b"x", b"$" + b"1" * 32])
@pytest.mark.parametrize("asked", [b"", command("GET", "x")])
def test_what_can_be_no_reply_passes_at_once(asked: bytes, garbage: bytes) -> None:
    """Who waits for it may have nothing to say until then."""
    notes = Notes()
    rewriter = RedisRewriter(view, notes)
    ask(rewriter, asked)
    assert answer(rewriter, garbage) == garbage
    assert notes.fallbacks == [Fallback.ANSWER]


@pytest.mark.parametrize("is_split", [True, False])
def test_what_is_queued_in_a_transaction_is_not_kept_without_end(is_split: bool) -> None:
    notes = Notes()
    rewriter = RedisRewriter(view, notes)
    ask(rewriter, command("MULTI"))
    assert answer(rewriter, b"+OK\r\n") == b"+OK\r\n"
    for _ in range(MOST_SPECIAL):
        ask(rewriter, command("GET", "x") + command("INFO"))
        answer(rewriter, b"+QUEUED\r\n" * 2)
    assert notes.fallbacks == []
    ask(rewriter, command("INFO") * 2 + command("EXEC"))
    pieces = [b"+QUEUED\r\n" * 2, array(INFO, INFO, MOVED)]
    assert b"".join(answer(rewriter, piece) for piece in (pieces if is_split else [b"".join(pieces)])) == b"".join(
        pieces
    )
    assert notes.fallbacks == [Fallback.TOO_LARGE]


SMALL = b"$1\r\na\r\n"
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "an array, then as many bulk strings": (
        command("LRANGE", "l", "0", "-1") + command("GET", "a") * 15_000,
        b"*15000\r\n" + SMALL * 30_000,
    ),
    "bulk strings of which one has to be looked at": (
        command("GET", "a") * 15_000 + command("INFO", "x") + command("GET", "a") * 15_000,
        SMALL * 15_000 + b"$0\r\n\r\n" + SMALL * 15_000,
    ),
    "every third has to be looked at": (
        (command("GET", "a") * 2 + command("INFO", "x")) * 4000,
        (SMALL * 2 + b"$0\r\n\r\n") * 4000,
    ),
    "a transaction of which every third has to be looked at": (
        command("MULTI") + (command("GET", "a") * 2 + command("INFO", "x")) * 4000,
        b"+OK\r\n" + b"+QUEUED\r\n" * 12_000,
    ),
    "its reply": (
        command("MULTI") + command("GET", "a") * 9000 + command("EXEC") + command("GET", "a") * 9000,
        b"+OK\r\n" + b"+QUEUED\r\n" * 9000 + b"*9000\r\n" + SMALL * 18_000,
    ),
    "topologies of nothing": (
        command("INFO", "x") * 4000 + command("GET", "a"),
        b"$0\r\n\r\n" * 4000 + bulk(b"x" * 200_000),
    ),
    "redirections": (command("GET", "a"), MOVED * 8000),
    "pushes": (b"", b">1\r\n:1\r\n" * 25_000),
    "nested arrays": (command("GET", "a"), b"*1\r\n" * 50_000),
    "attributes of nothing": (command("GET", "a"), b"|0\r\n" * 50_000),
    "empty lines and arrays": (command("GET", "a") * 50_000, b"+\r\n*1\r\n" * 25_000),
    "confirmations": (command("SUBSCRIBE", *["a"] * 6000), array(bulk(b"subscribe"), bulk(b"a"), b":1\r\n") * 6000),
    "a topology of tiny things": (command("CLUSTER", "SLOTS"), b"*50000\r\n" + b"*1\r\n$0\r\n\r\n" * 20_000),
    "many ranges of one node": (
        command("CLUSTER", "SLOTS"),
        array(*[array(b":0\r\n", b":1\r\n", array(bulk(b"10.0.1.230"), b":6379\r\n"))] * 5000),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("piece", [1 << 20, 16_384, 512])
def test_no_flood_takes_long(name: str, piece: int) -> None:
    """As much as comes in one read, or in many, and takes the longest; some of these took minutes."""
    requests, replies = FLOODS[name]
    rewriter = RedisRewriter(view, Notes())
    started = time.process_time()
    for part in splits(requests, range(0, len(requests), piece)):
        ask(rewriter, part)
    for part in splits(replies, range(0, len(replies), piece)):
        answer(rewriter, part)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("begin", [b"+", b"*1\r\n+", b"*2\r\n+OK\r\n-"])
@pytest.mark.parametrize("asked", [command("GET", "x"), command("CLUSTER", "SLOTS")])
def test_a_line_without_end_in_small_pieces_takes_no_time(asked: bytes, begin: bytes) -> None:
    rewriter = RedisRewriter(view, Notes())
    ask(rewriter, asked)
    started = time.process_time()
    got = answer(rewriter, begin)
    for _ in range(3000):
        got += answer(rewriter, b"x" * 1000)
    assert time.process_time() - started < 2.0
    assert len(got + rewriter.rest()) == len(begin) + 3_000_000


BITS_ASKED = [
    command(*words.split())
    for words in ("SUBSCRIBE a", "UNSUBSCRIBE", "MULTI", "EXEC", "RESET", "INFO", "CLUSTER SLOTS", "GET x", "HELLO 3")
]
BITS_ANSWERED = [
    line.encode() + b"\r\n"
    for line in (
        *("*3", ">3", ">0", "*0", "*2", "*-1", "|1", "%1", "$5\r\nab", "", "_", ":1", ":-1", "$-1", "$1\r\na"),
        *("+QUEUED", "+OK", "-ERR x", "$9\r\nsubscribe", "$11\r\nunsubscribe", "$7\r\nmessage"),
    )
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(BITS_ASKED) | st.sampled_from(BITS_ANSWERED), max_size=40), st.booleans())
def test_a_node_that_lies_makes_nothing_but_bytes_pass(pieces: list[bytes], is_lazy: bool) -> None:
    """Commands, and frames in any order: nothing raises, and nothing that names no address of the book is changed."""
    rewriter = (LazyRedisRewriter if is_lazy else RedisRewriter)(view, Notes())
    sent = got = b""
    for data in pieces:
        if data in BITS_ASKED:
            ask(rewriter, data)
        else:
            sent += data
            got += answer(rewriter, data)
    assert got + rewriter.rest() == sent


def test_nothing_of_a_reused_buffer_is_kept() -> None:
    rewriter = RedisRewriter(view, Notes())
    buffer = bytearray(command("CLUSTER", "SLOTS")[:-5])
    rewriter.requests(memoryview(buffer))
    buffer[:] = b"x" * len(buffer)
    rewriter.requests(memoryview(bytearray(command("CLUSTER", "SLOTS")[-5:])))
    reply = bytearray(SLOTS[:30])
    assert bytes(rewriter.replies(memoryview(reply))) == b""
    reply[:] = b"x" * len(reply)
    assert bytes(rewriter.replies(memoryview(bytearray(SLOTS[30:])))) == ASKED_SLOTS.expected


def test_an_untouched_reply_is_no_copy() -> None:
    rewriter = RedisRewriter(view, Notes())
    data = array(bulk(b"x" * 1000))
    ask(rewriter, command("LRANGE", "x", "0", "1"))
    assert rewriter.replies(data) is data


@pytest.mark.parametrize(
    ("reply", "hint"),
    [
        (b"-READONLY You can't write against a read only replica.\r\n", Hint.READ_ONLY),
        (b"-MOVED 1 10.9.9.9:6379\r\n", Hint.UNKNOWN_NODE),
        (b"-MOVED 1 10.0.1.230:6379\r\n", Hint.MOVED_TO_SELF),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"+OK\r\n"])
def test_what_makes_it_worth_to_ask_anew(reply: bytes, hint: Hint, behind: bytes) -> None:
    notes = Notes()
    rewriter = RedisRewriter(view, notes)
    ask(rewriter, command("SET", "a", "1") * 2)
    answer(rewriter, behind + reply)
    assert notes.hints == [hint]


def test_roles_are_learnt_from_what_passes() -> None:
    notes = outcome(CONVERSATIONS["nodes in lower case"])[1]
    assert {host for host, _, _ in notes.roles} == set(PRIVATE)
    assert notes.replies == [Reply.NODES]
