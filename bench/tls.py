"""TLS against HAProxy and nginx: the proxy's CPU for each request and each handshake, latency, and memory.

As in relay.py: the proxy on core 0, redis-server and redis-benchmark on core 1, rounds in turns, ratios. All use ECDSA
P-256 certificates and the same cipher suites, and verify the node's certificate and its name where the node speaks TLS.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import tlsconfigs, tlsmemory
from bench.daemon import Daemon, cpu_seconds
from bench.peers import PROXY_CORE, haproxy, lacks, nginx, redis_benchmark, redis_server
from bench.tlsconfigs import HOST, NODE_PORT, NODE_TLS_PORT, SUITE, Files

ROUNDS = 5
KEY = "key:__rand_int__"
"""What redis-benchmark asks for."""
AGAINST = "HAProxy"


@dataclass(frozen=True)
class Workload:
    """What is asked through which port (tlsconfigs.DOORS)."""

    name: str
    door: str
    tests: tuple[str, ...]
    options: tuple[str, ...]
    requests: int
    """For each of the tests."""
    value_bytes: int = 3


BOTH, GET, SET = ("get", "set"), ("get",), ("set",)
WORKLOADS = (
    Workload("terminate: GET and SET, 50 clients", "terminate", BOTH, ("-c", "50"), 30_000),
    Workload("terminate: GET, 50 clients, pipeline 16", "terminate", GET, ("-c", "50", "-P", "16"), 300_000),
    Workload("terminate: GET 64 KiB, 16 clients", "large", GET, ("-c", "16"), 8_000, 65536),
    Workload("terminate: SET 15 KiB, 16 clients", "large", SET, ("-c", "16", "-d", "15360"), 15_000),
    Workload("terminate: a new connection per GET", "terminate", GET, ("-c", "50", "-k", "0"), 2_000),
    Workload("the same, client certificates", "members", GET, ("-c", "50", "-k", "0"), 1_500),
    Workload("re-encrypt: GET and SET, 50 clients", "re-encrypt", BOTH, ("-c", "50"), 25_000),
    Workload("re-encrypt: a new connection per GET", "re-encrypt", GET, ("-c", "50", "-k", "0"), 1_500),
)
"""No SET of 64 KiB: over TLS redis-benchmark waits 40 ms within each, for Nagle's algorithm, whoever is asked."""


@dataclass(frozen=True)
class Sample:
    """What one run showed."""

    cpu_per_request: float
    p50: float


@dataclass(frozen=True)
class Door:
    """A proxy's port, and the process that does its work."""

    port: int
    pid: int


Doors = dict[str, dict[str, Door]]
"""Proxy -> tlsconfigs.DOORS -> where."""


@contextlib.contextmanager
def natproxy_doors(files: Files) -> Iterator[dict[str, Door]]:
    """Run natproxy: one for everybody, and one that demands client certificates."""
    with (
        Daemon(tlsconfigs.natproxy(files, has_client_ca=False), {}, pin=PROXY_CORE) as everybody,
        Daemon(tlsconfigs.natproxy(files, has_client_ca=True), {}, pin=PROXY_CORE) as members,
    ):
        first, second = everybody.pids()[1], members.pids()[1]
        ports = tlsconfigs.NATPROXY_PORTS
        yield {name: Door(port, second if name == "members" else first) for name, port in ports.items()}


@contextlib.contextmanager
def haproxy_doors(files: Files) -> Iterator[dict[str, Door]]:
    """Run HAProxy: as it comes, and with 64 KiB buffers."""
    ports = tlsconfigs.HAPROXY_PORTS
    with (
        haproxy(files.directory, tlsconfigs.haproxy(files, is_large=False), ports["terminate"]) as plain,
        haproxy(files.directory, tlsconfigs.haproxy(files, is_large=True), ports["large"]) as large,
    ):
        yield {name: Door(port, large if name == "large" else plain) for name, port in ports.items()}


@contextlib.contextmanager
def nginx_doors(files: Files) -> Iterator[dict[str, Door]]:
    """Run nginx."""
    ports = tlsconfigs.NGINX_PORTS
    with nginx(files.directory, tlsconfigs.nginx(files), ports["terminate"]) as pid:
        yield {name: Door(port, pid) for name, port in ports.items()}


PROXIES = {"natproxy": natproxy_doors, "HAProxy": haproxy_doors, "nginx": nginx_doors}


def store(value: bytes) -> None:
    """Have the node answer with this value."""
    with socket.create_connection(("127.0.0.1", NODE_PORT)) as sock:
        sock.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(KEY), KEY.encode(), len(value), value))
        if sock.recv(5) != b"+OK\r\n":
            raise RuntimeError("the node did not take the value")


def run_workload(workload: Workload, door: Door, files: Files) -> Sample:
    """Run redis-benchmark through a proxy; return what it cost and how long a request took."""
    store(b"x" * workload.value_bytes)
    options = ["-t", ",".join(workload.tests), *workload.options, "--tls", "--cacert", str(files.ca)]
    options += ["--sni", HOST, "--tls-ciphersuites", SUITE]
    if workload.door == "members":
        options += ["--cert", str(files.member), "--key", str(files.member_key)]
    before = cpu_seconds(door.pid)
    p50 = redis_benchmark(door.port, workload.requests, *options)
    time.sleep(0.1)  # the kernel accounts in ticks; the proxy still closes connections
    return Sample((cpu_seconds(door.pid) - before) / workload.requests / len(workload.tests), p50)


def measure(workload: Workload, doors: Doors, files: Files) -> dict[str, list[Sample]]:
    """Run a workload through all proxies in turns."""
    samples: dict[str, list[Sample]] = {name: [] for name in doors}
    for _ in range(ROUNDS):
        for name, theirs in doors.items():
            samples[name].append(run_workload(workload, theirs[workload.door], files))
    return samples


def ratios(samples: dict[str, list[Sample]], name: str) -> dict[str, float]:
    """Compare a proxy with HAProxy, round by round; above 1 = it is better."""
    pairs = list(zip(samples[name], samples[AGAINST], strict=True))
    cpu = [theirs.cpu_per_request / ours.cpu_per_request for ours, theirs in pairs]
    p50 = [theirs.p50 / ours.p50 for ours, theirs in pairs]
    found = {"cpu": statistics.median(cpu), "least": min(cpu), "most": max(cpu), "p50": statistics.median(p50)}
    return {name: round(value, 3) for name, value in found.items()}


def speed(names: list[str], files: Files) -> dict[str, Any]:
    """Print the table of ratios; return it. The latency is that of a workload's first test."""
    others = [name for name in names if name != AGAINST]
    print(f"TLS against {AGAINST}, one worker and one thread (above 1: better than {AGAINST})\n")
    print("| workload | " + " | ".join(f"{name}: requests per CPU second | spread | p50" for name in others) + " |")
    print("|---" * (1 + 3 * len(others)) + "|")
    table: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        doors = {name: stack.enter_context(PROXIES[name](files)) for name in names}
        for workload in WORKLOADS:
            samples = measure(workload, doors, files)
            table[workload.name] = found = {name: ratios(samples, name) for name in others}
            cells = [
                f"{one['cpu']:.2f} | {one['least']:.2f}-{one['most']:.2f} | {one['p50']:.2f}" for one in found.values()
            ]
            print(f"| {workload.name} | " + " | ".join(cells) + " |", flush=True)
    print()
    return table


def _cells(one: dict[str, float]) -> str:
    return f"{one['cpu']:.2f} | {one['least']:.2f}-{one['most']:.2f} | {one['p50']:.2f}"


def memory(names: list[str], files: Files) -> dict[str, Any]:
    """Print the table of what a resting connection holds; return it, in bytes."""
    print(f"Memory of one of {tlsmemory.CONNECTIONS} resting connections, KiB\n")
    print("| proxy | terminate: after a PING | after 256 KiB | re-encrypt: after a PING | after 256 KiB |")
    print("|---|---|---|---|---|")
    table: dict[str, Any] = {}
    for name in names:
        table[name] = {}
        for door in ("terminate", "re-encrypt"):
            with PROXIES[name](files) as doors:
                table[name][door] = tlsmemory.measure(doors[door].port, doors[door].pid, files.ca, store)
        cells = [f"{held / 1024:.1f}" for one in table[name].values() for held in one.values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print()
    return table


def main() -> int:
    """Print two tables, and then both as one line of JSON."""
    names = [name for name in os.environ.get("BENCH_PROXIES", "natproxy,HAProxy,nginx").split(",") if name in PROXIES]
    if lacks("tls", "haproxy", "nginx", "redis-server", "redis-benchmark", "taskset"):
        return 1
    with tempfile.TemporaryDirectory(prefix="natproxy-bench-") as directory:
        files = Files.make(Path(directory))
        with redis_server(NODE_PORT, *files.node_options(NODE_TLS_PORT)):
            found = {"speed": speed(names, files), "memory": memory(names, files)}
    print(json.dumps({"version": 1, "against": AGAINST, "rounds": ROUNDS, **found}))
    print()
    return 0
