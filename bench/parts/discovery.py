"""What asking AWS for 500 nodes adds to the latency of the relay. I/O: runs natproxy, a stand-in for AWS, a client.

natproxy, controller and worker, has core 0; the node, the client and the stand-in have the other one, and where that is
allowed the first two are real-time processes there, so that the stand-in does not delay them. One client asks a static
port, SET and GET in turns: of a natproxy that has nothing to discover, and of one that asks AWS again as soon as it has
had its answer. Most of a discovery is waiting for AWS; so what counts is the p99 of the requests during the
controller's own work, not of all. What is added is the difference to the p99 with nothing to discover.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import time
from collections.abc import Iterator

from bench.accounts import Account, spent
from bench.cloud import NODES_IN_SHARD, Cloud, cloud
from bench.daemon import Daemon
from bench.loads import timed_once
from bench.parts.how import Found, How
from bench.parts.nodes import redis_server
from bench.peers.ports import NODE_PORT, Open
from bench.programs import PROXY_CORE
from bench.results import NATPROXY, Reading, Row
from bench.rounds import Done, tell

PORT, ADMIN_PORT = 21100, 20995
NODES = 500
ROUNDS = 4
REFRESH = "10ms"
REAL_TIME = ("chrt", "-f", "10")
OPEN_SECONDS = 60.0
NAMES_SECONDS = 6.0
"""After this long every name has been resolved once."""


def config(found: Cloud | None) -> str:
    """Return a config with the static port, and with the cloud's caches where there is one."""
    written: dict[str, object] = {
        "listen": {"address": "127.0.0.1", "ports": "22000-22999"},
        "static": [{"name": "static", "port": PORT, "target": f"127.0.0.1:{NODE_PORT}"}],
        "admin": {"port": ADMIN_PORT},
        "state_dir": "{state_dir}",
        "log": {"format": "json", "level": "info"},
    }
    if found is not None:
        written |= {"resolver": found.resolver, "caches": found.caches, "aws": {"refresh": REFRESH}}
    return json.dumps(written)


def measure(how: How) -> Found:
    """Measure rounds of both, one natproxy after the other: two would share the core."""
    seconds = "2s" if not how.is_quick else "1s"
    real_time = REAL_TIME if _may_be_real_time() else ()
    with redis_server(prefix=real_time), cloud(NODES // NODES_IN_SHARD) as found:
        tell("  nothing to discover")
        with _daemon(config(None), {}, how) as (_, door):
            quiet = [timed_once(door, 1, seconds, prefix=real_time) for _ in range(ROUNDS + 1)][1:]
        tell(f"  {NODES} nodes")
        with _daemon(config(found), found.environ, how) as (daemon, door):
            wait_for_ports(daemon, NODES + 1)
            time.sleep(NAMES_SECONDS)
            direct = Open(NODE_PORT, door.account)
            before, used, began = runs(daemon), door.account.cpu_seconds(), time.monotonic()
            busy, straight = [], []
            for _ in range(ROUNDS):
                busy.append(timed_once(door, 1, seconds, prefix=real_time))
                straight.append(timed_once(direct, 1, seconds, prefix=real_time))
            worker = daemon.pids()[1]
            busy_for = sum(one for thread, one in spent(used, door.account.cpu_seconds()).items() if thread != worker)
            elapsed = time.monotonic() - began
            rate, share = (runs(daemon) - before) / elapsed, busy_for / elapsed
    added = [Reading(during(now, share) - _p99(then)) for now, then in zip(busy, quiet, strict=True)]
    told = f"{rate:.1f} discoveries a second keep the controller busy for {share:.0%} of the time; p99 without"
    told += (
        f" {_told([_p99(one) for one in quiet])} ms, of all requests meanwhile {_told([_p99(one) for one in busy])} ms,"
    )
    told += f" of those during its work, taken to be the slowest, {_told([during(one, share) for one in busy])} ms;"
    told += f" straight to the node {_told([during(one, share) for one in straight])} ms"
    notes = [told]
    if not real_time:
        notes.append("client and node are no real-time processes (needs root): the stand-in delays them, too")
    name = f"added to p99 by discovering {NODES} nodes"
    return Found([Row(name, "ms", {NATPROXY: added}, "value", 3.0, 1.0, tuple(notes))])


@contextlib.contextmanager
def _daemon(text: str, environ: dict[str, str], how: How) -> Iterator[tuple[Daemon, Open]]:
    with Daemon(text, environ, pin=PROXY_CORE, python=how.python) as daemon:
        yield daemon, Open(PORT, Account(tuple(daemon.pids())))


def wait_for_ports(daemon: Daemon, count: int) -> float:
    """Return the seconds until so many ports have been opened."""
    started = time.monotonic()
    while daemon.log.read_text(encoding="utf-8").count('"port opened"') < count:
        if time.monotonic() - started > OPEN_SECONDS:
            raise RuntimeError(f"natproxy does not open its ports: {daemon.log.read_text()[-2000:]}")
        time.sleep(0.02)
    return time.monotonic() - started


def runs(daemon: Daemon) -> float:
    """Return how often a natproxy has asked AWS."""
    return daemon.metric(ADMIN_PORT, "natproxy_discovery_runs_total")


def _p99(done: Done) -> float:
    if done.p99 is None:
        raise ValueError("the client told no p99")
    return done.p99


def during(done: Done, share: float) -> float:
    """Return the p99 of the requests that met the controller's work, which takes this share of the time.

    Which of them did is not known. The slowest are taken to have: so it is an upper bound.
    """
    count = max(1, round(done.count * share * 0.01))
    return done.slowest[-min(count, len(done.slowest))]


def _told(found: list[float]) -> str:
    return f"{statistics.median(found):.2f}"


def _may_be_real_time() -> bool:
    try:
        return subprocess.run([*REAL_TIME, "true"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False
