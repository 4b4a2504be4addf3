"""The node list of memcached's auto discovery, told in public addresses. Pure.

``<version>\\n<host|ip|port host|ip|port ...>\\n``, where the ip may be empty:
https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.AddingToYourClientLibrary.html
"""

from __future__ import annotations

import re
from typing import NamedTuple

from natproxy.wire.book import View

NO_NODES_VERSION = 0
"""The version told with a list that is empty because no node in it has a port (yet).

An empty list is the kindest answer then. Private addresses would lead nowhere, and of the node that was asked alone
clients would make a ring in which other clients' keys are not found. An error line keeps those clients waiting that
read up to ``END`` (pymemcache, dalli-elasticache, django-elasticache). An empty list makes all of them fail at once
where they start, and keep the list they have where they poll (the clients for Java, .NET and PHP); version 0 is stale
to those that compare versions first.
"""

_LIST = re.compile(
    rb"(?P<version>\d{1,19})(?P<gap>\r?\n)"
    rb"(?P<nodes>(?:[^\s|]*\|[^\s|]*\|\d{1,5}(?: +|(?=[\r\n])|\Z))*)"
    rb"(?P<end>(?:\r?\n)*)"
)


class Told(NamedTuple):
    """A node list as clients are told it."""

    body: bytes
    left_out: int
    """How many nodes have no port."""


def tell(body: bytes, view: View) -> Told | None:
    """Return a node list with public addresses, in the same order; None where it is none.

    The version told is the node's own plus the book's: it grows whenever either grows.
    """
    found = _LIST.fullmatch(body)
    if found is None:
        return None
    nodes = [node.decode("latin-1").split("|") for node in found["nodes"].split()]
    ports = [_find(view, host, ip, int(port)) for host, ip, port in nodes]
    # Some clients dial the second field whatever is in it (pymemcache's), or pass over nodes where it is empty (dalli).
    told = [f"{view.host}|{view.ip or view.host}|{port}" for port in ports if port is not None]
    version = int(found["version"]) + view.book.version if told else NO_NODES_VERSION
    text = str(version).encode() + found["gap"] + " ".join(told).encode() + found["end"]
    return Told(text, len(ports) - len(told))


def _find(view: View, host: str, ip: str, port: int) -> int | None:
    """Look a node up by either name it has; an empty one means nothing here (for View.find it is the node asked)."""
    for name in (host, ip):
        if name not in ("", "?") and (public := view.find(name, port)) is not None:
            return public
    return None
