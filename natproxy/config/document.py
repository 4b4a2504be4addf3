"""What ``natproxy check --json`` prints: whether a config file is good, and what it asks of the host. Pure."""

from __future__ import annotations

import msgspec

from natproxy.config.model import Config
from natproxy.errors import Problem

VERSION = 1
FIRST_UNPRIVILEGED_PORT = 1024
"""Ports below need CAP_NET_BIND_SERVICE (net.ipv4.ip_unprivileged_port_start, where nobody has changed it)."""


class PortsView(msgspec.Struct, frozen=True):
    """Where clients may be served, whatever AWS has; null where nowhere, or where the file is not good."""

    lowest: int | None = None
    highest: int | None = None


class CheckDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The whole. Fields may be added under the same version."""

    version: int = VERSION
    ok: bool
    problems: tuple[Problem, ...] = ()
    """Every mistake, in file order; then nothing else is known."""
    warnings: tuple[str, ...] = ()
    """What is allowed but should be known, each with file, line and place."""
    ports: PortsView = PortsView()
    needs_bind_capability: bool = False
    """True where a port, the admin side's and the portal's too, is one that only CAP_NET_BIND_SERVICE opens."""
    portal: int | None = None
    """The port of the portal; null where there is none."""


def good_document(config: Config) -> CheckDocument:
    """Return what is to be told of a file that is good."""
    ports = {entry.port for entry in config.static}
    for entry in config.caches:
        ports.update(config.candidate_ports(entry))
    portal = config.portal_port
    listened_on = {*ports, config.admin.port, *((portal,) if portal is not None else ())}
    return CheckDocument(
        ok=True,
        warnings=config.warnings,
        ports=PortsView(min(ports), max(ports)) if ports else PortsView(),
        needs_bind_capability=min(listened_on) < FIRST_UNPRIVILEGED_PORT,
        portal=portal,
    )


def bad_document(problems: tuple[Problem, ...]) -> CheckDocument:
    """Return what is to be told of a file with mistakes."""
    return CheckDocument(ok=False, problems=problems)
