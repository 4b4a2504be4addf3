"""`natproxy doctor` and this host, its nodes and its certificates; and the same from a client's side.

Each thing is broken by itself, in front of a natproxy that really runs (or does not), and seen by the real command.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.tlspeers import Papers, prepare_tls
from tests.scenarios.waiting import eventually
from tests.standins.certificates import Authority
from tests.standins.cloud import Cloud

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")

CLEAR, SECRET = "alone", "secret"
CLEAR_PORT, SECRET_PORT = FIRST_PORT, FIRST_PORT + 10
LOCAL = ("names", "reach", "node-tls", "ports", "certificate", "clients", "limits", "keepalive")
"""The checks that are looked at here; what AWS knows is another file's."""
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)


class Found(NamedTuple):
    """One finding, as the command prints it."""

    check: str
    subject: str
    verdict: str
    evidence: str
    mend: str


def run(daemon: Daemon, *words: str, environ: Mapping[str, str] | None = None) -> list[Found]:
    """Return what the command finds; its exit status has to fit. ``environ``: the shell's, in place of the daemon's."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "natproxy", "doctor", "--json", *words],
        env={**os.environ, **daemon.environ} if environ is None else environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found = [Found(**one) for one in json.loads(done.stdout)["findings"]]
    assert done.returncode == int(any(one.verdict == "bad" for one in found)), done.stderr
    assert all(one.mend for one in found if one.verdict in {"bad", "warning"})
    assert not [one for one in found if "check itself failed" in one.evidence]
    return found


def look(daemon: Daemon) -> list[Found]:
    """Return what the doctor finds of this host."""
    found = [one for one in run(daemon, "-c", str(daemon.path)) if one.check in LOCAL]
    assert {one.check for one in found} == set(LOCAL)
    return found


def troubles(daemon: Daemon) -> list[Found]:
    return [one for one in look(daemon) if one.verdict != "good"]


def only_trouble(daemon: Daemon) -> Found:
    (found,) = troubles(daemon)
    return found


class House:
    """A cache in the clear and one with TLS, and a natproxy that is ready to serve them with its own TLS."""

    def __init__(self, natproxies: Natproxies, cloud: Cloud, directory: Path) -> None:
        self.cloud = cloud
        ca = directory / "amazon.crt"
        ca.write_bytes(cloud.authority.pem)
        self.daemon, self.papers = prepare_tls(
            natproxies,
            cloud,
            environ=cloud.instance_environ,
            caches=[
                {"id": CLEAR, "ports": f"{CLEAR_PORT}-{CLEAR_PORT}", "clients": {"tls": "off"}},
                {"id": SECRET, "ports": f"{SECRET_PORT}-{SECRET_PORT}", "nodes": {"ca": str(ca)}},
            ],
            clients={"max_connections": 100, "allow": ["127.0.0.0/8"]},
        )
        self.daemon.config["public_host"] = self.daemon.ip

    def start(self) -> Daemon:
        """Let natproxy run, and wait until it knows where its ports lead."""
        daemon = self.daemon.start()
        eventually(lambda: daemon.get("/readyz")[0] == 200, "AWS has answered")
        eventually(lambda: all(one.addresses or one.reason for one in daemon.routes().values()), "names are resolved")
        return daemon

    def write(self) -> Daemon:
        """Write the config only: natproxy does not run."""
        self.daemon.write()
        return self.daemon

    def name_of(self, cluster_id: str) -> str:
        """Return the node's host name."""
        return self.cloud.world.node_host(cluster_id)

    def from_client(self, *words: str, papers: bool = True) -> list[Found]:
        """Look from a client's side: at both ports, and with the developer's papers."""
        ca, certificate, key = self.client_files()
        shown = ("--ca", ca, "--cert", certificate, "--key", key) if papers else ()
        ports = () if "--ports" in words else ("--ports", f"{CLEAR_PORT},{SECRET_PORT}")
        return run(self.daemon, "--from-client", self.daemon.ip, *ports, *shown, *words)

    def client_files(self) -> tuple[str, str, str]:
        """Return the files of ca, certificate and key that a developer is handed."""
        certificate, key = self.papers.dev.write(self.papers.directory, "dev1")
        ca = self.papers.directory / "servers.crt"
        ca.write_bytes(self.papers.servers.pem)
        return str(ca), str(certificate), str(key)


@pytest.fixture
def house(natproxy: Natproxies, cloud: Cloud, tmp_path: Path) -> House:
    cloud.standalone(CLEAR)
    cloud.standalone(SECRET, tls="required")
    return House(natproxy, cloud, tmp_path)


def test_a_healthy_natproxy_that_runs_and_one_that_does_not_yet(house: House) -> None:
    assert troubles(house.write()) == []
    found = look(house.start())
    assert [one for one in found if one.verdict != "good"] == []
    ports = [one.evidence for one in found if one.check == "ports" and "runs" in one.evidence]
    assert ports == [f"natproxy runs and listens on {port}" for port in (CLEAR_PORT, SECRET_PORT)]


def test_a_natproxy_that_has_its_way_to_aws_in_its_own_environment_only(house: House) -> None:
    daemon = house.start()
    shell = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    elsewhere = {"AWS_REGION": "eu-west-3", "AWS_PROFILE": "mine", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    found = run(daemon, "-c", str(daemon.path), environ={**shell, **elsewhere})
    of_aws = [one for one in found if one.check in {"credentials", "permissions", "caches"}]
    assert {one.check for one in of_aws} == {"credentials", "permissions", "caches"}
    assert [one for one in of_aws if one.verdict != "good"] == []
    asked = f", with the environment of the running natproxy (pid {daemon.process.pid})"
    assert [one.check for one in found if one.evidence.endswith(asked)] == ["credentials"]


# the nodes


@pytest.mark.parametrize(
    ("fault", "evidence", "mend"),
    [
        ("nxdomain", "the name does not exist", "enableDnsSupport"),
        ("servfail", "the DNS server failed", "dig"),
        ("silent", "the DNS server does not answer", "dig"),
    ],
)
def test_a_name_that_does_not_resolve(house: House, fault: Any, evidence: str, mend: str) -> None:
    house.cloud.dns.fail(house.name_of(CLEAR), fault)
    name, reach = troubles(house.write())
    assert (name.check, name.subject, name.verdict) == ("names", f"{CLEAR}/0001", "bad")
    assert evidence in name.evidence
    assert f"asked of {house.cloud.resolver}" in name.evidence
    assert mend in name.mend
    assert (reach.check, reach.verdict) == ("reach", "unknown")


def test_a_node_that_refuses(house: House) -> None:
    house.cloud.kill(CLEAR)
    found = only_trouble(house.write())
    assert (found.check, found.subject, found.verdict) == ("reach", f"{CLEAR}/0001", "bad")
    assert "refuses connections" in found.evidence


def other_name(house: House) -> None:
    house.cloud.show_certificate(house.cloud.authority.issue("node", dns=["other.example.com"]), SECRET)


def other_issuer(house: House) -> None:
    house.cloud.show_certificate(Authority("Other CA").issue("node", dns=[house.name_of(SECRET)]), SECRET)


def expired(house: House) -> None:
    issued = house.cloud.authority.issue(
        "node", dns=[house.name_of(SECRET)], not_before=NOW - 9 * DAY, not_after=NOW - DAY
    )
    house.cloud.show_certificate(issued, SECRET)


@pytest.mark.parametrize(
    ("break_it", "evidence", "mend"),
    [
        (other_name, "it is for other.example.com", "nodes.server_name"),
        (other_issuer, "issued by CN=Other CA, which no CA in nodes.ca", "add that CA's certificate"),
        (expired, "expired", "renewed"),
    ],
)
def test_a_node_s_certificate(house: House, break_it: Callable[[House], None], evidence: str, mend: str) -> None:
    break_it(house)
    found = only_trouble(house.write())
    assert (found.check, found.subject, found.verdict) == ("node-tls", f"{SECRET}/0001", "bad")
    assert evidence in found.evidence
    assert mend in found.mend


# this host


def test_a_port_that_another_process_has(house: House) -> None:
    with socket.create_server((house.daemon.ip, CLEAR_PORT)):
        found = only_trouble(house.write())
        assert (found.check, found.verdict) == ("ports", "bad")
        assert f"(pid {os.getpid()})" in found.evidence
        daemon = house.start()
        found = only_trouble(daemon)
        assert (found.check, found.subject, found.verdict) == ("ports", f"{CLEAR}/0001", "bad")
        assert f"port {CLEAR_PORT} is not open" in found.evidence


def test_another_natproxy_that_has_the_ports_is_one_finding(house: House, tmp_path: Path) -> None:
    daemon = house.start()
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({**daemon.config, "state_dir": str(tmp_path / "other")}))
    (found,) = [one for one in run(daemon, "-c", str(other)) if one.check == "ports" and one.verdict != "good"]
    assert found.subject == f"ports {CLEAR_PORT}, {SECRET_PORT}, {daemon.config['admin']['port']}"
    told = f"another natproxy runs here with -c {daemon.path} (pid {daemon.process.pid}) and has {found.subject}"
    assert (found.verdict, found.evidence) == ("bad", told)


def test_a_running_natproxy_with_too_few_descriptors(house: House) -> None:
    house.daemon.prefix = ("prlimit", "--nofile=1000")
    house.daemon.config["clients"]["max_connections"] = 500
    daemon = house.start()
    found = only_trouble(daemon)
    assert (found.check, found.subject, found.verdict) == ("limits", "descriptors", "warning")
    assert f"(pid {daemon.process.pid}) may have 1000 descriptors open" in found.evidence
    assert "LimitNOFILE=" in found.mend


def test_keepalive_that_comes_after_ec2_has_forgotten(house: House) -> None:
    house.daemon.config["timeouts"]["keepalive"] = "10m"
    found = only_trouble(house.write())
    assert (found.check, found.verdict) == ("keepalive", "warning")


# natproxy's own certificate


def own_expired(papers: Papers) -> None:
    papers.servers.issue("natproxy", ips=[papers.ip], not_before=NOW - 9 * DAY, not_after=NOW - DAY).write(
        papers.directory
    )


def own_for_others(papers: Papers) -> None:
    papers.servers.issue("natproxy", dns=["other.example.com"]).write(papers.directory)


def key_for_all(papers: Papers) -> None:
    (papers.directory / "server.key").chmod(0o644)


def list_over(papers: Papers) -> None:
    papers.crl.write_bytes(papers.clients.crl(this_update=NOW - 9 * DAY, next_update=NOW - DAY))


@pytest.mark.parametrize(
    ("break_it", "subject", "evidence"),
    [
        (own_expired, "tls.certificate", "has expired"),
        (own_for_others, "tls.certificate", "does not name"),
        (key_for_all, "tls.key", "mode 0644"),
        (list_over, "tls.crl", "is refused"),
    ],
)
def test_papers(house: House, break_it: Callable[[Papers], None], subject: str, evidence: str) -> None:
    break_it(house.papers)
    found = only_trouble(house.write())
    assert (found.check, found.subject, found.verdict) == ("certificate", subject, "bad")
    assert evidence in found.evidence


# from a client's side


@pytest.fixture(scope="module")
def served(module_natproxy: Natproxies, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A natproxy that runs and stays as it is."""
    with Cloud() as cloud:
        cloud.standalone(CLEAR)
        cloud.standalone(SECRET, tls="required")
        house = House(module_natproxy, cloud, tmp_path_factory.mktemp("served"))
        house.daemon.config["caches"][1]["clients"] = {"certificates": ["dev1"]}
        house.start()
        yield house


def bad(found: list[Found]) -> Found:
    (one,) = [one for one in found if one.verdict == "bad"]
    return one


def at_fault(found: Found) -> str:
    return found.evidence.rpartition("at fault: ")[2]


def test_from_a_client_that_is_let_in(served: House) -> None:
    found = served.from_client()
    clear = [one for one in found if one.verdict != "good"]
    assert [one.subject for one in clear] == [f"port {CLEAR_PORT}"]  # a bundle, and a port in the clear
    assert "in the clear" in clear[0].evidence
    assert [one.evidence for one in found if one.check == "engine"] == ["Redis or Valkey answers a PING: +PONG"]


def test_from_a_client_without_a_certificate(served: House) -> None:
    ca, _, _ = served.client_files()
    found = bad(served.from_client("--ca", ca, papers=False))
    assert (found.check, found.subject, at_fault(found)) == ("certificate", f"port {SECRET_PORT}", "the client side")
    assert "certificate required" in found.evidence
    assert "--bundle" in found.mend


def test_from_a_client_without_the_ca(served: House) -> None:
    found = bad(served.from_client(papers=False))
    assert "issued by CN=Servers CA" in found.evidence
    assert "--ca" in found.mend


def test_from_a_client_whose_certificate_has_no_name_that_is_let_in(served: House) -> None:
    certificate, key = served.papers.write(served.papers.clients.issue("dev2", usage="client"))
    found = bad(served.from_client("--cert", str(certificate), "--key", str(key), "--ports", str(SECRET_PORT)))
    assert (found.check, at_fault(found)) == ("engine", "natproxy or the cache behind it")
    assert "clients.certificates" in found.evidence


def test_from_a_client_with_an_expired_certificate(served: House) -> None:
    issued = served.papers.clients.issue("dev1", usage="client", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    certificate, key = served.papers.write(issued)
    found = served.from_client("--cert", str(certificate), "--key", str(key), "--ports", str(SECRET_PORT))
    assert [one.check for one in found if one.verdict == "bad"] == ["certificate", "certificate"]
    assert any("certificate expired" in one.evidence for one in found)


def test_from_a_client_with_a_certificate_of_another_ca(served: House) -> None:
    certificate, key = served.papers.write(Authority("Another CA").issue("dev1", usage="client"))
    found = bad(served.from_client("--cert", str(certificate), "--key", str(key), "--ports", str(SECRET_PORT)))
    assert "unknown ca" in found.evidence
    assert "new bundle" in found.mend


def test_from_a_client_that_dials_a_name_which_is_not_in_the_certificate(served: House) -> None:
    ca, certificate, key = served.client_files()
    words = ("--ports", str(SECRET_PORT), "--ca", ca, "--cert", certificate, "--key", key)
    found = bad(run(served.daemon, "--from-client", f"::ffff:{served.daemon.ip}", *words))
    assert (found.check, at_fault(found)) == ("certificate", "natproxy")
    assert f"it names cache.example.com, {served.daemon.ip}" in found.evidence


def test_from_a_client_that_tries_a_port_which_is_not_served(served: House) -> None:
    found = bad(served.from_client("--ports", f"{CLEAR_PORT},{CLEAR_PORT + 1}"))
    assert (found.check, found.subject, at_fault(found)) == ("reach", f"port {CLEAR_PORT + 1}", "natproxy")
    ranged = served.from_client("--ports", f"{CLEAR_PORT}-{CLEAR_PORT + 1}")
    assert [one for one in ranged if one.verdict == "bad"] == []


def test_from_a_client_of_a_node_that_is_dead(house: House) -> None:
    daemon = house.start()
    house.cloud.kill(CLEAR)
    found = bad(house.from_client())
    assert (found.check, found.subject, at_fault(found)) == (
        "engine",
        f"port {CLEAR_PORT}",
        "the cache behind natproxy",
    )
    found = bad(house.from_client("--ports", str(CLEAR_PORT)))
    assert (found.subject, at_fault(found)) == (f"port {CLEAR_PORT}", "natproxy or the cache behind it")
    assert "says whether the node is reached" in found.mend
    house.cloud.kill(SECRET)
    house.cloud.revive(CLEAR)
    daemon.wait_for_route(f"{CLEAR}/0001")
    found = bad(house.from_client())
    assert (found.subject, at_fault(found)) == (f"port {SECRET_PORT}", "the cache behind natproxy")


def test_from_a_client_with_a_revoked_certificate(house: House) -> None:
    house.papers.crl.write_bytes(house.papers.clients.crl([house.papers.dev]))
    house.start()
    found = bad(house.from_client("--ports", str(SECRET_PORT)))
    assert (found.check, at_fault(found)) == ("certificate", "the client side")
    assert "yours is revoked" in found.evidence


def test_from_a_client_with_a_bundle_that_is_later_revoked(house: House, tmp_path: Path) -> None:
    pki = tmp_path / "pki"

    def run_pki(*words: str) -> None:
        argv = [sys.executable, "-m", "natproxy", "pki", *words, "--dir", str(pki)]
        subprocess.run(argv, check=True, timeout=60, capture_output=True)

    run_pki("init", "--host", house.daemon.ip)
    run_pki("issue", "dev1", "--out", str(tmp_path / "dev1.zip"))
    names = {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt", "crl": "clients.crl"}
    house.daemon.config["tls"] = {key: str(pki / name) for key, name in names.items()}
    daemon = house.start()
    words = ("--from-client", daemon.ip, "--ports", str(SECRET_PORT), "--bundle", str(tmp_path / "dev1.zip"))
    assert [one for one in run(daemon, *words) if one.verdict != "good"] == []
    run_pki("revoke", "dev1")
    daemon.reload()
    assert "yours is revoked" in bad(run(daemon, *words)).evidence


def test_from_a_client_whose_address_is_not_let_in(house: House) -> None:
    house.daemon.config["clients"]["allow"] = ["192.0.2.0/24"]
    house.start()
    found = bad(house.from_client())
    assert (found.check, at_fault(found)) == ("engine", "natproxy or the cache behind it")
    assert "clients.allow" in found.mend


def test_from_a_client_of_a_host_where_natproxy_does_not_run(house: House) -> None:
    found = bad(house.from_client())
    assert (found.check, at_fault(found)) == ("reach", "natproxy")
    assert "systemctl status natproxy" in found.mend
