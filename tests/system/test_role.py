"""What the role does for an operator: it installs, changes, upgrades and rolls back; natproxy serves after each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from natproxy import __version__
from tests.network.guide import GUIDE_NODES, LAPTOP, NAT, PUBLIC_IP, REDIS_PORT, REDIS_PORTS
from tests.scenarios.waiting import eventually
from tests.system.clients import REFUSED, Clients
from tests.system.service import CONFIG, DROP_INS
from tests.system.site import CONFIG as WANTED
from tests.system.site import Site, seen
from tests.system.wheels import NEXT_VERSION, build_wheel

BROKEN_VERSION = f"{__version__}.post2"
OTHER_RULE = ("PREROUTING", "-i", "eth0", "-p", "tcp", "--dport", "2222", "-j", "DNAT", "--to", "10.0.1.230:22")
NEW_PORT, LOW_PORT = 6491, 1023
BIND_SERVICE, NOTHING = f"{1 << 10:016x}", f"{0:016x}"
"""Sets of capabilities as /proc shows them: CAP_NET_BIND_SERVICE alone, and none."""


def with_static(*more: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the config's static routes, and more."""
    return [*WANTED["static"], *more]


def route(name: str, port: int) -> Mapping[str, Any]:
    """Return one more way to the guide's second node."""
    return {"name": name, "port": port, "target": f"{GUIDE_NODES[1]}:{REDIS_PORT}"}


def refused(clients: Clients) -> list[str]:
    """Return who was kept out."""
    return [failure.kind for failure in clients.failures.all() if failure.kind.startswith(REFUSED)]


def test_a_check_of_a_bare_machine_tells_what_would_be_done_and_does_nothing(site: Site) -> None:
    assert len(site.first.check.changed) > 5
    assert site.first.checked == site.first.bare


def test_a_second_run_changes_nothing(site: Site) -> None:
    assert site.first.run.changed
    pid = site.service.pid
    again = site.operator.play(site.variables).succeeded()
    assert (again.changed, again.recap["changed"]) == ([], 0)
    assert site.service.pid == pid


def test_a_check_of_an_installed_machine_shows_the_difference_and_makes_none(site: Site) -> None:
    before, config, pid = seen(site.machine), site.machine.read(CONFIG), site.service.pid
    wanted = site.but(static=with_static(route("more", NEW_PORT)))
    play = site.operator.play(wanted, "--check", "--diff").succeeded()
    assert any(line.startswith("+") and str(NEW_PORT) in line for line in play.output.splitlines())
    assert play.recap["changed"] > 0
    assert (seen(site.machine), site.machine.read(CONFIG), site.service.pid) == (before, config, pid)


def test_a_changed_config_is_reloaded_and_a_bad_one_refused(site: Site) -> None:
    pid = site.service.pid
    with site.clients() as clients:
        site.operator.play(site.but(static=with_static(route("more", NEW_PORT)))).succeeded()
        assert site.network.ask_redis(LAPTOP, PUBLIC_IP, NEW_PORT) == GUIDE_NODES[1]
        config = site.machine.read(CONFIG)
        bad = site.operator.play(site.but(static=with_static({"name": "bad", "port": 99999, "target": "x"}))).failed()
        assert "static[1].port" in bad.output
        assert site.machine.read(CONFIG) == config
        clients.wait_for_more()
    assert clients.failed() == []
    assert site.service.pid == pid


def test_a_port_below_1024_comes_with_one_capability_which_goes_with_it(site: Site) -> None:
    with site.clients() as clients:
        site.operator.play(site.but(static=with_static(route("low", LOW_PORT)))).succeeded()
        assert site.network.ask_redis(LAPTOP, PUBLIC_IP, LOW_PORT) == GUIDE_NODES[1]
        assert site.machine.exists(f"{DROP_INS}/low-ports.conf")
        for pid in (site.service.pid, *site.service.children()):
            status = site.service.status(pid)
            assert {status[name] for name in ("CapBnd", "CapEff", "CapPrm")} == {BIND_SERVICE}
        site.operator.play(site.variables).succeeded()
        assert not site.machine.exists(f"{DROP_INS}/low-ports.conf")
        assert site.service.status(site.service.pid)["CapBnd"] == NOTHING
        clients.wait_for_more()
    assert clients.failed() == []
    with pytest.raises(ConnectionRefusedError):
        site.network.connect(LAPTOP, PUBLIC_IP, LOW_PORT)


def test_an_upgrade_and_the_way_back_move_no_port_and_refuse_nobody(site: Site) -> None:
    before, first = site.service.targets(), site.machine.run("readlink", "/opt/natproxy/current")
    wheel = build_wheel(NEXT_VERSION, site.operator.directory / "wheels")
    with site.clients() as clients:
        site.operator.play({**site.variables, "natproxy_wheel": str(wheel)}).succeeded()
        assert site.machine.run("natproxy", "--version").split()[-1] == NEXT_VERSION
        assert site.machine.run("readlink", "/opt/natproxy/previous") == first
        assert site.service.targets() == before
        clients.wait_for_more()

        back = {**site.variables, "natproxy_state": "rolled_back"}
        site.operator.play(back).succeeded()
        assert site.machine.run("natproxy", "--version").split()[-1] == __version__
        assert site.machine.run("readlink", "/opt/natproxy/current") == first
        assert site.service.targets() == before
        clients.wait_for_more()
    assert clients.failed() == []


def test_a_version_that_does_not_serve_is_taken_back_by_itself(site: Site) -> None:
    before, first = site.service.targets(), site.machine.run("readlink", "/opt/natproxy/current")
    wheel = build_wheel(BROKEN_VERSION, site.operator.directory / "wheels", broken=True)
    with site.clients() as clients:
        play = site.operator.play({**site.variables, "natproxy_wheel": str(wheel)}).failed()
        assert "this version is broken" in play.output
        site.service.wait_for_routes(len(before))
        assert site.machine.run("readlink", "/opt/natproxy/current") == first
        assert site.service.targets() == before
        clients.wait_for_more()
    assert refused(clients) == []


@pytest.fixture
def rules(site: Site) -> Iterator[list[str]]:
    """The guide's rules and one that is not, in the kernel and for the next boot, as iptables-save has them."""
    site.network.install_guide_rules()
    site.network.run(NAT, ["iptables", "-t", "nat", "-A", *OTHER_RULE])
    saved = site.machine.run("iptables-save", "-t", "nat")
    site.machine.put("/etc/iptables/rules.v4", saved)
    yield rules_of(saved)
    site.network.run(NAT, ["iptables", "-t", "nat", "-F"])
    site.machine.run("rm", "-r", "/etc/iptables")


def rules_of(saved: str) -> list[str]:
    """Return the rules of what iptables-save printed."""
    return [line for line in saved.splitlines() if line.startswith("-A ")]


def test_the_guides_dnat_rules_go_and_nothing_else_of_nat(site: Site, rules: list[str]) -> None:
    network, machine = site.network, site.machine
    play = site.operator.play({**site.variables, "natproxy_remove_dnat": True}).succeeded()
    left = [rule for rule in rules if not rule.startswith("-A PREROUTING") or "--dport 2222" in rule]
    assert (len(rules), len(left)) == (8, 2)
    assert rules_of(machine.run("iptables-save", "-t", "nat")) == left, play.output
    assert rules_of(machine.read("/etc/iptables/rules.v4")) == left
    assert machine.read("/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert [network.ask_redis(LAPTOP, PUBLIC_IP, port) for port in REDIS_PORTS] == list(GUIDE_NODES)
    eventually(lambda: site.service.heard("connection ended", port=REDIS_PORTS[2]), "natproxy served it")
