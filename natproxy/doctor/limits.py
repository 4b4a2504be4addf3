"""What this host's limits let natproxy do, against what the config promises. I/O: reads /proc."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from natproxy.config import Config
from natproxy.doctor import settings
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.listeners import daemon_pid, descriptor_limit

EC2_IDLE_SECONDS = 350
"""After as long a silence EC2 forgets a TCP connection on newer instance families."""
DESCRIPTORS_OF_ITS_OWN = 256
"""For a worker's libraries, pipes, sockets to the controller; its listening sockets come on top."""
ENOUGH_BACKLOG = 1024
_CONNTRACK = "net.netfilter.nf_conntrack_"


def limit_findings(config: Config, route_count: int, system: Path = settings.SYSTEM) -> list[Finding]:
    """Judge descriptors, the backlog and connection tracking."""
    connections = most_connections(config)
    return [
        _descriptors(connections, route_count * len(config.listen.address), daemon_pid(config.state_dir)),
        *_backlog(system),
        *_tracking(connections, system),
    ]


def keepalive_findings(config: Config, system: Path = settings.SYSTEM) -> list[Finding]:
    """Judge whether idle connections outlive whoever tracks them on the way."""
    tracked = settings.read_number(f"{_CONNTRACK}tcp_timeout_established", system)
    limits = [(EC2_IDLE_SECONDS, f"EC2 forgets a connection that is idle for {EC2_IDLE_SECONDS} s")]
    if tracked is not None and tracked < EC2_IDLE_SECONDS:
        limits.insert(0, (tracked, f"this kernel forgets a connection that is idle for {tracked} s"))
    found = [finding for scope in _keepalives(config) for finding in _keepalive(*scope, limits)]
    if found:
        return found
    evidence = f"both sides of a connection are asked for a sign of life every {config.timeouts.keepalive:g} s"
    return [Finding(Check.KEEPALIVE, "", Verdict.GOOD, evidence)]


def most_connections(config: Config) -> int:
    """Return how many clients may be connected at once: by the common limit, and by those of entries."""
    of_caches = sum(entry.clients.max_connections for entry in config.caches if entry.has_own_limits)
    of_static = sum(entry.clients.max_connections for entry in config.static if entry.has_own_limits)
    return config.clients.max_connections + of_caches + of_static


def _descriptors(connections: int, listening: int, pid: int | None) -> Finding:
    # All of them may be one worker's: the limit is counted over all workers.
    needed = 2 * connections + listening + DESCRIPTORS_OF_ITS_OWN
    limit = None if pid is None else descriptor_limit(pid)
    if limit is not None:
        whose = f"the running natproxy (pid {pid})"
    else:
        limit, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[1], "a process started from here"
    where = f"{whose} may have {'any number of' if limit == resource.RLIM_INFINITY else limit} descriptors open"
    evidence = f"{where}; {connections} connections take {needed}, two for each"
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return Finding(Check.LIMITS, "descriptors", Verdict.GOOD, evidence)
    if pid is None:
        mend = f"LimitNOFILE={needed} in natproxy's unit (its own says 524288); started by hand, ulimit -Hn {needed}"
    else:
        mend = f"LimitNOFILE={needed} in natproxy's unit and a restart, or a smaller clients.max_connections"
    return Finding(Check.LIMITS, "descriptors", Verdict.WARNING, evidence, mend)


def _backlog(system: Path) -> Iterator[Finding]:
    most = settings.read_number("net.core.somaxconn", system)
    if most is None:
        return
    if most < ENOUGH_BACKLOG:
        evidence = f"only {most} clients at a time can wait to be accepted on a port: a burst of more is dropped"
        mend = settings.mend("net.core.somaxconn", 4096)
        yield Finding(Check.LIMITS, "backlog", Verdict.WARNING, evidence, mend)
        return
    yield Finding(Check.LIMITS, "backlog", Verdict.GOOD, f"{most} clients can wait to be accepted on a port")


def _tracking(connections: int, system: Path) -> Iterator[Finding]:
    most = settings.read_number(f"{_CONNTRACK}max", system)
    count = settings.read_number(f"{_CONNTRACK}count", system)
    if most is None or count is None:
        evidence = "the kernel tracks no connections here"
        yield Finding(Check.LIMITS, "connection tracking", Verdict.GOOD, evidence)
        return
    evidence = f"{count} of {most} tracked connections"
    needed = 2 * connections
    mend = settings.mend(f"{_CONNTRACK}max", max(2 * most, 2 * needed))
    if count >= 0.95 * most:
        full = f"{evidence}: when the table is full the kernel drops new connections in silence"
        yield Finding(Check.LIMITS, "connection tracking", Verdict.BAD, full, mend)
    elif count >= 0.8 * most or needed > most:
        tight = (
            f"{evidence}; natproxy's {connections} connections may take {needed}, one to the client and one to the node"
        )
        yield Finding(Check.LIMITS, "connection tracking", Verdict.WARNING, tight, mend)
    else:
        yield Finding(Check.LIMITS, "connection tracking", Verdict.GOOD, evidence)


def _keepalives(config: Config) -> list[tuple[str, float, float | None]]:
    """Return (whose, keepalive, idle), the common ones first, then those of entries that differ."""
    common = (config.timeouts.keepalive, config.timeouts.idle)
    found: list[tuple[str, float, float | None]] = [("", *common)]
    for entry in (*config.caches, *config.static):
        own = (entry.timeouts.keepalive, entry.timeouts.idle)
        if own != common:
            name = getattr(entry, "name", None) or getattr(entry, "id", None) or "an entry with tags"
            found.append((str(name), *own))
    return found


def _keepalive(whose: str, keepalive: float, idle: float | None, limits: list[tuple[int, str]]) -> Iterator[Finding]:
    silence = keepalive if idle is None else min(keepalive, idle)
    seconds, why = limits[0]
    if silence >= seconds:
        evidence = f"timeouts.keepalive is {keepalive:g} s, and {why}: it then hangs without a word"
        mend = "leave timeouts.keepalive at its default of 30s, or write at most 60s"
        yield Finding(Check.KEEPALIVE, whose, Verdict.WARNING, evidence, mend)
