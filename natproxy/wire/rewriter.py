"""The contract between a relay and what reads along: a rewriter per connection, and what it tells. Pure.

A relay hands a rewriter all that the client sends (``requests``: only looked at) and all that the node sends
(``replies``: what it returns goes on in its place). It is called for bytes in the order in which they come, split
anywhere. Never does it wait, raise on what peers send, or keep more than ``MOST_HELD_BYTES``.

Two shortcuts keep it cheap (worker/framed.py is what takes them):

- ``is_one_request(data)`` not None: that is one whole command, which asks nothing special, between commands: instead of
  calling ``requests``, 1 is added to ``ahead``. ``is_one_reply(data)`` not None, and ``ahead`` not 0: that is the plain
  reply to one of these, whole: instead of calling ``replies``, 1 is taken off. The rewriter changes both at will.
- ``request_opaque`` / ``reply_opaque``: so many bytes that come next are the inside of a value. Whoever moves them
  unseen subtracts them. Where it is 0, ``large_request(head)`` / ``large_reply(head)`` looks ahead: if ``head`` begins
  a plain command or reply whose only or last value is large, that is accounted for, and its whole length is opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Protocol

from natproxy.model import Role
from natproxy.wire.book import View

MOST_HELD_BYTES = 16 * 1024 * 1024
"""The longest topology reply that is put together and rewritten; a longer one goes on untouched.

CLUSTER SLOTS where no two neighbouring slots are on the same node, each with three replicas, is about 9 MB.
"""

FAR = 1 << 62
"""The bytes that may pass unseen where nobody reads along."""
MANY = 1 << 29
"""The plain replies awaited there: as many as Python still adds up at no cost."""

Bytes = bytes | memoryview


def never(_: Bytes) -> object | None:
    """A shortcut that is closed."""
    return None


def always(_: Bytes) -> object | None:
    """A shortcut for all."""
    return True


class Reply(StrEnum):
    """What was rewritten: a closed list, used as a metric label."""

    SLOTS = "cluster-slots"
    SHARDS = "cluster-shards"
    NODES = "cluster-nodes"
    REPLICAS = "cluster-replicas"
    MOVED = "moved"
    ASK = "ask"
    REDIRECT = "redirect"
    TRYAGAIN = "tryagain"
    """A redirection to a node that has no port (yet)."""
    ROLE = "role"
    INFO = "info"
    CONFIG = "config"
    """Memcached's ``config get cluster``."""


class Fallback(StrEnum):
    """Why a connection is not read any more: a closed list, used as a metric label."""

    MONITOR = "monitor"
    """The client watches all commands: what comes answers nothing."""
    REPLY_OFF = "reply-off"
    """CLIENT REPLY, noreply and the like: what is answered is not known for sure."""
    REPLICATION = "replication"
    """SYNC, PSYNC: a stream of its own; REPLCONF, which may have no reply."""
    REQUEST = "request"
    """The client sent what is no command."""
    ANSWER = "answer"
    """The node sent what is no reply, or one that nobody asked for."""
    TOO_LARGE = "too-large"
    """A reply longer than MOST_HELD_BYTES, or too many of them awaited."""


class Hint(StrEnum):
    """What makes it worth to ask AWS and DNS anew."""

    UNKNOWN_NODE = "unknown-node"
    """A reply names a node that the book does not have."""
    MOVED_TO_SELF = "moved-to-self"
    """A MOVED that points back to the node that sent it: DNS leads elsewhere by now."""
    READ_ONLY = "read-only"
    """A write was refused with READONLY: this is no primary any more."""


Told = tuple[str, int, Role]
"""(host as ``book.plain_host`` gives it, port, role) of one node."""


class Witness(Protocol):
    """Who is told what a rewriter did and saw. Calls are few: none for what is only passed on."""

    def rewritten(self, reply: Reply) -> None:
        """Count a reply whose addresses were rewritten."""

    def fell_back(self, reason: Fallback) -> None:
        """Count and log a connection that is passed on unread from now on."""

    def hint(self, hint: Hint) -> None:
        """Have AWS and DNS asked."""

    def learnt(self, roles: Iterable[Told]) -> None:
        """Take in the roles that a topology reply tells of."""


class Rewriter(Protocol):
    """Reads along with one connection."""

    reads_requests: bool
    """False where what the client sends need not be handed over at all: replies tell by themselves what they are."""
    ahead: int
    """Plain requests that are not answered yet (and stand before anything special)."""
    is_one_request: Callable[[Bytes], object | None]
    is_one_reply: Callable[[Bytes], object | None]
    request_opaque: int
    reply_opaque: int

    def large_request(self, head: bytes) -> bool:
        """Say whether a large command begins, of which ``head`` has not been taken from the socket yet."""

    def large_reply(self, head: bytes) -> bool:
        """Say the same of a reply."""

    def requests(self, data: Bytes) -> None:
        """Look at what the client sends."""

    def replies(self, data: Bytes) -> Bytes:
        """Return what is to go on to the client: ``data`` itself, or what it has become; empty = nothing yet.

        What is returned may be ``data``, which the caller may reuse afterwards: nothing of it is kept but by copy.
        """

    def rest(self) -> bytes:
        """Return what is held, once nothing more will come from the node."""


ViewNow = Callable[[], View]
"""Returns the connection's view as of now: the book may change at any time."""
