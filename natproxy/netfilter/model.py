"""What a rule of the nat table matches, and where it leads. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from natproxy.model import Address, Network

LAST_PORT = 65535
T = TypeVar("T")


class Span(NamedTuple):
    """The ports from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Match:
    """Which packets a rule is for."""

    protocol: str = ""
    """tcp, udp ...; empty = every one."""
    ports: tuple[Span, ...] | None = None
    """The destination ports, ascending and apart from each other; None = every port."""
    interface: str = ""
    """The interface that packets come in by, as it was written (``eth0``, ``eth+``, ``! docker0``); empty = any."""
    sources: tuple[Network, ...] | None = None
    """Where packets come from; None = from anywhere."""
    destinations: tuple[Network, ...] | None = None
    """The addresses that are dialled; None = any."""
    conditions: tuple[str, ...] = ()
    """What must be true besides, as it was written: nothing is concluded from these."""

    def within(self, outer: Match) -> Match | None:
        """Return what both match, or None where nothing can match both."""
        ports = _meet(self.ports, outer.ports, _common_ports)
        sources = _meet(self.sources, outer.sources, _common_networks)
        destinations = _meet(self.destinations, outer.destinations, _common_networks)
        if () in (ports, sources, destinations) or (
            self.protocol and outer.protocol and self.protocol != outer.protocol
        ):
            return None
        conditions = (*outer.conditions, *self.conditions)
        if self.interface and outer.interface and self.interface != outer.interface:
            conditions = (*conditions, f"-i {outer.interface}")
        return Match(
            protocol=self.protocol or outer.protocol,
            ports=ports,
            interface=self.interface or outer.interface,
            sources=sources,
            destinations=destinations,
            conditions=tuple(dict.fromkeys(conditions)),
        )

    def unless(self, condition: str) -> Match:
        """Return the same with one more condition."""
        return replace(self, conditions=(*self.conditions, condition))

    def takes(self, port: int, protocol: str = "tcp") -> bool:
        """Whether a packet to that port may be one of these."""
        return self.protocol in ("", protocol) and (
            self.ports is None or any(span.first <= port <= span.last for span in self.ports)
        )


@dataclass(frozen=True, slots=True)
class DnatRule:
    """A rule that leads packets which come in here to another address or port, before any socket sees them."""

    line: str
    """As it stands in the text, without counters; of nft, in its words as far as they are understood."""
    number: int | None
    """1-based line in the text that was read; None for nft, whose rules have no lines."""
    chain: str
    """Where it stands: PREROUTING, or a chain that is jumped to."""
    match: Match
    """Together with what the jumps that lead to it match."""
    action: str
    """DNAT | REDIRECT (to this host itself)."""
    addresses: tuple[str, str] | None
    """The first and the last address it leads to; None = this host."""
    to_ports: Span | None
    """The ports it leads to; None = the one that was dialled."""
    shifted_from: int | None = None
    """The dialled port that stands for the first of ``to_ports``, where each has its own (``6379-6381/6390``)."""
    owner: str = ""
    """The program that writes such chains by itself (Docker ...); empty = somebody wrote it by hand."""
    delete: str = ""
    """The shell command that removes it; empty where none is known."""

    @property
    def takes_tcp(self) -> bool:
        """Whether it is for TCP, at least among others."""
        return self.match.protocol in ("", "tcp")

    def takes(self, port: int, protocol: str = "tcp") -> bool:
        """Whether it may take a connection to that port away."""
        return self.match.takes(port, protocol)

    def target(self, port: int) -> Address | None:
        """Return where the rule leads that port; None where that is this host, or not one certain place."""
        if self.addresses is None or self.addresses[0] != self.addresses[1]:
            return None
        if self.to_ports is None:
            return Address(self.addresses[0], port)
        first, last = self.to_ports
        if first == last:
            return Address(self.addresses[0], first)
        number = port if self.shifted_from is None else first + port - self.shifted_from
        return Address(self.addresses[0], number) if first <= number <= last else None


class Unread(NamedTuple):
    """Something in the text that was not understood."""

    number: int | None
    """1-based line, where there is one."""
    line: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What was read."""

    dnat: tuple[DnatRule, ...] = ()
    """In the order in which packets meet them: the first that matches wins."""
    unreached: tuple[DnatRule, ...] = ()
    """Those that stand in chains which nothing leads to from PREROUTING: they concern packets of this host itself, or
    none at all."""
    outgoing: tuple[str, ...] = ()
    """SNAT and MASQUERADE rules, as written: this instance's own NAT duties."""
    unread: tuple[Unread, ...] = ()

    def joined(self, other: Rules) -> Rules:
        """Return both, these first."""
        return Rules(
            self.dnat + other.dnat,
            self.unreached + other.unreached,
            self.outgoing + other.outgoing,
            self.unread + other.unread,
        )


def spans(written: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    """Return the same ports, ascending, with what overlaps or touches made one."""
    found: list[Span] = []
    for first, last in sorted(written):
        if found and first <= found[-1].last + 1:
            found[-1] = Span(found[-1].first, max(found[-1].last, last))
        else:
            found.append(Span(first, last))
    return tuple(found)


def some(networks: tuple[Network, ...]) -> tuple[Network, ...] | None:
    """Return the same networks; None where one of them is everywhere, and nothing is asked for."""
    return None if any(network.prefixlen == 0 for network in networks) else networks


def all_but(taken: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    """Return every other port."""
    found, begin = [], 1
    for first, last in spans(taken):
        if begin < first:
            found.append(Span(begin, first - 1))
        begin = last + 1
    return (*found, Span(begin, LAST_PORT)) if begin <= LAST_PORT else tuple(found)


def _meet(
    one: tuple[T, ...] | None,
    other: tuple[T, ...] | None,
    common: Callable[[tuple[T, ...], tuple[T, ...]], tuple[T, ...]],
) -> tuple[T, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    return common(one, other)


def _common_ports(one: Iterable[Span], other: Iterable[Span]) -> tuple[Span, ...]:
    both = ((max(a.first, b.first), min(a.last, b.last)) for a in one for b in other)
    return spans((first, last) for first, last in both if first <= last)


def _common_networks(one: Iterable[Network], other: Iterable[Network]) -> tuple[Network, ...]:
    """Of two networks one holds the other, or they have nothing in common."""
    found = [a if a.prefixlen >= b.prefixlen else b for a in one for b in other if a.overlaps(b)]
    return tuple(dict.fromkeys(found))
