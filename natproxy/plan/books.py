"""Which public port stands for which node of a cache, by every name and address that replies may call it. Pure.

Each cache has a book of its own, so that no reply of one cache leads to another. What it says of an address or a host
name is the first of these that applies:

1. The port of the node that has it now. During a resize AWS may show two nodes at one address: then one that stays
   counts before one that is being deleted, and of equals the smaller id.
2. Where the config has no ports for nodes: ``primary``'s for the primary, and ``reader``'s for replicas. Only groups of
   one shard have these.
3. The port of the node that left it last, some minutes ago at most: replies may go on to tell of it for a while, and
   who follows them is led to where that node is now.

What belongs to a node without a port now is in no book: no other port stands for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from natproxy.config import Config
from natproxy.model import Cache, Endpoint, Kind, Mode, Node, NodeId, Role, Route, Snapshot
from natproxy.plan.addresses import FORGET_SECONDS, Addresses
from natproxy.plan.ports import natural_key
from natproxy.wire.book import plain_host

_KIND_OF = {Role.PRIMARY: Kind.PRIMARY, Role.REPLICA: Kind.READER}


class BookEntries(NamedTuple):
    """What workers are told of one book's nodes."""

    ports: tuple[tuple[str, int, int], ...]
    """(host name or address, port, natproxy's port), sorted; hosts as ``natproxy.wire.book.plain_host`` spells them."""


def books(
    config: Config, snapshot: Snapshot, routes: Iterable[Route], addresses: Mapping[str, Addresses], now: float
) -> dict[str, BookEntries]:
    """Return every book that any of ``routes`` names.

    ``routes`` are those that are served (one with an error is not, whatever else); ``addresses`` what their host names
    resolve to, with times on the clock of ``now``.
    """
    served: dict[str, list[Route]] = {}
    for route in sorted(routes, key=lambda route: route.port):
        if route.book:
            served.setdefault(route.book, []).extend([route] if route.error is None else [])
    return {name: _book(config, snapshot.cache(name), own, _Page(addresses, now)) for name, own in served.items()}


def _book(config: Config, cache: Cache | None, served: Collection[Route], page: _Page) -> BookEntries:
    if cache is None:
        _write_targets(page, (route for route in served if route.key.kind is Kind.STATIC))
    elif cache.mode is Mode.SERVERLESS:
        _write_targets(page, served)
    elif _has_node_ports(config, cache):
        _write_nodes(page, cache, served)
    else:
        _write_roles(page, cache, served)
    return page.finished()


def _has_node_ports(config: Config, cache: Cache) -> bool:
    kinds = config.caches[cache.entry].endpoints
    return kinds is None or "nodes" in kinds


class _Page:
    """One book as it is written. What is written first stays."""

    def __init__(self, addresses: Mapping[str, Addresses], now: float) -> None:
        self._addresses = addresses
        self._now = now
        self._ports: dict[tuple[str, int], int | None] = {}
        """None: known, and without a port."""
        self._settled: list[tuple[Endpoint, int]] = []

    def write_name(self, target: Endpoint, port: int) -> None:
        """Let the host name alone lead to ``port``."""
        self._ports.setdefault((plain_host(target.host), target.port), port)

    def write(self, target: Endpoint, port: int | None, *, is_settled: bool = True) -> None:
        """Let the host name and its addresses lead to ``port``; None: to none.

        ``is_settled``: so may the addresses that it had lately, where nobody else has them.
        """
        known = self._addresses.get(target.host, Addresses())
        for host in (target.host, *known.current):
            self._ports.setdefault((plain_host(host), target.port), port)
        if is_settled and port is not None:
            self._settled.append((target, port))

    def finished(self) -> BookEntries:
        """Return all that has a port."""
        ports = {**self._former(), **self._ports}
        return BookEntries(tuple(sorted((*spot, port) for spot, port in ports.items() if port is not None)))

    def _former(self) -> dict[tuple[str, int], int]:
        last: dict[tuple[str, int], tuple[float, int]] = {}
        for target, port in self._settled:
            left = self._addresses.get(target.host, Addresses()).left
            for ip, at in left.items():
                spot = plain_host(ip), target.port
                if self._now - at <= FORGET_SECONDS and (spot not in last or at > last[spot][0]):
                    last[spot] = at, port
        return {spot: port for spot, (_, port) in last.items()}


def _write_targets(page: _Page, served: Iterable[Route]) -> None:
    """Write what each route leads to itself."""
    for route in served:
        if route.target is not None:
            page.write(route.target, route.port)


def _write_nodes(page: _Page, cache: Cache, served: Collection[Route]) -> None:
    """Write every node, those with a port first, and the mere names of ``primary`` and ``reader``."""
    ports = {route.key.node: route.port for route in served if route.key.node is not None}

    def rank(node: Node) -> tuple[bool, bool, tuple[object, ...]]:
        return node.id not in ports, node.is_deleting, _natural(node.id)

    for node in sorted(cache.nodes, key=rank):
        if node.endpoint is not None:
            page.write(node.endpoint, ports.get(node.id))
    for route in served:
        if route.key.kind in {Kind.PRIMARY, Kind.READER} and route.target is not None:
            page.write_name(route.target, route.port)


def _write_roles(page: _Page, cache: Cache, served: Iterable[Route]) -> None:
    """Write ``primary`` and ``reader``, and the nodes by their roles.

    The endpoints' names are more up to date than what AWS says of roles. An address that has left ``primary`` is that
    of a demoted node.
    """
    by_kind = {route.key.kind: route for route in served}
    ports = {role: by_kind[kind].port for role, kind in _KIND_OF.items() if kind in by_kind}
    for kind in _KIND_OF.values():
        target = by_kind[kind].target if kind in by_kind else None
        if target is not None:
            page.write(target, by_kind[kind].port, is_settled=kind is Kind.READER)
    for node in cache.nodes:
        if node.endpoint is not None and node.role is not None:
            page.write(node.endpoint, ports.get(node.role))


def _natural(node: NodeId) -> tuple[object, ...]:
    return natural_key(node.cluster), natural_key(node.node)
