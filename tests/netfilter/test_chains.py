from __future__ import annotations

from collections.abc import Mapping

from natproxy.netfilter.chains import MOST_RULES, Step, Way, in_order, owner_of
from natproxy.netfilter.model import DnatRule, Match, Rules, spans


def leads(chain: str, line: str, match: Match | None = None) -> Step:
    own = match or Match("tcp", spans([(6379, 6379)]))
    rule = DnatRule(line, None, chain, own, "DNAT", ("10.0.1.1", "10.0.1.1"), None)
    return Step(own, Way.TRANSLATED, line, rule=rule)


def to(chain: str, way: Way = Way.JUMP, **match: object) -> Step:
    return Step(Match(**match), way, f"to {chain}", chain)  # type: ignore[arg-type]


def ends(way: Way, **match: object) -> Step:
    return Step(Match(**match), way, way.name.lower())  # type: ignore[arg-type]


def walk(**chains: list[Step]) -> Rules:
    return in_order(chains, ("PRE",))


def lines(rules: Rules) -> list[str]:
    return [rule.line for rule in rules.dnat]


def conditions(rules: Rules) -> Mapping[str, tuple[str, ...]]:
    return {rule.line: rule.match.conditions for rule in rules.dnat}


def test_rules_come_in_the_order_in_which_packets_meet_them() -> None:
    found = walk(PRE=[leads("PRE", "a"), to("OWN"), leads("PRE", "d")], OWN=[leads("OWN", "b"), leads("OWN", "c")])
    assert lines(found) == ["a", "b", "c", "d"]


def test_what_the_jump_asks_for_is_asked_of_the_rules_behind_it() -> None:
    found = walk(PRE=[to("OWN", interface="eth0", conditions=("--x",))], OWN=[leads("OWN", "a")])
    assert found.dnat[0].match == Match("tcp", spans([(6379, 6379)]), "eth0", conditions=("--x",))


def test_a_rule_that_the_jump_cannot_lead_to_is_not_met() -> None:
    found = walk(PRE=[to("OWN", protocol="udp")], OWN=[leads("OWN", "a")])
    assert lines(found) == []
    assert found.unreached == ()  # its chain is entered


def test_a_chain_that_nothing_leads_to_is_unreached() -> None:
    found = walk(PRE=[leads("PRE", "a")], OUTPUT=[leads("OUTPUT", "b")])
    assert lines(found) == ["a"]
    assert [rule.line for rule in found.unreached] == ["b"]


def test_a_rule_on_two_ways_is_met_twice() -> None:
    found = walk(PRE=[to("OWN", interface="eth0"), to("OWN", interface="eth1")], OWN=[leads("OWN", "a")])
    assert [rule.match.interface for rule in found.dnat] == ["eth0", "eth1"]


def test_chains_that_jump_in_a_circle_end() -> None:
    found = walk(PRE=[to("OWN")], OWN=[to("PRE"), to("OWN"), leads("OWN", "a")])
    assert lines(found) == ["a"]


def test_chains_that_fan_out_without_bound_end() -> None:
    chains = {f"C{number}": [to(f"C{number + 1}") for _ in range(10)] for number in range(12)}
    assert in_order(chains, ("C0",)).dnat == ()


def test_what_is_accepted_or_returned_before_is_a_condition_of_what_comes_after() -> None:
    found = walk(
        PRE=[to("OWN"), leads("PRE", "after")],
        OWN=[ends(Way.RETURN, protocol="tcp"), leads("OWN", "own"), ends(Way.ACCEPT, interface="eth1")],
    )
    assert conditions(found) == {"own": ("not (return)",), "after": ("not (accept)",)}


def test_what_is_accepted_on_other_ports_changes_nothing() -> None:
    found = walk(PRE=[ends(Way.ACCEPT, ports=spans([(22, 22)])), leads("PRE", "a")])
    assert conditions(found) == {"a": ()}


def test_after_a_goto_the_rest_of_the_chain_is_left_out() -> None:
    found = walk(PRE=[to("OWN", Way.GOTO, protocol="tcp"), leads("PRE", "b")], OWN=[leads("OWN", "a")])
    assert conditions(found) == {"a": (), "b": ("not (to OWN)",)}


def test_programs_are_known_by_the_names_of_their_chains_also_behind_a_jump() -> None:
    assert owner_of("DOCKER") == "Docker"
    assert owner_of("KUBE-SERVICES") == "Kubernetes"
    assert owner_of("PREROUTING") == ""
    assert owner_of("CACHES") == ""
    found = in_order(
        {"PRE": [to("DOCKER"), leads("PRE", "own")], "DOCKER": [to("deeper")], "deeper": [leads("deeper", "a")]},
        ("PRE",),
    )
    assert {rule.line: rule.owner for rule in found.dnat} == {"a": "Docker", "own": ""}


def test_rules_beyond_the_number_that_is_walked_are_said_to_be_there() -> None:
    found = walk(PRE=[leads("PRE", "a")] * (MOST_RULES + 1))
    assert len(found.dnat) == MOST_RULES
    assert [str(MOST_RULES) in one.reason for one in found.unread] == [True]
    assert walk(PRE=[leads("PRE", "a")] * MOST_RULES).unread == ()
