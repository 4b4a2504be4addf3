"""Who may connect: networks, and how many connections at once. I/O: counts, together with the other workers."""

from __future__ import annotations

import ipaddress
import socket
from collections import defaultdict
from collections.abc import Iterable

from natproxy.model import Network, Outcome
from natproxy.worker.shared import SharedCounts

_MEMO_MAX = 4096


def plain_ip(ip: str) -> str:
    """Return the address as it counts everywhere: an IPv4 address that came through an IPv6 socket is an IPv4 one."""
    if ":" not in ip:
        return ip
    ip = ip.partition("%")[0]
    if ip.startswith("::ffff:") and "." in ip:
        return ip[7:]
    return ip


def client_of(ip: str) -> str:
    """Return whom connections from ``ip`` count for: an IPv6 host has 64 bits to choose from, and is one client."""
    if ":" not in ip:
        return ip
    network = socket.inet_pton(socket.AF_INET6, ip)[:8]
    return f"{socket.inet_ntop(socket.AF_INET6, network + bytes(8))}/64"


class AllowList:
    """Networks that may connect; None = everyone."""

    __slots__ = ("_memo", "_networks", "networks")

    def __init__(self, networks: Iterable[str] | None) -> None:
        self.networks = None if networks is None else tuple(networks)
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(text) for text in self.networks or ())
        self._memo: dict[str, bool] = {}

    def allows(self, ip: str) -> bool:
        """Say whether a client at ``ip`` (as ``plain_ip`` returns it) may connect."""
        if self.networks is None:
            return True
        known = self._memo.get(ip)
        if known is None:
            address = ipaddress.ip_address(ip)
            known = any(address in network for network in self._networks)
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            self._memo[ip] = known
        return known


class Census:
    """Counts connections by limit group and by client address; the limits hold for all workers that share ``shared``.

    A connection is counted before the sum is looked at, so that several workers never let in too many together.
    """

    def __init__(self, shared: SharedCounts | None = None) -> None:
        self.open = 0
        self._shared = shared
        self._counts: defaultdict[str, int] = defaultdict(int)
        """A group's name, or group and client address -> connections of this worker."""

    def admit(self, group: str, ip: str, maximum: int, maximum_per_client: int) -> Outcome | None:
        """Count one more connection, or return the outcome that turns it away."""
        client = f"{group}\0{client_of(ip)}"
        self._add(group, 1)
        self._add(client, 1)
        if self._total(group) > maximum:
            outcome = Outcome.LIMIT
        elif self._total(client) > maximum_per_client:
            outcome = Outcome.CLIENT_LIMIT
        else:
            self.open += 1
            return None
        self._add(client, -1)
        self._add(group, -1)
        return outcome

    def has_room(self, group: str, ip: str, maximum: int, maximum_per_client: int) -> bool:
        """Say whether one more connection would be let in just now; it is not counted."""
        return self._total(group) < maximum and self._total(f"{group}\0{client_of(ip)}") < maximum_per_client

    def leave(self, group: str, ip: str) -> None:
        """Count one connection less."""
        self.open -= 1
        self._add(f"{group}\0{client_of(ip)}", -1)
        self._add(group, -1)

    def _add(self, key: str, number: int) -> None:
        count = self._counts[key] = self._counts[key] + number
        if not count:
            del self._counts[key]
        if self._shared is not None:
            self._shared.tell(key, count)

    def _total(self, key: str) -> int:
        elsewhere = 0 if self._shared is None else self._shared.elsewhere(key)
        return self._counts.get(key, 0) + elsewhere
