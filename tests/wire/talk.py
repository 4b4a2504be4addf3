"""Conversations between a Redis client and its node, and a rewriter that is fed them: every way, whole or split."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from natproxy.wire.book import Book, View
from natproxy.wire.rewriter import Fallback, Hint, Reply, Rewriter, Told
from natproxy.wire.topology import rewrite

PRIVATE = tuple(f"10.0.1.{number}" for number in (230, 231, 232))
BOOK = Book(
    ports={(ip, 6379): 6379 + index for index, ip in enumerate(PRIVATE)},
    public_host="cache.example.com",
    public_ip="203.0.113.73",
    version=1,
)


def view() -> View:
    """A connection to the first node, in the clear."""
    return View(book=BOOK, local_ip="10.0.0.55", own_ip=PRIVATE[0], own_port=6379, speaks_tls=False)


@dataclass
class Notes:
    """A witness that writes all down."""

    replies: list[Reply] = field(default_factory=list)
    fallbacks: list[Fallback] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    roles: list[Told] = field(default_factory=list)

    def rewritten(self, reply: Reply) -> None:
        self.replies.append(reply)

    def fell_back(self, reason: Fallback) -> None:
        self.fallbacks.append(reason)

    def hint(self, hint: Hint) -> None:
        self.hints.append(hint)

    def learnt(self, roles: Iterable[Told]) -> None:
        self.roles += roles


class Said(NamedTuple):
    """One command (or a client's silence), what the node answers, and what the client should get."""

    request: bytes
    reply: bytes
    expected: bytes


def command(*words: str | bytes) -> bytes:
    """Return a command as clients send it."""
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(map(bulk, raw))


def bulk(body: bytes) -> bytes:
    """Return a bulk string."""
    return b"$%d\r\n%b\r\n" % (len(body), body)


def array(*elements: bytes) -> bytes:
    """Return an array of encoded elements."""
    return b"*%d\r\n%b" % (len(elements), b"".join(elements))


def ask(rewriter: Rewriter, data: bytes) -> None:
    """Hand over what the client sends, as a leg does."""
    if rewriter.is_one_request(data) is not None:
        rewriter.ahead += 1
    else:
        rewriter.requests(data)


def answer(rewriter: Rewriter, data: bytes) -> bytes:
    """Hand over what the node sends, as a leg does, and return what goes on."""
    if rewriter.ahead and rewriter.is_one_reply(data) is not None:
        rewriter.ahead -= 1
        return data
    return bytes(rewriter.replies(data))


EVERYWHERE = range(-1)
"""Cuts after every byte."""


def splits(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut data at the places named (each taken modulo its length), or EVERYWHERE."""
    if cuts is EVERYWHERE:
        return [data[place : place + 1] for place in range(len(data))]
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in itertools.pairwise(at)]


def talk(rewriter: Rewriter, said: Sequence[Said], request_cuts: Sequence[int], reply_cuts: Sequence[int]) -> bytes:
    """Feed a conversation, pipelined as far as the cuts of the requests have it; return what the client gets.

    No reply comes before its request has; each part of the requests is followed by all replies that it allows, which
    are cut as well.
    """
    requests = b"".join(one.request for one in said)
    got, sent, asked = b"", 0, 0
    waiting = list(said)
    for part in splits(requests, request_cuts) or [b""]:
        if part:
            ask(rewriter, part)
        asked += len(part)
        due = b""
        while waiting and sent + len(waiting[0].request) <= asked:
            sent += len(waiting[0].request)
            due += waiting.pop(0).reply
        for piece in splits(due, reply_cuts):
            got += answer(rewriter, piece)
    return got + rewriter.rest()


# What nodes of a cluster and of a group say, and what becomes of it.

SLOTS = array(array(b":0\r\n", b":16383\r\n", array(bulk(PRIVATE[0].encode()), b":6379\r\n", bulk(b"a" * 40))))
NODES = bulk(
    b"".join(
        b"%040d %b:6379@16379 %b %b 0 0 1 connected%b\n"
        % (index, ip.encode(), b"myself,master" if not index else b"slave", b"-", b" 0-16383" if not index else b"")
        for index, ip in enumerate(PRIVATE)
    )
)
ROLE = array(bulk(b"master"), b":10\r\n", array(array(bulk(PRIVATE[1].encode()), bulk(b"6379"), bulk(b"10"))))
INFO = bulk(b"# Replication\r\nrole:slave\r\nmaster_host:10.0.1.230\r\nmaster_port:6379\r\n")
FORGED = b"\r\n-MOVED 1 10.0.1.231:6379\r\n" + SLOTS + INFO
MOVED = b"-MOVED 3999 10.0.1.231:6379\r\n"
MOVED_TO = b"-MOVED 3999 cache.example.com:6380\r\n"
ASK = b"-ASK 3999 10.0.1.232:6379\r\n"
ASK_TO = b"-ASK 3999 cache.example.com:6381\r\n"


def becomes(reply: Reply, data: bytes) -> bytes:
    """Return what topology.py makes of a reply."""
    done = rewrite(reply, data, view())
    assert done is not None
    assert done.data != data
    return done.data


def same(request: bytes, reply: bytes) -> Said:
    """A command whose reply goes on as it is."""
    return Said(request, reply, reply)


def topology(request: bytes, reply: Reply, data: bytes) -> Said:
    """A command whose reply is rewritten."""
    return Said(request, data, becomes(reply, data))
