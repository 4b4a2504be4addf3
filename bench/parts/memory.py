"""What a connection that rests holds in a proxy's memory: clear, TLS, re-encrypted. I/O: runs proxies and clients.

The difference of the resident memory of all the proxy's processes, with and without the connections, each of which has
had one answer. A first hundred, closed again, has made what a proxy makes once.
"""

from __future__ import annotations

import time

from bench.certificates import HOST, Files
from bench.idle import held
from bench.loads import store
from bench.parts.how import MAIN, CannotError, Found, How
from bench.parts.nodes import directory, redis_server
from bench.peers import catalogue
from bench.peers.ports import NODE_TLS_PORT, Door, Open, Setting
from bench.programs import descriptors
from bench.results import Reading, Row
from bench.rounds import tell

CONNECTIONS, QUICK_CONNECTIONS, FIRST = 5_000, 1_000, 100
SETTLE_SECONDS = 0.5
CLEAR, TERMINATE = Door("clear"), Door("terminate", 1, client_tls=True)
RE_ENCRYPT = Door("re-encrypt", 2, f"127.0.0.1:{NODE_TLS_PORT}", client_tls=True, node_tls=True)
DOORS = (CLEAR, TERMINATE, RE_ENCRYPT)
ROWS = (
    ("memory of an idle connection", CLEAR, 3.5),
    ("memory of an idle TLS connection", TERMINATE, 17.0),
    ("memory of an idle re-encrypted one", RE_ENCRYPT, 45.0),
)
BURST_BYTES = 256 * 1024


def measure(how: How) -> Found:
    """Measure each kind, each proxy's in processes of its own."""
    count = QUICK_CONNECTIONS if how.is_quick else CONNECTIONS
    names = MAIN[:2] if how.is_quick else MAIN
    if descriptors() < (needed := 2 * count + 500):
        raise CannotError(f"needs {needed} descriptors for each process: ulimit -n says {descriptors()}")
    found = Found(left_out=catalogue.left_out(names))
    with directory() as place:
        files = Files.make(place)
        setting = Setting(place, files, python=how.python)
        with redis_server(*files.node_options(NODE_TLS_PORT)):
            store(b"x" * BURST_BYTES)
            for name, door, reach in ROWS:
                tell(f"  {name}")
                idle: dict[str, list[Reading]] = {}
                after: dict[str, list[Reading]] = {}
                with catalogue.open_doors(names, DOORS, setting) as doors:
                    for proxy, opened in doors.items():
                        now, then = _held(opened[door.name], count, door, files)
                        idle[proxy], after[proxy] = [Reading(now)], [Reading(then)]
                found.rows.append(Row(f"{name} (of {count:,})", "KB", idle, "value", reach))
                found.rows.append(Row(f"the same, after an answer of {BURST_BYTES >> 10} KiB", "KB", after, "value"))
    return found


def _held(opened: Open, count: int, door: Door, files: Files) -> tuple[float, float]:
    """Return KB for a connection: after a first short answer, and after a long one."""
    tls = (str(files.ca), HOST) if door.client_tls else ()
    with held(opened.host, opened.port, FIRST, *tls):
        pass
    time.sleep(SETTLE_SECONDS)
    before = opened.account.resident_bytes()
    with held(opened.host, opened.port, count, *tls) as get:
        time.sleep(SETTLE_SECONDS)
        idle = opened.account.resident_bytes()
        get(BURST_BYTES)
        time.sleep(SETTLE_SECONDS)
        return (idle - before) / count / 1000, (opened.account.resident_bytes() - before) / count / 1000
