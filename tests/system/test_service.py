"""natproxy as the machine's service: reached from the laptop, sandboxed, restarted and reloaded under clients."""

from __future__ import annotations

import re
import urllib.request

import pytest

from tests.network.guide import GUIDE_NODES, LAPTOP, MEMCACHED_PORTS, NAT, PUBLIC_IP, REDIS_PORTS, GuideNetwork
from tests.network.natproxy import ADMIN_PORT
from tests.scenarios.peers import Talk
from tests.scenarios.waiting import eventually
from tests.system.clients import Clients
from tests.system.machine import Machine
from tests.system.service import CONFIG, STATE_DIRECTORY, Service
from tests.system.site import TLS_PORT, Site

NOTHING = "0" * 16
"""A set of no capability, in /proc."""
MOST_EXPOSED = 15
"""What `systemd-analyze security` may say at most, times ten."""


def test_the_laptop_reaches_every_node_through_the_service(site: Site) -> None:
    network, service = site.network, site.service
    assert service.show("ActiveState") == "active"
    assert service.show("UnitFileState") == "enabled"
    for port, node in zip(REDIS_PORTS, GUIDE_NODES, strict=True):
        cli = ["redis-cli", "-h", PUBLIC_IP, "-p", str(port)]
        assert network.run(LAPTOP, [*cli, "PING"]).stdout == "PONG\n"
        assert network.run(LAPTOP, [*cli, "GET", "who"]).stdout == f"{node}\n"
    assert [network.ask_memcached(LAPTOP, PUBLIC_IP, port) for port in MEMCACHED_PORTS] == list(GUIDE_NODES)
    plain = network.connect(LAPTOP, PUBLIC_IP, TLS_PORT)
    with Talk(site.client_tls().wrap_socket(plain, server_hostname=PUBLIC_IP)) as secret:
        assert secret.ping()
    with Talk(network.connect(LAPTOP, PUBLIC_IP, TLS_PORT)) as plain_talk:
        plain_talk.say(b"PING\r\n")
        assert plain_talk.ended() in {"eof", "reset"}


def test_it_says_how_it_is_where_operators_look(network: GuideNetwork, service: Service) -> None:
    def readiness() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_PORT}/readyz", timeout=5) as answer:
            return int(answer.status)

    assert network.inside(NAT, readiness) == 200
    assert service.show("StatusText")
    assert "my-redis" in service.machine.run("natproxy", "routes")


def test_it_runs_as_its_own_user_without_any_capability(service: Service) -> None:
    uid, gid = (service.machine.run("id", option, "natproxy").strip() for option in ("--user", "--group"))
    workers = service.children()
    assert workers
    for pid in (service.pid, *workers):
        status = service.status(pid)
        assert set(status["Uid"].split()) == {uid}
        assert set(status["Gid"].split()) == {gid}
        assert set(status["Groups"].split()) <= {gid}
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {NOTHING}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_its_files_are_for_it_alone(machine: Machine, service: Service) -> None:
    assert machine.run("stat", "--format=%a %U:%G", STATE_DIRECTORY) == "700 natproxy:natproxy\n"
    assert machine.run("stat", "--format=%a %U:%G", CONFIG) == "640 root:natproxy\n"
    assert machine.run("stat", "--format=%a %U:%G", "/etc/natproxy/tls/server.key") == "640 root:natproxy\n"
    # Nothing of its own program is its own to change.
    assert (
        machine.run("find", "/opt/natproxy", "(", "-user", "natproxy", "-o", "-perm", "/022", ")", "!", "-type", "l")
        == ""
    )
    for path in ("/etc/natproxy/x", "/opt/natproxy/x", "/usr/x"):
        touched = machine.attempt("nsenter", f"--target={service.pid}", "--mount", "--", "touch", path)
        assert "Read-only file system" in touched.stderr


def test_systemd_finds_it_little_exposed_and_its_unit_without_fault(machine: Machine, service: Service) -> None:
    verdict = machine.run(
        "systemd-analyze", "security", f"--threshold={MOST_EXPOSED}", "--no-pager", "natproxy.service"
    )
    assert re.search(r"Overall exposure level for natproxy.service: [01]\.\d", verdict)
    checked = machine.attempt("systemd-analyze", "verify", "/etc/systemd/system/natproxy.service")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_restart_refuses_and_resets_nobody(service: Service, clients: Clients) -> None:
    before = service.targets()
    for _ in range(4):
        pid = service.pid
        service.control("restart")
        assert service.pid not in {0, pid}
        clients.wait_for_more()
    assert clients.failed() == []
    assert service.targets() == before


def test_whoever_stays_is_given_time_at_a_restart_and_then_told(network: GuideNetwork, service: Service) -> None:
    with Talk(network.connect(LAPTOP, PUBLIC_IP, REDIS_PORTS[0])) as staying:
        assert staying.ping()
        service.control("restart")
        assert staying.ended() in {"eof", "reset"}
    assert service.show("Result") == "success"
    assert not service.heard("traceback")


def test_a_reload_is_not_noticed_by_anybody(network: GuideNetwork, service: Service, clients: Clients) -> None:
    before, pid = service.targets(), service.pid
    with Talk(network.connect(LAPTOP, PUBLIC_IP, REDIS_PORTS[0])) as staying:
        for _ in range(4):
            service.control("reload")
            clients.wait_for_more()
            assert staying.ping()
    assert clients.failed() == []
    assert (service.targets(), service.pid) == (before, pid)


def test_a_reload_of_a_bad_file_fails_and_is_explained_and_changes_nothing(service: Service, clients: Clients) -> None:
    good, before, pid = service.machine.read(CONFIG), service.targets(), service.pid
    service.write_config(f"{good}\nno_such_key: 1\n")
    try:
        with pytest.raises(RuntimeError, match=r"systemctl reload natproxy\.service ended with 1"):
            service.control("reload")
        eventually(lambda: any("no_such_key" in line for line in service.said()), "the journal names the mistake")
        assert service.show("ActiveState") == "active"
        clients.wait_for_more()
        assert clients.failed() == []
        assert (service.targets(), service.pid) == (before, pid)
    finally:
        service.write_config(good)
    service.control("reload")


def test_a_start_with_a_bad_file_fails_once_and_is_not_tried_again(service: Service) -> None:
    good, before = service.machine.read(CONFIG), service.targets()
    service.write_config("clients: 5\n")
    try:
        with pytest.raises(RuntimeError, match="ended with 1"):
            service.control("restart")
        assert (service.show("ActiveState"), service.show("ExecMainStatus")) == ("failed", "2")
        assert any(f"{CONFIG}:1" in line for line in service.said())
    finally:
        service.write_config(good)
    service.control("start")
    service.wait_for_routes(len(before))
    assert service.targets() == before
