"""What the loop asks the kernel by: the same masks by epoll and by kqueue."""

from __future__ import annotations

import errno
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from natproxy.worker.loop import READ, READ_WRITE
from natproxy.worker.polling import EDGE, ERROR, EXCLUSIVE, HUP, IN, OUT, PRI, RDHUP, KqueuePoller, Poller, new_poller
from tests.standins import kqueue
from tests.standins.kqueue import EV_OOBAND, KQ_EV_ADD, KQ_EV_EOF, KQ_FILTER_READ, KQ_FILTER_WRITE, kevent
from tests.worker.hand import reset

Pair = tuple[socket.socket, socket.socket]
_AS_ON_MACOS = (
    "tests/worker/test_loop.py",
    "tests/worker/test_inprocess.py",
    "tests/worker/test_dial.py",
    "tests/test_channel.py",
    "tests/worker/test_relay.py",
    "tests/worker/test_tls.py",
)
"""What shows that the data path works without what only Linux has ..."""
_ENOUGH = " and ".join(
    f"not {word}"
    for word in (
        *("splic", "in_a_pipe"),  # of which there is none
        *("many", "thousands", "bounded", "bulk", "in_turns", "long_stream", "interleaving", "every_order"),
        *("key_update", "is_dialled", "clear-TLSv1", "TLSv1.3-clear", "TLSv1.2", "along"),
    )
)
"""... and what of that would only take long."""


@pytest.fixture
def bsd(monkeypatch: pytest.MonkeyPatch) -> None:
    """``select`` has a kqueue."""
    for name, value in vars(kqueue).items():
        if name.startswith("KQ_") or name in {"kqueue", "kevent"}:
            monkeypatch.setattr(select, name, value, raising=False)


@pytest.fixture(params=["epoll", "kqueue"])
def poller(request: pytest.FixtureRequest, bsd: None) -> Iterator[Poller]:
    poller: Poller = select.epoll() if request.param == "epoll" else KqueuePoller()
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A TCP connection, both ends without waiting."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    yield ours, theirs
    ours.close()
    theirs.close()


def told(poller: Poller) -> dict[int, int]:
    """Return what is told at once."""
    events = poller.poll(0.0, 512)
    assert len(events) == len(dict(events)), "a descriptor is told of once"
    return dict(events)


def awaited(poller: Poller, fd: int, wanted: int) -> int:
    """Return all that is told of ``fd`` until it is all that is wanted."""
    seen = 0
    while seen & wanted != wanted:
        seen |= dict(poller.poll(10.0, 512))[fd]
    return seen


def test_linux_has_epoll_itself_and_nothing_in_between() -> None:
    assert new_poller is select.epoll
    assert (IN, OUT, PRI, ERROR) == (select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI, select.EPOLLERR)
    assert (HUP, RDHUP) == (select.EPOLLHUP, select.EPOLLRDHUP)
    assert (EDGE, EXCLUSIVE) == (select.EPOLLET, select.EPOLLEXCLUSIVE)


def test_an_edge_is_told_once(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    assert told(poller) == {}
    theirs.send(b"x")
    assert awaited(poller, ours.fileno(), IN) == IN
    assert told(poller) == {}
    theirs.send(b"y")
    assert awaited(poller, ours.fileno(), IN) == IN


def test_a_level_is_told_until_it_is_over(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), IN | EXCLUSIVE)
    theirs.send(b"x")
    for _ in range(3):
        assert awaited(poller, ours.fileno(), IN) == IN
    ours.recv(1)
    assert told(poller) == {}


def test_room_for_writing_is_told_while_it_is_asked_for(poller: Poller, pair: Pair) -> None:
    ours, _ = pair
    poller.register(ours.fileno(), IN)
    assert told(poller) == {}
    poller.modify(ours.fileno(), IN | OUT)
    assert told(poller) == told(poller) == {ours.fileno(): OUT}
    poller.modify(ours.fileno(), IN)
    assert told(poller) == {}


def test_what_is_true_already_is_told_after_a_change(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.send(b"x")
    awaited(poller, ours.fileno(), IN)
    poller.modify(ours.fileno(), READ_WRITE)
    assert told(poller) == {ours.fileno(): IN | OUT}


def test_a_full_socket_is_told_of_once_it_has_room(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ_WRITE)
    awaited(poller, ours.fileno(), OUT)
    sent = 0
    try:
        while True:
            sent += ours.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    theirs.setblocking(True)
    while sent:
        sent -= len(theirs.recv(1 << 20))
    assert awaited(poller, ours.fileno(), OUT) == OUT


def test_an_end_comes_with_what_was_sent_before(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.send(b"x")
    theirs.shutdown(socket.SHUT_WR)
    assert awaited(poller, ours.fileno(), IN | RDHUP) == IN | RDHUP


def test_a_reset_is_an_error(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ_WRITE)
    awaited(poller, ours.fileno(), OUT)
    reset(theirs)
    assert awaited(poller, ours.fileno(), ERROR | HUP) & IN
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def test_a_connection_that_is_refused_is_an_error(poller: Poller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(address) in {errno.EINPROGRESS, errno.ECONNREFUSED}
        poller.register(sock.fileno(), READ_WRITE)
        awaited(poller, sock.fileno(), ERROR | HUP | OUT)


def test_urgent_data_is_told(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    poller.register(ours.fileno(), READ)
    theirs.send(b"!", socket.MSG_OOB)
    assert awaited(poller, ours.fileno(), IN | PRI) == IN | PRI


def test_nothing_is_told_of_what_is_unregistered_and_it_can_come_back(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ_WRITE)
    poller.unregister(ours.fileno())
    theirs.send(b"x")
    assert told(poller) == {}
    poller.register(ours.fileno(), IN)
    assert awaited(poller, ours.fileno(), IN) == IN


def test_a_number_that_was_closed_belongs_to_whoever_gets_it_next(poller: Poller, pair: Pair) -> None:
    """Nobody tells the poller of the end: the kernel drops what is closed."""
    for _ in range(3):
        ours, theirs = socket.socketpair()
        poller.register(ours.fileno(), READ_WRITE)
        assert told(poller) == {ours.fileno(): OUT}
        ours.close()
        theirs.close()
        assert told(poller) == {}


def test_a_turn_without_events_ends_in_time(poller: Poller) -> None:
    assert poller.poll(0.001, 512) == []


# What no socket of this system does.


class Queue:
    """A kqueue that tells what it is told to tell."""

    def __init__(self, *events: kevent) -> None:
        self.events = list(events)

    def control(self, _changes: object, _most: int, _timeout: float | None = None) -> list[kevent]:
        return self.events

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("event", "mask"),
    [
        (kevent(7, KQ_FILTER_WRITE, KQ_EV_EOF), OUT),  # our own FIN
        (kevent(7, KQ_FILTER_WRITE, KQ_EV_EOF, errno.EPIPE), OUT | ERROR | HUP),
        (kevent(7, KQ_FILTER_READ, KQ_EV_EOF, errno.ETIMEDOUT), IN | ERROR | HUP),
        (kevent(7, KQ_FILTER_READ, KQ_EV_EOF, data=5), IN | RDHUP),
        (kevent(7, KQ_FILTER_READ, KQ_EV_ADD | EV_OOBAND, data=5), IN | PRI),
    ],
)
@pytest.mark.usefixtures("bsd")
def test_an_event_of_macos_is_told_as_epoll_would(event: kevent, mask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "kqueue", lambda: Queue(event))
    poller = KqueuePoller()
    assert told(poller) == {7: mask}
    poller.close()


def test_both_filters_of_a_descriptor_make_one_event(bsd: None, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(kevent(7, KQ_FILTER_READ), kevent(8, KQ_FILTER_WRITE), kevent(7, KQ_FILTER_WRITE))
    monkeypatch.setattr(select, "kqueue", lambda: queue)
    assert KqueuePoller().poll(-1.0, 512) == [(7, IN | OUT), (8, OUT)]


# The whole data path.


def run_as_on_macos(*arguments: str) -> str:
    """Run Python without what only Linux has; return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=110, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def test_the_data_path_needs_nothing_that_only_linux_has() -> None:
    said = run_as_on_macos(
        "-m", "pytest", "-q", "-p", "tests.standins.kqueue_only", "-p", "no:cacheprovider", *_AS_ON_MACOS, "-k", _ENOUGH
    )
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) >= 150, said[-500:]
    assert "failed" not in said


_IMPORTED = """
import sys
import tests.standins.kqueue_only
import importlib, pkgutil
import natproxy.tls, natproxy.wire
import natproxy.worker.inprocess
from natproxy.worker.polling import KqueuePoller, new_poller
assert new_poller is KqueuePoller
for package in (natproxy.tls, natproxy.wire):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
heavy = {"boto3", "botocore", "pydantic", "uvloop", "aiodns", "aiohttp", "prometheus_client", "natproxy.controller"}
print(sorted(heavy & set(sys.modules)))
"""


def test_what_a_laptop_imports_is_light_and_needs_no_linux() -> None:
    assert run_as_on_macos("-c", _IMPORTED) == "[]\n"
