"""A loop that is turned by hand, and TCP connections over loopback: the data path without a thread. I/O: TCP.

The connections may speak TLS: then a peer is a ``tlspeer.TlsPeer``, which is used as the socket it has.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from natproxy.model import Outcome
from natproxy.wire.redis import RedisRewriter
from natproxy.wire.rewriter import Rewriter
from natproxy.worker.handshake import TlsEnd
from natproxy.worker.leg import Leg
from natproxy.worker.liveness import queued_bytes, set_up_listening
from natproxy.worker.loop import READ, READ_WRITE, Loop
from natproxy.worker.relay import Relay
from tests.wire.talk import Notes, view
from tests.worker.tlspeer import Cut, Peer, TlsPeer, Version, tls_pair

SECONDS = 20.0
"""How long anything may take before a test fails."""
TICK_SECONDS = 0.005


@dataclass(frozen=True)
class Mix:
    """Which legs of a relay speak TLS, and which version of it; None = a leg is clear."""

    client: Version | None = None
    node: Version | None = None
    reads_along: bool = False
    """A rewriter has them; of what is no Redis it changes nothing."""

    def __str__(self) -> str:
        return f"{self.client or 'clear'}-{self.node or 'clear'}{' read along' if self.reads_along else ''}"


CLEAR = Mix()
MIXES = (CLEAR, Mix("TLSv1.3"), Mix(None, "TLSv1.2"), Mix("TLSv1.2", "TLSv1.3"))
"""All four of clear and TLS, and each version in each place."""
READ_ALONG = (Mix(reads_along=True), Mix("TLSv1.2", "TLSv1.3", reads_along=True))


class Nobody:
    """Receives the events of a socket that is not handed over yet."""

    def ready(self, events: int) -> None:
        """Ignore them."""

    def fail(self, error: Exception) -> None:
        """Have the test fail."""
        raise error


def turn_until(loop: Loop, is_so: Callable[[], object], seconds: float = SECONDS) -> None:
    """Turn the loop until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        turn(loop)


def turn(loop: Loop, times: int = 1) -> None:
    """Turn the loop, a moment at most for each turn."""
    for _ in range(times):
        timer = loop.call_later(TICK_SECONDS, lambda: None)
        loop.turn()
        timer.cancel()


def settle(loop: Loop) -> None:
    """Turn the loop until nothing happens for a while."""
    quiet = 0
    while quiet < 3:
        timer = loop.call_later(TICK_SECONDS, lambda: None)
        loop.turn()
        quiet = quiet + 1 if timer.callback is None else 0
        timer.cancel()


def listen(address: str = "127.0.0.1", backlog: int = 512) -> socket.socket:
    """Return a listening socket on any free port, for any test's node."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, 0))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    sock.settimeout(SECONDS)
    return sock


@contextlib.contextmanager
def silent_node() -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """Yield a node that does not answer, and the connections that fill its queue: the kernel drops who else knocks.

    Once these are closed, and accepted, it answers whoever knocks again.
    """
    with listen(backlog=0) as sock, contextlib.ExitStack() as stack:
        fillers = []
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
            fillers.append(filler)
        yield sock, fillers


def tcp_pair(receive_buffer: int | None = None, send_buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Return (the relay's end, the peer's end) of a TCP connection; what the peer receives with, and both send with."""
    with listen() as listening:
        theirs = socket.socket()
        if send_buffer is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if receive_buffer is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        theirs.connect(listening.getsockname())
        ours, _ = listening.accept()
    if send_buffer is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    ours.setblocking(False)
    theirs.setblocking(False)
    set_up_listening(ours, 30.0)
    return ours, theirs


def close_and_wait(sock: Peer, leg: Leg) -> None:
    """Close a socket, and wait until the leg's socket has heard of it: the kernel may pace what it sends."""
    sock.close()
    poller = select.poll()
    poller.register(leg.sock, select.POLLRDHUP)
    assert poller.poll(SECONDS * 1000)


def reset(sock: Peer) -> None:
    """Close a socket so that its peer sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def receive(sock: Peer, most: int = 1 << 20) -> bytes | None:
    """Return what has arrived at a non-blocking socket, b"" at EOF, None where nothing has."""
    try:
        return sock.recv(most)
    except BlockingIOError:
        return None


def unread_bytes(sock: socket.socket) -> int:
    """Return how much has arrived there and waits in the kernel."""
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]


class Joined:
    """A client and a node whose connections a relay joins, and the loop that it hangs on."""

    def __init__(
        self,
        mix: Mix = CLEAR,
        *,
        receive_buffer: int | None = None,
        send_buffer: int | None = None,
        is_started: bool = True,
        ends: tuple[tuple[TlsEnd, TlsPeer] | None, tuple[TlsEnd, TlsPeer] | None] | None = None,
        rewriter: Rewriter | None = None,
    ) -> None:
        self.loop = Loop()
        client_inside, client = tcp_pair(receive_buffer, send_buffer)
        node_inside, node = tcp_pair(receive_buffer, send_buffer)
        self.ends: list[tuple[Outcome, str]] = []
        self.loop.watch(client_inside.fileno(), READ, Nobody())
        self.loop.watch(node_inside.fileno(), READ_WRITE, Nobody())
        client_tls, node_tls = ends or (
            None if mix.client is None else tls_pair("client", mix.client),
            None if mix.node is None else tls_pair("node", mix.node),
        )
        self.client: Peer = client if client_tls is None else client_tls[1].on(client)
        self.node: Peer = node if node_tls is None else node_tls[1].on(node)
        self.relay = Relay(
            self.loop,
            client_inside,
            node_inside,
            lambda outcome, detail: self.ends.append((outcome, detail)),
            client_tls=None if client_tls is None else client_tls[0],
            node_tls=None if node_tls is None else node_tls[0],
            rewriter=RedisRewriter(view, Notes()) if rewriter is None and mix.reads_along else rewriter,
        )
        if is_started:
            self.relay.start(client_events=0, node_events=0)

    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not."""
        assert len(self.ends) <= 1
        return self.ends[0][0] if self.ends else None

    def expect(self, sock: Peer, count: int) -> bytes:
        """Return the next ``count`` bytes that arrive."""
        got = bytearray()

        def is_all() -> bool:
            while len(got) < count and (data := receive(sock, count - len(got))) is not None:
                assert data, f"EOF after {len(got)} of {count} bytes"
                got.extend(data)
            return len(got) == count

        turn_until(self.loop, is_all)
        return bytes(got)

    def expect_to_the_end(self, sock: Peer) -> bytes:
        """Return all that arrives until EOF."""
        got = bytearray()
        while True:
            data = self.expect_some(sock)
            if not data:
                return bytes(got)
            got.extend(data)

    def expect_some(self, sock: Peer) -> bytes:
        """Return what arrives next; b"" at EOF. Raises ConnectionResetError at a reset."""
        got: list[bytes] = []

        def has_some() -> bool:
            data = receive(sock)
            if data is not None:
                got.append(data)
            return bool(got)

        turn_until(self.loop, has_some)
        return got[0]

    def ending(self, sock: Peer) -> str:
        """Say how it ends for this peer, who has nothing more to receive: "eof", "cut" (a bare FIN in TLS), "reset"."""
        try:
            data = self.expect_some(sock)
        except Cut:
            return "cut"
        except ConnectionResetError:
            return "reset"
        assert not data, data
        return "eof"

    def send(self, sock: Peer, data: bytes) -> None:
        """Send all of it, turning the loop meanwhile. Nobody reads at the other end: it has to fit."""
        view = memoryview(data)

        def is_sent() -> bool:
            nonlocal view
            while view:
                try:
                    view = view[sock.send(view) :]
                except BlockingIOError:
                    return False
            return True

        turn_until(self.loop, is_sent)

    def stuff(self, sock: Peer, *, is_all_sent: bool = False) -> int:
        """Send until nobody reads any more, and the relay keeps bytes back; return how much went.

        A clear peer fills its own socket too, unless ``is_all_sent``: then its kernel holds nothing back, and its end
        would reach the relay's socket at once. One that speaks TLS never does: half a record would be left in its hand.
        """
        reader = self.relay.node if sock is self.client else self.relay.client
        total = 0
        while True:
            try:
                total += sock.send(bytes(1 << 14))
            except BlockingIOError:
                if self._is_stalled(reader) and not isinstance(sock, TlsPeer):
                    return total
                turn(self.loop)
            else:
                if isinstance(sock, TlsPeer):
                    turn_until(self.loop, lambda: sock.flush() and not queued_bytes(sock.plain))
                elif is_all_sent and isinstance(sock, socket.socket):
                    turn_until(self.loop, lambda: not queued_bytes(sock))
                else:
                    continue
                if self._is_stalled(reader) and unread_bytes(reader.peer.sock) >= 3 << 14:
                    return total

    def _is_stalled(self, reader: Leg) -> bool:
        if reader.pending is not None:
            settle(self.loop)
        return reader.pending is not None

    def close(self) -> None:
        """Close everything."""
        self.relay.end(Outcome.STOPPED)
        for sock in (self.client, self.node):
            sock.close()
        self.loop.close()


@contextlib.contextmanager
def joined(
    mix: Mix = CLEAR,
    *,
    receive_buffer: int | None = None,
    send_buffer: int | None = None,
    is_started: bool = True,
    ends: tuple[tuple[TlsEnd, TlsPeer] | None, tuple[TlsEnd, TlsPeer] | None] | None = None,
    rewriter: Rewriter | None = None,
) -> Iterator[Joined]:
    """Yield a relay that joins a client and a node; ``ends``: natproxy's end and the peer's of each, made by hand."""
    pair = Joined(
        mix,
        receive_buffer=receive_buffer,
        send_buffer=send_buffer,
        is_started=is_started,
        ends=ends,
        rewriter=rewriter,
    )
    try:
        yield pair
    finally:
        pair.close()
