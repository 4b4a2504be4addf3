"""One connection to a node, by a loop that is turned by hand."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator, Sequence

import pytest

from natproxy.model import Address, Outcome
from natproxy.worker.dial import Dial, _outcome
from natproxy.worker.loop import READ_WRITE, Loop
from natproxy.worker.polling import ERROR, IN, OUT
from tests.worker.hand import listen, reset, settle, silent_node, turn, turn_until

REFUSING = Address("127.0.0.1", 1)
"""Nobody listens there (tcpmux)."""


class Dialling:
    """A dial and what it came to."""

    def __init__(self, loop: Loop, addresses: Sequence[Address], seconds: float = 5.0) -> None:
        self.loop = loop
        self.results: list[tuple[socket.socket | None, Address | None, Outcome, str]] = []
        self.dial = Dial(loop, addresses, seconds, lambda *result: self.results.append(result))
        self.dial.start()

    def done(self) -> tuple[socket.socket | None, Address | None, Outcome, str]:
        turn_until(self.loop, lambda: self.results)
        assert len(self.results) == 1
        return self.results[0]

    def sock(self) -> socket.socket:
        sock = self.done()[0]
        assert sock is not None
        return sock


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    loop = Loop()
    yield loop
    assert not loop._receivers
    loop.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that does not answer."""
    with silent_node() as (sock, _):
        yield address_of(sock)


def address_of(sock: socket.socket) -> Address:
    return Address(*sock.getsockname()[:2])


def forget(loop: Loop, sock: socket.socket) -> None:
    loop.forget(sock.fileno())
    sock.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_node_that_listens_is_reached(loop: Loop, address: str) -> None:
    with listen(address) as node:
        dialling = Dialling(loop, [address_of(node)])
        sock, reached, _, detail = dialling.done()
        assert sock is not None
        assert (reached, detail) == (address_of(node), "")
        assert sock.getpeername() == node.getsockname()
        assert dialling.dial.failed == []
        assert dialling.dial.events == OUT
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        node.accept()[0].close()
        forget(loop, sock)


def test_a_node_that_speaks_first_is_known_to_have_spoken(loop: Loop, node: socket.socket) -> None:
    dialling = Dialling(loop, [address_of(node)])
    with node.accept()[0] as inside:
        inside.send(b"banner")
        sock = dialling.sock()
        assert dialling.dial.events & IN
        assert sock.recv(100) == b"banner"
        forget(loop, sock)


def test_a_node_that_closes_at_once_was_reached(loop: Loop, node: socket.socket) -> None:
    dialling = Dialling(loop, [address_of(node)])
    with node.accept()[0] as inside:
        inside.send(b"-ERR max number of clients reached\r\n")
    sock = dialling.sock()
    assert dialling.dial.events & IN
    assert sock.recv(100) == b"-ERR max number of clients reached\r\n"
    assert sock.recv(100) == b""
    forget(loop, sock)


def test_a_node_that_resets_at_once_has_reset(loop: Loop, node: socket.socket) -> None:
    dialling = Dialling(loop, [address_of(node)])
    reset(node.accept()[0])
    sock, address, outcome, _ = dialling.done()
    assert (sock, address, outcome) == (None, address_of(node), Outcome.NODE_RESET)


def test_a_refusal_is_told(loop: Loop) -> None:
    sock, address, outcome, detail = Dialling(loop, [REFUSING]).done()
    assert (sock, address, outcome) == (None, REFUSING, Outcome.REFUSED)
    assert detail == "127.0.0.1:1: Connection refused"


def test_no_address_is_told_at_once(loop: Loop) -> None:
    dialling = Dialling(loop, [])
    assert dialling.results == [(None, None, Outcome.NO_ADDRESS, "no address is known")]


def test_what_is_no_address_is_unreachable(loop: Loop) -> None:
    dialling = Dialling(loop, [Address("::1%nosuchinterface", 1), Address("127.0.0.1", 70000)])
    sock, address, outcome, _ = dialling.done()
    assert (sock, address) == (None, Address("127.0.0.1", 70000))
    assert outcome is Outcome.NODE_UNREACHABLE
    assert len(dialling.dial.failed) == 2


def test_silence_is_a_timeout(loop: Loop, silent: Address) -> None:
    sock, address, outcome, detail = Dialling(loop, [silent], seconds=0.1).done()
    assert (sock, address, outcome) == (None, silent, Outcome.CONNECT_TIMEOUT)
    assert detail == f"{silent}: no answer"


def test_the_next_address_is_tried_after_a_refusal(loop: Loop, node: socket.socket) -> None:
    dialling = Dialling(loop, [REFUSING, address_of(node)])
    sock = dialling.sock()
    assert dialling.done()[1] == address_of(node)
    assert dialling.dial.failed == [REFUSING]
    node.accept()[0].close()
    forget(loop, sock)


def test_a_silent_first_address_leaves_time_for_the_next(loop: Loop, silent: Address, node: socket.socket) -> None:
    dialling = Dialling(loop, [silent, address_of(node)], seconds=0.3)
    sock = dialling.sock()
    assert dialling.dial.failed == [silent]
    node.accept()[0].close()
    forget(loop, sock)


def test_all_addresses_together_have_one_deadline(loop: Loop, silent: Address) -> None:
    addresses = [silent] * 6
    dialling = Dialling(loop, addresses, seconds=0.3)
    start = loop.now
    sock, _, outcome, _ = dialling.done()
    assert (sock, outcome) == (None, Outcome.CONNECT_TIMEOUT)
    assert len(dialling.dial.failed) in {3, 4}
    assert loop.now - start >= 0.29


def test_running_out_of_descriptors_blames_no_address(loop: Loop, node: socket.socket) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    fillers = [os.dup(0) for _ in range(highest + 1 - len(os.listdir("/proc/self/fd")) + 1)]  # noqa: PTH208
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, hard))
        dialling = Dialling(loop, [address_of(node), REFUSING])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    sock, address, outcome, detail = dialling.done()
    assert (sock, address, outcome) == (None, None, Outcome.NO_DESCRIPTORS)
    assert "Too many open files" in detail
    assert dialling.dial.failed == []


def test_a_cancelled_dial_says_nothing_and_leaves_nothing(loop: Loop, silent: Address) -> None:
    dialling = Dialling(loop, [silent], seconds=0.05)
    dialling.dial.cancel()
    turn(loop, 15)
    assert dialling.results == []


def test_a_node_that_had_accepted_sees_a_cancelled_dial_as_a_reset(loop: Loop, node: socket.socket) -> None:
    """A client that reset is passed on, however far the dial has come."""
    dialling = Dialling(loop, [address_of(node)])
    with node.accept()[0] as inside:
        dialling.dial.cancel()
        with pytest.raises(ConnectionResetError):
            inside.recv(1)


def test_stale_events_are_not_taken_for_an_answer(loop: Loop, silent: Address) -> None:
    dialling = Dialling(loop, [silent], seconds=0.1)
    for events in (IN, OUT, IN | OUT | ERROR):
        dialling.dial.ready(events)
    assert dialling.results == []
    assert dialling.done()[2] is Outcome.CONNECT_TIMEOUT
    dialling.dial.ready(OUT)
    assert len(dialling.results) == 1


def test_the_socket_stays_watched_until_it_is_handed_over(loop: Loop, node: socket.socket) -> None:
    class Noting:
        def __init__(self) -> None:
            self.events = 0

        def ready(self, events: int) -> None:
            self.events |= events

        def fail(self, error: Exception) -> None:
            raise error

    dialling = Dialling(loop, [address_of(node)])
    sock = dialling.sock()
    noting = Noting()
    loop.hand_over(sock.fileno(), noting)
    with node.accept()[0] as inside:
        inside.send(b"x")
        settle(loop)
        assert noting.events & IN
        assert noting.events & ~READ_WRITE == 0
    forget(loop, sock)


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.ECONNREFUSED, Outcome.REFUSED),
        (errno.ETIMEDOUT, Outcome.CONNECT_TIMEOUT),
        (errno.EHOSTUNREACH, Outcome.NODE_UNREACHABLE),
        (errno.ENETUNREACH, Outcome.NODE_UNREACHABLE),
        (errno.EADDRNOTAVAIL, Outcome.NODE_UNREACHABLE),
        (errno.ECONNRESET, Outcome.NODE_RESET),
        (errno.EMFILE, Outcome.NO_DESCRIPTORS),
        (errno.ENOMEM, Outcome.NO_DESCRIPTORS),
    ],
)
def test_each_error_has_its_outcome(number: int, outcome: Outcome) -> None:
    assert _outcome(number) is outcome
