from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys

import pytest

from natproxy.connect.listening import Neighbours, TakenError, listen
from tests.network.namespaces import why_impossible


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


def busy(stack: contextlib.ExitStack) -> int:
    """Listen on ::1 with nobody who accepts, and no room for more: who asks has no answer."""
    theirs = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=0))
    address: tuple[str, int] = theirs.getsockname()[:2]
    for _ in range(3):
        waiting = stack.enter_context(socket.socket(socket.AF_INET6))
        waiting.setblocking(False)
        waiting.connect_ex(address)
    return address[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems answer for a full queue")
def test_who_is_too_busy_to_answer_has_the_port_until_the_time_for_asking_is_up() -> None:
    with contextlib.ExitStack() as stack:
        ports = [busy(stack) for _ in range(6)]
        with pytest.raises(TakenError):
            listen(ports[0])
        neighbours = Neighbours(0.5)
        assert [neighbours.listen_on(port) for port in ports] == [True] * 2 + [False] * 4


BEHIND_A_FIREWALL = """
import socket
from natproxy.connect.listening import Neighbours, TakenError, listen
neighbours = Neighbours()
sockets = [listen(port, neighbours) for port in range(20000, 20500)]
theirs = socket.create_server(("127.0.0.1", 30000))
try:
    listen(30000, neighbours)
except TakenError:
    print(len(sockets))
"""


@pytest.mark.skipif(
    why_impossible() is not None or not shutil.which("ip6tables") or not shutil.which("unshare"),
    reason="needs root, unshare and ip6tables",
)
def test_a_firewall_that_drops_what_is_asked_has_every_port_open_and_none_moved() -> None:
    drop = 'ip link set lo up && ip6tables -A INPUT -p tcp -j DROP && exec "$@"'
    words = ["unshare", "--net", "sh", "-c", drop, "sh", sys.executable, "-c", BEHIND_A_FIREWALL]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.stderr) == ("500\n", "")
