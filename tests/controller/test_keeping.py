from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.controller import keeping as keeping_module
from natproxy.controller.keeping import LETTING_GO_SECONDS, RETRY_SECONDS, Keeping
from natproxy.controller.systemd import Notifier


class Listener:
    """Who listens at NOTIFY_SOCKET, and need not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.keeping = Keeping(Notifier({"NOTIFY_SOCKET": str(path)}), clock=lambda: self.now)
        self._sock: socket.socket | None = None

    def come(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.bind(str(self.path))

    def leave(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            self.path.unlink()

    def heard(self) -> list[str]:
        """What was told since, each with the number of descriptors beside it."""
        assert self._sock is not None
        messages: list[str] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, 4096, 8)
            except BlockingIOError:
                return messages
            for fd in fds:
                os.close(fd)
            messages.append(f"{data.decode()} {len(fds)}".replace("\n", " "))


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path / "notify")
    listener.come()
    yield listener
    listener.leave()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


KEEP = "FDSTORE=1 FDNAME={} FDPOLL=0 1"
RELEASE = "FDSTOREREMOVE=1 FDNAME={} 0"


def test_what_is_kept_and_released_is_told_at_once(systemd: Listener, sock: socket.socket) -> None:
    systemd.keeping.keep("a", sock)
    systemd.keeping.release("a")
    assert systemd.heard() == [KEEP.format("a"), RELEASE.format("a")]
    systemd.keeping.flush()
    assert systemd.heard() == []


def test_what_could_not_be_told_is_told_later_in_order(systemd: Listener, sock: socket.socket) -> None:
    systemd.leave()
    systemd.keeping.keep("a", sock)
    systemd.keeping.release("b")
    systemd.keeping.keep("c", sock)
    systemd.come()
    systemd.now = RETRY_SECONDS - 0.1
    systemd.keeping.keep("d", sock)
    assert systemd.heard() == [], "it is left alone for a while"
    systemd.now = RETRY_SECONDS
    systemd.keeping.flush()
    assert systemd.heard() == [KEEP.format("a"), RELEASE.format("b"), KEEP.format("c"), KEEP.format("d")]


def test_a_socket_that_was_closed_before_it_could_be_told_of_is_not_told_of(systemd: Listener) -> None:
    systemd.leave()
    closed = socket.socket()
    systemd.keeping.keep("a", closed)
    closed.close()
    systemd.keeping.release("a")
    systemd.come()
    systemd.now = RETRY_SECONDS
    systemd.keeping.flush()
    assert systemd.heard() == [RELEASE.format("a")]


def test_without_systemd_nothing_is_kept_back(sock: socket.socket) -> None:
    keeping = Keeping(Notifier({}))
    keeping.keep("a", sock)
    keeping.release("a")
    assert not keeping._untold
    keeping.settle()


def test_settling_waits_only_where_something_was_released(systemd: Listener, sock: socket.socket) -> None:
    systemd.keeping.keep("a", sock)
    systemd.keeping.settle()
    assert systemd.heard() == [KEEP.format("a")]


def test_a_systemd_that_hangs_is_waited_for_once_and_then_left_alone(
    systemd: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping_module, "BARRIER_SECONDS", 0.01)
    systemd.keeping.release("a")
    for _ in range(3):
        systemd.keeping.settle()
    assert systemd.heard() == [RELEASE.format("a"), "BARRIER=1 1"]
    systemd.now = RETRY_SECONDS
    systemd.keeping.settle()
    assert systemd.heard() == ["BARRIER=1 1"], "it still may hold what was released"


def test_what_was_given_up_may_be_held_for_a_moment(systemd: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd.keeping.settle()
    assert not systemd.keeping.is_letting_go(), "nothing was given up"
    systemd.keeping.release("a")
    monkeypatch.setattr(Notifier, "barrier", lambda *_: True)
    systemd.keeping.settle()
    assert systemd.keeping.is_letting_go()
    systemd.now = LETTING_GO_SECONDS
    assert not systemd.keeping.is_letting_go()
