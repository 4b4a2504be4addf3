"""What every proxy is told, in words of none: its ports, and how it is run. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bench.accounts import Account
from bench.certificates import Files
from bench.programs import PROXY_CORE, Probe, is_listening

NODE_PORT, NODE_TLS_PORT, BULK_PORT, MEMCACHED_PORT = 21990, 21995, 21996, 21997
FIRST_PORTS = {"natproxy": 21100, "HAProxy": 21200, "nginx": 21300, "stunnel": 21400, "socat": 21500, "compiled": 21600}
"""Each proxy's own, then one for each door."""
NODE_HOSTS = {name: f"127.0.1.{number}" for number, name in enumerate(FIRST_PORTS, 1)}
"""The node has an address for each proxy, so that nobody meets the ports that another has left in TIME_WAIT. (Measured
in turns, one address for all made no difference that could be seen.)"""


@dataclass(frozen=True)
class Door:
    """One way through a proxy."""

    name: str
    number: int = 0
    """Among those of a run: ports are numbered by it."""
    target: str = f"127.0.0.1:{NODE_PORT}"
    client_tls: bool = False
    node_tls: bool = False
    demands_certificate: bool = False
    """Of clients."""
    is_large: bool = False
    """With 64 KiB buffers, where they can be set."""
    rewrite: str = ""
    """natproxy's: redis | memcached; empty = it rewrites nothing."""


@dataclass(frozen=True)
class Setting:
    """How a proxy is run."""

    directory: Path
    """For configs and the like; theirs to write to."""
    files: Files | None = None
    """For the doors that speak TLS."""
    workers: int = 1
    """Processes or threads."""
    core: str = PROXY_CORE
    address: str = "127.0.0.1"
    """To listen on."""
    prefix: tuple[str, ...] = ()
    """What enters another namespace."""
    probe: Probe = is_listening
    """How to see that a port there is open."""
    first_port: int | None = None
    """Instead of FIRST_PORTS."""
    python: tuple[str, ...] = ()
    """natproxy's interpreter; none: this one."""


@dataclass(frozen=True)
class Open:
    """A door that can be gone through."""

    port: int
    account: Account
    """Those who do the work."""
    host: str = "127.0.0.1"


def port_of(proxy: str, setting: Setting, door: Door) -> int:
    """Return the port that a proxy listens on for one of its doors."""
    return (setting.first_port or FIRST_PORTS[proxy]) + door.number


def own(proxy: str, doors: tuple[Door, ...]) -> tuple[Door, ...]:
    """Return the doors with the node's address for this proxy; a target elsewhere stays as it is."""
    return tuple(replace(door, target=door.target.replace("127.0.0.1:", f"{NODE_HOSTS[proxy]}:")) for door in doors)


def split(address: str) -> tuple[str, int]:
    """Return host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)
