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
