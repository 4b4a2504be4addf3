"""The roles of nodes: as AWS tells them, else as engines last did. Pure but for what it remembers.

In cluster mode AWS tells none. There natproxy asks nodes by itself (roleasker.py), and workers learn from the replies
that pass by; both tell of a node by its host name or its address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from natproxy.controller.changes import Change, NodeChange
from natproxy.model import Cache, Kind, NodeId, Role, RouteKey, Snapshot
from natproxy.plan.addresses import Addresses
from natproxy.wire.book import plain_host

Told = tuple[str, int, Role]
"""(host name or address, port, role) of one node."""
T = TypeVar("T")


class Roles:
    """What engines told, and the snapshot with it."""

    def __init__(self) -> None:
        self._told: dict[NodeId, Role] = {}
        self._filled: tuple[Snapshot, Snapshot] | None = None
        """A snapshot, and the same with roles."""
        self._known: dict[NodeId, Role] = {}

    def take(self, cache: Cache, addresses: Mapping[str, Addresses], told: Iterable[Told]) -> tuple[Change, ...]:
        """Take in what an engine told of ``cache``; return which roles have moved. Where AWS tells, that counts."""
        changes = []
        for node, role in roles_of(cache, addresses, told).items():
            before = self._told.get(node)
            if role is before:
                continue
            self._told[node] = role
            self._filled = None
            if before is not None:
                changes.append(Change(NodeChange.ROLE, RouteKey(cache.id, Kind.NODE, node), before, role))
        return tuple(changes)

    def fill(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with the roles of engines where AWS tells none; forget nodes that are not in it."""
        if self._filled is None or self._filled[0] is not snapshot:
            caches = tuple(self._fill(cache) for cache in snapshot.caches)
            nodes = [node for cache in caches for node in cache.nodes]
            self._known = {node.id: node.role for node in nodes if node.role is not None}
            ids = {node.id for node in nodes}
            self._told = {node: role for node, role in self._told.items() if node in ids}
            self._filled = snapshot, replace(snapshot, caches=caches)
        return self._filled[1]

    def of(self, node: NodeId, snapshot: Snapshot) -> Role | None:
        """Return a node's role; None where nobody has told it."""
        self.fill(snapshot)
        return self._known.get(node)

    def _fill(self, cache: Cache) -> Cache:
        if not any(node.role is None and node.id in self._told for node in cache.nodes):
            return cache
        nodes = (node if node.role is not None else replace(node, role=self._told.get(node.id)) for node in cache.nodes)
        return replace(cache, nodes=tuple(nodes))


def roles_of(cache: Cache, addresses: Mapping[str, Addresses], told: Iterable[Told]) -> dict[NodeId, Role]:
    """Return the roles that ``told`` has for the nodes of which AWS tells none."""
    silent = {node.id for node in cache.nodes if node.role is None}
    return {node: role for node, role in by_node(cache, addresses, told).items() if node in silent}


def by_node(cache: Cache, addresses: Mapping[str, Addresses], told: Iterable[tuple[str, int, T]]) -> dict[NodeId, T]:
    """Return what ``told`` says of nodes by host name or address, and port, by their ids.

    A node of which two things are said is left out: during a resize two may be told at one address.
    """
    by_spot: dict[tuple[str, int], set[T]] = {}
    for host, port, what in told:
        by_spot.setdefault((plain_host(host), port), set()).add(what)
    found: dict[NodeId, T] = {}
    for node in cache.nodes:
        if node.endpoint is None:
            continue
        host, port = node.endpoint
        hosts = (host, *addresses.get(host, Addresses()).current)
        said: set[T] = set().union(*(by_spot.get((plain_host(one), port), ()) for one in hosts))
        if len(said) == 1:
            found[node.id] = said.pop()
    return found
