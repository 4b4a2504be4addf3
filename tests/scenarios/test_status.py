"""The status page and its document tell what happens to a running natproxy."""

from __future__ import annotations

import os
import signal

import msgspec

from natproxy.documents import EventView, LiveRoute, StatusDocument
from tests.pages.samples import read
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import connect
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

QUIET = {"format": "json", "level": "error"}
"""What the page tells does not hang on what is logged."""


def status(daemon: Daemon) -> StatusDocument:
    """What /status answers."""
    code, body = daemon.get("/status")
    assert code == 200
    return msgspec.json.decode(body, type=StatusDocument)


def route(daemon: Daemon, name: str) -> LiveRoute:
    """A node's route, as /status shows it."""
    nodes = (node for cache in status(daemon).caches for shard in cache.shards for node in shard.nodes)
    return next(node for node in nodes if str(node.node) == name)


def wait_for_event(daemon: Daemon, kind: str, *words: str) -> EventView:
    """Wait until an event of that kind with all of ``words`` is told."""

    def found() -> EventView | None:
        events = status(daemon).events
        return next((one for one in events if one.kind == kind and all(word in one.text for word in words)), None)

    event = eventually(found, f"{kind} {words}")
    assert event is not None
    return event


def test_what_moves_and_what_happens_is_shown(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}], log=QUIET)
    port = daemon.wait_for_route("my-redis-002/0001")
    good = status(daemon)
    assert (good.is_ready, good.discovery.state, good.troubles) == (True, "ok", ())
    assert good.discovery.age_seconds is not None
    assert good.discovery.interval_seconds == 0.3
    assert good.workers_running == good.workers_wanted == 1
    begun = wait_for_event(daemon, "ports", "4 ports are open")
    assert (begun.cache, begun.count, begun.level) == ("my-redis", 4, "info")

    with connect(daemon.ip, port) as talk:
        talk.say(b"PING\r\n" * 1000)
        assert len(talk.hear(7000)) == 7000
        busy = eventually(
            lambda: (found := route(daemon, "my-redis-002/0001")).traffic.history and found, "its traffic is shown"
        )
        assert isinstance(busy, LiveRoute)
        assert busy.connections == 1
        assert max(busy.traffic.history) >= 13_000 / 2 / 2, "of one step, or spread over two"
        assert busy.traffic.dial_p50_seconds is not None
        assert 0 < busy.traffic.dial_p50_seconds <= (busy.traffic.dial_p99_seconds or 0) < 5
        idle = route(daemon, "my-redis-001/0001").traffic
        assert (idle.history, idle.dial_p50_seconds) == ((), None)

    cloud.failover("my-redis", to="my-redis-002")
    moved = wait_for_event(daemon, "failover", "my-redis-002/0001 is primary now; it was replica")
    assert (moved.cache, moved.node) == ("my-redis", "my-redis-002/0001")
    assert route(daemon, "my-redis-002/0001").role == "primary"

    cloud.replace("my-redis-001")
    replaced = wait_for_event(daemon, "replacement", "my-redis-001", "now; it led to")
    assert (replaced.cache, replaced.node) == ("my-redis", "my-redis-001/0001")

    os.kill(daemon.workers()[0], signal.SIGKILL)
    assert wait_for_event(daemon, "worker", "was killed by signal 9").level == "error"

    daemon.config["clients"] = {"allow": ["192.0.2.0/24"]}
    daemon.reload()
    wait_for_event(daemon, "reload", "reload accepted")
    for _ in range(3):
        assert connect(daemon.ip, port).ended() in ("eof", "reset")
    wait_for_event(daemon, "refusal", f"turned away on port {port}: address not allowed (3)")
    assert route(daemon, "my-redis-002/0001").traffic.refusals == 3

    daemon.config["caches"] = [{"id": "my-redis", "prots": "1-2"}]
    daemon.write()
    daemon.signal(signal.SIGHUP)
    assert wait_for_event(daemon, "reload", "refused", "prots").level == "error"

    code, page = daemon.get("/")
    tree = read(page)
    assert code == 200
    told = tree.one(id="events").text
    for words in ("is primary now", "it led to", "reload accepted", "reload refused", "address not allowed (3)"):
        assert words in told
    assert tree.one("tr", data_route=str(port)).attributes["data-role"] == "primary"
    for private in ("client=", "127.0.0.1:"):
        assert private not in told, "who was turned away is not told"
    code, page = daemon.get("/caches/my-redis")
    assert (code, read(page).one("h1").text) == (200, "my-redis")
    assert read(page).find("tr", data_route=str(port))
    assert daemon.get("/caches/none-such")[0] == 404

    cloud.aws.fault("*", "throttle", times=None)
    assert wait_for_event(daemon, "discovery", "the last known routes stay", "throttled").level == "warning"
    failing = status(daemon)
    assert (failing.is_ready, failing.discovery.state) == (True, "failing")
    assert failing.discovery.age_seconds is not None
    assert any("what was known is served" in trouble for trouble in failing.troubles)
