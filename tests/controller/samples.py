"""A clock to turn, free ports, what is known of a config, and workers that only write down what they are told."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from natproxy import messages
from natproxy.controller.knowledge import Knowledge
from natproxy.controller.statefile import State, StateFile
from natproxy.controller.workers import Workers
from natproxy.model import Snapshot
from natproxy.plan.guard import Known
from tests.plan.samples import GUIDE, config


class Clock:
    """Time that passes only when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens, ascending."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]
    return sorted(found)


def free_range(count: int) -> range:
    """Ports of 127.0.0.1 in a row on which nobody listens, below those that outgoing connections take."""
    while True:
        first = random.randrange(10_000, 32_000 - count)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return range(first, first + count)


def knowledge(
    directory: Path,
    text: str = GUIDE,
    snapshot: Snapshot | None = None,
    *,
    clock: Clock | None = None,
    state: State | None = None,
    on_save_failure: Callable[[], None] = lambda: None,
) -> Knowledge:
    """What a daemon with that config knows, with its state file in ``directory``."""
    known = Knowledge(
        config(text),
        StateFile(directory / "state.json"),
        state if state is not None else State(),
        on_save_failure=on_save_failure,
        clock=clock if clock is not None else Clock(),
        unix_time=lambda: 1_700_000_000.0,
    )
    if snapshot is not None:
        known.known = Known(snapshot)
    return known


class Recorder(Workers):
    """Writes down what it is told: ``(message, how many sockets came along)``."""

    def __init__(self) -> None:
        super().__init__(0, lambda _worker, _message: None, lambda _worker, _why: None)
        self.told: list[tuple[messages.Down, int]] = []

    def serve(self, serve: messages.Serve, sockets: Sequence[socket.socket]) -> None:
        self.told.append((serve, len(sockets)))

    def unserve(self, port: int, outcome: str) -> None:
        self.told.append((messages.Unserve(port, outcome), 0))

    def set_book(self, book: messages.Book) -> None:
        self.told.append((book, 0))

    def forget_book(self, name: str) -> None:
        self.told.append((messages.Book(name, (), "", "", 0), 0))

    def end(self, order: messages.End) -> None:
        self.told.append((order, 0))

    def take(self) -> list[messages.Down]:
        """What was told since the last time."""
        told, self.told = self.told, []
        return [message for message, _ in told]

    def take_orders(self) -> list[messages.End]:
        """The End orders among what was told since the last time."""
        return [message for message in self.take() if isinstance(message, messages.End)]
