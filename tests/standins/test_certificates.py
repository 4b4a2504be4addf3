from __future__ import annotations

import datetime
import ssl
import stat
import subprocess
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.standins.certificates import Authority, Issued, Key, Usage, self_signed

NOW = datetime.datetime.now(UTC)


def verify(ca: bytes, issued: Issued, directory: Path, *options: str) -> str:
    """What ``openssl verify`` says, which is asked as strictly as it can be."""
    (directory / "ca.crt").write_bytes(ca)
    certificate, _ = issued.write(directory)
    command = ["openssl", "verify", "-x509_strict", "-auth_level", "2", "-CAfile", str(directory / "ca.crt")]
    command += ["-untrusted", str(certificate), *options, str(certificate)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout + said.stderr


@pytest.mark.parametrize("key", ["ec", "rsa2048"])
def test_a_good_certificate_verifies_strictly(tmp_path: Path, key: Key) -> None:
    ca = Authority()
    issued = ca.issue("cache", dns=["cache.example"], ips=["203.0.113.73", "2001:db8::1"], key=key)
    said = verify(ca.pem, issued, tmp_path, "-purpose", "sslserver", "-verify_hostname", "cache.example")
    assert said.endswith(": OK\n"), said
    assert verify(ca.pem, issued, tmp_path, "-verify_ip", "203.0.113.73").endswith(": OK\n")


def test_one_below_another_ca_brings_what_is_between(tmp_path: Path) -> None:
    root = Authority("Root")
    issued = Authority("Issuing CA", parent=root).issue("dev1", usage="client")
    assert verify(root.pem, issued, tmp_path, "-purpose", "sslclient").endswith(": OK\n")
    assert issued.certificate.count(b"BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize(
    ("usage", "purpose", "is_good"),
    [
        ("client", "sslclient", True),
        ("client", "sslserver", False),
        ("server", "sslclient", False),
        ("both", "sslclient", True),
        ("none", "sslserver", True),
        ("codesigning", "sslclient", False),
    ],
)
def test_it_is_good_for_its_usage_only(tmp_path: Path, usage: Usage, purpose: str, is_good: bool) -> None:
    ca = Authority()
    said = verify(ca.pem, ca.issue("dev1", usage=usage), tmp_path, "-purpose", purpose)
    assert said.endswith(": OK\n") is is_good, said


def test_bad_ones_are_bad_as_ordered(tmp_path: Path) -> None:
    ca, other = Authority(), Authority()
    assert "has expired" in verify(ca.pem, ca.issue("a", not_after=NOW - timedelta(days=1)), tmp_path)
    assert "not yet valid" in verify(ca.pem, ca.issue("a", not_before=NOW + timedelta(days=1)), tmp_path)
    assert "key too weak" in verify(ca.pem, ca.issue("a", key="rsa1024"), tmp_path)
    assert "digest algorithm too weak" in verify(ca.pem, ca.issue("a", hash="sha1"), tmp_path)
    assert "unable to get local issuer" in verify(Authority("Other CA").pem, ca.issue("a"), tmp_path)
    assert not verify(other.pem, ca.issue("a"), tmp_path).endswith(": OK\n"), "a CA of the same name is another CA"
    assert "self-signed" in verify(ca.pem, self_signed("cache.example"), tmp_path)


def test_revoked_is_who_is_on_the_list(tmp_path: Path) -> None:
    ca = Authority()
    good, bad = ca.issue("good"), ca.issue("bad")
    crl = tmp_path / "crl.pem"
    crl.write_bytes(ca.crl([bad, 7]))
    assert verify(ca.pem, good, tmp_path, "-crl_check", "-CRLfile", str(crl)).endswith(": OK\n")
    assert "revoked" in verify(ca.pem, bad, tmp_path, "-crl_check", "-CRLfile", str(crl))
    assert {entry.serial_number for entry in x509.load_pem_x509_crl(crl.read_bytes())} == {bad.serial, 7}
    crl.write_bytes(ca.crl(next_update=NOW - timedelta(hours=1)))
    assert "CRL has expired" in verify(ca.pem, good, tmp_path, "-crl_check", "-CRLfile", str(crl))


def test_names_stand_where_they_are_ordered() -> None:
    issued = Authority().issue(None, dns=["a.example"], uris=["spiffe://example/dev1"], serial=0xABC)
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    assert issued.serial == certificate.serial_number == 0xABC
    assert not list(certificate.subject)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://example/dev1"]


def test_what_is_written_can_be_loaded_and_the_key_is_private(tmp_path: Path) -> None:
    issued = Authority().issue("cache")
    certificate, key = issued.write(tmp_path, "node")
    assert (certificate, key) == (tmp_path / "node.crt", tmp_path / "node.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    assert "PRIVATE" not in repr(issued)
