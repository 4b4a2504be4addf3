"""One client's connection from accept to outcome, through a worker that runs in a thread."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from natproxy import messages
from natproxy.model import Outcome
from tests.wire.talk import MOVED, SLOTS, bulk, command
from tests.worker.hand import listen, reset, silent_node
from tests.worker.running import Running, accept, connect, is_closed, receive_all, receive_exactly

BULK_BYTES = 32 << 20


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A node that does not answer."""
    with silent_node() as (sock, _):
        yield sock


class Sender(threading.Thread):
    """Sends so many random bytes through a socket, then perhaps its end; keeps a checksum."""

    def __init__(self, sock: socket.socket, seed: int, count: int, *, is_ending: bool) -> None:
        super().__init__(name=f"sender {seed}")
        self._sock = sock
        self._dice = random.Random(seed)
        self._count = count
        self._is_ending = is_ending
        self.checksum = hashlib.sha256()
        self.start()

    def run(self) -> None:
        left = self._count
        while left:
            chunk = self._dice.randbytes(min(left, self._dice.randint(1, 1 << 19)))
            self.checksum.update(chunk)
            self._sock.sendall(chunk)
            left -= len(chunk)
        if self._is_ending:
            self._sock.shutdown(socket.SHUT_WR)


def checksum(sock: socket.socket, count: int) -> str:
    """Return the checksum of the next ``count`` bytes."""
    found = hashlib.sha256()
    while count:
        data = sock.recv(min(count, 1 << 18))
        assert data, f"EOF before {count} more bytes"
        found.update(data)
        count -= len(data)
    return found.hexdigest()


@pytest.mark.parametrize("first", ["client", "node"])
def test_tens_of_megabytes_both_ways_at_once_arrive_whole_and_then_the_end(
    running: Running, node: socket.socket, first: str
) -> None:
    port = running.serve(node)
    with connect(port) as client, accept(node) as inside:
        one, other = (client, inside) if first == "client" else (inside, client)
        there = Sender(one, 1, BULK_BYTES, is_ending=True)
        back = Sender(other, 2, BULK_BYTES, is_ending=False)
        found: list[str] = []
        reader = threading.Thread(target=lambda: found.append(checksum(one, BULK_BYTES)))
        reader.start()
        arrived = checksum(other, BULK_BYTES)
        there.join()
        assert arrived == there.checksum.hexdigest()
        assert other.recv(1) == b""
        reader.join()
        back.join()
        assert found == [back.checksum.hexdigest()]
        # Half closed, and the other direction still flows.
        other.sendall(b"still here")
        assert receive_exactly(one, 10) == b"still here"
        other.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b""
        expected = Outcome.CLIENT_CLOSED if first == "client" else Outcome.NODE_CLOSED
        assert running.outcome(port) == (expected, "")
    totals = running.until_ended(port, 1)
    extra = {"client": (0, 10), "node": (10, 0)}[first]
    assert (totals.client_bytes, totals.node_bytes) == (BULK_BYTES + extra[0], BULK_BYTES + extra[1])


def test_a_node_that_speaks_first_is_heard(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    for _ in range(20):
        with connect(port) as client, accept(node) as inside:
            inside.sendall(b"banner")
            assert receive_exactly(client, 6) == b"banner"


def test_a_node_that_answers_and_closes_at_once_is_heard(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    for _ in range(20):
        with connect(port) as client:
            with accept(node) as inside:
                inside.sendall(b"-ERR max number of clients reached\r\n")
            assert receive_all(client) == b"-ERR max number of clients reached\r\n"


def test_what_a_client_sends_before_the_node_is_connected_waits_for_it(running: Running) -> None:
    with silent_node() as (node, fillers):
        port = running.serve(node, connect_seconds=15.0)
        with connect(port) as client:
            client.sendall(b"early bytes")
            client.shutdown(socket.SHUT_WR)
            running.until(lambda: running.counts(port).open == 1)
            for filler in fillers:
                filler.close()
            data = b""
            while not data:  # the fillers', which are empty, come first
                with accept(node) as inside:
                    data = receive_all(inside)
                    inside.sendall(b"late answer")
            assert data == b"early bytes"
            assert receive_all(client) == b"late answer"
    assert running.outcome(port) == (Outcome.CLIENT_CLOSED, "")


def test_a_client_that_only_connects_and_closes_while_dialling_is_seen_by_the_node(
    running: Running, node: socket.socket
) -> None:
    port = running.serve(node)
    connect(port).close()
    with accept(node) as inside:
        assert inside.recv(1) == b""
    assert running.outcome(port) == (Outcome.CLIENT_CLOSED, "")


def test_a_client_that_resets_while_the_node_is_dialled_ends_the_dial(running: Running, silent: socket.socket) -> None:
    port = running.serve(silent, connect_seconds=60.0)
    client = connect(port)
    running.until(lambda: running.counts(port).open == 1)
    reset(client)
    assert running.outcome(port) == (Outcome.CLIENT_RESET, "while the node was being dialled")
    assert running.counts(port).open == 0
    assert not any(isinstance(message, messages.DialFailed) for message in running.said)


@pytest.mark.parametrize("side", ["client", "node"])
@pytest.mark.parametrize("moment", ["at once", "mid-stream", "after its own end", "after the other's end"])
def test_a_reset_at_any_moment_is_passed_on_as_a_reset(
    running: Running, node: socket.socket, side: str, moment: str
) -> None:
    port = running.serve(node)
    client, inside = connect(port), accept(node)
    one, other = (client, inside) if side == "client" else (inside, client)
    if moment == "mid-stream":
        one.sendall(b"x" * 1000)
        other.sendall(b"y" * 1000)
        receive_exactly(one, 1000)
        receive_exactly(other, 1000)
    elif moment == "after its own end":
        one.shutdown(socket.SHUT_WR)
        assert other.recv(1) == b""
    elif moment == "after the other's end":
        other.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b""
    reset(one)
    assert running.outcome(port)[0] == (Outcome.CLIENT_RESET if side == "client" else Outcome.NODE_RESET)
    # After an end has been received the kernel tells of a reset only to those who write.
    with pytest.raises(BrokenPipeError if moment == "after its own end" else ConnectionResetError):
        other.send(b"x") if moment == "after its own end" else other.recv(1)
    other.close()


def test_a_node_that_resets_right_after_it_accepted_resets_the_client(running: Running) -> None:
    """Whether the reset is found by the dial or by the relay."""
    with listen() as node:
        port = running.serve(node)
        for _ in range(50):
            with connect(port) as client:
                reset(accept(node))
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            assert running.outcome(port)[0] == Outcome.NODE_RESET


def test_a_node_that_refuses_is_told_of_once_a_second_and_so_is_its_recovery(running: Running) -> None:
    with listen() as node:
        where = node.getsockname()
    port = running.serve(where)
    for _ in range(20):
        with connect(port) as client:
            assert is_closed(client)
    totals = running.until_ended(port, 20)
    assert totals.ended == {Outcome.REFUSED: 20}
    assert (totals.opened, sum(totals.dials), totals.live) == (20, 0, {})
    failed = [message for message in running.said if isinstance(message, messages.DialFailed)]
    assert len(failed) in {1, 2, 3}
    assert failed[0] == messages.DialFailed(port, Outcome.REFUSED, f"127.0.0.1:{where[1]}: Connection refused")
    assert {running.finish(port).address for _ in range(20)} == {f"127.0.0.1:{where[1]}"}
    with listen() as node:
        running.update(port, node)
        with connect(port), accept(node):
            assert running.expect(messages.DialRecovered) == messages.DialRecovered(port)


def test_a_route_without_addresses_closes_its_clients(running: Running) -> None:
    port = running.serve()
    with connect(port) as client:
        assert is_closed(client)
    assert running.outcome(port) == (Outcome.NO_ADDRESS, "no address is known")
    assert running.expect(messages.DialFailed).outcome == Outcome.NO_ADDRESS


def test_a_dead_first_address_does_not_keep_clients_from_the_second(
    running: Running, silent: socket.socket, node: socket.socket
) -> None:
    port = running.serve(silent, node, connect_seconds=0.4)
    for _ in range(3):
        with connect(port), accept(node):
            pass
    totals = running.until_ended(port, 3)
    assert sum(totals.dials) == 3
    assert totals.dial_seconds >= 0.2  # the first waited for its half of the time
    assert {running.finish(port).address for _ in range(3)} == {f"127.0.0.1:{node.getsockname()[1]}"}


def test_every_finished_connection_is_told_with_what_it_moved(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    with connect(port) as client, accept(node) as inside:
        name = client.getsockname()
        client.sendall(b"12345")
        receive_exactly(inside, 5)
        inside.sendall(b"123")
        receive_exactly(client, 3)
    finished = running.finish(port)
    assert 0 < finished.seconds < 20
    assert finished == messages.FinishedConnection(
        port=port,
        cache="shop",
        kind="node",
        node="shop-001/0001",
        client=f"127.0.0.1:{name[1]}",
        address=f"127.0.0.1:{node.getsockname()[1]}",
        client_bytes=5,
        node_bytes=3,
        seconds=finished.seconds,
        outcome=finished.outcome,
    )


# Read along with.


def book(node: socket.socket, public_host: str = "cache.example.com", first: int = 7000) -> messages.Book:
    """Return a book of the addresses in SLOTS and MOVED, and of the node itself."""
    own_ip, own_port = node.getsockname()[:2]
    addresses = [(own_ip, own_port), ("10.0.1.230", 6379), ("10.0.1.231", 6379)]
    ports = tuple((ip, port, first + number) for number, (ip, port) in enumerate(addresses))
    return messages.Book(name="shop", ports=ports, public_host=public_host, public_ip="203.0.113.73", version=1)


def answer(client: socket.socket, inside: socket.socket, asked: bytes, answered: bytes, expected: bytes) -> None:
    """Ask and answer, and see that the client is told as expected."""
    client.sendall(asked)
    assert receive_exactly(inside, len(asked)) == asked
    inside.sendall(answered)
    assert receive_exactly(client, len(expected)) == expected


def moved_to(host: str, port: int) -> bytes:
    return b"-MOVED 3999 %b:%d\r\n" % (host.encode(), port)


def test_addresses_are_rewritten_by_the_book_of_the_port(running: Running, node: socket.socket) -> None:
    running.order(book(node))
    port = running.serve(node, rewrite="cluster", book="shop")
    with connect(port) as client, accept(node) as inside:
        answer(client, inside, command("GET", "x"), MOVED, moved_to("cache.example.com", 7002))
        expected = SLOTS.replace(b"10.0.1.230", b"cache.example.com").replace(b"$10\r\n", b"$17\r\n")
        expected = expected.replace(b":6379", b":7001")
        answer(client, inside, command("CLUSTER", "SLOTS"), SLOTS, expected)
        answer(client, inside, command("GET", "x"), bulk(MOVED), bulk(MOVED))
    assert running.finish(port).unread == ""
    totals = running.until_ended(port, 1)
    assert (totals.rewritten, totals.fallbacks) == ({"moved": 1, "cluster-slots": 1}, {})
    learnt = [message for message in running.said if isinstance(message, messages.Learnt)]
    assert learnt == [messages.Learnt("shop", (("10.0.1.230", 6379, "primary"),))]


@pytest.mark.parametrize("rewrite", ["cluster", "replication"])
def test_without_a_public_host_clients_are_told_the_address_that_they_dialled(
    running: Running, node: socket.socket, rewrite: str
) -> None:
    running.order(book(node, public_host=""))
    port = running.serve(node, rewrite=rewrite, book="shop")
    with connect(port) as client, accept(node) as inside:
        answer(client, inside, command("GET", "x"), MOVED, moved_to("127.0.0.1", 7002))


def test_a_port_that_is_not_read_along_with_changes_nothing(running: Running, node: socket.socket) -> None:
    running.order(book(node))
    port = running.serve(node, book="shop")
    with connect(port) as client, accept(node) as inside:
        answer(client, inside, command("GET", "x"), MOVED, MOVED)
    totals = running.until_ended(port, 1)
    assert (totals.rewritten, totals.fallbacks) == ({}, {})


def test_a_book_that_changes_is_gone_by_at_once(running: Running, node: socket.socket) -> None:
    running.order(book(node))
    port = running.serve(node, rewrite="cluster", book="shop")
    with connect(port) as client, accept(node) as inside:
        answer(client, inside, command("GET", "x"), MOVED, moved_to("cache.example.com", 7002))
        client.sendall(command("CLUSTER", "SLOTS"))
        receive_exactly(inside, len(command("CLUSTER", "SLOTS")))
        inside.sendall(SLOTS[:50])
        running.order(book(node, "other.example.com", 8000))
        inside.sendall(SLOTS[50:])
        told = receive_exactly(client, len(SLOTS) + len("other.example.com") - len("10.0.1.230"))
        assert b"other.example.com" in told
        assert b":8001" in told
        answer(client, inside, command("GET", "x"), MOVED, moved_to("other.example.com", 8002))


@pytest.mark.parametrize("change", [{"rewrite": "", "book": ""}, {"rewrite": "memcached", "book": "other"}])
def test_a_connection_is_read_along_with_as_it_began(
    running: Running, node: socket.socket, change: dict[str, str]
) -> None:
    """A reload that changes how the port is served is for those who come after it."""
    running.order(book(node))
    port = running.serve(node, rewrite="cluster", book="shop")
    with connect(port) as before, accept(node) as before_inside:
        answer(before, before_inside, command("GET", "x"), MOVED, moved_to("cache.example.com", 7002))
        running.update(port, node, **change)
        answer(before, before_inside, command("GET", "x"), MOVED, moved_to("cache.example.com", 7002))
        with connect(port) as after, accept(node) as after_inside:
            answer(after, after_inside, command("GET", "x"), MOVED, MOVED)


def test_why_a_connection_is_read_no_longer_is_counted_and_logged(running: Running, node: socket.socket) -> None:
    running.order(book(node))
    port = running.serve(node, rewrite="cluster", book="shop")
    with connect(port) as client, accept(node) as inside:
        answer(client, inside, command("MONITOR"), b"+OK\r\n", b"+OK\r\n")
        answer(client, inside, command("GET", "x"), MOVED, MOVED)
    assert running.finish(port).unread == "monitor"
    assert running.until_ended(port, 1).fallbacks == {"monitor": 1}


def test_what_a_reply_hints_at_is_told(running: Running, node: socket.socket) -> None:
    running.order(book(node))
    port = running.serve(node, rewrite="cluster", book="shop")
    own = node.getsockname()[1]
    with connect(port) as client, accept(node) as inside:
        back = b"-MOVED 1 127.0.0.1:%d\r\n" % own
        answer(client, inside, command("GET", "x"), back, b"-MOVED 1 cache.example.com:7000\r\n")
        assert running.expect(messages.Hint) == messages.Hint(port, "moved-to-self")
        readonly = b"-READONLY You can't write against a read only replica.\r\n"
        answer(client, inside, command("SET", "x", "y"), readonly, readonly)
        assert running.expect(messages.Hint) == messages.Hint(port, "read-only")
