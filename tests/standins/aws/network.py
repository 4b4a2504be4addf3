"""The network around the caches: this instance, other interfaces, security groups, Elastic IPs. Pure.

    world.network.forbid(CACHE_GROUP)                            # nobody may reach the caches
    world.network.allow(NATPROXY_GROUP, "198.51.100.27/32", 6379, 6478)
    world.network.associate("203.0.113.73", "i-0ffffffffffffff99")

It begins as AWS's guide has it: an instance 10.0.0.55 with the Elastic IP 203.0.113.73, whose group lets the trusted
client in and lets itself out to the caches, and a group of the caches that lets in the instance's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.standins.aws.records import WorldError

VPC = "vpc-0a1b2c3d4e5f60700"
CACHE_GROUP = "sg-0a1b2c3d4e5f60718"
NATPROXY_GROUP = "sg-0a1b2c3d4e5f60755"
THIS_INSTANCE = "i-0a1b2c3d4e5f60718"
OTHER_INSTANCE = "i-0ffffffffffffff99"
TRUSTED_CLIENT = "198.51.100.27/32"
PUBLIC_ADDRESS = "203.0.113.73"
PRIVATE_ADDRESS = "10.0.0.55"
ALL_PORTS = (0, 65535)


@dataclass(frozen=True)
class Rule:
    """One line of a security group: one source (or destination) for a range of ports."""

    peer: str
    """A CIDR of either family, another group's id, or a prefix list's (``pl-``)."""
    first: int
    last: int
    protocol: str = "tcp"
    """tcp | udp | icmp | -1; with -1 no ports are told."""


@dataclass
class SecurityGroup:
    """One security group."""

    id: str
    name: str
    vpc: str = VPC
    inbound: list[Rule] = field(default_factory=list)
    outbound: list[Rule] = field(default_factory=list)


@dataclass
class Interface:
    """One network interface; without an instance it is a load balancer's, or the like."""

    id: str
    mac: str
    address: str
    groups: list[str]
    instance: str | None = None
    public: str | None = None
    """The public address it has: an Elastic IP, or one that AWS lent."""
    vpc: str = VPC


class Network:
    """All of it. May be used from any thread; ``lock`` is the world's."""

    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock
        self.groups: dict[str, SecurityGroup] = {}
        self.interfaces: list[Interface] = []
        self.elastic: dict[str, str] = {}
        """Elastic IP -> its allocation's id."""
        self._build()

    @property
    def this(self) -> list[Interface]:
        """This instance's interfaces, the primary one first."""
        return self.of_instance(THIS_INSTANCE)

    def of_instance(self, instance: str) -> list[Interface]:
        """Return an instance's interfaces."""
        return [interface for interface in self.interfaces if interface.instance == instance]

    # what can be done to it

    def allow(
        self,
        group: str,
        peer: str,
        first: int = 0,
        last: int | None = None,
        *,
        protocol: str = "tcp",
        out: bool = False,
    ) -> None:
        """Add a rule, once; ``first`` alone is one port, neither is all of them."""
        ports = ALL_PORTS if not first else (first, first if last is None else last)
        with self.lock:
            rules = self._group(group).outbound if out else self._group(group).inbound
            rule = Rule(peer, *ports, protocol)
            if rule not in rules:
                rules.append(rule)

    def forbid(self, group: str, peer: str | None = None, *, out: bool = False) -> None:
        """Take away the rules of a group, or only those for ``peer``."""
        with self.lock:
            rules = self._group(group).outbound if out else self._group(group).inbound
            rules[:] = [rule for rule in rules if peer is not None and rule.peer != peer]

    def add_group(self, group: str, name: str, *, vpc: str = VPC) -> None:
        """Make a group that lets nothing in and all out."""
        with self.lock:
            self.groups[group] = SecurityGroup(group, name, vpc, outbound=[_everywhere()])

    def wear(self, groups: Iterable[str], instance: str = THIS_INSTANCE) -> None:
        """Give an instance's primary interface these groups."""
        with self.lock:
            self.of_instance(instance)[0].groups = list(groups)

    def add_interface(self, number: int, address: str, instance: str | None = None) -> None:
        """Make an interface, of an instance or of a load balancer."""
        with self.lock:
            self.interfaces.append(
                Interface(
                    f"eni-0a1b2c3d4e5f607{number:02x}",
                    f"0e:00:00:00:00:{number:02x}",
                    address,
                    [NATPROXY_GROUP],
                    instance,
                )
            )

    def associate(self, public: str, to: str | None, *, is_elastic: bool = True) -> None:
        """Let a public address be an instance's (its primary interface's), an interface's (``eni-``), or nobody's."""
        with self.lock:
            for interface in self.interfaces:
                if interface.public == public:
                    interface.public = None
            if is_elastic:
                self.elastic.setdefault(public, f"eipalloc-0a1b2c3d4e5f607{len(self.elastic):02x}")
            if to is not None:
                self._interface(to).public = public

    def _interface(self, name: str) -> Interface:
        for interface in self.interfaces:
            if name in (interface.id, interface.instance):
                return interface
        message = f"there is no instance or interface {name}"
        raise WorldError(message)

    def _group(self, group: str) -> SecurityGroup:
        if group not in self.groups:
            message = f"there is no security group {group}"
            raise WorldError(message)
        return self.groups[group]

    def _build(self) -> None:
        self.add_group(CACHE_GROUP, "caches")
        self.add_group(NATPROXY_GROUP, "natproxy")
        self.forbid(NATPROXY_GROUP, out=True)
        self.add_interface(0x55, PRIVATE_ADDRESS, THIS_INSTANCE)
        self.add_interface(0x99, "10.0.0.99", OTHER_INSTANCE)
        self.associate(PUBLIC_ADDRESS, THIS_INSTANCE)
        for first, last in ((6379, 6478), (11211, 11310)):
            self.allow(NATPROXY_GROUP, TRUSTED_CLIENT, first, last)
        self.allow(NATPROXY_GROUP, TRUSTED_CLIENT, 22)
        for port in (6379, 6380, 11211):
            self.open_caches(port)
        self.allow(NATPROXY_GROUP, "0.0.0.0/0", 443, out=True)

    def open_caches(self, port: int) -> None:
        """Let natproxy's group out to a port of the caches, and in there."""
        self.allow(NATPROXY_GROUP, CACHE_GROUP, port, out=True)
        self.allow(CACHE_GROUP, NATPROXY_GROUP, port)


def _everywhere() -> Rule:
    return Rule("0.0.0.0/0", *ALL_PORTS, "-1")
