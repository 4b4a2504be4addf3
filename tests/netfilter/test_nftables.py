from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.errors import NetfilterError
from natproxy.model import Address
from natproxy.netfilter.model import Rules, Span
from natproxy.netfilter.nftables import parse_nft

Json = dict[str, Any]


def meta(key: str, value: object, op: str = "==") -> Json:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


def field(protocol: str, name: str, value: object, op: str = "==") -> Json:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": name}}, "right": value}}


def chain(name: str, family: str = "ip", table: str = "own", hook: str | None = None) -> Json:
    base = {} if hook is None else {"type": "nat", "hook": hook, "prio": -100, "policy": "accept"}
    return {"chain": {"family": family, "table": table, "name": name, "handle": 1, **base}}


def rule(*expr: Json, chain: str = "pre", family: str = "ip", table: str = "own", handle: int = 7) -> Json:
    return {"rule": {"family": family, "table": table, "chain": chain, "handle": handle, "expr": list(expr)}}


def read(*items: Json, without_iptables: bool = False) -> Rules:
    listed = [{"metainfo": {"version": "1.0.6"}}, chain("pre", hook="prerouting"), *items]
    return parse_nft(json.dumps({"nftables": listed}), without_iptables=without_iptables)


TO_NODE = {"dnat": {"addr": "10.0.1.230", "port": 6379}}


def test_a_rule_as_nft_writes_it_is_read() -> None:
    counter = {"counter": {"packets": 1, "bytes": 60}}
    (found,) = read(rule(meta("iifname", "eth0"), field("tcp", "dport", 7000), counter, TO_NODE)).dnat
    assert (found.match.protocol, found.match.ports, found.match.interface) == ("tcp", (Span(7000, 7000),), "eth0")
    assert found.target(7000) == Address("10.0.1.230", 6379)
    assert found.delete == "nft delete rule ip own pre handle 7"
    assert found.number is None
    assert "counter" not in found.line
    assert found.match.conditions == ()


def test_sets_ranges_prefixes_and_negations_are_read() -> None:
    sources = {
        "set": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, "198.51.100.27", {"range": ["192.0.2.0", "192.0.2.1"]}]
    }
    ports = {"set": [7001, {"range": [7005, 7007]}]}
    (found,) = read(
        rule(field("ip", "saddr", sources), field("tcp", "dport", ports), {"dnat": {"addr": "10.0.1.230"}})
    ).dnat
    assert found.match.ports == (Span(7001, 7001), Span(7005, 7007))
    assert found.match.sources == tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "198.51.100.27/32", "192.0.2.0/31")))
    assert found.target(7006) == Address("10.0.1.230", 7006)
    (found,) = read(
        rule(field("tcp", "dport", {"range": [2, 65535]}, "!="), field("ip", "saddr", "10.0.0.1", "!="), TO_NODE)
    ).dnat
    assert found.match.ports == (Span(1, 1),)
    assert len(found.match.conditions) == 1  # the negated source
    assert found.match.sources is None


def test_ports_of_any_protocol_go_with_what_was_said_of_the_protocol() -> None:
    (found,) = read(rule(meta("l4proto", "tcp"), field("th", "dport", 7104), TO_NODE)).dnat
    assert (found.match.protocol, found.match.ports) == ("tcp", (Span(7104, 7104),))


def test_ranges_of_targets_and_redirections_are_read() -> None:
    spread = {"dnat": {"addr": {"range": ["10.0.1.1", "10.0.1.4"]}, "port": {"range": [1, 9]}}}
    found = read(
        rule(field("tcp", "dport", 1), spread), rule(field("tcp", "dport", 2), {"redirect": {"port": 6379}})
    ).dnat
    assert (found[0].addresses, found[0].to_ports) == (("10.0.1.1", "10.0.1.4"), Span(1, 9))
    assert (found[1].action, found[1].addresses, found[1].to_ports) == ("REDIRECT", None, Span(6379, 6379))
    (bare,) = read(rule(field("tcp", "dport", 2), {"redirect": None})).dnat
    assert (bare.action, bare.to_ports) == ("REDIRECT", None)


def test_jumps_are_followed_in_their_own_table_only() -> None:
    found = read(
        rule(meta("iif", "lo"), {"jump": {"target": "sub"}}),
        chain("sub"),
        rule(field("tcp", "dport", 7102), TO_NODE, chain="sub"),
        rule(field("tcp", "dport", 7103), TO_NODE, chain="sub", table="other"),
    )
    (met,) = found.dnat
    assert (met.chain, met.match.interface) == ("ip own sub", "lo")
    assert [one.chain for one in found.unreached] == ["ip other sub"]


def test_every_table_with_a_hook_counts() -> None:
    six = {"dnat": {"family": "ip6", "addr": "2001:db8::1", "port": 1}}
    found = read(
        chain("pre", family="inet", table="six", hook="prerouting"),
        chain("out", hook="output"),
        rule(field("tcp", "dport", 7104), six, family="inet", table="six"),
        rule(field("tcp", "dport", 7105), TO_NODE, chain="out"),
        rule(field("tcp", "dport", 7106), TO_NODE, family="bridge"),
    )
    assert [one.target(7104) for one in found.dnat] == [Address("2001:db8::1", 1)]
    assert len(found.unreached) == 1


def test_outgoing_rules_are_named_and_left() -> None:
    found = read(chain("post", hook="postrouting"), rule(meta("oifname", "eth1"), {"masquerade": None}, chain="post"))
    assert len(found.outgoing) == 1
    assert found.dnat == ()


def test_what_iptables_put_there_is_left_to_iptables() -> None:
    xt = {"xt": {"type": "target", "name": "DNAT"}}
    items = (chain("PREROUTING", table="nat", hook="prerouting"), rule(xt, chain="PREROUTING", table="nat"))
    assert read(*items, without_iptables=True) == Rules()
    own = rule(field("tcp", "dport", 7), TO_NODE)
    assert len(read(*items, own, without_iptables=True).dnat) == 1  # of a table that is not iptables'
    (unread,) = read(*items).unread
    assert "iptables-save can" in unread.reason


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ([{"dnat": {"addr": {"map": {}}}}], "depends on a map"),
        ([{"dnat": {"addr": "10.0.0.1", "port": {"map": {}}}}], "depends on a map"),
        ([{"dnat": {"addr": "@somewhere"}}], "not to an address"),
        ([{"vmap": {}}], "verdict map"),
        ([field("tcp", "dport", 1), field("tcp", "dport", 2), TO_NODE], "nothing can match it"),
    ],
)
def test_what_cannot_be_concluded_is_named(expr: list[Json], said: str) -> None:
    found = read(rule(*expr))
    assert found.dnat == ()
    assert [said in unread.reason for unread in found.unread] == [True]


@pytest.mark.parametrize(
    "strange",
    [
        field("tcp", "flags", "syn"),
        field("tcp", "dport", "@ports"),
        field("ip", "saddr", "@allowed"),
        field("ip", "saddr", {"prefix": {"addr": "10.0.0.1", "len": 99}}),
        meta("mark", 7),
        {"match": {"op": "==", "left": {"&": []}, "right": 1}},
        {"match": "?"},
        {"limit": {"rate": 1}},
    ],
)
def test_what_is_not_understood_is_a_condition(strange: Json) -> None:
    (found,) = read(rule(strange, field("tcp", "dport", 7), TO_NODE)).dnat
    assert len(found.match.conditions) == 1
    assert found.match.ports == (Span(7, 7),)


def test_firewalld_s_table_is_firewalld_s() -> None:
    found = read(
        chain("nat_PREROUTING", family="inet", table="firewalld", hook="prerouting"),
        rule(field("tcp", "dport", 7), TO_NODE, chain="nat_PREROUTING", family="inet", table="firewalld"),
    )
    assert [one.owner for one in found.dnat] == ["firewalld"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nftables": 1}', '{"other": []}', "null", "[" * 100_000])
def test_a_text_that_is_not_nft_s_json_is_refused(text: str) -> None:
    with pytest.raises(NetfilterError, match="nft -j list ruleset"):
        parse_nft(text)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70_000) | st.sampled_from(["tcp", "10.0.0.1", "dport", "eth0", ""]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["match", "op", "left", "right", "payload", "protocol", "field", "dnat", "addr", "port", "set",
                         "range", "prefix", "len", "jump", "target", "meta", "key", "accept", "redirect"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(ANY, max_size=4), ANY)
def test_whatever_the_json_is_nothing_is_raised(expr: list[object], item: object) -> None:
    parse_nft(json.dumps({"nftables": [chain("pre", hook="prerouting"), {"rule": item}, rule(*expr), item]}))  # type: ignore[arg-type]


def test_what_a_verdict_map_may_lead_to_is_looked_at_and_not_certain() -> None:
    key = {"payload": {"protocol": "tcp", "field": "dport"}}
    verdicts = [[6379, {"goto": {"target": "own"}}], [6380, {"accept": None}]]
    (found,) = read(rule({"vmap": {"key": key, "data": {"set": verdicts}}}), rule(TO_NODE, chain="own")).dnat
    assert found.takes(6379)
    assert found.match.conditions != ()
    assert len(read(rule({"vmap": {"key": key, "data": "@named"}})).unread) == 1


def test_what_is_not_understood_in_a_table_that_translates_nothing_is_not_told() -> None:
    elsewhere = rule({"vmap": {"key": {"ct": {"key": "state"}}, "data": "@states"}}, table="filter", family="inet")
    assert read(elsewhere) == Rules()


def test_the_names_in_the_command_that_removes_a_rule_are_quoted_for_a_shell() -> None:
    (found,) = read(
        chain("pre", table="x;id", hook="prerouting"), rule(field("tcp", "dport", 7000), TO_NODE, table="x;id")
    ).dnat
    assert found.delete == "nft delete rule ip 'x;id' pre handle 7"
