from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest

from natproxy.messages import Serve
from natproxy.model import Address, Role
from natproxy.wire.book import Book
from natproxy.wire.lazy import LazyRedisRewriter
from natproxy.wire.memcached import MemcachedRewriter
from natproxy.wire.redis import RedisRewriter
from natproxy.wire.rewriter import Fallback, Hint, Reply
from natproxy.worker.counts import PortCounts
from natproxy.worker.reading import Reading
from tests.worker.running import served

NODE = Address("10.0.1.230", 6379)
BOOK = Book({("10.0.1.230", 6379): 7000, ("10.0.1.231", 6379): 7001}, public_host="cache.example.com")


@dataclass
class FakeReports:
    hints: list[tuple[int, Hint]] = field(default_factory=list)
    roles: list[tuple[str, tuple[tuple[str, int, str], ...]]] = field(default_factory=list)

    def hint(self, port: int, hint: Hint) -> None:
        self.hints.append((port, hint))

    def learnt(self, book: str, roles: tuple[tuple[str, int, str], ...]) -> None:
        self.roles.append((book, roles))


@dataclass
class FakeWorker:
    books: dict[str, Book] = field(default_factory=dict)
    reports: FakeReports = field(default_factory=FakeReports)


@dataclass
class FakePort:
    """As much of a port as a Reading looks at."""

    serve: Serve
    worker: FakeWorker = field(default_factory=FakeWorker)
    counts: PortCounts = field(default_factory=lambda: PortCounts(6379))


@pytest.fixture
def port() -> FakePort:
    made = FakePort(served(6379, (NODE.ip, NODE.port), rewrite="cluster", book="shop"))
    made.worker.books["shop"] = BOOK
    return made


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """The side of a client's connection that natproxy has."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            yield accepted


def reading(port: FakePort, client: socket.socket, *, speaks_tls: bool = False) -> Reading:
    return Reading(cast("Any", port), client, NODE, speaks_tls=speaks_tls)


@pytest.mark.parametrize(
    ("rewrite", "kind"),
    [
        ("cluster", RedisRewriter),
        ("replication", LazyRedisRewriter),
        ("memcached", MemcachedRewriter),
        ("", type(None)),
    ],
)
def test_what_reads_along_is_what_the_port_asks_for(
    port: FakePort, client: socket.socket, rewrite: str, kind: type
) -> None:
    port.serve = msgspec.structs.replace(port.serve, rewrite=rewrite)
    assert type(reading(port, client).rewriter()) is kind


@pytest.mark.parametrize("speaks_tls", [True, False])
def test_the_view_is_of_the_book_and_of_the_connection(port: FakePort, client: socket.socket, speaks_tls: bool) -> None:
    view = reading(port, client, speaks_tls=speaks_tls).view()
    assert (view.book, view.own_ip, view.own_port, view.own) == (BOOK, NODE.ip, NODE.port, 7000)
    assert view.speaks_tls is speaks_tls
    assert view.host == "cache.example.com"


def test_without_a_public_host_clients_are_told_where_they_came_in(port: FakePort, client: socket.socket) -> None:
    mine = reading(port, client)
    port.worker.books["shop"] = Book(BOOK.ports)
    assert (mine.view().host, mine.view().ip) == ("127.0.0.1", "127.0.0.1")
    client.close()
    assert mine.view().host == "127.0.0.1"  # it has been asked once


def test_an_ipv4_address_is_told_as_such_also_where_both_families_are_listened_to(port: FakePort) -> None:
    port.worker.books["shop"] = Book(BOOK.ports)
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening,
        socket.create_connection(("127.0.0.1", listening.getsockname()[1])),
    ):
        accepted, _ = listening.accept()
        with accepted:
            assert reading(port, accepted).view().host == "127.0.0.1"


def test_a_changed_book_is_seen_at_once_and_one_that_never_came_is_empty(port: FakePort, client: socket.socket) -> None:
    mine = reading(port, client)
    assert mine.view().find("10.0.1.232", 6379) is None
    port.worker.books["shop"] = Book({("10.0.1.232", 6379): 7002})
    assert mine.view().find("10.0.1.232", 6379) == 7002
    del port.worker.books["shop"]
    assert mine.view().book == Book()


@pytest.mark.parametrize(
    "change", [{"rewrite": "", "book": ""}, {"cache": "other", "book": "other"}, {"client_tls": "terminate"}]
)
def test_a_connection_keeps_its_view_where_its_port_comes_to_be_something_else(
    port: FakePort, client: socket.socket, change: dict[str, str]
) -> None:
    """Reload: off, or to another cache. Live connections drain, and talk to the old nodes as they did."""
    mine = reading(port, client)
    before = mine.view()
    port.worker.books["other"] = Book(public_host="other.example.com")
    port.serve = msgspec.structs.replace(port.serve, **change)
    assert mine.view() == before


def test_what_is_seen_is_told(port: FakePort, client: socket.socket) -> None:
    mine = reading(port, client)
    mine.rewritten(Reply.MOVED)
    mine.hint(Hint.UNKNOWN_NODE)
    fallbacks = [mine.fallback]
    mine.fell_back(Fallback.MONITOR)
    assert [*fallbacks, mine.fallback] == [None, Fallback.MONITOR]
    counts = port.counts.take(1)
    assert counts is not None
    assert (counts.rewritten, counts.fallbacks) == ({"moved": 1}, {"monitor": 1})
    assert port.worker.reports.hints == [(6379, Hint.UNKNOWN_NODE)]


def test_roles_are_told_of_no_nodes_but_the_book_s(port: FakePort, client: socket.socket) -> None:
    """A node may name as many others as it likes."""
    mine = reading(port, client)
    mine.learnt([("10.0.1.231", 6379, Role.REPLICA), ("10.0.1.231", 6380, Role.REPLICA), ("x", 1, Role.PRIMARY)])
    mine.learnt([("x", 1, Role.PRIMARY)])
    assert port.worker.reports.roles == [("shop", (("10.0.1.231", 6379, "replica"),))]
