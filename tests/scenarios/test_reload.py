"""The config file is changed and read again: all or nothing, and who is not concerned notices nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.peers import PlainNode, Talk, connect, is_refused
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

KEPT, CHANGED, REMOVED, ADDED = range(FIRST_PORT, FIRST_PORT + 4)


@pytest.fixture
def here() -> Iterator[PlainNode]:
    with PlainNode() as node:
        yield node


@pytest.fixture
def there() -> Iterator[PlainNode]:
    with PlainNode() as node:
        yield node


def static(port: int, node: PlainNode, **more: Any) -> dict[str, Any]:
    return {"name": f"static-{port}", "port": port, "target": node.target, **more}


def linked(daemon: Daemon, port: int, node: PlainNode, source: str | None = None) -> tuple[Talk, Talk]:
    """A connection through natproxy: the client's end and the node's."""
    client = connect(daemon.ip, port, source=source)
    peer = node.accept()
    client.say(b"hello")
    assert peer.hear(5) == b"hello"
    return client, peer


def works(client: Talk, peer: Talk) -> bool:
    client.say(b"still there?")
    peer.say(b"yes")
    return peer.hear(12) == b"still there?" and client.hear(3) == b"yes"


def test_a_reload_with_a_broken_file_keeps_everything_as_it_was_and_names_file_and_line(
    natproxy: Natproxies, here: PlainNode
) -> None:
    daemon = natproxy(static=[static(KEPT, here)])
    link = linked(daemon, KEPT, here)
    daemon.write(
        f"listen: {{address: {daemon.ip}}}\n"
        f"state_dir: {daemon.state_dir}\n"
        "static:\n"
        f"  - {{name: static-{KEPT}, port: 70000, target: 'somewhere:6379'}}\n"
        "surprise: true\n"
    )
    done = daemon.cli("reload")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{daemon.path}:4: static[0].port: " in done.stderr
    assert f"{daemon.path}:5: surprise: " in done.stderr, "all mistakes at once"
    assert works(*link)
    assert works(*linked(daemon, KEPT, here))
    assert daemon.metric("natproxy_config_reloads_total", result="refused") == 1
    assert daemon.metric("natproxy_config_last_reload_successful") == 0
    assert daemon.logged("reload refused, the old config stays", level="error")
    daemon.path.unlink()
    assert daemon.cli("reload", "--state-dir", str(daemon.state_dir)).returncode == 1
    assert works(*link)
    daemon.write()
    assert daemon.cli("reload").returncode == 0
    assert daemon.metric("natproxy_config_last_reload_successful") == 1


def test_a_reload_opens_what_is_added_drains_what_is_removed_or_changed_and_leaves_the_rest(
    natproxy: Natproxies, here: PlainNode, there: PlainNode
) -> None:
    daemon = natproxy(static=[static(port, here) for port in (KEPT, CHANGED, REMOVED)], timeouts={"drain": "2s"})
    kept, changed, removed = (linked(daemon, port, here) for port in (KEPT, CHANGED, REMOVED))
    daemon.config["static"] = [static(KEPT, here), static(CHANGED, there), static(ADDED, there)]
    daemon.write()
    done = daemon.cli("reload")
    began = time.monotonic()
    assert (done.returncode, done.stdout) == (0, "reloaded; routes opened: 1, changed: 1, closed: 1\n")
    assert all(works(*link) for link in (kept, changed, removed)), "they are drained, not cut"
    assert works(*linked(daemon, CHANGED, there))
    assert works(*linked(daemon, ADDED, there))
    with connect(daemon.ip, REMOVED) as late:
        assert late.ended() in ("eof", "reset")
    assert [changed[0].ended(), removed[0].ended()] == ["eof", "eof"]
    assert 1.0 < time.monotonic() - began < 5.0
    assert works(*kept)
    daemon.wait_for_log("port closed", port=REMOVED)
    eventually(lambda: is_refused(daemon.ip, REMOVED), "the port is closed")
    daemon.wait_for_log("connection ended", port=CHANGED, outcome="route-changed")
    daemon.wait_for_log("connection ended", port=REMOVED, outcome="route-removed")
    assert not daemon.logged("connection ended", port=KEPT)


def test_a_route_that_is_removed_and_soon_added_again_keeps_its_connections(
    natproxy: Natproxies, here: PlainNode
) -> None:
    daemon = natproxy(static=[static(KEPT, here), static(REMOVED, here)], timeouts={"drain": "1s"})
    link = linked(daemon, REMOVED, here)
    daemon.config["static"].pop()
    daemon.reload()
    daemon.wait_for_log("port drains", port=REMOVED)
    daemon.config["static"].append(static(REMOVED, here))
    daemon.reload()
    with pytest.raises(AssertionError, match="lives on"):
        link[0].ended(seconds=2.5)
    assert works(*link)
    assert works(*linked(daemon, REMOVED, here))


def test_a_client_that_is_no_longer_allowed_is_cut_at_once_and_the_others_notice_nothing(
    natproxy: Natproxies, here: PlainNode
) -> None:
    both, one = ["127.0.0.2", "127.0.0.3"], ["127.0.0.2"]
    daemon = natproxy(
        static=[static(KEPT, here), static(CHANGED, here)], clients={"allow": both}, timeouts={"drain": "30s"}
    )
    stays, goes = (linked(daemon, KEPT, here, source) for source in both)
    with connect(daemon.ip, KEPT, source="127.0.0.4") as stranger:
        assert stranger.ended() in ("eof", "reset")
    daemon.config["clients"] = {"allow": one}
    began = time.monotonic()
    daemon.reload()
    assert goes[0].ended() == "eof"
    assert time.monotonic() - began < 5
    assert works(*stays)
    with connect(daemon.ip, CHANGED, source="127.0.0.3") as refused:
        assert refused.ended() in ("eof", "reset")
    assert works(*linked(daemon, CHANGED, here, "127.0.0.2"))
    # Two turned away at the door, one cut.
    daemon.wait_for_metric(3, "natproxy_connections_ended_total", outcome="not-allowed")
    assert daemon.metric("natproxy_connections_total") == 3


def test_values_that_need_a_restart_are_named_and_keep_their_old_value(natproxy: Natproxies, here: PlainNode) -> None:
    daemon = natproxy(static=[static(KEPT, here)])
    daemon.config["admin"] = {"address": daemon.ip, "port": 25999}
    daemon.config["workers"] = 2
    daemon.config["static"].append(static(ADDED, here))
    daemon.write()
    done = daemon.cli("reload")
    assert done.returncode == 0
    assert "only taken up by a restart: " in done.stderr
    assert {"admin.port", "workers"} <= set(done.stderr.replace(",", " ").split())
    assert works(*linked(daemon, ADDED, here)), "the rest is taken up"
    assert daemon.get("/healthz")[0] == 200
    assert len(daemon.workers()) == 1
    assert daemon.logged("config needs a restart for some values")


def test_sighup_reloads_too_and_tells_the_service_manager(natproxy: Natproxies, here: PlainNode) -> None:
    daemon = natproxy(static=[static(KEPT, here)])
    link = linked(daemon, KEPT, here)
    daemon.config["static"].append(static(ADDED, here))
    daemon.write()
    said = len(daemon.notified)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("config reloaded", opened=1, changed=0, closed=0)
    reloading = daemon.notified.wait_for(lambda text: text.startswith("RELOADING=1"), "RELOADING=1", since=said)
    monotonic = next(line for line in reloading.split("\n") if line.startswith("MONOTONIC_USEC="))
    assert abs(int(monotonic.partition("=")[2]) / 1e6 - time.monotonic()) < 60
    daemon.notified.wait_for(lambda text: text.startswith("READY=1"), "READY=1", since=said)
    assert works(*link)
    assert works(*linked(daemon, ADDED, here))
    daemon.write("nonsense: [")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("reload refused, the old config stays")
    assert works(*link)


def test_a_cache_that_is_added_is_found_at_once_and_one_that_is_removed_is_drained(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=0)
    cloud.memcached("mc", nodes=1)
    # The reload itself asks AWS: the next round would be an hour away.
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}], aws={"refresh": "1h"}, timeouts={"drain": "1s"})
    port = daemon.wait_for_route("my-redis-001/0001")
    with connect(daemon.ip, port) as live:
        assert live.ping()
        daemon.config["caches"].append({"id": "mc"})
        daemon.reload()
        daemon.wait_for_route("mc/0001")
        assert live.ping()
        daemon.config["caches"].pop(0)
        daemon.reload()
        assert live.ping()
        assert live.ended() == "eof"
    daemon.wait_until_gone("my-redis-001/0001")
    daemon.config["caches"].append({"id": "my-redis"})
    daemon.reload()
    assert daemon.wait_for_route("my-redis-001/0001") == port


def test_new_timeouts_hold_for_the_connections_that_are_there(natproxy: Natproxies, here: PlainNode) -> None:
    daemon = natproxy(static=[static(KEPT, here), static(CHANGED, here)])
    idle, other = linked(daemon, KEPT, here), linked(daemon, CHANGED, here)
    daemon.config["static"][0]["timeouts"] = {"idle": "1s"}
    daemon.reload()
    assert idle[0].ended() == "eof"
    daemon.wait_for_log("connection ended", port=KEPT, outcome="idle")
    assert works(*other)
