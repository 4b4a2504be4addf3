"""The guide's DNAT rules are removed, and no other: real iptables in a namespace, and files that are loaded at boot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ansible.playing import DEBIAN_12, ROLE, Host, Stage
from tests.network.namespaces import Namespaces, why_impossible

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(why_impossible() is not None, reason=why_impossible() or "possible"),
]

GUIDES = (
    "PREROUTING -i eth0 -p tcp --dport 6379 -j DNAT --to 10.0.1.230:6379",
    "PREROUTING -p tcp --dport 6380 -j DNAT --to-destination 10.0.1.231:6379",
    "PREROUTING -p tcp --dport 6380 -j DNAT --to-destination 10.0.1.231:6379",
)
FOREIGN = (
    "PREROUTING -i eth0 -p tcp -m tcp --dport 63790 -j DNAT --to-destination 10.0.1.230:6379",
    "PREROUTING -i eth0 -p tcp -m tcp --dport 637 -j DNAT --to-destination 10.0.1.230:6379",
    "PREROUTING -i eth0 -p tcp -m tcp --dport 6381 -j DNAT --to-destination 10.0.1.232:6379",
    "POSTROUTING -o eth0 -j MASQUERADE",
)
OTHERS = (
    "PREROUTING -s 198.51.100.9/32 -p tcp -m tcp --dport 6379 -j DNAT --to-destination 10.0.1.230:6379",
    "PREROUTING -p tcp -m multiport --dports 8080,6380 -j DNAT --to-destination 10.0.1.9",
    "PREROUTING -p udp -m udp --dport 6379 -j DNAT --to-destination 10.0.1.230:6379",
)
"""For natproxy's ports, but not in the guide's form."""

PLAYBOOK = f"""
- hosts: natproxy
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {{name: {ROLE}, tasks_from: dnat}}
"""


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    made = Namespaces(("nat",))
    yield made
    made.close()


def saved(namespaces: Namespaces) -> list[str]:
    lines = namespaces.run("nat", ["iptables-save", "-t", "nat"]).stdout.splitlines()
    return [line.removeprefix("-A ") for line in lines if line.startswith("-A ")]


def test_rules_that_cannot_be_read_are_not_taken_for_none(stage: Stage, namespaces: Namespaces, tmp_path: Path) -> None:
    file = tmp_path / "rules.v4"
    file.write_text(f"*nat\n-A {GUIDES[0]}\nCOMMIT\n")
    before = file.read_text()
    playbook = tmp_path / "dnat.yml"
    playbook.write_text(PLAYBOOK)
    host = Host({"natproxy_remove_dnat": [6379]}, DEBIAN_12)
    powerless = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    prefix = ("ip", "netns", "exec", namespaces.name("nat"), *powerless)
    forced = {"__natproxy_rules_files": [str(file)]}
    played = stage.play({"nat": host}, playbook=playbook, prefix=prefix, forced=forced)["nat"]
    assert [task.name for task in played.failed] == ["Read the rules"]
    assert file.read_text() == before


def test_only_rules_that_lead_where_natproxy_leads_go_where_no_port_is_named(
    stage: Stage, namespaces: Namespaces, tmp_path: Path
) -> None:
    kept = (
        "PREROUTING -p tcp -m tcp --dport 6380 -j DNAT --to-destination 10.0.1.231:6379",
        "PREROUTING -p tcp -m tcp --dport 6381 -j DNAT --to-destination 10.0.1.232:6379",
        "PREROUTING -p tcp -m tcp --dport 6382 -j DNAT --to-destination 10.0.1.233:6379",
    )
    """One leads elsewhere, one to a node that natproxy does not reach, of one natproxy knows nothing."""
    for rule in (*GUIDES[:1], *kept):
        namespaces.run("nat", ["iptables", "-t", "nat", "-A", *rule.split()])
    routes = [
        {"port": 6379, "state": "open", "addresses": ["10.0.1.230:6379"]},
        {"port": 6380, "state": "open", "addresses": ["10.0.1.230:6379", "10.0.1.239:6379"]},
        {"port": 6381, "state": "unreachable", "addresses": ["10.0.1.232:6379"]},
    ]
    (tmp_path / "routes.json").write_text(json.dumps({"caches": [{"routes": routes}]}))
    program = tmp_path / "current/bin/natproxy"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nexec cat {tmp_path}/routes.json\n")
    program.chmod(0o755)
    file = tmp_path / "rules.v4"
    file.write_text(namespaces.run("nat", ["iptables-save"]).stdout)
    playbook = tmp_path / "dnat.yml"
    playbook.write_text(PLAYBOOK)
    prefix = ("ip", "netns", "exec", namespaces.name("nat"))
    forced = {"__natproxy_rules_files": [str(file)], "__natproxy_home": str(tmp_path)}
    host = Host({"natproxy_remove_dnat": True}, DEBIAN_12)
    stage.play({"nat": host}, playbook=playbook, prefix=prefix, forced=forced)["nat"].succeeded()
    assert saved(namespaces) == list(kept)
    assert [line for line in file.read_text().splitlines() if line.startswith("-A ")] == [f"-A {rule}" for rule in kept]


def test_only_the_guide_s_rules_for_these_ports_go(stage: Stage, namespaces: Namespaces, tmp_path: Path) -> None:
    for rule in (*FOREIGN, *GUIDES, *OTHERS):
        namespaces.run("nat", ["iptables", "-t", "nat", "-A", *rule.split()])
    file = tmp_path / "rules.v4"
    file.write_text(namespaces.run("nat", ["iptables-save", "-c"]).stdout)
    before = file.read_text()
    playbook = tmp_path / "dnat.yml"
    playbook.write_text(PLAYBOOK)
    host = Host({"natproxy_remove_dnat": [6379, "6380"]}, DEBIAN_12)
    forced = {"__natproxy_rules_files": [str(file), "/no/file"]}

    def play(*options: str) -> list[str]:
        prefix = ("ip", "netns", "exec", namespaces.name("nat"))
        played = stage.play({"nat": host}, *options, playbook=playbook, prefix=prefix, forced=forced)["nat"].succeeded()
        named = played.task("Name the rules that go, and those that stay").result["msg"]
        assert len(named["left alone, no rules of the guide or leading elsewhere"]) == len(OTHERS)
        return played.changed

    play("--check")
    assert len(saved(namespaces)) == len(FOREIGN) + len(GUIDES) + len(OTHERS)
    assert file.read_text() == before

    assert "Remove them" in play()
    kept = sorted((*FOREIGN, *OTHERS))
    assert sorted(saved(namespaces)) == kept
    assert [line for line in before.splitlines() if line not in file.read_text().splitlines()] == [
        line for line in before.splitlines() if any(f"--dport {port} " in line for port in (6379, 6380))
        and " -s " not in line and "udp" not in line
    ]  # fmt: skip

    assert play() == []
