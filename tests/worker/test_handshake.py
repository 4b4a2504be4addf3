"""One handshake on a loop that is turned by hand, and how many of them may run."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from natproxy.model import HandshakeFailure
from natproxy.tls.contexts import node_context, server_context
from natproxy.worker import handshake as handshake_module
from natproxy.worker.handshake import CLEAR_TEXT_ANSWER, MOST_AT_ONCE, Handshake, Handshakes, TlsEnd
from natproxy.worker.loop import READ, READ_WRITE, Loop
from natproxy.worker.polling import ERROR, IN, OUT
from tests.standins.certificates import Authority
from tests.worker.hand import Nobody, reset, settle, tcp_pair, turn, turn_until
from tests.worker.tlspeer import (
    HOST,
    NODE,
    Cut,
    TlsPeer,
    Version,
    client_side,
    clients,
    node_side,
    server_tls,
    servers,
)

EACH_VERSION = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
RDHUP = select.EPOLLRDHUP
EACH_SIDE = pytest.mark.parametrize("side", ["client", "node"])


class Greeting:
    """A handshake under way with a peer of this test."""

    def __init__(
        self,
        side: str,
        context: ssl.SSLContext | None = None,
        *,
        loop: Loop | None = None,
        handshakes: Handshakes | None = None,
        seconds: float = 60.0,
        buffer: int | None = None,
        name: str = NODE,
        events: int = IN,
        said: bytes | None = None,
    ) -> None:
        self.loop = loop or Loop()
        self.owns_loop = loop is None
        self.handshakes = handshakes or Handshakes(self.loop)
        self.sock, self.theirs = tcp_pair(buffer, buffer)
        if said is not None:  # and no more, before anybody looks
            self.theirs.sendall(said)
            self.theirs.shutdown(socket.SHUT_WR)
        self.done: list[tuple[TlsEnd | None, HandshakeFailure | None, str]] = []
        is_node = side == "node"
        if context is None:
            context = node_context(servers().pem) if is_node else server_context(server_tls())
        self.loop.watch(self.sock.fileno(), READ_WRITE if is_node else READ, Nobody())
        if said is not None:
            turn(self.loop)  # the only edge that tells of it
        self.handshake = Handshake(
            self.loop,
            self.handshakes,
            self.sock,
            context,
            lambda end, failure, detail: self.done.append((end, failure, detail)),
            seconds=seconds,
            name=name if is_node else None,
            is_armed=is_node,
            events=events,
        )
        self.handshake.start()

    def result(self) -> tuple[HandshakeFailure | None, str]:
        """Wait until it is over; return why it failed. It is told once."""
        turn_until(self.loop, lambda: self.done)
        ((end, failure, detail),) = self.done
        assert end is not None or failure is not None
        return failure, detail

    def shake(self, peer: TlsPeer) -> TlsPeer:
        """Have this peer agree; raises what it finds wrong."""
        peer.on(self.theirs)
        turn_until(self.loop, peer.shake)
        return peer

    def end(self) -> TlsEnd:
        """Return natproxy's end, of a handshake that is done."""
        assert self.result() == (None, "")
        end = self.done[0][0]
        assert end is not None
        return end

    def said(self) -> bytes:
        """Return what natproxy said until it closed (which its owner does)."""
        self.sock.close()
        got = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := self.theirs.recv(1 << 16):
                got += data
        return bytes(got)

    def close(self) -> None:
        self.handshake.cancel()
        self.sock.close()
        self.theirs.close()
        if self.owns_loop:
            self.loop.close()


@pytest.fixture
def greet() -> Iterator[Callable[..., Greeting]]:
    """Begin handshakes; they are closed at the end."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: object, **values: object) -> Greeting:
            greeting = Greeting(*arguments, **values)  # type: ignore[arg-type]
            stack.callback(greeting.close)
            return greeting

        yield begin


def peer_of(side: str, version: Version | None = None) -> TlsPeer:
    return TlsPeer(client_side(version=version), HOST) if side == "client" else TlsPeer(node_side(version=version))


# Done.


@EACH_SIDE
@EACH_VERSION
def test_both_agree(greet: Callable[..., Greeting], side: str, version: Version) -> None:
    greeting = greet(side)
    peer = greeting.shake(peer_of(side, version))
    end = greeting.end()
    assert end.tls.version() == peer.tls.version() == version
    assert end.tls.compression() is None
    settle(greeting.loop)
    assert len(greeting.done) == 1


@EACH_SIDE
@EACH_VERSION
def test_flights_that_come_byte_by_byte_are_put_together(
    greet: Callable[..., Greeting], side: str, version: Version
) -> None:
    greeting = greet(side)
    peer = peer_of(side, version)
    done = False
    while not (done and greeting.done):
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
            done = True
        for byte in peer.outgoing.read():
            greeting.theirs.send(bytes([byte]))
            turn(greeting.loop)
        turn(greeting.loop)
        with contextlib.suppress(BlockingIOError):
            peer.incoming.write(greeting.theirs.recv(1 << 16))
    assert greeting.result() == (None, "")


@EACH_SIDE
@EACH_VERSION
def test_data_that_comes_with_the_last_flight_is_kept(
    greet: Callable[..., Greeting], side: str, version: Version
) -> None:
    greeting = greet(side)
    peer = peer_of(side, version)
    while True:
        try:
            peer.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            greeting.theirs.send(peer.outgoing.read())
            turn_until(greeting.loop, lambda: _take(greeting, peer))
    peer.tls.write(b"in the same segment")
    greeting.theirs.send(peer.outgoing.read())
    end = greeting.end()
    if not end.incoming.pending:  # it was done before this came: then it is in the socket still
        end.incoming.write(greeting.sock.recv(1 << 16))
    assert end.tls.read(100) == b"in the same segment"


def _take(greeting: Greeting, peer: TlsPeer) -> bool:
    try:
        return bool(peer.incoming.write(greeting.theirs.recv(1 << 16)))
    except BlockingIOError:
        return False


def test_an_end_that_comes_with_the_last_flight_is_told_to_whoever_goes_on(greet: Callable[..., Greeting]) -> None:
    """No other edge will tell of it."""
    greeting = greet("client")
    peer = peer_of("client", "TLSv1.3")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    greeting.theirs.send(peer.outgoing.read())
    turn_until(greeting.loop, lambda: _take(greeting, peer))
    peer.tls.do_handshake()
    assert not greeting.handshake.events & RDHUP
    greeting.theirs.sendall(peer.outgoing.read())
    greeting.theirs.shutdown(socket.SHUT_WR)
    greeting.end()
    assert greeting.handshake.events & RDHUP


@EACH_VERSION
def test_a_node_that_had_nothing_to_say_is_spoken_to_and_not_read_first(
    greet: Callable[..., Greeting], version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    greeting = greet("node", events=OUT)
    monkeypatch.setattr(handshake_module, "_RAW", None)  # nothing can be read
    greeting.handshake.step()
    assert not greeting.done
    monkeypatch.undo()
    greeting.shake(peer_of("node", version))
    assert greeting.result() == (None, "")


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x03\x01", b"-ERR max number of clients reached\r\n"])
def test_a_node_that_had_spoken_and_gone_before_it_was_spoken_to_is_not_waited_for(
    greet: Callable[..., Greeting], said: bytes
) -> None:
    greeting = greet("node", said=said, events=IN | OUT | RDHUP)
    failure, _ = greeting.result()
    assert failure in {HandshakeFailure.CLOSED, HandshakeFailure.PROTOCOL, HandshakeFailure.CLEAR_TEXT}


@EACH_VERSION
def test_a_first_flight_of_a_node_larger_than_a_read_is_taken_whole(
    greet: Callable[..., Greeting], version: Version
) -> None:
    """A certificate with thousands of names."""
    papers = servers().issue(NODE, dns=[NODE, *(f"node-{number:05d}.example.com" for number in range(2500))])
    greeting = greet("node")
    greeting.shake(TlsPeer(node_side(papers, version)))
    assert greeting.result() == (None, "")


@EACH_VERSION
def test_a_first_flight_larger_than_the_client_s_buffers_waits_for_room(
    greet: Callable[..., Greeting], version: Version
) -> None:
    papers = servers().issue(HOST, dns=[HOST, *(f"name-{number:05d}.example.com" for number in range(2500))])
    context = server_context(server_tls(certificate=papers.certificate, key=papers.key))
    greeting = greet("client", context, buffer=4096)
    greeting.shake(TlsPeer(client_side(version=version), HOST))
    assert greeting.result() == (None, "")


@pytest.mark.parametrize(
    ("side", "version", "last"), [("client", "TLSv1.2", 2), ("client", "TLSv1.3", 2), ("node", "TLSv1.3", 1)]
)
def test_a_last_flight_that_finds_no_room_is_finished_without_another_word_of_the_peer(
    greet: Callable[..., Greeting], side: str, version: Version, last: int
) -> None:
    """What comes next may be up to the other side, or the peer may have said all. ``last``: its flight."""
    for _ in range(20):
        greeting = greet(side, buffer=4096)
        filler = _come_to_a_full_socket(greeting, peer_of(side, version).on(greeting.theirs), side, last)
        if not greeting.done:  # else the kernel found room after all
            break
    assert not greeting.done
    greeting.theirs.shutdown(socket.SHUT_WR)
    while filler:
        with contextlib.suppress(BlockingIOError):
            filler -= len(greeting.theirs.recv(filler))
        turn(greeting.loop)
    assert greeting.result() == (None, "")


def _come_to_a_full_socket(greeting: Greeting, peer: TlsPeer, side: str, last: int) -> int:
    """Bring a handshake to where natproxy's last flight finds no room; return how many bytes fill the socket."""
    filler = 0
    if side == "node":
        turn_until(greeting.loop, lambda: _take(greeting, peer))
    for flight in range(1, last + 1):
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        if flight == last:
            filler = _fill_up(greeting)
        turn_until(greeting.loop, peer.flush)
        if flight < last:
            turn_until(greeting.loop, lambda: _take(greeting, peer))
    turn_until(greeting.loop, lambda: greeting.handshake._pending or greeting.done)
    return filler


def _fill_up(greeting: Greeting) -> int:
    """Leave natproxy's socket no room at all; return how much its peer has to read first."""
    total = _fill(greeting.sock)
    attempts = 0
    while attempts < 3:
        settle(greeting.loop)  # what is acknowledged makes room
        more = _fill(greeting.sock)
        total += more
        attempts = 0 if more else attempts + 1
    return total


def _fill(sock: socket.socket) -> int:
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += sock.send(bytes(1 << 8))
    return total


# What goes wrong.


@EACH_SIDE
@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
def test_an_end_that_comes_with_the_last_bytes_is_not_missed(
    greet: Callable[..., Greeting], side: str, size: int
) -> None:
    greeting = greet(side, seconds=3.0)
    settle(greeting.loop)
    if side == "node":
        turn_until(greeting.loop, lambda: _take(greeting, peer_of("node")))
    # Both before the loop looks: one edge tells of both.
    greeting.theirs.send(b"\x16\x03\x03\x01\x00\x02\x00\x00\xfc\x03\x03".ljust(20, b"x")[:size])
    greeting.theirs.shutdown(socket.SHUT_WR)
    failure, _ = greeting.result()
    assert failure in {HandshakeFailure.CLOSED, HandshakeFailure.PROTOCOL}


@EACH_SIDE
@pytest.mark.parametrize("moment", ["at once", "in the middle of its first flight"])
@pytest.mark.parametrize("how", ["EOF", "reset"])
def test_a_peer_that_goes_away_is_told_as_closed(
    greet: Callable[..., Greeting], side: str, moment: str, how: str
) -> None:
    greeting = greet(side)
    if side == "node":
        turn_until(greeting.loop, lambda: _take(greeting, peer_of("node")))
    if moment != "at once":
        peer = TlsPeer(client_side(), HOST)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        record = peer.outgoing.read() if side == "client" else b"\x16\x03\x03\x01\x00\x02\x00\x00\xfc"
        greeting.theirs.send(record[:-1])
        settle(greeting.loop)
    if how == "EOF":
        greeting.theirs.close()
    else:
        reset(greeting.theirs)
    failure, detail = greeting.result()
    assert failure is HandshakeFailure.CLOSED
    assert detail


@EACH_SIDE
def test_a_peer_that_says_nothing_has_its_time(greet: Callable[..., Greeting], side: str) -> None:
    details = {
        "client": "the client said nothing in time",
        "node": "the node did not finish in time; does it speak TLS?",
    }
    assert greet(side, seconds=0.1).result() == (HandshakeFailure.TIMEOUT, details[side])


def test_a_client_that_stops_in_the_middle_has_its_time(greet: Callable[..., Greeting]) -> None:
    greeting = greet("client", seconds=0.3)
    greeting.theirs.send(b"\x16\x03\x01\x02\x00\x01")
    assert greeting.result() == (HandshakeFailure.TIMEOUT, "the client said too little in time")


def test_a_client_that_never_reads_has_its_time_and_costs_no_memory(greet: Callable[..., Greeting]) -> None:
    papers = servers().issue(HOST, dns=[HOST, *(f"name-{number:05d}.example.com" for number in range(2500))])
    context = server_context(server_tls(certificate=papers.certificate, key=papers.key))
    greeting = greet("client", context, seconds=1.0, buffer=4096)
    peer = TlsPeer(client_side(), HOST).on(greeting.theirs)
    peer.shake()
    turn_until(greeting.loop, lambda: greeting.handshake._pending)

    def is_over() -> bool:
        _fill(greeting.theirs)
        return bool(greeting.done)

    turn_until(greeting.loop, is_over)
    assert greeting.result()[0] is HandshakeFailure.TIMEOUT
    assert greeting.handshake._end.incoming.pending <= 1 << 15
    assert len(greeting.handshake._pending) < 1 << 18


@pytest.mark.parametrize(
    ("said", "failure", "is_answered"),
    [
        (b"PING\r\n", HandshakeFailure.CLEAR_TEXT, True),
        (b"*1\r\n$4\r\nPING\r\n", HandshakeFailure.CLEAR_TEXT, True),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", HandshakeFailure.CLEAR_TEXT, True),
        (b"stats\r\n" + b"x" * 100_000, HandshakeFailure.CLEAR_TEXT, True),
        (b"\x80\x0b\x00\x00\x00\x00\x00\x00" + bytes(16), HandshakeFailure.CLEAR_TEXT, False),
        (b"\0\0\0\0", HandshakeFailure.GARBAGE, False),
        (b"\xff", HandshakeFailure.GARBAGE, False),
        (b"\x16\x03\x09\x00\x05hello", HandshakeFailure.GARBAGE, False),
        (b"\x16\x02", HandshakeFailure.GARBAGE, False),
    ],
)
@pytest.mark.parametrize("is_slow", [False, True])
def test_what_is_not_tls_is_told_and_text_answered(
    greet: Callable[..., Greeting], said: bytes, failure: HandshakeFailure, *, is_answered: bool, is_slow: bool
) -> None:
    greeting = greet("client")
    if is_slow:
        turn(greeting.loop, 2)
        for number in range(min(3, len(said))):
            greeting.theirs.send(said[number : number + 1])
            turn(greeting.loop, 2)
    else:
        greeting.theirs.send(said)
    assert greeting.result()[0] is failure
    answer = greeting.said()
    assert answer == (CLEAR_TEXT_ANSWER if is_answered else b"")


def test_garbage_after_a_good_first_record_is_broken_tls(greet: Callable[..., Greeting]) -> None:
    greeting = greet("client")
    greeting.theirs.send(b"\x16\x03\x01\x00\x10" + b"\xff" * 16 + b"GET / HTTP/1.1\r\n")
    failure, detail = greeting.result()
    assert failure is HandshakeFailure.PROTOCOL
    assert detail
    assert greeting.said()[:1] == b"\x15"  # an alert


def test_a_node_that_does_not_speak_tls_is_told(greet: Callable[..., Greeting]) -> None:
    greeting = greet("node")
    greeting.theirs.send(b"-ERR unknown command\r\n")
    assert greeting.result() == (HandshakeFailure.CLEAR_TEXT, "it does not speak TLS")


def test_a_client_that_knows_only_tls_1_0_is_told_by_an_alert(greet: Callable[..., Greeting]) -> None:
    context = client_side(weak=True)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    greeting = greet("client")
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        greeting.shake(TlsPeer(context, HOST))
    failure, detail = greeting.result()
    assert failure is HandshakeFailure.VERSION
    assert detail.startswith("no TLS version in common")


def test_a_client_without_a_cipher_in_common(greet: Callable[..., Greeting]) -> None:
    context = client_side(version="TLSv1.2", weak=True)
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    greeting = greet("client")
    with pytest.raises(ssl.SSLError):
        greeting.shake(TlsPeer(context, HOST))
    assert greeting.result()[0] is HandshakeFailure.CIPHER


@EACH_VERSION
def test_a_node_s_certificate_must_name_it(greet: Callable[..., Greeting], version: Version) -> None:
    greeting = greet("node", name="other.example.com")
    with contextlib.suppress(ssl.SSLError, Cut):
        greeting.shake(TlsPeer(node_side(version=version)))
    failure, detail = greeting.result()
    assert failure is HandshakeFailure.WRONG_NAME
    assert "other.example.com" in detail


@EACH_VERSION
def test_a_node_of_a_foreign_ca(greet: Callable[..., Greeting], version: Version) -> None:
    greeting = greet("node", node_context(Authority("Foreign").pem))
    with contextlib.suppress(ssl.SSLError, Cut):
        greeting.shake(TlsPeer(node_side(version=version)))
    assert greeting.result()[0] is HandshakeFailure.UNKNOWN_CA


@EACH_VERSION
@pytest.mark.parametrize("has_certificate", [False, True])
def test_a_client_whose_certificate_is_bad_is_told_as_that_though_it_has_gone_by_then(
    greet: Callable[..., Greeting], version: Version, *, has_certificate: bool
) -> None:
    """Its last flight and its reset come together: the alert finds nobody."""
    shown = Authority("Foreign").issue("dev1", usage="client") if has_certificate else None
    greeting = greet("client", server_context(server_tls(client_ca=clients().pem)))
    peer = TlsPeer(client_side(shown, version), HOST)
    flights = 0
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        flight = peer.outgoing.read()
        flights += 1
        greeting.theirs.send(flight)
        if flights == 2:
            break
        turn_until(greeting.loop, lambda: _take(greeting, peer))
    reset(greeting.theirs)
    failure, _ = greeting.result()
    assert failure is (HandshakeFailure.UNKNOWN_CA if has_certificate else HandshakeFailure.NO_CERTIFICATE)


def test_an_unforeseen_error_is_told(greet: Callable[..., Greeting], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_data: bytes) -> bool:
        raise ValueError("unforeseen")

    monkeypatch.setattr(handshake_module, "is_tls", fail)
    greeting = greet("client")
    greeting.theirs.send(b"\x16\x03\x01")
    failure, detail = greeting.result()
    assert failure is HandshakeFailure.INTERNAL
    assert detail.startswith("ValueError: unforeseen (")


def test_an_unforeseen_error_of_whoever_is_told_of_the_end_is_told_to_him() -> None:
    loop = Loop()
    sock, theirs = tcp_pair()
    told: list[HandshakeFailure | None] = []

    def on_done(_end: TlsEnd | None, failure: HandshakeFailure | None, _detail: str) -> None:
        told.append(failure)
        if failure is not HandshakeFailure.INTERNAL:
            raise ValueError("unforeseen")

    loop.watch(sock.fileno(), READ, Nobody())
    handshake = Handshake(loop, Handshakes(loop), sock, server_context(server_tls()), on_done, seconds=60.0)
    handshake.start()
    theirs.send(b"PING\r\n")
    turn_until(loop, lambda: len(told) == 2)
    assert told == [HandshakeFailure.CLEAR_TEXT, HandshakeFailure.INTERNAL]
    sock.close()
    theirs.close()
    loop.close()


# Cancelled.


@EACH_SIDE
def test_a_cancelled_handshake_tells_nothing_and_leaves_no_timer(greet: Callable[..., Greeting], side: str) -> None:
    greeting = greet(side, seconds=0.05)
    greeting.theirs.send(b"PING\r\n" if side == "client" else b"\x16\x03\x03")
    greeting.handshake.cancel()  # while it is queued
    settle(greeting.loop)
    for events in (IN, OUT, ERROR):
        greeting.handshake.ready(events)
    turn(greeting.loop, 20)
    assert not greeting.done
    assert not greeting.handshakes._waiting
    assert all(timer.callback is None for queue in greeting.loop._delays.values() for timer in queue)


# How many, and how much of a turn.


def test_a_few_clients_cannot_take_all() -> None:
    loop = Loop()
    handshakes = Handshakes(loop)
    for number in range(10):
        while handshakes.has_room(f"10.0.0.{number}"):
            handshakes.begun(f"10.0.0.{number}")
    assert MOST_AT_ONCE - handshakes.open > 80
    loop.close()


def test_limits_hold_in_all_and_for_each_client() -> None:
    loop = Loop()
    handshakes = Handshakes(loop)
    of_one = 0
    while handshakes.has_room("2001:db8::1"):
        handshakes.begun("2001:db8::1")
        of_one += 1
    assert of_one == MOST_AT_ONCE // 5 + 1  # then a quarter of the rest is as much as it has
    assert not handshakes.has_room("2001:db8::2")  # the same client's /64
    assert handshakes.has_room("2001:db8:0:1::1")
    for number in range(MOST_AT_ONCE - of_one):
        ip = f"10.0.{number // 200}.{number % 200}"
        assert handshakes.has_room(ip)
        handshakes.begun(ip)
    assert not handshakes.has_room("10.9.9.9")
    handshakes.ended("2001:db8::ffff")
    assert handshakes.has_room("10.9.9.9")
    for _ in range(of_one - 1):
        handshakes.ended("2001:db8::1")
    for number in range(MOST_AT_ONCE - of_one):
        handshakes.ended(f"10.0.{number // 200}.{number % 200}")
    assert handshakes.open == 0
    assert not handshakes._of_client
    loop.close()


def test_a_turn_carries_on_as_many_as_fit_its_slice() -> None:
    """The clock says that each costs 0.4 ms: the third passes the slice of 1 ms, and is the last of its turn."""
    loop = Loop()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0004
        return now

    handshakes = Handshakes(loop, clock)
    greetings = [Greeting("client", loop=loop, handshakes=handshakes) for _ in range(10)]
    for greeting in greetings:
        greeting.theirs.send(b"PING\r\n")
    for expected in (3, 6, 9, 10):
        loop.turn()
        assert sum(len(greeting.done) for greeting in greetings) == expected
    assert [greeting.result()[0] for greeting in greetings] == [HandshakeFailure.CLEAR_TEXT] * 10
    for greeting in greetings:
        greeting.close()
    loop.close()


def test_handshakes_take_turns_in_the_order_in_which_they_had_something_to_do() -> None:
    loop = Loop()
    handshakes = Handshakes(loop, clock=iter(range(1000)).__next__)
    order: list[int] = []
    greetings = [Greeting("client", loop=loop, handshakes=handshakes) for _ in range(5)]
    settle(loop)
    for number, greeting in enumerate(greetings):
        greeting.theirs.send(b"x")
        turn_until(loop, lambda: handshakes._waiting or greeting.done)  # noqa: B023
        if greeting.done:
            order.append(number)
    turn_until(loop, lambda: all(greeting.done for greeting in greetings))
    assert order == sorted(order)
    for greeting in greetings:
        greeting.close()
    loop.close()


def test_a_handshake_that_is_always_ready_does_not_keep_others_from_their_turn() -> None:
    loop = Loop()
    handshakes = Handshakes(loop, clock=iter(range(100_000)).__next__)  # one a turn
    busy = Greeting("client", loop=loop, handshakes=handshakes)
    other = Greeting("client", loop=loop, handshakes=handshakes)
    busy.theirs.send(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + bytes(1 << 15))
    other.theirs.send(b"PING\r\n")
    for _ in range(8):
        busy.handshake.ready(IN)
        loop.turn()
    assert other.done
    for greeting in (busy, other):
        greeting.close()
    loop.close()
