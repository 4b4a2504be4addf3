"""Waiting for what another process does, without ever sleeping longer than needed. I/O: the clock, threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pymemcache.exceptions import MemcacheError
from redis.exceptions import RedisError

T = TypeVar("T")

NOT_YET = (AssertionError, OSError, RedisError, MemcacheError)
PATIENCE_SECONDS = 20.0
"""For what takes a moment on an idle machine; a busy one may need longer."""
POLL_SECONDS = 0.02


def eventually(check: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Return the first truthy answer of ``check``; AssertionError with the last one after ``seconds``.

    A failed assertion or connection in ``check`` counts as "not yet".
    """
    deadline = time.monotonic() + seconds
    while True:
        answer: object
        try:
            answer = found = check()
        except NOT_YET as error:
            answer = error
        else:
            if found:
                return found
        if time.monotonic() > deadline:
            message = f"not within {seconds:g} s: {what}; last: {answer!r}"
            raise AssertionError(message)
        time.sleep(POLL_SECONDS)


class Heard(Generic[T]):
    """What a thread hears, one item after another, for others to wait on."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._changed = threading.Condition()
        self._is_over = False

    def add(self, item: T) -> None:
        """Take one more item."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """No more will come."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def all(self, since: int = 0) -> list[T]:
        """Return everything from the item ``since`` on."""
        with self._changed:
            return self._items[since:]

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    def wait_for(
        self, is_meant: Callable[[T], bool], what: str, *, since: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> T:
        """Block until an item is meant, and return the first that is; AssertionError when none came."""

        def found() -> list[T]:
            return [item for item in self._items[since:] if is_meant(item)]

        with self._changed:
            self._changed.wait_for(lambda: found() or self._is_over, seconds)
            if meant := found():
                return meant[0]
        message = f"never heard: {what}"
        raise AssertionError(message)
