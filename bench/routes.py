"""How the daemon's own work grows with the number of routes: start, reload, ``routes``, memory, idle CPU."""

from __future__ import annotations

import time

from bench.daemon import Daemon, cpu_seconds, resident_bytes
from tests.standins.cloud import Cloud

SHARDS = (2, 20, 100)
REPLICAS = 4
IDLE_SECONDS = 15.0
CONFIG = """
listen: {{address: 127.0.0.1, ports: 21000-21999}}
resolver: "{resolver}"
caches: [{{id: big}}]
admin: {{port: 20998}}
state_dir: {{state_dir}}
log: {{format: json, level: info}}
"""


def measure(shards: int) -> list[str]:
    """Measure a cluster of so many shards with five nodes each; return a row of the table."""
    nodes = shards * (REPLICAS + 1)
    with Cloud(backing="none", page_size=100) as cloud:
        cloud.replication_group("big", mode="cluster-enabled", shards=shards, replicas=REPLICAS)
        daemon = Daemon(CONFIG.format(resolver=cloud.resolver), cloud.environ)
        with daemon:
            discovered = _wait_for_ports(daemon, nodes + 1)
            daemon.stop()
            restarted = daemon.start()
            reload_seconds = daemon.command("reload")
            routes_seconds = daemon.command("routes", "--json")
            time.sleep(5)  # the first answers of all names
            controller, worker, *_ = daemon.pids()
            before = cpu_seconds(controller), cpu_seconds(worker)
            time.sleep(IDLE_SECONDS)
            idle = cpu_seconds(controller) - before[0], cpu_seconds(worker) - before[1]
            memory = resident_bytes(controller), resident_bytes(worker)
    return [
        str(nodes + 1),
        f"{discovered:.2f}",
        f"{restarted:.2f}",
        f"{reload_seconds:.2f}",
        f"{routes_seconds:.2f}",
        f"{100 * idle[0] / IDLE_SECONDS:.1f} %",
        f"{100 * idle[1] / IDLE_SECONDS:.1f} %",
        f"{memory[0] / 2**20:.0f}",
        f"{memory[1] / 2**20:.0f}",
    ]


def _wait_for_ports(daemon: Daemon, count: int) -> float:
    started = time.monotonic()
    while daemon.log.read_text().count('"port opened"') < count:
        if time.monotonic() - started > 60:
            raise TimeoutError(daemon.log.read_text()[-2000:])
        time.sleep(0.02)
    return time.monotonic() - started


def main() -> int:
    """Print the table."""
    head = ["routes", "READY to all open, s", "restart to READY, s", "reload, s", "routes, s"]
    head += ["idle CPU controller", "worker", "RSS MiB controller", "worker"]
    print("Own work by number of routes (`reload` and `routes` include starting the command)\n")
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for shards in SHARDS:
        print("| " + " | ".join(measure(shards)) + " |", flush=True)
    print()
    return 0
