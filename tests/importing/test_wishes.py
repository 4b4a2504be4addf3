from __future__ import annotations

import ipaddress

import pytest

from natproxy.importing.places import Place
from natproxy.importing.wishes import MOST_PORTS, Wishes, wishes_of
from natproxy.model import Address
from natproxy.netfilter import parse_iptables_save
from tests.importing.samples import NOWHERE, account, address, rule
from tests.importing.samples import wishes as wishes_in

ONE, TWO = (str(address(f"redis-00{number}/0001", account())) for number in (1, 2))
A, B = (ipaddress.ip_network(text) for text in ("198.51.100.27/32", "192.0.2.0/24"))


def wishes(*lines: str) -> Wishes:
    return wishes_in(lines, account())


def left(found: Wishes) -> dict[int | None, str]:
    return {one.rule.number: one.why for one in found.left}


def ports(found: Wishes) -> dict[int, str]:
    return {wish.port: str(wish.place.key or wish.place.address) for wish in found.wishes}


def test_a_rule_is_a_wish_for_each_of_its_ports() -> None:
    found = wishes(rule(6379, ONE), rule("7000:7001,7010", TWO))
    names = dict.fromkeys((7000, 7001, 7010), "redis-002/0001")
    assert ports(found) == {6379: "redis-001/0001", **names}
    assert found.left == ()
    assert [one.number for one in found.needless] == [2, 3]
    assert found.taken == frozenset()


def test_a_wish_knows_who_may_connect() -> None:
    open_, one, joined = wishes(
        rule(1, ONE), rule(2, ONE, more=f"-s {A}"), rule(3, ONE, more=f"-s {A}"), rule(3, ONE, more=f"-s {B}")
    ).wishes
    assert (open_.sources, one.sources, joined.sources) == (None, (A,), (A, B))
    assert [found.number for found in joined.rules] == [4, 5]


def test_a_rule_for_everybody_opens_a_port_that_another_one_opened_for_somebody() -> None:
    (wish,) = wishes(rule(1, ONE, more=f"-s {A}"), rule(1, ONE)).wishes
    assert wish.sources is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (rule(53, ONE, more="-p udp"), "it is for UDP: natproxy passes on TCP only"),
        (rule(1, ONE, more="! -s 10.0.0.0/8"), "it asks for more than natproxy can: ! -s 10.0.0.0/8"),
        (rule(1, "10.0.1.1-10.0.1.3:6379"), "it leads to several addresses, 10.0.1.1 to 10.0.1.3"),
        (rule(1, "10.0.1.1:6379-6381"), "where it leads port 1 is not certain"),
        (rule(f"1:{MOST_PORTS + 1}", ONE), f"it takes {MOST_PORTS + 1} ports, too many to list"),
        (f"-A PREROUTING -p tcp -j DNAT --to-destination {ONE}", "it takes every port"),
        ("-A PREROUTING -p tcp --dport 1 -j REDIRECT --to-ports 2", "it leads to this host itself"),
    ],
)
def test_what_natproxy_cannot_do_is_left_as_it_is_and_told(line: str, why: str) -> None:
    found = wishes(line)
    assert left(found) == {2: why}
    assert not found.wishes
    assert not found.needless


def test_a_rule_for_as_many_ports_as_are_allowed_is_taken_over() -> None:
    assert len(wishes(rule(f"1:{MOST_PORTS}", ONE)).wishes) == MOST_PORTS


def test_what_a_program_writes_by_itself_is_left_to_it() -> None:
    jump = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"
    found = wishes(jump, rule(8080, "172.17.0.2:80", more="! -i docker0", chain="DOCKER"), rule(6379, ONE))
    assert left(found) == {3: "Docker writes it by itself"}
    assert list(ports(found)) == [6379]
    assert found.taken == {8080}


def test_a_rule_that_can_never_match_is_needless_too() -> None:
    found = wishes(rule(1, ONE), rule(1, TWO, more=f"-s {A}"))
    assert ports(found) == {1: "redis-001/0001"}
    assert [one.number for one in found.needless] == [2, 3]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"-s {A}", ""),
        (f"-s {A}", f"-s {B}"),
        ("-i eth0", "-i eth1"),
        ("-i eth0", ""),
        ("-d 10.0.0.55", "-d 10.0.0.56"),
    ],
)
def test_two_rules_that_lead_a_port_to_two_places_both_stay(one: str, other: str) -> None:
    found = wishes(rule(1, ONE, more=one), rule(1, TWO, more=other), rule(2, TWO))
    assert left(found) == {
        2: "line 3 leads port 1 to another place for other packets",
        3: "line 2 leads port 1 to another place for other packets",
    }
    assert list(ports(found)) == [2]
    assert found.taken == {1}


def test_a_rule_that_disagrees_on_one_port_stays_with_all_its_ports() -> None:
    found = wishes(rule("1,2", ONE, more=f"-s {A}"), rule(2, TWO), rule(1, ONE))
    assert set(left(found)) == {2, 3, 4}
    assert left(found)[4] == "line 2, which stays, takes port 1 as well"


def test_a_rule_of_whose_port_a_staying_one_takes_some_packets_stays_as_well() -> None:
    spread = rule(1, TWO, more="-m statistic --mode random")
    found = wishes(spread, rule(1, ONE))
    assert left(found)[3] == "line 2, which stays, takes port 1 as well"
    assert found.wishes == ()


def test_a_rule_for_other_addresses_or_interfaces_takes_nothing_away() -> None:
    other = rule(1, TWO, more="-d 10.0.0.99 -m mark --mark 1")
    apart = rule(1, TWO, more="-i eth1 -m mark --mark 1")
    found = wishes(other, apart, rule(1, ONE, more="-i eth0 -d 10.0.0.55"))
    assert ports(found) == {1: "redis-001/0001"}
    assert set(left(found)) == {2, 3}


def test_a_rule_on_two_ways_is_one_rule() -> None:
    found = wishes(
        "-A PREROUTING -i eth0 -j OWN",
        "-A PREROUTING -i eth1 -j OWN",
        rule(1, ONE, chain="OWN"),
        rule(2, TWO, chain="OWN"),
    )
    assert ports(found) == {1: "redis-001/0001", 2: "redis-002/0001"}
    assert [one.number for one in found.needless] == [4, 5]


def test_the_same_rule_written_twice_has_to_be_removed_twice() -> None:
    found = wishes(rule(1, ONE), rule(1, ONE))
    assert [one.number for one in found.needless] == [2, 3]


def test_an_address_that_is_no_node_s_is_a_wish_all_the_same() -> None:
    (wish,) = wishes(rule(1, NOWHERE)).wishes
    assert wish.place.key is None
    assert str(wish.place.address) == NOWHERE


def test_everywhere_as_a_source_lets_everybody_in() -> None:
    assert [wish.sources for wish in wishes(rule(1, ONE, more="-s 0.0.0.0/0")).wishes] == [None]


def test_thousands_of_rules_for_one_port_are_not_compared_with_each_other() -> None:
    looked_up = 0

    def find(where: Address) -> Place:
        nonlocal looked_up
        looked_up += 1
        return Place(where)

    rules = parse_iptables_save("*nat\n" + "\n".join([rule(1, NOWHERE, more=f"-s {A}")] * 300) + "\n")
    assert len(wishes_of(rules, find).wishes) == 1
    assert looked_up < 10 * 300
