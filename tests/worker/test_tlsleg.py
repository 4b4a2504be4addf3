"""A leg that speaks TLS, by a loop that is turned by hand: its records, its ends, its memory."""

from __future__ import annotations

import contextlib
import random
import socket

import pytest

from natproxy.model import Outcome
from natproxy.worker import endings, tlsleg
from natproxy.worker import leg as leg_module
from natproxy.worker.handshake import TlsEnd
from natproxy.worker.leg import BUFFER_BYTES
from natproxy.worker.liveness import queued_bytes
from natproxy.worker.tlsleg import TlsLeg
from tests.worker.hand import Joined, Mix, joined, receive, reset, settle, turn, turn_until, unread_bytes
from tests.worker.tlspeer import Cut, Peer, TlsPeer, Version, scribbling_pair, tls_pair

SIDES = pytest.mark.parametrize("first", ["client", "node"])
EACH_VERSION = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
SMALL = 1 << 18
CLIENT_TLS = Mix("TLSv1.3")
NODE_TLS = Mix(None, "TLSv1.3")
BOTH_TLS = Mix("TLSv1.3", "TLSv1.2")
Ends = tuple[TlsEnd, TlsPeer]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait shortly where quiet peers are waited for."""
    monkeypatch.setattr(endings, "CLOSING_SECONDS", 0.2)
    monkeypatch.setattr(endings, "_CLOSING_LOOK_SECONDS", 0.02)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for quiet peers than any test takes."""
    monkeypatch.setattr(endings, "CLOSING_SECONDS", 600.0)


def tls_of(peer: Peer) -> TlsPeer:
    assert isinstance(peer, TlsPeer)
    return peer


def leg_of(leg: object) -> TlsLeg:
    assert isinstance(leg, TlsLeg)
    return leg


def clear_of(peer: Peer) -> socket.socket:
    assert isinstance(peer, socket.socket)
    return peer


def bio_bytes(leg: object) -> int:
    """What waits in a leg's BIOs."""
    found = leg_of(leg)
    return found._incoming.pending + found._outgoing.pending


# Records.


@EACH_VERSION
def test_records_that_come_byte_by_byte_are_put_together(version: Version) -> None:
    with joined(Mix(version, version)) as pair:
        for peer, other in ((pair.client, pair.node), (pair.node, pair.client)):
            records = tls_of(peer).seal(b"one") + tls_of(peer).seal(b"and another")
            for number in range(len(records)):
                tls_of(peer).plain.send(records[number : number + 1])
                turn(pair.loop)
            assert pair.expect(other, 14) == b"oneand another"
        assert pair.outcome() is None


@EACH_VERSION
def test_records_cut_anywhere_are_put_together(version: Version) -> None:
    with joined(Mix(version)) as pair:
        client = tls_of(pair.client)
        for cut in range(1, 100):
            records = client.seal(b"first") + client.seal(b"and second")
            client.plain.send(records[:cut])
            turn(pair.loop, 2)
            if records[cut:]:
                client.plain.send(records[cut:])
            assert pair.expect(pair.node, 15) == b"firstand second"


@EACH_VERSION
def test_thousands_of_tiny_records_arrive_in_order(version: Version) -> None:
    with joined(Mix(version)) as pair:
        client = tls_of(pair.client)
        payload = bytes(number % 251 for number in range(6000))
        records = b"".join(client.seal(payload[number : number + 1]) for number in range(len(payload)))
        waiting = memoryview(records)

        got = bytearray()

        def is_moved() -> bool:
            nonlocal waiting
            with contextlib.suppress(BlockingIOError):
                waiting = waiting[client.plain.send(waiting) :]
            while (data := receive(pair.node)) is not None:
                got.extend(data)
            return len(got) == len(payload)

        turn_until(pair.loop, is_moved)
        assert got == payload


def test_empty_records_are_no_end() -> None:
    end, peer, scribe = scribbling_pair()
    with joined(ends=((end, peer), None)) as pair:
        peer.plain.send(scribe.record(b"") * 1 + scribe.record(b"after it"))
        assert pair.expect(pair.node, 8) == b"after it"
        assert pair.outcome() is None


# Bytes that came with the handshake.


@pytest.mark.parametrize("ends", ["nothing", "client", "node"])
@EACH_VERSION
def test_what_came_with_the_handshake_of_both_is_moved(version: Version, ends: str) -> None:
    """Even where the other side has ended by then: saying goodbye to a node must not swallow what it has said."""
    made = tls_pair("client", version), tls_pair("node", version)
    for (end, peer), words in zip(made, (b"client's first", b"node's first"), strict=True):
        end.incoming.write(peer.seal(words))
    for (end, peer), side in zip(made, ("client", "node"), strict=True):
        if ends == side:
            end.incoming.write(peer.goodbye())
    with joined(ends=made) as pair:
        assert pair.expect(pair.node, 14) == b"client's first"
        assert pair.expect(pair.client, 12) == b"node's first"
        if ends != "nothing":
            assert pair.ending(pair.node if ends == "client" else pair.client) == "eof"
        assert pair.outcome() is None


@EACH_VERSION
def test_half_a_record_that_came_with_the_handshake_is_completed(version: Version) -> None:
    end, peer = tls_pair("client", version)
    record = peer.seal(b"a whole record")
    end.incoming.write(record[:20])
    with joined(ends=((end, peer), None)) as pair:
        settle(pair.loop)
        peer.plain.send(record[20:])
        assert pair.expect(pair.node, 14) == b"a whole record"


def test_what_came_with_the_handshake_waits_for_a_peer_that_does_not_read() -> None:
    end, peer = tls_pair("client")
    end.incoming.write(peer.seal(b"early"))
    with joined(ends=((end, peer), None), is_started=False, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        # Nothing fits any more before the first byte is decrypted.
        node = pair.relay.node.sock
        stuffed = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                stuffed += node.send(bytes(1 << 16))
        pair.relay.start(client_events=0, node_events=0)
        assert pair.relay.node.pending == b"early"
        peer.send(b" and later")
        pair.expect(pair.node, stuffed)
        assert pair.expect(pair.node, 15) == b"early and later"


# Records.


@EACH_VERSION
@SIDES
def test_records_that_come_together_are_all_moved_however_small(version: Version, first: str) -> None:
    with joined(Mix(version, version)) as pair:
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        peer = tls_of(one)
        for _ in range(3):
            one.send(b"usual")
            assert pair.expect(other, 5) == b"usual"
            peer.plain.send(peer.seal(b"a") + peer.seal(b"b"))
            assert pair.expect(other, 2) == b"ab"
            second, third = peer.seal(b"c"), peer.seal(b"third")
            peer.plain.send(second + third[:9])
            assert pair.expect(other, 1) == b"c"
            peer.plain.send(third[9:])
            assert pair.expect(other, 5) == b"third"


# Ends.


@SIDES
@pytest.mark.parametrize("mix", [CLIENT_TLS, NODE_TLS, BOTH_TLS], ids=str)
@pytest.mark.parametrize("how", ["close_notify and FIN", "close_notify", "FIN"])
def test_an_end_is_passed_on_as_what_it_is(mix: Mix, first: str, how: str) -> None:
    with joined(mix) as pair:
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        one.send(b"last words")
        match one, how:
            case TlsPeer(), "close_notify":
                one.plain.send(one.goodbye())
            case TlsPeer(), "FIN":
                one.cut()
            case _:
                one.shutdown(socket.SHUT_WR)
        assert pair.expect(other, 10) == b"last words"
        is_cut = how == "FIN" and mix is BOTH_TLS
        assert pair.ending(other) == ("cut" if is_cut else "eof")
        # The other direction is open.
        other.send(b"still here")
        assert pair.expect(one, 10) == b"still here"
        assert pair.outcome() is None
        other.shutdown(socket.SHUT_WR)
        turn_until(pair.loop, pair.outcome)
        assert pair.ends == [(Outcome.CLIENT_CLOSED if first == "client" else Outcome.NODE_CLOSED, "")]
        # A clear peer's end is never a cut, nor a TLS peer's that said goodbye.
        assert pair.ending(one) == "eof"


@SIDES
def test_a_cut_of_both_sides_is_a_cut_for_both(first: str) -> None:
    with joined(BOTH_TLS) as pair:
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        tls_of(one).cut()
        assert pair.ending(other) == "cut"
        tls_of(other).cut()
        assert pair.ending(one) == "cut"
        turn_until(pair.loop, pair.outcome)


@SIDES
def test_a_record_cut_in_the_middle_is_a_cut(first: str) -> None:
    with joined(BOTH_TLS) as pair:
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        tls_of(one).plain.send(tls_of(one).seal(b"whole") + tls_of(one).seal(b"never whole")[:-1])
        tls_of(one).plain.shutdown(socket.SHUT_WR)
        assert pair.expect(other, 5) == b"whole"
        assert pair.ending(other) == "cut"


@pytest.mark.parametrize("mix", [CLIENT_TLS, BOTH_TLS, Mix("TLSv1.2")], ids=str)
@pytest.mark.parametrize("has_client_ended", [False, True])
def test_a_goodbye_that_finds_no_room_is_said_all_the_same(mix: Mix, has_client_ended: bool) -> None:
    """The last byte fills the client's socket: close_notify has to wait for room, or the answer would look cut."""
    answer = _until_full(mix, _until_full(mix, [], 1000, has_client_ended), 1, has_client_ended)
    for more in ([], [1], [1, 1]):
        with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
            _fill(pair, answer + more, has_client_ended)
            pair.node.shutdown(socket.SHUT_WR)
            turn(pair.loop, 3)
            assert len(pair.expect(pair.client, sum(answer + more))) == sum(answer + more)
            assert pair.ending(pair.client) == "eof"
            if has_client_ended:
                turn_until(pair.loop, pair.outcome)


def _until_full(mix: Mix, before: list[int], count: int, has_client_ended: bool) -> list[int]:
    """Return what a node can say, on top of what it said before, until one more record does not fit."""
    with joined(mix, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        said = list(before)
        _fill(pair, said, has_client_ended)
        while pair.relay.client.pending is None:
            said.append(count)
            pair.node.send(bytes(count))
            _until_received(pair, sum(said))
        return said[:-1]


def _until_received(pair: Joined, count: int) -> None:
    relay = pair.relay
    turn_until(pair.loop, lambda: relay.node.received_bytes == count or relay.client.pending is not None)


def _fill(pair: Joined, answer: list[int], has_client_ended: bool) -> None:
    if has_client_ended:
        pair.client.shutdown(socket.SHUT_WR)
        assert pair.ending(pair.node) == "eof"
    total = 0
    for count in answer:
        total += pair.node.send(bytes(count))
        _until_received(pair, total)


def test_an_end_of_both_with_a_goodbye_on_its_way_waits_for_nothing_else() -> None:
    """CLOSING_SECONDS are not waited out: everybody has said all."""
    with joined(CLIENT_TLS, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        sent = pair.stuff(pair.node)
        pair.node.shutdown(socket.SHUT_WR)
        settle(pair.loop)
        pair.client.shutdown(socket.SHUT_WR)
        settle(pair.loop)
        assert len(pair.expect(pair.client, sent)) == sent
        assert pair.ending(pair.client) == "eof"
        assert pair.ending(pair.node) == "eof"
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is Outcome.CLIENT_CLOSED


@EACH_VERSION
@pytest.mark.parametrize("how", ["close_notify", "FIN"])
def test_a_client_that_is_told_of_the_end_is_heard_until_it_ends(version: Version, how: str) -> None:
    with joined(Mix(version)) as pair:
        pair.node.send(b"all")
        pair.node.shutdown(socket.SHUT_WR)
        assert pair.expect(pair.client, 3) == b"all"
        assert pair.ending(pair.client) == "eof"
        client = tls_of(pair.client)
        for number in range(20):
            client.send(b"%02d" % number)
            assert pair.expect(pair.node, 2) == b"%02d" % number
        if how == "FIN":
            client.cut()
        else:
            client.plain.send(client.goodbye())
        assert pair.ending(pair.node) == "eof"
        turn_until(pair.loop, pair.outcome)
        assert pair.ends == [(Outcome.NODE_CLOSED, "")]


@SIDES
@pytest.mark.usefixtures("quick")
def test_a_peer_that_is_told_of_the_end_and_stays_quiet_is_closed(first: str) -> None:
    mix = NODE_TLS if first == "client" else CLIENT_TLS
    with joined(mix) as pair:
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        one.send(b"all")
        one.shutdown(socket.SHUT_WR)
        assert pair.expect(other, 3) == b"all"
        assert pair.ending(other) == "eof"
        turn_until(pair.loop, pair.outcome)
        assert pair.ends == [(Outcome.CLIENT_CLOSED if first == "client" else Outcome.NODE_CLOSED, "")]
        assert pair.ending(one) == "eof"


@pytest.mark.usefixtures("quick")
def test_a_peer_that_reads_slowly_is_not_hurried() -> None:
    with joined(CLIENT_TLS, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        sent = pair.stuff(pair.node)
        pair.node.shutdown(socket.SHUT_WR)
        looks = 0

        def look() -> None:
            nonlocal looks
            looks += 1
            pair.loop.call_later(0.1, look)

        look()
        turn_until(pair.loop, lambda: looks > 6)
        assert pair.outcome() is None
        client, got = tls_of(pair.client), 0
        while got < sent:
            got += len(pair.expect_some(client))
        assert got == sent
        assert pair.ending(client) == "eof"
        turn_until(pair.loop, pair.outcome)
        assert pair.ends == [(Outcome.NODE_CLOSED, "")]


@pytest.mark.usefixtures("quick")
def test_a_peer_that_goes_on_sending_is_not_hurried() -> None:
    with joined(CLIENT_TLS) as pair:
        pair.node.shutdown(socket.SHUT_WR)
        assert pair.ending(pair.client) == "eof"
        sent = 0

        def say_more() -> None:
            nonlocal sent
            sent += pair.client.send(b"more")
            pair.loop.call_later(0.05, say_more)

        say_more()
        turn_until(pair.loop, lambda: sent >= 4 * 15)
        assert pair.outcome() is None
        assert pair.expect(pair.node, 60) == b"more" * 15


def test_an_order_to_end_in_the_middle_of_an_answer_is_no_goodbye() -> None:
    """A close_notify would say that this was all."""
    with joined(CLIENT_TLS, receive_buffer=SMALL, send_buffer=SMALL) as pair:
        sent = pair.stuff(pair.node)
        pair.relay.end(Outcome.STOPPED)
        got = 0
        with contextlib.suppress(Cut, ConnectionResetError):
            while data := pair.expect_some(pair.client):
                got += len(data)
            pytest.fail("a close_notify")
        assert got < sent


def test_an_order_to_end_a_quiet_connection_is_a_goodbye() -> None:
    with joined(BOTH_TLS) as pair:
        pair.relay.end(Outcome.STOPPED)
        assert (pair.ending(pair.client), pair.ending(pair.node)) == ("eof", "eof")


def test_bytes_after_a_goodbye_are_nobody_s() -> None:
    with joined(CLIENT_TLS) as pair:
        client = tls_of(pair.client)
        client.plain.send(client.goodbye() + b"\x17\x03\x03 garbage")
        assert pair.ending(pair.node) == "eof"
        pair.node.send(b"answer")
        assert pair.expect(pair.client, 6) == b"answer"


# Resets and last words.


@pytest.mark.parametrize("mix", [NODE_TLS, BOTH_TLS], ids=str)
def test_an_answer_that_is_whole_survives_the_reset_that_follows_it(mix: Mix) -> None:
    """It says close_notify, then closes with bytes of the client unread: a reset comes, and no FIN before it."""
    with joined(mix, receive_buffer=SMALL, send_buffer=1 << 20) as pair:
        answer = random.Random(2).randbytes(600_000)
        pair.send(pair.node, answer)
        node = tls_of(pair.node)
        turn_until(pair.loop, node.flush)
        node.plain.send(node.goodbye())
        turn_until(pair.loop, lambda: pair.relay.node.has_eof)
        reset(node)
        settle(pair.loop)
        got = bytearray()
        while len(got) < len(answer):
            got += pair.expect_some(pair.client)
        assert got == answer
        assert pair.ending(pair.client) == "eof"
        turn_until(pair.loop, pair.outcome)
        assert pair.outcome() is Outcome.NODE_RESET


def test_an_error_reply_before_a_close_reaches_a_client_that_is_still_sending() -> None:
    with joined(BOTH_TLS) as pair:
        pair.client.send(b"PING\r\n")
        turn_until(pair.loop, lambda: pair.relay.client.received_bytes)
        node = tls_of(pair.node)
        node.send(b"-ERR max number of clients reached\r\n")
        node.plain.send(node.goodbye())
        node.close()  # with the PING unread: a reset
        pair.client.send(b"PING\r\n")
        got = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := pair.expect_some(pair.client):
                got += data
        assert got == b"-ERR max number of clients reached\r\n"


# What is no TLS.


@SIDES
@EACH_VERSION
@pytest.mark.parametrize(
    "bad",
    [
        b"PING\r\n" * 10,
        bytes(100),
        b"\x17\x03\x03\x00\x20" + bytes(32),
        b"\x17\x03\x03\xff\xff",
        b"\x16\x03\x01\x00\x05hello",
        b"\x15\x03\x03\x00\x02\x02\x28",
    ],
    ids=["text", "zeros", "not authentic", "too long", "a hello", "an alert in the clear"],
)
def test_what_is_no_tls_ends_both_by_a_reset(version: Version, first: str, bad: bytes) -> None:
    with joined(Mix(version, version)) as pair:
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        one.send(b"good")
        tls_of(one).plain.send(bad)
        assert pair.expect(other, 4) == b"good"
        assert pair.ending(other) == "reset"
        (outcome, detail), *others = pair.ends
        assert (outcome, others) == (Outcome.CLIENT_TLS if first == "client" else Outcome.NODE_TLS, [])
        assert detail
        assert "_ssl" not in detail


def test_an_alert_in_mid_stream_is_told() -> None:
    end, peer, scribe = scribbling_pair()
    with joined(ends=((end, peer), None)) as pair:
        peer.plain.send(scribe.record(b"good") + scribe.record(bytes([2, 80]), 21))
        assert pair.expect(pair.node, 4) == b"good"
        assert pair.ending(pair.node) == "reset"
        assert pair.ends == [(Outcome.CLIENT_TLS, "it gave up with the alert internal error")]


# Key updates.


def test_a_key_update_is_answered() -> None:
    end, peer, scribe = scribbling_pair()
    with joined(ends=((end, peer), None)) as pair:
        for number in range(50):
            peer.plain.send(scribe.key_update() + scribe.record(b"%02d" % number))
            assert pair.expect(pair.node, 2) == b"%02d" % number
            pair.node.send(b"ok")
            # Only who has understood the answer to the update can read this.
            assert pair.expect(pair.client, 2) == b"ok"
        assert pair.outcome() is None


def test_a_key_update_after_the_end_was_said_does_no_harm() -> None:
    end, peer, scribe = scribbling_pair()
    with joined(ends=((end, peer), None)) as pair:
        pair.node.shutdown(socket.SHUT_WR)
        assert pair.ending(pair.client) == "eof"
        peer.plain.send(scribe.record(b"before ") + scribe.key_update() + scribe.record(b"after"))
        assert pair.expect(pair.node, 12) == b"before after"
        settle(pair.loop)
        assert pair.outcome() is None
        peer.plain.send(scribe.key_update() + scribe.record(bytes([1, 0]), 21))
        assert pair.ending(pair.node) == "eof"
        turn_until(pair.loop, pair.outcome)
        assert pair.ends == [(Outcome.NODE_CLOSED, "")]


def test_a_flood_of_key_updates_is_answered_only_so_far() -> None:
    end, peer, scribe = scribbling_pair()
    with joined(ends=((end, peer), None), receive_buffer=SMALL, send_buffer=SMALL) as pair:
        waiting = b""
        most = 0

        def is_over() -> bool:
            nonlocal waiting, most
            most = max(most, len(pair.relay.client.pending or b""))
            with contextlib.suppress(BlockingIOError, ConnectionResetError, BrokenPipeError):
                while True:
                    waiting = waiting or b"".join(scribe.key_update() for _ in range(200))
                    waiting = waiting[peer.plain.send(waiting) :]
            return pair.outcome() is not None

        turn_until(pair.loop, is_over, 60.0)
        assert pair.ends == [(Outcome.CLIENT_TLS, "asks for TLS key updates and does not read")]
        assert BUFFER_BYTES < most < 3 * BUFFER_BYTES
        assert pair.ending(pair.node) == "reset"


@pytest.mark.parametrize("what", ["key updates", "single bytes"])
def test_records_that_hold_little_are_read_little_by_little(what: str) -> None:
    """Thousands of them would take a turn so long that everybody else waits."""
    end, peer, scribe = scribbling_pair()
    with joined(ends=((end, peer), None)) as pair:
        records = b"".join(scribe.key_update() if what == "key updates" else scribe.record(b"x") for _ in range(3000))
        leg = pair.relay.client
        peer.plain.send(records)
        turn_until(pair.loop, lambda: not queued_bytes(peer.plain))
        while left := unread_bytes(leg.sock):
            assert left < len(records)
            turn(pair.loop)
            assert left - unread_bytes(leg.sock) <= tlsleg._CAREFUL_BYTES
            with contextlib.suppress(BlockingIOError):
                peer.recv(1)
        # Data is read in full again.
        waiting = b""

        def is_in_full() -> bool:
            nonlocal waiting
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting = waiting or scribe.record(bytes(1 << 14))
                    waiting = waiting[peer.plain.send(waiting) :]
            while receive(pair.node) is not None:
                pass
            return leg_of(leg)._share == tlsleg._RAW_BYTES

        turn_until(pair.loop, is_in_full)


# Memory.


@SIDES
@EACH_VERSION
def test_a_stalled_connection_holds_little_and_one_that_goes_on_nothing(version: Version, first: str) -> None:
    with joined(Mix(version, version), receive_buffer=SMALL, send_buffer=SMALL) as pair:
        one, other = (pair.client, pair.node) if first == "client" else (pair.node, pair.client)
        sent = pair.stuff(one)
        leg = pair.relay.node if first == "client" else pair.relay.client
        assert 0 < len(leg.pending or b"") < BUFFER_BYTES
        assert bio_bytes(pair.relay.client) == bio_bytes(pair.relay.node) == 0
        pair.expect(other, sent)
        settle(pair.loop)
        assert leg.pending is None
        assert bio_bytes(pair.relay.client) == bio_bytes(pair.relay.node) == 0


def test_a_burst_leaves_small_bios_behind() -> None:
    """A BIO never gives back what it once held: so it never holds much more than a record."""
    with joined(BOTH_TLS) as pair:
        sent = memoryview(bytes(8 << 20))
        got = 0

        def is_moved() -> bool:
            nonlocal sent, got
            with contextlib.suppress(BlockingIOError):
                while sent:
                    sent = sent[pair.client.send(sent) :]
            while (data := receive(pair.node)) is not None:
                got += len(data)
            tls_of(pair.client).flush()
            return got == 8 << 20

        turn_until(pair.loop, is_moved, 60.0)
        for leg in (leg_of(pair.relay.client), leg_of(pair.relay.node)):
            assert leg._incoming.__sizeof__() < 1000  # the object alone; what it holds is asked of it
            assert bio_bytes(leg) == 0


def test_a_busy_tls_connection_takes_its_share_of_a_turn_and_no_more() -> None:
    with joined(CLIENT_TLS) as pair:
        leg = pair.relay.client
        for _ in range(30):
            before = leg.received_bytes
            while receive(pair.node) is not None:
                pass
            with contextlib.suppress(BlockingIOError):
                while True:
                    pair.client.send(bytes(1 << 14))
            turn(pair.loop)
            assert len(pair.loop._again) <= 1
            assert leg.received_bytes - before <= 2 * leg_module.READS_PER_TURN * tlsleg._RAW_BYTES
