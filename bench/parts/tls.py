"""The relay of TLS connections, on loopback, laid out as in relay.py. I/O: runs proxies, a node and clients.

All have one ECDSA P-256 certificate and the same cipher suites, and verify the node's certificate and its name where
the node speaks TLS. No client resumes a session: a new connection is a full handshake, a request, a node connection.
There is no SET of 64 KiB: over TLS redis-benchmark waits 40 ms within each, for Nagle's algorithm, whoever is asked.
"""

from __future__ import annotations

from bench.certificates import Files
from bench.loads import requests
from bench.parts.how import Found, How
from bench.parts.nodes import directory, redis_server
from bench.parts.workload import Workload, rows
from bench.peers import catalogue
from bench.peers.ports import NODE_TLS_PORT, Door, Setting
from bench.results import STUNNEL

TERMINATE = Door("terminate", client_tls=True)
LARGE = Door("terminate-large", 1, client_tls=True, is_large=True)
MEMBERS = Door("members", 2, client_tls=True, demands_certificate=True)
RE_ENCRYPT = Door("re-encrypt", 3, f"127.0.0.1:{NODE_TLS_PORT}", client_tls=True, node_tls=True)
DOORS = (TERMINATE, LARGE, MEMBERS, RE_ENCRYPT)
BOTH, GET = ("get", "set"), ("get",)
C50, ANEW = ("-c", "50"), ("-c", "50", "-k", "0")


def workloads(files: Files) -> tuple[Workload, ...]:
    """Return the rows."""
    tls, member = files.client_options(is_member=False), files.client_options(is_member=True)
    large = requests(GET, "-c", "16", *tls, value_bytes=65536)
    return (
        Workload("TLS: GET and SET, 50 clients", requests(BOTH, *C50, *tls), 6_000, TERMINATE, reach=0.97, aim=1.05),
        Workload("TLS: GET, 50 clients, pipeline 16", requests(GET, *C50, "-P", "16", *tls), 50_000, TERMINATE),
        Workload("TLS: GET 64 KiB, 16 clients", large, 1_500, LARGE, reach=1.05, aim=1.15),
        Workload("TLS: a handshake for each GET", requests(GET, *ANEW, *tls), 300, TERMINATE, reach=1.0, aim=1.25),
        Workload("the same, client certificates", requests(GET, *ANEW, *member), 200, MEMBERS, reach=1.0, aim=1.25),
        Workload(
            "re-encrypt: GET and SET, 50 clients", requests(BOTH, *C50, *tls), 6_000, RE_ENCRYPT, reach=1.0, aim=1.1
        ),
        Workload(
            "re-encrypt: two handshakes for each GET", requests(GET, *ANEW, *tls), 200, RE_ENCRYPT, reach=0.9, aim=1.3
        ),
    )


def measure(how: How) -> Found:
    """Measure every workload through every proxy that has its door."""
    names = how.proxies(STUNNEL)
    with directory() as place:
        files = Files.make(place)
        setting = Setting(place, files, python=how.python)
        with redis_server(*files.node_options(NODE_TLS_PORT)), catalogue.open_doors(names, DOORS, setting) as doors:
            return Found(rows(workloads(files), doors, how), left_out=catalogue.left_out(names))
