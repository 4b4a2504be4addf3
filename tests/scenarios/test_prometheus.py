"""A real Prometheus looks at a natproxy to which everything happens: what the rules and the dashboard ask is there."""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.grafana.dashboard import dashboard
from tests.monitoring.prometheus import Prometheus, Series, needs_prometheus
from tests.monitoring.rules import RULES, alerts, records
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import ADMIN_PORT, Daemon
from tests.scenarios.peers import connect
from tests.scenarios.resptalk import dial
from tests.scenarios.tlspeers import Papers, prepare_tls, secure
from tests.standins.cloud import Cloud

SECURED, PRIVATE, NARROW, DISTRUSTED, PORTAL = 25501, 25502, 25503, 25504, 25601
VARIABLES = {"$job": ".*", "$instance": ".*", "$cache": ".*", "$node": ".*", "$__rate_interval": "5s"}
NOBODY = "127.0.0.9"
"""A client's address that may do nothing."""

pytestmark = [
    needs_prometheus,
    pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed"),
]


@pytest.fixture
def scene(cloud: Cloud, natproxy: Natproxies) -> tuple[Daemon, Papers]:
    """A natproxy with a group, a memcached and ports for all sorts of trouble, in TLS and in the clear."""
    cloud.replication_group("grp", replicas=2)
    cloud.memcached("mc", nodes=1)
    node = "{}:{}".format(*cloud.where("grp-001"))
    clear = {"tls": "off", "allow": ["127.0.0.1/32"]}
    daemon, papers = prepare_tls(
        natproxy,
        cloud,
        caches=[{"id": "grp", "clients": clear}, {"id": "mc", "clients": clear}],
        static=[
            {"name": "secured", "port": SECURED, "target": node},
            {"name": "private", "port": PRIVATE, "target": node, "clients": clear},
            {"name": "narrow", "port": NARROW, "target": node, "clients": {**clear, "max_connections": 1}},
            {"name": "distrusted", "port": DISTRUSTED, "target": node, "clients": clear},
        ],
        portal={"port": PORTAL},
        timeouts={"handshake": "500ms"},
    )
    daemon.config["static"][3]["nodes"] = papers.tls_node(server_name=None)
    daemon.config["admin"]["allow"] = ["127.0.0.1/32"]
    return daemon.start(), papers


def ask_portal(daemon: Daemon, context: ssl.SSLContext) -> int:
    """Ask it for the directory; return the HTTP status, 0 where TLS refuses."""
    portal = http.client.HTTPSConnection(daemon.ip, PORTAL, timeout=20, context=context)
    with contextlib.closing(portal), contextlib.suppress(ssl.SSLError, ConnectionError):
        portal.request("GET", "/directory")
        return portal.getresponse().status
    return 0


def speak(daemon: Daemon, papers: Papers, port: int) -> None:
    """Be a client of every sort once."""
    argv = ["redis-cli", "-h", daemon.ip, "-p", str(port)]
    assert subprocess.run([*argv, "ping"], capture_output=True, timeout=20, check=True).stdout == b"PONG\n"
    with secure(daemon.ip, SECURED, papers.client(papers.dev)) as talk:
        assert talk.ping()
    told = dial(daemon.ip, daemon.wait_for_route("grp-002/0001"))
    told.ask("ROLE")
    told.ask("SET", "key", "value")  # refused, or not, as the role is
    told.ask("MONITOR")
    assert ask_portal(daemon, papers.client(papers.dev)) == 200


def be_turned_away(daemon: Daemon, papers: Papers) -> None:
    """Be refused in every way once."""
    assert connect(daemon.ip, PRIVATE, source=NOBODY).ended() in {"eof", "reset"}
    with connect(daemon.ip, NARROW) as first:
        assert first.ping()
        assert connect(daemon.ip, NARROW).ended() in {"eof", "reset"}
    assert connect(daemon.ip, DISTRUSTED).ended() in {"eof", "reset"}
    with connect(daemon.ip, SECURED) as clear:
        clear.say(b"PING\r\n")
        clear.ended()
    with connect(daemon.ip, ADMIN_PORT, source=NOBODY) as nobody:
        nobody.ended()
    assert ask_portal(daemon, papers.client()) == 0


def questions() -> Iterator[tuple[str, str]]:
    """Yield the dashboard's queries as Grafana would ask them, each with what it is for."""
    shown: dict[str, Any] = dashboard()
    asked = [(panel["title"], target["expr"]) for panel in shown["panels"] for target in panel.get("targets", ())]
    asked += [(mark["name"], mark["expr"]) for mark in shown["annotations"]["list"]]
    for title, expr in asked:
        for variable, value in VARIABLES.items():
            expr = expr.replace(variable, value)  # noqa: PLW2901
        yield title, expr


def has_numbers(found: list[Series]) -> bool:
    return any(math.isfinite(float(value)) for one in found for _, value in one["values"])


def test_the_dashboard_shows_and_the_rules_find_what_happens(
    cloud: Cloud, scene: tuple[Daemon, Papers], tmp_path: Path
) -> None:
    daemon, papers = scene
    target = {"static_configs": [{"targets": [f"{daemon.ip}:{ADMIN_PORT}"]}]}
    with Prometheus(tmp_path, target, rules=[RULES]) as prometheus:
        since = time.time()
        prometheus.wait_until_scraped()
        port = daemon.wait_for_route("grp:primary")
        speak(daemon, papers, port)
        be_turned_away(daemon, papers)
        prometheus.wait_for("natproxy_rewrite_fallbacks_total and natproxy_rewrite_fallbacks_total offset 2s")
        cloud.aws.fault("*", "denied", times=3)
        cloud.failover("grp")
        prometheus.wait_for('natproxy_node_changes_total{change="role-moved"} > 0')
        prometheus.wait_for("sum(natproxy_discovery_failures_total) > 0")
        os.kill(daemon.workers()[0], signal.SIGKILL)
        prometheus.wait_for("natproxy_worker_restarts_total > 0 and natproxy_workers == natproxy_workers_wanted")
        speak(daemon, papers, port)
        be_turned_away(daemon, papers)
        cloud.kill("grp-003")
        connect(daemon.ip, daemon.ports()["grp-003/0001"] or 0).ended()
        daemon.reload()
        daemon.write("caches: no list")
        daemon.signal(signal.SIGHUP)
        prometheus.wait_for('ALERTS{alertname="NatproxyConfigReloadRefused",alertstate="pending"}')
        prometheus.wait_for('ALERTS{alertname="NatproxyRouteUnreachable",alertstate="pending"}')
        prometheus.wait_for('ALERTS{alertname="NatproxyLimitReached",alertstate="firing"}')
        before_restart = active(prometheus)
        assert daemon.stop() == 0
        daemon.start()
        prometheus.wait_for("changes(process_start_time_seconds[1m]) > 0")
        until = time.time()
        missing = [
            (title, expr) for title, expr in questions() if not has_numbers(prometheus.history(expr, since, until))
        ]
        assert missing == []
        look_at_rules(prometheus)
    assert {"NatproxyWorkerLost", "NatproxyLimitReached"} <= before_restart["firing"]
    assert {"NatproxyRouteUnreachable", "NatproxyConfigReloadRefused"} <= before_restart["pending"]
    quiet = {
        "NatproxyDown",
        "NatproxyAbsent",
        "NatproxyCacheDown",
        "NatproxyDiscoveryStale",
        "NatproxyOutOfDescriptors",
    }
    assert quiet.isdisjoint(before_restart["firing"])


def active(prometheus: Prometheus) -> dict[str, set[str]]:
    """Return the names of the alerts by state, and see that their texts are whole."""
    found: dict[str, set[str]] = {"firing": set(), "pending": set()}
    for alert in prometheus.ask("alerts")["alerts"]:
        found[alert["state"]].add(alert["labels"]["alertname"])
        for text in alert["annotations"].values():
            assert not {"<error", "<no value>", "{{", "%!"} & set(text.split()), text
            assert "<error" not in text
    return found


def look_at_rules(prometheus: Prometheus) -> None:
    """See that every rule was evaluated without an error, and what should be recorded is."""
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {*records(), *(alert.name for alert in alerts())}
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    for alert in alerts():
        prometheus.query(alert.expr)  # an error is an exception
    assert [name for name in records() if not prometheus.query(f"last_over_time({name}[1m])")] == []
