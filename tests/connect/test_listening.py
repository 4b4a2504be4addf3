from __future__ import annotations

import socket

import pytest

from natproxy.connect.listening import TakenError, listen


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def test_a_free_port_is_listened_on_and_only_on_loopback(free: int) -> None:
    with listen(free) as sock:
        assert sock.getsockname() == ("127.0.0.1", free)
        assert not sock.getblocking()
        with socket.create_connection(("127.0.0.1", free), timeout=5):
            sock.setblocking(True)
            sock.accept()[0].close()
    with listen(free):  # also while the old connection lingers
        pass


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")],
)
def test_a_port_that_somebody_answers_on_is_taken(family: socket.AddressFamily, address: str) -> None:
    with socket.create_server((address, 0), family=family) as theirs:
        port = theirs.getsockname()[1]
        with pytest.raises(TakenError, match=f"somebody listens on port {port} here"):
            listen(port)


def test_a_port_that_is_bound_without_an_answer_is_taken(free: int) -> None:
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", free))
        with pytest.raises(TakenError, match=f"port {free} cannot be had here: Address already in use"):
            listen(free)
