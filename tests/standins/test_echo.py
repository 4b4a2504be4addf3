from __future__ import annotations

import socket

import pytest

from tests.standins.echo import EchoNodes


def test_each_listener_echoes_counts_and_ends_by_itself() -> None:
    nodes = EchoNodes()
    nodes.start()
    try:
        nodes.open("127.0.0.1", 0)
        nodes.open("127.0.0.2", 0)
        first, second = nodes.where()
        with socket.create_connection(first, 5) as one, socket.create_connection(second, 5) as other:
            for connection in (one, other):
                connection.sendall(b"hello")
                assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
            assert (nodes.accepted(*first), nodes.accepted(*second)) == (1, 1)
            nodes.close(*first)
            assert one.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(first, 5)
            other.sendall(b"still")
            assert other.recv(5, socket.MSG_WAITALL) == b"still"
    finally:
        nodes.stop()
