"""How the cost of a request grows with the connections that are open, of which 50 are used. I/O: runs proxies, clients.

Each proxy has a node of its own: so many connections are more than one node may have descriptors.
"""

from __future__ import annotations

import contextlib

from bench.idle import held
from bench.loads import requests
from bench.parts.how import MAIN, Found, How
from bench.parts.nodes import directory, redis_server
from bench.peers import catalogue
from bench.peers.ports import NODE_PORT, Door, Open, Setting
from bench.programs import PEER_CORE, descriptors, pin
from bench.results import Curve, Point
from bench.rounds import Pace, tell
from bench.rounds import measure as measure_rounds

OPEN = (100, 1_000, 10_000)
ACTIVE = 50
COST = "CPU of the proxy for a SET, us"
TITLE = f"The relay's cost, {ACTIVE} connections active of so many open"
PACE = Pace(rounds=4, seconds=0.4)
SPARE = 300
"""Descriptors that a proxy needs besides."""


def sizes(limit: int) -> list[int]:
    """Return how many connections are opened where a process may have so many descriptors: two of them each."""
    most = (limit - SPARE) // 2
    return sorted({min(count, most) for count in OPEN})


def measure(how: How) -> Found:
    """Measure each number, with as many connections open through each of the proxies."""
    counts = sizes(descriptors())
    found = Found(left_out=catalogue.left_out(MAIN))
    if counts[-1] < OPEN[-1]:
        found.leave_out([f"{OPEN[-1]:,} connections"], f"{counts[-1]:,} instead: ulimit -n says {descriptors()}")
    points = []
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(directory())
        ways: dict[str, Open] = {}
        for number, name in enumerate(MAIN):
            stack.enter_context(redis_server(port=NODE_PORT + number))
            door = Door("clear", target=f"127.0.0.1:{NODE_PORT + number}")
            opened = stack.enter_context(catalogue.open_doors((name,), (door,), Setting(place, python=how.python)))
            ways |= {proxy: doors[door.name] for proxy, doors in opened.items()}
        for count in counts:
            tell(f"  {count}")
            points.append(Point(count, _costs(ways, count)))
    found.curves.append(Curve("cost-by-connections", "connections open", COST, points, TITLE))
    return found


def _costs(ways: dict[str, Open], count: int) -> dict[str, list[float]]:
    with contextlib.ExitStack() as stack:
        for way in ways.values():
            stack.enter_context(held(way.host, way.port, count - ACTIVE, processes=1, prefix=pin(PEER_CORE)))
        read = measure_rounds(requests(["set"], "-c", str(ACTIVE)), ways, PACE, 5_000)
    return {name: [one.cost for one in rounds] for name, rounds in read.items()}
