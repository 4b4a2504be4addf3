from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fnmatch import fnmatch

import pytest

from tests.clients import journey
from tests.clients.journey import KEYS, TAGS, Seed, run


class FakeLibrary:
    """A cluster in a dictionary; ``meddle`` is called before each write, and may raise."""

    def __init__(self, meddle: Callable[[FakeLibrary], None] = lambda _: None) -> None:
        self.values: dict[str, str] = {}
        self.meddle = meddle
        self.writes = 0
        self.deaf = False
        self.is_closed = False

    async def set(self, key: str, value: str) -> None:
        self.writes += 1
        self.meddle(self)
        self.values[key] = value

    async def get(self, key: str) -> str | None:
        return self.values.get(key)

    async def transaction(self, tag: str) -> Sequence[object]:
        return ["OK", 1, "x"]

    async def pipeline(self, pairs: Mapping[str, str]) -> Sequence[object]:
        self.values |= pairs
        return list(pairs.values())

    async def hear(self, channels: Sequence[str], *, sharded: bool) -> Sequence[str]:
        return [] if self.deaf and sharded else list(reversed(channels))

    async def scan(self, pattern: str) -> Sequence[str]:
        return [key for key in self.values if fnmatch(key, pattern)]

    async def addresses(self) -> Sequence[str]:
        return ["b:2", "a:1"]

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(journey, "ERROR_PAUSE_SECONDS", 0)


@pytest.fixture(autouse=True)
def same_signals() -> object:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def connecting_to(library: FakeLibrary) -> Callable[[Seed], Awaitable[FakeLibrary]]:
    async def connect(seed: Seed) -> FakeLibrary:
        assert seed == SEED
        return library

    return connect


SEED = Seed("cache.example", 6379, "me", None)
ENOUGH = journey.SINGLY + 5 * TAGS


def end_after(writes: int) -> Callable[[FakeLibrary], None]:
    def meddle(library: FakeLibrary) -> None:
        if library.writes == writes:
            os.kill(os.getpid(), signal.SIGTERM)

    return meddle


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_a_tour_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    library = FakeLibrary()
    assert await run(connecting_to(library), SEED, is_live=False) == 0
    assert library.is_closed
    assert len(library.values) == KEYS
    [tour] = said(capsys)
    assert (tour["event"], tour["addresses"]) == ("tour", ["a:1", "b:2"])


async def test_a_tour_that_misses_something_fails(capsys: pytest.CaptureFixture[str]) -> None:
    library = FakeLibrary()
    library.deaf = True
    with pytest.raises(AssertionError, match="sharded True"):
        await run(connecting_to(library), SEED, is_live=False)
    [failed] = said(capsys)
    assert failed["event"] == "failed"


async def test_a_life_goes_on_until_it_is_told_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(connecting_to(FakeLibrary(end_after(ENOUGH))), SEED, is_live=True) == 0
    _, *rounds, summary = said(capsys)
    assert [line["number"] for line in rounds] == [1, 2, 3, 4, 5]
    assert (summary["acknowledged"], summary["lost"], summary["errors"]) == (5 * TAGS, [], [])


async def test_what_was_acknowledged_and_is_gone_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    end = end_after(ENOUGH)

    def meddle(library: FakeLibrary) -> None:
        end(library)
        if library.writes == ENOUGH:
            del library.values["{me:live:3}:1"]

    assert await run(connecting_to(FakeLibrary(meddle)), SEED, is_live=True) == 1
    assert said(capsys)[-1]["lost"] == ["{me:live:3}:1"]


async def test_errors_are_told_with_their_time_and_their_end(capsys: pytest.CaptureFixture[str]) -> None:
    end = end_after(ENOUGH)

    def meddle(library: FakeLibrary) -> None:
        end(library)
        if library.writes - journey.SINGLY in (30, 31):
            raise ConnectionError("gone")

    assert await run(connecting_to(FakeLibrary(meddle)), SEED, is_live=True) == 0
    lines = said(capsys)
    assert [line["event"] for line in lines if line["event"] not in ("tour", "round")] == [
        "error", "error", "healed", "summary",
    ]  # fmt: skip
    assert lines[-1]["acknowledged"] == 5 * TAGS - 2
    errors = lines[-1]["errors"]
    assert isinstance(errors, list)
    assert [text for _, text in errors] == ["ConnectionError: gone"] * 2


async def test_what_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "OPERATION_SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        await journey.within(asyncio.Event().wait())
