"""The network of AWS's guide "Accessing ElastiCache resources from outside AWS", address for address.

I/O: talks to the kernel (ip, iptables, nft), redis-server and memcached, as root.

    laptop                          nat (the NAT instance)              nodes (the cluster's subnet)
    198.51.100.27  eth0 -------- eth0  203.0.113.73
    route: 203.0.113.73/32 only        10.0.0.55/16  eth1 -------- eth0  10.0.1.220-254/16

Nothing is forwarded unless the guide's rules are installed. The laptop has no route to the nodes, the nodes none to
the laptop. Programs in ``nat`` ask the DNS server 127.0.5.53, an address of that namespace's own loopback, on which a
DNS stand-in may listen; an AWS stand-in may listen on its 127.0.0.1.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.network.namespaces import Namespaces, Spawned, why_impossible

LAPTOP, NAT, NODES = "laptop", "nat", "nodes"

LAPTOP_IP = "198.51.100.27"
PUBLIC_IP = "203.0.113.73"
NAT_IP = "10.0.0.55"
NODE_IPS = tuple(f"10.0.1.{last}" for last in range(220, 255))
RESOLVER_IP = "127.0.5.53"

GUIDE_NODES = ("10.0.1.230", "10.0.1.231", "10.0.1.232")
REDIS_PORT = 6379
MEMCACHED_PORT = 11211
REDIS_PORTS = (6379, 6380, 6381)
"""The guide's public ports, in the order of GUIDE_NODES."""
MEMCACHED_PORTS = (11211, 11212, 11213)

PROGRAMS = ("ip", "iptables", "nft", "sysctl", "redis-server", "memcached")

SILENCE_RULES = """
table inet silence {
    set silent { type ipv4_addr; }
    chain input { type filter hook input priority 0; ip daddr @silent drop; }
    chain output { type filter hook output priority 0; ip saddr @silent drop; }
}
"""


@dataclass(frozen=True)
class GuideCaches:
    """The guide's caches by node address; each one's key ``who`` holds that address."""

    redis: Mapping[str, Spawned]
    memcached: Mapping[str, Spawned]


def why_not_here() -> str | None:
    """Return why the guide's network cannot be built on this machine, or None where it can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return why_impossible() or (f"not installed: {', '.join(missing)}" if missing else None)


class GuideNetwork:
    """The guide's laptop, NAT instance and nodes; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self.namespaces = Namespaces((LAPTOP, NAT, NODES))
        self.run = self.namespaces.run
        self.spawn = self.namespaces.spawn
        self.inside = self.namespaces.inside
        self.connect = self.namespaces.connect
        self.directory = self.namespaces.directory
        self._rules: list[tuple[str, ...]] = []
        self._caches: list[Spawned] = []
        try:
            self._lay_cables()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove everything."""
        self.close()

    def close(self) -> None:
        """End every process inside and remove the namespaces, their interfaces and files."""
        for cache in self._caches:
            cache.kill()  # they have nothing to save, and memcached takes a second over a polite end
        self.namespaces.close()

    def _lay_cables(self) -> None:
        net = self.namespaces
        net.join(NAT, "eth0", LAPTOP, "eth0")
        net.join(NAT, "eth1", NODES, "eth0")
        net.ip(LAPTOP, "address", "add", f"{LAPTOP_IP}/32", "dev", "eth0")
        net.ip(LAPTOP, "route", "add", f"{PUBLIC_IP}/32", "dev", "eth0", "src", LAPTOP_IP)
        net.ip(NAT, "address", "add", f"{PUBLIC_IP}/32", "dev", "eth0")
        net.ip(NAT, "route", "add", f"{LAPTOP_IP}/32", "dev", "eth0", "src", PUBLIC_IP)
        net.ip(NAT, "address", "add", f"{NAT_IP}/16", "dev", "eth1")
        # Else the first address, once taken away, would take all others of its network along.
        self.run(NODES, ["sysctl", "-q", "-w", "net.ipv4.conf.all.promote_secondaries=1"])
        addresses = "".join(f"address add {ip}/16 dev eth0\n" for ip in NODE_IPS)
        self.run(NODES, ["ip", "-batch", "-"], stdin=addresses)
        net.write_etc(NAT, "resolv.conf", f"nameserver {RESOLVER_IP}\n")
        self._forward(on=False)
        self.run(NODES, ["nft", "-f", "-"], stdin=SILENCE_RULES)

    # The servers

    def start_redis(self, ip: str, port: int = REDIS_PORT, *, options: Sequence[str] = ()) -> Spawned:
        """Start a redis-server on one of the nodes' addresses and wait until it answers.

        ``options`` go to its command line (``--cluster-enabled yes``, ``--replicaof IP PORT``). What it announces and
        where it connects from is its own address, so that several can form a cluster in one namespace.
        """
        data = self.directory / f"redis-{ip}-{port}"
        data.mkdir(exist_ok=True)
        words = {
            "bind": ip,
            "bind-source-addr": ip,
            "port": str(port),
            "dir": str(data),
            "save": "",
            "appendonly": "no",
            "protected-mode": "no",
            "cluster-announce-ip": ip,
            "replica-announce-ip": ip,
            "enable-debug-command": "yes",
        }
        argv = ["redis-server", *(word for key, value in words.items() for word in (f"--{key}", value)), *options]
        return self._serve(argv, ip, port)

    def start_memcached(self, ip: str, port: int = MEMCACHED_PORT, *, options: Sequence[str] = ()) -> Spawned:
        """Start a memcached on one of the nodes' addresses and wait until it answers."""
        return self._serve(["memcached", "-u", "nobody", "-U", "0", "-l", ip, "-p", str(port), *options], ip, port)

    def start_named_redis(self, ip: str) -> Spawned:
        """Start a redis-server whose key ``who`` holds its address: ask_redis() then tells who answered."""
        spawned = self.start_redis(ip)
        self._exchange(NODES, (ip, REDIS_PORT), f"SET who {ip}\r\n", "+OK")
        return spawned

    def start_named_memcached(self, ip: str) -> Spawned:
        """Start a memcached whose key ``who`` holds its address: ask_memcached() then tells who answered."""
        spawned = self.start_memcached(ip)
        self._exchange(NODES, (ip, MEMCACHED_PORT), f"set who 0 0 {len(ip)}\r\n{ip}\r\n", "STORED")
        return spawned

    def start_guide_caches(self) -> GuideCaches:
        """Start a redis-server and a memcached on each of GUIDE_NODES."""
        return GuideCaches(
            redis={ip: self.start_named_redis(ip) for ip in GUIDE_NODES},
            memcached={ip: self.start_named_memcached(ip) for ip in GUIDE_NODES},
        )

    def ask_redis(self, namespace: str, host: str, port: int) -> str:
        """Return the ``who`` of the redis-server that a client in ``namespace`` reaches there."""
        return self._exchange(namespace, (host, port), "GET who\r\n", "$", lines=2)[1]

    def ask_memcached(self, namespace: str, host: str, port: int) -> str:
        """Return the ``who`` of the memcached that a client in ``namespace`` reaches there."""
        return self._exchange(namespace, (host, port), "get who\r\n", "VALUE", lines=3)[1]

    def _exchange(self, namespace: str, at: tuple[str, int], request: str, start: str, *, lines: int = 1) -> list[str]:
        with self.connect(namespace, *at) as client, client.makefile("r", newline="\r\n") as answer:
            client.sendall(request.encode())
            said = [answer.readline().rstrip("\r\n") for _ in range(lines)]
        if not said[0].startswith(start):
            raise RuntimeError(f"{at} answered {said}")
        return said

    def _serve(self, argv: Sequence[str], ip: str, port: int) -> Spawned:
        spawned = self.spawn(NODES, argv)
        self._caches.append(spawned)
        self.namespaces.wait_until_listening(NODES, spawned, ip, port)
        return spawned

    # The guide's own rules

    def install_guide_rules(self, nodes: Sequence[str] = GUIDE_NODES) -> None:
        """Do what the guide says: DNAT per node, one SNAT, ip_forward.

        ``nodes`` are the addresses behind public ports 6379, 6380, 6381 and 11211, 11212, 11213.
        """
        self.remove_guide_rules()
        routes = [*zip(REDIS_PORTS, nodes, strict=True), *zip(MEMCACHED_PORTS, nodes, strict=True)]
        for public_port, ip in routes:
            port = REDIS_PORT if public_port in REDIS_PORTS else MEMCACHED_PORT
            match = ("PREROUTING", "-i", "eth0", "-p", "tcp", "--dport", str(public_port))
            self._add_rule(*match, "-j", "DNAT", "--to", f"{ip}:{port}")
        self._add_rule("POSTROUTING", "-o", "eth1", "-j", "SNAT", "--to-source", NAT_IP)
        self._forward(on=True)

    def remove_guide_rules(self) -> None:
        """Take exactly those rules back; without them installed, do nothing."""
        while self._rules:
            self.run(NAT, ["iptables", "-t", "nat", "-D", *self._rules.pop()])
        self._forward(on=False)

    def _add_rule(self, *rule: str) -> None:
        self.run(NAT, ["iptables", "-t", "nat", "-A", *rule])
        self._rules.append(rule)

    def _forward(self, *, on: bool) -> None:
        self.run(NAT, ["sysctl", "-q", "-w", f"net.ipv4.ip_forward={int(on)}"])

    # What may happen to a node's address

    def silence(self, ip: str) -> None:
        """Let a node's address swallow every packet, as a hung or unplugged host does: no answer, no refusal."""
        self.run(NODES, ["nft", "add", "element", "inet", "silence", "silent", f"{{ {ip} }}"])

    def unsilence(self, ip: str) -> None:
        """Let a silenced address answer again."""
        self.run(NODES, ["nft", "delete", "element", "inet", "silence", "silent", f"{{ {ip} }}"])

    def take_address(self, ip: str) -> None:
        """Take an address away from the nodes, as AWS does with a replaced node's: no host answers for it."""
        self.namespaces.ip(NODES, "address", "delete", f"{ip}/16", "dev", "eth0")

    def give_address(self, ip: str) -> None:
        """Give the nodes one more address of 10.0.0.0/16."""
        self.namespaces.ip(NODES, "address", "add", f"{ip}/16", "dev", "eth0")

    def addresses(self, namespace: str) -> Mapping[str, tuple[str, ...]]:
        """Return interface -> IPv4 addresses with prefix lengths, loopback left out."""
        found: dict[str, tuple[str, ...]] = {}
        for line in self.namespaces.ip(namespace, "-4", "-o", "address", "show", "scope", "global").splitlines():
            interface, address = line.split()[1], line.split()[3]
            found[interface] = (*found.get(interface, ()), address)
        return found
