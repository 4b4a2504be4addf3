"""A small world that the pages show: caches of each kind, TLS, a portal, and somebody who uses them. I/O: all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
from pymemcache.client.base import Client as PymemcacheClient
from pymemcache.exceptions import MemcacheError

from tests.browser.bridge import bridge
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import ADMIN_PORT, FIRST_PORT, Daemon
from tests.scenarios.tlspeers import HOST, Papers
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

PORTAL_PORT, DEFAULT_PORTAL_PORT = ADMIN_PORT + 1, 6378
ANYBODY_HERE = {"allow": ["127.0.0.0/8"]}
DEVELOPER = "dev1"
"""Whose certificate the browser shows to the portal."""
GROUP, CLUSTER, MEMCACHED, SECRET, ABSENT, STATIC = (
    "my-redis", "my-cluster", "my-memcached", "of-others", "not-there", "legacy",
)  # fmt: skip
CACHES: tuple[dict[str, Any], ...] = (
    {"id": GROUP, "ports": f"{FIRST_PORT}-{FIRST_PORT + 9}"},
    {"id": CLUSTER, "ports": f"{FIRST_PORT + 10}-{FIRST_PORT + 19}", "clients": {"certificates": [DEVELOPER]}},
    {"id": MEMCACHED, "ports": f"{FIRST_PORT + 20}-{FIRST_PORT + 29}", "clients": {"tls": "off", **ANYBODY_HERE}},
    {"id": SECRET, "ports": f"{FIRST_PORT + 30}-{FIRST_PORT + 39}", "clients": {"certificates": ["dev2"]}},
    {"id": ABSENT, "ports": f"{FIRST_PORT + 40}-{FIRST_PORT + 49}"},
)
CUSTOMARY = {GROUP: "6379-6388", CLUSTER: "6389-6398", MEMCACHED: "11211-11220"}
"""The ports of a tidy world, as people know them."""
KEY = "greeting"
SAYS = b"hello " * 50
ASK_EVERY_SECONDS = 0.02
NO_ANSWER = (OSError, redis.RedisError, MemcacheError)


@dataclass(frozen=True)
class World:
    """What is there, and where."""

    cloud: Cloud
    daemon: Daemon
    papers: Papers
    portal: str
    """The URL of the portal, for a browser without a certificate: that of DEVELOPER is shown for it."""

    @property
    def admin(self) -> str:
        """The URL of the admin side."""
        return f"http://{self.daemon.ip}:{ADMIN_PORT}"


@contextmanager
def open_world(natproxies: Natproxies, *, is_tidy: bool = False) -> Iterator[World]:
    """Make it; all ports are open once it is there.

    In a ``tidy`` one nothing is missing or out of reach, and its ports are the customary ones: people look at it.
    """
    with ExitStack() as stack:
        cloud = stack.enter_context(Cloud())
        cloud.replication_group(GROUP, replicas=2)
        cloud.replication_group(CLUSTER, mode="cluster-enabled", shards=2, replicas=1)
        cloud.memcached(MEMCACHED, nodes=2)
        cloud.standalone(SECRET)
        daemon = natproxies.prepare(cloud)
        papers = Papers(daemon.path.parent / "papers", daemon.ip)
        daemon.config |= {
            "public_host": HOST,
            "public_ip": daemon.ip,
            "tls": papers.section(),
            "portal": {"port": PORTAL_PORT},
            "caches": list(CACHES),
            "static": [{"name": STATIC, "port": FIRST_PORT + 60, "target": "legacy.internal:6379"}],
        }
        if is_tidy:
            daemon.config |= {
                "aws": {"refresh": "15s"},
                "portal": {},
                "caches": [cache | {"ports": CUSTOMARY[cache["id"]]} for cache in CACHES if cache["id"] in CUSTOMARY],
                "static": [{"name": STATIC, "port": 6490, "target": "{}:{}".format(*cloud.where(SECRET))}],
            }
        daemon.start()
        eventually(lambda: daemon.get("/readyz")[0] == 200, "AWS has answered")
        names = [f"{GROUP}:reader", f"{CLUSTER}:configuration", f"{MEMCACHED}:configuration"]
        for name in names if is_tidy else [*names, f"{SECRET}/0001"]:
            daemon.wait_for_route(name)
        there = (daemon.ip, daemon.config["portal"].get("port", DEFAULT_PORTAL_PORT))
        portal = stack.enter_context(bridge(daemon.ip, there, papers.client(papers.dev), HOST))
        yield World(cloud, daemon, papers, portal)


@contextmanager
def busy(world: World, pause: Callable[[int], float] = lambda _: ASK_EVERY_SECONDS) -> Iterator[None]:
    """Have developers use the caches for as long as this is open; ``pause``: seconds between two questions of each."""
    is_over = threading.Event()
    threads = [
        threading.Thread(target=_use, args=(is_over, ask, partial(pause, number)), name=f"developer {number}")
        for number, ask in enumerate(_uses(world))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


class _Redis:
    """Somebody with redis-py."""

    def __init__(self, world: World, name: str, *, is_writer: bool) -> None:
        certificate, key = world.papers.write(world.papers.dev)
        authority = certificate.with_suffix(".ca")
        authority.write_bytes(world.papers.servers.pem)
        self._is_writer = is_writer
        self._redis = redis.Redis(
            world.daemon.ip,
            world.daemon.wait_for_route(name),
            ssl=True,
            ssl_ca_certs=str(authority),
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
        )

    def ask(self) -> None:
        if self._is_writer:
            self._redis.set(KEY, SAYS)
        self._redis.get(KEY)

    def close(self) -> None:
        self._redis.close()


class _Memcached:
    """Somebody with pymemcache."""

    def __init__(self, world: World, name: str) -> None:
        self._client = PymemcacheClient((world.daemon.ip, world.daemon.wait_for_route(name)), timeout=5)

    def ask(self) -> None:
        self._client.set(KEY, SAYS)
        self._client.get(KEY)

    def close(self) -> None:
        self._client.close()


def _uses(world: World) -> list[_Redis | _Memcached]:
    return [
        _Redis(world, f"{GROUP}:primary", is_writer=True),
        _Redis(world, f"{GROUP}:reader", is_writer=False),
        _Redis(world, f"{GROUP}-002/0001", is_writer=False),
        _Memcached(world, f"{MEMCACHED}/0001"),
    ]


def _use(is_over: threading.Event, asks: _Redis | _Memcached, pause: Callable[[], float]) -> None:
    while not is_over.wait(pause()):
        try:
            asks.ask()
        except NO_ANSWER:
            asks.close()
    asks.close()
