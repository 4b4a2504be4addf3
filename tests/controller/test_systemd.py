from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.controller.systemd import Notifier, inherited, take_environ


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Yield what NOTIFY_SOCKET says, and the socket behind it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@natproxy-test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1))
        receiver.settimeout(5)
        yield name, receiver


def test_every_message_arrives(systemd: tuple[str, socket.socket]) -> None:
    name, receiver = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name}, monotonic_ns=lambda: 12_345_678_999)
    assert notifier.is_active
    notifier.status("waiting for AWS")
    notifier.ready("serving")
    notifier.reloading()
    notifier.ready()
    notifier.alive()
    notifier.stopping("bye")
    assert [receiver.recv(4096).decode() for _ in range(6)] == [
        "STATUS=waiting for AWS",
        "READY=1\nSTATUS=serving",
        "RELOADING=1\nMONOTONIC_USEC=12345678",
        "READY=1",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=bye",
    ]


def test_a_ready_that_could_not_be_told_is_told_later(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.ready("serving")
    notifier.alive()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        notifier.alive()
        notifier.alive()
        assert [receiver.recv(4096) for _ in range(2)] == [b"WATCHDOG=1\nREADY=1", b"WATCHDOG=1"]


def test_the_reload_s_time_is_the_monotonic_clock_s(systemd: tuple[str, socket.socket]) -> None:
    name, receiver = systemd
    before = time.monotonic_ns() // 1000
    Notifier({"NOTIFY_SOCKET": name}).reloading()
    told = int(receiver.recv(4096).decode().rpartition("=")[2])
    assert before <= told <= time.monotonic_ns() // 1000


def test_a_status_cannot_say_anything_else(systemd: tuple[str, socket.socket]) -> None:
    name, receiver = systemd
    Notifier({"NOTIFY_SOCKET": name}).status("a\nREADY=1\r\nb \ud800")
    assert receiver.recv(4096) == b"STATUS=a READY=1 b ?"


def test_a_stop_says_how_long_it_may_take(systemd: tuple[str, socket.socket]) -> None:
    name, receiver = systemd
    Notifier({"NOTIFY_SOCKET": name}).stopping("bye", seconds=95.5)
    assert receiver.recv(4096) == b"STOPPING=1\nSTATUS=bye\nEXTEND_TIMEOUT_USEC=95500000"


def test_a_descriptor_is_kept_under_its_name_and_released(systemd: tuple[str, socket.socket]) -> None:
    name, receiver = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name})
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = listening.getsockname()
        assert notifier.keep("6379-0.0.0.0", listening.fileno())
    data, fds, _, _ = socket.recv_fds(receiver, 4096, 8)
    assert data == b"FDSTORE=1\nFDNAME=6379-0.0.0.0\nFDPOLL=0"
    (fd,) = fds
    with socket.socket(fileno=fd) as kept:
        assert kept.getsockname() == where
    assert notifier.release("6379-0.0.0.0")
    assert receiver.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=6379-0.0.0.0"


def test_a_barrier_is_passed_when_systemd_has_read_it(systemd: tuple[str, socket.socket]) -> None:
    name, receiver = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name})

    def read() -> None:
        data, fds, _, _ = socket.recv_fds(receiver, 4096, 8)
        assert (data, len(fds)) == (b"BARRIER=1", 1)
        os.close(fds[0])

    reader = threading.Thread(target=read)
    reader.start()
    assert notifier.barrier(20)
    reader.join()
    assert not notifier.barrier(0.01), "nobody reads it"


def test_descriptors_left_open_by_a_barrier_that_failed_are_none(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        notifier = Notifier(environ)
        assert not notifier.barrier(5)
        assert not notifier.keep("a", 0)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


PASSED = {"LISTEN_PID": "77", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (PASSED, ((3, "a"), (4, "b"))),
        ({**PASSED, "LISTEN_PID": "78"}, ()),
        ({"LISTEN_FDS": "2"}, ()),
        ({**PASSED, "LISTEN_FDS": "many"}, ()),
        ({**PASSED, "LISTEN_FDS": "-1"}, ()),
        ({**PASSED, "LISTEN_FDS": "0"}, ()),
        ({**PASSED, "LISTEN_FDNAMES": "a"}, ((3, ""), (4, ""))),
        ({"LISTEN_PID": "77", "LISTEN_FDS": "1"}, ((3, ""),)),
        ({}, ()),
    ],
)
def test_what_is_inherited_is_what_was_passed_to_this_process(
    environ: dict[str, str], expected: tuple[tuple[int, str], ...]
) -> None:
    assert inherited(environ, 77) == expected


def test_what_is_meant_for_this_process_is_taken_out_of_what_children_inherit() -> None:
    environ = {**PASSED, "NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "77", "FDSTORE": "5", "HOME": "/"}
    before = dict(environ)
    assert take_environ(environ) == before
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert not notifier.is_active
    assert notifier.watchdog_seconds is None
    notifier.ready("x")
    notifier.alive()


def test_a_systemd_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    Notifier({"NOTIFY_SOCKET": "/" + "x" * 300}).ready()


def test_a_systemd_that_does_not_read_delays_nobody_for_long(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(100_000):
                    filler.sendto(b"x", path)
            with pytest.raises(BlockingIOError):
                filler.sendto(b"x", path)
        began = time.monotonic()
        Notifier({"NOTIFY_SOCKET": path}).status("x")
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ, pid=77).watchdog_seconds == seconds
