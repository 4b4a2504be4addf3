from __future__ import annotations

import datetime
import os
import tempfile
import time
from pathlib import Path

import pytest

from natproxy.config import Config
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.papers import certificate_findings
from tests.plan.samples import config as load
from tests.standins.certificates import Authority, Issued

HOST, IP = "cache.dev.example.com", "203.0.113.73"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Files:
    """The files of a config's ``tls`` section: good ones, until a test changes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers, self.clients, self.nodes = Authority("Servers CA"), Authority("Clients CA"), Authority("Nodes CA")
        self.own(self.servers.issue("natproxy", dns=[HOST], ips=[IP]))
        self.write("clients.crt", self.clients.pem)
        self.write("clients.crl", self.clients.crl())
        self.write("nodes.crt", self.nodes.pem)

    def own(self, issued: Issued) -> None:
        issued.write(self.directory)

    def write(self, name: str, content: bytes) -> None:
        (self.directory / name).write_bytes(content)

    def config(self, more: str = "") -> Config:
        at = self.directory
        return load(
            f"public_host: {HOST}\npublic_ip: {IP}\n"
            f"tls: {{certificate: {at}/server.crt, key: {at}/server.key, client_ca: {at}/clients.crt, "
            f"crl: {at}/clients.crl}}\nnodes: {{ca: {at}/nodes.crt}}\n"
            "caches: [{id: my-redis, ports: 6379-6388}]\n" + more
        )

    def findings(self) -> list[Finding]:
        found = certificate_findings(self.config(), time.time())
        assert all(one.check is Check.CERTIFICATE for one in found)
        assert all(bool(one.mend) is (one.verdict is not Verdict.GOOD) for one in found), found
        return found

    def trouble(self) -> list[tuple[str, Verdict, str]]:
        return [(one.subject, one.verdict, one.evidence) for one in self.findings() if one.verdict is not Verdict.GOOD]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_good_papers(files: Files) -> None:
    found = files.findings()
    assert files.trouble() == []
    assert [one.subject for one in found] == [
        "tls.certificate",
        "tls.certificate",
        "nodes.ca",
        "tls.client_ca",
        "tls.crl",
    ]
    assert found[0].evidence == f"it names {HOST} and {IP}"


def test_no_tls_section_is_as_the_operator_wants_it() -> None:
    (found,) = certificate_findings(load(), time.time())
    assert (found.verdict, "in the clear" in found.evidence) == (Verdict.GOOD, True)


def test_names_that_clients_dial_and_the_certificate_lacks(files: Files) -> None:
    files.own(files.servers.issue("natproxy", dns=[HOST]))
    assert files.trouble() == [
        (
            "tls.certificate",
            Verdict.BAD,
            f"the certificate does not name {IP}: clients that dial it refuse natproxy",
        )
    ]


def test_an_expired_certificate_and_one_that_soon_does(files: Files) -> None:
    files.own(files.servers.issue("natproxy", dns=[HOST], ips=[IP], not_before=NOW - 9 * DAY, not_after=NOW - DAY))
    ((subject, verdict, evidence),) = files.trouble()
    assert (subject, verdict) == ("tls.certificate", Verdict.BAD)
    assert evidence.startswith("CN=natproxy has expired, on ")
    files.own(files.servers.issue("natproxy", dns=[HOST], ips=[IP], not_after=NOW + 9 * DAY))
    ((subject, verdict, evidence),) = files.trouble()
    assert (subject, verdict) == ("tls.certificate", Verdict.WARNING)
    assert evidence.startswith("CN=natproxy expires on ")


def test_a_certificate_that_does_not_hold_yet(files: Files) -> None:
    files.own(files.servers.issue("natproxy", dns=[HOST], ips=[IP], not_before=NOW + DAY))
    ((_, verdict, evidence),) = files.trouble()
    assert (verdict, "does not hold before" in evidence) == (Verdict.BAD, True)


def test_a_key_that_is_another_s(files: Files) -> None:
    Authority().issue("other").write(files.directory, "other")
    (files.directory / "other.key").rename(files.directory / "server.key")
    ((subject, verdict, evidence),) = files.trouble()
    assert (subject, verdict) == ("tls.key", Verdict.BAD)
    assert "the key does not belong to the certificate" in evidence


def test_a_key_that_others_can_read(files: Files) -> None:
    (files.directory / "server.key").chmod(0o644)
    ((subject, verdict, evidence),) = files.trouble()
    assert (subject, verdict, "mode 0644" in evidence) == ("tls.key", Verdict.BAD, True)


def test_a_chain_in_the_wrong_order(files: Files) -> None:
    issued = Authority("Issuing CA", parent=files.servers).issue("natproxy", dns=[HOST], ips=[IP])
    own, between = issued.certificate.split(b"-----END CERTIFICATE-----\n", 1)
    files.own(issued)
    files.write("server.crt", between + own + b"-----END CERTIFICATE-----\n")
    ((subject, verdict, _),) = files.trouble()
    assert (subject, verdict) in {("tls.certificate", Verdict.BAD), ("tls.key", Verdict.BAD)}


@pytest.mark.parametrize("name", ["server.crt", "server.key", "clients.crt", "clients.crl", "nodes.crt"])
def test_each_missing_file_is_named_and_the_others_are_still_judged(files: Files, name: str) -> None:
    (files.directory / name).unlink()
    ((_, verdict, evidence),) = files.trouble()
    assert verdict is Verdict.BAD
    assert evidence.startswith(str(files.directory / name))
    assert any(one.verdict is Verdict.GOOD for one in files.findings())


def test_a_revocation_list_that_is_over_shuts_everybody_out(files: Files) -> None:
    files.write("clients.crl", files.clients.crl(this_update=NOW - 9 * DAY, next_update=NOW - DAY))
    ((subject, verdict, evidence),) = files.trouble()
    assert (subject, verdict) == ("tls.crl", Verdict.BAD)
    assert "every client with a certificate of that issuer is refused" in evidence
    files.write("clients.crl", files.clients.crl(next_update=NOW + 3 * DAY))
    assert [(one[0], one[1]) for one in files.trouble()] == [("tls.crl", Verdict.WARNING)]


def test_a_list_of_another_ca(files: Files) -> None:
    files.write("clients.crl", Authority("Other CA").crl())
    ((subject, verdict, _),) = files.trouble()
    assert (subject, verdict) == ("tls.crl", Verdict.BAD)


def test_the_server_s_own_certificate_on_the_list(files: Files) -> None:
    own = files.clients.issue("natproxy", dns=[HOST], ips=[IP])  # one CA for all, as natproxy pki has it
    files.own(own)
    files.write("clients.crl", files.clients.crl([own]))
    ((subject, verdict, evidence),) = files.trouble()
    assert (subject, verdict) == ("tls.certificate", Verdict.BAD)
    assert "the certificate of natproxy is revoked" in evidence


@pytest.mark.root
def test_a_key_that_natproxy_s_own_user_may_not_read() -> None:
    with tempfile.TemporaryDirectory(prefix="natproxy-doctor-") as directory:  # pytest's own are root's alone
        Path(directory).chmod(0o755)
        files = Files(Path(directory))
        state_dir = Path(directory, "state")
        state_dir.mkdir()
        os.chown(state_dir, 54321, 54321)
        found = certificate_findings(files.config(f"state_dir: {state_dir}\n"), time.time())
    (bad,) = [one for one in found if one.verdict is not Verdict.GOOD]
    assert bad.subject == f"{directory}/server.key"
    assert "(mode 0600, root:root) cannot be read by uid 54321" in bad.evidence
    assert bad.mend == f"sudo chgrp 54321 {directory}/server.key && sudo chmod 0640 {directory}/server.key"


def test_an_expired_ca_beside_a_good_one_is_a_warning(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tests.standins.certificates._now", lambda: NOW - 4000 * DAY)
        old = Authority("Old CA")
    files.write("clients.crt", old.pem + files.clients.pem)
    assert [(one[0], one[1]) for one in files.trouble()] == [("tls.client_ca", Verdict.WARNING)]
    files.write("clients.crt", old.pem)
    files.write("clients.crl", old.crl())
    assert ("tls.client_ca", Verdict.BAD) in [(one[0], one[1]) for one in files.trouble()]


@pytest.mark.root
def test_a_path_in_a_mend_is_quoted_for_a_shell() -> None:
    with tempfile.TemporaryDirectory(prefix="natproxy-$(id)-") as directory:  # pytest's own are root's alone
        Path(directory).chmod(0o755)
        state_dir = Path(directory, "state")
        state_dir.mkdir()
        os.chown(state_dir, 54321, 54321)
        found = certificate_findings(Files(Path(directory)).config(f"state_dir: {state_dir}\n"), time.time())
    (bad,) = [one for one in found if one.verdict is not Verdict.GOOD]
    assert f"chmod 0640 '{directory}/server.key'" in bad.mend
