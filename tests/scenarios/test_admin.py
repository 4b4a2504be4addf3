"""What natproxy tells of itself agrees with what happened, wherever it is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from natproxy.documents import PortsDocument, RoutesDocument
from tests.scenarios.conftest import Natproxies
from tests.scenarios.peers import connect
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud


def test_metrics_agree_with_what_happened(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    port = daemon.wait_for_route("my-redis-002/0001")
    labels = {"cache": "my-redis", "node": "my-redis-002/0001", "kind": "node", "port": str(port)}
    live = [connect(daemon.ip, port) for _ in range(3)]
    for _ in range(5):
        with connect(daemon.ip, port) as talk:
            assert talk.ping()
    for talk in live:
        talk.say(b"PING\r\n" * 100)
        assert len(talk.hear(700)) == 700
    daemon.wait_for_metric(3, "natproxy_connections_open", **labels)
    daemon.wait_for_metric(5, "natproxy_connections_ended_total", outcome="client-closed", **labels)
    daemon.wait_for_metric((5 + 300) * 6, "natproxy_client_bytes_total", **labels)
    daemon.wait_for_metric((5 + 300) * 7, "natproxy_node_bytes_total", **labels)
    assert daemon.metric("natproxy_connections_total", **labels) == 8
    assert daemon.metric("natproxy_connections_total") == 8, "and nothing anywhere else"
    assert daemon.metric("natproxy_dial_seconds_count", **labels) == 8
    assert 0 < daemon.metric("natproxy_dial_seconds_sum", **labels) < 8
    assert daemon.metric("natproxy_listener_state", state="open") == 4
    assert daemon.metric("natproxy_node_info", role="replica", **labels) == 1
    assert daemon.metric("natproxy_node_info", role="primary", node="my-redis-001/0001") == 1
    assert daemon.metric("natproxy_node_changes_total", change="added") == 4
    assert daemon.metric("natproxy_build_info", version="0.1.0") == 1
    assert daemon.metric("natproxy_workers") == 1
    assert abs(daemon.metric("natproxy_discovery_last_success_timestamp_seconds") - time.time()) < 60
    assert daemon.metric("natproxy_discovery_runs_total") >= 1
    assert daemon.metric("natproxy_discovery_failures_total") == 0
    ended = daemon.logged("connection ended", port=port)
    assert len(ended) == 5
    assert {(line["outcome"], line["client_bytes"], line["node_bytes"]) for line in ended} == {("client-closed", 6, 7)}
    cloud.kill("my-redis-002")
    for talk in live:
        assert talk.ended() in ("eof", "reset")
        talk.close()
    daemon.wait_for_metric(0, "natproxy_connections_open", **labels)
    assert connect(daemon.ip, port).ended() in ("eof", "reset")
    daemon.wait_for_metric(1, "natproxy_connections_ended_total", outcome="node-refused", **labels)
    daemon.wait_for_metric(1, "natproxy_listener_state", state="unreachable", **labels)
    assert "refused" in str(daemon.routes()["my-redis-002/0001"].reason)
    cloud.revive("my-redis-002")
    daemon.wait_for_route("my-redis-002/0001")  # asked again by natproxy itself, without a client


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say_against_the_metrics(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=1)
    cloud.memcached("mc", nodes=2)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}, {"id": "mc"}, {"id": "none-such"}])
    with connect(daemon.ip, daemon.wait_for_route("my-redis-002/0001")) as talk:
        assert talk.ping()
        daemon.wait_for_metric(1, "natproxy_connections_open")
    _, text = daemon.get("/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {name for name in names if not name.startswith(("natproxy_", "process_", "python_"))} == set()


def test_the_commands_and_the_admin_side_tell_the_same(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=1)
    cloud.memcached("mc", nodes=1)
    daemon = natproxy(
        cloud,
        caches=[{"id": "my-redis"}, {"id": "mc"}, {"id": "none-such"}],
        static=[{"name": "legacy", "port": 25500, "target": "127.0.0.1:6379"}],
        public_host="cache.dev.example.com",
        public_ip="203.0.113.73",
        aws={"refresh": "1h"},
    )
    for name in daemon.routes():
        daemon.wait_for_route(name)
    done = daemon.cli("routes", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    printed, served = json.loads(done.stdout), json.loads(daemon.get("/routes")[1])
    assert {**printed, "generated": ""} == {**served, "generated": ""}
    assert set(served) == {"version", "public_host", "public_ip", "portal_port", "generated", "notes", "caches"}
    assert served["version"] == 1
    document = msgspec.convert(served, RoutesDocument)
    assert [cache.id for cache in document.caches] == ["my-redis", "mc", "none-such", "legacy"]
    assert document.caches[2].routes == ()
    assert document.caches[2].reason
    first = served["caches"][0]["routes"][0]
    assert set(first) == {
        "port", "kind", "node", "role", "zone", "target", "addresses", "state", "reason", "tls",
        "certificate", "node_tls", "rewrite", "rewrite_note", "connections",
    }  # fmt: skip
    assert first["node"] == {"cluster": "my-redis-001", "id": "0001"}
    assert first["addresses"] == ["{}:{}".format(*cloud.where("my-redis-001"))]
    table = daemon.cli("routes")
    assert table.returncode == 0
    for cache in document.caches:
        for route in cache.routes:
            assert str(route.port) in table.stdout
            assert str(route.target) in table.stdout
    listed = daemon.cli("ports", "list", "--json")
    ports = msgspec.json.decode(listed.stdout, type=PortsDocument)
    assert {port.name: port.port for port in ports.ports} == {
        name: port for name, port in daemon.ports().items() if name != "legacy"
    }
    assert daemon.cli("ports", "list").returncode == 0


def test_the_admin_side_reads_only_and_the_control_socket_is_the_operator_s_alone(
    paper_cloud: Cloud, natproxy: Natproxies
) -> None:
    paper_cloud.memcached("mc", nodes=1)
    daemon = natproxy(paper_cloud, caches=[{"id": "mc"}])
    assert daemon.get("/healthz") == (200, "ok\n")
    eventually(lambda: daemon.get("/readyz") == (200, "ready\n"), "it is ready")
    for path in ("/ports", "/reload", "/ports/release", "/../state.json"):
        assert daemon.get(path)[0] == 404, path
    assert (daemon.state_dir / "control.sock").stat().st_mode & 0o777 == 0o600
