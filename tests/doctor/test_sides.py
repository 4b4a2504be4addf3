from __future__ import annotations

from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.handed import Port
from natproxy.doctor.outcomes import Outcome
from natproxy.doctor.sides import merged, named, reach_findings, way_findings
from natproxy.doctor.trying import Tried, Way
from natproxy.model import Address

HOST, IP = "cache.example.com", "203.0.113.73"


def tried(number: int, outcome: Outcome, *, is_certain: bool = True, ip: str = IP) -> Tried:
    detail = {"open": "", "refused": "Connection refused", "timeout": "no answer within 3 s"}.get(outcome, "No route")
    return Tried(Address(ip, number), Port(number, is_certain), outcome, detail)


def reach(*all_tried: Tried) -> dict[str, Finding]:
    found = reach_findings(HOST, all_tried)
    assert all(one.check is Check.REACH for one in found)
    assert all(bool(one.mend) is (one.verdict is not Verdict.GOOD) for one in found)
    return {one.subject: one for one in found}


def fault(finding: Finding) -> str:
    return finding.evidence.rpartition("at fault: ")[2]


def test_a_name_that_does_not_resolve_is_the_client_side_s() -> None:
    (found,) = way_findings(HOST, Way(reason="Name or service not known"))
    assert (found.check, found.verdict, fault(found)) == (Check.NAMES, Verdict.BAD, "the client side")
    assert found.evidence.startswith(f"{HOST} does not resolve here: Name or service not known")


def test_the_way_is_told_with_where_it_begins() -> None:
    name, route = way_findings(HOST, Way((IP,), sources=((IP, "198.51.100.27"),)))
    assert (name.verdict, name.evidence) == (Verdict.GOOD, f"{HOST}: {IP}")
    assert (route.check, route.evidence) == (Check.ROUTE, f"packets to {IP} leave from 198.51.100.27")


def test_no_route_is_bad_unless_another_address_has_one() -> None:
    route = way_findings(HOST, Way((IP,)))[1]
    assert (route.verdict, fault(route)) == (Verdict.BAD, "the client side")
    routes = way_findings(HOST, Way((IP, "2001:db8::1"), sources=((IP, "198.51.100.27"),)))[1:]
    assert [one.verdict for one in routes] == [Verdict.GOOD, Verdict.WARNING]


def test_ports_that_fare_alike_are_one_finding() -> None:
    found = reach(*(tried(port, "open") for port in (6379, 6380, 6381, 11211)))
    assert list(found) == ["ports 6379-6381, 11211"]
    assert found["ports 6379-6381, 11211"].verdict is Verdict.GOOD


def test_a_host_that_refuses_everything_has_no_natproxy() -> None:
    found = reach(tried(6379, "refused"), tried(6380, "refused", is_certain=False))["ports 6379-6380"]
    assert (found.verdict, fault(found)) == (Verdict.BAD, "natproxy")
    assert "systemctl status natproxy" in found.mend


def test_one_port_that_refuses_while_others_are_open_is_not_served() -> None:
    found = reach(tried(6379, "open"), tried(6380, "refused"))["port 6380"]
    assert (found.verdict, fault(found)) == (Verdict.BAD, "natproxy")
    assert "natproxy routes" in found.mend


def test_unused_ports_of_a_range_are_as_they_may_be() -> None:
    found = reach(tried(6379, "open"), tried(6380, "refused", is_certain=False))
    assert [one.verdict for one in found.values()] == [Verdict.GOOD, Verdict.GOOD]


def test_silence_everywhere_is_the_network_s_and_names_both_ends() -> None:
    found = reach(tried(6379, "timeout"), tried(6380, "timeout"))["ports 6379-6380"]
    assert (found.verdict, fault(found)) == (Verdict.BAD, "the network between")
    assert "security group" in found.mend
    assert "Company networks" in found.mend


def test_silence_of_one_port_while_others_answer() -> None:
    found = reach(tried(6379, "open"), tried(6380, "timeout"))["port 6380"]
    assert (found.verdict, fault(found)) == (Verdict.BAD, "the network between")
    assert "while other ports of it answer" in found.evidence
    ranged = reach(tried(6379, "open"), tried(6380, "timeout", is_certain=False))["port 6380"]
    assert ranged.verdict is Verdict.WARNING
    refused = reach(tried(6379, "refused", is_certain=False), tried(6380, "timeout", is_certain=False))["port 6380"]
    assert refused.verdict is Verdict.BAD


def test_another_address_s_ports_say_nothing_of_this_one_s() -> None:
    found = reach_findings(HOST, [tried(6379, "open"), tried(6379, "timeout", ip="203.0.113.74")])
    assert "nor does any other of its ports" in found[1].evidence


def test_who_is_unreachable_says_so() -> None:
    found = reach(tried(6379, "unreachable"))["port 6379"]
    assert found.evidence == f"{IP} cannot be reached: No route; at fault: the network between"


def test_merging_keeps_the_order_of_the_first() -> None:
    one, other = Finding(Check.REACH, "", Verdict.GOOD, "a"), Finding(Check.REACH, "", Verdict.GOOD, "b")
    assert [(found.subject, found.evidence) for found in merged([(2, one), (1, other), (3, one)])] == [
        ("ports 2-3", "a"),
        ("port 1", "b"),
    ]
    assert named([5]) == "port 5"
