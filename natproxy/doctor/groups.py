"""Security groups: what their rules let through, and the commands that change them. Pure."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from natproxy.discover.fields import Fields, Raw
from natproxy.doctor.spans import spans
from natproxy.model import Network

EVERYWHERE: tuple[Network, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_TCP = frozenset({"tcp", "6", "-1"})
_ALL = "-1"
_LAST_PORT = 65535


class Passage(StrEnum):
    """Whether rules let something through."""

    OPEN = "open"
    CLOSED = "closed"
    UNSURE = "unsure"
    """Only a prefix list may, and what is in it is not known here."""
    PARTLY = "partly"
    """Some of a network, or members of another group."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission of a group: TCP ports, and who they are open for."""

    first: int
    last: int
    networks: tuple[Network, ...] = ()
    groups: frozenset[str] = frozenset()
    prefix_lists: frozenset[str] = frozenset()
    has_all_protocols: bool = False

    def holds(self, port: int) -> bool:
        """Tell whether the port is one of this rule's."""
        return self.first <= port <= self.last


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """One security group, as far as TCP is concerned."""

    id: str
    name: str = ""
    vpc: str = ""
    inbound: tuple[Rule, ...] = ()
    outbound: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        return f"{self.id} ({self.name})" if self.name else self.id


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is let through: an address, or a whole network, and the groups that it belongs to."""

    network: Network
    groups: frozenset[str] = frozenset()


def read_group(raw: Raw) -> SecurityGroup:
    """Read a group as EC2 describes it. Rules that cannot be read, and those of other protocols, are left out."""
    fields = Fields(raw, set())
    return SecurityGroup(
        id=fields.identifier("GroupId") or "",
        name=fields.text("GroupName") or "",
        vpc=fields.identifier("VpcId") or "",
        inbound=tuple(_rules(fields, "IpPermissions")),
        outbound=tuple(_rules(fields, "IpPermissionsEgress")),
    )


def passage(rules: Iterable[Rule], port: int, peer: Peer) -> Passage:
    """Tell whether rules, taken together, let all of ``peer`` through on a TCP port."""
    meant = [rule for rule in rules if rule.holds(port)]
    if any(rule.groups & peer.groups for rule in meant):
        return Passage.OPEN
    networks = [network for rule in meant for network in rule.networks]
    if is_covered(peer.network, networks):
        return Passage.OPEN
    return Passage.UNSURE if prefix_lists(meant, port) else Passage.CLOSED


def is_covered(network: Network, by: Iterable[Network]) -> bool:
    """Tell whether every address of a network is in one of the others."""
    if isinstance(network, ipaddress.IPv4Network):
        fours = (other for other in by if isinstance(other, ipaddress.IPv4Network))
        return any(network.subnet_of(other) for other in ipaddress.collapse_addresses(fours))
    sixes = (other for other in by if isinstance(other, ipaddress.IPv6Network))
    return any(network.subnet_of(other) for other in ipaddress.collapse_addresses(sixes))


def prefix_lists(rules: Iterable[Rule], port: int) -> tuple[str, ...]:
    """Name the prefix lists for which a port is open."""
    return tuple(sorted({name for rule in rules if rule.holds(port) for name in rule.prefix_lists}))


def peers_of(rules: Iterable[Rule], port: int) -> tuple[str, ...]:
    """Name all that a port is open for, as it is written in the rules."""
    meant = [rule for rule in rules if rule.holds(port)]
    named = (str(peer) for rule in meant for peer in (*rule.networks, *sorted(rule.groups | rule.prefix_lists)))
    return tuple(dict.fromkeys(named))


def let_in(group: str, ports: Iterable[int], peer: Network | str, region: str) -> str:
    """Return the commands that let a network, or a group, in."""
    lines = []
    for first, last in spans(ports):
        span = str(first) if first == last else f"{first}-{last}"
        if isinstance(peer, str):
            who = f"--protocol tcp --port {span} --source-group {peer}"
        elif isinstance(peer, ipaddress.IPv4Network):
            who = f"--protocol tcp --port {span} --cidr {peer}"
        else:
            who = f"--ip-permissions '{_permission(first, last, peer)}'"
        lines.append(f"aws ec2 authorize-security-group-ingress --group-id {group} {who}{in_region(region)}")
    return " && ".join(lines)


def let_out(group: str, port: int, peer: Network | str, region: str) -> str:
    """Return the command that lets this instance out to a network, or to a group's members."""
    permission = _permission(port, port, peer)
    return (
        f"aws ec2 authorize-security-group-egress --group-id {group} --ip-permissions '{permission}'{in_region(region)}"
    )


def shut_out(group: str, rule: Rule, network: Network, region: str) -> str:
    """Return the command that takes a network out of a rule."""
    permission = _permission(rule.first, rule.last, network, is_all=rule.has_all_protocols)
    return (
        f"aws ec2 revoke-security-group-ingress --group-id {group} --ip-permissions '{permission}'{in_region(region)}"
    )


def _permission(first: int, last: int, peer: Network | str, *, is_all: bool = False) -> str:
    """Write a permission in the short form that the aws command takes."""
    if isinstance(peer, str):
        who = f"UserIdGroupPairs=[{{GroupId={peer}}}]"
    elif isinstance(peer, ipaddress.IPv4Network):
        who = f"IpRanges=[{{CidrIp={peer}}}]"
    else:
        who = f"Ipv6Ranges=[{{CidrIpv6={peer}}}]"
    return f"IpProtocol=-1,{who}" if is_all else f"IpProtocol=tcp,FromPort={first},ToPort={last},{who}"


def show_prefix_lists(names: Iterable[str], region: str) -> str:
    """Return the commands that show what is in prefix lists."""
    command = "aws ec2 get-managed-prefix-list-entries --prefix-list-id"
    return " && ".join(f"{command} {name}{in_region(region)}" for name in names)


def in_region(region: str) -> str:
    """Return the option of the aws command that names the region; empty where that is not known."""
    return f" --region {shlex.quote(region)}" if region else ""


def _rules(group: Fields, name: str) -> Iterator[Rule]:
    for permission in group.structures(name):
        protocol = permission.word("IpProtocol")
        first, last = permission.number("FromPort"), permission.number("ToPort")
        if protocol not in _TCP:
            continue
        if protocol == _ALL or first is None or last is None:
            first, last = 0, _LAST_PORT
        yield Rule(
            first,
            last,
            networks=tuple(_networks(permission)),
            groups=frozenset(_named(permission.structures("UserIdGroupPairs"), "GroupId")),
            prefix_lists=frozenset(_named(permission.structures("PrefixListIds"), "PrefixListId")),
            has_all_protocols=protocol == _ALL,
        )


def _networks(permission: Fields) -> Iterator[Network]:
    for items, name in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
        for item in permission.structures(items):
            try:
                yield ipaddress.ip_network(item.text(name) or "", strict=False)
            except ValueError:
                continue


def _named(items: Sequence[Fields], name: str) -> Iterator[str]:
    return (text for item in items if (text := item.identifier(name)) is not None)
