"""Whether this instance's own security groups let clients in on natproxy's ports, and nobody else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

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
_Askers = Mapping["Network | None", Sequence[int]]
"""Who may connect (None = whoever has a certificate), and on which ports."""


def entrance_findings(
    config: Config, routes: Sequence[Route], groups: Sequence[SecurityGroup], region: str
) -> list[Finding]:
    """Judge the inbound rules of this instance's groups against ``clients.allow`` of every route."""
    if config.is_loopback_only:
        evidence = "natproxy listens on loopback only: no rule lets anyone in, and none needs to"
        return [Finding(Check.SECURITY_GROUPS, "", Verdict.GOOD, evidence)]
    if not routes or not groups:
        return []
    askers = _askers([*((route.port, route.allow) for route in routes), *_sides(config)])
    asked = {who: ports for who, ports in askers.items() if who is None or _is_listened_to(config, who)}
    return [*_missing(asked, groups, region), *_too_wide(routes, groups, region)]


def _askers(listened_on: Iterable[tuple[int, Sequence[Network] | None]]) -> _Askers:
    found: dict[Network | None, list[int]] = {}
    for port, allow in listened_on:
        for network in (None,) if allow is None else allow:
            if network is None or not network.is_loopback:
                found.setdefault(network, []).append(port)
    return found


def _sides(config: Config) -> Iterator[tuple[int, Sequence[Network] | None]]:
    """Yield the ports of natproxy's own that others are to reach, each with who may."""
    if config.portal is not None and config.portal.port is not None:
        yield config.portal.port, config.portal.allow
    if not is_loopback(config.admin.address):
        yield config.admin.port, config.admin.allow


def _is_listened_to(config: Config, network: Network) -> bool:
    """Tell whether natproxy has an address of the network's family at all; ``::`` is of both."""
    addresses = config.listen.address
    return (
        any(":" in one for one in addresses)
        if network.version == 6
        else any("." in one or one == "::" for one in addresses)
    )


def _missing(asked: _Askers, groups: Sequence[SecurityGroup], region: str) -> Iterator[Finding]:
    """Look for those who may connect and are kept away."""
    rules = [rule for group in groups for rule in group.inbound]
    named = " and ".join(map(str, groups))
    for network, ports in asked.items():
        by_passage: dict[Passage, list[int]] = {}
        for port in ports:
            by_passage.setdefault(_passage(rules, port, network), []).append(port)
        subject = "anyone with a certificate" if network is None else str(network)
        if shut := by_passage.get(Passage.CLOSED):
            evidence = f"{named} has no inbound rule that lets {subject} in on TCP {written(shut)}"
            yield Finding(
                Check.SECURITY_GROUPS, subject, Verdict.BAD, evidence, _opening(groups[0], shut, network, region)
            )
        if some := by_passage.get(Passage.PARTLY):
            let = ", ".join(dict.fromkeys(peer for port in some for peer in peers_of(rules, port)))
            evidence = f"{named} lets in on TCP {written(some)}: {let}"
            yield _partly(network, evidence, _opening(groups[0], some, network, region))
        if unsure := by_passage.get(Passage.UNSURE):
            lists = sorted({name for port in unsure for name in prefix_lists(rules, port)})
            evidence = f"{named} lets {', '.join(lists)} in on TCP {written(unsure)}: whether {subject} is in there "
            mend = show_prefix_lists(lists, region)
            yield Finding(Check.SECURITY_GROUPS, subject, Verdict.UNKNOWN, f"{evidence}is not known", mend)
        if free := by_passage.get(Passage.OPEN):
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


def _partly(network: Network | None, evidence: str, opening: str) -> Finding:
    """Judge groups that let in a part of those who may connect, which may be meant."""
    if network in EVERYWHERE:
        told = f"{evidence}; clients.allow leaves it to the security groups who that is"
        return Finding(Check.SECURITY_GROUPS, str(network), Verdict.GOOD, told)
    told = f"{evidence}; that is not all of {network}, which clients.allow names"
    mend = f"name in clients.allow just who is let in; or, where all of it is meant, let it in: {opening}"
    return Finding(Check.SECURITY_GROUPS, str(network), Verdict.WARNING, told, mend)


def _opening(group: SecurityGroup, ports: Sequence[int], network: Network | None, region: str) -> str:
    if network is not None:
        return let_in(group.id, ports, network, region)
    return f"let them in from where they are; for everywhere: {let_in(group.id, ports, EVERYWHERE[0], region)}"


def _too_wide(routes: Sequence[Route], groups: Sequence[SecurityGroup], region: str) -> Iterator[Finding]:
    """Look for ports that are open to the world while ``clients.allow`` is narrower."""
    for group in groups:
        for rule in group.inbound:
            for world in (network for network in EVERYWHERE if network in rule.networks):
                narrow = [route for route in routes if rule.holds(route.port) and _is_narrower(route, world)]
                if narrow:
                    yield _wide(group=group, rule=rule, world=world, narrow=narrow, groups=groups, region=region)


def _is_narrower(route: Route, world: Network) -> bool:
    return route.allow is not None and not is_covered(world, route.allow)


def _wide(
    *,
    group: SecurityGroup,
    rule: Rule,
    world: Network,
    narrow: Sequence[Route],
    groups: Sequence[SecurityGroup],
    region: str,
) -> Finding:
    ports = written(route.port for route in narrow)
    evidence = (
        f"{group} lets the whole world ({world}) in on TCP {ports}, and clients.allow only some: natproxy turns the "
        "others away, one by one"
    )
    rest = [other for each in groups for other in each.inbound if other is not rule]
    lines = [
        let_in(group.id, shut, network, region)
        for network, asked in _askers((route.port, route.allow) for route in narrow).items()
        if network is not None
        and (shut := [port for port in asked if passage(rest, port, Peer(network)) is Passage.CLOSED])
    ]
    mend = " && ".join((*lines, shut_out(group.id, rule, world, region)))
    if rule.has_all_protocols or rule.holds(_SSH):
        mend = f"the same rule lets SSH in: open that for yourself first, and what else you need of it; then {mend}"
    return Finding(Check.SECURITY_GROUPS, f"{group.id} {world}", Verdict.WARNING, evidence, mend)
