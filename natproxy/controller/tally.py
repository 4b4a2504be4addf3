"""What the workers have open, as each last told. Pure but for the counts it keeps."""

from __future__ import annotations

from collections import Counter

from natproxy.messages import Counts
from natproxy.model import Address


class Tally:
    """Adds up what several workers have open."""

    def __init__(self) -> None:
        self._live: dict[int, dict[int, Counter[Address]]] = {}
        """Worker -> port -> connections by the address they were dialled to."""
        self._open: dict[int, dict[int, int]] = {}
        """Worker -> port -> connections open, dialling ones too."""

    def take(self, worker: int, counts: Counts) -> None:
        """Take in what a worker has open, in place of what it had."""
        self._open[worker] = {route.port: route.open for route in counts.routes}
        self._live[worker] = {
            route.port: Counter({Address(ip, port): number for ip, port, number in route.live})
            for route in counts.routes
        }

    def forget(self, worker: int) -> None:
        """A worker is gone, and its connections with it."""
        self._open.pop(worker, None)
        self._live.pop(worker, None)

    def connections(self, port: int) -> int:
        """Return how many connections are open on ``port``."""
        return sum(by_port.get(port, 0) for by_port in self._open.values())

    def live(self) -> Counter[tuple[int, Address]]:
        """Return (port, address) -> connections that were dialled to it."""
        live: Counter[tuple[int, Address]] = Counter()
        for by_port in self._live.values():
            for port, by_address in by_port.items():
                for address, number in by_address.items():
                    live[port, address] += number
        return live

    def addresses(self, port: int) -> set[Address]:
        """Return all addresses that live connections of ``port`` were dialled to."""
        return {address for by_port in self._live.values() for address in by_port.get(port, ())}
