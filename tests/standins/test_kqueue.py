"""The kqueue that is made of epoll keeps to kqueue(2) where a poller leans on it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.standins.kqueue import (
    KQ_EV_ADD,
    KQ_EV_CLEAR,
    KQ_EV_DELETE,
    KQ_EV_EOF,
    KQ_FILTER_READ,
    KQ_FILTER_WRITE,
    kevent,
    kqueue,
)


@pytest.fixture
def queue() -> Iterator[kqueue]:
    queue = kqueue()
    yield queue
    queue.close()
    assert queue.closed


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def told(queue: kqueue) -> list[tuple[int, int]]:
    return [(event.ident, event.filter) for event in queue.control(None, 16, 0)]


def test_filters_are_told_of_apart(queue: kqueue, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    fd = ours.fileno()
    queue.control([kevent(fd, KQ_FILTER_READ, KQ_EV_ADD), kevent(fd, KQ_FILTER_WRITE, KQ_EV_ADD)], 0)
    assert told(queue) == [(fd, KQ_FILTER_WRITE)]
    theirs.send(b"four")
    (read, write) = queue.control(None, 16, 5)
    assert (read.filter, read.data, write.filter) == (KQ_FILTER_READ, 4, KQ_FILTER_WRITE)
    queue.control([kevent(fd, KQ_FILTER_WRITE, KQ_EV_DELETE)], 0)
    assert told(queue) == [(fd, KQ_FILTER_READ)]


def test_clear_tells_once_and_adding_it_again_once_more(
    queue: kqueue, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    add = kevent(ours.fileno(), KQ_FILTER_READ, KQ_EV_ADD | KQ_EV_CLEAR)
    queue.control([add], 0)
    theirs.send(b"x")
    assert told(queue) == [(ours.fileno(), KQ_FILTER_READ)]
    assert told(queue) == []
    queue.control([add], 0)
    assert told(queue) == [(ours.fileno(), KQ_FILTER_READ)]


def test_an_end_is_told_beside_what_is_left(queue: kqueue, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    queue.control([kevent(ours.fileno())], 0)
    theirs.send(b"last")
    theirs.close()
    (event,) = queue.control(None, 16, 5)
    assert (event.flags & KQ_EV_EOF, event.fflags, event.data) == (KQ_EV_EOF, 0, 4)


def test_a_connection_that_waits_to_be_accepted_is_told(queue: kqueue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        queue.control([kevent(server.fileno())], 0)
        (event,) = queue.control(None, 16, 5)
        assert (event.ident, event.data) == (server.fileno(), 1)


def test_what_is_not_there_cannot_be_deleted(queue: kqueue, pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(FileNotFoundError):
        queue.control([kevent(pair[0].fileno(), KQ_FILTER_READ, KQ_EV_DELETE)], 0)


@pytest.mark.parametrize(("most", "timeout"), [(-1, 0.0), (1, -1.0)])
def test_what_makes_no_sense_is_refused(queue: kqueue, most: int, timeout: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        queue.control(None, most, timeout)
