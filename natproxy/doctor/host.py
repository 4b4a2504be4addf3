"""The checks of this host, one after another. I/O: by the modules that make them."""

from __future__ import annotations

from collections.abc import Sequence

from natproxy.config import Config
from natproxy.doctor.findings import Finding
from natproxy.doctor.leftovers import leftover_findings
from natproxy.doctor.limits import keepalive_findings, limit_findings
from natproxy.doctor.ports import configured_ports, port_findings
from natproxy.model import Route


def host_findings(config: Config, routes: Sequence[Route]) -> list[Finding]:
    """Judge the ports, left-over rules, limits and keepalive. ``routes`` are those that the config should lead to."""
    return [
        *port_findings(config, routes),
        *leftover_findings(routes, sorted(set(configured_ports(config)) - {config.admin.port})),
        *limit_findings(config, len(routes)),
        *keepalive_findings(config),
    ]
