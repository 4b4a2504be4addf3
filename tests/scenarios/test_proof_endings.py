"""What the operator does to live connections, on every way that bytes take: the interface's table, row by row.

What nodes, names and AWS do to them stands in test_replacement.py and test_growth.py, revoked certificates in
test_tls_reload.py, peers that are gone without a word in tests/network.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import PlainNode, is_refused
from tests.scenarios.streams import End, ends_of
from tests.scenarios.ways import WAYS, Outcomes, Way, each_count_of_workers, open_house

AT_ONCE = {"barred": "not-allowed"}
DRAINED = {"moved": "route-changed", "removed": "route-removed", "other-mode": "route-changed"}
LATER = {**DRAINED, "idle": "idle"}
LEFT_ALONE = ("kept", "limited")
ROWS = (*AT_ONCE, *LATER, *LEFT_ALONE)

Ends = tuple[End, End]
pytestmark = each_count_of_workers


def works(ends: Ends) -> bool:
    for one, other in (ends, ends[::-1]):
        one.say(9)
        other.hear(9)
    return True


def have_ended(way: Way, ends: Ends) -> None:
    """Both ends come to an orderly end; under passthrough TLS is not natproxy's, and only the FIN is."""
    for end in ends:
        assert end.talk.ended() == ("cut" if way == "passthrough" else "eof")


def routes_of(daemon: Daemon, row: str) -> Iterator[dict[str, Any]]:
    return (route for route in daemon.config["static"] if route["name"].endswith(f"-{row}"))


def change(daemon: Daemon, elsewhere: PlainNode) -> None:
    """Write what each row is about."""
    for route in routes_of(daemon, "moved"):
        route["target"] = elsewhere.target
    for route in routes_of(daemon, "other-mode"):
        if "nodes" in route:
            del route["nodes"]
        else:
            route["clients"]["tls"] = "off" if route["clients"]["tls"] != "off" else "passthrough"
    for route in routes_of(daemon, "barred"):
        route["clients"]["allow"] = ["127.0.0.9/32"]
    for route in routes_of(daemon, "idle"):
        route["timeouts"] = {"idle": "1s"}
    for route in list(routes_of(daemon, "removed")):
        daemon.config["static"].remove(route)


def test_every_row_on_every_way(natproxy: Natproxies, workers: int) -> None:
    with open_house(natproxy, workers, ROWS, limited={"max_connections": 1}) as house, PlainNode() as elsewhere:
        daemon, outcomes = house.daemon, Outcomes(house)
        lives: dict[tuple[str, Way], Ends] = {}
        for row in ROWS:
            for way in WAYS:
                lives[row, way] = ends_of(house.link(way, leads=row))
                if row in AT_ONCE or row in LATER:
                    outcomes.expect(lives[row, way][0].talk, {**AT_ONCE, **LATER}[row])
        daemon.reload()
        assert all(map(works, lives.values())), "a reload that changes nothing leaves all alone"
        daemon.config["timeouts"]["stop"] = "1s"
        change(daemon, elsewhere)
        daemon.reload()
        assert all(works(ends) for (row, _), ends in lives.items() if row in DRAINED or row in LEFT_ALONE)
        excess = Outcomes(house)
        for way in WAYS:
            have_ended(way, lives["barred", way])
            late = house.knock(way, "limited")
            excess.expect(late, "limit")
            assert late.ended() in {"eof", "cut", "reset"}
        excess.check()
        for row in LATER:
            for way in WAYS:
                have_ended(way, lives[row, way])
        outcomes.check()
        assert all(works(lives[row, way]) for row in LEFT_ALONE for way in WAYS)
        stopped = Outcomes(house)
        for row in LEFT_ALONE:
            for way in WAYS:
                stopped.expect(lives[row, way][0].talk, "stopped")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("natproxy stops")
        assert works(lives["kept", "tls-tls"])
        for row in LEFT_ALONE:
            for way in WAYS:
                have_ended(way, lives[row, way])
        stopped.check()
        assert daemon.wait() == 0
        assert is_refused(daemon.ip, house.ports["kept", "clear-clear"])
