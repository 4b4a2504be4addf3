"""Conversations through a relay that reads along: not a byte but the addresses may change, however they come.

What the rewriter makes of them is tests/wire's; here it is in a leg's hands, with real sockets and a loop that is
turned by hand, so that what comes in one read is known.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.model import Outcome
from natproxy.wire.book import Book, View
from natproxy.wire.redirections import TRY_AGAIN
from natproxy.wire.redis import MOST_SPECIAL, RedisRewriter
from natproxy.wire.rewriter import Fallback, Hint, Reply
from natproxy.wire.topology import rewrite
from natproxy.worker import endings, framed, tlsleg
from natproxy.worker import leg as leg_module
from natproxy.worker.leg import BUFFER_BYTES, READS_PER_TURN, SMALL_BYTES, SPLICE_BYTES
from natproxy.worker.pipe import Pipe, Pipes
from tests.wire.talk import (
    BOOK,
    FORGED,
    INFO,
    MOVED,
    MOVED_TO,
    NODES,
    SLOTS,
    Notes,
    Said,
    array,
    becomes,
    bulk,
    command,
    same,
    topology,
    view,
)
from tests.worker.hand import CLEAR, MIXES, SECONDS, Joined, Mix, joined, receive, reset, settle, turn, turn_until
from tests.worker.tlspeer import Peer, TlsPeer

ASKED_SLOTS = topology(command("CLUSTER", "SLOTS"), Reply.SLOTS, SLOTS)
SLOTS_TO = ASKED_SLOTS.expected
HALF = len(SLOTS) // 2
SMALL = 1 << 18
"""A socket buffer that is soon full, yet holds several segments of loopback's 64 KiB (else TCP waits for timers)."""


@pytest.fixture(params=MIXES, ids=str, scope="module")
def mix(request: pytest.FixtureRequest) -> Mix:
    """Which legs speak TLS."""
    found = request.param
    assert isinstance(found, Mix)
    return found


@pytest.fixture(autouse=True, scope="module")
def no_haste() -> Iterator[None]:
    """These tests take their time over the other direction."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endings, "CLOSING_SECONDS", 600.0)
        yield


class Reader:
    """What reads along in a test, with all that it told."""

    def __init__(self, view_now: Callable[[], View] = view) -> None:
        self.notes = Notes()
        self.view = view_now
        self.rewriter = RedisRewriter(view_now, self.notes)

    def joins(self, mix: Mix = CLEAR, *, buffer: int | None = None) -> AbstractContextManager[Joined]:
        """Join a client and a node with it in between."""
        return joined(mix, receive_buffer=buffer, send_buffer=buffer, rewriter=self.rewriter)

    def finds_its_way(self, pair: Joined) -> None:
        """See that it pairs replies with commands still."""
        converse(pair, [same(command("ECHO", FORGED), bulk(FORGED)), ASKED_SLOTS, MOVED_ON])
        assert self.notes.fallbacks == []
        assert self.rewriter.ahead == 0


MOVED_ON = Said(command("GET", "x"), MOVED, MOVED_TO)


def filled(size: int) -> bytes:
    """Return a body of this size that is full of what must not be taken for what it looks like."""
    pattern = FORGED + command("CLUSTER", "SLOTS") + command("EXEC") + b"*1\r\n$4\r\nPING\r\n$7\r\n\r\n"
    return (pattern * (size // len(pattern) + 1))[:size]


class Sending:
    """Sends bytes by pieces, as far as they go."""

    def __init__(self, sock: Peer, piece: int) -> None:
        self._sock = sock
        self._piece = piece
        self.left = b""

    def go_on(self) -> bool:
        """Send one piece; True where it went."""
        if not self.left:
            return False
        try:
            self.left = self.left[self._sock.send(self.left[: self._piece]) :]
        except BlockingIOError:
            return False
        return True


def converse(
    pair: Joined,
    said: Sequence[Said],
    *,
    depth: int = 1,
    asked_piece: int = 1 << 20,
    answered_piece: int = 1 << 20,
    read_piece: int = 1 << 20,
) -> None:
    """Hold a conversation with ``depth`` commands on their way at once; not a byte may be wrong on either side."""
    asking, answering = Sending(pair.client, asked_piece), Sending(pair.node, answered_piece)
    asked, got, expected = bytearray(), bytearray(), b"".join(one.expected for one in said)
    requests = b"".join(one.request for one in said)
    sent = answered = answered_bytes = 0

    def is_done() -> bool:
        nonlocal sent, answered, answered_bytes
        while sent < len(said) and sent - answered < depth:
            asking.left += said[sent].request
            sent += 1
        asking.go_on()
        if (data := receive(pair.node)) is not None:
            assert data
            asked.extend(data)
        while answered < sent and len(asked) >= answered_bytes + len(said[answered].request):
            answered_bytes += len(said[answered].request)
            answering.left += said[answered].reply
            answered += 1
        answering.go_on()
        if (data := receive(pair.client, read_piece)) is not None:
            assert data
            assert expected.startswith(data, len(got))
            got.extend(data)
        return answered == len(said) and len(got) >= len(expected)

    turn_until(pair.loop, is_done)
    assert asked == requests
    assert got == expected


EDGES = (SMALL_BYTES, SPLICE_BYTES, BUFFER_BYTES)
SIZES = sorted(
    {0, 1, 10, 97, 98, 99, 100, 101, 240, 256, 1000, 3 * BUFFER_BYTES}
    | {edge + by for edge in EDGES for by in (-40, -11, -10, -9, -1, 0, 1, 20)}
)
"""Around 99 bytes (small bulk strings), and around what reads take, with and without the header and CRLF."""


@pytest.mark.parametrize("depth", [1, 5])
def test_values_of_every_size_go_both_ways(mix: Mix, depth: int) -> None:
    reader = Reader()
    said = []
    for size in SIZES:
        body = filled(size)
        said += [same(command("SET", "k", body), b"+OK\r\n"), same(command("GET", "k"), bulk(body)), ASKED_SLOTS]
    said += [same(command("ECHO", filled(size)), bulk(filled(size))) for size in SIZES] + [MOVED_ON]
    with reader.joins(mix) as pair:
        converse(pair, said, depth=depth)
        reader.finds_its_way(pair)
        sizes = pair.relay.client.received_bytes, pair.relay.node.received_bytes
        assert sizes == (
            sum(len(one.request) for one in said)
            + len(command("ECHO", FORGED) + ASKED_SLOTS.request + MOVED_ON.request),
            sum(len(one.reply) for one in said) + len(bulk(FORGED) + SLOTS + MOVED),
        )


@pytest.mark.parametrize("asked_piece", [1, 7, 1000, SMALL_BYTES])
@pytest.mark.parametrize("answered_piece", [3, 100, SMALL_BYTES, 50_000])
def test_pieces_of_any_size(mix: Mix, asked_piece: int, answered_piece: int) -> None:
    reader = Reader()
    size = min(4000 * min(asked_piece, answered_piece), 100_000)
    said = [
        ASKED_SLOTS,
        same(command("SET", "k", filled(size)), b"+OK\r\n"),
        same(command("LRANGE", "l", "0", "-1"), array(bulk(filled(100)), MOVED, bulk(filled(size)), b":1\r\n")),
        topology(command("CLUSTER", "NODES"), Reply.NODES, NODES),
        same(command("MULTI"), b"+OK\r\n"),
        same(command("GET", "a"), b"+QUEUED\r\n"),
        same(command("INFO"), b"+QUEUED\r\n"),
        Said(command("EXEC"), array(bulk(FORGED), INFO), array(bulk(FORGED), becomes(Reply.INFO, INFO))),
        MOVED_ON,
    ]
    with reader.joins(mix) as pair:
        converse(pair, said, depth=4, asked_piece=asked_piece, answered_piece=answered_piece)
        reader.finds_its_way(pair)


def test_thousands_of_small_commands_in_pipelines(mix: Mix) -> None:
    reader = Reader()
    said = [
        same(command("SET", f"key:{number}", "v" * (number % 120)), b"+OK\r\n") if number % 3 else MOVED_ON
        for number in range(3000)
    ]
    said[1000] = said[2000] = ASKED_SLOTS
    with reader.joins(mix) as pair:
        converse(pair, said, depth=1000)
        converse(pair, said[990:1010], depth=1)
        reader.finds_its_way(pair)


VALUES = st.integers(0, 40_000) | st.sampled_from([99, 100, SMALL_BYTES - 10, SPLICE_BYTES + 1, BUFFER_BYTES])


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(MIXES),
    st.lists(st.tuples(st.sampled_from("sgtme"), VALUES), min_size=1, max_size=12),
    st.integers(1, 12),
    st.sampled_from([100, 5000, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 1 << 20]),
    st.sampled_from([100, 5000, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 1 << 20]),
)
def test_any_conversation(
    mix: Mix, parts: list[tuple[str, int]], depth: int, asked_piece: int, answered_piece: int
) -> None:
    kinds: dict[str, Callable[[int], Said]] = {
        "s": lambda size: same(command("SET", "k", filled(size)), b"+OK\r\n"),
        "g": lambda size: same(command("GET", "k"), bulk(filled(size))),
        "t": lambda size: ASKED_SLOTS,
        "m": lambda size: MOVED_ON,
        "e": lambda size: same(command("MGET", "a", filled(size % 300)), array(bulk(filled(size)), b"$-1\r\n")),
    }
    reader = Reader()
    with reader.joins(mix) as pair:
        converse(
            pair,
            [kinds[kind](size) for kind, size in parts],
            depth=depth,
            asked_piece=asked_piece,
            answered_piece=answered_piece,
        )
        reader.finds_its_way(pair)


# What comes in which read.


def deliver(pair: Joined, source: Peer, sink: Peer, pieces: Sequence[bytes], expected: Sequence[bytes]) -> None:
    """Send pieces, each once the relay has read the one before; each must have gone on as expected by then."""
    leg = pair.relay.client if source is pair.client else pair.relay.node
    for piece, goes_on in zip(pieces, expected, strict=True):
        sending, got, due = Sending(source, 1 << 20), b"", leg.received_bytes + len(piece)
        sending.left = piece
        deadline = time.monotonic() + SECONDS
        while leg.received_bytes != due or len(got) < len(goes_on):
            assert time.monotonic() < deadline, f"{got!r} came of {piece!r}"
            sending.go_on()
            turn(pair.loop)
            got += receive(sink) or b""
        assert got == goes_on


def make_bulky(pair: Joined) -> None:
    """Have both sides read much at once from now on."""
    body = filled(3 * SMALL_BYTES)
    converse(pair, [same(command("ECHO", body), bulk(body))])


@pytest.mark.parametrize("before", [b"", bulk(filled(SMALL_BYTES - 30)), bulk(filled(BUFFER_BYTES - 10))])
def test_a_value_whose_beginning_comes_with_what_was_before(mix: Mix, before: bytes) -> None:
    """Cut in its header, right behind that, and in its body; the rest, and the next reply, come in one piece."""
    reader = Reader()
    value = bulk(filled(SPLICE_BYTES + 5))
    with reader.joins(mix) as pair:
        for number, cut in enumerate((1, 7, 8, 9, 10, 300, SMALL_BYTES)):
            if number % 2:
                make_bulky(pair)
            asked = command("GET", "a") * (1 + bool(before)) + ASKED_SLOTS.request
            deliver(pair, pair.client, pair.node, [asked], [asked])
            held = cut if cut < 9 else 0
            answered = [before + value[:cut], value[cut:] + SLOTS]
            expected = [before + value[: cut - held], value[cut - held :] + SLOTS_TO]
            deliver(pair, pair.node, pair.client, answered, expected)
        reader.finds_its_way(pair)


def test_a_large_command_in_two_pieces(mix: Mix) -> None:
    reader = Reader()
    large = command("SET", "key", filled(SPLICE_BYTES + 5))
    with reader.joins(mix) as pair:
        for number, cut in enumerate((1, 5, 13, 25, 30, 31, 32, 33, 34, 300, SMALL_BYTES)):
            if number % 2:
                make_bulky(pair)
            asked = [command("GET", "a") + large[:cut], large[cut:] + ASKED_SLOTS.request]
            deliver(pair, pair.client, pair.node, asked, asked)
            answered = b"$-1\r\n+OK\r\n"
            deliver(pair, pair.node, pair.client, [answered + SLOTS], [answered + SLOTS_TO])
        reader.finds_its_way(pair)


SMALL_ASKED = command("PING") * 1169 + command("PINGPING")
SMALL_ANSWERED = bulk(b"x" * 90) * 168 + bulk(b"x" * 81)
"""Just what a small read takes."""


def test_a_piece_of_a_value_that_is_a_whole_command_or_reply_is_none(mix: Mix) -> None:
    """The value was announced by a look ahead, and moved unseen as far as it had come; the rest comes in pieces."""
    assert len(SMALL_ASKED) == len(SMALL_ANSWERED) == SMALL_BYTES
    inside = [command("PING"), b"+OK\r\n", command("SET", "a", "b"), bulk(b"x"), command("CLUSTER", "SLOTS"), MOVED]
    head, tail = filled(4000), filled(SMALL_BYTES - 4000)
    body = head + b"".join(inside) + tail
    large, value = command("SET", "key", body), bulk(body)
    reader = Reader()
    with reader.joins(mix) as pair:
        begins = SMALL_ASKED + large[: large.index(head) + len(head)]
        pieces = [begins, *inside, tail + b"\r\n"]
        deliver(pair, pair.client, pair.node, pieces, pieces)
        answered = b"+PONG\r\n" * 1170 + b"+OK\r\n"
        deliver(pair, pair.node, pair.client, [answered], [answered])
        asked = command("GET", "key") * 190
        deliver(pair, pair.client, pair.node, [asked], [asked])
        begins = SMALL_ANSWERED + value[: value.index(head) + len(head)]
        pieces = [begins, *inside, tail + b"\r\n", b"$-1\r\n" * 20]
        deliver(pair, pair.node, pair.client, pieces, pieces)
        reader.finds_its_way(pair)


def test_a_reply_is_held_back_no_longer_than_its_header_needs(mix: Mix) -> None:
    reader = Reader()
    asked = command("GET", "a") * 4 + command("LRANGE", "l", "0", "-1")
    steps = [
        (b"$500", b""),
        (b"00\r", b""),
        (b"\nx", b"$50000\r\nx"),
        (b"y" * 49_999 + b"\r\n+PON", b"y" * 49_999 + b"\r\n"),
        (b"G\r\n-MOVED 3999 10.0.1.2", b"+PONG\r\n"),
        (b"31:6379\r\n$3\r\nabc", MOVED_TO + b"$3\r\nabc"),
        (b"\r\n*", b"\r\n"),
        (b"2\r\n$3\r\nab", b"*2\r\n$3\r\nab"),
        (b"c\r", b"c\r"),
        (b"\n$", b"\n"),
        (b"0\r\n\r\n", b"$0\r\n\r\n"),
    ]
    with reader.joins(mix) as pair:
        deliver(pair, pair.client, pair.node, [asked], [asked])
        deliver(pair, pair.node, pair.client, [piece for piece, _ in steps], [goes_on for _, goes_on in steps])
        reader.finds_its_way(pair)


def test_the_book_of_the_moment_counts_when_a_reply_is_whole(mix: Mix) -> None:
    """It was another one when the reply began; and when the next MOVED comes it is another again."""
    now = [BOOK, replace(BOOK, public_host="other.example.com"), Book()]
    reader = Reader(lambda: view()._replace(book=now[0]))
    asked = ASKED_SLOTS.request + command("GET", "x")
    with reader.joins(mix) as pair:
        deliver(pair, pair.client, pair.node, [asked], [asked])
        deliver(pair, pair.node, pair.client, [SLOTS[:HALF]], [b""])
        del now[0]
        expected = rewrite(Reply.SLOTS, SLOTS, reader.view())
        assert expected is not None
        assert b"other.example.com" in expected.data
        deliver(pair, pair.node, pair.client, [SLOTS[HALF:] + MOVED[:9]], [expected.data])
        del now[0]
        deliver(pair, pair.node, pair.client, [MOVED[9:]], [TRY_AGAIN])
        assert reader.notes.hints == [Hint.UNKNOWN_NODE]


# The pipe.


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipes]:
    """Pipes of a test's own."""
    own = Pipes()
    monkeypatch.setattr(leg_module, "PIPES", own)
    yield own
    own.close()


def large_ones() -> list[Said]:
    body = filled(3 * SPLICE_BYTES)
    return [same(command("SET", "k", body), b"+OK\r\n"), same(command("GET", "k"), bulk(body)), ASKED_SLOTS] * 3


def test_where_all_pipes_are_taken_values_are_read(pipes: Pipes) -> None:
    reader = Reader()
    taken = []
    while (pipe := pipes.take()) is not None:
        taken.append(pipe)
    with reader.joins() as pair:
        converse(pair, large_ones(), depth=3)
        reader.finds_its_way(pair)
    for pipe in taken:
        pipes.give_back(pipe)


@pytest.mark.usefixtures("pipes")
@pytest.mark.parametrize("number", [0, 1, 5])
def test_where_splicing_turns_out_to_be_impossible_values_are_read(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It does so when a value has been announced already, and perhaps been moved in part."""
    fill, calls = Pipe.fill, 0

    def fails(pipe: Pipe, fd: int, most: int) -> int:
        nonlocal calls
        calls += 1
        if calls > number:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return fill(pipe, fd, most)

    monkeypatch.setattr(Pipe, "fill", fails)
    reader = Reader()
    with reader.joins() as pair:
        converse(pair, large_ones(), depth=3)
        reader.finds_its_way(pair)
    assert calls == number + 1


@pytest.mark.usefixtures("pipes")
def test_large_values_between_clear_sockets_are_spliced_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    fill, moved, most_asked = Pipe.fill, 0, 0

    def counting(pipe: Pipe, fd: int, most: int) -> int:
        nonlocal moved, most_asked
        most_asked = max(most_asked, most)
        moved += (count := fill(pipe, fd, most))
        return count

    monkeypatch.setattr(Pipe, "fill", counting)
    reader = Reader()
    body = filled(SMALL_BYTES + 100)
    with reader.joins() as pair:
        make_bulky(pair)
        moved = most_asked = 0
        asked = command("GET", "k") + ASKED_SLOTS.request
        deliver(pair, pair.client, pair.node, [asked], [asked])
        deliver(pair, pair.node, pair.client, [bulk(body) + SLOTS], [bulk(body) + SLOTS_TO])
        assert SMALL_BYTES <= most_asked <= len(bulk(body))
        reader.finds_its_way(pair)
        moved, said = 0, large_ones()
        converse(pair, said)
        assert moved > 0.5 * sum(len(one.request) + len(one.reply) for one in said)


@pytest.mark.parametrize("first", ["client", "node"])
def test_urgent_data_inside_a_value_stays_in_its_place(first: str) -> None:
    reader = Reader()
    body = filled(SPLICE_BYTES) + b"!" + filled(SPLICE_BYTES)
    whole = command("SET", "k", body) if first == "client" else bulk(body)
    with reader.joins() as pair:
        make_bulky(pair)
        if first == "node":
            deliver(pair, pair.client, pair.node, [command("GET", "k")], [command("GET", "k")])
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        at = whole.index(b"!")
        got = bytearray()
        for piece, flags in ((whole[:at], 0), (b"!", socket.MSG_OOB), (whole[at + 1 :], 0)):
            left = memoryview(piece)
            while left:
                with contextlib.suppress(BlockingIOError):
                    left = left[one.send(left, flags) :]
                turn(pair.loop)
                got += receive(other) or b""
        got += pair.expect(other, len(whole) - len(got))
        assert got == whole
        if first == "client":
            deliver(pair, pair.node, pair.client, [b"+OK\r\n"], [b"+OK\r\n"])
        reader.finds_its_way(pair)


# Turns, and peers that do not read.


@pytest.mark.parametrize("first", ["client", "node"])
@pytest.mark.parametrize(
    ("one", "most_read"), [(command("SET", "k", filled(4 << 20)), SPLICE_BYTES), (b"a\n", 1 << 16)]
)
def test_a_turn_of_one_leg_is_bounded(mix: Mix, first: str, one: bytes, most_read: int) -> None:
    """Whoever sends megabytes, of whatever, lets others have their turn; the sooner, the longer a look may take."""
    reader = Reader()
    with reader.joins(mix) as pair:
        make_bulky(pair)
        if first == "node":
            one = bulk(filled(4 << 20)) if len(one) > 10 else b"-\r\n"
            asked = command("GET", "k") * 3
            deliver(pair, pair.client, pair.node, [asked], [asked])
        source, sink = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        leg = pair.relay.client if first == "client" else pair.relay.node
        sending, got = Sending(source, 1 << 20), bytearray()
        sending.left = data = one * max(1, (1 << 20) // len(one))
        while len(got) < len(data):
            while sending.go_on():
                pass
            before = leg.received_bytes
            pair.loop.call_later(0.001, lambda: None)
            pair.loop.turn()
            # What is left for the next turn may begin in this one.
            assert leg.received_bytes - before <= 2 * READS_PER_TURN * most_read
            got += receive(sink) or b""
        assert got == data


@pytest.mark.parametrize("read_piece", [10_000, 100_000])
def test_a_client_that_reads_slowly_gets_all_in_its_order(mix: Mix, read_piece: int) -> None:
    reader = Reader()
    said = []
    for size in [10, 99, 3 * SPLICE_BYTES, 100, SMALL_BYTES, 1, 2 * BUFFER_BYTES]:
        said += [same(command("GET", "a"), bulk(filled(size))), ASKED_SLOTS, MOVED_ON]
    with reader.joins(mix, buffer=SMALL) as pair:
        converse(pair, said, depth=len(said), read_piece=read_piece)
        reader.finds_its_way(pair)


def test_a_client_that_reads_nothing_fills_no_memory(mix: Mix) -> None:
    large = array(*[SLOTS[4:]] * 2000)
    reader = Reader()
    with reader.joins(mix, buffer=SMALL) as pair:
        pair.send(pair.client, ASKED_SLOTS.request * 100)
        settle(pair.loop)
        answering = Sending(pair.node, 1 << 20)
        answering.left = large * 150
        quiet = 0
        while quiet < 20:
            quiet = 0 if answering.go_on() else quiet + 1
            turn(pair.loop)
            assert len(pair.relay.client.pending or b"") < 2 * (len(large) + BUFFER_BYTES)
        assert pair.relay.client.pending is not None
        assert len(answering.left) > 70 * len(large)


def test_requests_that_nobody_answers_are_not_kept_for_ever(mix: Mix) -> None:
    """What has no answer yet is counted; of what has to be known one by one there is a most."""
    reader = Reader()
    with reader.joins(mix) as pair:
        asked = command("PING") * 1000 + command("ROLE") * MOST_SPECIAL
        deliver(pair, pair.client, pair.node, [asked], [asked])
        assert reader.notes.fallbacks == []
        deliver(pair, pair.client, pair.node, [command("ROLE")], [command("ROLE")])
        assert reader.notes.fallbacks == [Fallback.TOO_LARGE]
        answered = b"+PONG\r\n" * 1000 + MOVED
        deliver(pair, pair.node, pair.client, [answered, MOVED], [answered, MOVED])


# Ends.


HELD = {
    "a header": (command("GET", "x"), b"$10000"),
    "a redirection": (command("GET", "x"), MOVED[:20]),
    "half a topology": (ASKED_SLOTS.request, SLOTS[:HALF]),
    "nearly a topology": (ASKED_SLOTS.request, SLOTS[:-1]),
    "a beginning that nobody asked for": (b"", b"-ERR max number of cli"),
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_back_goes_on_when_the_node_ends(mix: Mix, name: str) -> None:
    asked, held = HELD[name]
    reader = Reader()
    with reader.joins(mix) as pair:
        pair.send(pair.client, asked)
        pair.expect(pair.node, len(asked))
        deliver(pair, pair.node, pair.client, [held], [b""])
        pair.node.shutdown(socket.SHUT_WR)
        assert pair.expect_to_the_end(pair.client) == held
        # The other direction lives on.
        pair.send(pair.client, command("PING"))
        assert pair.expect(pair.node, len(command("PING"))) == command("PING")
        pair.client.shutdown(socket.SHUT_WR)
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is Outcome.NODE_CLOSED


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("taken", [0, 1, 3000])
def test_what_is_held_back_goes_behind_what_the_client_has_not_taken_yet(
    mix: Mix, name: str, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value, beginning of a reply, and the end come in one; and the client's socket takes some bytes only."""
    asked, held = HELD[name]
    value = bulk(filled(5000))
    asked = command("GET", "a") + asked
    reader = Reader()
    with reader.joins(mix) as pair:
        deliver(pair, pair.client, pair.node, [asked], [asked])
        takes = iter([taken])

        def write(to: int, data: bytes | memoryview) -> int:
            return os.write(to, data[: next(takes, len(data))] if to == pair.relay.client.fd else data)

        for module in (leg_module, tlsleg, framed):
            monkeypatch.setattr(module, "_write", write)
        say_and_end(pair.node, value + held)
        assert pair.expect_to_the_end(pair.client) == value + held
        assert next(takes, None) is None


def say_and_end(sock: Peer, words: bytes) -> None:
    """Send words and the end at once, so that one read takes both."""
    if isinstance(sock, TlsPeer):
        sock.plain.sendall(sock.seal(words) + sock.goodbye())
        sock.plain.shutdown(socket.SHUT_WR)
    else:
        sock.send(words)
        sock.shutdown(socket.SHUT_WR)


def test_a_node_s_last_reply_and_its_end_in_one(mix: Mix) -> None:
    reader = Reader()
    with reader.joins(mix) as pair:
        asked = ASKED_SLOTS.request + command("QUIT")
        deliver(pair, pair.client, pair.node, [asked], [asked])
        say_and_end(pair.node, SLOTS + b"+OK\r\n")
        pair.node.close()
        assert pair.expect_to_the_end(pair.client) == SLOTS_TO + b"+OK\r\n"
        assert reader.notes.fallbacks == []


def test_a_client_that_ends_before_its_answer_gets_it(mix: Mix) -> None:
    reader = Reader()
    with reader.joins(mix) as pair:
        pair.client.send(ASKED_SLOTS.request)
        pair.client.shutdown(socket.SHUT_WR)
        pair.expect(pair.node, len(ASKED_SLOTS.request))
        assert pair.expect_some(pair.node) == b""
        deliver(pair, pair.node, pair.client, [SLOTS[:HALF], SLOTS[HALF:]], [b"", SLOTS_TO])
        pair.node.shutdown(socket.SHUT_WR)
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is Outcome.CLIENT_CLOSED


PHASES = {
    "nothing asked": (b"", b"", b""),
    "nothing answered": (ASKED_SLOTS.request, b"", b""),
    **{name: (asked, held, b"") for name, (asked, held) in HELD.items()},
    "inside a large value": (command("GET", "x"), bulk(filled(BUFFER_BYTES))[:-100], bulk(filled(BUFFER_BYTES))[:-100]),
    "inside a large command": (command("SET", "x", filled(BUFFER_BYTES))[:-100], b"", b""),
    "a command's beginning": (b"*2\r\n$3\r\nGE", b"", b""),
    "no more read": (command("MONITOR"), b"+OK\r\n+1 x\r\n", b"+OK\r\n+1 x\r\n"),
}


@pytest.mark.parametrize("first", ["client", "node"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_reset_in_any_phase_is_passed_on_as_a_reset(mix: Mix, phase: str, first: str) -> None:
    asked, answered, expected = PHASES[phase]
    reader = Reader()
    with reader.joins(mix) as pair:
        deliver(pair, pair.client, pair.node, [asked], [asked])
        deliver(pair, pair.node, pair.client, [answered], [expected])
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        reset(one)
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is (Outcome.CLIENT_RESET if first == "client" else Outcome.NODE_RESET)
        assert pair.ending(other) == "reset"


def test_what_is_no_redis_passes_at_once(mix: Mix) -> None:
    reader = Reader()
    greeting = b"\x4a\x00\x00\x00\x0a8.0.36\x00" + bytes(range(256))
    with reader.joins(mix) as pair:
        deliver(pair, pair.node, pair.client, [greeting], [greeting])
        deliver(pair, pair.client, pair.node, [greeting], [greeting])
        large = filled(BUFFER_BYTES)
        deliver(pair, pair.node, pair.client, [large, MOVED], [large, MOVED])
        deliver(pair, pair.client, pair.node, [large], [large])
    assert reader.notes.fallbacks == [Fallback.ANSWER]
