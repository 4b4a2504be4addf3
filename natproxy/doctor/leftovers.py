"""Rules of the firewall that take connections away from natproxy's sockets. I/O: iptables-save, nft, /sys."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.errors import NetfilterError
from natproxy.model import Route
from natproxy.netfilter import DnatRule, Rules, read_rules

AS_ROOT = "run the doctor with sudo: it only reads the rules"


MODULES = Path("/sys/module")


def leftover_findings(routes: Sequence[Route], ports: Sequence[int], modules: Path = MODULES) -> list[Finding]:
    """Read this host's rules, and judge those that concern natproxy's ports.

    ``ports``: of the routes, and all that the config may use.
    """
    try:
        rules = read_rules()
    except NetfilterError as error:
        if _tracks_nothing(modules):
            evidence = "the kernel tracks no connections, so that no rule can lead them elsewhere"
            return [Finding(Check.LEFTOVER_RULES, "", Verdict.GOOD, evidence)]
        mend = AS_ROOT if os.geteuid() else ""
        return [Finding(Check.LEFTOVER_RULES, "", Verdict.UNKNOWN, str(error), mend)]
    return judge_rules(rules, {route.port: str(route.key) for route in routes}, ports)


def judge_rules(rules: Rules, names: dict[int, str], ports: Sequence[int]) -> list[Finding]:
    """Return a finding for each rule that takes one of ``ports``; ``names`` says whose they are. Pure."""
    found = [finding for rule in rules.dnat if (finding := _judge(rule, names, ports)) is not None]
    found.extend(_unread(rules))
    if found:
        return found
    evidence = "no rule of iptables or nft leads natproxy's ports elsewhere"
    return [Finding(Check.LEFTOVER_RULES, "", Verdict.GOOD, evidence)]


def _tracks_nothing(modules: Path) -> bool:
    """Tell whether connection tracking, without which nothing is translated, is neither loaded nor built in.

    It has parameters, so that it is listed here in either case, for every user and in every container.
    """
    return (modules / "kernel").is_dir() and not (modules / "nf_conntrack").exists()


def _judge(rule: DnatRule, names: dict[int, str], ports: Sequence[int]) -> Finding | None:
    taken = sorted(port for port in {*ports, *names} if rule.takes(port) and not _stays(rule, port))
    if not taken:
        return None
    first = next((port for port in taken if port in names), taken[0])
    more = f" and {len(taken) - 1} more of natproxy's ports" if len(taken) > 1 else ""
    where = rule.target(first)
    leads = f"to {where}" if where is not None else "to this host" if rule.addresses is None else "elsewhere"
    whose = f" ({names[first]})" if first in names else ""
    evidence = f"connections to port {first}{whose}{more} are led {leads} before natproxy sees them: {rule.line}"
    if rule.owner:
        mend = f"{rule.owner} wrote it: publish that container on another port, or choose other ports for natproxy"
    elif rule.delete:
        mend = f"sudo {rule.delete}; and remove it from what the rules are restored from at boot"
    else:
        mend = f"remove this rule from the chain {rule.chain} (nft -a list ruleset shows its handle)"
    is_certain = first in names and not rule.match.conditions and rule.match.destinations is None
    if not is_certain:
        evidence = f"{evidence} (only some, or none yet: it depends on more than the port)"
    return Finding(
        Check.LEFTOVER_RULES, f"port {first}", Verdict.BAD if is_certain else Verdict.WARNING, evidence, mend
    )


def _stays(rule: DnatRule, port: int) -> bool:
    """Tell whether the rule leads back to the same port of this host."""
    return rule.addresses is None and (rule.to_ports is None or tuple(rule.to_ports) == (port, port))


def _unread(rules: Rules) -> Iterator[Finding]:
    for one in rules.unread:
        evidence = f"a rule is not understood ({one.reason}): {one.line}"
        yield Finding(Check.LEFTOVER_RULES, "", Verdict.UNKNOWN, evidence, "see for yourself whether it takes a port")
