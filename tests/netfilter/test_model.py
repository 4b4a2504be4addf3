from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Address
from natproxy.netfilter.model import DnatRule, Match, Rules, Span, Unread, all_but, spans

PORTS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))), max_size=6)


def ports_of(found: tuple[Span, ...]) -> set[int]:
    return {port for span in found for port in range(span.first, span.last + 1)}


def rule(**facts: object) -> DnatRule:
    given_facts: dict[str, object] = {
        "line": "-A PREROUTING ...",
        "number": 3,
        "chain": "PREROUTING",
        "match": Match("tcp", spans([(6379, 6381)])),
        "action": "DNAT",
        "addresses": ("10.0.1.230", "10.0.1.230"),
        "to_ports": None,
    }
    return DnatRule(**{**given_facts, **facts})  # type: ignore[arg-type]


@given(PORTS)
def test_spans_hold_the_same_ports_apart_from_each_other_and_all_but_them_the_rest(
    written: list[tuple[int, int]],
) -> None:
    found = spans(written)
    wanted = {port for first, last in written for port in range(first, last + 1)}
    assert ports_of(found) == wanted
    assert all(one.last + 1 < other.first for one, other in itertools.pairwise(found))
    assert ports_of(all_but(written)) == set(range(1, 65536)) - wanted


@given(PORTS, PORTS)
def test_what_both_match_are_the_common_ports(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    both = Match(ports=spans(one)).within(Match(ports=spans(other)))
    wanted = ports_of(spans(one)) & ports_of(spans(other))
    assert (set() if both is None else ports_of(both.ports or ())) == wanted
    assert (both is None) == (not wanted)


def test_of_two_networks_the_smaller_one_is_what_both_match() -> None:
    wide, narrow = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.1.0.0/16")
    other = ipaddress.ip_network("192.0.2.0/24")
    six = ipaddress.ip_network("2001:db8::/32")
    both = Match(sources=(wide, other)).within(Match(sources=(narrow,)))
    assert both is not None
    assert both.sources == (narrow,)
    assert Match(sources=(other,)).within(Match(sources=(wide,))) is None
    assert Match(destinations=(six,)).within(Match(destinations=(wide,))) is None


def test_two_protocols_have_nothing_in_common_and_two_interfaces_become_a_condition() -> None:
    assert Match("tcp").within(Match("udp")) is None
    assert Match("tcp").within(Match()) == Match("tcp")
    both = Match(interface="eth0").within(Match(interface="eth+", conditions=("--x",)))
    assert both == Match(interface="eth0", conditions=("--x", "-i eth+"))


@pytest.mark.parametrize(
    ("to_ports", "shifted_from", "dialled", "wanted"),
    [
        (None, None, 6380, 6380),
        (Span(7000, 7000), None, 6380, 7000),
        (Span(6379, 6381), None, 6380, 6380),
        (Span(7000, 7002), None, 6380, None),
        (Span(7000, 7002), 6379, 6380, 7001),
        (Span(7000, 7002), 6379, 6390, None),
    ],
)
def test_a_rule_tells_where_it_leads_a_port(
    to_ports: Span | None, shifted_from: int | None, dialled: int, wanted: int | None
) -> None:
    target = rule(to_ports=to_ports, shifted_from=shifted_from).target(dialled)
    assert target == (None if wanted is None else Address("10.0.1.230", wanted))


def test_a_rule_with_several_addresses_or_none_leads_to_no_certain_place() -> None:
    assert rule(addresses=("10.0.1.1", "10.0.1.2")).target(6379) is None
    assert rule(addresses=None, action="REDIRECT").target(6379) is None


def test_a_rule_takes_the_ports_that_it_matches() -> None:
    assert rule().takes(6380)
    assert not rule().takes(6382)
    assert not rule(match=Match("udp")).takes(6380)
    assert rule(match=Match("udp")).takes(6380, "udp")
    assert not rule(match=Match("udp")).takes_tcp
    assert rule(match=Match()).takes(1)
    assert rule(match=Match()).takes_tcp


def test_rules_are_joined_part_by_part() -> None:
    one = Rules((rule(),), (), ("a",), (Unread(1, "x", "why"),))
    other = Rules((rule(number=4),), (rule(number=5),), ("b",))
    joined = one.joined(other)
    assert [found.number for found in joined.dnat] == [3, 4]
    assert joined.outgoing == ("a", "b")
    assert len(joined.unreached) == len(joined.unread) == 1
