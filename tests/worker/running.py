"""A worker that runs, as a process or in a thread, and this test as its controller. I/O: TCP, processes, threads."""

from __future__ import annotations

import itertools
import os
import resource
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from natproxy import messages
from natproxy.channel import controller_end, worker_end
from natproxy.errors import ChannelError
from natproxy.messages import DIAL_BUCKETS, RouteCounts, Serve, Up
from natproxy.model import Outcome
from natproxy.worker.process import Worker
from natproxy.worker.spread import Spread
from tests.worker.hand import SECONDS, listen
from tests.worker.tlspeer import HOST, NODE, client_side, node_side

M = TypeVar("M", bound=Up)
Node = tuple[str, int] | socket.socket
"""An address, or a socket that listens there."""
WORKER = (sys.executable, "-P", "-m", "natproxy.worker.process")


@dataclass
class Totals:
    """What a worker counted on one port."""

    open: int = 0
    opened: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    client_bytes: int = 0
    node_bytes: int = 0
    dials: list[int] = field(default_factory=lambda: [0] * (len(DIAL_BUCKETS) + 1))
    dial_seconds: float = 0.0
    live: dict[tuple[str, int], int] = field(default_factory=dict)
    client_handshakes: Counter[str] = field(default_factory=Counter)
    node_handshakes: Counter[str] = field(default_factory=Counter)
    rewritten: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)

    def add(self, counts: RouteCounts) -> None:
        """Take in what happened since the last time."""
        self.open = counts.open
        self.opened += counts.opened
        self.ended.update(counts.ended)
        self.client_bytes += counts.client_bytes
        self.node_bytes += counts.node_bytes
        self.dials = [one + other for one, other in zip(self.dials, counts.dials or [0] * len(self.dials), strict=True)]
        self.dial_seconds += counts.dial_seconds
        self.live = {(ip, port): number for ip, port, number in counts.live}
        self.client_handshakes.update(counts.client_handshakes)
        self.node_handshakes.update(counts.node_handshakes)
        self.rewritten.update(counts.rewritten)
        self.fallbacks.update(counts.fallbacks)


class Running:
    """A worker. What it says is kept in ``said`` and added up in ``totals``."""

    def __init__(
        self, *, is_process: bool = False, command: Sequence[str] = WORKER, spread: Spread | None = None
    ) -> None:
        ours, theirs = socket.socketpair()
        self.channel = controller_end(ours)
        self.said: list[Up] = []
        self.totals: dict[int, Totals] = {}
        self.open = 0
        self.sessions: Counter[tuple[str, str, str, bool]] = Counter()
        """(side, TLS version, cipher suite, resumed) -> handshakes."""
        self.finished: list[messages.FinishedConnection] = []
        self.has_ended = False
        self.accept_pauses = 0
        self._doorbell: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.thread: threading.Thread | None = None
        self.worker: Worker | None = None
        if is_process:
            with theirs:
                self.process = subprocess.Popen(
                    [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
                )
        else:
            self.worker = Worker(worker_end(theirs), spread=spread)
            self.thread = threading.Thread(target=self.worker.run, name="worker", daemon=True)
            self.thread.start()
        self.expect(messages.Ready)
        self._descriptor_limits = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)

    @property
    def pid(self) -> int:
        """The worker's process."""
        return os.getpid() if self.process is None else self.process.pid

    # What it is told.

    def serve(self, *nodes: Node, sock: socket.socket | None = None, **values: object) -> int:
        """Serve a new port (or the one that ``sock`` listens on) that leads to ``nodes``; return its number."""
        listening = listen() if sock is None else sock
        serve = served(listening.getsockname()[1], *nodes, **{"sockets": 1, **values})
        self.tell(serve, [listening])
        listening.close()
        return serve.port

    def update(self, port: int, *nodes: Node, **values: object) -> None:
        """Serve a port by new values."""
        self.order(served(port, *nodes, **values))

    def order(self, message: messages.Down) -> None:
        """Tell it something; it has obeyed when this returns."""
        self.tell(message)
        if self._doorbell is None:
            self._doorbell = self.serve(refuse=Outcome.ROUTE_REMOVED.value)
        for _ in range(2):  # the first may be answered before the message, in the same turn of the loop
            with connect(self._doorbell) as client:
                assert is_closed(client)

    def tell(self, message: messages.Down, sockets: Sequence[socket.socket] = ()) -> None:
        """Tell it something."""
        self.channel.send(message, [sock.fileno() for sock in sockets])
        while self.channel.wants_write:
            select.select([], [self.channel], [], SECONDS)
            self.channel.flush()

    # What it says.

    def hear(self, seconds: float) -> bool:
        """Take in what it says within ``seconds``; False where it said nothing more, and will not."""
        if self.has_ended or not select.select([self.channel], [], [], max(seconds, 0.0))[0]:
            return False
        try:
            received = self.channel.receive()
        except ChannelError:
            self.has_ended = True
            return False
        for message, _ in received:
            self.said.append(message)
            if isinstance(message, messages.Counts):
                self.open = message.open
                self.accept_pauses += message.accept_pauses
                for *kind, count in message.sessions:
                    side, version, cipher, is_resumed = kind
                    self.sessions[str(side), str(version), str(cipher), bool(is_resumed)] += count
                for counts in message.routes:
                    self.totals.setdefault(counts.port, Totals()).add(counts)
            elif isinstance(message, messages.Finished):
                self.finished.extend(message.connections)
        return True

    def until(self, is_so: Callable[[], object], seconds: float = SECONDS) -> None:
        """Listen to it until something is so."""
        deadline = time.monotonic() + seconds
        while not is_so():
            left = deadline - time.monotonic()
            assert left > 0, f"it did not happen: {self.said[-3:]}"
            if not self.hear(min(left, 0.02)):
                assert not self.has_ended or is_so(), f"it ended: {self.said[-3:]}"

    def expect(self, kind: type[M]) -> M:
        """Return the next message of a kind, dropping what came before it."""
        found: list[M] = []

        def has_come() -> bool:
            for number, message in enumerate(self.said):
                if isinstance(message, kind):
                    found.append(message)
                    del self.said[: number + 1]
                    return True
            return False

        self.until(has_come)
        return found[0]

    def counts(self, port: int) -> Totals:
        """Return what it counted on a port, as of a Counts message that was sent after this call."""
        while self.hear(0):
            pass
        self.said = [message for message in self.said if not isinstance(message, messages.Counts)]
        self.expect(messages.Counts)
        return self.totals.setdefault(port, Totals())

    def until_ended(self, port: int, connections: int) -> Totals:
        """Return what it counted on a port once so many connections have ended there."""
        totals = self.totals.setdefault(port, Totals())
        self.until(lambda: totals.ended.total() >= connections)
        return totals

    def finish(self, port: int) -> messages.FinishedConnection:
        """Return what is logged of a connection that ends on a port: of the earliest that was not asked for yet."""
        self.until(lambda: any(finished.port == port for finished in self.finished))
        found = next(finished for finished in self.finished if finished.port == port)
        self.finished.remove(found)
        return found

    def outcome(self, port: int) -> tuple[str, str]:
        """Return (outcome, detail) of a connection that ends on a port."""
        finished = self.finish(port)
        return finished.outcome, finished.detail

    # Its process.

    def rss_bytes(self) -> int:
        """Return how much memory the worker's process has resident."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def descriptors(self) -> int:
        """Return how many descriptors the worker's process has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def listens(self, port: int) -> bool:
        """Say whether the worker's process has a socket open that listens on a port (of 127.0.0.1)."""
        inodes = {
            fields[9]
            for line in Path(f"/proc/{self.pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
            if (fields := line.split())[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
        }
        links = {path.readlink() for path in Path(f"/proc/{self.pid}/fd").iterdir()}
        return any(Path(f"socket:[{inode}]") in links for inode in inodes)

    def leave_descriptors(self, count: int) -> None:
        """Leave the worker's process so many descriptors more than it has."""
        used = {int(path.name) for path in Path(f"/proc/{self.pid}/fd").iterdir()}
        free = (number for number in itertools.count() if number not in used)
        limit = next(itertools.islice(free, count, None))
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (limit, self._descriptor_limits[1]))

    def leave_all_descriptors(self) -> None:
        """Take that back."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self._descriptor_limits)

    def wait_for_end(self) -> int:
        """Wait until it has ended by itself; return its exit status."""
        if self.process is not None:
            return self.process.wait(SECONDS)
        assert self.thread is not None
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()
        try:
            status = self.wait_for_end()
        except subprocess.TimeoutExpired:
            assert self.process is not None
            self.process.kill()
            self.process.wait()
            raise
        assert status == 0


def served(port: int, *nodes: Node, **values: object) -> Serve:
    """Return a Serve for a port that leads to ``nodes`` (addresses, or sockets that listen).

    With ``node_tls`` their certificates must name tlspeer.NODE, by the CAs called "nodes", unless the values say else.
    """
    addresses = tuple(node.getsockname()[:2] if isinstance(node, socket.socket) else node for node in nodes)
    serve = Serve(
        port=port,
        cache="shop",
        kind="node",
        node="shop-001/0001",
        addresses=addresses,
        rotates=False,
        allow=None,
        connect_seconds=3.0,
        idle_seconds=None,
        keepalive_seconds=30.0,
    )
    if values.get("node_tls"):
        values = {"node_ca": "nodes", "names": (NODE,) * len(addresses), **values}
    return msgspec.structs.replace(serve, **values)


def connect(port: int, host: str = "127.0.0.1", source: tuple[str, int] | None = None) -> socket.socket:
    """Return a client's connection to a port."""
    return socket.create_connection((host, port), timeout=SECONDS, source_address=source)


def accept(node: socket.socket) -> socket.socket:
    """Return the connection that a node accepts next."""
    sock, _ = node.accept()
    sock.settimeout(SECONDS)
    return sock


def connect_tls(
    port: int,
    context: ssl.SSLContext | None = None,
    *,
    session: ssl.SSLSession | None = None,
    source: tuple[str, int] | None = None,
) -> ssl.SSLSocket:
    """Return a client's TLS connection to a port; raises what goes wrong with that."""
    sock = connect(port, source=source)
    try:
        context = context or client_side()
        return context.wrap_socket(sock, server_hostname=HOST, session=session, suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise


def accept_tls(node: socket.socket, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """Return the connection that a node accepts next, with TLS agreed upon."""
    sock = accept(node)
    try:
        return (context or node_side()).wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Return the next ``count`` bytes."""
    got = bytearray()
    while len(got) < count:
        data = sock.recv(min(count - len(got), 1 << 20))
        assert data, f"EOF after {len(got)} of {count} bytes"
        got += data
    return bytes(got)


def receive_all(sock: socket.socket) -> bytes:
    """Return all that comes until EOF."""
    got = bytearray()
    while data := sock.recv(1 << 20):
        got += data
    return bytes(got)


def is_closed(sock: socket.socket) -> bool:
    """Wait until the other side has closed; True, or an assertion fails."""
    try:
        data = sock.recv(1 << 16)
    except ConnectionResetError:
        return True
    assert not data, data
    return True
