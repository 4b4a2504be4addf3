"""The relay of clear connections, on loopback. I/O: runs proxies, nodes and clients.

The proxy runs on core 0, the node and the client on core 1. That core is full first, so the honest figure of what a
proxy can do is its own CPU time for each request.
"""

from __future__ import annotations

from bench.loads import requests, stream, timed
from bench.parts.how import Found, How
from bench.parts.nodes import bulk_server, directory, redis_server
from bench.parts.workload import Workload, rows
from bench.peers import catalogue
from bench.peers.ports import BULK_PORT, Door, Setting
from bench.results import COMPILED, HAPROXY, NATPROXY, SOCAT

CLEAR, LARGE = Door("clear"), Door("large", 1, is_large=True)
BULK = Door("bulk", 2, target=f"127.0.0.1:{BULK_PORT}", is_large=True)
DOORS = (CLEAR, LARGE, BULK)
C50, C16 = ("-c", "50"), ("-c", "16")
VALUE_BYTES = 65536
WORKLOADS = (
    Workload("GET, 50 clients", requests(["get"], *C50), 6_000, CLEAR, reach=0.95, aim=1.05),
    Workload("SET, 50 clients", requests(["set"], *C50), 6_000, CLEAR, reach=0.95, aim=1.05),
    Workload("GET and SET, 1 client", timed(1), 1_000, CLEAR, basis="p50", reach=0.97, aim=1.0),
    Workload("GET and SET, 4 clients", timed(4), 1_000, CLEAR, basis="p50", reach=0.97, aim=1.0),
    Workload("GET, 50 clients, pipeline 16", requests(["get"], *C50, "-P", "16"), 50_000, CLEAR, reach=0.97, aim=1.05),
    Workload(
        "GET 64 KiB, 16 clients", requests(["get"], *C16, value_bytes=VALUE_BYTES), 2_000, LARGE, reach=1.15, aim=1.4
    ),
    Workload(
        "SET 64 KiB, 16 clients", requests(["set"], *C16, "-d", str(VALUE_BYTES)), 2_000, LARGE, reach=1.15, aim=1.4
    ),
    Workload("one stream up", stream("up"), 200, BULK, "us/GB", reach=1.15, aim=1.4),
    Workload("one stream down", stream("down"), 200, BULK, "us/GB", reach=1.15, aim=1.4),
    Workload("a new connection for each GET", requests(["get"], *C50, "-k", "0"), 1_500, CLEAR, reach=0.95, aim=1.05),
)


def measure(how: How) -> Found:
    """Measure every workload through every proxy."""
    return _measure(how, how.proxies(SOCAT, COMPILED))


def measure_compiled(how: How) -> Found:
    """Measure only natproxy, HAProxy and the relay in C."""
    return _measure(how, (NATPROXY, HAPROXY, COMPILED))


def _measure(how: How, names: tuple[str, ...]) -> Found:
    with (
        directory() as place,
        redis_server(),
        bulk_server(),
        catalogue.open_doors(names, DOORS, Setting(place, python=how.python)) as doors,
    ):
        return Found(rows(WORKLOADS, doors, how), left_out=catalogue.left_out(names))
