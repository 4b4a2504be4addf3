"""Who may connect: networks, and how many connections at once. Pure but for the counts it keeps."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable

from natproxy.model import Network, Outcome

_MEMO_MAX = 4096


def plain_ip(ip: str) -> str:
    """Return the address as it counts everywhere: an IPv4 address that came through an IPv6 socket is an IPv4 one."""
    ip = ip.partition("%")[0]
    if ip.startswith("::ffff:") and "." in ip:
        return ip[7:]
    return ip


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
    """Counts the connections of this worker, by limit group and by client address."""

    def __init__(self) -> None:
        self.open = 0
        self._by_group: dict[str, int] = defaultdict(int)
        self._by_client: dict[tuple[str, str], int] = defaultdict(int)

    def admit(self, group: str, ip: str, maximum: int, maximum_per_client: int) -> Outcome | None:
        """Count one more connection, or return the outcome that turns it away."""
        if self._by_group[group] >= maximum:
            return Outcome.LIMIT
        key = (group, ip)
        if self._by_client.get(key, 0) >= maximum_per_client:
            return Outcome.CLIENT_LIMIT
        self._by_group[group] += 1
        self._by_client[key] += 1
        self.open += 1
        return None

    def leave(self, group: str, ip: str) -> None:
        """Count one connection less."""
        key = (group, ip)
        self.open -= 1
        self._by_group[group] -= 1
        if not self._by_group[group]:
            del self._by_group[group]
        self._by_client[key] -= 1
        if not self._by_client[key]:
            del self._by_client[key]
