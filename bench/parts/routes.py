"""How cost grows with the number of routes: the relay's, and the daemon's own work. I/O: runs proxies and an AWS.

The relay's is that of one port among many fixed ones. The daemon's own work is that of clusters of so many nodes,
discovered and followed, with nobody connected; 5,000 are for information. `reload` and `routes` include starting the
command.
"""

from __future__ import annotations

import contextlib
import json
import time

from bench.accounts import Account, spent
from bench.cloud import NODES_IN_SHARD, cloud
from bench.daemon import Daemon
from bench.loads import requests
from bench.parts.discovery import wait_for_ports
from bench.parts.how import Found, How
from bench.parts.nodes import directory, redis_server
from bench.peers import catalogue
from bench.peers.ports import Door, Open, Setting
from bench.programs import PROXY_CORE
from bench.results import HAPROXY, NATPROXY, Curve, Point
from bench.rounds import Pace, tell
from bench.rounds import measure as measure_rounds

ROUTES = (10, 100, 500, 5_000)
PACE = Pace(rounds=3, seconds=0.4)
RELAY_PORTS = {NATPROXY: 10_000, HAPROXY: 15_000}
"""From here on each has one port for each route."""
OWN_PORTS = "22000-27999"
ADMIN_PORT = 20995
NAMES_SECONDS, IDLE_SECONDS = 5.0, 5.0
"""Names are asked every 5 s or so."""
COST = "CPU of the proxy for a GET, us"
OWN = {
    "start": "READY to all ports open, s",
    "restart": "restart to READY, s",
    "reload": "reload, s",
    "routes": "natproxy routes, s",
    "controller": "idle CPU of the controller, %",
    "worker": "idle CPU of the worker, %",
    "controller memory": "memory of the controller, MB",
    "worker memory": "memory of the worker, MB",
}


def measure(how: How) -> Found:
    """Measure each number of routes."""
    names = (NATPROXY, HAPROXY)
    relayed, own = [], []
    for count in ROUTES:
        tell(f"  {count} routes: the relay")
        relayed.append(Point(count, _relayed(names, count, how)))
    for count in ROUTES:
        tell(f"  {count} routes: own work")
        own.append((count, _own_work(count, how)))
    curves = [Curve("cost-by-routes", "routes", COST, relayed, "The relay's cost, of one port among many")]
    points = [Point(count, {name: [done[key]] for key, name in OWN.items()}) for count, done in own]
    curves.append(Curve("own-work", "routes", "own work of the daemon", points, is_drawn=False))
    return Found(curves=curves, left_out=catalogue.left_out(names))


def _relayed(names: tuple[str, ...], count: int, how: How) -> dict[str, list[float]]:
    """Return the cost of requests to the last of so many ports."""
    doors = tuple(Door(f"route-{number}", number) for number in range(count))
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(directory())
        stack.enter_context(redis_server())
        ways: dict[str, Open] = {}
        for name in names:
            setting = Setting(place, python=how.python, first_port=RELAY_PORTS[name])
            opened = stack.enter_context(catalogue.open_doors((name,), doors, setting))
            ways |= {proxy: found[doors[-1].name] for proxy, found in opened.items()}
        readings = measure_rounds(requests(["get"], "-c", "50"), ways, PACE, 5_000)
    return {name: [one.cost for one in read] for name, read in readings.items()}


def _own_work(count: int, how: How) -> dict[str, float]:
    """Return what the daemon does by itself (OWN) with so many nodes."""
    with cloud(count // NODES_IN_SHARD) as found:
        config = {
            "listen": {"address": "127.0.0.1", "ports": OWN_PORTS},
            "resolver": found.resolver,
            "caches": found.caches,
            "admin": {"port": ADMIN_PORT},
            "state_dir": "{state_dir}",
            "log": {"format": "json", "level": "info"},
        }
        with Daemon(json.dumps(config), found.environ, pin=PROXY_CORE, python=how.python) as daemon:
            done = {"start": wait_for_ports(daemon, count + len(found.caches))}
            daemon.stop()
            done["restart"] = daemon.start()
            done["reload"] = daemon.command("reload")
            done["routes"] = daemon.command("routes", "--json")
            time.sleep(NAMES_SECONDS)
            controller, worker = daemon.pids()[:2]
            accounts = {"controller": Account((controller,)), "worker": Account((worker,))}
            before = {name: account.cpu_seconds() for name, account in accounts.items()}
            time.sleep(IDLE_SECONDS)
            for name, account in accounts.items():
                done[name] = 100 * sum(spent(before[name], account.cpu_seconds()).values()) / IDLE_SECONDS
                done[f"{name} memory"] = account.resident_bytes() / 1e6
    return done
