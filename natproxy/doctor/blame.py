"""Which security group keeps this instance from a node: why an address stays silent. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from natproxy.doctor.groups import (
    Passage,
    Peer,
    SecurityGroup,
    let_in,
    let_out,
    passage,
    peers_of,
    prefix_lists,
    show_prefix_lists,
)
from natproxy.doctor.instance import Instance, Interface
from natproxy.doctor.reach import Dialled
from natproxy.model import Address, Network

NEXT = (
    "look at the network ACLs of both subnets (aws ec2 describe-network-acls), which need the way back, TCP "
    "1024-65535, as well; then at the subnets' routes, and at whether the node is well"
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of the network around this instance and the caches."""

    region: str
    instance: Instance | None = None
    cache_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Cache id -> the ids of its security groups."""
    groups: Mapping[str, SecurityGroup] = field(default_factory=dict)
    """Those that could be looked at, by id."""
    source_of: Callable[[str], str] = lambda _: ""
    """The address that this host dials another one from."""

    def worn(self, interface: Interface) -> tuple[SecurityGroup, ...]:
        """Return the groups of an interface that could be looked at."""
        return tuple(self.groups[name] for name in interface.groups if name in self.groups)

    def of_cache(self, cache: str) -> tuple[SecurityGroup, ...]:
        """Return the groups of a cache that could be looked at."""
        return tuple(self.groups[name] for name in self.cache_groups.get(cache, ()) if name in self.groups)

    def interface_to(self, address: str) -> Interface | None:
        """Return the interface of this instance that leads to an address."""
        if self.instance is None:
            return None
        return self.instance.with_address(self.source_of(address)) or self.instance.interfaces[0]


def explain(scene: Scene, silent: Dialled) -> tuple[str, str] | None:
    """Say why an address does not answer, and what to do; None where the groups tell nothing of it."""
    place = Address(silent.address, silent.target.port)
    told = f"{place}: {silent.detail}"
    theirs, interface = scene.of_cache(silent.target.cache), scene.interface_to(silent.address)
    if interface is None:
        return _from_outside(told, theirs, place) if theirs else None
    found = None
    if theirs:
        found = _inbound(told, scene, theirs, interface, place)
    return found or _outbound(told, scene, theirs, interface, place)


def _inbound(
    told: str, scene: Scene, theirs: tuple[SecurityGroup, ...], interface: Interface, place: Address
) -> tuple[str, str] | None:
    """Look whether the cache's groups let this instance in."""
    rules = [rule for group in theirs for rule in group.inbound]
    answers = [passage(rules, place.port, peer) for peer in _peers(interface, place.ip)]
    if Passage.OPEN in answers:
        return None
    named = " and ".join(map(str, theirs))
    does_not = "has no inbound rule" if len(theirs) == 1 else "have no inbound rule"
    if Passage.UNSURE in answers:
        lists = prefix_lists(rules, place.port)
        evidence = f"{told}; {named} lets {', '.join(lists)} in on TCP {place.port}: whether this instance is in there "
        return f"{evidence}is not known", show_prefix_lists(lists, scene.region)
    who = _who(scene, interface)
    evidence = f"{told}; the cache's security group {named} {does_not} for TCP {place.port} from {who}"
    is_apart = bool(theirs[0].vpc and interface.vpc and theirs[0].vpc != interface.vpc)
    if is_apart:
        evidence += f"; and the cache is in {theirs[0].vpc}, this instance in {interface.vpc}"
    addresses = [peer.network for peer in _peers(interface, place.ip)]
    # Of another VPC, a group can be named only where the two are peered, in one region: an address always.
    source: Network | str = addresses[0] if addresses and (is_apart or not interface.groups) else interface.groups[0]
    return evidence, let_in(theirs[0].id, [place.port], source, scene.region)


def _outbound(
    told: str, scene: Scene, theirs: tuple[SecurityGroup, ...], interface: Interface, place: Address
) -> tuple[str, str] | None:
    """Look whether this instance's own groups let it out; where they do, the groups are not to blame."""
    ours = scene.worn(interface)
    if not ours:
        return None
    rules = [rule for group in ours for rule in group.outbound]
    node = Peer(_network(place.ip), frozenset(group.id for group in theirs))
    answer = passage(rules, place.port, node)
    named = " and ".join(map(str, ours))
    if answer is Passage.OPEN:
        right = "the security groups of both sides let it through" if theirs else f"{named} lets it out"
        return f"{told}; {right}", NEXT
    if answer is Passage.UNSURE:
        lists = prefix_lists(rules, place.port)
        evidence = f"{told}; {named} lets TCP {place.port} out to {', '.join(lists)}: whether the node is in there "
        return f"{evidence}is not known", show_prefix_lists(lists, scene.region)
    evidence = f"{told}; the outbound rules of this instance's {named} do not let TCP {place.port} out to it"
    to: Network | str = theirs[0].id if theirs else _network(place.ip)
    return evidence, let_out(ours[0].id, place.port, to, scene.region)


def _from_outside(told: str, theirs: tuple[SecurityGroup, ...], place: Address) -> tuple[str, str]:
    """Say whom the cache's groups let in, where it is not known which instance this is."""
    allowed = ", ".join(peer for group in theirs for peer in peers_of(group.inbound, place.port)) or "nobody"
    named = " and ".join(map(str, theirs))
    evidence = f"{told}; the cache's {named} lets in on TCP {place.port}: {allowed}"
    return evidence, f"let this host in there, on TCP {place.port}; what else keeps packets away: {NEXT}"


def _peers(interface: Interface, to: str) -> list[Peer]:
    """Return this instance as a group's rules may mean it: by each address of the family, with its groups."""
    version = ipaddress.ip_address(to).version
    own = [network for address in interface.private if (network := _network(address)).version == version]
    return [Peer(network, frozenset(interface.groups)) for network in own or map(_network, interface.private)]


def _who(scene: Scene, interface: Interface) -> str:
    groups = " or ".join(str(scene.groups.get(name, name)) for name in interface.groups)
    return f"{groups} (this instance's), or {', '.join(interface.private)}"


def _network(address: str) -> Network:
    return ipaddress.ip_network(address)
