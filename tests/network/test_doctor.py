"""The doctor in the guide's network: silent nodes, left-over rules, and what the laptop sees of natproxy."""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

import pytest

from tests.network.aws import MEMCACHED_ID, REDIS_ID, GuideAws
from tests.network.conftest import StartNatproxy
from tests.network.guide import (
    GUIDE_NODES,
    LAPTOP,
    LAPTOP_IP,
    MEMCACHED_PORTS,
    NAT,
    NODES,
    PUBLIC_IP,
    REDIS_PORT,
    REDIS_PORTS,
    GuideCaches,
    GuideNetwork,
)
from tests.network.natproxy import GUIDE_CONFIG, ROOT

pytestmark = pytest.mark.root

LOCAL = ("names", "reach", "node-tls", "ports", "leftover-rules", "clients", "limits", "keepalive")
"""The checks that are looked at here; what AWS knows is another file's."""
PORTS = f"{','.join(map(str, REDIS_PORTS))},{','.join(map(str, MEMCACHED_PORTS))}"
DROP = """
table inet doctor {{
    chain input {{ type filter hook input priority 0; {rule}; }}
}}
"""


class Found(NamedTuple):
    """One finding, as the command prints it."""

    check: str
    subject: str
    verdict: str
    evidence: str
    mend: str


class Doctor:
    """The command, run in the guide's namespaces."""

    def __init__(self, network: GuideNetwork, aws: GuideAws, caches: GuideCaches) -> None:
        self.network = network
        self._environ = aws.instance_environ
        self.caches = caches
        self._path = network.directory / "doctor.yaml"
        state_dir = network.directory / "natproxy" / "state"  # where GuideProxy has it
        written: dict[str, Any] = {**GUIDE_CONFIG, "state_dir": str(state_dir), "timeouts": {"connect": "500ms"}}
        # The file has the limits of a small instance: those of the machine that runs the tests are not the point.
        written["clients"] = {"allow": [f"{LAPTOP_IP}/32"], "max_connections": 100}
        self._path.write_text(json.dumps(written), encoding="utf-8")

    def look(self) -> list[Found]:
        """Return what it finds on the NAT instance."""
        found = [one for one in self._run(NAT, "-c", str(self._path)) if one.check in LOCAL]
        assert {one.check for one in found} == set(LOCAL)
        return found

    def troubles(self) -> list[Found]:
        """Return what is not good on the NAT instance."""
        return [one for one in self.look() if one.verdict != "good"]

    def from_laptop(self, ports: str = PORTS) -> list[Found]:
        """Return what it finds from the laptop."""
        return self._run(LAPTOP, "--from-client", PUBLIC_IP, "--ports", ports)

    def _run(self, where: str, *words: str) -> list[Found]:
        environ = [f"{name}={value}" for name, value in self._environ.items()] if where == NAT else []
        argv = ["env", f"PYTHONPATH={ROOT}", *environ, sys.executable, "-m", "natproxy", "doctor", "--json", *words]
        done = self.network.run(where, argv, check=False, seconds=60)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in {0, 1}, done.stderr
        return [Found(**one) for one in json.loads(done.stdout)["findings"]]


@pytest.fixture
def doctor(guide_network: GuideNetwork, guide_aws: GuideAws, guide_caches: GuideCaches) -> Doctor:
    return Doctor(guide_network, guide_aws, guide_caches)


def drop(network: GuideNetwork, where: str, rule: str) -> None:
    """Let a namespace drop what comes in by this rule."""
    network.run(where, ["nft", "-f", "-"], stdin=DROP.format(rule=rule))


def undo(network: GuideNetwork, where: str) -> None:
    network.run(where, ["nft", "delete", "table", "inet", "doctor"])


def at_fault(found: Found) -> str:
    return found.evidence.rpartition("at fault: ")[2]


def only_bad(found: list[Found]) -> Found:
    (one,) = [one for one in found if one.verdict == "bad"]
    return one


# on the NAT instance


def test_the_guide_s_healthy_network_and_then_a_node_that_is_silent(doctor: Doctor) -> None:
    assert doctor.troubles() == []
    doctor.network.silence(GUIDE_NODES[1])
    silent = doctor.troubles()
    assert {(one.check, one.subject) for one in silent} >= {
        ("reach", f"{REDIS_ID}-002/0001"),
        ("reach", f"{MEMCACHED_ID}/0002"),
    }
    assert {one.check for one in silent} == {"reach"}
    found = next(one for one in silent if one.subject == f"{REDIS_ID}-002/0001")
    assert f"{GUIDE_NODES[1]}:{REDIS_PORT}" in found.evidence
    assert "no answer within 0.5 s" in found.evidence
    doctor.network.unsilence(GUIDE_NODES[1])
    assert doctor.troubles() == []


def test_a_security_group_that_drops_one_port(doctor: Doctor) -> None:
    drop(doctor.network, NODES, f"ip daddr {GUIDE_NODES[2]} tcp dport {REDIS_PORT} drop")
    found = doctor.troubles()
    assert ("reach", f"{REDIS_ID}-003/0001") in {(one.check, one.subject) for one in found}
    assert not [one for one in found if MEMCACHED_ID in one.subject]


def test_an_address_that_nobody_has(doctor: Doctor) -> None:
    doctor.network.take_address(GUIDE_NODES[1])
    found = next(one for one in doctor.troubles() if one.subject == f"{REDIS_ID}-002/0001")
    assert (found.check, found.verdict) == ("reach", "bad")
    assert GUIDE_NODES[1] in found.evidence


def test_left_over_rules_of_the_guide(doctor: Doctor) -> None:
    doctor.network.install_guide_rules()
    found = doctor.troubles()
    assert {one.check for one in found} == {"leftover-rules"}
    assert [one.subject for one in found] == [f"port {port}" for port in (*REDIS_PORTS, *MEMCACHED_PORTS)]
    first = found[0]
    assert first.verdict == "bad"
    assert f"({REDIS_ID}-001/0001)" in first.evidence
    assert f"to {GUIDE_NODES[0]}:{REDIS_PORT} before natproxy sees them" in first.evidence
    command = first.mend.removeprefix("sudo ").partition(";")[0]
    assert command.startswith("iptables -t nat -D PREROUTING -i eth0 -p tcp ")
    for one in found:  # the doctor's word, taken by its letter
        doctor.network.run(NAT, one.mend.removeprefix("sudo ").partition(";")[0].split())
    assert doctor.troubles() == []


def test_left_over_rules_of_nft(doctor: Doctor) -> None:
    rule = f'iifname "eth0" tcp dport {REDIS_PORTS[1]} dnat to {GUIDE_NODES[1]}:{REDIS_PORT}'
    table = f"table ip old {{\nchain pre {{ type nat hook prerouting priority -100; {rule}; }}\n}}\n"
    doctor.network.run(NAT, ["nft", "-f", "-"], stdin=table)
    (found,) = doctor.troubles()
    assert (found.check, found.subject, found.verdict) == ("leftover-rules", f"port {REDIS_PORTS[1]}", "bad")
    assert GUIDE_NODES[1] in found.evidence


# from the laptop


def test_from_the_laptop_all_is_well(doctor: Doctor, start_natproxy: StartNatproxy) -> None:
    start_natproxy()
    found = doctor.from_laptop()
    assert [one for one in found if one.verdict != "good"] == []
    engines = {one.subject: one.evidence for one in found if one.check == "engine"}
    assert engines[f"ports {REDIS_PORTS[0]}-{REDIS_PORTS[-1]}"] == "Redis or Valkey answers a PING: +PONG"
    assert engines[f"ports {MEMCACHED_PORTS[0]}-{MEMCACHED_PORTS[-1]}"].startswith("memcached answers: VERSION")
    assert [one.evidence for one in found if one.check == "route"] == [f"packets to {PUBLIC_IP} leave from {LAPTOP_IP}"]


def test_from_the_laptop_security_groups_that_drop(doctor: Doctor, start_natproxy: StartNatproxy) -> None:
    start_natproxy()
    drop(doctor.network, NAT, f"iifname eth0 tcp dport {REDIS_PORTS[1]} drop")
    found = only_bad(doctor.from_laptop())
    assert (found.check, found.subject, at_fault(found)) == (
        "reach",
        f"port {REDIS_PORTS[1]}",
        "the network between",
    )
    assert "while other ports of it answer" in found.evidence
    undo(doctor.network, NAT)
    drop(doctor.network, NAT, "iifname eth0 tcp dport 1-65535 drop")
    found = only_bad(doctor.from_laptop())
    assert at_fault(found) == "the network between"
    assert "nor does any other" in found.evidence
    assert "security group" in found.mend


def test_from_the_laptop_a_cache_that_is_silent(doctor: Doctor, start_natproxy: StartNatproxy) -> None:
    start_natproxy(timeouts={"connect": "1500ms"})
    doctor.network.silence(GUIDE_NODES[1])
    found = only_bad(doctor.from_laptop())
    assert (found.check, found.subject, at_fault(found)) == (
        "engine",
        f"ports {REDIS_PORTS[1]}, {MEMCACHED_PORTS[1]}",
        "the cache behind natproxy",
    )
    assert at_fault(only_bad(doctor.from_laptop(str(REDIS_PORTS[1])))) == "the cache behind natproxy"


def test_from_the_laptop_a_cache_that_hangs(doctor: Doctor, start_natproxy: StartNatproxy) -> None:
    start_natproxy()
    with doctor.network.connect(NODES, GUIDE_NODES[0], REDIS_PORT) as sleeper:
        sleeper.sendall(b"DEBUG SLEEP 25\r\n")
        found = only_bad(doctor.from_laptop(str(REDIS_PORTS[0])))
        assert (found.check, at_fault(found)) == ("engine", "the cache behind natproxy")
        assert "says nothing" in found.evidence
        doctor.caches.redis[GUIDE_NODES[0]].kill()


def test_from_the_laptop_an_address_that_is_not_let_in(doctor: Doctor, start_natproxy: StartNatproxy) -> None:
    start_natproxy(clients={"allow": ["192.0.2.1/32"]})
    found = only_bad(doctor.from_laptop())
    assert (found.check, at_fault(found)) == ("engine", "natproxy or the cache behind it")
    assert "clients.allow" in found.mend


def test_from_the_laptop_no_natproxy_and_no_route(doctor: Doctor) -> None:
    found = only_bad(doctor.from_laptop())
    assert (found.check, at_fault(found)) == ("reach", "natproxy")
    assert "refuses" in found.evidence
    doctor.network.namespaces.ip(LAPTOP, "route", "delete", f"{PUBLIC_IP}/32", "dev", "eth0")
    found = only_bad(doctor.from_laptop())
    assert (found.check, at_fault(found)) == ("route", "the client side")
    assert f"no route to {PUBLIC_IP}" in found.evidence
