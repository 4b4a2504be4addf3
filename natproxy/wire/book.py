"""Which public port stands for which node of one cache: all that a rewriter knows of the world. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Book:
    """One cache's nodes as they call themselves, and where clients find them."""

    ports: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """(host name or address, port) of a node -> natproxy's port for it. Keys are as ``plain_host`` gives them."""
    public_host: str = ""
    """What clients dial: a name or an address; empty = the address by which the client reached natproxy."""
    public_ip: str = ""
    """The same as an address; empty where it is not known."""
    version: int = 0
    """Grows whenever anything above changes, also over restarts."""


class View(NamedTuple):
    """One connection's view of the book."""

    book: Book
    local_ip: str
    """The address by which the client reached natproxy."""
    own_ip: str
    """The address of the node that this connection was dialled to."""
    own_port: int
    """The port of that node: both stand in the book, too, as long as it is one of the cache's."""
    speaks_tls: bool
    """Whether the client speaks TLS (with natproxy)."""

    @property
    def host(self) -> str:
        """What clients are told to dial."""
        return self.book.public_host or self.local_ip

    @property
    def ip(self) -> str:
        """The same as an address; empty where it is not known."""
        return self.book.public_ip or ("" if self.book.public_host else self.local_ip)

    @property
    def own(self) -> int | None:
        """Natproxy's port for the node that this connection was dialled to; None where the book has none."""
        return self.find(self.own_ip, self.own_port)

    def find(self, host: str, port: int) -> int | None:
        """Return natproxy's port for a node; None where the book has none.

        An empty host, and ``?``, mean the node that is asked (CLUSTER SLOTS: "the client should reuse the endpoint").
        """
        return self.book.ports.get((plain_host(self.own_ip if host in ("", "?") else host), port))


def plain_host(host: str) -> str:
    """Return one spelling for all spellings of a name or an address."""
    if ":" in host:
        try:
            ip = ipaddress.IPv6Address(host.strip("[]"))
        except ValueError:
            return host
        return str(ip.ipv4_mapped or ip)
    return host.lower().rstrip(".")
