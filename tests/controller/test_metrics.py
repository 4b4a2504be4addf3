from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from natproxy.controller.changes import NodeChange
from natproxy.controller.metrics import Metrics
from natproxy.controller.status import RouteStatus
from natproxy.messages import DIAL_BUCKETS, Counts, RouteCounts
from natproxy.model import (
    DiscoveryFailure,
    HandshakeFailure,
    Kind,
    Mode,
    NodeId,
    Outcome,
    Role,
    Route,
    RouteKey,
    RouteState,
)
from natproxy.tls.expiry import Expiry
from natproxy.wire.rewriter import Fallback, Hint, Reply

NODE = RouteKey("my-redis", Kind.NODE, NodeId("my-redis-001", "0001"))
PRIMARY = RouteKey("my-redis", Kind.PRIMARY)
NODE_LABELS = 'cache="my-redis",kind="node",node="my-redis-001/0001",port="6379"'
DIALS = tuple(range(len(DIAL_BUCKETS) + 1))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("0.1.0", CollectorRegistry(), now=lambda: 1735689600.0)


def status(port: int, key: RouteKey, state: RouteState = RouteState.OPEN, role: Role | None = None) -> RouteStatus:
    return RouteStatus(Route(port, key, None, Mode.CLUSTER_DISABLED), state, role=role, zone="eu-west-1a")


def counts(port: int, live: int = 0, opened: int = 0, **ended: int) -> RouteCounts:
    outcomes = {name.replace("_", "-"): number for name, number in ended.items()}
    return RouteCounts(port, live, opened, outcomes, 100, 2000, (), 0.0, ())


def samples(metrics: Metrics) -> dict[str, float]:
    """Return every sample by its name and labels, as Prometheus reads the page."""
    return {
        sample.name + "{" + ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items())) + "}": (
            sample.value
        )
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
    }


def ours(metrics: Metrics, word: str) -> dict[str, float]:
    return {name: value for name, value in samples(metrics).items() if word in name}


def fill(metrics: Metrics) -> None:
    """Let everything happen once."""
    metrics.show_routes(
        [status(6379, NODE, role=Role.REPLICA), status(6380, PRIMARY, RouteState.UNREACHABLE)],
        [RouteKey("other", Kind.READER)],
    )
    results = dict.fromkeys(["ok", *(failure.value for failure in HandshakeFailure)], 1)
    replies, fallbacks = {one.value: 1 for one in Reply}, {one.value: 1 for one in Fallback}
    route = RouteCounts(
        6379, 1, 2, {"client-closed": 1}, 100, 2000, DIALS, 1.5, (), results, results, replies, fallbacks
    )
    sessions = tuple((side, "TLSv1.3", "TLS_AES_128_GCM_SHA256", side == "node", 1) for side in ("client", "node"))
    metrics.record_counts(1, Counts(1, (route,), accept_pauses=1, dropped_logs=2, sessions=sessions))
    subject = 'O="Quoted\\, Inc.",CN=größe\n'
    expiries = [Expiry(use, subject, "0A", 1.7e9) for use in ("certificate", "client_ca", "nodes_ca")]
    metrics.tls.show_files([*expiries, Expiry("crl", subject, "", 1.7e9)], are_good=False)
    metrics.tls.record_load(is_accepted=True)
    metrics.record_worker_loss(1)
    metrics.show_workers(1, {0: os.getpid()})
    metrics.discovery.show(15.0, is_ready=True)
    for failure in (None, *DiscoveryFailure):
        metrics.discovery.record_round(failure)
    for change in NodeChange:
        metrics.discovery.record_change(change)
    for hint in Hint:
        metrics.record_hint(hint)
    metrics.config.record_reload(is_accepted=True)
    metrics.config.record_reload(is_accepted=False)
    metrics.record_state_save_failure()
    metrics.discovery.record_name_failure()
    for side in (metrics.admin, metrics.portal):
        side.record_request(200)
        side.record_refusal("network")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is not installed")
def test_promtool_finds_nothing_to_say(metrics: Metrics) -> None:
    for is_full in (False, True):
        if is_full:
            fill(metrics)
        argv = ["promtool", "check", "metrics"]
        done = subprocess.run(argv, input=metrics.render()[0], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_page_is_the_text_format(metrics: Metrics) -> None:
    fill(metrics)
    body, content_type = metrics.render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\n# TYPE natproxy_connections_total counter\n" in body


def test_every_family_is_there_from_the_start_and_explained(metrics: Metrics) -> None:
    found = {
        family.name: family.documentation
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        if family.name.startswith("natproxy")
    }
    assert sorted(found) == [
        "natproxy_accept_pauses",
        "natproxy_admin_refusals",
        "natproxy_admin_requests",
        "natproxy_build_info",
        "natproxy_certificate_expiry_timestamp_seconds",
        "natproxy_client_bytes",
        "natproxy_config_last_reload_success_timestamp_seconds",
        "natproxy_config_last_reload_successful",
        "natproxy_config_reloads",
        "natproxy_connections",
        "natproxy_connections_ended",
        "natproxy_connections_open",
        "natproxy_crl_next_update_timestamp_seconds",
        "natproxy_dial_seconds",
        "natproxy_discovery_failures",
        "natproxy_discovery_last_success_timestamp_seconds",
        "natproxy_discovery_refresh_seconds",
        "natproxy_discovery_runs",
        "natproxy_handshakes",
        "natproxy_limit_connections",
        "natproxy_limit_max_connections",
        "natproxy_listener_state",
        "natproxy_log_lines_dropped",
        "natproxy_name_failures",
        "natproxy_node_bytes",
        "natproxy_node_changes",
        "natproxy_node_info",
        "natproxy_portal_refusals",
        "natproxy_portal_requests",
        "natproxy_ready",
        "natproxy_refusals",
        "natproxy_replies_rewritten",
        "natproxy_rewrite_fallbacks",
        "natproxy_rewrite_hints",
        "natproxy_state_save_failures",
        "natproxy_tls_file_loads",
        "natproxy_tls_files_good",
        "natproxy_tls_sessions",
        "natproxy_unplaced_routes",
        "natproxy_worker_cpu_seconds",
        "natproxy_worker_max_fds",
        "natproxy_worker_open_fds",
        "natproxy_worker_resident_memory_bytes",
        "natproxy_worker_restarts",
        "natproxy_workers",
        "natproxy_workers_wanted",
    ]
    assert all(text.endswith(".") for text in found.values())
    assert ours(metrics, "process_cpu_seconds_total")
    assert ours(metrics, "python_info")


def test_labels_are_closed_sets_and_never_a_client(metrics: Metrics) -> None:
    fill(metrics)
    route = {"cache", "node", "kind", "port"}
    allowed = {
        "natproxy_build_info": {"version", "python"},
        "natproxy_certificate_expiry_timestamp_seconds": {"use", "subject", "serial"},
        "natproxy_crl_next_update_timestamp_seconds": {"issuer"},
        "natproxy_config_reloads": {"result"},
        "natproxy_connections_ended": {*route, "outcome"},
        "natproxy_dial_seconds": {*route, "le"},
        "natproxy_discovery_failures": {"reason"},
        "natproxy_handshakes": {*route, "side", "result", "reason"},
        "natproxy_listener_state": {*route, "state"},
        "natproxy_node_changes": {"change"},
        "natproxy_admin_requests": {"code"},
        "natproxy_portal_requests": {"code"},
        "natproxy_admin_refusals": {"reason"},
        "natproxy_portal_refusals": {"reason"},
        "natproxy_node_info": {*route, "role", "zone"},
        "natproxy_limit_connections": {"limit_group"},
        "natproxy_limit_max_connections": {"limit_group"},
        "natproxy_refusals": {"reason"},
        "natproxy_replies_rewritten": {*route, "reply"},
        "natproxy_rewrite_fallbacks": {*route, "reason"},
        "natproxy_rewrite_hints": {"hint"},
        "natproxy_tls_file_loads": {"result"},
        "natproxy_tls_sessions": {"side", "version", "cipher", "resumed"},
        "natproxy_unplaced_routes": {"cache"},
    }
    allowed |= {
        f"natproxy_worker_{name}": {"slot"} for name in ("cpu_seconds", "max_fds", "open_fds", "resident_memory_bytes")
    }
    of_routes = {"connections", "connections_open", "client_bytes", "node_bytes"}
    allowed |= {f"natproxy_{name}": route for name in of_routes}
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        if family.name.startswith("natproxy"):
            for sample in family.samples:
                assert set(sample.labels) <= allowed.get(family.name, set()), sample


def test_what_a_route_counts_is_added_up(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE)])
    metrics.record_counts(1, Counts(2, (counts(6379, 2, 5, client_closed=3),)))
    metrics.record_counts(2, Counts(1, (counts(6379, 1, 1),)))
    metrics.record_counts(1, Counts(1, (counts(6379, 1, 0, client_closed=1, idle=2),)))
    found = samples(metrics)
    assert found[f"natproxy_connections_open{{{NODE_LABELS}}}"] == 2
    assert found[f"natproxy_connections_total{{{NODE_LABELS}}}"] == 6
    assert found[f"natproxy_client_bytes_total{{{NODE_LABELS}}}"] == 300
    assert found[f"natproxy_node_bytes_total{{{NODE_LABELS}}}"] == 6000
    ended = {name: value for name, value in found.items() if name.startswith("natproxy_connections_ended_total")}
    shown = NODE_LABELS.replace(',port="', ',outcome="{}",port="')
    assert ended == {
        f"natproxy_connections_ended_total{{{shown.format('client-closed')}}}": 4,
        f"natproxy_connections_ended_total{{{shown.format('idle')}}}": 2,
    }


def test_what_was_rewritten_is_added_up_for_each_route_and_goes_with_it(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE)])
    one = RouteCounts(6379, 1, 0, {}, 0, 0, (), 0.0, (), rewritten={"moved": 2}, fallbacks={"monitor": 1})
    for worker in (1, 2):
        metrics.record_counts(worker, Counts(1, (one,)))
    metrics.record_hint(Hint.MOVED_TO_SELF)
    assert {name: value for name, value in ours(metrics, "rewrit").items() if value} == {
        f'natproxy_replies_rewritten_total{{{NODE_LABELS},reply="moved"}}': 4,
        f'natproxy_rewrite_fallbacks_total{{{NODE_LABELS},reason="monitor"}}': 2,
        'natproxy_rewrite_hints_total{hint="moved-to-self"}': 1,
    }
    metrics.show_routes([])
    assert ours(metrics, "natproxy_replies_rewritten_total") == {}
    assert ours(metrics, "natproxy_rewrite_fallbacks_total") == {}


def test_a_route_that_a_worker_no_longer_names_has_no_connections_there(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE)])
    metrics.record_counts(1, Counts(2, (counts(6379, 2, 2),)))
    metrics.record_counts(1, Counts(0, ()))
    assert samples(metrics)[f"natproxy_connections_open{{{NODE_LABELS}}}"] == 0


def test_a_lost_worker_s_connections_have_ended(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE)])
    metrics.record_counts(1, Counts(2, (counts(6379, 2, 2),)))
    metrics.record_counts(2, Counts(1, (counts(6379, 1, 1),)))
    metrics.record_worker_loss(1)
    metrics.record_worker_loss(3, is_replaced=False)
    found = samples(metrics)
    assert found[f"natproxy_connections_open{{{NODE_LABELS}}}"] == 1
    assert found["natproxy_worker_restarts_total{}"] == 1
    assert list(ours(metrics, f'outcome="{Outcome.INTERNAL}"').values()) == [2]


def test_refusals_are_counted_from_the_start_and_outlive_their_route(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE)])
    assert set(ours(metrics, "natproxy_refusals_total").values()) == {0}
    metrics.record_counts(1, Counts(0, (counts(6379, limit=2, client_closed=1),)))
    metrics.show_routes([])
    metrics.record_counts(2, Counts(0, (counts(6379, limit=1, not_allowed=1),)))
    assert {name: value for name, value in ours(metrics, "natproxy_refusals_total").items() if value} == {
        'natproxy_refusals_total{reason="limit"}': 3,
        'natproxy_refusals_total{reason="not-allowed"}': 1,
    }


def test_connections_are_shown_beside_the_limit_that_they_count_for(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE), status(6380, PRIMARY)])
    metrics.record_counts(1, Counts(5, (counts(6379, 2), counts(6380, 3))))
    metrics.record_counts(2, Counts(1, (counts(6379, 1),)))
    assert ours(metrics, "natproxy_limit") == {
        'natproxy_limit_connections{limit_group="(global)"}': 6,
        'natproxy_limit_max_connections{limit_group="(global)"}': 4096,
    }


def test_dials_are_a_cumulative_histogram(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE), status(6380, PRIMARY)])
    once = RouteCounts(6379, 0, 0, {}, 0, 0, DIALS, 1.5, ())
    metrics.record_counts(1, Counts(0, (once,)))
    metrics.record_counts(1, Counts(0, (once,)))
    found = ours(metrics, "natproxy_dial_seconds")
    assert all('port="6379"' in name for name in found)
    buckets = [value for name, value in found.items() if "_bucket" in name]
    assert buckets == [2 * sum(DIALS[: end + 1]) for end in range(len(DIALS))]
    assert found[f"natproxy_dial_seconds_count{{{NODE_LABELS}}}"] == 2 * sum(DIALS)
    assert found[f"natproxy_dial_seconds_sum{{{NODE_LABELS}}}"] == 3.0


def test_handshakes_are_counted_by_route_side_and_reason(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE), status(6380, PRIMARY)])
    told = RouteCounts(6379, 0, 0, {}, 0, 0, (), 0.0, (), {"ok": 2, "no-certificate": 1}, {"ok": 1})
    metrics.record_counts(1, Counts(0, (told,), sessions=(("client", "TLSv1.3", "TLS_AES_128_GCM_SHA256", True, 2),)))
    metrics.record_counts(2, Counts(0, (told,)))
    shown = 'natproxy_handshakes_total{{cache="my-redis",kind="node",node="my-redis-001/0001",port="6379",{}}}'
    assert ours(metrics, "natproxy_handshakes_total") == {
        shown.format('reason="",result="ok",side="client"'): 4,
        shown.format('reason="no-certificate",result="failed",side="client"'): 2,
        shown.format('reason="",result="ok",side="node"'): 2,
    }
    assert ours(metrics, "natproxy_tls_sessions_total") == {
        'natproxy_tls_sessions_total{cipher="TLS_AES_128_GCM_SHA256",resumed="true",side="client",version="TLSv1.3"}': 2
    }
    metrics.show_routes([status(6380, PRIMARY)])
    assert ours(metrics, "natproxy_handshakes_total") == {}


def test_a_route_is_in_one_state(metrics: Metrics) -> None:
    metrics.show_routes([status(6380, PRIMARY, RouteState.UNREACHABLE)])
    found = ours(metrics, "natproxy_listener_state")
    assert len(found) == len(RouteState)
    assert [name for name, value in found.items() if value == 1] == [
        'natproxy_listener_state{cache="my-redis",kind="primary",node="",port="6380",state="unreachable"}'
    ]


def test_a_role_is_an_info_of_nodes_only(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE, role=Role.REPLICA), status(6380, PRIMARY)])
    assert ours(metrics, "node_info") == {
        f'natproxy_node_info{{{NODE_LABELS},role="replica",zone="eu-west-1a"}}': 1.0,
    }


def test_a_port_that_vanishes_takes_its_series_along(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE), status(6380, PRIMARY)])
    metrics.record_counts(1, Counts(1, (counts(6379, 1, 1, idle=1), counts(6380, 1, 1))))
    metrics.show_routes([status(6380, PRIMARY)])
    metrics.record_counts(1, Counts(2, (counts(6379, 1, 1), counts(6380, 1, 1))))
    metrics.record_worker_loss(1)
    assert ours(metrics, 'port="6379"') == {}
    assert ours(metrics, "natproxy_connections_total") == {
        'natproxy_connections_total{cache="my-redis",kind="primary",node="",port="6380"}': 2.0
    }


def test_a_port_that_is_given_to_another_node_counts_anew(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE)])
    metrics.record_counts(1, Counts(0, (counts(6379, 0, 5),)))
    other = RouteKey("my-redis", Kind.NODE, NodeId("my-redis-002", "0001"))
    metrics.show_routes([status(6379, other)])
    assert list(ours(metrics, "natproxy_connections_total").values()) == [0]
    assert ours(metrics, "my-redis-001") == {}


def test_new_facts_about_a_route_forget_nothing(metrics: Metrics) -> None:
    metrics.show_routes([status(6379, NODE)])
    metrics.record_counts(1, Counts(0, (counts(6379, 0, 5),)))
    metrics.show_routes([status(6379, NODE, RouteState.UNREACHABLE, Role.PRIMARY)])
    assert list(ours(metrics, "natproxy_connections_total").values()) == [5]


def test_the_rest_is_counted(metrics: Metrics) -> None:
    fill(metrics)
    found = samples(metrics)
    assert found['natproxy_unplaced_routes{cache="other"}'] == 1
    assert found["natproxy_workers{}"] == 1
    assert found["natproxy_workers_wanted{}"] == 1
    assert found['natproxy_worker_open_fds{slot="0"}'] > 0
    assert found["natproxy_discovery_refresh_seconds{}"] == 15
    assert found["natproxy_ready{}"] == 1
    assert found["natproxy_accept_pauses_total{}"] == 1
    assert found["natproxy_log_lines_dropped_total{}"] == 2
    metrics.admin.dropped_lines, metrics.portal.dropped_lines = 10, 100
    assert samples(metrics)["natproxy_log_lines_dropped_total{}"] == 112
    assert found["natproxy_state_save_failures_total{}"] == 1
    assert found["natproxy_name_failures_total{}"] == 1
    assert found['natproxy_node_changes_total{change="role-moved"}'] == 1
    assert 'version="0.1.0"' in next(iter(ours(metrics, "natproxy_build_info")))


def test_five_hundred_routes_are_shown(metrics: Metrics) -> None:
    keys = {6379 + n: RouteKey("big", Kind.NODE, NodeId(f"big-{n:04}", "0001")) for n in range(500)}
    metrics.show_routes([status(port, key) for port, key in keys.items()])
    route_counts = [RouteCounts(port, 1, 2, {"client-closed": 1}, 1, 1, DIALS, 1.0, ()) for port in keys]
    metrics.record_counts(1, Counts(500, tuple(route_counts)))
    body, _ = metrics.render()
    assert body.count(b"\n") > 500 * 20
