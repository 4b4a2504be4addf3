"""The guide's network: natproxy and the others on the NAT instance, and the guide's own DNAT rule. I/O: as root.

Everything runs on one core, so what is done in a second is what the whole way costs: laptop, NAT instance and node.
For the kernel's rule there is no process whose CPU could be counted, so the cost is that of client, node and proxy
together, the packets' way through the kernel included. The rule has a network of its own: where it is, every packet is
tracked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.accounts import Account
from bench.loads import requests, timed
from bench.parts import whole
from bench.parts.how import MAIN, CannotError, Found, How
from bench.parts.nodes import NEEDED, directory
from bench.peers import catalogue
from bench.peers.ports import Door, Open, Setting
from bench.programs import PEER_CORE, missing
from bench.results import DNAT, Row
from bench.rounds import Load, tell
from tests.network.guide import (
    GUIDE_NODES,
    LAPTOP,
    NAT,
    NODES,
    PUBLIC_IP,
    REDIS_PORT,
    REDIS_PORTS,
    GuideNetwork,
    why_not_here,
)

CORE = PEER_CORE
DOORS = {name: Door("clear", target=f"{ip}:{REDIS_PORT}") for name, ip in zip(MAIN, GUIDE_NODES, strict=True)}
"""One node, which has an address for each proxy (see bench.peers.ports.NODE_HOSTS)."""


@contextlib.contextmanager
def network() -> Iterator[tuple[GuideNetwork, Account]]:
    """Lay the cables and start the node; yield both."""
    with GuideNetwork() as net:
        for namespace in (LAPTOP, NAT):  # else TIME_WAIT uses the ports up where connections are many
            net.run(namespace, ["sysctl", "-q", "-w", "net.ipv4.tcp_tw_reuse=1"])
            net.run(namespace, ["sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=22000 65000"])
        node = net.start_redis(GUIDE_NODES[0], options=["--bind", *GUIDE_NODES])
        net.run(NODES, ["taskset", "-a", "-p", "-c", CORE, str(node.pid)])
        yield net, Account((node.pid,))


def entering(net: GuideNetwork, namespace: str) -> tuple[str, ...]:
    """Return what runs a command inside."""
    return ("ip", "netns", "exec", net.namespaces.name(namespace))


def _is_listening(net: GuideNetwork, port: int) -> bool:
    try:
        net.connect(LAPTOP, PUBLIC_IP, port).close()
    except OSError:
        return False
    return True


def workloads(laptop: tuple[str, ...]) -> dict[str, tuple[Load, int]]:
    """Return loads from the laptop, and how much their warm-up does."""
    c50 = ("-c", "50")
    return {
        "guide: SET, 50 clients": (requests(["set"], *c50, core=CORE, prefix=laptop), 4_000),
        "guide: GET and SET, 1 client": (timed(1, core=CORE, prefix=laptop), 1_000),
        "guide: SET, 50 clients, pipeline 16": (requests(["set"], *c50, "-P", "16", core=CORE, prefix=laptop), 30_000),
        "guide: SET 64 KiB, 16 clients": (
            requests(["set"], "-c", "16", "-d", "65536", core=CORE, prefix=laptop),
            1_500,
        ),
        "guide: a new connection for each SET": (
            requests(["set"], *c50, "-k", "0", core=CORE, prefix=laptop),
            1_000,
        ),
    }


def measure(how: How) -> Found:
    """Measure every workload through every proxy, and through the rule."""
    if reason := why_not_here() or missing(*NEEDED):
        raise CannotError(reason)
    found = Found(left_out=catalogue.left_out(MAIN))
    with directory() as place, network() as (plain, node), network() as (ruled, ruled_node):
        setting = Setting(
            place,
            core=CORE,
            address="0.0.0.0",
            prefix=entering(plain, NAT),
            probe=lambda port: _is_listening(plain, port),
            python=how.python,
        )
        ruled.install_guide_rules()
        with contextlib.ExitStack() as stack:
            doors: catalogue.Doors = {}
            for name, door in DOORS.items():
                doors |= stack.enter_context(catalogue.open_doors((name,), (door,), setting))
            ways = {name: _way(opened["clear"], node) for name, opened in doors.items()}
            ways[DNAT] = Open(REDIS_PORTS[0], ruled_node, PUBLIC_IP)
            laptops = dict.fromkeys(doors, entering(plain, LAPTOP)) | {DNAT: entering(ruled, LAPTOP)}
            for name in workloads(()):
                tell(f"  {name}")
                loads = {proxy: workloads(laptop)[name] for proxy, laptop in laptops.items()}
                found.rows.append(Row(name, "us", whole.measure(loads, ways, how.pace), "rate"))
    return found


def _way(opened: Open, node: Account) -> Open:
    """Return a door with the node's work counted among the proxy's."""
    return Open(opened.port, Account((*opened.account.pids, *node.pids)), PUBLIC_IP)
