"""How the cost of a GET grows with the size of its value, 16 B to 16 MB. I/O: runs proxies, a node and clients."""

from __future__ import annotations

from bench.loads import requests
from bench.parts.how import Found, How
from bench.parts.nodes import directory, redis_server
from bench.peers import catalogue
from bench.peers.ports import Door, Setting
from bench.results import HAPROXY, NATPROXY, Curve, Point
from bench.rounds import Pace, tell
from bench.rounds import measure as measure_rounds

SIZES = (16, 256, 4_096, 16_384, 65_536, 262_144, 1 << 20, 4 << 20, 16 << 20)
CLEAR, LARGE = Door("clear"), Door("large", 1, is_large=True)
COST = "CPU of the proxy for a GET, us"
TITLE = "The cost of a GET by the size of its value"
WARM_BYTES = 64 << 20
PACE = Pace(rounds=3, seconds=0.35)
HAPROXY_LARGE = "HAProxy, 64 KiB buffers"


def measure(how: How) -> Found:
    """Measure each size through natproxy, and through HAProxy with small buffers and large ones."""
    names = (NATPROXY, HAPROXY)
    points = []
    with (
        directory() as place,
        redis_server(),
        catalogue.open_doors(names, (CLEAR, LARGE), Setting(place, python=how.python)) as doors,
    ):
        ways = {name: opened[CLEAR.name] for name, opened in doors.items()}
        if HAPROXY in doors:
            ways[HAPROXY_LARGE] = doors[HAPROXY][LARGE.name]
        for size in SIZES:
            tell(f"  {size} B")
            load = requests(["get"], "-c", "8", value_bytes=size)
            found = measure_rounds(load, ways, PACE, max(16, min(5_000, WARM_BYTES // size)))
            points.append(Point(size, {name: [one.cost for one in read] for name, read in found.items()}))
    curve = Curve("cost-by-value", "bytes of a value", COST, points, TITLE, is_y_logarithmic=True)
    return Found(curves=[curve], left_out=catalogue.left_out(names))
