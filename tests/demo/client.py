"""A client that asks its port all the time, and notices how long there was no answer. I/O: a thread, TCP.

It does what any application does: one connection, kept as long as it works, and another one when it does not. Nothing
in it knows of natproxy.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

import redis
from pymemcache.client.base import Client as PymemcacheClient
from pymemcache.exceptions import MemcacheError
from redis.backoff import NoBackoff
from redis.retry import Retry

HOST = "127.0.0.1"
KEY = "demo:counter"
ASK_EVERY_SECONDS = 0.05
PATIENCE_SECONDS = 1.0
"""How long a client waits for one answer before it gives its connection up."""

NO_ANSWER = (OSError, redis.RedisError, MemcacheError, LookupError)


class Asks(Protocol):
    """One question and its answer, as often as wanted."""

    def ask(self) -> None:
        """Ask once; raises one of NO_ANSWER."""

    def close(self) -> None:
        """Give the connection up."""


class RedisReader:
    """Reads the counter: from a replica, say."""

    redis: redis.Redis | redis.RedisCluster

    def __init__(self, port: int) -> None:
        once = Retry(NoBackoff(), 0)  # by default redis-py tries again by itself, and would hide what happens
        self.redis = redis.Redis(
            HOST, port, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS, retry=once
        )

    def ask(self) -> None:
        if self.redis.get(KEY) is None:
            raise LookupError("the counter is not there (yet)")

    def close(self) -> None:
        self.redis.close()


class RedisCounter(RedisReader):
    """Counts up, and reads what it wrote: only a primary lets it."""

    count = 0

    def ask(self) -> None:
        self.count += 1
        self.redis.set(KEY, self.count)
        found = self.redis.get(KEY)
        if found != str(self.count).encode():
            raise LookupError(f"the counter is {found!r}, not {self.count}")


class ClusterCounter(RedisCounter):
    """Counts up by a cluster client: it asks for the nodes, and dials what it is told."""

    def __init__(self, port: int) -> None:
        self.cluster = redis.RedisCluster(
            HOST, port, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        )
        self.redis = self.cluster

    def told(self) -> list[str]:
        """Return the addresses of the nodes that it was told of."""
        return [str(node.name) for node in self.cluster.nodes_manager.nodes_cache.values()]


class MemcachedCounter:
    """Counts up in memcached, and reads what it wrote."""

    def __init__(self, port: int) -> None:
        self.memcached = PymemcacheClient((HOST, port), connect_timeout=PATIENCE_SECONDS, timeout=PATIENCE_SECONDS)
        self.count = 0

    def ask(self) -> None:
        self.count += 1
        self.memcached.set(KEY, str(self.count), noreply=False)
        found = self.memcached.get(KEY)
        if found != str(self.count).encode():
            raise LookupError(f"the counter is {found!r}, not {self.count}")

    def close(self) -> None:
        self.memcached.close()


@dataclass(frozen=True)
class Silence:
    """A time without an answer: from the last answer to the next one."""

    since: float
    """When it was noticed (``time.monotonic``)."""
    seconds: float


class Client:
    """Asks from ``start`` to ``stop``, in a thread of its own."""

    def __init__(self, port: int, what: str, asks: Asks) -> None:
        self.port = port
        self.what = what
        """Whom it talks to, in words."""
        self.answers = 0
        self.silences: list[Silence] = []
        self._asks = asks
        self._answered_at = time.monotonic()
        self._silent_since: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk, name=f"client of port {port}", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. Idempotent."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def is_answered_since(self, moment: float) -> bool:
        """Whether there was an answer after ``moment``, and none has been missing since."""
        return self._answered_at > moment and self._silent_since is None

    def silence_since(self, moment: float) -> float:
        """Return the longest time without an answer, in seconds, among those that began after ``moment``."""
        return max((silence.seconds for silence in self.silences if silence.since >= moment), default=0.0)

    def _talk(self) -> None:
        while not self._ended.wait(ASK_EVERY_SECONDS):
            try:
                self._asks.ask()
            except NO_ANSWER:
                self._silent_since = self._silent_since or time.monotonic()
            else:
                self._take_answer(time.monotonic())
        self._asks.close()

    def _take_answer(self, now: float) -> None:
        if self._silent_since is not None:
            self.silences.append(Silence(self._silent_since, now - self._answered_at))
            self._silent_since = None
        self.answers += 1
        self._answered_at = now
