"""Asks AWS: boto3 in a thread of its own -> raw answers. I/O: talks to ElastiCache, STS and Secrets Manager.

One thread, niced, in which alone boto3 is imported and used: parsing its XML holds the interpreter for milliseconds,
and nothing else may wait for it. Whatever goes wrong in there is told as one of ``model.DiscoveryFailure``: boto3
raises more than its own errors (a bare KeyError for a page of HTML), so that border catches Exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from natproxy.config import Aws
from natproxy.discover.parse import RawAnswers
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure

if TYPE_CHECKING:
    from natproxy.discover.asking import Asker

NICENESS = 10
T = TypeVar("T")


class ElastiCache:
    """AWS, as far as it knows of caches, and of how to log in to them.

    ``now`` is the Unix time: an assumed role and the tags are renewed by it.
    """

    def __init__(
        self,
        aws: Aws,
        *,
        now: Callable[[], float] = time.time,
        connect_seconds: float = 3.0,
        read_seconds: float = 10.0,
        attempts: int = 2,
        round_seconds: float = 90.0,
        keep_tags_seconds: float = 300.0,
    ) -> None:
        self._aws = aws
        self._now = now
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._attempts = attempts
        self._round_seconds = round_seconds
        self._keep_tags_seconds = keep_tags_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="natproxy-discovery", initializer=_be_nice)
        self._asker: Asker | None = None
        self._stops: dict[Future[Any], threading.Event] = {}
        self._is_closed = False

    async def fetch(self, want_tags: bool) -> RawAnswers:
        """Ask for everything once. A listing that failed among good ones is None, and in ``failures``.

        Raises DiscoveryError where nothing could be asked. When cancelled it returns at once, and what is under way
        in the thread is cut short; the next fetch waits for that end.
        """
        return await self._in_thread(lambda asker, stop: asker.ask(want_tags=want_tags, stop=stop))

    async def secret(self, arn: str) -> str:
        """Return the text of a secret in Secrets Manager, asked for after what is under way. Raises DiscoveryError.

        It must not get into a log.
        """
        return await self._in_thread(lambda asker, stop: asker.secret(arn, stop=stop))

    async def _in_thread(self, ask: Callable[[Asker, threading.Event], T]) -> T:
        if self._is_closed:
            raise DiscoveryError(DiscoveryFailure.UNREACHABLE, "discovery is closed")
        stop = threading.Event()
        job = self._thread.submit(lambda: ask(self._the_asker(), stop))
        self._stops[job] = stop
        try:
            async with asyncio.timeout(self._round_seconds):
                return await asyncio.wrap_future(job)
        except TimeoutError:
            message = f"no complete answer within {self._round_seconds:g} s"
            raise DiscoveryError(DiscoveryFailure.TIMEOUT, message) from None
        finally:
            del self._stops[job]
            if not (job.cancel() or job.done()):  # one that waits its turn has nothing under way
                self._cut_short(stop)

    async def close(self) -> None:
        """Cut short what is under way and join the thread. Idempotent."""
        self._is_closed = True
        for stop in list(self._stops.values()):
            self._cut_short(stop)
        with contextlib.suppress(RuntimeError):  # closed before
            await asyncio.wrap_future(self._thread.submit(self._close))
        self._thread.shutdown()

    def _cut_short(self, stop: threading.Event) -> None:
        stop.set()
        if self._asker is not None:
            self._asker.interrupt()

    # in the discovery thread

    def _the_asker(self) -> Asker:
        if self._asker is None:
            from natproxy.discover.asking import Asker  # noqa: PLC0415 - boto3 is imported here and nowhere else

            self._asker = Asker(
                self._aws,
                now=self._now,
                connect_seconds=self._connect_seconds,
                read_seconds=self._read_seconds,
                attempts=self._attempts,
                keep_tags_seconds=self._keep_tags_seconds,
            )
        return self._asker

    def _close(self) -> None:
        if self._asker is not None:
            self._asker.close()


def _be_nice() -> None:
    """On Linux niceness belongs to a thread, by its native id; what starts this one may be nicer already."""
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
