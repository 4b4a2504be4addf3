from __future__ import annotations

import ipaddress

from natproxy.doctor.blame import NEXT, Scene, explain
from natproxy.doctor.groups import Rule, SecurityGroup
from natproxy.doctor.instance import Instance, Interface
from natproxy.doctor.reach import Dialled
from natproxy.doctor.targets import Target

THEIRS, OURS, SECOND = "sg-0theirs", "sg-0ours", "sg-0second"
EVERYWHERE = Rule(0, 65535, networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
FROM_US = Rule(6379, 6379, groups=frozenset({OURS}))
PRIMARY = Interface("eni-1", (OURS,), ("10.0.0.55",), ("203.0.113.73",), "vpc-1")
INNER = Interface("eni-2", (SECOND,), ("10.0.1.55", "fd00::55"), (), "vpc-1")
INSTANCE = Instance("i-1", "eu-west-1", (PRIMARY, INNER))


def silent(address: str = "10.0.1.230", *, cache: str = "my-redis") -> Dialled:
    target = Target("my-redis-001/0001", "node.example", 6379, False, None, None, is_static=not cache, cache=cache)
    return Dialled(target, (address,), address, "timeout", "no answer within 3 s")


def scene(
    *theirs: Rule,
    ours: tuple[Rule, ...] = (EVERYWHERE,),
    instance: Instance | None = INSTANCE,
    source: str = "",
    vpc: str = "vpc-1",
) -> Scene:
    groups = {
        THEIRS: SecurityGroup(THEIRS, "caches", vpc, inbound=theirs),
        OURS: SecurityGroup(OURS, "natproxy", "vpc-1", outbound=ours),
        SECOND: SecurityGroup(SECOND, "inner", "vpc-1", outbound=ours),
    }
    return Scene("eu-west-1", instance, {"my-redis": (THEIRS,)}, groups, lambda _: source)


def told(of: Scene, one: Dialled | None = None) -> tuple[str, str]:
    found = explain(of, one or silent())
    assert found is not None
    return found


def test_a_cache_s_group_that_does_not_let_this_instance_in() -> None:
    evidence, mend = told(scene())
    assert evidence == (
        "10.0.1.230:6379: no answer within 3 s; the cache's security group sg-0theirs (caches) has no inbound rule for "
        "TCP 6379 from sg-0ours (natproxy) (this instance's), or 10.0.0.55"
    )
    assert mend == (
        "aws ec2 authorize-security-group-ingress --group-id sg-0theirs --protocol tcp --port 6379 "
        "--source-group sg-0ours --region eu-west-1"
    )


def test_the_interface_that_leads_to_the_node_is_the_one_that_counts() -> None:
    assert "from sg-0second (inner)" in told(scene(FROM_US, source="10.0.1.55"))[0]
    assert told(scene(FROM_US, source="10.0.0.55"))[1] == NEXT
    assert told(scene(FROM_US, source="192.0.2.1"))[1] == NEXT


def test_an_address_may_be_let_in_as_well_as_a_group() -> None:
    ours = Rule(6379, 6379, networks=(ipaddress.ip_network("10.0.0.0/24"),))
    evidence, mend = told(scene(ours))
    assert "the security groups of both sides let it through" in evidence
    assert mend == NEXT
    sixes = Rule(6379, 6379, networks=(ipaddress.ip_network("fd00::/16"),))
    assert told(scene(sixes, source="fd00::55"), silent("fd00::230"))[1] == NEXT
    assert "has no inbound rule" in told(scene(sixes))[0]


def test_a_prefix_list_is_named_and_not_judged() -> None:
    evidence, mend = told(scene(Rule(6379, 6379, prefix_lists=frozenset({"pl-1"}))))
    assert "lets pl-1 in on TCP 6379" in evidence
    assert mend == "aws ec2 get-managed-prefix-list-entries --prefix-list-id pl-1 --region eu-west-1"
    evidence, _ = told(scene(FROM_US, ours=(Rule(6379, 6379, prefix_lists=frozenset({"pl-2"})),)))
    assert "lets TCP 6379 out to pl-2" in evidence


def test_outbound_rules_of_this_instance() -> None:
    evidence, mend = told(scene(FROM_US, ours=()))
    assert "the outbound rules of this instance's sg-0ours (natproxy) do not let TCP 6379 out to it" in evidence
    assert "UserIdGroupPairs=[{GroupId=sg-0theirs}]" in mend
    to_group = Rule(6379, 6379, groups=frozenset({THEIRS}))
    assert told(scene(FROM_US, ours=(to_group,)))[1] == NEXT


def test_of_another_vpc_the_address_is_let_in_as_a_group_cannot_always_be_named_there() -> None:
    evidence, mend = told(scene(vpc="vpc-2", source="fd00::55"), silent("fd00::230"))
    assert "the cache is in vpc-2, this instance in vpc-1" in evidence
    assert "Ipv6Ranges=[{CidrIpv6=fd00::55/128}]" in mend
    assert "--cidr 10.0.0.55/32" in told(scene(vpc="vpc-2"))[1]


def test_a_static_target_has_no_group_that_is_known() -> None:
    evidence, mend = told(scene(ours=()), silent(cache=""))
    assert "the outbound rules" in evidence
    assert "IpRanges=[{CidrIp=10.0.1.230/32}]" in mend
    assert told(scene(), silent(cache=""))[0].endswith("sg-0ours (natproxy) lets it out")


def test_on_a_host_that_is_no_instance_the_cache_s_rules_are_shown() -> None:
    evidence, _ = told(scene(FROM_US, instance=None))
    assert evidence.endswith("the cache's sg-0theirs (caches) lets in on TCP 6379: sg-0ours")
    assert told(scene(instance=None))[0].endswith("on TCP 6379: nobody")
    assert explain(scene(instance=None), silent(cache="")) is None


def test_groups_that_could_not_be_looked_at_explain_nothing() -> None:
    assert explain(Scene("", INSTANCE, {"my-redis": (THEIRS,)}), silent()) is None
