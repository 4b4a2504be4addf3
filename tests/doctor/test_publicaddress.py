from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from natproxy.doctor.findings import Finding, Verdict
from natproxy.doctor.instance import Instance, Interface
from natproxy.doctor.publicaddress import Owners, dialled_addresses, public_address_findings
from tests.plan.samples import GUIDE, config

NAMED = "public_host: cache.example.com\npublic_ip: 203.0.113.73\n" + GUIDE
INSTANCE = Instance("i-1", "eu-west-1", (Interface("eni-1", ("sg-1",), ("10.0.0.55",), ("203.0.113.73",)),))
BARE = Instance("i-1", "eu-west-1", (Interface("eni-1", ("sg-1",), ("10.0.0.55",)),))


def elastic(**facts: Any) -> dict[str, Any]:
    return {"PublicIp": "203.0.113.73", "AllocationId": "eipalloc-1", **facts}


OWN = Owners([elastic(InstanceId="i-1", NetworkInterfaceId="eni-1")], [])


def look(
    resolved: Sequence[str] = ("203.0.113.73",),
    *,
    text: str = NAMED,
    instance: Instance | None = INSTANCE,
    owners: Owners = OWN,
    reason: str = "",
) -> list[Finding]:
    return public_address_findings(config(text), resolved, reason, instance=instance, owners=owners, region="eu-west-1")


def test_an_elastic_ip_that_is_this_instance_s() -> None:
    assert [(one.verdict, one.evidence) for one in look()] == [
        (Verdict.GOOD, "203.0.113.73 is this instance's (i-1, eni-1)")
    ]
    assert dialled_addresses(config(NAMED), ["203.0.113.73", "203.0.113.74"]) == ("203.0.113.73", "203.0.113.74")


@pytest.mark.parametrize(
    ("owners", "verdict", "told", "mend"),
    [
        (Owners([], []), Verdict.WARNING, "is no Elastic IP", "aws ec2 allocate-address --region eu-west-1"),
        (Owners(), Verdict.GOOD, "is this instance's", ""),
    ],
)
def test_whether_it_stays(owners: Owners, verdict: Verdict, told: str, mend: str) -> None:
    (one,) = look(owners=owners)
    assert one.verdict is verdict
    assert told in one.evidence
    assert one.mend.startswith(mend)


@pytest.mark.parametrize(
    ("owners", "verdict", "told"),
    [
        (Owners([elastic(InstanceId="i-2", NetworkInterfaceId="eni-2")], []), Verdict.BAD, "belongs to instance i-2"),
        (Owners([elastic(NetworkInterfaceId="eni-9")], []), Verdict.WARNING, "eni-9, which is no instance's"),
        (Owners([elastic()], []), Verdict.BAD, "is associated with nothing"),
        (
            Owners([], [{"InstanceId": "i-3", "PublicIpAddress": "203.0.113.73"}]),
            Verdict.BAD,
            "belongs to instance i-3",
        ),
        (Owners([], []), Verdict.BAD, "none of this instance's addresses (i-1 has 10.0.0.55), nor is it an Elastic IP"),
        (Owners(), Verdict.BAD, "none of this instance's addresses (i-1 has 10.0.0.55)"),
    ],
    ids=["other-instance", "load-balancer", "nobody", "lent", "unknown", "not-asked"],
)
def test_an_address_that_is_not_this_instance_s(owners: Owners, verdict: Verdict, told: str) -> None:
    (one,) = look(instance=BARE, owners=owners)
    assert one.verdict is verdict
    assert told in one.evidence
    assert one.mend


def test_a_private_address_is_good_inside() -> None:
    (one,) = look(["10.0.0.55"], text="public_host: inside.example.com\n" + GUIDE)
    assert (one.subject, one.verdict) == ("inside.example.com 10.0.0.55", Verdict.GOOD)


def test_names_are_judged_on_any_host() -> None:
    (gone,) = look([], instance=None, reason="the name does not exist")
    assert gone.evidence == "public_host does not resolve: the name does not exist"
    assert "203.0.113.73" in gone.mend
    (elsewhere,) = look(["192.0.2.1"], instance=None)
    assert elsewhere.evidence == "public_host resolves to 192.0.2.1, and public_ip says 203.0.113.73"
    assert look(instance=None) == []


def test_an_address_in_place_of_a_name() -> None:
    text = "public_host: 203.0.113.73\n" + GUIDE
    assert [(one.subject, one.verdict) for one in look(text=text)] == [("203.0.113.73", Verdict.GOOD)]


def test_where_nobody_dials_nothing_is_judged() -> None:
    assert look(text=GUIDE) == []
    assert look(text="listen: {address: 127.0.0.1}\n" + NAMED) == []


def test_inside_the_vpc_a_name_may_lead_to_the_private_address_of_the_same_instance() -> None:
    amazons = "public_host: ec2-203-0-113-73.compute-1.amazonaws.com\npublic_ip: 203.0.113.73\n" + GUIDE
    assert {one.verdict for one in look(["10.0.0.55"], text=amazons)} == {Verdict.GOOD}
    own = look(["10.0.0.55"])[0]
    assert (own.verdict, own.mend.endswith("dig +short cache.example.com")) == (Verdict.UNKNOWN, True)
    assert look(["10.0.0.55", "192.0.2.1"])[0].verdict is Verdict.BAD
    assert look(["10.0.0.55"], instance=BARE)[0].verdict is Verdict.BAD


def test_an_ipv6_address_of_this_instance_is_no_private_one() -> None:
    six = Instance("i-1", "eu-west-1", (Interface("eni-1", ("sg-1",), ("10.0.0.55", "2001:db8::55")),))
    (one,) = look(["2001:db8::55"], text="public_host: six.example.com\n" + GUIDE, instance=six, owners=Owners([], []))
    assert (one.verdict, one.evidence) == (Verdict.GOOD, "2001:db8::55 is this instance's (i-1, eni-1)")
