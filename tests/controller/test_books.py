from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from natproxy import messages
from natproxy.controller import books as books_module
from natproxy.controller.books import AT_ONCE, MOST_FROM_TIME, Books, next_version
from natproxy.controller.knowledge import Knowledge
from natproxy.controller.stateformat import decode_state
from natproxy.model import Cache, Endpoint, Kind, Mode, NodeId, Route, RouteKey
from tests.controller.samples import Clock, knowledge
from tests.plan.samples import host, memcached, redis, snapshot

TEXT = """
public_host: cache.dev.example.com
public_ip: 203.0.113.73
clients: {allow: [198.51.100.27/32]}
caches:
  - {id: my-redis, ports: 6379-6388}
  - {id: my-memcached, ports: 11211-11220}
"""
PUBLIC = ("cache.dev.example.com", "203.0.113.73")
NOW = 1_700_000_000


class Workers:
    """Writes down what it is told of books, and what the state file holds at that moment."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.told: list[messages.Book] = []
        self.forgotten: list[str] = []
        self.saved: list[dict[str, int]] = []

    def set_book(self, book: messages.Book) -> None:
        self.told.append(book)
        self.saved.append(dict(decode_state(self.state.read_bytes()).memcached_versions) if self.state.exists() else {})

    def forget_book(self, name: str) -> None:
        self.forgotten.append(name)

    def take(self) -> list[messages.Book]:
        told, self.told = self.told, []
        return told


class Stage:
    """What is known, the routes that run, and the books of one run of natproxy."""

    def __init__(self, directory: Path, *caches: Cache, text: str = TEXT, known: Knowledge | None = None) -> None:
        self.unix_time = Clock(NOW)
        self.knowledge = known or knowledge(directory, text, snapshot(*caches))
        self.knowledge.unix_time = self.unix_time
        self.workers = Workers(directory / "state.json")
        self.routes = [route for cache in caches for route in routes_of(cache)]
        self.draining: list[Route] = []
        self.books = Books(
            self.knowledge,
            self.workers,  # type: ignore[arg-type]
            lambda: (self.routes, self.draining),
            clock=self.knowledge._clock,
        )

    def tell(self, *coming: Route) -> list[messages.Book]:
        self.books.tell(coming)
        return self.workers.take()

    def versions(self, *coming: Route) -> list[tuple[str, int]]:
        return [(book.name, book.version) for book in self.tell(*coming)]

    def move(self, name: str, *ips: str) -> None:
        self.knowledge.take_name(host(name), ips, "")


def routes_of(cache: Cache) -> list[Route]:
    """A route for each node, from the cache's first port on."""
    first, how = (11211, "memcached") if cache.mode is Mode.MEMCACHED else (6379, "replication")
    return [node_route(cache.id, node.id, first + n, how, node.endpoint) for n, node in enumerate(cache.nodes)]


def node_route(cache: str, node: NodeId, port: int, how: str, target: Endpoint | None) -> Route:
    key = RouteKey(cache, Kind.NODE, node)
    return Route(port, key, target, Mode.CLUSTER_DISABLED, rewrite=how, book=cache)


def restarted(directory: Path, cache: Cache) -> Stage:
    """The same host after a restart."""
    path = directory / "state.json"
    state = decode_state(path.read_bytes()) if path.exists() else None
    return Stage(directory, cache, known=knowledge(directory, TEXT, snapshot(cache), state=state))


def is_saved(stage: Stage) -> bool:
    return stage.knowledge.save_error is None


@pytest.mark.parametrize(
    ("known", "now", "version"),
    [
        (0, 1_700_000_000.7, 1_700_000_000),
        (1_700_000_000, 1_700_000_000.9, 1_700_000_001),
        (1_800_000_000, 1_700_000_000.0, 1_800_000_001),
        (0, 0.0, 1),
        (0, 9e9, MOST_FROM_TIME),
        (MOST_FROM_TIME, 9e9, MOST_FROM_TIME + 1),
    ],
)
def test_a_version_grows_by_time_and_by_one_at_least(known: int, now: float, version: int) -> None:
    assert next_version(known, now) == version


def test_versions_taken_from_time_leave_room_within_32_bits() -> None:
    assert MOST_FROM_TIME + 500_000 < 2**31


async def test_a_book_has_the_cache_s_nodes_and_what_clients_dial(tmp_path: Path) -> None:
    stage = Stage(tmp_path, redis(clusters=["-001", "-002"]))
    stage.move("my-redis-001.0001", "10.0.1.1")
    (book,) = stage.tell()
    assert (book.name, book.public_host, book.public_ip) == ("my-redis", *PUBLIC)
    assert book.ports == (
        ("10.0.1.1", 6379, 6379),
        (host("my-redis-001.0001"), 6379, 6379),
        (host("my-redis-002.0001"), 6379, 6380),
    )
    assert book.version == NOW


async def test_what_has_not_changed_is_not_told_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, redis(), memcached())
    assert [book.name for book in stage.tell()] == ["my-redis", "my-memcached"]
    assert stage.tell() == []
    stage.move("my-memcached.0001", "10.0.1.1")
    assert [book.name for book in stage.tell()] == ["my-memcached"]
    assert stage.tell() == []


async def test_a_version_grows_with_every_change_of_the_ports_or_of_what_clients_dial(tmp_path: Path) -> None:
    stage = Stage(tmp_path, memcached(count=2))
    assert stage.versions() == [("my-memcached", NOW)]
    stage.move("my-memcached.0001", "10.0.1.1")
    assert stage.versions() == [("my-memcached", NOW + 1)]
    del stage.routes[1]
    assert stage.versions() == [("my-memcached", NOW + 2)]
    stage.unix_time.now += 3600
    stage.knowledge.config = stage.knowledge.config.model_copy(update={"public_ip": "203.0.113.74"})
    assert stage.versions() == [("my-memcached", NOW + 3600)]
    stage.knowledge.config = stage.knowledge.config.model_copy(update={"public_host": "other.example.com"})
    assert stage.versions() == [("my-memcached", NOW + 3601)]


async def test_routes_that_are_about_to_be_served_are_in_the_book_before(tmp_path: Path) -> None:
    stage = Stage(tmp_path, redis(clusters=["-001", "-002"]))
    coming = stage.routes.pop()
    (first,) = stage.tell()
    (second,) = stage.tell(coming)
    assert {port for *_, port in first.ports} == {6379}
    assert {port for *_, port in second.ports} == {6379, 6380}


# Over restarts.


async def test_versions_of_memcached_are_written_down_before_they_are_told(tmp_path: Path) -> None:
    stage = Stage(tmp_path, redis(), memcached())
    stage.tell()
    stage.move("my-memcached.0001", "10.0.1.1")
    stage.tell()
    assert stage.workers.saved[-1] == {"my-memcached": NOW + 1}
    assert "my-redis" not in decode_state((tmp_path / "state.json").read_bytes()).memcached_versions


async def test_a_version_grows_over_a_restart_also_where_the_clock_was_set_back(tmp_path: Path) -> None:
    before = Stage(tmp_path, memcached())
    before.unix_time.now = NOW + 5000
    assert before.versions() == [("my-memcached", NOW + 5000)]
    after = restarted(tmp_path, memcached())
    assert after.versions() == [("my-memcached", NOW + 5001)]


async def test_a_version_grows_over_a_restart_that_has_lost_its_state(tmp_path: Path) -> None:
    before = Stage(tmp_path, memcached())
    before.tell()
    before.move("my-memcached.0001", "10.0.1.1")
    assert before.versions() == [("my-memcached", NOW + 1)]
    (tmp_path / "state.json").unlink()
    after = restarted(tmp_path, memcached())
    after.unix_time.now = NOW + 10
    assert after.versions() == [("my-memcached", NOW + 10)]


async def test_a_version_that_cannot_be_written_down_is_told_and_is_written_once_it_can(tmp_path: Path) -> None:
    stage = Stage(tmp_path, memcached())
    blocker = tmp_path / ".state.json.new"
    blocker.mkdir()
    assert stage.versions() == [("my-memcached", NOW)]
    assert not is_saved(stage)
    stage.move("my-memcached.0001", "10.0.1.1")
    assert stage.versions() == [("my-memcached", NOW + 1)]
    assert not (tmp_path / "state.json").exists()
    blocker.rmdir()
    stage.knowledge.save_addresses()
    assert is_saved(stage)
    assert decode_state((tmp_path / "state.json").read_bytes()).memcached_versions == {"my-memcached": NOW + 1}


# Books that are needed no more.


async def test_a_cache_that_drains_keeps_its_book_and_one_that_is_gone_has_none(tmp_path: Path) -> None:
    stage = Stage(tmp_path, redis(), memcached())
    stage.tell()
    stage.draining = [route for route in stage.routes if route.book == "my-redis"]
    stage.routes = [route for route in stage.routes if route.book != "my-redis"]
    assert stage.tell() == []
    assert stage.workers.forgotten == []
    stage.draining = []
    assert stage.tell() == []
    assert stage.workers.forgotten == ["my-redis"]
    stage.tell()
    assert stage.workers.forgotten == ["my-redis"]


async def test_a_cache_that_returns_is_told_anew_with_a_greater_version(tmp_path: Path) -> None:
    stage = Stage(tmp_path, memcached())
    (first,) = stage.tell()
    routes, stage.routes = stage.routes, []
    stage.tell()
    stage.routes = routes
    (second,) = stage.tell()
    assert second.ports == first.ports
    assert second.version > first.version


async def test_a_route_that_rewrites_nothing_needs_no_book(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.routes = [Route(6490, RouteKey("legacy", Kind.STATIC), Endpoint("legacy.internal", 6379), Mode.STATIC)]
    assert stage.tell() == []


# What changes all the time.


def names(told: Sequence[messages.Book]) -> list[str]:
    return [book.name for book in told]


async def test_many_changes_in_a_moment_are_told_a_few_times_and_then_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "PAUSE_SECONDS", 3600.0)
    stage = Stage(tmp_path, redis())
    for number in range(50):
        stage.move("my-redis-001.0001", f"10.0.1.{number}")
        stage.books.tell_soon()
    assert (len(stage.workers.take()), stage.books.are_behind) == (AT_ONCE, True)
    (last,) = stage.tell()
    assert ("10.0.1.49", 6379, 6379) in last.ports


async def test_what_waits_is_told_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books_module, "PAUSE_SECONDS", 0.01)
    stage = Stage(tmp_path, redis())
    told = asyncio.Event()
    monkeypatch.setattr(stage.workers, "set_book", lambda book: told.set() if "10.0.1.9" in str(book.ports) else None)
    for _ in range(AT_ONCE):
        stage.books.tell_soon()
    stage.move("my-redis-001.0001", "10.0.1.9")
    stage.books.tell_soon()
    await asyncio.wait_for(told.wait(), 10)


async def test_what_is_told_at_once_is_not_told_later_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, redis())
    monkeypatch.setattr(books_module, "PAUSE_SECONDS", 3600.0)
    for _ in range(AT_ONCE):
        stage.books.tell_soon()
    behind: list[bool] = []
    for act in (stage.books.tell_soon, stage.books.tell, stage.books.tell_soon, stage.books.close, stage.books.close):
        act()
        behind.append(stage.books.are_behind)
    assert behind == [True, False, True, False, False]


async def test_whoever_waits_for_the_books_hears_when_they_are_told(tmp_path: Path) -> None:
    stage = Stage(tmp_path, redis())
    told: list[int] = []
    stage.books._on_told = lambda: told.append(len(stage.workers.told))
    stage.books.tell()
    stage.books.tell()
    assert told == [1, 1]
