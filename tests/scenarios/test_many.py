"""A cluster of 500 nodes: start, reload and `routes` work, and so does every port. Prints how long each took (-rP)."""

from __future__ import annotations

import time

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.peers import connect
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

SHARDS, REPLICAS = 100, 4
ROUTES = SHARDS * (1 + REPLICAS) + 1


@pytest.fixture
def big_cloud() -> Cloud:
    return Cloud(backing="echo", page_size=100)


def test_five_hundred_nodes_start_reload_and_show_and_every_port_works(big_cloud: Cloud, natproxy: Natproxies) -> None:
    with big_cloud as cloud:
        cloud.replication_group("big", mode="cluster-enabled", shards=SHARDS, replicas=REPLICAS)
        daemon = natproxy.prepare(cloud, caches=[{"id": "big"}], aws={"refresh": "5s"})
        daemon.config["listen"]["ports"] = "26001-26600"
        figures: list[tuple[str, float]] = []
        began = time.monotonic()

        def note(what: str) -> None:
            nonlocal began
            now = time.monotonic()
            figures.append((what, now - began))
            began = now

        def all_open() -> bool:
            routes = daemon.routes().values()
            return len(routes) == ROUTES and all(route.state == "open" for route in routes)

        daemon.start()
        note("from start to READY")
        eventually(all_open, "all routes are open", 60)
        note("from READY to all routes open, for the first time")
        before = daemon.ports()
        assert daemon.cli("reload").returncode == 0
        note("natproxy reload")
        assert daemon.cli("routes").stdout.count("my-big") == 0
        note("natproxy routes")
        assert len(daemon.get("/metrics")[1]) > 1000
        note("a scrape")
        with connect(daemon.ip, before["big:configuration"] or 0) as live:
            for port in before.values():
                with connect(daemon.ip, port or 0) as talk:
                    assert talk.echoes(), port
            note("a connection to each port")
            assert live.echoes()
        assert daemon.stop() == 0
        note("a stop")
        daemon.start()
        note("from start to READY, with all routes known")
        with connect(daemon.ip, before["big-0100-005/0001"] or 0) as talk:
            assert talk.echoes(), "READY means served"
        eventually(all_open, "all routes are open", 60)
        assert daemon.ports() == before
        for what, seconds in figures:
            print(f"{seconds:6.2f} s  {what}")
