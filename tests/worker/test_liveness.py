"""Peers that vanish are cut; peers that only read slowly never are."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from natproxy.model import Outcome
from natproxy.worker import liveness
from natproxy.worker.liveness import (
    STALLED_SILENCE_SECONDS,
    dead_after_seconds,
    is_dead,
    queued_bytes,
    set_up_listening,
)
from tests.network.namespaces import Namespaces, why_impossible
from tests.worker.hand import listen, receive, tcp_pair
from tests.worker.running import WORKER, Running, accept, connect, receive_all, receive_exactly

DEAD_SECONDS = 60.0


class Told:
    """A socket as TCP_INFO and SIOCOUTQ might describe it."""

    def __init__(
        self, *, unacked: int = 0, retransmits: int = 0, sent_ago: float = 0.0, heard_ago: float = 0.0
    ) -> None:
        self._info = bytearray(60)
        self._info[2] = retransmits
        struct.pack_into("=I", self._info, 24, unacked)
        struct.pack_into("=I", self._info, 44, int(sent_ago * 1000))
        struct.pack_into("=I", self._info, 56, int(heard_ago * 1000))
        self.user_timeout: int | None = None

    def getsockopt(self, level: int, option: int, length: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return bytes(self._info[:length])

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        self.user_timeout = value


CLOSED_WINDOW = {"sent_ago": 30.0}
DROPS_WHAT_IT_GETS = {"unacked": 3, "retransmits": 2, "sent_ago": 1.0, "heard_ago": 1.0}
VANISHED = {"unacked": 3, "retransmits": 2, "sent_ago": 0.5, "heard_ago": 2.0}
FLOWING = {"unacked": 3}


@pytest.mark.parametrize(
    ("queued", "told", "is_lifted", "verdict", "user_timeout"),
    [
        # Nothing waits: keepalive probes watch.
        (0, {"heard_ago": 1000.0}, False, (False, False), None),
        (0, {"heard_ago": 1000.0}, True, (False, False), 60_000),
        # Bytes flow.
        (9, FLOWING, False, (False, False), None),
        (9, FLOWING, True, (False, False), 60_000),
        # A slow reader, that answers.
        (9, CLOSED_WINDOW, False, (False, True), 0),
        (9, CLOSED_WINDOW, True, (False, True), None),
        (9, DROPS_WHAT_IT_GETS, False, (False, True), 0),
        (9, DROPS_WHAT_IT_GETS, True, (False, True), None),
        # Nobody answers: the kernel's timer is left to do its work.
        (9, VANISHED, False, (False, False), None),
        (9, {"heard_ago": 31.0}, False, (False, False), None),
        # A slow reader that then vanished.
        (9, {"heard_ago": STALLED_SILENCE_SECONDS - 1}, True, (False, True), None),
        (9, {"heard_ago": STALLED_SILENCE_SECONDS}, True, (True, True), None),
    ],
)
def test_tcp_info_tells_the_dead_from_the_slow(
    queued: int,
    told: dict[str, float],
    *,
    is_lifted: bool,
    verdict: tuple[bool, bool],
    user_timeout: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sock = Told(**told)  # type: ignore[arg-type]
    monkeypatch.setattr(liveness, "queued_bytes", lambda _: queued)
    assert is_dead(sock, is_lifted, DEAD_SECONDS) == verdict  # type: ignore[arg-type]
    assert sock.user_timeout == user_timeout


@pytest.mark.parametrize(
    ("keepalive", "dead"), [(30.0, 60.0), (1.0, 4.0), (0.2, 4.0), (10.0, 22.0), (32400.0, 64800.0)]
)
def test_a_peer_may_be_silent_for_the_idle_time_and_three_probes(keepalive: float, dead: float) -> None:
    assert dead_after_seconds(keepalive) == dead
    with socket.socket() as sock:
        set_up_listening(sock, keepalive)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, interval, count, user_timeout = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
        )
        assert idle + count * interval == dead
        assert user_timeout == dead * 1000


def test_what_is_accepted_has_its_listener_s_options() -> None:
    with listen() as listening:
        set_up_listening(listening, 17.0)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 17
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == dead_after_seconds(17.0) * 1000


def test_a_real_socket_whose_peer_does_not_read_is_lifted_and_set_again_once_it_has_read() -> None:
    ours, theirs = tcp_pair(1 << 16, 1 << 16)
    with ours, theirs:
        assert is_dead(ours, False, DEAD_SECONDS) == (False, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(1 << 16))
        assert queued_bytes(ours) > 0
        wait_until(lambda: is_dead(ours, False, DEAD_SECONDS) == (False, True))
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        wait_until(lambda: (receive(theirs), queued_bytes(ours))[1] == 0)
        assert is_dead(ours, True, DEAD_SECONDS) == (False, False)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def wait_until(is_so: object) -> None:
    """Wait until something is so."""
    assert callable(is_so)
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# With real time: dead after four seconds.


def stuff(sock: socket.socket) -> int:
    """Send until nothing has gone for a while; return how much went."""
    sock.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += sock.send(bytes(1 << 16))
    return sent


def test_a_reader_that_reads_nothing_for_long_but_lives_is_not_cut() -> None:
    with Running(is_process=True) as running, listen() as node:
        port = running.serve(node, keepalive_seconds=1.0)
        with connect(port) as to_slow_node, accept(node) as slow_node, connect(port) as slow_client:
            with accept(node) as to_slow_client:
                sent = stuff(to_slow_node), stuff(to_slow_client)
                start = time.monotonic()
                running.until(lambda: time.monotonic() - start > 1.5 * dead_after_seconds(1.0))
                assert running.counts(port).open == 2
                to_slow_node.shutdown(socket.SHUT_WR)
                assert len(receive_all(slow_node)) == sent[0]
            assert len(receive_all(slow_client)) == sent[1]


@pytest.fixture
def near_and_far() -> Iterator[Namespaces]:
    """Two namespaces with a cable between them, 10.97.0.1 here and 10.97.0.2 there."""
    if (reason := why_impossible()) is not None:
        pytest.skip(reason)
    namespaces = Namespaces(("near", "far"))
    try:
        namespaces.join("near", "eth0", "far", "eth0")
        for label, address in (("near", "10.97.0.1/24"), ("far", "10.97.0.2/24")):
            namespaces.ip(label, "address", "add", address, "dev", "eth0")
        yield namespaces
    finally:
        namespaces.close()


@pytest.mark.root
def test_peers_that_vanish_are_cut_whether_idle_or_busy(near_and_far: Namespaces) -> None:
    """Clients and nodes in a namespace from which no packet comes any more."""
    far = near_and_far
    command = ("ip", "netns", "exec", far.name("near"), *WORKER)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(Running(is_process=True, command=command))
        far_node = stack.enter_context(far.inside("far", lambda: listen("10.97.0.2")))
        near_node = stack.enter_context(listen_near(far))
        to_far = running.serve(far_node, sock=listen(), keepalive_seconds=1.0)
        from_far = running.serve(near_node, sock=far.inside("near", lambda: listen("10.97.0.1")), keepalive_seconds=1.0)
        to_nodes, to_clients = [], []
        for _ in range(2):
            to_nodes.append(stack.enter_context(connect(to_far)))
            echo(to_nodes[-1], stack.enter_context(accept(far_node)))
            client = stack.enter_context(far.connect("far", "10.97.0.1", from_far))
            to_clients.append(stack.enter_context(accept(near_node)))
            echo(client, to_clients[-1])
        far.run("far", ["nft", "-f", "-"], stdin=SILENCE)
        # One of each sends on, the other stays idle.
        to_nodes[0].sendall(b"x" * 1000)
        to_clients[0].sendall(b"x" * 1000)
        for port, outcome in ((to_far, Outcome.NODE_TIMEOUT), (from_far, Outcome.CLIENT_TIMEOUT)):
            for _ in range(2):
                assert running.finish(port).outcome == outcome
        for sock in (*to_nodes, *to_clients):
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


SILENCE = """
table inet vanished {
    chain input { type filter hook input priority 0; policy drop; }
    chain output { type filter hook output priority 0; policy drop; }
}
"""


def listen_near(namespaces: Namespaces) -> socket.socket:
    """Return a node beside the worker, on its loopback."""
    return namespaces.inside("near", listen)


def echo(client: socket.socket, inside: socket.socket) -> None:
    """Show that the two are joined."""
    client.sendall(b"ping")
    assert receive_exactly(inside, 4) == b"ping"
    inside.sendall(b"pong")
    assert receive_exactly(client, 4) == b"pong"


# On macOS.


class Socket:
    """A socket as macOS makes it; once it was reset it takes no option any more (EINVAL)."""

    def __init__(self, *, is_reset: bool = False) -> None:
        self.options: dict[tuple[int, int], int] = {}
        self._is_reset = is_reset

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, 0x1024)
        return 77

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if self._is_reset:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.options[level, option] = value


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(liveness, "_IS_LINUX", False)
    liveness._options.cache_clear()
    yield
    liveness._options.cache_clear()


@pytest.mark.usefixtures("macos")
def test_macos_is_told_the_same_times_by_its_own_names() -> None:
    sock = Socket()
    liveness.keep_alive(sock, 30.0)  # type: ignore[arg-type]
    assert sock.options == {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
        (socket.IPPROTO_TCP, 0x10): 30,
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 10,
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): liveness.KEEPALIVE_PROBES,
        (socket.IPPROTO_TCP, 0x80): 60,
    }
    assert queued_bytes(sock) == 77  # type: ignore[arg-type]
    assert is_dead(sock, False, DEAD_SECONDS) == (False, False)  # type: ignore[arg-type]
    liveness.acknowledge(sock)  # type: ignore[arg-type]
    assert len(sock.options) == 5


@pytest.mark.usefixtures("macos")
def test_a_socket_that_macos_has_reset_disturbs_nobody() -> None:
    liveness.keep_alive(Socket(is_reset=True), 30.0)  # type: ignore[arg-type]
