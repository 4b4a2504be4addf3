from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.doctor.groups import (
    Passage,
    Peer,
    Rule,
    SecurityGroup,
    is_covered,
    let_in,
    let_out,
    passage,
    peers_of,
    prefix_lists,
    read_group,
    shut_out,
)
from natproxy.model import Network

OPEN, CLOSED, UNSURE = Passage.OPEN, Passage.CLOSED, Passage.UNSURE
OURS = "sg-0ours"


def net(text: str) -> Network:
    return ipaddress.ip_network(text)


def permission(**facts: Any) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": 6379, "ToPort": 6381, **facts}


def group(*permissions: Any, outbound: Sequence[Any] = ()) -> SecurityGroup:
    return read_group(
        {
            "GroupId": "sg-0theirs",
            "GroupName": "caches",
            "VpcId": "vpc-1",
            "IpPermissions": list(permissions),
            "IpPermissionsEgress": list(outbound),
        }
    )


def test_a_group_is_read_as_ec2_describes_it() -> None:
    found = group(
        permission(IpRanges=[{"CidrIp": "10.0.0.0/16"}], Ipv6Ranges=[{"CidrIpv6": "2001:db8::/32"}]),
        permission(UserIdGroupPairs=[{"GroupId": OURS, "UserId": "1"}], PrefixListIds=[{"PrefixListId": "pl-1"}]),
        outbound=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    )
    assert (found.id, found.name, found.vpc, str(found)) == ("sg-0theirs", "caches", "vpc-1", "sg-0theirs (caches)")
    assert found.inbound == (
        Rule(6379, 6381, networks=(net("10.0.0.0/16"), net("2001:db8::/32"))),
        Rule(6379, 6381, groups=frozenset({OURS}), prefix_lists=frozenset({"pl-1"})),
    )
    assert found.outbound == (Rule(0, 65535, networks=(net("0.0.0.0/0"),), has_all_protocols=True),)
    assert str(read_group({"GroupId": "sg-1"})) == "sg-1"


@pytest.mark.parametrize(
    "odd",
    [
        {"IpProtocol": "udp", "FromPort": 0, "ToPort": 65535, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        permission(IpRanges=[{"CidrIp": "everywhere"}, {}, "10.0.0.0/8"]),
        permission(UserIdGroupPairs=[{"UserId": "1"}], PrefixListIds="pl-1"),
        "tcp",
    ],
    ids=str,
)
def test_what_cannot_be_read_or_is_not_about_tcp_opens_nothing(odd: Any) -> None:
    assert passage(group(odd).inbound, 6379, Peer(net("10.0.0.55"), frozenset({OURS}))) is CLOSED


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        (permission(IpRanges=[{"CidrIp": "10.0.0.55/32"}]), OPEN),
        (permission(IpRanges=[{"CidrIp": "10.0.0.0/16"}]), OPEN),
        (permission(IpRanges=[{"CidrIp": "10.0.1.0/24"}]), CLOSED),
        (permission(Ipv6Ranges=[{"CidrIpv6": "::/0"}]), CLOSED),
        (permission(UserIdGroupPairs=[{"GroupId": OURS}]), OPEN),
        (permission(UserIdGroupPairs=[{"GroupId": "sg-0other"}]), CLOSED),
        (permission(PrefixListIds=[{"PrefixListId": "pl-1"}]), UNSURE),
        (permission(PrefixListIds=[{"PrefixListId": "pl-1"}], IpRanges=[{"CidrIp": "10.0.0.0/8"}]), OPEN),
        (permission(FromPort=6380, IpRanges=[{"CidrIp": "0.0.0.0/0"}]), CLOSED),
        (permission(IpProtocol="6", IpRanges=[{"CidrIp": "0.0.0.0/0"}]), OPEN),
        ({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": OURS}]}, OPEN),
    ],
    ids=str,
)
def test_one_rule(rule: Any, answer: Passage) -> None:
    assert passage(group(rule).inbound, 6379, Peer(net("10.0.0.55"), frozenset({OURS}))) is answer


def test_an_ipv6_network() -> None:
    rules = group(permission(Ipv6Ranges=[{"CidrIpv6": "2001:db8::/32"}])).inbound
    assert passage(rules, 6379, Peer(net("2001:db8:1::/48"))) is OPEN
    assert passage(rules, 6379, Peer(net("2001:db9::/48"))) is CLOSED


def test_a_network_may_be_let_in_piece_by_piece_but_all_of_it() -> None:
    halves = [net("198.51.100.0/25"), net("198.51.100.128/25")]
    assert is_covered(net("198.51.100.0/24"), halves)
    assert not is_covered(net("198.51.100.0/24"), halves[:1])
    assert not is_covered(net("198.51.100.0/24"), [*halves[:1], net("::/0")])


# against a model: every address and port by itself

addresses = st.integers(0, 15)
few_networks = st.builds(
    lambda number, bits: ipaddress.ip_network((0x0A000000 + (number & ~((1 << (32 - bits)) - 1) & 0xF), bits)),
    addresses,
    st.integers(28, 32),
)
few_ports = st.integers(6379, 6384)
few_rules = st.builds(
    lambda first, length, networks, groups, lists: Rule(
        first, first + length, tuple(networks), frozenset(groups), frozenset(lists)
    ),
    few_ports,
    st.integers(0, 3),
    st.lists(few_networks, max_size=2),
    st.sets(st.sampled_from(["sg-a", "sg-b"]), max_size=1),
    st.sets(st.just("pl-a"), max_size=1),
)


@given(st.lists(few_rules, max_size=5), few_ports, few_networks, st.sets(st.sampled_from(["sg-a", "sg-c"])))
def test_passage_is_what_looking_at_every_address_tells(
    rules: list[Rule], port: int, network: Network, groups: set[str]
) -> None:
    def lets_in(address: Any) -> bool:
        return any(
            rule.first <= port <= rule.last
            and (bool(groups & rule.groups) or any(address in other for other in rule.networks))
            for rule in rules
        )

    may_be = any(rule.first <= port <= rule.last and rule.prefix_lists for rule in rules)
    expected = OPEN if all(map(lets_in, network)) else UNSURE if may_be else CLOSED
    assert passage(rules, port, Peer(network, frozenset(groups))) is expected


def test_peers_are_named_as_the_rules_write_them() -> None:
    rules = group(
        permission(IpRanges=[{"CidrIp": "10.0.0.0/16"}], PrefixListIds=[{"PrefixListId": "pl-1"}]),
        permission(UserIdGroupPairs=[{"GroupId": OURS}], IpRanges=[{"CidrIp": "10.0.0.0/16"}]),
    ).inbound
    assert peers_of(rules, 6379) == ("10.0.0.0/16", "pl-1", OURS)
    assert peers_of(rules, 6382) == ()
    assert (prefix_lists(rules, 6379), prefix_lists(rules, 6378)) == (("pl-1",), ())


def test_the_commands_that_open_and_close() -> None:
    start = "aws ec2 authorize-security-group-ingress --group-id sg-1"
    assert let_in("sg-1", [6379], net("198.51.100.27"), "eu-west-1") == (
        f"{start} --protocol tcp --port 6379 --cidr 198.51.100.27/32 --region eu-west-1"
    )
    assert let_in("sg-1", [6379, 6380, 6490], OURS, "") == (
        f"{start} --protocol tcp --port 6379-6380 --source-group {OURS} && "
        f"{start} --protocol tcp --port 6490 --source-group {OURS}"
    )
    assert let_in("sg-1", [6379], net("2001:db8::/32"), "") == (
        f"{start} --ip-permissions 'IpProtocol=tcp,FromPort=6379,ToPort=6379,Ipv6Ranges=[{{CidrIpv6=2001:db8::/32}}]'"
    )
    assert let_out("sg-1", 6379, "sg-2", "") == (
        "aws ec2 authorize-security-group-egress --group-id sg-1 --ip-permissions "
        "'IpProtocol=tcp,FromPort=6379,ToPort=6379,UserIdGroupPairs=[{GroupId=sg-2}]'"
    )
    assert shut_out("sg-1", Rule(0, 65535, has_all_protocols=True), net("0.0.0.0/0"), "") == (
        "aws ec2 revoke-security-group-ingress --group-id sg-1 --ip-permissions "
        "'IpProtocol=-1,IpRanges=[{CidrIp=0.0.0.0/0}]'"
    )
