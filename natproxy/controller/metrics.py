"""The metrics of the whole, in Prometheus' words. I/O: reads /proc for the process metrics.

Per-route numbers live in plain dicts and become metric families when they are asked for; a port that vanishes takes
its series along. Every label has a closed set of values, or names a route of the config. The names follow
https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from natproxy.controller.configmetrics import ConfigCounts
from natproxy.controller.discoverymetrics import DiscoveryCounts
from natproxy.controller.limitmetrics import Refusals, limit_families
from natproxy.controller.rewritemetrics import Rewrites, hint_family, rewrite_families
from natproxy.controller.status import RouteStatus
from natproxy.controller.tlsmetrics import Handshakes, TlsCounts, add_handshakes, handshake_family
from natproxy.controller.webmetrics import SideCounts
from natproxy.controller.workermetrics import WorkerProcesses
from natproxy.messages import DIAL_BUCKETS, Counts, RouteCounts
from natproxy.model import Kind, Outcome, RouteKey, RouteState
from natproxy.wire.rewriter import Hint

_ROUTE = ("cache", "node", "kind", "port")


@dataclass(slots=True)
class _Port:
    """What one port counted since its route has it."""

    key: RouteKey
    opened: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    client_bytes: int = 0
    node_bytes: int = 0
    dials: list[int] = field(default_factory=lambda: [0] * (len(DIAL_BUCKETS) + 1))
    dial_seconds: float = 0.0
    handshakes: Handshakes = field(default_factory=Counter)
    rewrites: Rewrites = field(default_factory=Rewrites)

    def add(self, counts: RouteCounts) -> None:
        self.opened += counts.opened
        self.ended.update(counts.ended)
        self.client_bytes += counts.client_bytes
        self.node_bytes += counts.node_bytes
        for bucket, dials in enumerate(counts.dials):
            self.dials[bucket] += dials
        self.dial_seconds += counts.dial_seconds
        add_handshakes(self.handshakes, counts)
        self.rewrites.add(counts)


class Metrics(Collector):
    """Counts, and renders what it counted together with everything else in ``registry``. ``now`` is the Unix time."""

    def __init__(self, version: str, registry: CollectorRegistry, *, now: Callable[[], float] = time.time) -> None:
        self._version = version
        self._registry = registry
        self._ports: dict[int, _Port] = {}
        self._statuses: dict[int, RouteStatus] = {}
        self._unplaced: Counter[str] = Counter()
        self._open: dict[int, dict[int, int]] = {}
        """Worker -> port -> connections open there."""
        self._workers = WorkerProcesses()
        self._refusals = Refusals()
        self._totals: Counter[str] = Counter()
        self._hints: Counter[str] = Counter()
        self.discovery = DiscoveryCounts(now=now)
        self.config = ConfigCounts(now=now)
        self.tls = TlsCounts()
        """What concerns TLS and no single port."""
        self.admin, self.portal = SideCounts("admin", "admin side"), SideCounts("portal")
        """What the daemon's own HTTP sides count."""
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(self)

    # --- what is told

    def show_routes(self, statuses: Iterable[RouteStatus], unplaced: Iterable[RouteKey] = ()) -> None:
        """Take these as all the routes there are; what was counted for a port is forgotten with its route.

        ``unplaced`` are routes that found no port. A route that is still being drained belongs among ``statuses``.
        """
        self._statuses = {status.route.port: status for status in statuses}
        self._unplaced = Counter(key.cache for key in unplaced)
        ports = {}
        for port, status in self._statuses.items():
            known = self._ports.get(port)
            ports[port] = known if known is not None and known.key == status.route.key else _Port(status.route.key)
        self._ports = ports

    def record_counts(self, worker: int, counts: Counts) -> None:
        """Add what ``worker`` (any number that stays its own) counted since it last said so."""
        self._open[worker] = {route.port: route.open for route in counts.routes if route.open}
        self._totals["accept_pauses"] += counts.accept_pauses
        self._totals["dropped_logs"] += counts.dropped_logs
        self.tls.record_sessions(counts.sessions)
        for route in counts.routes:
            self._refusals.add(route)
            if (port := self._ports.get(route.port)) is not None:
                port.add(route)

    def record_worker_loss(self, worker: int, *, is_replaced: bool = True) -> None:
        """Count the connections that ``worker`` had open as ended: they died with it."""
        for number, connections in self._open.pop(worker, {}).items():
            if (port := self._ports.get(number)) is not None:
                port.ended[Outcome.INTERNAL] += connections
        self._totals["worker_restarts"] += is_replaced

    def show_workers(self, wanted: int, pids: Mapping[int, int]) -> None:
        """Tell how many workers there should be, and which run now (slot -> process id)."""
        self._workers.show(wanted, pids)

    def record_hint(self, hint: Hint) -> None:
        """Count a reply that had AWS and DNS asked."""
        self._hints[hint] += 1

    def record_state_save_failure(self) -> None:
        """Count a state file that could not be written."""
        self._totals["state_save_failures"] += 1

    # --- what is shown

    def render(self) -> tuple[bytes, str]:
        """Return the text exposition and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the registry then takes the names as they come."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return all families; called by the registry."""
        yield self._build_info()
        yield from self._listeners()
        yield from self._connections()
        yield self._refusals.family()
        yield from limit_families((status.route for status in self._statuses.values()), self._running())
        yield from self._traffic()
        yield self._dials()
        ports = ((_labels(number, port.key), port.handshakes) for number, port in self._ports.items())
        yield handshake_family(ports, _ROUTE)
        rewritten = ((_labels(number, port.key), port.rewrites) for number, port in self._ports.items())
        yield from rewrite_families(rewritten, _ROUTE)
        yield hint_family(self._hints)
        yield from self.tls.families()
        yield from self.admin.families()
        yield from self.portal.families()
        yield from self.discovery.families()
        yield from self.config.families()
        yield from self._upkeep()

    def _build_info(self) -> Metric:
        family = GaugeMetricFamily(
            "natproxy_build_info", "Always 1; the labels say what runs.", labels=["version", "python"]
        )
        family.add_metric([self._version, platform.python_version()], 1)
        return family

    def _listeners(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "natproxy_listener_state",
            "1 for the state that a route is in, 0 for the others; open is the good one.",
            labels=[*_ROUTE, "state"],
        )
        node = GaugeMetricFamily(
            "natproxy_node_info",
            "Always 1; a node's port, role (as AWS tells it, or a node in cluster mode) and zone; empty if not known.",
            labels=[*_ROUTE, "role", "zone"],
        )
        for number, status in self._statuses.items():
            labels = _labels(number, status.route.key)
            for value in RouteState:
                state.add_metric([*labels, value], status.state is value)
            if status.route.key.kind is Kind.NODE:
                node.add_metric([*labels, status.role or "", status.zone or ""], 1)
        unplaced = GaugeMetricFamily(
            "natproxy_unplaced_routes", "Routes that found no free port in their cache's range.", labels=["cache"]
        )
        for cache, number in self._unplaced.items():
            unplaced.add_metric([cache], number)
        yield from (state, node, unplaced)

    def _connections(self) -> Iterator[Metric]:
        running = self._running()
        live = GaugeMetricFamily("natproxy_connections_open", "Client connections open now.", labels=_ROUTE)
        opened = CounterMetricFamily("natproxy_connections", "Client connections accepted.", labels=_ROUTE)
        ended = CounterMetricFamily(
            "natproxy_connections_ended",
            "Client connections that ended, by how; an outcome appears once it has happened.",
            labels=[*_ROUTE, "outcome"],
        )
        for number, port in self._ports.items():
            labels = _labels(number, port.key)
            live.add_metric(labels, running[number])
            opened.add_metric(labels, port.opened)
            for outcome, ends in port.ended.items():
                ended.add_metric([*labels, outcome], ends)
        yield from (live, opened, ended)

    def _running(self) -> Counter[int]:
        """Return port -> connections open."""
        running: Counter[int] = Counter()
        for ports in self._open.values():
            running.update(ports)
        return running

    def _traffic(self) -> Iterator[Metric]:
        client = CounterMetricFamily(
            "natproxy_client_bytes", "Bytes received from clients and sent on to nodes.", labels=_ROUTE
        )
        node = CounterMetricFamily(
            "natproxy_node_bytes", "Bytes received from nodes and sent on to clients.", labels=_ROUTE
        )
        for number, port in self._ports.items():
            labels = _labels(number, port.key)
            client.add_metric(labels, port.client_bytes)
            node.add_metric(labels, port.node_bytes)
        yield from (client, node)

    def _dials(self) -> Metric:
        family = HistogramMetricFamily(
            "natproxy_dial_seconds",
            "Seconds until a node had accepted the connection; failed dials are natproxy_connections_ended_total.",
            labels=_ROUTE,
        )
        for number, port in self._ports.items():
            if not any(port.dials):
                continue  # fifteen series for each route that was never dialled are dear at 500 routes
            total = 0
            buckets = []
            for bound, dials in zip([*map(str, DIAL_BUCKETS), "+Inf"], port.dials, strict=True):
                total += dials
                buckets.append((bound, float(total)))
            family.add_metric(_labels(number, port.key), buckets, port.dial_seconds)
        return family

    def _upkeep(self) -> Iterator[Metric]:
        yield from self._workers.families()
        for name, help_text in (
            ("worker_restarts", "Workers that died and were replaced."),
            ("state_save_failures", "Times that the state file could not be written."),
            ("accept_pauses", "Times that a worker stopped accepting because it ran out of file descriptors."),
        ):
            yield _counter(f"natproxy_{name}", help_text, self._totals[name])
        yield _counter(
            "natproxy_log_lines_dropped",
            "Log lines about finished or refused connections that were left out, because there were too many.",
            self._totals["dropped_logs"] + self.admin.dropped_lines + self.portal.dropped_lines,
        )


def _labels(port: int, key: RouteKey) -> list[str]:
    return [key.cache, str(key.node) if key.node is not None else "", key.kind.value, str(port)]


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value=value)
