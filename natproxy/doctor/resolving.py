"""Names -> addresses, once each, as natproxy itself would learn them. I/O: talks to DNS servers; reads resolv.conf."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from natproxy.discover.names import Names

RESOLV_CONF = Path("/etc/resolv.conf")
SECONDS = 15.0
"""For all names together; one that nobody answers for takes 3."""
NO_VERDICT = "no DNS server has answered in time"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What became of one name."""

    addresses: tuple[str, ...] = ()
    """IPv4 before IPv6, in numeric order."""
    reason: str = ""
    """Why there are none."""


async def resolve_all(hosts: Collection[str], resolver: tuple[str, ...] | None) -> dict[str, Resolved]:
    """Ask for every name once, with natproxy's own resolver code. ``resolver``: the config's DNS servers."""
    found: dict[str, Resolved] = {}
    is_done = asyncio.Event()

    def take(host: str, addresses: tuple[str, ...] | None, reason: str) -> None:
        found.setdefault(host, Resolved(addresses or (), reason))
        if len(found) == len(frozenset(hosts)):
            is_done.set()

    if not hosts:
        return found
    names = Names(resolver, take)
    try:
        names.watch(hosts)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                await is_done.wait()
    finally:
        await names.close()
    return {host: found.get(host, Resolved(reason=NO_VERDICT)) for host in hosts}


def shown_resolver(resolver: tuple[str, ...] | None) -> str:
    """Say who is asked, and why: ``10.0.0.2 (/etc/resolv.conf)``."""
    if resolver:
        return f"{', '.join(resolver)} (`resolver` in the config)"
    servers = _system_servers()
    return f"{', '.join(servers) or 'nobody'} ({RESOLV_CONF})"


def _system_servers() -> list[str]:
    try:
        lines = RESOLV_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
