"""Whose fault it is that no connection comes about: the client's side, the network between, or natproxy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.outcomes import Outcome
from natproxy.doctor.spans import written
from natproxy.doctor.trying import Tried, Way


class Side(StrEnum):
    """Who is at fault."""

    CLIENT = "the client side"
    NETWORK = "the network between"
    NATPROXY = "natproxy"
    CACHE = "the cache behind natproxy"
    EITHER = "natproxy or the cache behind it"
    """From one port the two cannot be told apart."""


def blame(
    check: Check, subject: str, evidence: str, side: Side, mend: str, *, verdict: Verdict = Verdict.BAD
) -> Finding:
    """Return a finding that says who is at fault."""
    return Finding(check, subject, verdict, f"{evidence}; at fault: {side}", mend)


def way_findings(host: str, way: Way) -> list[Finding]:
    """Judge how the host's name resolves, and whether there is a way to it."""
    if not way.addresses:
        evidence = f"{host} does not resolve here: {way.reason}"
        mend = (
            "look for a typing mistake, and try another network: VPNs and private zones show names to some only; the "
            "operator's DNS record for it is to hold the Elastic IP of natproxy's host"
        )
        return [blame(Check.NAMES, host, evidence, Side.CLIENT, mend)]
    found = [Finding(Check.NAMES, host, Verdict.GOOD, f"{host}: {', '.join(way.addresses)}")]
    sources = dict(way.sources)
    for address in way.addresses:
        if address in sources:
            evidence = f"packets to {address} leave from {sources[address]}"
            found.append(Finding(Check.ROUTE, host, Verdict.GOOD, evidence))
        else:
            # Of a host with IPv4 and IPv6 addresses many networks know one way only, and clients take that.
            verdict = Verdict.WARNING if sources else Verdict.BAD
            evidence = f"this computer has no route to {address}"
            mend = "connect to a network (or the VPN) that leads there"
            found.append(blame(Check.ROUTE, host, evidence, Side.CLIENT, mend, verdict=verdict))
    return found


def reach_findings(host: str, tried: Sequence[Tried], usual: str = "") -> list[Finding]:
    """Judge which ports take connections. Those that fare alike are one finding.

    ``usual``: the ports that were tried, where nobody has named any; which of them natproxy serves is not known then.
    """
    found = [_reached(host, one, tried, usual) for one in tried]
    return merged((one.port.number, finding) for one, finding in zip(tried, found, strict=True) if finding is not None)


def merged(findings: Iterable[tuple[int, Finding]]) -> list[Finding]:
    """Make one of those that say the same of several ports, each given with its port. Order: as the first of each."""
    ports: dict[Finding, list[int]] = {}
    for port, finding in findings:
        ports.setdefault(finding, []).append(port)
    return [replace(finding, subject=named(numbers)) for finding, numbers in ports.items()]


def named(ports: Iterable[int]) -> str:
    """Write ``ports 6379-6381, 11211``."""
    numbers = set(ports)
    return f"{'port' if len(numbers) == 1 else 'ports'} {written(numbers)}"


def _reached(host: str, one: Tried, tried: Sequence[Tried], usual: str) -> Finding | None:
    same_address = [other for other in tried if other.address.ip == one.address.ip]
    outcomes = {other.outcome for other in same_address}
    if one.outcome == "open":
        told = f"; tried were the usual ports, {usual} (--ports names others)" if usual else ""
        return Finding(Check.REACH, "", Verdict.GOOD, f"{one.address.ip} takes connections{told}")
    if one.outcome == "refused":
        if usual and "open" in outcomes:
            return None  # that the others were tried is said
        return _refused(host, one, outcomes)
    if one.outcome == "timeout":
        return _silent(host, one, outcomes)
    evidence = f"{one.address.ip} cannot be reached: {one.detail}"
    mend = "look at this computer's network, VPN and firewall; something on the way says that it lets nothing through"
    return blame(Check.REACH, "", evidence, Side.NETWORK, mend)


def _refused(host: str, one: Tried, outcomes: set[Outcome]) -> Finding:
    if "open" not in outcomes:
        evidence = f"{one.address.ip} is there and refuses: natproxy does not run on it, or serves none of these ports"
        mend = f"on natproxy's host: systemctl status natproxy, and natproxy routes; is {host} really that host?"
        return blame(Check.REACH, "", evidence, Side.NATPROXY, mend)
    if not one.port.is_certain:
        evidence = f"nothing listens there on {one.address.ip}: no node has these ports, which is as it may be"
        return Finding(Check.REACH, "", Verdict.GOOD, evidence)
    evidence = f"{one.address.ip} refuses, while other ports of it are open: natproxy does not serve this one"
    mend = "ask the operator which port it is now (natproxy routes), and why it is not open (natproxy doctor)"
    return blame(Check.REACH, "", evidence, Side.NATPROXY, mend)


def _silent(host: str, one: Tried, outcomes: set[Outcome]) -> Finding:
    if outcomes <= {"timeout"}:
        evidence = f"{one.address.ip}: {one.detail}; nor does any other of its ports that were tried"
        mend = (
            "let the security group of natproxy's host take these ports from your public address, and look at the "
            f"subnet's network ACL; is {host} the right host, and does it run? Company networks and VPNs often block "
            "such ports on the way out: try another network"
        )
        return blame(Check.REACH, "", evidence, Side.NETWORK, mend)
    evidence = f"{one.address.ip}: {one.detail}, while other ports of it answer: packets to this one are dropped"
    mend = (
        "let the security group of natproxy's host take this port from your public address; else look at the subnet's "
        "network ACL and at your own network's firewall"
    )
    verdict = Verdict.BAD if one.port.is_certain or "open" not in outcomes else Verdict.WARNING
    return blame(Check.REACH, "", evidence, Side.NETWORK, mend, verdict=verdict)
