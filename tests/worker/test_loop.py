"""The small epoll loop: events, turns, timers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from natproxy.worker.loop import READ, READ_WRITE, Loop
from natproxy.worker.polling import IN, OUT


class Noting:
    """Notes its events, then does something."""

    def __init__(self, act: Callable[[int], None] = lambda events: None) -> None:
        self.events: list[int] = []
        self.failures: list[Exception] = []
        self._act = act

    def ready(self, events: int) -> None:
        self.events.append(events)
        self._act(events)

    def fail(self, error: Exception) -> None:
        self.failures.append(error)


class Clock:
    """Stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def turn(loop: Loop) -> None:
    """Turn once, without waiting for what does not come."""
    loop.again(lambda: None)
    loop.turn()


def test_an_edge_is_told_once_and_a_new_one_again(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    receiver = Noting()
    loop.watch(ours.fileno(), READ, receiver)
    theirs.send(b"x")
    turn(loop)
    turn(loop)
    assert receiver.events == [IN]
    theirs.send(b"y")
    turn(loop)
    assert receiver.events == [IN, IN]


def test_what_was_there_before_the_watching_is_told(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    receiver = Noting()
    loop.watch(ours.fileno(), READ, receiver)
    turn(loop)
    assert receiver.events == [IN]
    loop.rewatch(ours.fileno(), READ_WRITE)
    turn(loop)
    assert receiver.events == [IN, IN | OUT]


def test_events_go_to_whom_the_descriptor_was_handed_over(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    first, second = Noting(), Noting()
    loop.watch(ours.fileno(), READ, first)
    loop.hand_over(ours.fileno(), second)
    theirs.send(b"x")
    turn(loop)
    assert (first.events, second.events) == ([], [IN])


@pytest.mark.parametrize("leave", [Loop.forget, Loop.unwatch])
def test_nothing_is_told_of_what_is_no_longer_watched(
    loop: Loop, pair: tuple[socket.socket, socket.socket], leave: Callable[[Loop, int], None]
) -> None:
    ours, theirs = pair
    receiver = Noting()
    loop.watch(ours.fileno(), READ, receiver)
    leave(loop, ours.fileno())
    leave(loop, ours.fileno())
    theirs.send(b"x")
    turn(loop)
    assert receiver.events == []


def test_an_unwatched_descriptor_can_be_watched_again(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop.watch(ours.fileno(), IN, Noting())
    loop.unwatch(ours.fileno())
    receiver = Noting()
    loop.watch(ours.fileno(), IN, receiver)
    theirs.send(b"x")
    turn(loop)
    assert receiver.events == [IN]


def test_who_is_closed_by_another_s_event_of_the_same_turn_is_left_alone(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    receivers: list[Noting] = []

    def close_the_others(_: int) -> None:
        for (ours, _theirs), receiver in zip(pairs, receivers, strict=True):
            if not receiver.events:
                loop.forget(ours.fileno())
                ours.close()

    for ours, theirs in pairs:
        receivers.append(Noting(close_the_others))
        loop.watch(ours.fileno(), READ, receivers[-1])
        theirs.send(b"x")
    turn(loop)
    assert sorted(receiver.events for receiver in receivers) == [[], [IN]]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_again_runs_in_the_next_turn_and_in_order(loop: Loop) -> None:
    said: list[str] = []

    def first() -> None:
        said.append("first")
        loop.again(lambda: said.append("again"))

    loop.again(first)
    loop.again(lambda: said.append("second"))
    loop.turn()
    assert said == ["first", "second"]
    loop.turn()
    assert said == ["first", "second", "again"]


def test_whoever_is_ready_comes_before_those_who_queued_up(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    said: list[str] = []
    loop.watch(ours.fileno(), READ, Noting(lambda _: said.append("event")))
    theirs.send(b"x")
    loop.again(lambda: said.append("again"))
    loop.turn()
    assert said == ["event", "again"]


def test_timers_run_in_order_when_they_are_due_and_not_before() -> None:
    clock = Clock()
    loop = Loop(clock)
    said: list[str] = []
    loop.call_later(3.0, lambda: said.append("third"))
    loop.call_later(1.0, lambda: said.append("first"))
    loop.call_later(1.0, lambda: said.append("second"))
    turn(loop)
    assert said == []
    clock.now = 101.0
    turn(loop)
    assert said == ["first", "second"]
    clock.now = 200.0
    turn(loop)
    assert said == ["first", "second", "third"]
    loop.close()


def test_timers_of_several_delays_run_in_the_order_in_which_they_are_due() -> None:
    clock = Clock()
    loop = Loop(clock)
    ran: list[float] = []
    loop.call_later(1.0, lambda: ran.append(1.0))
    loop.call_later(2.0, lambda: ran.append(2.0))
    clock.now += 2.5
    loop.call_later(1.0, lambda: ran.append(3.5))
    clock.now += 2.5
    turn(loop)
    assert ran == [1.0, 2.0, 3.5]
    loop.close()


def test_a_cancelled_timer_never_runs_even_by_one_of_the_same_turn() -> None:
    clock = Clock()
    loop = Loop(clock)
    said: list[str] = []
    timer = loop.call_later(2.0, lambda: said.append("cancelled"))
    loop.call_later(1.0, timer.cancel)
    done = loop.call_later(1.0, lambda: said.append("done"))
    clock.now = 110.0
    turn(loop)
    done.cancel()
    assert said == ["done"]
    loop.close()


def test_a_turn_waits_for_the_next_timer_and_no_longer(loop: Loop) -> None:
    said: list[str] = []
    loop.call_later(0.01, lambda: said.append("due"))
    loop.call_later(3600.0, lambda: said.append("not due"))
    while not said:
        loop.turn()
    assert said == ["due"]


def test_run_ends_after_the_turn_in_which_it_is_told_to(loop: Loop) -> None:
    said: list[str] = []

    def stop() -> None:
        loop.stop()
        loop.again(lambda: said.append("another turn"))

    loop.again(stop)
    loop.again(lambda: said.append("the same turn"))
    loop.run()
    assert said == ["the same turn"]


def test_a_receiver_that_raises_is_told_and_the_others_have_their_events(loop: Loop) -> None:
    def raise_it(_events: int) -> None:
        raise KeyError("unforeseen")

    pairs = [socket.socketpair() for _ in range(3)]
    receivers = [Noting(), Noting(raise_it), Noting()]
    for (ours, theirs), receiver in zip(pairs, receivers, strict=True):
        loop.watch(ours.fileno(), READ, receiver)
        theirs.send(b"x")
    loop.turn()
    assert [len(receiver.events) for receiver in receivers] == [1, 1, 1]
    assert [len(receiver.failures) for receiver in receivers] == [0, 1, 0]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
