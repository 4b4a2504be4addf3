from __future__ import annotations

import errno
import socket

import pytest

from natproxy.controller.sockets import BindError, Sockets
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
