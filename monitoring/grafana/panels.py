"""What the Grafana dashboard shows: rows of panels and their queries. Pure: dashboard.py makes Grafana's JSON of it.

Queries are limited by the variables ``job``, ``instance``, ``cache`` and ``node`` where their metrics have such labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

WHERE = 'job=~"$job",instance=~"$instance"'
CACHE = f'{WHERE},cache=~"$cache"'
ROUTE = f'{CACHE},node=~"$node"'
TURNED_AWAY = (
    "certificate-not-allowed|certificate-revoked|client-handshake|client-limit|handshake-limit|limit|no-descriptors"
    "|not-allowed|tls-on-clear-port"
)
GREEN, AMBER, RED = "green", "orange", "red"

Json = dict[str, Any]
Steps = Sequence[tuple[float | None, str]]
"""(from this value on, colour); the first value is None."""


class Query(NamedTuple):
    """One PromQL query of a panel."""

    expr: str
    legend: str = ""
    instant: bool = False
    table: bool = False


class Panel(NamedTuple):
    """One panel: what it shows, how wide it is (of 24), and how it is drawn."""

    title: str
    description: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 8
    unit: str = "short"
    steps: Steps = ((None, GREEN),)
    more: Json = {}  # noqa: RUF012  (read only)
    """What is merged into the panel's ``fieldConfig.defaults``."""
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()
    options: Json = {}  # noqa: RUF012  (read only)


class Mark(NamedTuple):
    """One sort of moments that is marked in all graphs."""

    colour: str
    expr: str
    is_time: bool = False
    """The values are the moments, as Unix time in milliseconds; else they are when there is a value."""


def rate(metric: str, where: str, by: str = "") -> str:
    """Return the rate of a counter, summed up by these labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(share: float, by: str) -> str:
    """Return a quantile of the dial times."""
    return f"histogram_quantile({share}, {rate('natproxy_dial_seconds_bucket', ROUTE, f'{by}, le')})"


def stat(title: str, description: str, expr: str, unit: str = "short", steps: Steps = ((None, GREEN),)) -> Panel:
    """Return one number, as it is now."""
    return Panel(title, description, [Query(expr, instant=True)], "stat", 3, unit, steps)


def table(title: str, description: str, query: Query, columns: Iterable[str], **more: Any) -> Panel:
    """Return a table of the labels ``columns`` of what a query returns now."""
    order = {name: index for index, name in enumerate(columns)}
    keep = {"id": "filterFieldsByName", "options": {"include": {"names": list(order)}}}
    sort = {"id": "organize", "options": {"indexByName": order, "excludeByName": {}, "renameByName": {}}}
    return Panel(title, description, [query], "table", transformations=[keep, sort], **more)


def negative(legend: str) -> Json:
    """Draw the series of that legend below the axis."""
    return {
        "matcher": {"id": "byRegexp", "options": legend},
        "properties": [{"id": "custom.transform", "value": "negative-Y"}],
    }


OVERVIEW = [
    Panel(
        "Up",
        "Whether Prometheus gets an answer from each natproxy.",
        [Query(f"up{{{WHERE}}}", "{{instance}}", instant=True)],
        "stat",
        3,
        steps=((None, RED), (1, GREEN)),
        more={"mappings": [{"type": "value", "options": {"0": {"text": "down"}, "1": {"text": "up"}}}]},
    ),
    Panel(
        "Ready",
        "Whether AWS has told everything at least once since the start.",
        [Query(f"natproxy_ready{{{WHERE}}}", "{{instance}}", instant=True)],
        "stat",
        3,
        steps=((None, AMBER), (1, GREEN)),
        more={"mappings": [{"type": "value", "options": {"0": {"text": "waiting"}, "1": {"text": "ready"}}}]},
    ),
    stat(
        "Routes open",
        "Ports that lead to a node that answers.",
        f'sum(natproxy_listener_state{{{ROUTE},state="open"}})',
    ),
    stat(
        "Routes in trouble",
        "Ports that are not open, or lead to a node that does not answer; routes that found no port.",
        f'sum(natproxy_listener_state{{{ROUTE},state=~"unreachable|error"}})'
        f" + (sum(natproxy_unplaced_routes{{{CACHE}}}) or vector(0))",
        steps=((None, GREEN), (1, RED)),
    ),
    stat("Connections", "Client connections open now.", f"sum(natproxy_connections_open{{{ROUTE}}})"),
    stat(
        "Discovery age",
        "Since when AWS has not told everything; the oldest of those that ask AWS.",
        f"max(time() - (natproxy_discovery_last_success_timestamp_seconds{{{WHERE}}} > 0)"
        f" and natproxy_discovery_refresh_seconds{{{WHERE}}} > 0)",
        "s",
        ((None, GREEN), (120, AMBER), (600, RED)),
    ),
    stat(
        "Certificate ends in",
        "natproxy's own certificate, the one that ends first. Nothing where no TLS is configured.",
        f'min(natproxy_certificate_expiry_timestamp_seconds{{{WHERE},use="certificate"}} - time())',
        "s",
        ((None, RED), (3 * 86400, AMBER), (21 * 86400, GREEN)),
    ),
    stat(
        "Alerts firing",
        "Of natproxy.rules.yml, info left out.",
        'count(ALERTS{alertname=~"Natproxy.+",alertstate="firing",severity!="info"}) or vector(0)',
        steps=((None, GREEN), (1, RED)),
    ),
]

TRAFFIC = [
    Panel(
        "Connections open",
        "Client connections open now, by cache.",
        [Query(f"sum by (cache) (natproxy_connections_open{{{ROUTE}}})", "{{cache}}")],
    ),
    Panel(
        "New connections",
        "Client connections accepted a second, by cache.",
        [Query(rate("natproxy_connections_total", ROUTE, "cache"), "{{cache}}")],
        unit="cps",
    ),
    Panel(
        "Outcomes",
        "How connections ended, a second.",
        [Query(rate("natproxy_connections_ended_total", ROUTE, "outcome"), "{{outcome}}")],
        unit="cps",
        more={"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 30}},
    ),
    Panel(
        "Bytes",
        "Bytes a second by cache: from nodes to clients above, from clients to nodes below.",
        [
            Query(rate("natproxy_node_bytes_total", ROUTE, "cache"), "{{cache}} to clients"),
            Query(rate("natproxy_client_bytes_total", ROUTE, "cache"), "{{cache}} to nodes"),
        ],
        unit="Bps",
        overrides=[negative(".* to nodes")],
    ),
    Panel(
        "Busiest ports",
        "The ten ports with the most bytes a second, both ways.",
        [
            Query(
                f"topk(10, {rate('natproxy_node_bytes_total', ROUTE, 'cache, kind, node, port')}"
                f" + {rate('natproxy_client_bytes_total', ROUTE, 'cache, kind, node, port')})",
                "{{port}} {{cache}} {{kind}} {{node}}",
            )
        ],
        unit="Bps",
    ),
    Panel(
        "Dial time",
        "How long nodes take to accept a connection, by cache. Within a VPC it is about a millisecond.",
        [Query(quantile(0.5, "cache"), "{{cache}} p50"), Query(quantile(0.99, "cache"), "{{cache}} p99")],
        unit="s",
        steps=((None, GREEN), (0.25, RED)),
        more={"custom": {"thresholdsStyle": {"mode": "line"}}},
    ),
]

ROUTES = [
    Panel(
        "Routes by state",
        "open is the good one; absent: AWS tells of the node but gives no address (yet), or it is being drained.",
        [Query(f"sum by (state) (natproxy_listener_state{{{ROUTE}}})", "{{state}}")],
        more={"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 30, "lineInterpolation": "stepAfter"}},
    ),
    table(
        "Which routes are in trouble",
        "Ports that are unreachable or not open now; `natproxy routes` says why.",
        Query(f'natproxy_listener_state{{{ROUTE},state=~"unreachable|error"}} == 1', instant=True, table=True),
        ("cache", "kind", "node", "port", "state", "instance"),
    ),
    table(
        "Nodes",
        "Role (as AWS tells it, or a node in cluster mode) and zone of each node, and its port.",
        Query(f"natproxy_node_info{{{ROUTE}}}", instant=True, table=True),
        ("cache", "node", "port", "role", "zone", "instance"),
    ),
    Panel(
        "Dial time by port, p99",
        "The ten ports whose nodes take longest to accept a connection.",
        [Query(f"topk(10, {quantile(0.99, 'cache, kind, node, port')})", "{{port}} {{cache}} {{kind}} {{node}}")],
        unit="s",
    ),
    Panel(
        "Failovers and other changes",
        "Changes of nodes and endpoints that were followed.",
        [Query(f"sum by (change) (increase(natproxy_node_changes_total{{{WHERE}}}[$__rate_interval]))", "{{change}}")],
        more={"custom": {"drawStyle": "bars", "fillOpacity": 80}},
    ),
    Panel(
        "Names that do not resolve",
        "Answers of DNS that were of no use, a second; the last good addresses stay.",
        [Query(rate("natproxy_name_failures_total", WHERE, "instance"), "{{instance}}")],
        unit="ops",
    ),
]

REFUSED = [
    Panel(
        "Refusals",
        "Clients that were turned away, a second, by reason.",
        [Query(rate("natproxy_refusals_total", WHERE, "reason"), "{{reason}}")],
        unit="cps",
    ),
    Panel(
        "Refusals by cache",
        "The same by cache; a reason appears once it has happened.",
        [
            Query(
                rate("natproxy_connections_ended_total", f'{ROUTE},outcome=~"{TURNED_AWAY}"', "cache, outcome"),
                "{{cache}} {{outcome}}",
            )
        ],
        unit="cps",
    ),
    Panel(
        "Share of max_connections",
        "At 100 % every new connection is closed at once. (global): all ports without limits of their own.",
        [
            Query(
                f"natproxy_limit_connections{{{WHERE}}} / natproxy_limit_max_connections{{{WHERE}}}",
                "{{instance}} {{limit_group}}",
            )
        ],
        unit="percentunit",
        steps=((None, GREEN), (0.8, AMBER), (0.95, RED)),
        more={"min": 0, "custom": {"thresholdsStyle": {"mode": "line"}}},
    ),
    Panel(
        "Requests to the admin side and the portal",
        "Answers a second by HTTP status; one appears once it has happened.",
        [
            Query(rate("natproxy_admin_requests_total", WHERE, "code"), "admin {{code}}"),
            Query(rate("natproxy_portal_requests_total", WHERE, "code"), "portal {{code}}"),
        ],
        unit="reqps",
    ),
    Panel(
        "Refusals of the admin side and the portal",
        "Connections that were not let in, a second: network is an address that is not allowed; else TLS says why.",
        [
            Query(rate("natproxy_admin_refusals_total", WHERE, "reason"), "admin {{reason}}"),
            Query(rate("natproxy_portal_refusals_total", WHERE, "reason"), "portal {{reason}}"),
        ],
        unit="cps",
    ),
]

TLS = [
    Panel(
        "Handshakes",
        "TLS handshakes a second with clients and nodes, by result.",
        [Query(rate("natproxy_handshakes_total", ROUTE, "side, result"), "{{side}} {{result}}")],
        unit="ops",
    ),
    Panel(
        "Failed handshakes",
        "By side and reason; a reason appears once it has happened.",
        [Query(rate("natproxy_handshakes_total", f'{ROUTE},result="failed"', "side, reason"), "{{side}} {{reason}}")],
        unit="ops",
    ),
    Panel(
        "TLS versions",
        "Handshakes that succeeded, a second, by what was agreed on.",
        [
            Query(
                rate("natproxy_tls_sessions_total", WHERE, "side, version, resumed"),
                "{{side}} {{version}} resumed={{resumed}}",
            )
        ],
        unit="ops",
    ),
    Panel(
        "Certificates: days left",
        "Each certificate that is in use: natproxy's own, the CAs for clients and those for nodes.",
        [
            Query(
                f"(natproxy_certificate_expiry_timestamp_seconds{{{WHERE}}} - time()) / 86400",
                "{{use}} {{subject}} {{serial}}",
                instant=True,
            )
        ],
        "bargauge",
        unit="d",
        steps=((None, RED), (3, AMBER), (21, GREEN)),
        more={"min": 0, "max": 400, "decimals": 0},
    ),
    Panel(
        "Revocation lists: days left",
        "After its end nobody with a certificate of that issuer gets in.",
        [
            Query(
                f"(natproxy_crl_next_update_timestamp_seconds{{{WHERE}}} - time()) / 86400", "{{issuer}}", instant=True
            )
        ],
        "bargauge",
        unit="d",
        steps=((None, RED), (1, AMBER), (4, GREEN)),
        more={"min": 0, "max": 35, "decimals": 1},
    ),
    Panel(
        "TLS files",
        "1: what the files hold is in use; 0: they have become bad, and the old ones serve. How often they were read.",
        [
            Query(f"natproxy_tls_files_good{{{WHERE}}}", "{{instance}} good"),
            Query(
                f"sum by (result) (increase(natproxy_tls_file_loads_total{{{WHERE}}}[$__rate_interval]))",
                "read and {{result}}",
            ),
        ],
    ),
]

DISCOVERY = [
    Panel(
        "Discovery age over time",
        "Seconds since AWS told everything.",
        [
            Query(
                f"time() - (natproxy_discovery_last_success_timestamp_seconds{{{WHERE}}} > 0)"
                f" and natproxy_discovery_refresh_seconds{{{WHERE}}} > 0",
                "{{instance}}",
            )
        ],
        unit="s",
    ),
    Panel(
        "Rounds of discovery",
        "Rounds of asking AWS a second, and those that failed by reason.",
        [
            Query(rate("natproxy_discovery_runs_total", WHERE, "instance"), "{{instance}} all"),
            Query(rate("natproxy_discovery_failures_total", WHERE, "reason"), "failed: {{reason}}"),
        ],
        unit="ops",
    ),
    Panel(
        "Reloads of the config",
        "By result; and 1 where the last one was accepted, else 0.",
        [
            Query(
                f"sum by (result) (increase(natproxy_config_reloads_total{{{WHERE}}}[$__rate_interval]))", "{{result}}"
            ),
            Query(f"natproxy_config_last_reload_successful{{{WHERE}}}", "{{instance}} last one good"),
        ],
    ),
]

REWRITING = [
    Panel(
        "Replies rewritten",
        "Replies of nodes in which addresses were rewritten, a second, by what they are.",
        [Query(rate("natproxy_replies_rewritten_total", ROUTE, "reply"), "{{reply}}")],
        unit="ops",
    ),
    Panel(
        "Fallbacks",
        "Connections that are passed on unread from some point on, by why; monitor, replication and reply-off are the"
        " client's own doing.",
        [Query(rate("natproxy_rewrite_fallbacks_total", ROUTE, "reason"), "{{reason}}")],
        unit="cps",
    ),
    Panel(
        "Hints",
        "Replies that had AWS and DNS asked at once, by why.",
        [Query(rate("natproxy_rewrite_hints_total", WHERE, "hint"), "{{hint}}")],
        unit="ops",
    ),
]

PROCESSES = [
    Panel(
        "Workers",
        "Worker processes running, those that should be, and replacements.",
        [
            Query(f"natproxy_workers{{{WHERE}}}", "{{instance}} running"),
            Query(f"natproxy_workers_wanted{{{WHERE}}}", "{{instance}} wanted"),
            Query(f"increase(natproxy_worker_restarts_total{{{WHERE}}}[$__rate_interval])", "{{instance}} replaced"),
        ],
    ),
    Panel(
        "CPU",
        "Seconds of CPU a second: 1 is a whole core. Bytes are moved by the workers.",
        [
            Query(rate("natproxy_worker_cpu_seconds_total", WHERE, "instance, slot"), "{{instance}} worker {{slot}}"),
            Query(rate("process_cpu_seconds_total", WHERE, "instance"), "{{instance}} controller"),
        ],
        unit="percentunit",
    ),
    Panel(
        "Memory",
        "Resident memory of each process.",
        [
            Query(f"natproxy_worker_resident_memory_bytes{{{WHERE}}}", "{{instance}} worker {{slot}}"),
            Query(f"process_resident_memory_bytes{{{WHERE}}}", "{{instance}} controller"),
        ],
        unit="bytes",
    ),
    Panel(
        "File descriptors",
        "Share of its limit that each process has open; each connection takes two.",
        [
            Query(
                f"natproxy_worker_open_fds{{{WHERE}}} / natproxy_worker_max_fds{{{WHERE}}}",
                "{{instance}} worker {{slot}}",
            ),
            Query(f"process_open_fds{{{WHERE}}} / process_max_fds{{{WHERE}}}", "{{instance}} controller"),
        ],
        unit="percentunit",
        steps=((None, GREEN), (0.8, AMBER), (0.95, RED)),
        more={"min": 0, "custom": {"thresholdsStyle": {"mode": "line"}}},
    ),
    Panel(
        "What was left out or put off",
        "Pauses of accepting for want of descriptors, log lines dropped, and state files that could not be written.",
        [
            Query(rate("natproxy_accept_pauses_total", WHERE, "instance"), "{{instance}} accept pauses"),
            Query(rate("natproxy_log_lines_dropped_total", WHERE, "instance"), "{{instance}} log lines dropped"),
            Query(rate("natproxy_state_save_failures_total", WHERE, "instance"), "{{instance}} state not saved"),
        ],
        unit="ops",
    ),
    Panel(
        "Running for",
        "Time since the start, and the version that runs.",
        [
            Query(
                f"(time() - process_start_time_seconds{{{WHERE}}})"
                f" * on (job, instance) group_left (version) natproxy_build_info{{{WHERE}}}",
                "{{instance}} {{version}}",
                instant=True,
            )
        ],
        "stat",
        unit="s",
    ),
]

ROWS = {
    "Overview": OVERVIEW,
    "Traffic": TRAFFIC,
    "Routes and nodes": ROUTES,
    "Refusals and limits": REFUSED,
    "TLS": TLS,
    "Discovery and config": DISCOVERY,
    "Rewriting": REWRITING,
    "Processes": PROCESSES,
}

MARKS = {
    "Starts": Mark("blue", f"process_start_time_seconds{{{WHERE}}} * 1000", is_time=True),
    "Reloads": Mark("yellow", f"natproxy_config_last_reload_success_timestamp_seconds{{{WHERE}}} * 1000", is_time=True),
    "Failovers": Mark(
        "purple", f'increase(natproxy_node_changes_total{{{WHERE},change="role-moved"}}[$__rate_interval]) > 0'
    ),
}
"""What is marked in all graphs."""

VARIABLES = {
    "job": "label_values(natproxy_build_info, job)",
    "instance": 'label_values(natproxy_build_info{job=~"$job"}, instance)',
    "cache": f"label_values(natproxy_listener_state{{{WHERE}}}, cache)",
    "node": f"label_values(natproxy_listener_state{{{CACHE}}}, node)",
}
"""Variable name -> query; all of them may have several values, and "All" takes in series without the label."""
