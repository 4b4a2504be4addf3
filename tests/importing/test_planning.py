from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from natproxy.importing.places import Places
from natproxy.importing.planning import ADMIN_PORT, Draft, draft_of
from natproxy.model import Snapshot
from tests.importing.samples import NOWHERE, account, draft, lead, rules

A, B = "198.51.100.27/32", "192.0.2.0/24"
GUIDE = {6379: "redis-001/0001", 6380: "redis-002/0001", 6381: "redis-003/0001"}
MEMO = {11211: "memo/0001", 11212: "memo/0002", 11213: "memo/0003"}


def drafted(routes: Mapping[int, str], *more: str) -> Draft:
    return draft([*lead(routes, account()), *more], account())


def entries(found: Draft) -> dict[str, str]:
    return {entry.fit.cache.id: str(entry.fit.ports) for entry in found.entries}


def statics(found: Draft) -> dict[int, str]:
    return {static.wish.port: str(static.target) for static in found.statics}


def why(found: Draft, port: int) -> str:
    return next(static.why for static in found.statics if static.wish.port == port)


def test_the_guide_s_rules_become_two_entries_and_nothing_else() -> None:
    found = drafted({**MEMO, **GUIDE})
    assert entries(found) == {"redis": "6379-6388", "memo": "11211-11219"}
    assert [entry.fit.cache.id for entry in found.entries] == ["redis", "memo"]  # by port
    assert not found.statics
    assert [(port, str(key)) for port, key in found.entries[0].new] == [(6382, "redis:primary"), (6383, "redis:reader")]


def test_ranges_of_two_caches_keep_clear_of_each_other() -> None:
    found = drafted({**GUIDE, 6382: "memo/0001", 6383: "memo/0002", 6384: "memo/0003"})
    assert entries(found) == {"redis": "6379-6381", "memo": "6382-6390"}
    assert found.entries[0].fit.kinds == frozenset(("nodes",))
    assert not found.statics


def test_what_the_range_cannot_give_is_a_static_route_to_the_node_s_name() -> None:
    found = drafted({**GUIDE, 7000: "redis-001/0001"})
    assert entries(found) == {"redis": "6379-6388"}
    assert statics(found)[7000].startswith("redis-001.")
    assert why(found, 7000) == "it leads to redis-001/0001, which has port 6379 in the range of redis"


def test_a_node_that_the_range_has_no_room_for_is_a_static_route_as_well() -> None:
    others = dict.fromkeys((6999, 7001), NOWHERE)
    found = drafted({7000: "redis-002/0001", **others})
    assert entries(found) == {}
    assert "no range of ports that is free has it there" in why(found, 7000)


def test_of_two_ports_for_one_node_one_is_in_the_range() -> None:
    found = drafted({7000: "redis:primary", 7001: "redis-001/0001"})  # the primary's address is the first node's
    assert entries(found) == {"redis": "7001-7010"}
    assert list(statics(found)) == [7000]


def test_what_is_no_node_is_a_static_route_to_the_address() -> None:
    found = drafted({6379: NOWHERE, 6380: "10.9.9.9:1"})
    assert statics(found) == {6379: NOWHERE, 6380: "10.9.9.9:1"}
    assert why(found, 6379) == "no node that AWS tells of has this address"
    assert not found.entries


def test_without_aws_everything_is_a_static_route() -> None:
    found = draft_of(rules(*lead(GUIDE, account())), Snapshot(), Places(Snapshot(), {}, nobody="nobody asked"))
    assert sorted(statics(found)) == [6379, 6380, 6381]
    assert why(found, 6379) == "nobody asked"


def test_an_entry_lets_in_whom_all_its_rules_let_in() -> None:
    found = draft(lead(GUIDE, account(), more=f"-s {A}"), account())
    assert found.entries[0].sources == (ipaddress.ip_network(A),)
    assert not found.needs_allow


def test_nobody_is_let_in_to_a_node_whom_its_rule_kept_out() -> None:
    one, two, three = lead(GUIDE, account())
    found = draft([one.replace("-p tcp", f"-s {A} -p tcp"), two.replace("-p tcp", f"-s {B} -p tcp"), three], account())
    assert not found.entries
    assert [static.wish.sources for static in found.statics] == [
        (ipaddress.ip_network(A),),
        (ipaddress.ip_network(B),),
        None,
    ]
    assert "let different clients in" in why(found, 6379)
    assert found.needs_allow


def test_the_same_clients_in_another_order_are_the_same_clients() -> None:
    lines = [line for more in (f"-s {A}", f"-s {B}") for line in lead({6379: "redis-001/0001"}, account(), more=more)]
    lines += [line for more in (f"-s {B}", f"-s {A}") for line in lead({6380: "redis-002/0001"}, account(), more=more)]
    (entry,) = draft(lines, account()).entries
    assert len(entry.wishes) == 2


def test_a_cache_that_speaks_tls_is_spoken_to_by_its_clients_as_before() -> None:
    found = drafted({7000: "enabled-0001-001/0001", 8000: "compatible-0001-001/0001", 6379: "redis-001/0001"})
    assert {entry.fit.cache.id: entry.is_passed_through for entry in found.entries} == {
        "redis": False,
        "enabled": True,
        "compatible": True,
    }


def test_ports_of_rules_that_stay_are_kept_clear_of() -> None:
    stays = "-A PREROUTING -p tcp --dport 6382 -m mark --mark 1 -j DNAT --to-destination 10.0.0.9"
    found = drafted(GUIDE, stays)
    assert entries(found) == {"redis": "6379-6381"}
    assert len(found.wishes.left) == 1


def test_the_admin_side_s_port_is_nobody_s_unless_a_rule_had_it() -> None:
    found = drafted({ADMIN_PORT - 1: "redis-001/0001"})
    assert entries(found) == {}
    assert found.admin_port == ADMIN_PORT
    found = drafted({ADMIN_PORT: NOWHERE})
    assert found.admin_port == ADMIN_PORT + 1


def test_rules_for_ipv6_need_a_listener_for_it() -> None:
    assert not drafted(GUIDE).needs_ipv6
    assert drafted({1: "[2001:db8::1]:6379"}).needs_ipv6


def test_the_instance_s_own_nat_rules_are_remembered() -> None:
    own = "-A POSTROUTING -o eth1 -j SNAT --to-source 10.0.0.55"
    assert drafted(GUIDE, own).outgoing == (own,)
