"""Feeds a MemcachedRewriter as a relay does, and writes down what it says. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from natproxy.wire.book import Book, View
from natproxy.wire.memcached import MemcachedRewriter
from natproxy.wire.rewriter import Fallback, Hint, Reply, Told

PORTS = {
    ("a.x.0001.use1.cache.amazonaws.com", 11211): 7001,
    ("10.0.1.230", 11211): 7001,
    ("b.x.0002.use1.cache.amazonaws.com", 11211): 7002,
    ("10.0.1.231", 11211): 7002,
    ("10.0.1.232", 11212): 7003,
    ("fd00::1", 11211): 7004,
}
BOOK = Book(ports=PORTS, public_host="cache.example", public_ip="203.0.113.73", version=5)
POISON = 0xAA
HEAD_BYTES = 256


def view_of(book: Book = BOOK, *, local_ip: str = "192.0.2.1") -> View:
    return View(book, local_ip=local_ip, own_ip="10.0.1.230", own_port=11211, speaks_tls=False)


class Recorder:
    """A witness that remembers."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.fallbacks: list[Fallback] = []
        self.hints: list[Hint] = []

    def rewritten(self, reply: Reply) -> None:
        self.replies.append(reply)

    def fell_back(self, reason: Fallback) -> None:
        self.fallbacks.append(reason)

    def hint(self, hint: Hint) -> None:
        self.hints.append(hint)

    def learnt(self, roles: Iterable[Told]) -> None:
        raise AssertionError(roles)


class Feed:
    """One connection's replies, on their way through a rewriter."""

    def __init__(self, *, book: Book = BOOK, is_quick: bool = False) -> None:
        self.book = book
        self.witness = Recorder()
        self.rewriter = MemcachedRewriter(lambda: view_of(self.book), self.witness)
        self.is_quick = is_quick
        """Take the shortcuts, as a relay does."""
        self.quick = 0
        """How many pieces took one."""

    def pass_on(self, pieces: Iterable[bytes]) -> bytes:
        """Pass pieces on from a buffer that is used again for each; return what comes out, and what is held."""
        return b"".join(map(self._pass_on, pieces)) + self.rewriter.rest()

    def _pass_on(self, piece: bytes) -> bytes:
        rewriter, unseen = self.rewriter, b""
        if self.is_quick and (rewriter.reply_opaque or rewriter.large_reply(piece[:HEAD_BYTES])):
            count = min(len(piece), rewriter.reply_opaque)
            rewriter.reply_opaque -= count
            unseen, piece = piece[:count], piece[count:]
            self.quick += 1
            if not piece:
                return unseen
        buffer = bytearray(piece)
        came = memoryview(buffer)
        if self.is_quick and rewriter.ahead and rewriter.is_one_reply(came) is not None:
            rewriter.ahead -= 1
            self.quick += 1
            return unseen + piece
        out = unseen + bytes(rewriter.replies(came))
        buffer[:] = bytes([POISON]) * len(buffer)
        return out

    @property
    def is_in_step(self) -> bool:
        """Whether it reads, and stands between replies."""
        rewriter = self.rewriter
        rewriter.replies(b"")  # it has not seen yet what passed unseen
        is_at_start = rewriter.is_one_reply(b"OK\r\n") is not None or rewriter.is_one_reply(NOOP_REPLY) is not None
        return is_at_start and not self.witness.fallbacks and not rewriter.reply_opaque and not rewriter.rest()


NOOP_REPLY = b"\x81\x0a" + bytes(22)


def cut(stream: bytes, at: Sequence[int]) -> Iterator[bytes]:
    """Cut a stream at these offsets."""
    edges = sorted({0, len(stream), *(offset % (len(stream) + 1) for offset in at)})
    for begin, end in itertools.pairwise(edges):
        yield stream[begin:end]


def ways_to_cut(stream: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and in two at each index."""
    yield [stream]
    yield [stream[at : at + 1] for at in range(len(stream))]
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]


def config_answer(body: bytes) -> bytes:
    return b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(body), body)


def value(key: bytes, body: bytes, cas: bytes = b"") -> bytes:
    return b"VALUE %b 0 %d%b\r\n%b\r\n" % (key, len(body), cas, body)
