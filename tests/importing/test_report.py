from __future__ import annotations

import dataclasses
import ipaddress
import json

import msgspec

from natproxy.importing.places import Places
from natproxy.importing.planning import draft_of
from natproxy.importing.report import ImportDocument, document, misread, remarks, removals
from natproxy.importing.writing import Terms
from natproxy.netfilter import Rules, parse_iptables_save
from tests.importing.samples import NOWHERE, TERMS, account, lead, rule

ALLOWED = dataclasses.replace(TERMS, allow=(ipaddress.ip_network("198.51.100.0/24"),))
SNAT = "-A POSTROUTING -o eth1 -j SNAT --to-source 10.0.0.55"


def read(*lines: str) -> Rules:
    return parse_iptables_save("*nat\n" + "\n".join(lines) + "\n")


def said(rules: Rules, terms: Terms = ALLOWED, doubts: tuple[str, ...] = ()) -> str:
    draft = draft_of(rules, account().snapshot, Places(account().snapshot, account().addresses))
    return "\n".join(remarks(draft, rules, terms, doubts))


def told(rules: Rules, terms: Terms = ALLOWED, doubts: tuple[str, ...] = ()) -> ImportDocument:
    draft = draft_of(rules, account().snapshot, Places(account().snapshot, account().addresses))
    return document("caches: []", draft, rules, terms, doubts)


GUIDE = lead({6379: "redis-001/0001", 6380: "redis-002/0001"}, account())


def test_the_rules_to_be_removed_are_said_as_commands_and_the_rest_is_said_to_stay() -> None:
    text = said(read(*GUIDE, SNAT))
    assert f"  iptables -t nat -D {GUIDE[0].removeprefix('-A ')}\n" in text
    assert f"  iptables -t nat -D {GUIDE[1].removeprefix('-A ')}\n" in text
    assert "POSTROUTING (SNAT, MASQUERADE) and ip_forward stay as they are" in text
    assert "SNAT --to" not in text
    assert "warning" not in text


def test_nothing_is_said_of_nat_duties_where_there_are_none() -> None:
    assert "POSTROUTING" not in said(read(*GUIDE))


def test_whatever_is_not_as_it_was_is_said_with_its_line() -> None:
    text = said(
        read(
            rule(7000, NOWHERE),
            rule(53, NOWHERE, more="-p udp"),
            "rubbish\x1b[2J",
            "-A OUTPUT -p tcp --dport 1 -j DNAT --to 10.0.0.1",
        ),
        doubts=("DescribeServerlessCaches: not authorized",),
    )
    assert "warning: DescribeServerlessCaches: not authorized\n" in text
    assert "port 7000 (line 2) is kept as a static route: no node that AWS tells of has this address\n" in text
    assert "line 3 stays as it is: it is for UDP: natproxy passes on TCP only: -A PREROUTING -p udp" in text
    assert "warning: line 4 is not understood: this is no line of iptables-save: rubbish\\x1b[2J\n" in text
    assert "1 more rule is not for what comes in from outside\n" in text


def test_it_is_said_where_it_has_to_be_written_who_may_connect() -> None:
    assert "write clients.allow into the config (or give --allow NETWORK)" in said(read(*GUIDE), TERMS)
    assert "clients.allow" not in said(read(*GUIDE), ALLOWED)
    closed = [line.replace("-p tcp", "-s 192.0.2.7 -p tcp") for line in GUIDE]
    assert "clients.allow" not in said(read(*closed), TERMS)


def test_what_cannot_be_read_at_all_is_said_by_its_line_or_as_a_rule() -> None:
    rules = read("rubbish")
    assert list(misread(rules)) == ["warning: line 2 is not understood: this is no line of iptables-save: rubbish"]
    (unread,) = rules.unread
    nft = dataclasses.replace(rules, unread=(unread._replace(number=None),))
    assert next(misread(nft)).startswith("warning: a rule is not understood")


def test_the_document_says_the_same() -> None:
    found = told(
        read(*GUIDE, rule(7000, NOWHERE, more="-s 192.0.2.7"), rule(53, NOWHERE, more="-p udp"), SNAT, "rubbish"),
        TERMS,
        ("x",),
    )
    assert [(route.port, route.kind, route.cache, route.target, route.lines) for route in found.routes] == [
        (6379, "node", "redis", "redis-001/0001", (2,)),
        (6380, "node", "redis", "redis-002/0001", (3,)),
        (7000, "static", None, NOWHERE, (4,)),
    ]
    assert [route.allow for route in found.routes] == [None, None, ("192.0.2.7/32",)]
    assert [route.why is None for route in found.routes] == [True, True, False]
    assert [(new.port, new.target) for new in found.new][:1] == [(6381, "redis-003/0001")]
    assert [(left.line, "UDP" in left.why) for left in found.left] == [(5, True)]
    assert [(unread.line, unread.text) for unread in found.not_understood] == [(7, "rubbish")]
    assert (found.outgoing, found.warnings, found.needs_allow, found.version) == ((SNAT,), ("x",), True, 1)
    assert len(found.needless) == 3
    assert json.loads(msgspec.json.encode(found))["config"] == "caches: []"
    assert not told(read(*GUIDE), ALLOWED).needs_allow


def test_a_rule_that_stands_there_twice_is_removed_twice() -> None:
    rules = read(GUIDE[0], GUIDE[0])
    draft = draft_of(rules, account().snapshot, Places(account().snapshot, account().addresses))
    assert len(removals(draft)) == 2


def test_what_a_rule_kept_to_an_interface_or_an_address_is_said_once() -> None:
    rules = read(rule(7000, NOWHERE, more="-i wg0"), rule(7001, NOWHERE, more="-i wg0"), rule(7002, NOWHERE))
    (line,) = (line for line in said(rules).splitlines() if "comes in" in line)
    assert line.startswith("warning: only what comes in by wg0 is taken by line 2, line 3: natproxy listens on every")
    assert told(rules).warnings == (line.removeprefix("warning: "),)
    assert "comes in for 10.0.0.99/32 is taken by line 2" in said(read(rule(7000, NOWHERE, more="-d 10.0.0.99/32")))


def test_ports_that_need_a_capability_are_said() -> None:
    assert "below 1024 natproxy needs CAP_NET_BIND_SERVICE" in said(read(rule(22, NOWHERE)))
    assert "CAP_NET_BIND_SERVICE" not in said(read(rule(1024, NOWHERE)))
