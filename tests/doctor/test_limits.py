from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest

from natproxy.config import Config
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.limits import DESCRIPTORS_OF_ITS_OWN, keepalive_findings, limit_findings, most_connections
from tests.doctor.test_settings import write
from tests.plan.samples import config as load

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def config(text: str = "", *, state_dir: str = "/nonexistent/natproxy", connections: int = 4096) -> Config:
    clients = f"clients: {{allow: 198.51.100.27/32, max_connections: {connections}}}\n"
    return load(f"state_dir: {state_dir}\n{clients}" + (text or "caches: [{id: my-redis, ports: 6379-6388}]\n"))


@pytest.fixture
def system(tmp_path: Path) -> Path:
    found = tmp_path / "sys"
    write(found, "net.core.somaxconn", "4096\n")
    write(found, "net.netfilter.nf_conntrack_max", "65536\n")
    write(found, "net.netfilter.nf_conntrack_count", "100\n")
    write(found, "net.netfilter.nf_conntrack_tcp_timeout_established", "432000\n")
    return found


def by_subject(found: list[Finding]) -> dict[str, Finding]:
    assert all(one.check in {Check.LIMITS, Check.KEEPALIVE} for one in found)
    assert all(bool(one.mend) is (one.verdict is not Verdict.GOOD) for one in found)
    return {one.subject: one for one in found}


def test_a_host_that_is_well(system: Path) -> None:
    found = by_subject(limit_findings(config(connections=100), 9, system))
    assert {name: one.verdict for name, one in found.items()} == {
        "descriptors": Verdict.GOOD,
        "backlog": Verdict.GOOD,
        "connection tracking": Verdict.GOOD,
    }
    assert found["connection tracking"].evidence == "100 of 65536 tracked connections"


def test_connections_of_entries_with_limits_of_their_own_come_on_top() -> None:
    text = (
        "caches:\n  - {id: my-redis, ports: 6379-6388, clients: {max_connections: 50}}\n"
        "  - {id: my-memcached, ports: 11211-11220}\n"
    )
    assert most_connections(config(text, connections=100)) == 150


def test_too_few_descriptors_for_a_process_started_from_here(system: Path) -> None:
    if HARD == resource.RLIM_INFINITY:
        pytest.skip("this process may have any number of descriptors")
    connections = min(HARD, 1_000_000)
    found = by_subject(limit_findings(config(connections=connections), 9, system))["descriptors"]
    assert found.verdict is Verdict.WARNING
    assert f"LimitNOFILE={2 * connections + 9 + DESCRIPTORS_OF_ITS_OWN}" in found.mend
    assert "from here" in found.evidence


def test_the_running_natproxy_s_own_limit_counts(system: Path, tmp_path: Path) -> None:
    if HARD == resource.RLIM_INFINITY:
        pytest.skip("this process may have any number of descriptors")
    with socket.socket(socket.AF_UNIX) as sock:  # this process stands in for the daemon
        sock.bind(str(tmp_path / "control.sock"))
        sock.listen()
        found = by_subject(limit_findings(config(state_dir=str(tmp_path), connections=10), 9, system))["descriptors"]
    assert found.verdict is Verdict.GOOD
    assert f"the running natproxy (pid {os.getpid()}) may have {HARD} descriptors open" in found.evidence


def test_a_short_backlog(system: Path) -> None:
    write(system, "net.core.somaxconn", "128\n")
    found = by_subject(limit_findings(config(connections=10), 9, system))["backlog"]
    assert (found.verdict, "net.core.somaxconn = 4096" in found.mend) == (Verdict.WARNING, True)


@pytest.mark.parametrize(
    ("count", "connections", "verdict"),
    [
        (65535, 10, Verdict.BAD),
        (62300, 10, Verdict.BAD),
        (60000, 10, Verdict.WARNING),
        (100, 40_000, Verdict.WARNING),
        (100, 30_000, Verdict.GOOD),
    ],
)
def test_the_table_of_tracked_connections(system: Path, count: int, connections: int, verdict: Verdict) -> None:
    write(system, "net.netfilter.nf_conntrack_count", f"{count}\n")
    found = by_subject(limit_findings(config(connections=connections), 9, system))["connection tracking"]
    assert found.verdict is verdict
    if verdict is not Verdict.GOOD:
        assert "nf_conntrack_max = " in found.mend


def test_no_tracking_is_good(tmp_path: Path) -> None:
    found = by_subject(limit_findings(config(connections=10), 9, tmp_path))
    assert found["connection tracking"].verdict is Verdict.GOOD
    assert "backlog" not in found


def keepalive(system: Path, text: str) -> dict[str, Finding]:
    return by_subject(keepalive_findings(config(text + "\ncaches: [{id: my-redis, ports: 6379-6388}]"), system))


def test_keepalive_below_what_ec2_forgets_after(system: Path) -> None:
    assert keepalive(system, "")[""].verdict is Verdict.GOOD
    assert keepalive(system, "timeouts: {keepalive: 349s}")[""].verdict is Verdict.GOOD


def test_keepalive_that_comes_too_late(system: Path) -> None:
    found = keepalive(system, "timeouts: {keepalive: 10m}")[""]
    assert (found.verdict, "350 s" in found.evidence) == (Verdict.WARNING, True)
    assert "timeouts.keepalive" in found.mend


def test_an_idle_limit_that_comes_first_makes_it_good(system: Path) -> None:
    assert keepalive(system, "timeouts: {keepalive: 10m, idle: 300s}")[""].verdict is Verdict.GOOD


def test_an_entry_of_its_own_and_a_kernel_that_forgets_sooner(system: Path) -> None:
    write(system, "net.netfilter.nf_conntrack_tcp_timeout_established", "60\n")
    text = (
        "clients: {allow: 198.51.100.27/32}\ncaches: [{id: my-redis, ports: 6379-6388, timeouts: {keepalive: 90s}}]\n"
    )
    found = by_subject(keepalive_findings(load(text), system))
    assert list(found) == ["my-redis"]
    assert "this kernel forgets a connection that is idle for 60 s" in found["my-redis"].evidence
