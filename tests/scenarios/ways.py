"""Every way that bytes can take through natproxy, with one worker and with two. I/O: processes, TCP, TLS, files."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from natproxy.documents import RouteView
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon, Line
from tests.scenarios.peers import PlainNode, Talk, connect
from tests.scenarios.tlspeers import NODE_HOST, Papers, TlsNode, Version, prepare_tls, secure
from tests.scenarios.waiting import PATIENCE_SECONDS, eventually
from tests.standins.echo import EchoNodes

Way = Literal["clear-clear", "tls-clear", "tls-tls", "clear-tls", "passthrough"]
"""What is spoken with the client, and with the node."""
WAYS: tuple[Way, ...] = ("clear-clear", "tls-clear", "tls-tls", "clear-tls", "passthrough")
TLS_WAYS: tuple[Way, ...] = ("tls-clear", "tls-tls", "clear-tls")
"""Those of them in which natproxy itself speaks TLS."""
Side = Literal["client", "node"]
SIDES: tuple[Side, ...] = ("client", "node")
Leads = Literal["node", "echo", "full", "nobody"]
"""To a node in the test's hand; one that says again what it hears; one that does not accept; a port without any."""
LEADS: tuple[Leads, ...] = ("node", "echo", "full", "nobody")
Link = tuple[Talk, Talk]
"""A connection's two ends: the client's and the node's."""
MEBIBYTE = 1 << 20
UNLIMITED = 20_000
MAY_KEEP = Counter(pipe=2 * 16)
"""Descriptors that each worker may hold when nobody is connected any more, beside those that it had at first."""

every_way = pytest.mark.parametrize("way", WAYS)
natproxys_tls = pytest.mark.parametrize("way", TLS_WAYS)
either_first = pytest.mark.parametrize("first", SIDES)
each_count_of_workers = pytest.mark.parametrize("workers", [1, 2], ids=["one-worker", "two-workers"])


def speaks_tls(way: Way, side: Side) -> bool:
    """Whether natproxy speaks TLS with that side."""
    return way != "passthrough" and way.split("-")[side == "node"] == "tls"


@dataclass(frozen=True)
class House:
    """One daemon with ports for every way, and the nodes behind them."""

    daemon: Daemon
    papers: Papers
    clear: PlainNode
    tls: TlsNode
    full: FullNode
    ports: dict[tuple[str, Way], int]
    """By where they lead, or what they are for, and their way."""
    held: dict[int, Counter[str]]
    """What each of its processes held before there was any connection."""
    contexts: dict[tuple[Side, Version | None], ssl.SSLContext] = field(default_factory=dict)
    """Clients' contexts, for natproxy and for a node itself."""

    def client(self, way: Way, leads: str = "node", version: Version | None = None) -> Talk:
        """Connect as a client does that may."""
        if way == "passthrough":
            return secure(self.daemon.ip, self.ports[leads, way], self._context("node", None), name=NODE_HOST)
        return self.knock(way, leads, version)

    def knock(self, way: Way, leads: str = "node", version: Version | None = None) -> Talk:
        """Connect, and agree upon TLS where natproxy speaks it with clients; whatever the node speaks."""
        if speaks_tls(way, "client"):
            return secure(self.daemon.ip, self.ports[leads, way], self._context("client", version))
        return connect(self.daemon.ip, self.ports[leads, way])

    def _context(self, side: Side, version: Version | None) -> ssl.SSLContext:
        if (side, version) not in self.contexts:
            papers = self.papers
            made = papers.node_client() if side == "node" else papers.client(papers.dev, version=version)
            self.contexts[side, version] = made
        return self.contexts[side, version]

    def node(self, way: Way) -> PlainNode:
        """Return the node that a way leads to."""
        return self.clear if way.endswith("-clear") else self.tls

    def link(self, way: Way, version: Version | None = None, leads: str = "node") -> Link:
        """Open a connection; return the client's end and the node's."""
        self.tls.context = self.papers.node_side(version=version)
        with ThreadPoolExecutor(1) as pool:
            accepting = pool.submit(self.node(way).accept)
            return self.client(way, leads, version), accepting.result()

    def ended(self, client: Talk, *, since: int) -> Line:
        """Wait for what the log says of that client's end; another one had its address perhaps, before ``since``."""
        return self.daemon.wait_for_log("connection ended", since=since, **client.logged_as)

    def wait_until_left(self) -> None:
        """Wait until the daemon's processes hold no descriptor more than before there was any connection.

        A worker may keep some pipes to move large values through.
        """

        def is_back() -> bool:
            for pid, held in self.held.items():
                now = held_descriptors(pid)
                assert now <= held + MAY_KEEP, f"{now} now, {held} at first"
            return True

        eventually(is_back, "no descriptor is left over")
        self.wait_until_in_reach()

    def wait_until_in_reach(self) -> None:
        """Wait until natproxy asks no more, by connections of its own, whether a node is there that was not."""

        def is_asked(route: RouteView) -> bool:
            # A node whose handshake failed is not asked.
            return route.state != "open" and f" as {NODE_HOST}: " not in str(route.reason)

        def is_none_asked() -> bool:
            routes = self.daemon.routes().items()
            return not any(is_asked(route) for name, route in routes if not name.endswith(("-full", "-nobody")))

        eventually(is_none_asked, "every node is in reach")
        for node in (self.clear, self.tls):
            node.turn_away()


class Outcomes:
    """What the log has to say in the end of each connection."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._since = len(house.daemon.log)
        self._expected: dict[Talk, str] = {}

    def expect(self, client: Talk, outcome: str) -> None:
        """Expect it of a client's connection, which lives now."""
        self._expected[client] = outcome

    def check(self) -> None:
        """Wait for all that is expected."""
        for client, outcome in self._expected.items():
            line = self._house.ended(client, since=self._since)
            assert line["outcome"] == outcome, line


class FullNode:
    """A node that accepts nobody until it is told to: its queue is full, and whoever dials it waits for an answer."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(PATIENCE_SECONDS)
        self.target = "{}:{}".format(*self._listening.getsockname())
        self._filler: socket.socket | None = None
        self.fill()

    def fill(self) -> None:
        """Let nobody in (again)."""
        self._listening.listen(0)  # there is room for one
        self._filler = socket.create_connection(self._listening.getsockname(), PATIENCE_SECONDS)

    def accept(self) -> Talk:
        """Take the next who asks; the kernel asks again a second after it was not heard."""
        if self._filler is not None:
            self._listening.listen()
            self._filler.close()
            self._filler = None
            self._listening.accept()[0].close()
        return Talk(self._listening.accept()[0])

    def close(self) -> None:
        """Listen no more."""
        if self._filler is not None:
            self._filler.close()
        self._listening.close()


class Houses:
    """The two daemons that most proofs share, one with each count of workers."""

    def __init__(self, natproxies: Natproxies) -> None:
        self._natproxies = natproxies
        self._stack = contextlib.ExitStack()
        self._made: dict[int, House] = {}

    def of(self, workers: int) -> House:
        """Return the one with so many workers; started when it is first asked for."""
        if workers not in self._made:
            self._made[workers] = self._stack.enter_context(open_house(self._natproxies, workers))
        return self._made[workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@contextlib.contextmanager
def open_house(
    natproxies: Natproxies, workers: int, leads: Sequence[str] = LEADS, **clients: dict[str, Any]
) -> Iterator[House]:
    """Start a daemon with so many workers, and its nodes. It is ended by ``natproxies``.

    It has a port on every way for each of ``leads``; what is none of LEADS leads to the node in the test's hand.
    ``clients``: by one of these names, more of its routes' section of that name.
    """
    ports = dict(zip(itertools.product(leads, WAYS), itertools.count(FIRST_PORT)))
    daemon, papers = prepare_tls(natproxies, workers=workers, timeouts={"connect": "10s"})
    daemon.config["clients"] = {"max_connections": UNLIMITED, "max_connections_per_client": UNLIMITED}
    with contextlib.ExitStack() as stack:
        clear = stack.enter_context(PlainNode())
        tls = stack.enter_context(TlsNode(papers.node_side()))
        full = stack.enter_context(contextlib.closing(FullNode()))
        nobody = stack.enter_context(contextlib.closing(socket.socket()))
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        echo = EchoNodes()
        echo.start()
        stack.callback(echo.stop)
        echo.open("127.0.0.1", 0)
        echo.open("127.0.0.1", 0, papers.node_side())
        echoes = dict(zip((True, False), map(_target, echo.where()), strict=True))
        for (name, way), port in ports.items():
            is_clear = way.endswith("-clear")
            node = (clear if is_clear else tls).target
            others = {"echo": echoes[is_clear], "full": full.target, "nobody": _target(nobody.getsockname())}
            route = static_route(papers, way, name, port, others.get(name, node), **clients.get(name, {}))
            daemon.config.setdefault("static", []).append(route)
        daemon.start()
        eventually(
            lambda: len(daemon.workers()) == workers and _have_ports(daemon, len(ports)), "the workers have every port"
        )
        yield House(
            daemon,
            papers,
            clear,
            tls,
            full,
            ports,
            {pid: held_descriptors(pid) for pid in (daemon.process.pid, *daemon.workers())},
        )


def static_route(papers: Papers, way: Way, name: str, port: int, target: str, **clients: Any) -> dict[str, Any]:
    """Return the config's ``static`` entry for a way to a node."""
    return {
        "name": f"{way}-{name}",
        "port": port,
        "target": target,
        "clients": {"tls": {"tls": "terminate", "cle": "off", "pas": "passthrough"}[way[:3]], **clients},
        **({"nodes": papers.tls_node()} if way.endswith("-tls") else {}),
    }


def held_descriptors(pid: int) -> Counter[str]:
    """Return how many descriptors of each kind a process holds."""
    held: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held[link.readlink().name.partition(":")[0]] += 1
    return held


def _have_ports(daemon: Daemon, count: int) -> bool:
    return all(held_descriptors(pid)["socket"] > count for pid in daemon.workers())


def _target(where: tuple[str, int]) -> str:
    return "{}:{}".format(*where)
