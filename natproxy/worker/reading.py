"""What a rewriter has of one connection: the view, and who hears what it sees. I/O: asks a socket for its address.

A port may come to lead elsewhere, or not to be read along any more, while its connections live: for each it is the book
that counts which the port went by when it began, with all that has been changed in it since.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from natproxy.model import Address
from natproxy.wire.book import Book, View
from natproxy.wire.lazy import LazyRedisRewriter
from natproxy.wire.memcached import MemcachedRewriter
from natproxy.wire.redis import RedisRewriter
from natproxy.wire.rewriter import Fallback, Hint, Reply, Rewriter, Told
from natproxy.worker.access import plain_ip

if TYPE_CHECKING:
    from natproxy.worker.listener import Port

_NO_BOOK = Book()


class Reading:
    """One connection that is read along with."""

    __slots__ = ("_address", "_book", "_client", "_local_ip", "_port", "_speaks_tls", "fallback")

    def __init__(self, port: Port, client: socket.socket, address: Address, *, speaks_tls: bool) -> None:
        self._port = port
        self._address = address
        self._speaks_tls = speaks_tls
        self._book = port.serve.book
        self._client = client
        self._local_ip = ""
        self.fallback: Fallback | None = None
        """Why it is read along with no longer."""

    def rewriter(self) -> Rewriter | None:
        """Return what reads along, as the port is served now; None where nothing does."""
        match self._port.serve.rewrite:
            case "cluster":
                return RedisRewriter(self.view, self)
            case "replication":
                return LazyRedisRewriter(self.view, self)
            case "memcached":
                return MemcachedRewriter(self.view, self)
            case _:
                return None

    def view(self) -> View:
        """Return what is known now."""
        book = self._book_now()
        if not (book.public_host or self._local_ip):
            self._local_ip = plain_ip(str(self._client.getsockname()[0]))
        return View(
            book=book,
            local_ip=self._local_ip,
            own_ip=self._address.ip,
            own_port=self._address.port,
            speaks_tls=self._speaks_tls,
        )

    def rewritten(self, reply: Reply) -> None:
        """Count a reply whose addresses were rewritten."""
        self._port.counts.rewritten(reply)

    def fell_back(self, reason: Fallback) -> None:
        """Count a connection that is passed on unread from now on."""
        self.fallback = reason
        self._port.counts.fell_back(reason)

    def hint(self, hint: Hint) -> None:
        """Have AWS and DNS asked."""
        self._port.worker.reports.hint(self._port.serve.port, hint)

    def learnt(self, roles: Iterable[Told]) -> None:
        """Tell of the roles that a topology reply tells of; of no nodes but the book's, as a reply may name any."""
        known = self._book_now().ports
        told = tuple((host, port, role.value) for host, port, role in roles if (host, port) in known)
        if told:
            self._port.worker.reports.learnt(self._book, told)

    def _book_now(self) -> Book:
        return self._port.worker.books.get(self._book, _NO_BOOK)
