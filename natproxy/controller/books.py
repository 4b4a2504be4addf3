"""Sees to it that workers know the books of addresses that replies are rewritten by. I/O: the state file, workers.

What belongs in a book is ``plan.books``'s to say. A version is written down before anybody is told it: clients of
memcached act on a list only when its version has grown, also over a restart.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain

from natproxy.controller.knowledge import Knowledge
from natproxy.controller.workers import Workers
from natproxy.messages import Book
from natproxy.model import Route
from natproxy.plan.books import BookEntries, books

AT_ONCE = 3
PAUSE_SECONDS = 0.1
"""So many looks are taken in so long, at most: at a start, hundreds of names are resolved in a second."""
MOST_FROM_TIME = 2**31 - 2**20
"""Clients may keep a version in 32 bits, and the node's own is added to this one."""


def next_version(known: int, unix_time: float) -> int:
    """Return a version above ``known``, and above all that a state file that was lost can have held."""
    return max(known + 1, min(int(unix_time), MOST_FROM_TIME))


class Books:
    """The books as workers were last told them. ``clock`` is the one that ``knowledge`` goes by.

    ``running`` returns the routes that lead somewhere, and those that drain; ``on_told`` is called whenever the books
    are up to date again.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        workers: Workers,
        running: Callable[[], tuple[Iterable[Route], Iterable[Route]]],
        *,
        on_told: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._knowledge = knowledge
        self._workers = workers
        self._running = running
        self._on_told = on_told
        self._clock = clock
        self._told: dict[str, Book] = {}
        self._versions = dict(knowledge.memcached_versions)
        self._looked_at = deque([float("-inf")] * AT_ONCE, maxlen=AT_ONCE)
        self._later: asyncio.TimerHandle | None = None

    def tell(self, coming: Iterable[Route] = ()) -> None:
        """Tell the books that are not as they were last told; ``coming`` are routes that are about to be served.

        A book has to be there before the port that names it. What drains leads nowhere, but keeps its cache's book.
        """
        self.close()
        self._looked_at.append(asyncio.get_running_loop().time())
        running, draining = self._running()
        served = {route.port: route for route in chain(running, coming)}
        known = self._knowledge
        found = books(known.config, known.filled, served.values(), known.book, self._clock())
        news = [self._next(name, entries) for name, entries in found.items() if self._is_new(name, entries)]
        lasting = {route.book for route in served.values() if route.rewrite == "memcached"}
        if versions := {book.name: book.version for book in news if book.name in lasting}:
            known.save_versions(versions)
        for book in news:
            self._versions[book.name] = book.version
            self._told[book.name] = book
            self._workers.set_book(book)
        for name in self._told.keys() - found.keys() - {route.book for route in draining}:
            del self._told[name]
            self._workers.forget_book(name)
        self._on_told()

    @property
    def are_behind(self) -> bool:
        """True where something is to be told a moment later."""
        return self._later is not None

    def tell_soon(self) -> None:
        """Tell them at once, or a moment later where they have just been looked at again and again."""
        loop = asyncio.get_running_loop()
        due = self._looked_at[0] + PAUSE_SECONDS
        if loop.time() >= due:
            self.tell()
        elif self._later is None:
            self._later = loop.call_at(due, self.tell)

    def close(self) -> None:
        """Tell nothing later."""
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _is_new(self, name: str, entries: BookEntries) -> bool:
        told = self._told.get(name)
        told_before = None if told is None else (told.ports, (told.public_host, told.public_ip))
        return told_before != (entries.ports, self._knowledge.config.advertised)

    def _next(self, name: str, entries: BookEntries) -> Book:
        version = next_version(self._versions.get(name, 0), self._knowledge.unix_time())
        return Book(name, entries.ports, *self._knowledge.config.advertised, version)
