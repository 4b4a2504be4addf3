"""What a name's answers amount to: which addresses count now, which have left, and whether the name rotates. Pure.

Sets are compared, never single answers. Readers, configuration endpoints and serverless names rotate among many
addresses by nature; for the others a comeback within a minute gives rotation away. A rotating name counts as the union
of the last minute.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from natproxy.model import Address, Endpoint, Kind, Mode, Route

UNION_SECONDS = 60.0
"""A rotating name is the union of this long; an address back within this long makes a name a rotating one."""
ROTATING_SECONDS = 600.0
"""How long a name is taken for a rotating one after an address came back."""
FORGET_SECONDS = 600.0
"""How long an address that left is remembered."""
MOST_ADDRESSES = 64
"""Of a name with more the others are left out: each is dialled, and asked, in turn."""
_INSTANCE_SERVICES = ipaddress.ip_network("fd00:ec2::/32")
"""The IPv6 side of EC2's instance metadata, DNS and time services; the IPv4 side is link-local."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """One host name's answers so far. Times are those handed to ``observe``, in seconds."""

    current: tuple[str, ...] = ()
    """The newest answer: IPv4 before IPv6, each in numeric order."""
    seen: Mapping[str, float] = field(default_factory=dict)
    """ip -> when an answer last held it."""
    left: Mapping[str, float] = field(default_factory=dict)
    """ip -> when an answer first came without it."""
    since: float = 0.0
    """When the first answer came."""
    rotating_until: float = -math.inf


@dataclass(frozen=True, slots=True)
class Membership:
    """How one dialled address stands to the names of its route."""

    is_answered: bool
    """The newest answer holds it (or nothing is known)."""
    is_current: bool
    """The set that counts holds it: the newest answer, or a rotating name's union of the last minute."""
    missing_seconds: float
    """How long that set has been without it; 0 while it holds it."""
    is_rotating: bool
    """The name rotates, so that an address missing from the set means nothing."""


NOTHING_KNOWN = Membership(is_answered=True, is_current=True, missing_seconds=0.0, is_rotating=False)


def always_rotates(kind: Kind, mode: Mode) -> bool:
    """Tell whether names of this sort rotate among many addresses by nature."""
    return kind in {Kind.READER, Kind.CONFIGURATION} or mode is Mode.SERVERLESS


def rotating_hosts(routes: Iterable[Route]) -> frozenset[str]:
    """Name the hosts to be observed with ``always_rotates``."""
    return frozenset(r.target.host for r in routes if r.target is not None and always_rotates(r.key.kind, r.mode))


def of_nodes(answer: Iterable[str], *, may_be_local: bool) -> tuple[str, ...]:
    """Return the addresses of an answer that a node can have, in numeric order.

    Whoever answers for a name must not turn natproxy into a way to the host itself, or to the instance metadata, which
    gives credentials to whoever asks from here. ``may_be_local``: loopback addresses are good (for tests, and where the
    operator named the host).
    """
    good = (ip for ip in answer if _can_be_a_node(ipaddress.ip_address(ip), may_be_local=may_be_local))
    return tuple(sorted(good, key=_numeric)[:MOST_ADDRESSES])


def _can_be_a_node(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, *, may_be_local: bool) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return may_be_local
    is_broadcast = ip.version == 4 and int(ip) == 2**32 - 1
    is_instance_service = ip.version == 6 and ip in _INSTANCE_SERVICES
    return not (ip.is_unspecified or ip.is_link_local or ip.is_multicast or is_broadcast or is_instance_service)


def observe(addresses: Addresses | None, answer: Iterable[str], now: float, always_rotates: bool) -> Addresses:
    """Take one answer in. An empty one changes nothing: the last good set stays."""
    before = addresses if addresses is not None else Addresses(since=now)
    fresh = frozenset(answer)
    if not fresh:
        return before
    is_back = any(ip in fresh and now - at <= UNION_SECONDS for ip, at in before.left.items())
    left = {ip: at for ip, at in before.left.items() if ip not in fresh and now - at <= FORGET_SECONDS}
    left.update({ip: now for ip in before.current if ip not in fresh})
    seen = {ip: at for ip, at in before.seen.items() if ip in left}
    seen.update(dict.fromkeys(fresh, now))
    return Addresses(
        current=tuple(sorted(fresh, key=_numeric)),
        seen=seen,
        left=left,
        since=before.since if before.current else now,
        rotating_until=now + ROTATING_SECONDS if is_back and not always_rotates else before.rotating_until,
    )


def usable(addresses: Addresses, now: float, always_rotates: bool) -> frozenset[str]:
    """Return the set that counts: the newest answer, or for a rotating name the union of the last minute."""
    if not (always_rotates or now < addresses.rotating_until):
        return frozenset(addresses.current)
    lately = (ip for ip, at in addresses.seen.items() if now - at <= UNION_SECONDS)
    return frozenset((*addresses.current, *lately))


def membership(route: Route, book: Mapping[str, Addresses], address: Address, now: float) -> Membership:
    """Tell how ``address``, which a live connection was dialled to, stands to its route's names as of now.

    A name without any answer yet says nothing, and so does a route without a target. For several names (a
    configuration endpoint and its nodes) the one that speaks most for the address counts.

    What an address's comeback means depends on what the name is for. ``primary`` names one node at a time: there a
    comeback is a failover back, or a resolver that lags behind, and only the newest answer counts. A node's name should
    not rotate either, but a lagging resolver must not cut its connections: the union counts. A static target may be
    anything, so one that comes and goes is left alone as a reader would be.
    """
    kind, always = route.key.kind, always_rotates(route.key.kind, route.mode)
    opinions = []
    for name in _names(route):
        known = book.get(name.host)
        if known is None or not known.current:
            continue
        if name.port != address.port:
            opinions.append(replace(NOTHING_KNOWN, is_answered=False, is_current=False, missing_seconds=math.inf))
            continue
        if kind is Kind.PRIMARY and not always:
            known = replace(known, rotating_until=-math.inf)
        is_learnt = now < known.rotating_until
        opinions.append(
            Membership(
                is_answered=address.ip in known.current,
                is_current=address.ip in usable(known, now, always),
                missing_seconds=_missing_seconds(known, address.ip, now, always or is_learnt),
                is_rotating=always or (is_learnt and kind is not Kind.NODE),
            )
        )
    if not opinions:
        return replace(NOTHING_KNOWN, is_rotating=always)
    return Membership(
        is_answered=any(opinion.is_answered for opinion in opinions),
        is_current=any(opinion.is_current for opinion in opinions),
        missing_seconds=min(opinion.missing_seconds for opinion in opinions),
        is_rotating=always or any(opinion.is_rotating for opinion in opinions),
    )


def dial_addresses(route: Route, book: Mapping[str, Addresses], now: float) -> tuple[Address, ...]:
    """Return what to dial, best first: the target's newest answer, then the fallback names', each address once.

    Where a node's or static name was found to come and go, the other addresses of the last minute follow its newest
    answer, since a lagging resolver may have given that. Names that rotate by nature are dialled by their newest answer
    only: an address that left a reader may have become the primary.
    """
    return tuple(_dialled(route, book, now))


def certificate_names(route: Route, book: Mapping[str, Addresses], now: float) -> tuple[str, ...]:
    """Return, for each of ``dial_addresses``, what the certificate there must name; nothing where no TLS is spoken.

    That is the route's ``server_name``, else the host name that the address was found under (the first of several),
    also where it comes from that name's last good answer.
    """
    if route.node_tls != "on":
        return ()
    hosts = _dialled(route, book, now).values()
    return tuple(hosts) if route.server_name is None else (route.server_name,) * len(hosts)


def _dialled(route: Route, book: Mapping[str, Addresses], now: float) -> dict[Address, str]:
    """Return what to dial, best first, each with the host name it was found under."""
    comes_and_goes = route.key.kind in {Kind.NODE, Kind.STATIC} and not always_rotates(route.key.kind, route.mode)
    found: dict[Address, str] = {}
    for name in _names(route):
        known = book.get(name.host, Addresses())
        ips = list(known.current)
        if comes_and_goes:
            ips += sorted(usable(known, now, always_rotates=False) - {*ips}, key=_numeric)
        for ip in ips:
            found.setdefault(Address(ip, name.port), name.host)
    return found


def _names(route: Route) -> tuple[Endpoint, ...]:
    return (*((route.target,) if route.target is not None else ()), *route.fallback)


def _missing_seconds(known: Addresses, ip: str, now: float, is_union: bool) -> float:
    if ip in known.current:
        return 0.0
    left_at = known.left.get(ip, known.since)
    if is_union and ip in known.seen:
        left_at = max(left_at, known.seen[ip] + UNION_SECONDS)
    return max(0.0, now - left_at)


def _numeric(ip: str) -> tuple[int, int, str]:
    parsed = ipaddress.ip_address(ip)
    return parsed.version, int(parsed), ip
