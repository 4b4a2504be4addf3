"""Whether this instance's own security groups let clients in on natproxy's ports, and nobody else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from natproxy.config import Config
from natproxy.config.addresses import is_loopback
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.groups import (
    EVERYWHERE,
    Passage,
    Peer,
    Rule,
    SecurityGroup,
    is_covered,
    let_in,
    passage,
    peers_of,
    prefix_lists,
    show_prefix_lists,
    shut_out,
)
from natproxy.doctor.spans import written
from natproxy.model import Network, Route

_SSH = 22


@dataclass(frozen=True, slots=True)
class _Port:
    """A port that natproxy listens on, and who may connect."""

    number: int
    allow: Sequence[Network] | None
    """None = whoever has a certificate."""
    key: str
    """Where the config says so."""
    addresses: Sequence[str]
    """Those it listens on."""


_Askers = Mapping["Network | None", Sequence[_Port]]
"""Who may connect (None = whoever has a certificate), and where."""


def entrance_findings(
    config: Config, routes: Sequence[Route], groups: Sequence[SecurityGroup], region: str
) -> list[Finding]:
    """Judge the inbound rules of this instance's groups against ``clients.allow`` of every route.

    Those of the portal and of an admin side beyond loopback are judged too.
    """
    ports = [*_ports(config, routes)]
    if config.is_loopback_only and not ports:
        evidence = "natproxy listens on loopback only: no rule lets anyone in, and none needs to"
        return [Finding(Check.SECURITY_GROUPS, "", Verdict.GOOD, evidence)]
    if not groups:
        return []
    asked = {
        who: listening
        for who, asked in _askers(ports).items()
        if (listening := [port for port in asked if who is None or _is_listened_to(port.addresses, who)])
    }
    return [*_missing(asked, groups, region), *_too_wide(ports, groups, region)]


def _ports(config: Config, routes: Sequence[Route]) -> Iterator[_Port]:
    """Yield the ports that others are to reach."""
    addresses, portal, admin = config.listen.address, config.portal, config.admin
    if not config.is_loopback_only:
        for route in routes:
            yield _Port(route.port, route.allow, "clients.allow", addresses)
        if portal is not None and portal.port is not None:
            yield _Port(portal.port, portal.allow, "portal.allow", addresses)
    if not is_loopback(admin.address):
        yield _Port(admin.port, admin.allow, "admin.allow", [admin.address])


def _askers(ports: Iterable[_Port]) -> _Askers:
    found: dict[Network | None, list[_Port]] = {}
    for port in ports:
        for network in (None,) if port.allow is None else port.allow:
            if network is None or not network.is_loopback:
                found.setdefault(network, []).append(port)
    return found


def _is_listened_to(addresses: Sequence[str], network: Network) -> bool:
    """Tell whether one of the addresses is of the network's family at all; ``::`` is of both."""
    return (
        any(":" in one for one in addresses)
        if network.version == 6
        else any("." in one or one == "::" for one in addresses)
    )


def _numbers(ports: Iterable[_Port]) -> list[int]:
    return [port.number for port in ports]


def _keys(ports: Iterable[_Port]) -> str:
    return " and ".join(dict.fromkeys(port.key for port in ports))


def _missing(asked: _Askers, groups: Sequence[SecurityGroup], region: str) -> Iterator[Finding]:
    """Look for those who may connect and are kept away."""
    rules = [rule for group in groups for rule in group.inbound]
    named = " and ".join(map(str, groups))
    for network, ports in asked.items():
        by_passage: dict[Passage, list[_Port]] = {}
        for port in ports:
            by_passage.setdefault(_passage(rules, port.number, network), []).append(port)
        subject = "anyone with a certificate" if network is None else str(network)
        if shut := _numbers(by_passage.get(Passage.CLOSED, ())):
            evidence = f"{named} has no inbound rule that lets {subject} in on TCP {written(shut)}"
            yield Finding(
                Check.SECURITY_GROUPS, subject, Verdict.BAD, evidence, _opening(groups[0], shut, network, region)
            )
        if some := by_passage.get(Passage.PARTLY):
            numbers = _numbers(some)
            let = ", ".join(dict.fromkeys(peer for port in numbers for peer in peers_of(rules, port)))
            evidence = f"{named} lets in on TCP {written(numbers)}: {let}"
            yield _partly(network, evidence, _keys(some), _opening(groups[0], numbers, network, region))
        if unsure := _numbers(by_passage.get(Passage.UNSURE, ())):
            lists = sorted({name for port in unsure for name in prefix_lists(rules, port)})
            evidence = f"{named} lets {', '.join(lists)} in on TCP {written(unsure)}: whether {subject} is in there "
            mend = show_prefix_lists(lists, region)
            yield Finding(Check.SECURITY_GROUPS, subject, Verdict.UNKNOWN, f"{evidence}is not known", mend)
        if free := _numbers(by_passage.get(Passage.OPEN, ())):
            evidence = f"{named} lets {subject} in on TCP {written(free)}"
            yield Finding(Check.SECURITY_GROUPS, subject, Verdict.GOOD, evidence)


def _passage(rules: Sequence[Rule], port: int, network: Network | None) -> Passage:
    if network is not None:
        found = passage(rules, port, Peer(network))
        is_some = any(rule.holds(port) and (rule.groups or _overlaps(network, rule.networks)) for rule in rules)
        return Passage.PARTLY if found is Passage.CLOSED and is_some else found
    return Passage.OPEN if any(rule.holds(port) for rule in rules) else Passage.CLOSED


def _overlaps(network: Network, others: Sequence[Network]) -> bool:
    return any(network.overlaps(other) for other in others)


def _partly(network: Network | None, evidence: str, keys: str, opening: str) -> Finding:
    """Judge groups that let in a part of those who may connect, which may be meant."""
    if network in EVERYWHERE:
        told = f"{evidence}; {keys} may let all of them try: the security groups say who that is"
        return Finding(Check.SECURITY_GROUPS, str(network), Verdict.GOOD, told)
    told = f"{evidence}; that is not all of {network}, as it stands in {keys}"
    mend = f"name in {keys} just who is let in; or, where all of it is meant, let it in: {opening}"
    return Finding(Check.SECURITY_GROUPS, str(network), Verdict.WARNING, told, mend)


def _opening(group: SecurityGroup, ports: Sequence[int], network: Network | None, region: str) -> str:
    if network is not None:
        return let_in(group.id, ports, network, region)
    return f"let them in from where they are; for everywhere: {let_in(group.id, ports, EVERYWHERE[0], region)}"


def _too_wide(ports: Sequence[_Port], groups: Sequence[SecurityGroup], region: str) -> Iterator[Finding]:
    """Look for ports that are open to the world while those who may connect are fewer."""
    for group in groups:
        for rule in group.inbound:
            for world in (network for network in EVERYWHERE if network in rule.networks):
                held = [port for port in ports if rule.holds(port.number)]
                if any(_is_narrower(port, world) for port in held):
                    yield _wide(group=group, rule=rule, world=world, held=held, groups=groups, region=region)


def _is_narrower(port: _Port, world: Network) -> bool:
    return port.allow is not None and not is_covered(world, port.allow)


def _wide(
    *,
    group: SecurityGroup,
    rule: Rule,
    world: Network,
    held: Sequence[_Port],
    groups: Sequence[SecurityGroup],
    region: str,
) -> Finding:
    narrow = [port for port in held if _is_narrower(port, world)]
    evidence = (
        f"{group} lets the whole world ({world}) in on TCP {written(_numbers(narrow))}, and {_keys(narrow)} only some: "
        "natproxy turns the others away, one by one"
    )
    rest = [other for each in groups for other in each.inbound if other is not rule]
    lines = [  # who is meant to get through, on whichever port of the rule, does so without it as well
        let_in(group.id, shut, network, region)
        for network, asked in ((who or world, asked) for who, asked in _askers(held).items())
        if (shut := [port for port in _numbers(asked) if passage(rest, port, Peer(network)) is Passage.CLOSED])
    ]
    mend = " && ".join((*lines, shut_out(group.id, rule, world, region)))
    if rule.has_all_protocols or rule.holds(_SSH):
        mend = f"the same rule lets SSH in: open that for yourself first, and what else you need of it; then {mend}"
    return Finding(Check.SECURITY_GROUPS, f"{group.id} {world}", Verdict.WARNING, evidence, mend)
