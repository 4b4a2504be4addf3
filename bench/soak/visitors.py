"""Clients of redis-py, with asyncio and without, that come, write, read and go.

    python -m bench.soak.visitors ORDER

I/O: talks to a cluster; prints JSON (orders.py). The clients without asyncio have a thread each.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

import redis
from redis import exceptions
from redis.asyncio.cluster import RedisCluster as AsyncioCluster

from bench.soak.ledger import Ledger
from bench.soak.orders import MOST_TOLD, REPLY_SECONDS, Order, Told, encode, order_of

THREADS, TASKS = 3, 6
KEYS = 40
"""Of each visitor, in as many slots."""
SIZES = (8, 8, 8, 200, 20_000, 300_000)
MOST_OPERATIONS = 60
HASTY = 0.02
"""This part of the operations is given up after HASTY_SECONDS, mostly in the midst of the reply (asyncio only)."""
HASTY_SECONDS = 0.002
PAUSE_SECONDS = 0.003
"""Between two operations: a few programs, the nodes and natproxy share the machine."""
ERROR_PAUSE_SECONDS = 0.1

PROTOCOL_ERRORS = (exceptions.InvalidResponse, UnicodeDecodeError)
SILENCE = (exceptions.TimeoutError, TimeoutError)


class GivenUpError(Exception):
    """A hasty client did not wait."""


class Client(Protocol):
    """What both kinds of clients do, each in its own way."""

    async def put(self, keys: list[str], value: bytes) -> None:
        """Write one key, or several of one slot in a transaction, or several at once."""

    async def get(self, key: str) -> bytes | None:
        """Read one."""

    async def close(self) -> None:
        """End."""


class Blocking:
    """redis-py's, without asyncio."""

    def __init__(self, host: str, port: int) -> None:
        self._client: Any = redis.RedisCluster(host=host, port=port, socket_timeout=REPLY_SECONDS)

    async def put(self, keys: list[str], value: bytes) -> None:
        if len(keys) == 1:
            self._client.set(keys[0], value)
            return
        with self._client.pipeline(transaction=is_of_one_slot(keys)) as batch:
            for key in keys:
                batch.set(key, value)
            batch.execute()

    async def get(self, key: str) -> bytes | None:
        found: bytes | None = self._client.get(key)
        return found

    async def close(self) -> None:
        self._client.close()


class OfAsyncio:
    """redis-py's, with asyncio.

    ASKING and the command after it go over whatever connections to a node are free (redis-py 8.1), so what opens more
    than one has a client of its own.
    """

    def __init__(self, host: str, port: int) -> None:
        self._one: Any = AsyncioCluster(host=host, port=port, socket_timeout=REPLY_SECONDS)
        self._many: Any = AsyncioCluster(host=host, port=port, socket_timeout=REPLY_SECONDS)

    async def put(self, keys: list[str], value: bytes) -> None:
        if len(keys) == 1:
            await self._one.set(keys[0], value)
            return
        batch: Any
        async with self._many.pipeline(transaction=is_of_one_slot(keys)) as batch:
            for key in keys:
                batch.set(key, value)
            await batch.execute()

    async def get(self, key: str) -> bytes | None:
        found: bytes | None = await self._one.get(key)
        return found

    async def close(self) -> None:
        await self._one.aclose()
        await self._many.aclose()


def is_of_one_slot(keys: Iterable[str]) -> bool:
    """Whether all have the same hash tag."""
    return len({key.partition("}")[0] for key in keys}) == 1


class Visitor:
    """One that comes again and again, as another client each time."""

    def __init__(self, kind: str, number: int, order: Order, make: Callable[[str, int], Client]) -> None:
        self._kind = kind
        self._order = order
        self._make = make
        self._is_hasty = make is OfAsyncio
        self._chance = random.Random(f"{order.seed} {kind} {number}")
        self._tags = [f"{{{order.name}/{kind}/{number}/{tag}}}" for tag in range(KEYS)]
        self._generations = [0] * KEYS
        self.ledger = Ledger()
        self.told = Told()

    async def go_on(self, until: float) -> None:
        """Visit until then (time.monotonic)."""
        while time.monotonic() < until:
            self.told.visits[self._kind] += 1
            try:
                client = self._make(self._order.host, self._chance.choice(self._order.ports))
            except Exception as error:  # whatever it is, it is told of
                await self._fail("connect", error)
                continue
            for _ in range(self._chance.randrange(1, MOST_OPERATIONS)):
                if time.monotonic() >= until:
                    break
                await (self._write(client) if self._chance.random() < 0.6 else self._read(client))
                await asyncio.sleep(PAUSE_SECONDS)
            with contextlib.suppress(OSError, exceptions.RedisError):
                await client.close()

    def _key(self, number: int) -> str:
        """Return the key of this number that has not failed."""
        key = f"{self._tags[number]}:{self._generations[number]}"
        if self.ledger.is_doubtful(key):
            self._generations[number] += 1
            return self._key(number)
        return key

    def _keys(self) -> list[str]:
        """Return what is written at once: one key, several of one slot, or of several slots."""
        draw = self._chance.random()
        key = self._key(self._chance.randrange(KEYS))
        if draw < 0.6:
            return [key]
        if draw < 0.8:
            return [key, *(other for other in (f"{key}+", f"{key}++") if not self.ledger.is_doubtful(other))]
        return [self._key(number) for number in self._chance.sample(range(KEYS), 12)]

    async def _write(self, client: Client) -> None:
        keys = self._keys()
        value = self.ledger.attempt(keys, self._chance.choice(SIZES) if len(keys) == 1 else 8)
        try:
            await self._within(client.put(keys, value))
        except Exception as error:  # whatever it is, it is told of
            await self._fail("write", error)
        else:
            self.ledger.acknowledge(keys)

    async def _read(self, client: Client) -> None:
        key = self._key(self._chance.randrange(KEYS))
        try:
            found = await self._within(client.get(key))
        except Exception as error:  # whatever it is, it is told of
            await self._fail("read", error)
        else:
            if flaw := self.ledger.flaw(key, found):
                self._tell(self.told.wrong, flaw)

    async def _within(self, act: Coroutine[Any, Any, bytes | None]) -> bytes | None:
        if not (self._is_hasty and self._chance.random() < HASTY):
            return await act
        try:
            return await asyncio.wait_for(act, HASTY_SECONDS)
        except TimeoutError:
            raise GivenUpError from None

    async def _fail(self, what: str, error: Exception) -> None:
        text = f"{self._kind}: {what}: {type(error).__name__}: {error}"[:300]
        if isinstance(error, SILENCE):
            self._tell(self.told.silent, text)
        elif isinstance(error, PROTOCOL_ERRORS) or "protocol error" in str(error).lower():
            self._tell(self.told.wrong, text)
        self.told.errors[type(error).__name__] += 1
        await asyncio.sleep(ERROR_PAUSE_SECONDS)

    def _tell(self, where: list[str], text: str) -> None:
        if len(where) < MOST_TOLD:
            where.append(text)


def main(text: str) -> None:
    """Do what the order says."""
    order = order_of(text)
    until = time.monotonic() + order.seconds
    blocking = [Visitor("redis-py", number, order, Blocking) for number in range(THREADS)]
    asynchronous = [Visitor("redis-py asyncio", number, order, OfAsyncio) for number in range(TASKS)]
    threads = [threading.Thread(target=_alone, args=(visitor.go_on(until),), daemon=True) for visitor in blocking]
    for thread in threads:
        thread.start()
    asyncio.run(_together([visitor.go_on(until) for visitor in asynchronous]))
    for thread in threads:
        thread.join()
    told, ledger = Told(), Ledger()
    for visitor in (*blocking, *asynchronous):
        told.add(visitor.told)
        ledger.add(visitor.ledger)
    told.ledger = ledger.plain()
    print(encode(told))


def _alone(visits: Coroutine[Any, Any, None]) -> None:
    asyncio.run(visits)


async def _together(visits: list[Awaitable[None]]) -> None:
    await asyncio.gather(*visits)


if __name__ == "__main__":
    main(sys.argv[1])
