"""The relay against HAProxy: the proxy's CPU for each request, and latency, as ratios of interleaved runs on loopback.

The proxy runs on core 0, redis-server and redis-benchmark on core 1 ("apart"). The other core saturates first, so the
honest figure of a proxy's capacity is its CPU time for each request. Above 1 = natproxy is better than HAProxy.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.daemon import Daemon, cpu_seconds
from bench.peers import PROXY_CORE, haproxy, lacks, redis_benchmark, redis_server

REDIS_PORT, NATPROXY_PORT, HAPROXY_PORT = 21990, 21991, 21992
ROUNDS = 5
CONFIG = f"""
listen: {{address: 127.0.0.1}}
static: [{{name: bench, port: {NATPROXY_PORT}, target: "127.0.0.1:{REDIS_PORT}"}}]
admin: {{port: 20997}}
state_dir: {{state_dir}}
log: {{level: warning}}
"""
HAPROXY_CONFIG = f"""
global
  nbthread 1
  maxconn 4000
  {{tune}}
defaults
  mode tcp
  timeout connect 3s
  timeout client 1h
  timeout server 1h
listen bench
  bind 127.0.0.1:{{port}}
  server node 127.0.0.1:{REDIS_PORT}
"""


@dataclass(frozen=True)
class Workload:
    name: str
    options: tuple[str, ...]
    requests: int
    haproxy: str = "HAProxy"


WORKLOADS = (
    Workload("GET, 50 clients", ("-t", "get", "-c", "50"), 60_000),
    Workload("GET, 50 clients, pipeline 16", ("-t", "get", "-c", "50", "-P", "16"), 400_000),
    Workload("GET, 1 client", ("-t", "get", "-c", "1"), 15_000),
    Workload("SET 64 KiB, 16 clients", ("-t", "set", "-c", "16", "-d", "65536"), 20_000, "HAProxy, 64 KiB buffers"),
    Workload("a new connection per GET", ("-t", "get", "-c", "50", "-k", "0"), 6_000),
)


@dataclass(frozen=True)
class Sample:
    cpu_per_request: float
    p50: float


def run_workload(workload: Workload, port: int, pid: int) -> Sample:
    """Run redis-benchmark through a proxy; return what it cost and how long a request took."""
    before = cpu_seconds(pid)
    p50 = redis_benchmark(port, workload.requests, *workload.options)
    time.sleep(0.1)  # the kernel accounts in ticks; the proxy still closes connections
    return Sample((cpu_seconds(pid) - before) / workload.requests, p50)


def main() -> int:
    """Print the table."""
    if lacks("relay", "haproxy", "redis-server", "redis-benchmark", "taskset"):
        return 1
    with (
        tempfile.TemporaryDirectory() as name,
        redis_server(REDIS_PORT),
        Daemon(CONFIG, {}, pin=PROXY_CORE) as daemon,
    ):
        worker = daemon.pids()[1]
        directory, large_port = Path(name), HAPROXY_PORT + 1
        large_config = HAPROXY_CONFIG.format(port=large_port, tune="tune.bufsize 65536")
        with (
            haproxy(directory, HAPROXY_CONFIG.format(port=HAPROXY_PORT, tune=""), HAPROXY_PORT) as plain,
            haproxy(directory, large_config, large_port) as large,
        ):
            peers = {"HAProxy": (HAPROXY_PORT, plain), "HAProxy, 64 KiB buffers": (large_port, large)}
            print("natproxy's relay against HAProxy, one worker and one thread (above 1: natproxy is better)\n")
            print("| workload | requests per CPU second of the proxy | spread | p50 | against |")
            print("|---|---|---|---|---|")
            for workload in WORKLOADS:
                port, pid = peers[workload.haproxy]
                ours, theirs = [], []
                for _ in range(ROUNDS):
                    ours.append(run_workload(workload, NATPROXY_PORT, worker))
                    theirs.append(run_workload(workload, port, pid))
                cpu = [b.cpu_per_request / a.cpu_per_request for a, b in zip(ours, theirs, strict=True)]
                latency = [b.p50 / a.p50 for a, b in zip(ours, theirs, strict=True)]
                print(
                    f"| {workload.name} | {statistics.median(cpu):.2f} | {min(cpu):.2f}-{max(cpu):.2f} "
                    f"| {statistics.median(latency):.2f} | {workload.haproxy} |",
                    flush=True,
                )
    print()
    return 0
