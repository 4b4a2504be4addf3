"""Whether every node's name resolves, and every address of it takes a connection from here. I/O: DNS, TCP."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.outcomes import Outcome, outcome_of
from natproxy.doctor.resolving import Resolved, resolve_all, shown_resolver
from natproxy.doctor.targets import Target
from natproxy.model import Address
from natproxy.plan.addresses import of_nodes

AT_ONCE = 256
"""So many dials are under way together."""

CHECK_NAME = (
    "compare with the endpoint that AWS shows; the VPC needs DNS resolution (enableDnsSupport), and this host must ask "
    "the VPC's own resolver: 169.254.169.253, or the VPC's base address plus two"
)
CHECK_RESOLVER = (
    "ask it from here (dig NAME @SERVER): the VPC's own resolver is 169.254.169.253, or the VPC's base address plus "
    "two; write it into /etc/resolv.conf, or as `resolver` into the config"
)
LOCAL_NAME = (
    "natproxy does not dial such addresses for a cache: look who answers for this name (a private hosted zone, "
    "/etc/hosts), and remove what is wrong there"
)
GENERIC_TIMEOUT = (
    "packets are dropped on the way: let the cache's security group take this port from this host's group, this host's "
    "group send to it, and look at the subnets' network ACLs, which need the way back (ports 1024-65535) as well"
)


@dataclass(frozen=True, slots=True)
class Dialled:
    """What became of dialling one address of a target; of a name without addresses there is one, too."""

    target: Target
    addresses: tuple[str, ...]
    """All that the name resolves to and natproxy would dial."""
    address: str
    """The one that was dialled; empty for ``no-name``."""
    outcome: Outcome
    detail: str = ""


async def dial_all(
    targets: Iterable[Target], connect_seconds: float, resolver: tuple[str, ...] | None = None
) -> tuple[Dialled, ...]:
    """Resolve every name and dial every address, each once. ``resolver``: the config's; None = the system's.

    The order is that of the targets, and of each one's addresses.
    """
    targets = tuple(targets)
    resolved = await resolve_all({target.host for target in targets}, resolver)
    asked = shown_resolver(resolver)
    usable = {target: of_nodes(resolved[target.host].addresses, may_be_local=_may(target)) for target in targets}
    places = list(dict.fromkeys(Address(ip, target.port) for target in targets for ip in usable[target]))
    limit = asyncio.Semaphore(AT_ONCE)

    async def dial_in_turn(place: Address) -> tuple[Outcome, str]:
        async with limit:
            return await dial(place, connect_seconds)

    outcomes = dict(zip(places, await asyncio.gather(*map(dial_in_turn, places)), strict=True))
    return tuple(
        dialled for target in targets for dialled in _dialled(target, resolved[target.host], usable, outcomes, asked)
    )


async def dial(place: Address, seconds: float) -> tuple[Outcome, str]:
    """Open a connection and close it again; return what became of it, and in what words the kernel told it."""
    family = socket.AF_INET6 if ":" in place.ip else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return "unreachable", error.strerror or str(error)
    with sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(sock, tuple(place))
        except TimeoutError:
            return "timeout", f"no answer within {seconds:g} s"
        except OSError as error:  # whose text is asyncio's, and names the address once more
            return outcome_of(error), os.strerror(error.errno) if error.errno else str(error)
    return "open", ""


def reach_findings(
    dialled: Sequence[Dialled], explain: Callable[[Dialled], tuple[str, str] | None] = lambda _: None
) -> list[Finding]:
    """Judge the names, then the addresses. ``explain`` may know why an address is silent: (evidence, mend)."""
    by_target = [list(group) for _, group in groupby(dialled, attrgetter("target"))]
    names = [_name_finding(group) for group in by_target]
    return [*names, *(finding for group in by_target for finding in _reach(group, explain))]


def _may(target: Target) -> bool:
    return target.may_be_local or target.is_static


def _dialled(
    target: Target,
    resolved: Resolved,
    usable: dict[Target, tuple[str, ...]],
    outcomes: dict[Address, tuple[Outcome, str]],
    asked: str,
) -> Iterator[Dialled]:
    addresses = usable[target]
    if not resolved.addresses:
        yield Dialled(target, (), "", "no-name", f"{resolved.reason}, asked of {asked}")
    elif not addresses:
        yield Dialled(target, (), "", "no-name", f"it resolves to {', '.join(resolved.addresses)}, asked of {asked}")
    for ip in addresses:
        yield Dialled(target, addresses, ip, *outcomes[Address(ip, target.port)])


def _name_finding(group: Sequence[Dialled]) -> Finding:
    one = group[0]
    if one.outcome != "no-name":
        return Finding(Check.NAMES, one.target.subject, Verdict.GOOD, f"{one.target.host}: {', '.join(one.addresses)}")
    if one.detail.startswith("it resolves to"):
        mend = LOCAL_NAME
    else:
        mend = CHECK_NAME if "exist" in one.detail or "no address" in one.detail else CHECK_RESOLVER
    if one.target.is_static:
        mend = f"look at the target {one.target} in the config; {mend}"
    return Finding(Check.NAMES, one.target.subject, Verdict.BAD, f"{one.target.host}: {one.detail}", mend)


def _reach(group: Sequence[Dialled], explain: Callable[[Dialled], tuple[str, str] | None]) -> Iterator[Finding]:
    subject = group[0].target.subject
    if group[0].outcome == "no-name":
        yield Finding(Check.REACH, subject, Verdict.UNKNOWN, "there is no address to dial: see its name above")
        return
    bad = [one for one in group if one.outcome != "open"]
    if not bad:
        shown = ", ".join(str(Address(one.address, one.target.port)) for one in group)
        yield Finding(Check.REACH, subject, Verdict.GOOD, f"{shown} takes connections")
    for one in bad:
        explained = explain(one) if one.outcome == "timeout" else None
        evidence, mend = explained or _usual(one)
        yield Finding(Check.REACH, subject, Verdict.BAD, evidence, mend)


def _usual(one: Dialled) -> tuple[str, str]:
    place = Address(one.address, one.target.port)
    if one.outcome == "refused":
        evidence = f"{place} refuses connections: the host is there, and nothing listens on that port"
        if one.target.is_static:
            return evidence, f"start what should listen there, or mend the target {one.target} in the config"
        return evidence, (
            "look at the cache's state (is it creating, rebooting, being replaced?) and at its port in AWS's console; "
            "a firewall that rejects looks the same"
        )
    if one.outcome == "timeout":
        return f"{place}: {one.detail}", GENERIC_TIMEOUT
    return f"{place} cannot be reached: {one.detail or os.strerror(errno.EHOSTUNREACH)}", (
        "look at this host's routes (ip route get ADDRESS) and at the subnet's route table: is this host in the "
        "cache's VPC, or peered with it?"
    )
