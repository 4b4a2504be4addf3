from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from natproxy.pki.certificates import (
    Ca,
    certificate_pem,
    found_ca,
    key_pem,
    load_pair,
    new_key,
    new_serial,
    sign_client,
    sign_list,
    sign_server,
)
from natproxy.pki.terms import ServerNames, Term, serial_text
from tests.pki.samples import NAMES, openssl

NOW = datetime.now(UTC).replace(microsecond=0)


def term(serial: int | None = None, days: int = 90) -> Term:
    return Term(serial or new_serial(), NOW, NOW + timedelta(days=days))


class Made:
    """A CA, a server and two clients in files; the list has ``dev2`` on it."""

    def __init__(self, directory: Path, names: ServerNames = NAMES) -> None:
        self.directory = directory
        self.ca = found_ca(names.host, term(days=3650))
        self.write("ca", self.ca.certificate, self.ca.key)
        key = new_key()
        self.server = self.write("server", sign_server(self.ca, key, names, term()), key)
        self.clients = [
            self.write(name, sign_client(self.ca, key, name, term()), key)
            for name, key in (("dev1", new_key()), ("ci-7.ci.example.com", new_key()), ("anna@example.com", new_key()))
        ]
        gone = self.clients[-1]
        revoked = [(gone.serial_number, NOW)]
        directory.joinpath("list.crl").write_bytes(sign_list(self.ca, 7, revoked, NOW, NOW + timedelta(days=35)))

    def write(self, stem: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        (self.directory / f"{stem}.crt").write_bytes(certificate_pem(certificate))
        (self.directory / f"{stem}.key").write_bytes(key_pem(key))
        return certificate

    def verify(self, stem: str, purpose: str, *further: str) -> tuple[int, str]:
        words = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", f"{self.directory}/ca.crt", *further]
        done = openssl(*words, self.directory / f"{stem}.crt")
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("pki"))


def extensions(certificate: x509.Certificate) -> dict[str, bool]:
    return {type(extension.value).__name__: extension.critical for extension in certificate.extensions}


# --- what OpenSSL says


def test_openssl_takes_all_of_them_for_what_they_are(made: Made) -> None:
    crl = ("-crl_check", "-CRLfile", str(made.directory / "list.crl"))
    assert made.verify("server", "sslserver", "-verify_hostname", "cache.dev.example.com", *crl)[0] == 0
    assert made.verify("server", "sslserver", "-verify_ip", "203.0.113.73")[0] == 0
    for name in ("dev1", "ci-7.ci.example.com"):
        assert made.verify(name, "sslclient", *crl) == (0, f"{made.directory / name}.crt: OK\n")


@pytest.mark.parametrize(
    ("stem", "purpose", "further", "why"),
    [
        ("server", "sslclient", (), "unsuitable certificate purpose|unsupported certificate purpose"),
        ("dev1", "sslserver", (), "unsuitable certificate purpose|unsupported certificate purpose"),
        ("server", "sslserver", ("-verify_hostname", "other.example.com"), "ostname mismatch"),
        ("server", "sslserver", ("-verify_ip", "203.0.113.74"), "IP address mismatch"),
        ("anna@example.com", "sslclient", ("-crl_check",), "certificate revoked"),
        ("dev1", "sslclient", ("-attime", str(int((NOW + timedelta(days=91)).timestamp()))), "certificate has expired"),
        ("dev1", "sslclient", ("-attime", str(int((NOW - timedelta(minutes=6)).timestamp()))), "not yet valid"),
    ],
)
def test_openssl_refuses_what_they_are_not(
    made: Made, stem: str, purpose: str, further: tuple[str, ...], why: str
) -> None:
    if "-crl_check" in further:
        further = (*further, "-CRLfile", str(made.directory / "list.crl"))
    code, said = made.verify(stem, purpose, *further)
    assert code != 0
    assert re.search(why, said)


def test_the_clock_of_the_instance_may_be_five_minutes_behind(made: Made) -> None:
    behind = ("-attime", str(int((NOW - timedelta(minutes=4)).timestamp())))
    crl = ("-crl_check", "-CRLfile", str(made.directory / "list.crl"))
    assert made.verify("server", "sslserver", *behind, *crl)[0] == 0
    assert made.verify("dev1", "sslclient", *behind, *crl)[0] == 0


def test_a_developer_s_certificate_signs_no_other(made: Made, tmp_path: Path) -> None:
    _, dev1 = load_pair((made.directory / "dev1.crt").read_bytes(), (made.directory / "dev1.key").read_bytes())
    forger, key = Ca(made.clients[0], dev1), new_key()
    (tmp_path / "forged.crt").write_bytes(certificate_pem(sign_client(forger, key, "root", term())))
    done = openssl(
        *("verify", "-CAfile", made.directory / "ca.crt", "-untrusted", made.directory / "dev1.crt"),
        tmp_path / "forged.crt",
    )
    assert (done.returncode, "invalid CA certificate" in done.stdout + done.stderr) == (2, True)


def test_openssl_reads_the_list(made: Made) -> None:
    path = made.directory / "list.crl"
    checked = openssl("crl", "-in", path, "-noout", "-CAfile", made.directory / "ca.crt")
    assert "verify OK" in checked.stdout + checked.stderr
    text = openssl("crl", "-in", path, "-noout", "-text").stdout
    assert re.search(r"X509v3 CRL Number: \n +7\n", text)
    assert "X509v3 Authority Key Identifier" in text
    assert f"Serial Number: {serial_text(made.clients[-1].serial_number)}\n" in text
    assert text.count("Serial Number:") == 1


def test_an_empty_list_is_one_too(made: Made, tmp_path: Path) -> None:
    (tmp_path / "list.crl").write_bytes(sign_list(made.ca, 1, (), NOW, NOW + timedelta(days=1)))
    assert made.verify("dev1", "sslclient", "-crl_check", "-CRLfile", str(tmp_path / "list.crl"))[0] == 0


# --- what Python's ssl says, as strictly as 3.13 does by default


def shake(made: Made, client: str, host: str) -> str:
    """Shake hands as natproxy and a developer's Python do; return the name that the server saw."""
    at_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    at_server.load_cert_chain(made.directory / "server.crt", made.directory / "server.key")
    at_server.verify_mode = ssl.CERT_REQUIRED
    at_server.load_verify_locations(made.directory / "ca.crt")
    at_server.load_verify_locations(made.directory / "list.crl")
    at_client = ssl.create_default_context(cafile=str(made.directory / "ca.crt"))
    at_client.load_cert_chain(made.directory / f"{client}.crt", made.directory / f"{client}.key")
    for context in (at_server, at_client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    at_server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        at_client.wrap_bio(down, up, server_hostname=host),
        at_server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(6):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    seen = sides[1].getpeercert(binary_form=True)
    assert seen is not None
    return x509.load_der_x509_certificate(seen).subject.rfc4514_string()


@pytest.mark.parametrize("host", ["cache.dev.example.com", "203.0.113.73"])
@pytest.mark.parametrize("client", ["dev1", "ci-7.ci.example.com"])
def test_python_takes_both_sides_certificates(made: Made, client: str, host: str) -> None:
    assert shake(made, client, host) == f"CN={client}"


@pytest.mark.parametrize(
    ("client", "host", "why"),
    [
        ("dev1", "other.example.com", "ostname mismatch"),
        ("dev1", "203.0.113.74", "IP address mismatch"),
        ("anna@example.com", "cache.dev.example.com", "certificate revoked"),
        ("server", "cache.dev.example.com", "unsuitable certificate purpose|unsupported certificate purpose"),
    ],
)
def test_python_refuses_the_wrong_ones(made: Made, client: str, host: str, why: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=why):
        shake(made, client, host)


# --- what is in them


def test_the_ca_s_own(made: Made) -> None:
    certificate = made.ca.certificate
    assert extensions(certificate) == {
        "BasicConstraints": True,
        "KeyUsage": True,
        "SubjectKeyIdentifier": False,
        "AuthorityKeyIdentifier": False,
    }
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (basic.ca, basic.path_length) == (True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert certificate.issuer == certificate.subject
    certificate.verify_directly_issued_by(certificate)


def test_the_leaves(made: Made) -> None:
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] + [ExtendedKeyUsageOID.CLIENT_AUTH] * 3
    for certificate, usage in zip([made.server, *made.clients], usages, strict=True):
        assert extensions(certificate) == {
            "BasicConstraints": True,
            "KeyUsage": True,
            "ExtendedKeyUsage": False,
            "SubjectAlternativeName": False,
            "SubjectKeyIdentifier": False,
            "AuthorityKeyIdentifier": False,
        }
        assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
        certificate.verify_directly_issued_by(made.ca.certificate)


def test_all_keys_are_p_256_with_sha_256(made: Made) -> None:
    for certificate in (made.ca.certificate, made.server, *made.clients):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)


def test_names_stand_where_they_are_looked_for(made: Made) -> None:
    found = [
        [name.value for name in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
        for certificate in (made.server, *made.clients)
    ]
    assert [str(name) for name in found[0]] == ["cache.dev.example.com", "203.0.113.73"]
    assert found[1:] == [["urn:natproxy:dev1"], ["ci-7.ci.example.com"], ["urn:natproxy:anna@example.com"]]
    subjects = [certificate.subject.rfc4514_string() for certificate in made.clients]
    assert subjects == ["CN=dev1", "CN=ci-7.ci.example.com", "CN=anna@example.com"]


def test_serials_are_random_and_fit_into_20_bytes(made: Made) -> None:
    serials = [new_serial() for _ in range(200)]
    assert len(set(serials)) == 200
    assert max(serial.bit_length() for serial in serials) in (158, 159)


def test_two_cas_of_one_host_have_different_names() -> None:
    assert found_ca("h", term()).name != found_ca("h", term()).name


def test_a_long_host_name_and_ipv6_fit(tmp_path: Path) -> None:
    host = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.example.com"
    made = Made(tmp_path, ServerNames((host, "second.example.com"), ("2001:db8::1",)))
    for check in (
        ("-verify_hostname", host),
        ("-verify_hostname", "second.example.com"),
        ("-verify_ip", "2001:db8::1"),
    ):
        assert made.verify("server", "sslserver", *check)[0] == 0


# --- reading them again


def test_a_pair_is_read_as_it_was_written(made: Made) -> None:
    certificate, key = load_pair(certificate_pem(made.ca.certificate), key_pem(made.ca.key))
    assert (certificate, key.private_numbers()) == (made.ca.certificate, made.ca.key.private_numbers())


def test_what_is_no_pair_is_said(made: Made) -> None:
    certificate, key = certificate_pem(made.ca.certificate), key_pem(made.ca.key)
    encrypted = made.ca.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    foreign = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for pair, why in [
        ((b"", key), "the certificate is damaged"),
        ((key, key), "the certificate is damaged"),
        ((certificate[:200], key), "the certificate is damaged"),
        ((certificate, b""), "the key is damaged"),
        ((certificate, key[:100]), "the key is damaged"),
        ((certificate, encrypted), "the key is encrypted"),
        ((certificate, key_pem(new_key())), "the key is not the certificate's"),
        ((certificate, foreign), "the key is not the certificate's"),
    ]:
        with pytest.raises(ValueError, match=why):
            load_pair(*pair)


def test_a_key_is_never_shown(made: Made) -> None:
    number = made.ca.key.private_numbers().private_value
    assert "key" not in repr(made.ca)
    assert str(number) not in repr(made.ca)
