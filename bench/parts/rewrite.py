"""What reading along costs: ports that rewrite addresses, and ports of the same natproxy that do not. I/O: runs it.

Laid out as in relay.py. No reply of these loads carries an address: what is measured is what all other traffic pays.
``redis-benchmark --cluster`` asks for the nodes first and then talks to each of them. Where nothing is rewritten it
finds natproxy only because the nodes of that cluster announce natproxy's ports as their own.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.accounts import Account
from bench.certificates import Files
from bench.cloud import Cloud, running_cloud
from bench.daemon import Daemon
from bench.idle import held
from bench.loads import requests, timed
from bench.parts.how import CannotError, Found, How
from bench.parts.nodes import directory, redis_server
from bench.parts.workload import Workload, rows
from bench.peers import natproxy
from bench.peers.catalogue import Doors
from bench.peers.ports import MEMCACHED_PORT, NODE_PORT, Door, Open, Setting
from bench.programs import PEER_CORE, PROXY_CORE, descriptors, missing, pin, running
from bench.results import NATPROXY, UNREAD, Reading, Row
from bench.rounds import tell
from tests.standins.caches import CacheError
from tests.standins.clusternode import ClusterNode
from tests.standins.rediscluster import RedisCluster
from tests.standins.resp import ask

CLUSTER = Door("cluster", rewrite="redis")
TLS = Door("cluster-tls", 1, client_tls=True, rewrite="redis")
MEMCACHED = Door("memcached", 2, f"127.0.0.1:{MEMCACHED_PORT}", rewrite="memcached")
STATIC = (CLUSTER, TLS, MEMCACHED)
TO_UNREAD = 10
"""What is added to a port's number for the one that rewrites nothing."""

GROUP, NODES = Door("group"), Door("nodes")
"""Ports of caches that are discovered: those of a group's primary, and of a cluster's first node.

By the latter redis-benchmark finds the others. It goes on to take whom it asked for a node, so it must not be given the
configuration endpoint's: behind that is now one node, now another.
"""
SHARDS = 3
ADMIN_PORT = 20995
PORTS = {
    (GROUP.name, NATPROXY): 22_000,
    (GROUP.name, UNREAD): 22_010,
    (NODES.name, NATPROXY): 22_020,
    (NODES.name, UNREAD): 22_030,
}
"""Of each cache the first, which is its first node's."""
ADDRESSES = {
    (GROUP.name, NATPROXY): ("127.0.1.1",),
    (GROUP.name, UNREAD): ("127.0.1.2",),
    (NODES.name, NATPROXY): tuple(f"127.66.1.{1 + number}" for number in range(SHARDS)),
    (NODES.name, UNREAD): tuple(f"127.66.2.{1 + number}" for number in range(SHARDS)),
}
"""The two groups are one redis-server, which has many addresses; the two clusters are two."""
OPEN_SECONDS = 20.0

BOTH, GET, SET = ("get", "set"), ("get",), ("set",)
C50, C16, PIPELINE = ("-c", "50"), ("-c", "16"), ("-P", "16")
LARGE_BYTES = 65536
ALL_NODES = ("--cluster", "--threads", "1")
IDLE, FIRST_IDLE = 1_000, 100
SETTLE_SECONDS = 0.5


def static_workloads(files: Files) -> tuple[Workload, ...]:
    """Return the rows of ports to one target."""
    tls = files.client_options(is_member=False)
    large = requests(GET, *C16, value_bytes=LARGE_BYTES)
    large_tls = requests(GET, *C16, *tls, value_bytes=LARGE_BYTES)
    large_set = requests(SET, *C16, "-d", str(LARGE_BYTES))
    return (
        Workload("cluster: GET, 50 clients", requests(GET, *C50), 6_000, CLUSTER, reach=0.95),
        Workload("cluster: SET, 50 clients", requests(SET, *C50), 6_000, CLUSTER, reach=0.95),
        Workload("cluster: GET, 50 clients, pipeline 16", requests(GET, *C50, *PIPELINE), 50_000, CLUSTER, reach=0.6),
        Workload("cluster: SET, 50 clients, pipeline 16", requests(SET, *C50, *PIPELINE), 50_000, CLUSTER, reach=0.6),
        Workload("cluster: GET 64 KiB, 16 clients", large, 2_000, CLUSTER, reach=0.95),
        Workload("cluster: SET 64 KiB, 16 clients", large_set, 2_000, CLUSTER, reach=0.95),
        Workload("cluster: a new connection for each GET", requests(GET, *C50, "-k", "0"), 1_500, CLUSTER),
        Workload("cluster, TLS: GET and SET, 50 clients", requests(BOTH, *C50, *tls), 6_000, TLS, reach=0.95),
        Workload("cluster, TLS: GET, pipeline 16", requests(GET, *C50, *PIPELINE, *tls), 50_000, TLS, reach=0.6),
        Workload("cluster, TLS: GET 64 KiB, 16 clients", large_tls, 1_500, TLS, reach=0.95),
    )


def _chosen(workloads: Sequence[Workload], how: How) -> list[Workload]:
    """Return the main ones, where there is no time for more."""
    return [one for one in workloads if not how.is_quick or (one.door is CLUSTER and one.reach is not None)]


OF_MEMCACHED = Workload(
    "memcached: get and set, 50 clients", timed(50, protocol="memcached"), 4_000, MEMCACHED, reach=0.95
)


def discovered_workloads() -> tuple[Workload, ...]:
    """Return the rows of ports to caches that AWS tells of."""
    each_node = requests(("set", "get"), *C50, *ALL_NODES, stores=False)
    each_node_pipelined = requests(("set", "get"), *C50, *PIPELINE, *ALL_NODES, stores=False)
    return (
        Workload("redis-benchmark --cluster: GET and SET, 50 clients", each_node, 6_000, NODES, reach=0.95),
        Workload("redis-benchmark --cluster: GET and SET, pipeline 16", each_node_pipelined, 50_000, NODES, reach=0.6),
        Workload("primary and replicas: GET and SET, 50 clients", requests(BOTH, *C50), 6_000, GROUP, reach=0.95),
        Workload("primary and replicas: GET, pipeline 16", requests(GET, *C50, *PIPELINE), 50_000, GROUP, reach=0.6),
    )


def measure(how: How) -> Found:
    """Measure the ports to one target; where there is time, all of them, those of discovered caches, and the memory."""
    found = Found()
    with directory() as place:
        files = Files.make(place)
        setting = Setting(place, files, python=how.python)
        with redis_server(), _static_ways(setting) as ways:
            found.rows += rows(_chosen(static_workloads(files), how), ways, how, against=UNREAD)
            if reason := missing("memcached"):
                found.leave_out([MEMCACHED.name], reason)
            elif not how.is_quick:
                with _memcached():
                    found.rows += rows((OF_MEMCACHED,), ways, how, against=UNREAD)
        if how.is_quick:
            return found
        with redis_server():
            with _clusters(), running_cloud(orders()) as cloud, _discovered_ways(cloud, how) as ways:
                found.rows += rows(discovered_workloads(), ways, how, against=UNREAD)
            if descriptors() < 2 * IDLE + 500:
                found.leave_out(["memory of an idle connection"], f"ulimit -n says {descriptors()}")
            else:
                found.rows.append(_memory(setting))
    return found


# ports to one target


def static_doors() -> tuple[Door, ...]:
    """Return each door, and the one beside it that rewrites nothing."""
    unread = (replace(door, name=_unread(door), number=door.number + TO_UNREAD, rewrite="") for door in STATIC)
    return (*STATIC, *unread)


def _unread(door: Door) -> str:
    return f"{door.name}-unread"


@contextlib.contextmanager
def _static_ways(setting: Setting) -> Iterator[Doors]:
    with natproxy.run(static_doors(), setting) as opened:
        yield {
            NATPROXY: {door.name: opened[door.name] for door in STATIC},
            UNREAD: {door.name: opened[_unread(door)] for door in STATIC},
        }


@contextlib.contextmanager
def _memcached() -> Iterator[None]:
    command = ["memcached", "-l", "127.0.0.1", "-p", str(MEMCACHED_PORT), "-U", "0", "-t", "1", "-u", "nobody"]
    with running(PEER_CORE, *command, port=MEMCACHED_PORT):
        yield


def _memory(setting: Setting) -> Row:
    """Measure what connections hold that have had one answer and rest, each kind's in a process of its own."""
    tell("  memory")
    readings = {}
    for name, rewrite in ((NATPROXY, CLUSTER.rewrite), (UNREAD, "")):
        door = replace(CLUSTER, rewrite=rewrite)
        with natproxy.run((door,), setting) as opened:
            way = opened[door.name]
            with held(way.host, way.port, FIRST_IDLE):
                pass
            time.sleep(SETTLE_SECONDS)
            before = way.account.resident_bytes()
            with held(way.host, way.port, IDLE):
                time.sleep(SETTLE_SECONDS)
                readings[name] = [Reading((way.account.resident_bytes() - before) / IDLE / 1000)]
    return Row(f"cluster: memory of an idle connection (of {IDLE:,})", "KB", readings, against=UNREAD)


# caches that are discovered


def cache_id(door: str, who: str) -> str:
    """Return what AWS calls one of the four caches."""
    return door if who == NATPROXY else f"{door}-unread"


def orders() -> list[dict[str, object]]:
    """Return what makes AWS tell of them."""
    return [
        {
            "do": "add_replication_group",
            "group_id": cache_id(door, who),
            "mode": "cluster-disabled" if door == GROUP.name else "cluster-enabled",
            "shards": len(addresses),
            "replicas": 0,
            "addresses": list(addresses),
            "port": NODE_PORT,
        }
        for (door, who), addresses in ADDRESSES.items()
    ]


def config(cloud: Cloud) -> str:
    """Return natproxy's config. It listens where the nodes are that announce its ports."""
    caches = [
        {"id": cache_id(door, who), "ports": f"{port}-{port + 9}", "rewrite": "auto" if who == NATPROXY else "off"}
        for (door, who), port in PORTS.items()
    ]
    written: dict[str, object] = {
        "listen": {"address": ["127.0.0.1", *ADDRESSES[NODES.name, UNREAD]]},
        "resolver": cloud.resolver,
        "caches": caches,
        "aws": {"refresh": "10m"},
        "admin": {"port": ADMIN_PORT},
        "state_dir": "{state_dir}",
        "log": {"level": "warning"},
    }
    return json.dumps(written)


@contextlib.contextmanager
def _clusters() -> Iterator[None]:
    """Run both clusters."""
    with contextlib.ExitStack() as stack:
        for who in (NATPROXY, UNREAD):
            announced = None if who == NATPROXY else PORTS[NODES.name, UNREAD]
            stack.enter_context(_cluster(ADDRESSES[NODES.name, who], announced))
        yield


@contextlib.contextmanager
def _cluster(addresses: Sequence[str], announced: int | None) -> Iterator[None]:
    """Run one; its nodes announce ports from ``announced`` on, or their own."""
    with contextlib.ExitStack() as stack:
        try:
            nodes = [stack.enter_context(ClusterNode(one, NODE_PORT, prefix=pin(PEER_CORE))) for one in addresses]
            if announced is not None:
                for number, node in enumerate(nodes):
                    node.ask("CONFIG", "SET", "cluster-announce-port", str(announced + number))
            RedisCluster().follow([[node] for node in nodes])
        except CacheError as error:
            raise CannotError(str(error)) from None
        yield


@contextlib.contextmanager
def _discovered_ways(cloud: Cloud, how: How) -> Iterator[Doors]:
    with Daemon(config(cloud), cloud.environ, pin=PROXY_CORE, python=how.python) as daemon:
        account = Account(tuple(daemon.pids()[1:]))  # one controller for both: its own work, now and then, is neither's
        ways: Doors = {NATPROXY: {}, UNREAD: {}}
        for (door, who), first in PORTS.items():
            ways[who][door] = Open(first + (door == GROUP.name), account)
        _wait_for(ways)
        yield ways


def _wait_for(ways: Doors) -> None:
    deadline = time.monotonic() + OPEN_SECONDS
    while not all(_is_served(name, way.port) for opened in ways.values() for name, way in opened.items()):
        if time.monotonic() > deadline:
            raise RuntimeError("natproxy does not serve all caches in time")
        time.sleep(0.1)


def _is_served(door: str, port: int) -> bool:
    """Whether nodes answer there, those of a cluster with all of them: a port is open before names are resolved."""
    try:
        if door == NODES.name:
            return len(str(ask("127.0.0.1", port, "CLUSTER", "NODES")).splitlines()) == SHARDS
        return ask("127.0.0.1", port, "PING") == "PONG"
    except OSError:
        return False
