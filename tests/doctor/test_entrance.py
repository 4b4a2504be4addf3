from __future__ import annotations

import ipaddress

from natproxy.doctor.entrance import entrance_findings
from natproxy.doctor.findings import Finding, Verdict
from natproxy.doctor.groups import Rule, SecurityGroup
from natproxy.model import Network, Route
from tests.plan.samples import GUIDE, config, route

CLIENT = ipaddress.ip_network("198.51.100.27/32")
SIX = ipaddress.ip_network("2001:db8::/48")
WORLD = ipaddress.ip_network("0.0.0.0/0")
BOTH = 'listen: {address: "::"}\n' + GUIDE


def routes(*allow: Network, ports: tuple[int, ...] = (6379, 6380, 11211)) -> list[Route]:
    return [route(port=port, allow=allow) for port in ports]


def look(served: list[Route], *rules: Rule, text: str = GUIDE) -> list[Finding]:
    group = SecurityGroup("sg-0ours", "natproxy", inbound=rules)
    return entrance_findings(config(text), served, [group], "eu-west-1")


def test_every_network_of_allow_is_judged_by_itself() -> None:
    found = look(
        routes(CLIENT, SIX), Rule(6379, 6380, networks=(CLIENT, SIX)), Rule(11211, 11211, networks=(SIX,)), text=BOTH
    )
    assert [(one.subject, one.verdict) for one in found] == [
        (str(CLIENT), Verdict.BAD),
        (str(CLIENT), Verdict.GOOD),
        (str(SIX), Verdict.GOOD),
    ]
    assert found[0].evidence.endswith("has no inbound rule that lets 198.51.100.27/32 in on TCP 11211")
    assert found[0].mend == (
        "aws ec2 authorize-security-group-ingress --group-id sg-0ours --protocol tcp --port 11211 "
        "--cidr 198.51.100.27/32 --region eu-west-1"
    )
    assert found[1].evidence.endswith("on TCP 6379-6380")


def test_several_groups_count_as_one() -> None:
    groups = [
        SecurityGroup("sg-1", inbound=(Rule(6379, 6380, networks=(CLIENT,)),)),
        SecurityGroup("sg-2", inbound=(Rule(11211, 11211, networks=(CLIENT,)),)),
    ]
    found = entrance_findings(config(), routes(CLIENT), groups, "")
    assert [one.verdict for one in found] == [Verdict.GOOD]
    assert "sg-1 and sg-2" in found[0].evidence


def test_the_world_is_let_in_by_mistake() -> None:
    rule = Rule(0, 65535, networks=(WORLD,), has_all_protocols=True)
    good, wide = look(routes(CLIENT, ports=(6379,)), rule)
    assert good.verdict is Verdict.GOOD
    assert (wide.subject, wide.verdict) == ("sg-0ours 0.0.0.0/0", Verdict.WARNING)
    assert wide.mend.startswith("the same rule lets SSH in: open that for yourself first")
    first, last = wide.mend.split(" && ")
    assert "authorize-security-group-ingress" in first  # or the client would be shut out, too
    assert "--cidr 198.51.100.27/32" in first
    assert "revoke-security-group-ingress" in last
    assert "IpProtocol=-1" in last
    wide = look(routes(CLIENT, ports=(6379,)), rule, Rule(6379, 6379, networks=(CLIENT,)))[1]
    assert "authorize" not in wide.mend
    wide = look(routes(CLIENT, ports=(6379,)), Rule(6379, 6379, networks=(WORLD,)))[1]
    assert wide.mend.startswith("aws ec2 authorize")


def test_the_world_is_let_in_on_purpose() -> None:
    rule = Rule(6379, 6379, networks=(WORLD,))
    assert [one.verdict for one in look(routes(WORLD, ports=(6379,)), rule)] == [Verdict.GOOD]
    by_certificate = [route(port=6379, allow=None)]
    assert [one.verdict for one in look(by_certificate, rule)] == [Verdict.GOOD]
    assert [one.verdict for one in look(routes(CLIENT, ports=(6400,)), rule)] == [Verdict.BAD]


def test_who_has_a_certificate_must_be_let_in_from_somewhere() -> None:
    by_certificate = [route(port=6379, allow=None)]
    assert look(by_certificate, Rule(6379, 6379, groups=frozenset({"sg-2"})))[0].verdict is Verdict.GOOD
    bad = look(by_certificate)[0]
    assert (bad.subject, bad.verdict) == ("anyone with a certificate", Verdict.BAD)
    assert "for everywhere: aws ec2 authorize" in bad.mend


def test_a_prefix_list_is_not_judged() -> None:
    found = look(routes(CLIENT, ports=(6379,)), Rule(6379, 6379, prefix_lists=frozenset({"pl-1"})))
    assert [(one.verdict, one.subject) for one in found] == [(Verdict.UNKNOWN, str(CLIENT))]
    assert "whether 198.51.100.27/32 is in there is not known" in found[0].evidence


def test_loopback_needs_no_rule() -> None:
    text = "listen: {address: 127.0.0.1}\n" + GUIDE
    assert [one.verdict for one in look(routes(CLIENT), text=text)] == [Verdict.GOOD]
    assert look(routes(ipaddress.ip_network("127.0.0.0/8"))) == []
    assert entrance_findings(config(), [], [], "") == []


def test_a_group_that_lets_in_a_part_of_allow_is_no_fault_and_the_rest_is_not_opened_by_itself() -> None:
    wide, narrow = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.8.0.0/16")
    (found,) = look(routes(wide, ports=(6379,)), Rule(6379, 6379, networks=(narrow,)))
    assert found.verdict is Verdict.WARNING
    assert "lets in on TCP 6379: 10.8.0.0/16; that is not all of 10.0.0.0/8" in found.evidence
    assert found.mend.startswith("name in clients.allow just who is let in")
    (found,) = look(routes(wide, ports=(6379,)), Rule(6379, 6379, groups=frozenset({"sg-2"})))
    assert (found.verdict, "lets in on TCP 6379: sg-2" in found.evidence) == (Verdict.WARNING, True)


def test_where_allow_is_the_whole_world_a_narrower_group_is_what_is_meant() -> None:
    (found,) = look(routes(WORLD, ports=(6379,)), Rule(6379, 6379, networks=(CLIENT,)))
    assert (found.verdict, found.mend) == (Verdict.GOOD, "")
    assert str(CLIENT) in found.evidence


def test_a_family_that_natproxy_does_not_listen_on_needs_no_rule() -> None:
    rule = Rule(6379, 6379, networks=(CLIENT,))
    assert [one.subject for one in look(routes(CLIENT, SIX, ports=(6379,)), rule)] == [str(CLIENT)]
    both = look(routes(CLIENT, SIX, ports=(6379,)), rule, text=BOTH)
    assert [(one.subject, one.verdict) for one in both] == [(str(CLIENT), Verdict.GOOD), (str(SIX), Verdict.BAD)]
    only_six = 'listen: {address: "2001:db8::1"}\n' + GUIDE
    assert [one.subject for one in look(routes(CLIENT, SIX, ports=(6379,)), rule, text=only_six)] == [str(SIX)]


SIDES = (
    f"{GUIDE}tls: {{certificate: /c, key: /k, client_ca: /ca}}\n"
    f"portal: {{allow: {CLIENT}}}\nadmin: {{address: 0.0.0.0, allow: {CLIENT}, tls: true}}\n"
)


def test_the_portal_and_an_admin_side_beyond_loopback_are_to_be_reached_too() -> None:
    text = (
        f"{GUIDE}tls: {{certificate: /c, key: /k, client_ca: /ca}}\nportal: {{}}\n"
        f"admin: {{address: 0.0.0.0, allow: {CLIENT}, tls: true}}\n"
    )
    shut, world = look(routes(CLIENT, ports=(6379,)), Rule(6379, 6379, networks=(CLIENT,)), text=text)[::2]
    assert shut.evidence.endswith(f"has no inbound rule that lets {CLIENT} in on TCP 9479")
    assert world.evidence.endswith("has no inbound rule that lets anyone with a certificate in on TCP 6378")
    assert (shut.verdict, world.verdict) == (Verdict.BAD, Verdict.BAD)


def test_the_world_is_let_in_to_the_portal_and_the_admin_side_by_mistake() -> None:
    served = [route(port=6379, allow=(WORLD,))]
    good, wide = look(served, Rule(6378, 9479, networks=(WORLD,)), text=SIDES)[1:]
    assert good.verdict is Verdict.GOOD
    assert (wide.subject, wide.verdict) == ("sg-0ours 0.0.0.0/0", Verdict.WARNING)
    assert "in on TCP 6378, 9479, and portal.allow and admin.allow only some" in wide.evidence
    *opened, shut = wide.mend.split(" && ")
    assert [(one.split()[8], one.split()[10]) for one in opened] == [
        *(("6379", "0.0.0.0/0"), ("6378", str(CLIENT)), ("9479", str(CLIENT))),
    ]
    assert shut.startswith("aws ec2 revoke-security-group-ingress")
    (alone,) = [one for one in look(served, Rule(9479, 9479, networks=(WORLD,)), text=SIDES) if "whole" in one.evidence]
    assert "on TCP 9479, and admin.allow only some" in alone.evidence
    anyone = SIDES.replace(f"{{allow: {CLIENT}}}", "{}")
    assert len(look(served, Rule(6378, 6379, networks=(WORLD,)), text=anyone)) == 3  # none of them about the world


def test_what_says_who_may_connect_is_named() -> None:
    wide = SIDES.replace(f"{{allow: {CLIENT}}}", "{allow: 198.51.0.0/16}")
    (found,) = [
        one for one in look([], Rule(6378, 6378, networks=(CLIENT,)), text=wide) if "not all of" in one.evidence
    ]
    assert found.mend.startswith("name in portal.allow just who is let in")


def test_an_admin_side_beyond_loopback_is_judged_where_nothing_else_is_there() -> None:
    text = "listen: {address: 127.0.0.1}\n" + SIDES
    assert [one.evidence[-8:] for one in look(routes(CLIENT), text=text)] == ["TCP 9479"]
