"""Whether natproxy has its ports on this host, or could have them. I/O: binds ports for a moment, reads /proc."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from natproxy.config import Config
from natproxy.control import Control
from natproxy.doctor import settings
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.listeners import Holder, holder
from natproxy.doctor.spans import written
from natproxy.documents import CacheView, RoutesDocument
from natproxy.errors import ControlError
from natproxy.model import Address, Route, RouteState

LOW_PORTS = (
    "give natproxy CAP_NET_BIND_SERVICE and nothing else (AmbientCapabilities and CapabilityBoundingSet in a drop-in "
    "of its unit, as systemd/low-ports.conf does), or choose ports from 1024 on"
)
_SYSTEMD = (1, "systemd")
_NOBODY = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)


def port_findings(config: Config, routes: Sequence[Route]) -> list[Finding]:
    """Judge the ports: as the running natproxy has them, or where none runs, as one could get them."""
    try:
        document = Control(config.state_dir).routes()
    except ControlError as error:
        if isinstance(error.__cause__, _NOBODY):
            return [*bind_findings(config, routes), *ephemeral_findings(config), *_low_ports(config)]
        mend = "run the doctor as root, or as the user that natproxy runs as; systemctl status natproxy says more"
        return [Finding(Check.PORTS, "", Verdict.UNKNOWN, str(error), mend), *ephemeral_findings(config)]
    return [*served_findings(document, routes), *ephemeral_findings(config)]


def served_findings(document: RoutesDocument, routes: Sequence[Route]) -> list[Finding]:
    """Judge what the running natproxy says of its own ports. Pure."""
    found = [finding for cache in document.caches for finding in _of_cache(cache)]
    served = {route.port for cache in document.caches for route in cache.routes}
    for route in routes:
        if route.port not in served:
            mend = "natproxy reload, where the config has changed; else look at natproxy's log"
            evidence = f"natproxy runs, and does not serve port {route.port}"
            found.append(Finding(Check.PORTS, str(route.key), Verdict.WARNING, evidence, mend))
    return found


def bind_findings(config: Config, routes: Sequence[Route]) -> list[Finding]:
    """Try to bind every port that natproxy would listen on, and let go of it at once; nobody could connect meanwhile.

    Where no route is known yet all ports that the config names are tried.
    """
    places = [(address, port) for port in _wanted(config, routes) for address in config.listen.address]
    if (portal := config.portal_port) is not None:
        places += [(address, portal) for address in config.listen.address]
    places.append((config.admin.address, config.admin.port))
    taken: list[tuple[tuple[str, int], Holder | None]] = []
    found = []
    for place in dict.fromkeys(places):
        error = _bind_error(place, config)
        if error is not None and error.errno == errno.EADDRINUSE:
            taken.append((place, holder(*place)))
        elif error is not None:
            found.append(_unbound_finding(place, error))
    if found or taken:
        return [*taken_findings(taken), *found]
    evidence = f"natproxy does not run, and nobody else has its ports: {written(port for _, port in places)}"
    return [Finding(Check.PORTS, "", Verdict.GOOD, evidence)]


def ephemeral_findings(config: Config, system: Path = settings.SYSTEM) -> list[Finding]:
    """Look for ports of natproxy's that the kernel may give to an outgoing connection."""
    own = sorted(set(configured_ports(config)))
    chosen = settings.read_spans("net.ipv4.ip_local_port_range", system)
    reserved = settings.read_spans("net.ipv4.ip_local_reserved_ports", system)
    exposed = [port for port in own if _holds(chosen, port) and not _holds(reserved, port)]
    if not exposed:
        return []
    first, last = chosen[0]
    evidence = (
        f"{written(exposed)}: the kernel gives outgoing connections ports from {first} to {last}, and one that has "
        "one of these keeps natproxy from opening it"
    )
    kept = {port for begin, end in reserved for port in range(begin, end + 1)}
    value = written({*kept, *exposed}).replace(" ", "")
    mend = settings.mend("net.ipv4.ip_local_reserved_ports", value)
    return [Finding(Check.PORTS, "ephemeral ports", Verdict.WARNING, evidence, mend)]


def configured_ports(config: Config) -> Iterator[int]:
    """Yield every port that the config lets natproxy listen on."""
    yield config.admin.port
    if config.portal_port is not None:
        yield config.portal_port
    for static in config.static:
        yield static.port
    for entry in config.caches:
        yield from config.candidate_ports(entry)


def _low_ports(config: Config, system: Path = settings.SYSTEM) -> Iterator[Finding]:
    first_free = settings.read_number("net.ipv4.ip_unprivileged_port_start", system)
    low = [port for port in configured_ports(config) if port < (1024 if first_free is None else first_free)]
    if low:
        evidence = f"{written(low)}: only who has a capability for it may listen there"
        yield Finding(Check.PORTS, "low ports", Verdict.WARNING, evidence, LOW_PORTS)


def _of_cache(cache: CacheView) -> Iterator[Finding]:
    served = []
    for route in cache.routes:
        name = str(route.node) if route.node is not None else cache.id
        subject = name if route.node is not None or route.kind == "static" else f"{cache.id}:{route.kind}"
        if route.state == RouteState.ERROR or route.port is None:
            port = "it has no port" if route.port is None else f"port {route.port} is not open"
            mend = "mend what the reason says; natproxy tries again by itself, and at `natproxy reload`"
            yield Finding(Check.PORTS, subject, Verdict.BAD, f"{port}: {route.reason or 'no reason is told'}", mend)
        else:
            served.append(route.port)
    if served:
        yield Finding(Check.PORTS, cache.id, Verdict.GOOD, f"natproxy runs and listens on {written(served)}")


def _wanted(config: Config, routes: Sequence[Route]) -> list[int]:
    if routes:
        return sorted({route.port for route in routes})
    return sorted(set(configured_ports(config)) - {config.admin.port})


def taken_findings(taken: Sequence[tuple[tuple[str, int], Holder | None]]) -> list[Finding]:
    """Judge ports that somebody has; those of another natproxy together. Pure."""
    others: dict[Holder, list[int]] = {}
    found = []
    for place, who in taken:
        if who is not None and who.is_natproxy:
            others.setdefault(replace(who, ip=""), []).append(place[1])
        else:
            found.append(_taken_finding(place, who))
    return [*(_other_natproxy(who, ports) for who, ports in others.items()), *found]


def _other_natproxy(who: Holder, ports: Sequence[int]) -> Finding:
    given = f" with -c {who.config}" if who.config else ""
    name = "port" if len(set(ports)) == 1 else "ports"
    evidence = f"another natproxy runs here{given} (pid {who.pid}) and has {name} {written(ports)}"
    mend = "stop that one, or write other ports, and another admin.port, into one of the two configs"
    return Finding(Check.PORTS, f"{name} {written(ports)}", Verdict.BAD, evidence, mend)


def _taken_finding(place: tuple[str, int], who: Holder | None) -> Finding:
    address, port = place
    if who is not None and (who.pid, who.name) == _SYSTEMD:
        evidence = f"{address}:{port} is held by systemd: kept for natproxy over a restart, or for another service"
        mend = f"systemctl status natproxy; systemctl list-sockets shows whether another service has port {port}"
        return Finding(Check.PORTS, f"port {port}", Verdict.WARNING, evidence, mend)
    evidence = f"{address}:{port} is taken by {who or 'another process, which only root can see'}"
    if who is not None and who.ip != address:
        evidence += f", which listens on {Address(who.ip, port)}"
    mend = f"stop that process, or choose other ports: sudo ss -ltnp 'sport = :{port}' shows it"
    return Finding(Check.PORTS, f"port {port}", Verdict.BAD, evidence, mend)


def _bind_error(place: tuple[str, int], config: Config) -> OSError | None:
    """Return what keeps natproxy from listening there."""
    try:
        _bind(*place, has_ipv4=any(":" not in other for other in config.listen.address))
    except OSError as error:
        return error
    return None


def _unbound_finding(place: tuple[str, int], error: OSError) -> Finding:
    """Judge a port that cannot be bound, although nobody has it."""
    address, port = place
    if error.errno == errno.EACCES and os.geteuid() != 0:
        evidence = f"whether {address}:{port} can be opened is not known: this user may not, and natproxy's may"
        return Finding(Check.PORTS, f"port {port}", Verdict.UNKNOWN, evidence, "sudo natproxy doctor tells")
    evidence, mend = _why_not(address, port, error)
    return Finding(Check.PORTS, f"port {port}", Verdict.BAD, evidence, mend)


def _bind(address: str, port: int, *, has_ipv4: bool) -> None:
    """Bind a port as the daemon does (controller.sockets), without listening. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(has_ipv4 or address != "::"))
        sock.bind((address, port))


def _why_not(address: str, port: int, error: OSError) -> tuple[str, str]:
    if error.errno == errno.EACCES:
        return f"{address}:{port} may not be opened by this user: {error.strerror}", LOW_PORTS
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this host", "write one that is, or 0.0.0.0, as listen.address"
    return f"{address}:{port} cannot be opened: {error.strerror or error}", "ip address shows what this host has"


def _holds(spans: Iterable[tuple[int, int]], port: int) -> bool:
    return any(first <= port <= last for first, last in spans)
