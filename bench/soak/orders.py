"""What a client program is told, and what it tells at its end. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

REPLY_SECONDS = 20.0
"""How long a reply may take: longer than any change of nodes keeps clients waiting."""
MOST_TOLD = 20
"""Of each sort of flaw."""


class Order(msgspec.Struct, frozen=True):
    """A program's only argument, as JSON."""

    name: str
    """Begins all its keys."""
    seed: int
    """Of its randomness."""
    seconds: float
    host: str
    ports: tuple[int, ...]
    """natproxy's for the nodes."""
    hidden: tuple[str, ...]
    """What the nodes' addresses begin with, which clients must never be told."""


class Told(msgspec.Struct):
    """The line that a program prints before it ends with 0."""

    visits: dict[str, int] = msgspec.field(default_factory=Counter)
    """What came and went: kind -> how often."""
    errors: dict[str, int] = msgspec.field(default_factory=Counter)
    """What failed as it may while nodes change: name -> how often."""
    silent: list[str] = []
    """Replies that never came."""
    wrong: list[str] = []
    """Replies that are not what was asked for, or no replies at all."""
    leaked: list[str] = []
    """Replies with a node's own address."""
    provoked: dict[str, int] = msgspec.field(default_factory=Counter)
    """wire.rewriter.Fallback -> connections that natproxy has reason not to read to their end."""
    ledger: dict[str, Any] | None = None
    """What it wrote: Ledger.plain."""

    def add(self, other: Told) -> None:
        """Count another program's in."""
        self.visits = Counter(self.visits) + Counter(other.visits)
        self.errors = Counter(self.errors) + Counter(other.errors)
        self.provoked = Counter(self.provoked) + Counter(other.provoked)
        self.silent += other.silent
        self.wrong += other.wrong
        self.leaked += other.leaked


def encode(what: Order | Told) -> str:
    """Return a line of JSON."""
    return msgspec.json.encode(what).decode()


def order_of(text: str) -> Order:
    """Return the order that a program was given."""
    return msgspec.json.decode(text, type=Order)


def told_of(line: str) -> Told:
    """Return what a program has told."""
    return msgspec.json.decode(line, type=Told)
