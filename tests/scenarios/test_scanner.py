"""What an outside scanner (sslyze) finds on ports that terminate TLS: nothing weak."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.waiting import eventually
from tests.standins.certificates import Authority
from tests.standins.echo import EchoNodes

SCANNER = Path(sys.prefix) / "scanner"
"""The virtual environment that `make scanner` makes."""
HOST = "cache.example.com"
COMMANDS = (
    *("certinfo", "sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "elliptic_curves", "ems", "compression"),
    *("early_data", "openssl_ccs", "fallback", "heartbleed", "robot", "reneg", "resum"),
)
VERSIONS = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3")
GOOD_SUITES = {
    "tls_1_2": re.compile(r"TLS_ECDHE_(ECDSA|RSA)_WITH_(AES_(128|256)_GCM_SHA(256|384)|CHACHA20_POLY1305_SHA256)"),
    "tls_1_3": re.compile(r"TLS_(AES_(128|256)_GCM_SHA(256|384)|CHACHA20_POLY1305_SHA256)"),
}
"""Forward secrecy and authenticated encryption, all of them."""
GOOD_CURVES = {"X25519", "X448", "secp256r1", "secp384r1", "secp521r1"}
NEEDS_CERTIFICATE = {"tls_1_3_early_data", "session_renegotiation", "session_resumption"}
"""What cannot be scanned by one who is turned away after the handshake."""

pytestmark = pytest.mark.skipif(
    not (SCANNER / ".installed").exists(), reason="the TLS scanner is not installed: make scanner"
)


@dataclass(frozen=True)
class Door:
    """One way to set up a port, and who comes to scan it."""

    name: str
    min_version: str = "1.2"
    has_client_ca: bool = False
    shows_certificate: bool = False
    mozilla: str = "intermediate"
    """The configuration of Mozilla's server-side TLS guide that it is compared with."""

    @property
    def is_closed(self) -> bool:
        """Whether the scanner is turned away."""
        return self.has_client_ca and not self.shows_certificate


DOORS = (
    Door("no client_ca"),
    Door("no client_ca, TLS 1.3", min_version="1.3", mozilla="modern"),
    Door("client_ca, by a stranger", has_client_ca=True),
    Door("client_ca, by a member", has_client_ca=True, shows_certificate=True),
)


@dataclass(frozen=True)
class Scan:
    """What the scanner found."""

    door: Door
    daemon: Daemon
    commands: dict[str, dict[str, Any]]
    said: str

    def __getitem__(self, command: str) -> dict[str, Any]:
        """The result of one of its commands; AssertionError where that found out nothing."""
        found = self.commands[command]
        assert found["status"] == "COMPLETED", f"{found['error_reason']}: {found['error_trace']}"
        return dict(found["result"])

    def suites(self, version: str) -> list[str]:
        """The cipher suites that are accepted with a TLS version."""
        return [one["cipher_suite"]["name"] for one in self[f"{version}_cipher_suites"]["accepted_cipher_suites"]]


def scan(ip: str, port: int, directory: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Run the scanner; return its findings by command, and what it said. ``ca.crt`` is in the directory."""
    found = directory / "found.json"
    argv = [str(SCANNER / "bin" / "python"), "-m", "sslyze", *(f"--{command}" for command in COMMANDS), *options]
    argv += ["--certinfo_ca_file", str(directory / "ca.crt"), "--json_out", str(found), f"{HOST}:{port}{{{ip}}}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert found.exists(), done.stdout + done.stderr
    (result,) = json.loads(found.read_text(encoding="utf-8"))["server_scan_results"]
    assert result["scan_status"] == "COMPLETED", done.stdout
    return result["scan_result"], done.stdout


@pytest.fixture(scope="module")
def echo_target() -> Iterator[str]:
    """A node that answers whatever it is told: some of the scans send a request and wait for an answer."""
    nodes = EchoNodes()
    nodes.start()
    nodes.open("127.0.0.1", 0)
    ((ip, port),) = nodes.where()
    yield f"{ip}:{port}"
    nodes.stop()


@pytest.fixture(scope="module", params=DOORS, ids=lambda door: door.name)
def found(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    module_natproxy: Natproxies,
    echo_target: str,
) -> Scan:
    door: Door = request.param
    directory = tmp_path_factory.mktemp("scanner")
    servers, clients = Authority("Servers CA"), Authority("Clients CA")
    (directory / "ca.crt").write_bytes(servers.pem)
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=89)  # Mozilla's "modern": less than 90
    certificate, key = servers.issue(HOST, dns=[HOST], not_after=until).write(directory)
    tls = {"certificate": str(certificate), "key": str(key), "min_version": door.min_version}
    options = ["--mozilla_config", door.mozilla]
    if door.has_client_ca:
        (directory / "clients.crt").write_bytes(clients.pem)
        tls["client_ca"] = str(directory / "clients.crt")
    if door.shows_certificate:
        shown, its_key = clients.issue("dev1", usage="client").write(directory, "dev1")
        options += ["--cert", str(shown), "--key", str(its_key)]
    daemon = module_natproxy(tls=tls, static=[{"name": "scanned", "port": FIRST_PORT, "target": echo_target}])
    return Scan(door, daemon, *scan(daemon.ip, FIRST_PORT, directory, *options))


def test_only_tls_1_2_and_1_3_are_spoken(found: Scan) -> None:
    spoken = [name for name in VERSIONS if found[f"{name}_cipher_suites"]["is_tls_version_supported"]]
    assert spoken == (["tls_1_3"] if found.door.min_version == "1.3" else ["tls_1_2", "tls_1_3"])


def test_every_cipher_suite_has_forward_secrecy_and_authenticates_what_it_encrypts(found: Scan) -> None:
    for version, good in GOOD_SUITES.items():
        suites = found.suites(version)
        assert suites or (version == "tls_1_2" and found.door.min_version == "1.3")
        assert not [suite for suite in suites if not good.fullmatch(suite)]


def test_no_curve_is_weak(found: Scan) -> None:
    curves = {curve["name"] for curve in found["elliptic_curves"]["supported_curves"] or ()}
    assert {"X25519", "secp256r1"} <= curves <= GOOD_CURVES


def test_none_of_the_known_holes_is_open(found: Scan) -> None:
    assert found["tls_compression"] == {"supports_compression": False}
    assert found["openssl_ccs_injection"] == {"is_vulnerable_to_ccs_injection": False}
    assert found["heartbleed"] == {"is_vulnerable_to_heartbleed": False}
    assert found["robot"]["robot_result"].startswith("NOT_VULNERABLE")


def test_a_downgrade_is_noticed(found: Scan) -> None:
    if found.door.min_version != "1.3":
        assert found["tls_fallback_scsv"] == {"supports_fallback_scsv": True}
        assert found["tls_extended_master_secret"] == {"supports_ems_extension": True}


def test_a_client_can_neither_renegotiate_nor_send_early_data(found: Scan) -> None:
    if found.door.is_closed:
        failed = {name for name, one in found.commands.items() if one["status"] == "ERROR"}
        assert failed <= NEEDS_CERTIFICATE
        return
    assert found["tls_1_3_early_data"] == {"supports_early_data": False}
    if found.door.min_version != "1.3":
        assert found["session_renegotiation"] == {
            "supports_secure_renegotiation": True,
            "is_vulnerable_to_client_renegotiation_dos": False,
            "client_renegotiations_success_count": 0,
        }


def test_where_certificates_are_demanded_no_tickets_are_given(found: Scan) -> None:
    if found.door.shows_certificate:  # by id, which OpenSSL does in TLS 1.2, some may be resumed: they are looked at
        assert found["session_resumption"]["tls_ticket_resumption_result"] == "NOT_SUPPORTED"


def test_the_certificate_verifies_for_its_name_and_with_its_ca_alone(found: Scan) -> None:
    (sent,) = found["certificate_info"]["certificate_deployments"]
    (verdict,) = [one for one in sent["path_validation_results"] if one["trust_store"]["name"] == "Supplied CA file"]
    assert verdict["was_validation_successful"], verdict["validation_error"]
    assert sent["received_chain_has_valid_order"]
    assert not sent["verified_chain_has_sha1_signature"]


def test_it_is_what_mozilla_recommends_but_for_two_strong_curves_more(found: Scan) -> None:
    if not found.door.is_closed:
        told = found.said.partition("COMPLIANCE AGAINST")[2]
        assert re.findall(r"^ +\* (\w+):", told, re.MULTILINE) == ["tls_curves"], told
        assert set(re.findall(r"'(\w+)'", told)) == {"X448", "secp521r1"}


def test_whoever_is_scanned_serves_on(found: Scan) -> None:
    daemon = found.daemon
    eventually(lambda: daemon.metric("natproxy_handshakes_total", side="client", result="failed") > 0, "it is counted")
    assert daemon.metric("natproxy_handshakes_total", reason="internal") == 0
    assert daemon.routes()["scanned"].state == "open"
