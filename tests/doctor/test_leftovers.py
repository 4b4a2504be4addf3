from __future__ import annotations

from pathlib import Path

import pytest

from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.leftovers import judge_rules, leftover_findings
from natproxy.netfilter import parse_iptables_save

NAMES = {6379: "my-redis-001/0001", 6380: "my-redis-002/0001"}
PORTS = range(6379, 6389)


def judge(*rules: str, chains: str = "") -> list[Finding]:
    text = "\n".join(("*nat", ":PREROUTING ACCEPT [0:0]", chains or ":POSTROUTING ACCEPT [0:0]", *rules, "COMMIT", ""))
    found = judge_rules(parse_iptables_save(text), NAMES, PORTS)
    assert all(one.check is Check.LEFTOVER_RULES for one in found)
    return found


def test_the_guide_s_rule_is_named_with_the_line_that_removes_it() -> None:
    (found,) = judge("-A PREROUTING -i eth0 -p tcp -m tcp --dport 6380 -j DNAT --to-destination 10.0.1.231:6379")
    assert (found.subject, found.verdict) == ("port 6380", Verdict.BAD)
    assert found.evidence.startswith(
        "connections to port 6380 (my-redis-002/0001) are led to 10.0.1.231:6379 before natproxy sees them: "
    )
    assert (
        "sudo iptables -t nat -D PREROUTING -i eth0 -p tcp -m tcp --dport 6380 -j DNAT --to-destination 10.0.1.231:6379"
        in found.mend
    )


def test_other_ports_other_protocols_and_the_instance_s_own_nat_duties_are_nobody_s_business() -> None:
    (found,) = judge(
        "-A PREROUTING -p tcp -m tcp --dport 22 -j DNAT --to-destination 10.0.1.9:22",
        "-A PREROUTING -p udp -m udp --dport 6379 -j DNAT --to-destination 10.0.1.9:53",
        "-A POSTROUTING -o eth1 -j SNAT --to-source 10.0.0.55",
    )
    assert found == Finding(
        Check.LEFTOVER_RULES, "", Verdict.GOOD, "no rule of iptables or nft leads natproxy's ports elsewhere"
    )


def test_a_rule_for_many_ports_counts_them() -> None:
    (found,) = judge("-A PREROUTING -p tcp -m tcp --dport 6000:6999 -j DNAT --to-destination 10.0.1.9")
    assert "port 6379 (my-redis-001/0001) and 9 more of natproxy's ports are led to 10.0.1.9:6379" in found.evidence


def test_a_port_that_no_node_has_yet_is_a_warning() -> None:
    (found,) = judge("-A PREROUTING -p tcp -m tcp --dport 6385 -j DNAT --to-destination 10.0.1.9:6379")
    assert (found.subject, found.verdict) == ("port 6385", Verdict.WARNING)


def test_a_rule_for_some_destinations_only_is_a_warning() -> None:
    (found,) = judge("-A PREROUTING -d 10.9.9.9/32 -p tcp -m tcp --dport 6379 -j DNAT --to-destination 10.0.1.9:6379")
    assert found.verdict is Verdict.WARNING


def test_a_redirection_to_another_port_of_this_host_takes_it_too_and_one_to_itself_does_not() -> None:
    (found,) = judge("-A PREROUTING -p tcp -m tcp --dport 6379 -j REDIRECT --to-ports 7000")
    assert "are led to this host before natproxy sees them" in found.evidence
    (found,) = judge("-A PREROUTING -p tcp -m tcp --dport 6379 -j REDIRECT --to-ports 6379")
    assert found.verdict is Verdict.GOOD


def test_docker_s_own_rules_are_docker_s_to_mend() -> None:
    (found,) = judge(
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 6379 -j DNAT --to-destination 172.17.0.2:6379",
        chains=":DOCKER - [0:0]",
    )
    assert found.mend.startswith("Docker")
    assert "publish" in found.mend


def test_a_rule_that_is_not_understood_is_told() -> None:
    found = judge("-A PREROUTING -p tcp -m tcp --dport nonsense -j DNAT --to-destination 10.0.1.9:6379")
    assert [one.verdict for one in found] == [Verdict.UNKNOWN]
    assert "nonsense" in found[0].evidence


def test_who_may_not_look_is_told_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    (found,) = leftover_findings([], [], Path("/nowhere"))
    assert found.verdict is Verdict.UNKNOWN
    if "neither" not in found.evidence:
        assert "sudo" in found.mend


def test_a_rule_that_is_not_understood_is_told_whatever_its_words() -> None:
    (found,) = judge('-A PREROUTING -p tcp --dport 6379 -m comment --comment "two\nlines" -j DNAT --to-destination x')[
        :1
    ]
    assert (found.verdict, "its quotes do not close" in found.evidence) == (Verdict.UNKNOWN, True)


def test_without_connection_tracking_there_can_be_no_such_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    (tmp_path / "kernel").mkdir()
    assert leftover_findings([], [], tmp_path)[0].verdict is Verdict.GOOD
    (tmp_path / "nf_conntrack").mkdir()
    assert leftover_findings([], [], tmp_path)[0].verdict is Verdict.UNKNOWN
    assert leftover_findings([], [], tmp_path / "missing")[0].verdict is Verdict.UNKNOWN
