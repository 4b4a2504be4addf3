"""An address -> the node or endpoint that has it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from natproxy.config import CacheEntry
from natproxy.model import Address, Cache, Endpoint, Kind, RouteKey, Snapshot
from natproxy.plan.ports import wanted_keys

NOBODY = "no node that AWS tells of has this address"


class Place(NamedTuple):
    """Where a rule leads, in natproxy's words."""

    address: Address
    """As the rule has it."""
    key: RouteKey | None = None
    """The node or endpoint that has the address; None where no single one has."""
    endpoint: Endpoint | None = None
    """Its name, as AWS tells it."""
    why: str = ""
    """Why there is no key."""


class Places:
    """Finds the node behind an address. Nodes are looked at first: an endpoint has the address of one of them."""

    def __init__(self, snapshot: Snapshot, addresses: Mapping[str, tuple[str, ...]], nobody: str = NOBODY) -> None:
        self._addresses = addresses
        self._nobody = nobody
        self._nodes: dict[Address, dict[RouteKey, Endpoint]] = {}
        self._endpoints: dict[Address, dict[RouteKey, Endpoint]] = {}
        self._leaving: dict[Address, str] = {}
        self._ports: dict[str, dict[int, str]] = {}
        """Address -> port -> who listens there."""
        for cache in snapshot.caches:
            self._add(cache)

    def find(self, address: Address) -> Place:
        """Return the place that an address is."""
        nodes = self._nodes.get(address, {})
        found = nodes or self._endpoints.get(address, {})
        if len(nodes) > 1 or len({key.cache for key in found}) > 1:
            names = ", ".join(sorted(map(str, found)))
            return Place(address, why=f"more than one has this address: {names}")
        if found:
            key, endpoint = next(iter(found.items()))
            return Place(address, key, endpoint)
        if address in self._leaving:
            return Place(address, why=f"AWS is deleting {self._leaving[address]}, which has this address")
        if others := self._ports.get(address.ip):
            told = ", ".join(f"{name} listens there on port {port}" for port, name in sorted(others.items()))
            return Place(address, why=f"nobody that AWS tells of listens on this port: {told}")
        return Place(address, why=self._nobody)

    def _add(self, cache: Cache) -> None:
        wanted = wanted_keys(cache, CacheEntry(id=cache.id))
        for key, endpoint in _targets(cache):
            for ip in self._addresses.get(endpoint.host, ()):
                address = Address(ip, endpoint.port)
                if key not in wanted:
                    self._leaving.setdefault(address, str(key))
                    continue
                known = self._nodes if key.kind is Kind.NODE else self._endpoints
                known.setdefault(address, {})[key] = endpoint
                self._ports.setdefault(ip, {}).setdefault(endpoint.port, str(key))


def _targets(cache: Cache) -> Iterator[tuple[RouteKey, Endpoint]]:
    for node in cache.nodes:
        if node.endpoint is not None:
            yield RouteKey(cache.id, Kind.NODE, node.id), node.endpoint
    for kind in (Kind.PRIMARY, Kind.READER, Kind.CONFIGURATION):
        if kind in cache.endpoints:
            yield RouteKey(cache.id, kind), cache.endpoints[kind]
