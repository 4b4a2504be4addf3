"""What each client program of Python does, whatever its library: a tour of what a cluster can do, then a life on it.

I/O: stdout, signals; the cluster, through a Library.

A program is given one JSON object, as its last argument:

    {"host": ..., "port": ..., "name": ..., "live": false, "tls": null | {"ca": PATH, "certificate": PATH, "key": PATH}}

and prints JSON objects, one a line, each with ``event`` and ``at`` (Unix time):

- ``tour``: all of it went well; ``addresses`` are the nodes' as the library knows them. ``failed``: it did not.
- with ``live``, until SIGTERM: ``round`` after each round over all of TAGS, ``error`` for each operation that failed,
  ``healed`` with the first that succeeds thereafter; then ``summary``: ``acknowledged`` writes, those ``lost``,
  ``errors``, and ``longest_gap``, the longest time without a success.

It ends with 0 where the tour went well and nothing was lost. journey.mjs is the same for Node.js.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

KEYS = 600
"""How many keys the tour sets: enough for each shard to have many."""
SINGLY = 150
"""How many of them are set and got one by one; the rest in pipelines."""
TAGS = 24
"""How many hash tags there are in transactions, and in each round of the life."""
CHANNELS = 8
PAUSE_SECONDS = 0.004
"""Between two writes of the life, so that ten programs fit on two processors."""
ERROR_PAUSE_SECONDS = 0.05
OPERATION_SECONDS = 15.0
MOST_SHOWN = 200

T = TypeVar("T")


@dataclass(frozen=True)
class Tls:
    """Files of a client that speaks TLS."""

    ca: str
    certificate: str
    key: str


@dataclass(frozen=True)
class Seed:
    """Where the cluster is, and who asks."""

    host: str
    port: int
    name: str
    """Begins all keys and channels."""
    tls: Tls | None


class Library(Protocol):
    """What each library does in its own way."""

    async def set(self, key: str, value: str) -> None:
        """Set a key."""

    async def get(self, key: str) -> str | None:
        """Get it."""

    async def transaction(self, tag: str) -> Sequence[object]:
        """MULTI, SET {tag}:text x, INCR {tag}:count, GET {tag}:text, EXEC: return the three replies."""

    async def pipeline(self, pairs: Mapping[str, str]) -> Sequence[object]:
        """Set all, then get all, many at once; return what was got."""

    async def hear(self, channels: Sequence[str], *, sharded: bool) -> Sequence[str]:
        """Subscribe to all, publish each channel's name in it, and return what was heard."""

    async def scan(self, pattern: str) -> Sequence[str]:
        """Return the keys of all shards."""

    async def addresses(self) -> Sequence[str]:
        """Return ``host:port`` of all nodes that it knows."""

    async def close(self) -> None:
        """End."""


def tell(event: str, **more: object) -> None:
    """Print one line."""
    print(json.dumps({"event": event, "at": time.time(), **more}), flush=True)


def live_tag(name: str, number: int) -> str:
    """Return a hash tag of the life: its slot is that of all its keys."""
    return f"{name}:live:{number}"


async def tour(library: Library, name: str) -> dict[str, object]:
    """Do everything once; raises where anything is not as it should be."""
    pairs = {f"{name}:{number}": str(number) for number in range(KEYS)}
    some = dict(list(pairs.items())[:SINGLY])
    for key, value in some.items():
        await within(library.set(key, value))
    for key, value in some.items():
        expect(await within(library.get(key)), value, key)
    expect(list(await within(library.pipeline(pairs))), list(pairs.values()), "pipeline")
    for number in range(TAGS):
        expect([*await within(library.transaction(f"{name}:t{number}"))][1:], [1, "x"], "transaction")
    for sharded in (False, True):
        channels = [f"{name}:c{number}" for number in range(CHANNELS)]
        expect(sorted(await within(library.hear(channels, sharded=sharded))), channels, f"pub/sub, sharded {sharded}")
    expect(sorted(await within(library.scan(f"{name}:[0-9]*"))), sorted(pairs), "scan")
    return {"addresses": sorted(await within(library.addresses()))}


def expect(found: object, wanted: object, what: str) -> None:
    """Raise where it is something else."""
    if found != wanted:
        raise AssertionError(f"{what}: {str(found)[:500]} instead of {str(wanted)[:500]}")


async def within(act: Awaitable[T]) -> T:
    """Wait, but not for ever."""
    return await asyncio.wait_for(act, OPERATION_SECONDS)


@dataclass
class Life:
    """Numbered keys, written and read until it is told to stop."""

    library: Library
    name: str
    acknowledged: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    errors: list[tuple[float, str]] = field(default_factory=list)
    longest_gap: float = 0.0
    last_success: float = field(default_factory=time.time)
    is_broken: bool = False

    async def go_on(self, is_over: Callable[[], bool]) -> None:
        """Live."""
        rounds = 0
        while not is_over():
            for number in range(TAGS):
                await self.step(live_tag(self.name, number), rounds)
            rounds += 1
            tell("round", number=rounds)

    async def step(self, tag: str, number: int) -> None:
        """Write one key; read one that was written before."""
        key, value = f"{{{tag}}}:{number}", str(number)
        earlier = f"{{{tag}}}:{number // 2}"
        try:
            await within(self.library.set(key, value))
            self.acknowledged[key] = value
            if earlier in self.acknowledged and await within(self.library.get(earlier)) != self.acknowledged[earlier]:
                self.lost.append(earlier)
        except Exception as error:  # whatever it is, it is told of
            self.fail(error)
            await asyncio.sleep(ERROR_PAUSE_SECONDS)
        else:
            self.succeed()
        await asyncio.sleep(PAUSE_SECONDS)

    def fail(self, error: Exception) -> None:
        """Take note of an operation that failed."""
        self.is_broken = True
        text = f"{type(error).__name__}: {error}"[:200]
        self.errors.append((time.time(), text))
        if len(self.errors) <= MOST_SHOWN:
            tell("error", error=text)

    def succeed(self) -> None:
        """Take note of one that succeeded."""
        now = time.time()
        gap, self.last_success = now - self.last_success, now
        self.longest_gap = max(self.longest_gap, gap)
        if self.is_broken:
            self.is_broken = False
            tell("healed", seconds=gap)

    async def verify(self) -> None:
        """Read all that was ever acknowledged."""
        for key, value in self.acknowledged.items():
            if await within(self.library.get(key)) != value:
                self.lost.append(key)

    def summary(self) -> dict[str, object]:
        """Return what is to be said of it."""
        return {
            "acknowledged": len(self.acknowledged),
            "lost": self.lost[:MOST_SHOWN],
            "errors": self.errors[:MOST_SHOWN],
            "longest_gap": self.longest_gap,
        }


def main(connect: Callable[[Seed], Awaitable[Library]]) -> None:
    """Do what the program's argument says; exit."""
    order = json.loads(sys.argv[-1])
    tls = order.get("tls")
    seed = Seed(order["host"], order["port"], order["name"], Tls(**tls) if tls else None)
    sys.exit(asyncio.run(run(connect, seed, is_live=order.get("live", False))))


async def run(connect: Callable[[Seed], Awaitable[Library]], seed: Seed, *, is_live: bool) -> int:
    """Do the tour, and live where that is wanted; return the exit status."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        library = await within(connect(seed))
        tell("tour", **await tour(library, seed.name))
        lost: list[str] = []
        if is_live:
            life = Life(library, seed.name)
            await life.go_on(lambda: bool(told))
            await life.verify()
            lost = life.lost
            tell("summary", **life.summary())
        await library.close()
    except Exception as error:  # told of, whatever it is
        tell("failed", error=f"{type(error).__name__}: {error}"[:2000])
        raise
    return 1 if lost else 0


def text(value: Any) -> str:
    """Return a reply as text: libraries give bytes or str."""
    return value.decode() if isinstance(value, bytes) else str(value)
