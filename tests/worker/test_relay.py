"""Two sockets joined, by a loop that is turned by hand: every order of events can be made to happen.

What holds for every relay is tried with clear legs and with TLS; what is TLS's own stands in test_tlsleg.py.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.model import Outcome
from natproxy.worker import endings, liveness, tlsleg
from natproxy.worker import leg as leg_module
from natproxy.worker.leg import BUFFER_BYTES, READS_PER_TURN, Leg
from natproxy.worker.loop import READ_WRITE
from natproxy.worker.pipe import Pipe, Pipes
from natproxy.worker.polling import ERROR, HUP, IN, OUT
from natproxy.worker.relay import Relay
from tests.worker.hand import (
    MIXES,
    READ_ALONG,
    Joined,
    Mix,
    Nobody,
    close_and_wait,
    joined,
    receive,
    reset,
    settle,
    turn,
    turn_until,
)
from tests.worker.tlspeer import Peer

EVERY = IN | OUT | ERROR | HUP

ERROR_REPLY = b"-ERR max number of clients reached\r\n"
SMALL = 1 << 18
"""A socket buffer that is soon full, yet holds several segments of loopback's 64 KiB (else TCP waits for timers)."""
SIDES = pytest.mark.parametrize("first", ["client", "node"])


@pytest.fixture(params=(*MIXES, *READ_ALONG), ids=str, scope="module")
def mix(request: pytest.FixtureRequest) -> Mix:
    """Which legs speak TLS, and whether they are read along with."""
    found = request.param
    assert isinstance(found, Mix)
    return found


@pytest.fixture(autouse=True, scope="module")
def no_haste() -> Iterator[None]:
    """These tests take their time over the other direction."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endings, "CLOSING_SECONDS", 600.0)
        yield


def ends_of(pair: Joined, first: str) -> tuple[Peer, Peer, Leg, Leg]:
    """Return (its socket, the other's socket, its leg, the other's leg)."""
    if first == "client":
        return pair.client, pair.node, pair.relay.client, pair.relay.node
    return pair.node, pair.client, pair.relay.node, pair.relay.client


def assert_reset(pair: Joined, sock: Peer) -> bytes:
    """Read on until the reset comes; return what came before it. An EOF fails."""
    got = bytearray()
    try:
        while data := pair.expect_some(sock):
            got += data
    except ConnectionResetError:
        return bytes(got)
    pytest.fail("an end came, not a reset")


# Bytes and EOF.


def test_bytes_go_both_ways(mix: Mix) -> None:
    with joined(mix) as pair:
        pair.client.send(b"PING\r\n")
        assert pair.expect(pair.node, 6) == b"PING\r\n"
        pair.node.send(b"+PONG\r\n")
        assert pair.expect(pair.client, 7) == b"+PONG\r\n"
        assert (pair.relay.client.received_bytes, pair.relay.node.received_bytes) == (6, 7)
        assert pair.outcome() is None


@SIDES
@pytest.mark.parametrize("outcome", [Outcome.CLIENT_CLOSED, Outcome.NODE_CLOSED])
def test_an_eof_is_passed_on_after_all_bytes_and_the_other_direction_lives_on(
    mix: Mix, first: str, outcome: Outcome
) -> None:
    with joined(mix) as pair:
        one, other, _, _ = ends_of(pair, first)
        payload = random.Random(1).randbytes(3_000_000)
        sent = memoryview(payload)
        got = bytearray()

        def is_moved() -> bool:
            nonlocal sent
            try:
                while sent:
                    sent = sent[one.send(sent) :]
                    if not sent:
                        one.shutdown(socket.SHUT_WR)
            except BlockingIOError:
                pass
            while (data := receive(other)) is not None:
                got.extend(data)
                if not data:
                    return True
            return False

        turn_until(pair.loop, is_moved)
        assert got == payload
        # The other direction, long after the EOF of the first.
        pair.send(other, b"late " * 1000)
        assert pair.expect(one, 5000) == b"late " * 1000
        assert pair.outcome() is None
        other.shutdown(socket.SHUT_WR)
        assert pair.expect_some(one) == b""
        turn_until(pair.loop, pair.outcome)
        expected = Outcome.CLIENT_CLOSED if first == "client" else Outcome.NODE_CLOSED
        assert pair.outcome() is expected
        assert (outcome is expected) is (pair.relay._ended_first is ends_of(pair, outcome.split("-")[0])[2])


@SIDES
def test_an_eof_behind_bytes_that_nobody_reads_yet_waits_for_them(mix: Mix, first: str) -> None:
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        one, other, leg, other_leg = ends_of(pair, first)
        sent = pair.stuff(one)
        assert other_leg.pending is not None
        one.shutdown(socket.SHUT_WR)
        settle(pair.loop)
        was_shut = other_leg.is_shut
        assert len(pair.expect_to_the_end(other)) == sent == leg.received_bytes
        assert (was_shut, other_leg.is_shut) == (False, True)
        assert pair.outcome() is None


def test_both_ends_close_at_once(mix: Mix) -> None:
    with joined(mix) as pair:
        pair.client.send(b"a")
        pair.node.send(b"b")
        pair.client.shutdown(socket.SHUT_WR)
        pair.node.shutdown(socket.SHUT_WR)
        turn_until(pair.loop, pair.outcome)
        assert (receive(pair.client), receive(pair.node)) == (b"b", b"a")
        assert (receive(pair.client), receive(pair.node)) == (b"", b"")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 700_000)), max_size=8),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_any_interleaving_of_writes_and_reads_moves_all_bytes_in_order(
    mix: Mix, writes: list[tuple[bool, int]], client_ends_first: bool, seed: int
) -> None:
    dice = random.Random(seed)
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        outgoing = {True: bytearray(), False: bytearray()}
        for is_client, count in writes:
            outgoing[is_client] += dice.randbytes(count)
        socks = {True: pair.client, False: pair.node}
        left = {side: memoryview(bytes(data)) for side, data in outgoing.items()}
        got = {True: bytearray(), False: bytearray()}
        ended: set[bool] = set()
        is_shut: set[bool] = set()

        def is_all() -> bool:
            for side in dice.sample([True, False], 2):
                sock = socks[side]
                if left[side] and dice.random() < 0.7:
                    with contextlib.suppress(BlockingIOError):
                        left[side] = left[side][sock.send(left[side][: dice.randint(1, 300_000)]) :]
                may_end = side is client_ends_first or side in ended
                if not left[side] and may_end and side not in is_shut:
                    is_shut.add(side)
                    sock.shutdown(socket.SHUT_WR)
                if dice.random() < 0.7 and (data := receive(sock, dice.randint(1, 300_000))) is not None:
                    got[side] += data
                    if not data:
                        ended.add(side)
            return len(ended) == 2

        turn_until(pair.loop, is_all)
        assert got[True] == outgoing[False]
        assert got[False] == outgoing[True]
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is (Outcome.CLIENT_CLOSED if client_ends_first else Outcome.NODE_CLOSED)
        assert pair.relay.client.received_bytes == len(outgoing[True])
        assert pair.relay.node.received_bytes == len(outgoing[False])


# Backpressure.


@SIDES
def test_a_reader_that_does_not_read_stops_the_other_from_being_read(mix: Mix, first: str) -> None:
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        one, other, leg, other_leg = ends_of(pair, first)
        sent = pair.stuff(one)
        assert sent < 64 << 20
        assert len(other_leg.pending or b"") in range(1, BUFFER_BYTES * 101 // 100)  # records have headers
        assert leg.is_readable
        # The other direction is not held up.
        pair.send(other, b"meanwhile")
        assert pair.expect(one, 9) == b"meanwhile"
        assert len(pair.expect(other, sent)) == sent
        assert other_leg.pending is None
        one.send(b"again")
        assert pair.expect(other, 5) == b"again"


@SIDES
def test_an_edge_that_comes_while_a_leg_may_not_read_is_not_lost(mix: Mix, first: str) -> None:
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        one, other, leg, other_leg = ends_of(pair, first)
        last_words = b"the last bytes, sent while nothing is read"
        sent = 0
        while other_leg.pending is None:
            pair.send(one, bytes(1 << 14))
            sent += 1 << 14
            settle(pair.loop)
        before = leg.received_bytes
        one.send(last_words)
        settle(pair.loop)
        assert leg.received_bytes == before
        pair.expect(other, sent)
        assert pair.expect(other, len(last_words)) == last_words


# Large and small.


SIZES = (1, 16_383, 16_384, 16_385, 5, 300_000, 262_144, 262_145, 36, 1 << 20, (1 << 20) + 1, 7, 65_546, 65_546, 2)


@SIDES
@pytest.mark.parametrize("has_pipes", [True, False, None], ids=["pipes", "no pipe left", "no splicing"])
def test_large_and_small_bursts_in_turns_are_whole(
    mix: Mix, first: str, has_pipes: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leg_module, "PIPES", pipes := Pipes())
    if has_pipes is False:
        monkeypatch.setattr(pipes, "_left", 0)
    if has_pipes is None:
        monkeypatch.setattr(os, "splice", refuse)
    with joined(mix) as pair:
        one, other, leg, _ = ends_of(pair, first)
        words = random.Random(4)
        for size in SIZES * 2:
            burst = words.randbytes(size)
            left, got = memoryview(burst), bytearray()
            while len(got) < size:
                with contextlib.suppress(BlockingIOError):
                    while left:
                        left = left[one.send(left) :]
                turn(pair.loop)
                got += receive(other) or b""
            assert got == burst
            pair.send(other, burst[:3])
            assert pair.expect(one, len(burst[:3])) == burst[:3]
        assert leg.received_bytes == 2 * sum(SIZES)
    pipes.close()


def refuse(*_: object, **__: object) -> int:
    raise OSError(errno.EPERM, "Operation not permitted")


@SIDES
@pytest.mark.parametrize("end", ["read", "eof", "reset", "stop"])
def test_what_stalls_in_a_pipe_is_kept_and_the_pipe_comes_back(
    first: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leg_module, "PIPES", pipes := Pipes())
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with joined(receive_buffer=SMALL, send_buffer=SMALL) as pair:
        one, other, leg, other_leg = ends_of(pair, first)
        words = random.Random(5).randbytes(8 << 20)
        left = memoryview(words)
        while not isinstance(other_leg.pending, Pipe):
            with contextlib.suppress(BlockingIOError):
                left = left[one.send(left) :]
            turn(pair.loop)
        sent = len(words) - len(left)
        assert 0 < len(other_leg.pending) <= BUFFER_BYTES
        match end:
            case "read":
                assert pair.expect(other, sent) == words[:sent]
                assert other_leg.pending is None
            case "eof":
                one.shutdown(socket.SHUT_WR)
                assert pair.expect_to_the_end(other) == words[:sent]
            case "reset":
                reset(other)
                turn_until(pair.loop, pair.outcome)
            case "stop":
                pair.relay.end(Outcome.STOPPED)
        assert leg.received_bytes <= sent
    pipes.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@SIDES
def test_urgent_bytes_stay_in_their_place_among_many_others(first: str) -> None:
    """splice(2) never takes them, and stops before them."""
    with joined() as pair:
        one, other, _, _ = ends_of(pair, first)
        words = random.Random(6).randbytes(400_000)
        for _ in range(3):
            got = bytearray()
            pair.send(one, words)
            assert isinstance(one, socket.socket)
            one.send(b"!", socket.MSG_OOB)
            pair.send(one, words)
            while len(got) <= 2 * len(words):
                got += pair.expect_some(other)
            assert got == words + b"!" + words


@SIDES
@pytest.mark.parametrize("size", [16_384, 16_384 + BUFFER_BYTES, 100_000])
def test_an_urgent_byte_between_much_and_the_end_is_not_taken_for_the_end(first: str, size: int) -> None:
    """At its mark splice(2) says 0, as it does at the end, once a FIN has come too."""
    with joined() as pair:
        one, other, _, _ = ends_of(pair, first)
        pair.send(one, b"a" * size)
        assert pair.expect(other, size) == b"a" * size
        settle(pair.loop)
        assert isinstance(one, socket.socket)
        one.send(b"!", socket.MSG_OOB)
        one.send(b"rest")
        one.shutdown(socket.SHUT_WR)
        assert pair.expect_to_the_end(other) == b"!rest"


# Turns.


def test_a_busy_connection_does_not_starve_a_quiet_one(mix: Mix) -> None:
    """However much a bulk sender has ready, a request that comes meanwhile is served after its fair share."""
    with joined(mix) as bulk, joined(mix) as quiet:
        # Both hang on one loop.
        quiet.loop.hand_over(quiet.relay.client.fd, quiet.relay.client)
        bulk_client, quiet_client = bulk.relay.client, quiet.relay.client
        for leg in (quiet.relay.client, quiet.relay.node):
            bulk.loop.watch(leg.fd, READ_WRITE, leg)
            leg.is_armed = True
        quiet.relay.loop = bulk.loop
        for _ in range(20):
            quiet.client.send(b"x")
            before_bulk, before_quiet = bulk_client.received_bytes, quiet_client.received_bytes
            refill(bulk)
            turn(bulk.loop)
            assert quiet_client.received_bytes == before_quiet + 1
            moved = bulk_client.received_bytes - before_bulk
            assert moved <= 2 * READS_PER_TURN * BUFFER_BYTES


def refill(pair: Joined) -> None:
    """Make room at the node and send what goes at the client, without a turn of the loop."""
    while receive(pair.node) is not None:
        pass
    try:
        while True:
            pair.client.send(bytes(1 << 20))
    except BlockingIOError:
        pass


def test_a_leg_queues_for_one_turn_only(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (leg_module, tlsleg):
        monkeypatch.setattr(module, "READS_PER_TURN", 1)
    with joined(mix) as pair:
        shares: list[int] = []
        for _ in range(30):
            before = pair.relay.client.received_bytes
            refill(pair)
            turn(pair.loop)
            shares.append(pair.relay.client.received_bytes - before)
            assert len(pair.loop._again) <= 1
        assert max(shares) <= 2 * BUFFER_BYTES


# Urgent data.


@SIDES
def test_urgent_data_stays_in_the_stream_and_stalls_nothing(first: str) -> None:
    with joined() as pair:
        one, other, _, _ = ends_of(pair, first)
        one.send(b"before ")
        one.send(b"!", socket.MSG_OOB)
        one.send(b" after")
        assert pair.expect(other, 14) == b"before ! after"
        one.send(b"more")
        assert pair.expect(other, 4) == b"more"
        one.send(b"?", socket.MSG_OOB)
        assert pair.expect(other, 1) == b"?"


@SIDES
def test_urgent_data_in_the_middle_of_a_long_stream_arrives_in_its_place(first: str) -> None:
    with joined() as pair:
        one, other, _, _ = ends_of(pair, first)
        expected = bytearray()
        got = bytearray()
        for number in range(40):
            chunk = bytes([65 + number % 26]) * 100_000
            one.send(b"!", socket.MSG_OOB)
            expected += b"!"
            pair.send(one, chunk)
            expected += chunk
            while (data := receive(other)) is not None:
                got += data
        got += pair.expect(other, len(expected) - len(got))
        assert got == expected


# Resets and last words.


@SIDES
def test_a_reset_is_passed_on_as_a_reset(mix: Mix, first: str) -> None:
    with joined(mix) as pair:
        one, other, _, _ = ends_of(pair, first)
        one.send(b"hello")
        pair.expect(other, 5)
        reset(one)
        assert assert_reset(pair, other) == b""
        assert pair.outcome() is (Outcome.CLIENT_RESET if first == "client" else Outcome.NODE_RESET)


@SIDES
def test_a_reset_right_after_bytes_does_not_swallow_them(mix: Mix, first: str) -> None:
    with joined(mix) as pair:
        one, other, _, _ = ends_of(pair, first)
        one.send(b"last words")
        reset(one)
        assert assert_reset(pair, other) == b"last words"


@SIDES
def test_a_reset_after_the_other_side_s_half_close_is_passed_on(mix: Mix, first: str) -> None:
    with joined(mix) as pair:
        one, other, _, _ = ends_of(pair, first)
        other.shutdown(socket.SHUT_WR)
        assert pair.expect_some(one) == b""
        reset(one)
        assert assert_reset(pair, other) == b""
        assert pair.outcome() is (Outcome.CLIENT_RESET if first == "client" else Outcome.NODE_RESET)


@SIDES
def test_a_reset_after_its_own_half_close_is_noticed_though_there_is_nothing_to_read(mix: Mix, first: str) -> None:
    with joined(mix) as pair:
        one, other, _, _ = ends_of(pair, first)
        one.shutdown(socket.SHUT_WR)
        assert pair.expect_some(other) == b""
        reset(one)
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is (Outcome.CLIENT_RESET if first == "client" else Outcome.NODE_RESET)
        # It has seen the end before: the kernel tells of a reset that follows by EPIPE.
        with pytest.raises(BrokenPipeError):
            other.send(b"x")


@SIDES
def test_an_end_and_a_reset_that_come_together_are_both_noticed(mix: Mix, first: str) -> None:
    """The reset's edge is used up by the read that finds the end: there will be no other."""
    with joined(mix) as pair:
        one, other, _, _ = ends_of(pair, first)
        one.send(b"last words")
        one.shutdown(socket.SHUT_WR)
        reset(one)
        got = bytearray()
        while data := pair.expect_some(other):
            got += data
        assert got == b"last words"
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is (Outcome.CLIENT_RESET if first == "client" else Outcome.NODE_RESET)


@SIDES
def test_a_reset_is_noticed_while_its_bytes_wait_for_a_slow_reader(mix: Mix, first: str) -> None:
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        one, other, _, other_leg = ends_of(pair, first)
        pair.stuff(one)
        assert other_leg.pending is not None
        reset(one)
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is (Outcome.CLIENT_RESET if first == "client" else Outcome.NODE_RESET)
        assert_reset(pair, other)


@SIDES
def test_a_reset_of_the_slow_reader_ends_both(mix: Mix, first: str) -> None:
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        one, other, _, other_leg = ends_of(pair, first)
        pair.stuff(one)
        assert other_leg.pending is not None
        reset(other)
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is (Outcome.NODE_RESET if first == "client" else Outcome.CLIENT_RESET)
        assert_reset(pair, one)


def test_what_a_node_says_before_it_closes_reaches_a_client_that_is_still_sending(mix: Mix) -> None:
    """Redis at maxclients: an error reply, then a close, whatever the client has sent."""
    with joined(mix) as pair:
        pair.client.send(b"*1\r\n$4\r\nPING\r\n")
        turn_until(pair.loop, lambda: pair.relay.client.received_bytes)
        pair.node.send(ERROR_REPLY)
        pair.node.close()  # with the PING unread: a reset
        pair.client.send(b"*1\r\n$4\r\nPING\r\n")
        assert assert_reset(pair, pair.client) == ERROR_REPLY
        assert pair.outcome() is Outcome.NODE_RESET


def test_what_a_node_says_before_it_closes_is_found_by_a_write_that_fails(mix: Mix) -> None:
    """The client's bytes are served first, and writing them fails: the node's reply still lies unread."""
    with joined(mix) as pair:
        pair.client.send(b"PING\r\n")
        pair.node.send(ERROR_REPLY)
        pair.node.shutdown(socket.SHUT_WR)
        reset(pair.node)
        pair.relay.client.ready(IN)
        assert pair.expect_some(pair.client) == ERROR_REPLY
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is Outcome.NODE_RESET


def test_last_words_of_a_node_that_a_client_reads_slowly_are_whole(mix: Mix) -> None:
    """The node has sent all and closed; its reset comes because the client went on sending."""
    with joined(mix, receive_buffer=SMALL, send_buffer=1 << 20) as pair:
        last_words = random.Random(2).randbytes(600_000)
        pair.send(pair.node, last_words)
        pair.node.close()
        settle(pair.loop)
        pair.client.send(b"PING\r\n")
        settle(pair.loop)
        assert pair.outcome() is None
        got = bytearray()
        while len(got) < len(last_words):
            got += pair.expect_some(pair.client)
        assert got == last_words
        assert pair.ending(pair.client) == ("cut" if mix.client and mix.node else "eof")
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is Outcome.NODE_RESET


def test_last_words_that_do_not_fit_anywhere_yet_are_whole(mix: Mix) -> None:
    """Some wait in the client's socket, some in the relay, some unread in the node's socket, when the reset comes."""
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        sent = pair.stuff(pair.node, is_all_sent=True)
        close_and_wait(pair.node, pair.relay.node)
        pair.client.send(b"PING\r\n")
        settle(pair.loop)
        assert pair.outcome() is None
        got = 0
        while got < sent:
            data = pair.expect_some(pair.client)
            assert data
            got += len(data)
        assert pair.ending(pair.client) == ("cut" if mix.client and mix.node else "eof")
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is Outcome.NODE_RESET


def test_last_words_that_nobody_reads_do_not_keep_a_relay_alive(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "LAST_WORDS_SECONDS", 0.2)
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        pair.stuff(pair.node, is_all_sent=True)
        close_and_wait(pair.node, pair.relay.node)
        pair.client.send(b"PING\r\n")
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is Outcome.NODE_RESET
        assert_reset(pair, pair.client)


def test_a_relay_that_waits_for_last_words_can_be_ended(mix: Mix) -> None:
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        pair.stuff(pair.node, is_all_sent=True)
        close_and_wait(pair.node, pair.relay.node)
        pair.client.send(b"PING\r\n")
        settle(pair.loop)
        assert pair.outcome() is None
        pair.relay.end(Outcome.STOPPED)
        assert pair.outcome() is Outcome.STOPPED
        turn(pair.loop, 15)
        assert len(pair.ends) == 1


def test_both_ends_reset_at_once(mix: Mix) -> None:
    with joined(mix) as pair:
        pair.client.send(b"x")
        pair.node.send(b"y")
        reset(pair.client)
        reset(pair.node)
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() in {Outcome.CLIENT_RESET, Outcome.NODE_RESET}


def test_both_ends_reset_with_bytes_waiting_both_ways(mix: Mix) -> None:
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        pair.stuff(pair.client)
        pair.stuff(pair.node)
        assert pair.relay.client.pending
        assert pair.relay.node.pending
        reset(pair.client)
        reset(pair.node)
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() in {Outcome.CLIENT_RESET, Outcome.NODE_RESET}


# Start and end.


def test_what_came_before_the_start_is_moved(mix: Mix) -> None:
    with joined(mix, is_started=False) as pair:
        pair.client.send(b"early")
        pair.client.shutdown(socket.SHUT_WR)
        pair.node.send(b"banner")
        turn(pair.loop, 2)
        pair.relay.start(client_events=EVERY, node_events=EVERY)
        assert pair.expect_to_the_end(pair.node) == b"early"
        assert pair.expect(pair.client, 6) == b"banner"
        assert pair.outcome() is None


def test_early_bytes_of_both_where_the_node_has_no_room_for_all() -> None:
    data = random.Random(7).randbytes(1 << 19)
    with joined(receive_buffer=4096, send_buffer=4096, is_started=False) as pair:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += pair.client.send(data[sent:])
        pair.node.send(b"hello")
        settle(pair.loop)
        pair.relay.start(client_events=IN, node_events=IN | OUT)
        assert pair.expect(pair.client, 5) == b"hello"
        assert pair.relay.node.pending is not None
        assert pair.expect(pair.node, sent) == data[:sent]


def test_an_end_that_came_before_the_start_ends_it(mix: Mix) -> None:
    with joined(mix, is_started=False) as pair:
        reset(pair.client)
        turn(pair.loop, 2)
        pair.relay.start(client_events=EVERY, node_events=EVERY)
        assert pair.outcome() is Outcome.CLIENT_RESET
        assert_reset(pair, pair.node)


def test_end_closes_both_sockets_once_and_says_so_once(mix: Mix) -> None:
    with joined(mix) as pair:
        pair.relay.end(Outcome.IDLE, "for once")
        pair.relay.end(Outcome.STOPPED)
        assert pair.ends == [(Outcome.IDLE, "for once")]
        assert (receive(pair.client), receive(pair.node)) == (b"", b"")
        assert pair.relay.client.sock.fileno() == pair.relay.node.sock.fileno() == -1


def test_nothing_of_a_relay_waits_for_the_collector(mix: Mix) -> None:
    def count() -> int:
        return sum(isinstance(one, (Leg, Relay)) for one in gc.get_objects())

    with joined(mix) as pair:
        one, other = socket.socketpair()
        gc.collect()
        gc.disable()
        try:
            before = count()
            pair.loop.watch(one.fileno(), READ_WRITE, Nobody())
            pair.loop.watch(other.fileno(), READ_WRITE, Nobody())
            Relay(pair.loop, one, other, lambda *_: None).end(Outcome.STOPPED)
            turn(pair.loop)
            assert count() == before
            pair.client.send(b"PING\r\n")
            pair.expect(pair.node, 6)
            pair.relay.end(Outcome.STOPPED)
            turn(pair.loop)
            pair.relay = Relay(pair.loop, *socket.socketpair(), lambda *_: None)
            assert count() == before
        finally:
            gc.enable()


@SIDES
def test_events_that_are_stale_do_no_harm(mix: Mix, first: str) -> None:
    with joined(mix) as pair:
        one, other, leg, _ = ends_of(pair, first)
        every = IN | OUT | ERROR
        leg.ready(every)
        one.send(b"x")
        assert pair.expect(other, 1) == b"x"
        pair.relay.end(Outcome.STOPPED)
        leg.ready(every)
        assert pair.ends == [(Outcome.STOPPED, "")]


@SIDES
def test_a_timeout_of_the_kernel_is_told_from_a_reset(mix: Mix, first: str) -> None:
    with joined(mix) as pair:
        _, other, leg, _ = ends_of(pair, first)
        pair.relay.leg_failed(leg, TimeoutError(110, "Connection timed out"))
        assert pair.ends == [
            (Outcome.CLIENT_TIMEOUT if first == "client" else Outcome.NODE_TIMEOUT, "Connection timed out")
        ]
        assert_reset(pair, other)


@SIDES
def test_a_peer_found_dead_ends_it(mix: Mix, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(mix) as pair:
        _, other, leg, _ = ends_of(pair, first)
        monkeypatch.setattr(liveness, "is_dead", lambda sock, _, __: (sock is leg.sock, False))
        pair.relay.check(60.0)
        assert pair.outcome() is (Outcome.CLIENT_TIMEOUT if first == "client" else Outcome.NODE_TIMEOUT)
        assert_reset(pair, other)


@SIDES
def test_an_unforeseen_error_ends_its_relay_alone_and_says_where(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with joined() as pair:
        ours, other, _, _ = ends_of(pair, first)

        def fail(_leg: Leg, _count: int) -> bool:
            raise ValueError("unforeseen")

        monkeypatch.setattr(Leg, "write", fail)
        ours.send(b"x")
        turn_until(pair.loop, lambda: pair.outcome() is not None)
        assert pair.outcome() is Outcome.INTERNAL
        assert pair.ends[0][1].startswith("ValueError: unforeseen (")
        assert_reset(pair, other)
