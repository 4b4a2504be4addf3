"""Asks whether an address answers, by connecting to it and hanging up. I/O: connects to nodes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from natproxy.controller.logs import event
from natproxy.model import Address
from natproxy.tasks import TaskOwner

_log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""How often an address that is in doubt is asked."""
AT_ONCE = 32
"""Connections under way at the same time."""


class Prober:
    """Watches addresses in doubt; ``on_answer(address, answers)`` is called for each probe that ends."""

    def __init__(self, on_answer: Callable[[Address, bool], None], seconds: float = PROBE_SECONDS) -> None:
        self._on_answer = on_answer
        self._seconds = seconds
        self._timeouts: dict[Address, float] = {}
        """All that are in doubt."""
        self._due: dict[Address, float] = {}
        """When to ask those again that have been asked."""
        self._being_asked: set[Address] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks = TaskOwner(lambda name, error: event(_log, logging.ERROR, "task failed", task=name, error=error))

    def watch(self, addresses: Iterable[tuple[Address, float]]) -> None:
        """Take these (address, connect timeout in seconds) as all that are in doubt; ask those that are due."""
        self._timeouts = dict(addresses)
        self._due = {address: due for address, due in self._due.items() if address in self._timeouts}
        now = asyncio.get_running_loop().time()
        for address, timeout_seconds in self._timeouts.items():
            # One question at a time for each, or many that do not answer would pile up more than ever get a place.
            if address not in self._being_asked and self._due.get(address, now) <= now:
                self._being_asked.add(address)
                self._tasks.start(f"probe {address}", self._probe(address, timeout_seconds))

    async def _probe(self, address: Address, timeout_seconds: float) -> None:
        try:
            async with self._places:
                if address not in self._timeouts:
                    return
                answers = await _answers(address, timeout_seconds)
        finally:
            self._being_asked.discard(address)
        if address in self._timeouts:
            self._due[address] = asyncio.get_running_loop().time() + self._seconds
            self._on_answer(address, answers)

    async def close(self) -> None:
        """Ask no more."""
        self._timeouts.clear()
        await self._tasks.cancel_all()


async def _answers(address: Address, timeout_seconds: float) -> bool:
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(address.ip, address.port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
