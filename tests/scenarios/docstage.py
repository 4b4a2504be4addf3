"""The stage for the blocks of docs/clients.md: caches, daemons and laptops as the page has them.

Caches speak TLS where clients do not: nobody gets to a node but through natproxy. I/O: processes, files.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.docblocks import Block, Laptop
from tests.scenarios.rewriting import direct
from tests.standins.aws.records import TlsMode
from tests.standins.caches import is_port_free
from tests.standins.cloud import Cloud

Side = Literal["named", "addressed", "clear"]
"""TLS, and clients are told a name; TLS, and they are told an address; no TLS."""
SIDES: tuple[Side, ...] = ("named", "addressed", "clear")
Laptops = Mapping[Side, Laptop]

HOST, ELSEWHERE = "cache.dev.example.com", "elsewhere.example.com"
RANGES = {"my-cluster": "6379-6388", "my-redis": "6389-6398", "my-memcached": "11211-11220"}
PORTS = {
    "my-cluster-0001-001/0001": 6379,
    "my-cluster-0003-002/0001": 6384,
    "my-cluster:configuration": 6385,
    "my-redis:primary": 6391,
    "my-redis:reader": 6392,
    "my-memcached/0001": 11211,
    "my-memcached/0003": 11213,
    "my-memcached:configuration": 11214,
}
"""What the page says of them."""
USERS = {"app": (">secret",), "app-iam": ("nopass",)}
"""How they log in, in terms of ACL SETUSER."""


def node_tls(side: Side) -> TlsMode:
    """Whether nodes speak TLS."""
    return "required" if side == "clear" else "off"


def cache_id(name: str, side: Side) -> str:
    """Return the id of the cache that the page calls so."""
    return f"{name}-tls" if side == "clear" else name


@contextmanager
def open_cloud() -> Iterator[Cloud]:
    """Make the page's caches, for both kinds of clients."""
    with Cloud() as cloud:
        for side in ("named", "clear"):
            tls = node_tls(side)
            cluster, group, memcached = (cache_id(name, side) for name in RANGES)
            cloud.replication_group(cluster, mode="cluster-enabled", shards=3, replicas=1, tls=tls)
            cloud.replication_group(group, replicas=1, tls=tls)
            cloud.memcached(memcached, nodes=3, tls=tls)
            for member in cloud.world.group(cluster).members:
                for user, how in USERS.items():
                    cloud.cluster_node(member).ask("ACL", "SETUSER", user, "on", *how, "~*", "&*", "+@all")
            # Once for all: what has been written is on the replica only a moment later.
            primary = direct(cloud, f"{group}-001")
            assert [primary.ask(*words.split()).value for words in ("SET greeting hello", "WAIT 1 9000")] == ["OK", 1]
        yield cloud


def open_laptop(cloud: Cloud, natproxies: Natproxies, side: Side, directory: Path) -> Laptop:
    """Start a daemon as the page has it, and unpack a developer's bundle."""
    daemon = natproxies.prepare(cloud)
    if taken := [port for port in PORTS.values() if not is_port_free(daemon.ip, port)]:
        pytest.skip(f"the page's ports are in use here: {taken}")
    told = HOST if side == "named" else daemon.ip
    amazon = daemon.path.parent / "amazon.crt"
    amazon.write_bytes(cloud.authority.pem)
    daemon.config |= {
        "public_host": told,
        "public_ip": daemon.ip,
        "caches": [{"id": cache_id(name, side), "ports": ports} for name, ports in RANGES.items()],
        "nodes": {"ca": str(amazon)},
    }
    if side != "clear":
        daemon.config["tls"] = issue_bundle(daemon, told, directory)
    daemon.start()
    for name, port in PORTS.items():
        cache = next(cache for cache in RANGES if name.startswith(cache))
        assert daemon.wait_for_route(name.replace(cache, cache_id(cache, side))) == port, name
    names = {HOST: daemon.ip, ELSEWHERE: daemon.ip} if side == "named" else {}
    (directory / "ip").write_text(daemon.ip, encoding="utf-8")
    return Laptop(directory, names)


def issue_bundle(daemon: Daemon, host: str, directory: Path) -> dict[str, str]:
    """Be the developers' CA, with its own commands; return the config's ``tls``."""
    ours = daemon.path.parent
    for words in (["init", "--host", host, "--ip", daemon.ip], ["issue", "dev1"]):
        subprocess.run([sys.executable, "-m", "natproxy", "pki", *words], cwd=ours, check=True, capture_output=True)
    with zipfile.ZipFile(ours / "dev1.zip") as bundle:
        bundle.extractall(directory)
    files = {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt", "crl": "clients.crl"}
    return {key: str(ours / "natproxy-pki" / file) for key, file in files.items()}


def dressed(block: Block, side: Side, laptop: Laptop, host: str = HOST) -> Block:
    """Return a block as somebody on that side writes it."""
    if side == "named":
        return block.with_words({HOST: host})
    block = block.with_words({HOST: (laptop.directory / "ip").read_text(encoding="utf-8")})
    return block if side == "addressed" else block.without_tls()
