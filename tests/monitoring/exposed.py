"""What natproxy exposes: the families of its real registry, their labels, and the values that those may have. Pure."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from natproxy.controller.changes import NodeChange
from natproxy.controller.metrics import Metrics
from natproxy.model import DiscoveryFailure, HandshakeFailure, Kind, Outcome, Role, RouteState
from natproxy.wire.rewriter import Fallback, Hint, Reply

TARGET = frozenset(("job", "instance"))
"""The labels that Prometheus itself gives to all that it scrapes."""
VALUES: dict[str, frozenset[str]] = {
    "change": frozenset(NodeChange),
    "hint": frozenset(Hint),
    "kind": frozenset(Kind),
    "outcome": frozenset(Outcome),
    "reason": frozenset((*Outcome, *HandshakeFailure, *Fallback, *DiscoveryFailure, "network")),
    "reply": frozenset(Reply),
    "result": frozenset(("ok", "failed", "accepted", "refused")),
    "role": frozenset(Role),
    "side": frozenset(("client", "node")),
    "state": frozenset(RouteState),
    "use": frozenset(("certificate", "client_ca", "nodes_ca")),
}
"""Label -> the closed list of its values."""


class Family(NamedTuple):
    """One metric, as it is asked for."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]


@cache
def families() -> list[Family]:
    """Return all of natproxy's own families and those of its process, by name."""
    registry = CollectorRegistry()
    Metrics("0.1.0", registry)
    found = [_family(metric) for metric in registry.collect()]
    return sorted(one for one in found if one.name.startswith(("natproxy_", "process_")))


@cache
def series() -> dict[str, frozenset[str]]:
    """Return the name of every series that can be asked for -> its labels."""
    found = {"up": TARGET, "ALERTS": TARGET | {"alertname", "alertstate", "severity"}}
    for one in families():
        labels = TARGET | set(one.labels)
        if one.kind == "histogram":
            found |= {f"{one.name}_sum": labels, f"{one.name}_count": labels, f"{one.name}_bucket": labels | {"le"}}
        else:
            found[one.name] = labels
    return found


def _family(metric: Metric) -> Family:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    return Family(name, metric.type, metric.documentation, tuple(getattr(metric, "_labelnames", ())))
