"""The portal's directory and the local ports, as what the worker is told. Pure.

What natproxy tells its clients of nodes, ``public_host`` or ``public_ip`` and a port of its own, becomes 127.0.0.1 and
the local port on the way, by the rewriters that make the nodes' own addresses natproxy's in the daemon. Each cache has
a book of its own here, too; static routes share one, as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from natproxy import messages
from natproxy.documents import CacheView, NodeName, RoutesDocument, RouteView
from natproxy.errors import PortalError
from natproxy.model import Kind, Mode, RouteState
from natproxy.wire.book import plain_host

LOOPBACK = "127.0.0.1"
NODE_CA = "bundle"
"""What messages call the bundle's CA."""
CONNECT_SECONDS = 5.0
HANDSHAKE_SECONDS = 10.0
KEEPALIVE_SECONDS = 30.0
MOST_CONNECTIONS = 4096
MOST_ROUTES = 2048
"""Of all caches that are served: no portal has this computer open as many ports as it likes."""
_KNOWN_TLS = frozenset(("off", "terminate", "passthrough"))
_STATICS = "static:"
"""No cache is called so."""
_WITHOUT_CLUSTER = frozenset((Mode.CLUSTER_DISABLED, Mode.STANDALONE))
EPOCH = 1_767_225_600
"""2026, in Unix time."""
VERSION_SECONDS = 16


class Remote(NamedTuple):
    """One route of natproxy's, with what of its cache matters."""

    cache: str
    engine: str
    mode: str
    view: RouteView

    @property
    def key(self) -> tuple[str, str, NodeName | None]:
        """What it leads to: a port that comes to lead elsewhere ends its connections."""
        return self.cache, self.view.kind, self.view.node

    @property
    def is_servable(self) -> bool:
        """Whether natproxy listens there, and speaks what is spoken here: what is not known is not sent in clear."""
        return self.view.port is not None and self.view.state != RouteState.ERROR and self.is_understood

    @property
    def is_understood(self) -> bool:
        """Whether this natproxy knows how the route is secured."""
        return self.view.tls in _KNOWN_TLS


class Served(NamedTuple):
    """A route of natproxy's that is served on this computer."""

    port: int
    """natproxy's."""
    local_port: int
    remote: Remote


def chosen(document: RoutesDocument, wanted: Iterable[str] = (), *, is_lenient: bool = False) -> tuple[CacheView, ...]:
    """Return the caches that are ``wanted`` by id; all where none is named.

    Raises PortalError for unknown ones, lenient, they are left out: they may come back; and for more than MOST_ROUTES.
    """
    wanted = tuple(dict.fromkeys(wanted))
    caches = _named(document, wanted, is_lenient=is_lenient) if wanted else document.caches
    if (routes := sum(len(cache.routes) for cache in caches)) > MOST_ROUTES:
        message = f"natproxy tells of {routes} routes, and {MOST_ROUTES} are served here at most: choose with --cache"
        raise PortalError(message)
    return caches


def _named(document: RoutesDocument, wanted: Iterable[str], *, is_lenient: bool) -> tuple[CacheView, ...]:
    there = {cache.id: cache for cache in document.caches}
    if not is_lenient and (missing := [name for name in wanted if name not in there]):
        known = f"there are: {', '.join(there)}" if there else "it may use none at all"
        message = f"your certificate may use no cache called {', '.join(missing)}; {known}"
        raise PortalError(message)
    return tuple(there[name] for name in wanted if name in there)


def remotes(caches: Iterable[CacheView]) -> tuple[Remote, ...]:
    """Return all their routes."""
    return tuple(
        Remote(cache.id, cache.engine or "", cache.mode or "", view) for cache in caches for view in cache.routes
    )


def serve_message(served: Served, host: str, addresses: Iterable[str], refuse: str | None = None) -> messages.Serve:
    """Return what tells the worker to serve it; ``host`` is dialled and must be named by natproxy's certificate.

    ``addresses`` are those of ``host``; ``refuse``: turn every new connection away with this outcome.
    """
    remote, view = served.remote, served.remote.view
    dialled = tuple((ip, served.port) for ip in addresses)
    speaks_tls = view.tls == "terminate"
    how = rewriting(remote)
    return messages.Serve(
        port=served.local_port,
        cache=remote.cache,
        kind=view.kind,
        node="" if view.node is None else str(view.node),
        addresses=dialled,
        rotates=False,
        allow=None,
        connect_seconds=CONNECT_SECONDS,
        idle_seconds=None,
        keepalive_seconds=KEEPALIVE_SECONDS,
        refuse=refuse,
        max_connections=MOST_CONNECTIONS,
        max_connections_per_client=MOST_CONNECTIONS,  # there is but one client: this computer
        client_tls="passthrough" if view.tls == "passthrough" else "off",
        node_tls=speaks_tls,
        node_ca=NODE_CA if speaks_tls else "",
        names=(host,) * len(dialled) if speaks_tls else (),
        handshake_seconds=HANDSHAKE_SECONDS,
        sniffs=view.tls != "passthrough" and view.kind != Kind.STATIC,
        rewrite=how,
        book=book_name(remote) if how else "",
    )


def rewriting(remote: Remote) -> str:
    """Return how the replies of a route are rewritten, as messages.Serve has it: as the daemon does it there."""
    match remote.view.rewrite:
        case "redis":
            return "replication" if remote.mode in _WITHOUT_CLUSTER else "cluster"
        case "memcached":
            return "memcached"
    return ""


def book_name(remote: Remote) -> str:
    """Return what its book is called."""
    return _STATICS if remote.view.kind == Kind.STATIC else remote.cache


def entries(served: Iterable[Served], hosts: Iterable[str]) -> Mapping[str, tuple[tuple[str, int, int], ...]]:
    """Return, by book, (host or address, natproxy's port, local port) of all that replies may tell of.

    ``hosts`` are all names and addresses that natproxy may call itself.
    """
    spoken = sorted({plain_host(host) for host in hosts if host})
    found: dict[str, list[tuple[str, int, int]]] = {}
    for one in served:
        if rewriting(one.remote):
            found.setdefault(book_name(one.remote), []).extend((host, one.port, one.local_port) for host in spoken)
    return {name: tuple(sorted(ports)) for name, ports in found.items()}


def next_version(known: int, unix_time: float) -> int:
    """Return a book's version above ``known``, and above those of earlier runs of the command.

    Memcached's clients act on a node list when its version grows, and may keep that in 32 bits. natproxy's own part is
    the Unix time, so that this one, which is added, has to stay small for some years.
    """
    return max(known + 1, int(unix_time - EPOCH) // VERSION_SECONDS)
