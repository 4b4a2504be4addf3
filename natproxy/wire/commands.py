"""Which commands are not answered by just one reply that nobody need look at, and how they are answered. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from natproxy.wire.rewriter import Fallback, Reply


class How(IntEnum):
    """How a command is answered."""

    TOPOLOGY = 1
    """By one reply that carries addresses."""
    MULTI = 2
    EXEC = 3
    DISCARD = 4
    RESET = 5
    SUBSCRIBE = 6
    """By a confirmation for each name, or one error."""
    MONITOR = 7


class Awaited(NamedTuple):
    """What a special command is answered by."""

    how: How
    reply: Reply | None = None
    """For TOPOLOGY."""
    word: bytes = b""
    """For SUBSCRIBE: what its confirmations begin with."""
    confirmations: int = 0
    """For SUBSCRIBE: how many there will be; 0 = as many as there are subscriptions of that sort, at least one."""


_TOPOLOGIES = {
    b"SLOTS": Reply.SLOTS,
    b"SHARDS": Reply.SHARDS,
    b"NODES": Reply.NODES,
    b"REPLICAS": Reply.REPLICAS,
    b"SLAVES": Reply.REPLICAS,
}
_BY_NAME = {
    b"ROLE": Awaited(How.TOPOLOGY, Reply.ROLE),
    b"INFO": Awaited(How.TOPOLOGY, Reply.INFO),
    b"MULTI": Awaited(How.MULTI),
    b"EXEC": Awaited(How.EXEC),
    b"DISCARD": Awaited(How.DISCARD),
    b"RESET": Awaited(How.RESET),
    b"MONITOR": Awaited(How.MONITOR),
}
_SUBSCRIBING = frozenset({b"SUBSCRIBE", b"UNSUBSCRIBE", b"PSUBSCRIBE", b"PUNSUBSCRIBE", b"SSUBSCRIBE", b"SUNSUBSCRIBE"})
CONFIRMATIONS = frozenset(name.lower() for name in _SUBSCRIBING)
MESSAGES = frozenset({b"message", b"pmessage", b"smessage"})
WITH_SUBCOMMAND = frozenset({b"CLUSTER", b"CLIENT"})
"""Commands of which the second word matters."""
LONGEST_NAME = 32
"""A longer word is none of these."""


def classify(name: bytes, second: bytes, words: int) -> Awaited | Fallback | None:
    """Say how a command is answered; None = by one plain reply. A Fallback: what comes cannot be told.

    ``name`` and ``second`` are its first words in upper case, the latter empty where there is none or where it does not
    matter; ``words`` how many it has in all.
    """
    if name == b"CLUSTER":
        reply = _TOPOLOGIES.get(second)
        return None if reply is None else Awaited(How.TOPOLOGY, reply)
    if name in _SUBSCRIBING:
        return Awaited(How.SUBSCRIBE, word=name.lower(), confirmations=words - 1)
    if name == b"CLIENT":
        return Fallback.REPLY_OFF if second == b"REPLY" else None
    if name in (b"SYNC", b"PSYNC", b"REPLCONF"):
        return Fallback.REPLICATION
    return _BY_NAME.get(name)
