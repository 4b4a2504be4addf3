from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from natproxy.controller.keeping import Keeping
from natproxy.controller.sockets import BindError, Sockets, kept_name
from natproxy.controller.systemd import Notifier
from tests.controller.samples import free_ports


def test_a_port_is_opened_on_every_address() -> None:
    (port,) = free_ports(1)
    sockets = Sockets(["127.0.0.1", "127.0.0.2"])
    opened = sockets.open(port)
    try:
        assert [sock.getsockname() for sock in opened] == [("127.0.0.1", port), ("127.0.0.2", port)]
        for address in ("127.0.0.1", "127.0.0.2"):
            socket.create_connection((address, port)).close()
    finally:
        sockets.close_all()


def test_a_port_is_bound_once_however_often_it_is_opened() -> None:
    (port,) = free_ports(1)
    sockets = Sockets(["127.0.0.1"])
    try:
        assert sockets.open(port) is sockets.open(port)
    finally:
        sockets.close_all()


def test_nobody_else_can_join_a_port() -> None:
    (port,) = free_ports(1)
    sockets = Sockets(["127.0.0.1"])
    sockets.open(port)
    try:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use") as caught:
                other.bind(("127.0.0.1", port))
        assert caught.value.errno == errno.EADDRINUSE
    finally:
        sockets.close_all()


def test_a_port_that_is_taken_on_one_address_is_opened_on_none() -> None:
    (port,) = free_ports(1)
    sockets = Sockets(["127.0.0.1", "127.0.0.2"])
    with socket.create_server(("127.0.0.2", port)):
        with pytest.raises(BindError) as caught:
            sockets.open(port)
        assert str(caught.value) == f"port {port} cannot be opened on 127.0.0.2: Address already in use"
        socket.create_server(("127.0.0.1", port)).close()  # nobody holds it
    sockets.open(port)  # and once it is free on both, it can be opened
    sockets.close_all()


def test_an_address_that_this_host_does_not_have_is_told() -> None:
    (port,) = free_ports(1)
    with pytest.raises(BindError, match=rf"port {port} cannot be opened on 192\.0\.2\.1: Cannot assign requested"):
        Sockets(["192.0.2.1"]).open(port)


def test_a_closed_port_is_free() -> None:
    (port,) = free_ports(1)
    sockets = Sockets(["127.0.0.1"])
    (first,) = sockets.open(port)
    sockets.close(port)
    assert first.fileno() == -1
    sockets.close(port)  # harmless
    socket.create_server(("127.0.0.1", port)).close()
    (second,) = sockets.open(port)
    assert second is not first
    sockets.close_all()
    assert second.fileno() == -1


def test_connections_of_an_earlier_life_do_not_hold_a_port() -> None:
    (port,) = free_ports(1)
    sockets = Sockets(["127.0.0.1"])
    (listening,) = sockets.open(port)
    with socket.create_connection(("127.0.0.1", port)) as client:
        listening.setblocking(True)
        accepted, _ = listening.accept()
        sockets.close(port)
        accepted.close()  # this side closes first: TIME_WAIT
        assert client.recv(1) == b""
    sockets.open(port)
    sockets.close_all()


@pytest.mark.parametrize(
    ("addresses", "reached"),
    [(["::"], ["127.0.0.1", "::1"]), (["0.0.0.0", "::"], ["127.0.0.1", "::1"]), (["::1"], ["::1"])],
)
def test_both_families_are_served(addresses: list[str], reached: list[str]) -> None:
    (port,) = free_ports(1)
    sockets = Sockets(addresses)
    opened = sockets.open(port)
    try:
        assert len(opened) == len(addresses)
        for address in reached:
            socket.create_connection((address, port)).close()
    finally:
        sockets.close_all()


# What an earlier life has left.


class Systemd:
    """Who keeps sockets: what it was told last is remembered, and taken out."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "notify"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.bind(str(self._path))

    def keeping(self) -> Keeping:
        return Keeping(Notifier({"NOTIFY_SOCKET": str(self._path)}))

    def heard(self) -> list[str]:
        told: list[str] = []
        while True:
            try:
                message = self._sock.recv(4096).decode()
            except BlockingIOError:
                return told
            verb, _, name = message.partition("\n")
            told.append(f"{verb.partition('=')[0]} {name.partition(chr(10))[0].partition('=')[2]}")

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path)
    yield made
    made.close()


def passed_on(*sockets: socket.socket) -> list[int]:
    """Return copies, as a new process gets them."""
    fds = [os.dup(sock.fileno()) for sock in sockets]
    for fd in fds:
        os.set_inheritable(fd, True)
    return fds


def listening(address: str, port: int = 0, *, v6_only: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6_only))
    sock.bind((address, port))
    sock.listen(1)
    return sock


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "::1"], ["::"], ["0.0.0.0", "::"]])
def test_a_kept_socket_is_adopted_as_it_would_have_been_bound(addresses: list[str], systemd: Systemd) -> None:
    (port,) = free_ports(1)
    before = Sockets(addresses, systemd.keeping())
    opened = before.open(port)
    names = [kept_name(address, port) for address in addresses]
    assert systemd.heard() == [f"FDSTORE {name}" for name in names]
    clients = [socket.create_connection(("::1" if ":" in addresses[-1] else "127.0.0.1", port)) for _ in range(3)]
    fds = passed_on(*opened)
    before.close_all()
    assert systemd.heard() == [], "a stop gives nothing up"
    after = Sockets(addresses, systemd.keeping())
    after.adopt(zip(fds, names, strict=True))
    adopted = after.open(port)
    try:
        after.close_unclaimed()
        assert [sock.fileno() for sock in adopted] == fds
        for sock in adopted:
            assert not sock.getblocking()
            assert not os.get_inheritable(sock.fileno())
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
        for client in clients:
            adopted[-1].accept()[0].close()
            client.close()
        assert systemd.heard() == [], "it has them already"
        after.close(port)
        assert systemd.heard() == [f"FDSTOREREMOVE {name}" for name in names]
    finally:
        after.close_all()


def with_one_of_two_adopted(systemd: Systemd) -> tuple[Sockets, int]:
    """Return sockets for two addresses, of which one is adopted, and its port."""
    sock = listening("127.0.0.1")
    port = sock.getsockname()[1]
    sockets = Sockets(["127.0.0.1", "127.0.0.2"], systemd.keeping())
    sockets.adopt(zip(passed_on(sock), [kept_name("127.0.0.1", port)], strict=True))
    sock.close()
    return sockets, port


def test_what_is_missing_beside_an_adopted_socket_is_bound_and_kept(systemd: Systemd) -> None:
    sockets, port = with_one_of_two_adopted(systemd)
    try:
        assert [one.getsockname()[0] for one in sockets.open(port)] == ["127.0.0.1", "127.0.0.2"]
        assert systemd.heard() == [f"FDSTORE {kept_name('127.0.0.2', port)}"]
    finally:
        sockets.close_all()


def test_a_port_that_cannot_be_opened_leaves_what_was_adopted_for_the_next_try(systemd: Systemd) -> None:
    sockets, port = with_one_of_two_adopted(systemd)
    try:
        with socket.create_server(("127.0.0.2", port)), pytest.raises(BindError, match=r"127\.0\.0\.2"):
            sockets.open(port)
        assert len(sockets.open(port)) == 2
    finally:
        sockets.close_all()


def test_what_nobody_asks_for_is_closed_and_given_up(systemd: Systemd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    sock = listening("127.0.0.1")
    port = sock.getsockname()[1]
    sockets = Sockets(["127.0.0.1"], systemd.keeping())
    sockets.adopt(zip(passed_on(sock), [kept_name("127.0.0.1", port)], strict=True))
    sock.close()
    sockets.close_unclaimed()
    assert systemd.heard() == [f"FDSTOREREMOVE {kept_name('127.0.0.1', port)}"]
    assert "kept socket is closed, no route wants it" in caplog.text
    socket.create_server(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_socket_whose_port_led_elsewhere_is_closed_and_bound_anew(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Notifier, "barrier", lambda *_: True)
    addresses = ["127.0.0.1", "127.0.0.2"]
    (port,) = free_ports(1)
    before = Sockets(addresses)
    fds = passed_on(*before.open(port))
    before.close_all()
    names = [kept_name("127.0.0.1", port, "a"), kept_name("127.0.0.2", port, "b")]
    clients = [socket.create_connection((address, port)) for address in addresses]
    after = Sockets(addresses, systemd.keeping())
    after.adopt(zip(fds, names, strict=True))
    first, second = after.open(port, "a")
    try:
        assert systemd.heard() == [
            f"FDSTOREREMOVE {names[1]}",
            f"FDSTORE {kept_name('127.0.0.2', port, 'a')}",
        ]
        first.accept()[0].close()
        with pytest.raises(ConnectionResetError):
            clients[1].recv(1)
        with pytest.raises(BlockingIOError):
            second.accept()
    finally:
        after.close_all()
        for client in clients:
            client.close()


def test_a_port_that_comes_to_lead_elsewhere_is_kept_under_another_name(systemd: Systemd) -> None:
    (port,) = free_ports(1)
    sockets = Sockets(["127.0.0.1"], systemd.keeping())
    a, b = (kept_name("127.0.0.1", port, destination) for destination in "ab")
    try:
        assert sockets.open(port, "a") == sockets.open(port, "b")
        sockets.close(port)
        assert systemd.heard() == [f"FDSTORE {a}", f"FDSTOREREMOVE {a}", f"FDSTORE {b}", f"FDSTOREREMOVE {b}"]
    finally:
        sockets.close_all()


def strange_udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def strange_silent() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def strange_shared() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def strange_unix() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("")  # an address of the kernel's choice
    sock.listen()
    return sock


@pytest.mark.parametrize(
    ("make", "addresses", "why"),
    [
        (strange_udp, ["127.0.0.1"], "is not a listening TCP socket"),
        (strange_silent, ["127.0.0.1"], "is not a listening TCP socket"),
        (strange_shared, ["127.0.0.1"], "lets other processes listen beside it"),
        (strange_unix, ["127.0.0.1"], "is not a listening TCP socket"),
        (lambda: listening("127.0.0.2"), ["127.0.0.1", "::1"], "which is not one of listen.address"),
        (lambda: listening("127.0.0.1"), ["0.0.0.0"], "which is not one of listen.address"),
        (lambda: listening("0.0.0.0"), ["::"], "which is not one of listen.address"),
        (lambda: listening("::"), ["0.0.0.0", "::"], "serves IPv4 on :: port"),
        (lambda: listening("::", v6_only=True), ["::"], "serves IPv4 on :: port"),
    ],
)
def test_what_is_not_what_would_have_been_bound_is_closed_said_and_given_up(
    make: Callable[[], socket.socket],
    addresses: list[str],
    why: str,
    systemd: Systemd,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sock = make()
    (fd,) = passed_on(sock)
    sock.close()
    sockets = Sockets(addresses, systemd.keeping())
    sockets.adopt([(fd, "strange")])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    assert systemd.heard() == ["FDSTOREREMOVE strange"]
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname) == ("kept descriptor is not taken over", "WARNING")
    told = record.natproxy_fields  # type: ignore[attr-defined]
    assert why in told["why"]
    assert told["name"] == "strange"


def test_what_is_no_socket_is_closed_and_what_is_not_open_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    gone = os.dup(fd)
    os.close(gone)
    Sockets(["127.0.0.1"]).adopt([(fd, "directory"), (gone, "gone")])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    whys = [record.natproxy_fields["why"] for record in caplog.records]  # type: ignore[attr-defined]
    assert whys == ["is not a socket", "is not open"]


def test_a_good_socket_under_another_name_is_kept_under_its_own(systemd: Systemd) -> None:
    sock = listening("127.0.0.1")
    port = sock.getsockname()[1]
    sockets = Sockets(["127.0.0.1"], systemd.keeping())
    sockets.adopt(zip(passed_on(sock, sock), ["stored", "stored"], strict=True))
    sock.close()
    try:
        assert systemd.heard() == ["FDSTOREREMOVE stored", f"FDSTORE {kept_name('127.0.0.1', port)}"]
        assert len(sockets.open(port)) == 1
    finally:
        sockets.close_all()


def test_names_are_fit_for_the_protocol_and_tell_sockets_apart() -> None:
    names = {kept_name(address, port) for address in ("0.0.0.0", "::", "::1", "2001:db8::1") for port in (6379, 637)}
    assert len(names) == 8
    assert len({kept_name("::", 6379, destination) for destination in ("", "a", "b")}) == 3
    assert all(name.isascii() and ":" not in name for name in names)
