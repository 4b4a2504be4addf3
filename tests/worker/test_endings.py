"""When ends that wait are over, by a clock that the tests turn; with sockets: test_relay.py, test_tlsleg.py."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from natproxy.worker import liveness
from natproxy.worker.endings import CLOSING_SECONDS, LAST_WORDS_SECONDS, Closing, LastWords

BROKEN = OSError(errno.EPIPE, "Broken pipe")


@dataclass
class Clock:
    """A loop's clock and timers."""

    now: float = 100.0
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, callback))

    def pass_by(self, seconds: float) -> None:
        """Let time pass, and what is due in it happen."""
        until = self.now + seconds
        while self.timers and self.timers[0][0] <= until:
            self.now, callback = self.timers.pop(0)
            callback()
        self.now = until


@dataclass
class FakeRelay:
    loop: Clock = field(default_factory=Clock)
    is_over: bool = False
    said: list[object] = field(default_factory=list)

    def leg_failed(self, leg: object, error: OSError) -> None:
        self.is_over = True
        self.said.append((leg, error))

    def end_well(self) -> None:
        self.is_over = True
        self.said.append("well")


@dataclass
class FakeLeg:
    relay: FakeRelay
    unheard: int = 0
    pending: bytes | None = None
    received_bytes: int = 0
    sock: object = None
    peer: Any = None

    def unheard_bytes(self) -> int:
        return self.unheard


@pytest.fixture
def relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
def leg(relay: FakeRelay) -> FakeLeg:
    made = FakeLeg(relay)
    made.peer = FakeLeg(relay)
    return made


def look_for_last_words(leg: FakeLeg) -> None:
    LastWords(cast("Any", leg), BROKEN).look()


def test_where_all_has_been_heard_it_ends_at_once(relay: FakeRelay, leg: FakeLeg) -> None:
    look_for_last_words(leg)
    assert relay.said == [(leg, BROKEN)]
    assert relay.loop.timers == []


def test_last_words_have_as_long_as_somebody_takes_some_of_them(relay: FakeRelay, leg: FakeLeg) -> None:
    leg.unheard = 10
    look_for_last_words(leg)
    for _ in range(10):
        relay.loop.pass_by(LAST_WORDS_SECONDS * 0.9)
        assert relay.said == []
        leg.unheard -= 1
    relay.loop.pass_by(LAST_WORDS_SECONDS * 0.1)
    assert relay.said == [(leg, BROKEN)]
    assert relay.loop.timers == []


def test_last_words_that_nobody_takes_are_given_up(relay: FakeRelay, leg: FakeLeg) -> None:
    leg.unheard = 10
    look_for_last_words(leg)
    relay.loop.pass_by(LAST_WORDS_SECONDS * 0.95)
    assert relay.said == []
    relay.loop.pass_by(LAST_WORDS_SECONDS * 0.1)
    assert relay.said == [(leg, BROKEN)]


def test_last_words_end_nothing_twice(relay: FakeRelay, leg: FakeLeg) -> None:
    leg.unheard = 10
    look_for_last_words(leg)
    relay.is_over = True
    relay.loop.pass_by(2 * LAST_WORDS_SECONDS)
    assert relay.said == []
    assert relay.loop.timers == []


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much the kernel still has to deliver."""
    bytes_left = [0]
    monkeypatch.setattr(liveness, "queued_bytes", lambda sock: bytes_left[0])
    return bytes_left


@pytest.mark.usefixtures("queued")
def test_who_was_told_of_the_end_and_is_quiet_is_closed(relay: FakeRelay, leg: FakeLeg) -> None:
    Closing(cast("Any", leg)).look()
    relay.loop.pass_by(CLOSING_SECONDS * 0.9)
    assert relay.said == []
    relay.loop.pass_by(CLOSING_SECONDS * 0.3)
    assert relay.said == ["well"]
    assert relay.loop.timers == []


WORK = {
    "bytes wait for it": ("pending", b"x", None),
    "bytes of its own wait": ("peer", b"x", None),
    "the kernel has not delivered all": ("queued", 1, 0),
}


@pytest.mark.parametrize("what", WORK)
def test_who_has_not_got_all_is_not_hurried(relay: FakeRelay, leg: FakeLeg, queued: list[int], what: str) -> None:
    kind, busy, idle = WORK[what]

    def set_to(value: object) -> None:
        if kind == "queued":
            queued[0] = cast("int", value)
        else:
            (leg if kind == "pending" else leg.peer).pending = value

    set_to(busy)
    Closing(cast("Any", leg)).look()
    relay.loop.pass_by(CLOSING_SECONDS * 20)
    assert relay.said == []
    set_to(idle)
    relay.loop.pass_by(CLOSING_SECONDS * 0.8)
    assert relay.said == []
    relay.loop.pass_by(CLOSING_SECONDS * 0.4)
    assert relay.said == ["well"]


@pytest.mark.usefixtures("queued")
def test_who_still_says_something_is_not_quiet(relay: FakeRelay, leg: FakeLeg) -> None:
    Closing(cast("Any", leg)).look()
    for _ in range(10):
        relay.loop.pass_by(CLOSING_SECONDS * 0.7)
        leg.received_bytes += 1
    assert relay.said == []
    relay.loop.pass_by(CLOSING_SECONDS * 1.3)
    assert relay.said == ["well"]


@pytest.mark.usefixtures("queued")
def test_closing_ends_nothing_twice(relay: FakeRelay, leg: FakeLeg) -> None:
    Closing(cast("Any", leg)).look()
    relay.is_over = True
    relay.loop.pass_by(CLOSING_SECONDS * 2)
    assert relay.said == []
    assert relay.loop.timers == []
