"""Whoever reaches a port and may not connect gets nothing, and takes nothing from those who may."""

from __future__ import annotations

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT
from tests.scenarios.peers import PlainNode, connect

FRIEND, STRANGER = "127.0.0.2", "127.0.0.3"
KNOCKS = 300


def test_strangers_fill_no_log_and_reach_no_node(natproxy: Natproxies) -> None:
    with PlainNode() as node:
        daemon = natproxy(
            static=[{"name": "a", "port": FIRST_PORT, "target": node.target}], clients={"allow": [f"{FRIEND}/32"]}
        )
        for _ in range(KNOCKS):
            with connect(daemon.ip, FIRST_PORT, source=STRANGER) as talk:
                assert talk.ended() in ("eof", "reset")
        with connect(daemon.ip, FIRST_PORT, source=FRIEND) as talk:
            talk.say(b"hello")
            with node.accept() as first:
                assert first.hear(5) == b"hello", "nobody came before the friend"
        ended = daemon.wait_for_log("connection ended", outcome="node-closed")
        assert ended["client"].startswith(FRIEND)
        daemon.wait_for_metric(KNOCKS, "natproxy_connections_ended_total", outcome="not-allowed")
    told = len(daemon.logged("connection ended", outcome="not-allowed"))
    assert 1 <= told <= KNOCKS / 2, "one line for each would let strangers fill the disk"
    daemon.wait_for_metric(KNOCKS - told, "natproxy_log_lines_dropped_total")
