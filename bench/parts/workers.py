"""Two workers against two threads: both cores for everybody. I/O: runs proxies, a node and clients.

Client and node share the two cores with the proxy, so what is done in a second is what all of it costs together.
"""

from __future__ import annotations

from bench.accounts import open_sockets
from bench.idle import held
from bench.loads import requests
from bench.parts.how import MAIN, Found, How
from bench.parts.nodes import directory, redis_server
from bench.parts.workload import Workload, rows
from bench.peers import catalogue
from bench.peers.ports import Door, Open, Setting
from bench.programs import BOTH_CORES
from bench.results import HAPROXY, Row

CLEAR = Door("clear")
WORKERS = 2
CONNECTIONS = 1_000
BOTH = ("get", "set")
WORKLOADS = (
    Workload(
        "2 workers: GET and SET, 50 clients",
        requests(BOTH, "-c", "50", core=BOTH_CORES),
        6_000,
        CLEAR,
        basis="rate",
        reach=0.95,
        aim=1.05,
    ),
    Workload(
        "2 workers: a new connection for each GET",
        requests(["get"], "-c", "50", "-k", "0", core=BOTH_CORES),
        1_500,
        CLEAR,
    ),
)


def measure(how: How) -> Found:
    """Measure the workloads, and how evenly work and connections are spread."""
    with directory() as place, redis_server(core=BOTH_CORES):
        setting = Setting(place, workers=WORKERS, core=BOTH_CORES, python=how.python)
        with catalogue.open_doors(MAIN, (CLEAR,), setting) as doors:
            found = [_with_shares(row) for row in rows(WORKLOADS, doors, how)]
            notes = [
                f"{CONNECTIONS} connections: " + "; ".join(_spread(name, one["clear"]) for name, one in doors.items())
            ]
            found[0] = _noted(found[0], notes)
            return Found(found, left_out=catalogue.left_out(MAIN))


def _with_shares(row: Row) -> Row:
    """Note what the busier of the two had of the work, in the worst round."""
    worst = {name: max(max(one.shares, default=0.0) for one in read) for name, read in row.readings.items()}
    said = ", ".join(f"{name} {share:.0%}" for name, share in worst.items() if share)
    return _noted(row, [f"of the CPU the busiest process or thread had at most: {said}"])


def _noted(row: Row, notes: list[str]) -> Row:
    return Row(row.name, row.unit, row.readings, row.basis, row.reach, row.aim, (*row.notes, *notes))


def _spread(name: str, opened: Open) -> str:
    """Return how many of resting connections each process has. HAProxy's threads share one table of descriptors."""
    if name == HAPROXY:
        return f"{name}: not to be seen from outside"
    pids = opened.account.pids
    before = [open_sockets(pid) for pid in pids]
    with held(opened.host, opened.port, CONNECTIONS):
        counts = [(open_sockets(pid) - was) // 2 for pid, was in zip(pids, before, strict=True)]
    return f"{name} " + " + ".join(str(count) for count in counts if count)
