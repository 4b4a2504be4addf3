"""What fits together, and what is refused with which words."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.errors import TlsError
from natproxy.tls.chains import check_cas, check_chain, check_crl, check_key, read_certificates
from tests.standins.certificates import Authority, Issued, self_signed
from tests.tls.samples import CLIENTS, DAY, DEV1, HOST, IMPOSTOR, NOW, OTHERS, OWN, SERVERS, der_of

BETWEEN = Authority("Issuing CA", parent=SERVERS)
BELOW = BETWEEN.issue(HOST, dns=[HOST])
KEY = ec.generate_private_key(ec.SECP256R1())
SIGNING = {
    "digital_signature": True, "content_commitment": False, "key_encipherment": False, "data_encipherment": False,
    "key_agreement": False, "key_cert_sign": True, "crl_sign": True, "encipher_only": False, "decipher_only": False,
}  # fmt: skip


def made(*extensions: x509.ExtensionType, name: str = "Made") -> bytes:
    """Make a self-signed certificate with these extensions, as PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 1, NOW - DAY, NOW + DAY)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def crl_of(name: str = "Made") -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateRevocationListBuilder(subject, NOW - DAY, NOW + DAY)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("content", [b"", b"hello", OWN.key, CLIENTS.crl()])
def test_a_file_without_certificates(content: bytes) -> None:
    with pytest.raises(TlsError, match="there is no certificate in it"):
        read_certificates(content)


def test_a_certificate_that_cannot_be_read_is_named_by_its_place() -> None:
    with pytest.raises(TlsError, match="certificate 2 of 2 cannot be read"):
        read_certificates(OWN.certificate + OWN.certificate.replace(b"\nM", b"\nX", 1))


@pytest.mark.parametrize(
    "content",
    [
        OWN.certificate,
        OWN.certificate + SERVERS.pem,
        BELOW.certificate,
        BELOW.certificate + SERVERS.pem,
        self_signed(HOST).certificate,
        SERVERS.issue(HOST, usage="both").certificate,
        SERVERS.issue(HOST, usage="none").certificate,
        made(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
    ],
)
def test_a_chain_in_order(content: bytes) -> None:
    check_chain(read_certificates(content))


@pytest.mark.parametrize(
    "content",
    [
        OWN.certificate + CLIENTS.pem,
        SERVERS.pem + OWN.certificate,
        OWN.certificate + BELOW.certificate,
        IMPOSTOR.issue("x").certificate + CLIENTS.pem,
        BELOW.certificate + CLIENTS.pem,
        OWN.certificate + OWN.certificate,
    ],
)
def test_a_chain_out_of_order(content: bytes) -> None:
    with pytest.raises(TlsError, match="did not issue the one before it"):
        check_chain(read_certificates(content))


@pytest.mark.parametrize("usage", ["client", "codesigning"])
def test_a_certificate_that_is_not_for_servers(usage: str) -> None:
    issued = SERVERS.issue(HOST, usage="client") if usage == "client" else SERVERS.issue(HOST, usage="codesigning")
    with pytest.raises(TlsError, match=f"the certificate of CN={HOST} is not for servers"):
        check_chain(read_certificates(issued.certificate))


@pytest.mark.parametrize("issued", [OWN, BELOW, SERVERS.issue("x", key="rsa2048")], ids=["ec", "below", "rsa"])
def test_a_certificate_s_own_key(issued: Issued) -> None:
    check_key(read_certificates(issued.certificate), issued.key)
    check_key(read_certificates(issued.certificate), b"# words\n" + issued.certificate + issued.key)


def private(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, secret: bytes = b""
) -> bytes:
    locked = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is no private key in it"),
        (OWN.certificate, "there is no private key in it"),
        (OWN.key + OWN.key, "there are 2 private keys in it"),
        (private(KEY, b"secret"), "the key is encrypted"),
        (private(KEY), "the key does not belong to the certificate"),
        (private(ed25519.Ed25519PrivateKey.generate()), "the key does not belong to the certificate"),
        (OWN.key.replace(b"\nM", b"\nX", 1), "the private key in it cannot be read"),
        (OWN.key.replace(b"PRIVATE", b"RSA PRIVATE"), "the private key in it cannot be read"),
    ],
)
def test_a_key_that_will_not_do(content: bytes, message: str) -> None:
    with pytest.raises(TlsError, match=message) as caught:
        check_key(read_certificates(OWN.certificate), content)
    for line in content.splitlines()[1:-1]:
        assert line.decode() not in str(caught.value)


def test_a_key_of_another_certificate_of_the_chain() -> None:
    with pytest.raises(TlsError, match="the key belongs to certificate 2 of its file"):
        check_key(read_certificates(SERVERS.pem + OWN.certificate), OWN.key)


def test_cas_that_may_vouch() -> None:
    check_cas(read_certificates(SERVERS.pem + BETWEEN.pem))
    check_cas(read_certificates(made(x509.BasicConstraints(ca=True, path_length=None))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SERVERS.pem + OWN.certificate, f"the certificate of CN={HOST} is not that of a CA"),
        (made(), "the certificate of CN=Made is not that of a CA"),
        (made(name=""), r"the certificate of \(a certificate without a subject\) is not"),
        (
            made(x509.BasicConstraints(ca=True, path_length=None), x509.KeyUsage(**SIGNING | {"key_cert_sign": False})),
            "may not be used to sign others",
        ),
    ],
)
def test_cas_that_are_none(content: bytes, message: str) -> None:
    with pytest.raises(TlsError, match=message):
        check_cas(read_certificates(content))


def test_lists_signed_by_those_who_vouch() -> None:
    cas = read_certificates(CLIENTS.pem + OTHERS.pem)
    check_crl(CLIENTS.crl([DEV1]), cas)
    check_crl(CLIENTS.crl() + OTHERS.crl(), cas)


def test_of_two_cas_with_one_name_either_may_sign() -> None:
    check_crl(CLIENTS.crl(), read_certificates(IMPOSTOR.pem + CLIENTS.pem))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "there is no revocation list in it"),
        (OTHERS.crl(), "is of CN=Others CA, which is none of the CAs in client_ca"),
        (CLIENTS.crl() + OTHERS.crl(), "is of CN=Others CA, which is none of the CAs in client_ca"),
        (IMPOSTOR.crl(), "of CN=Clients CA is not signed with that CA's key"),
    ],
)
def test_lists_that_nobody_here_signed(content: bytes, message: str) -> None:
    with pytest.raises(TlsError, match=message):
        check_crl(content, read_certificates(CLIENTS.pem))


def test_a_ca_that_may_sign_no_lists() -> None:
    basic = x509.BasicConstraints(ca=True, path_length=None)
    check_crl(crl_of(), read_certificates(made(basic)))
    silent = made(basic, x509.KeyUsage(**SIGNING | {"crl_sign": False}))
    with pytest.raises(TlsError, match="the CA CN=Made may not sign revocation lists"):
        check_crl(crl_of(), read_certificates(silent))


def test_what_only_openssl_reads_may_be_left_out() -> None:
    # Serial number 0 is one that later versions of cryptography refuse; a broken one stands for it.
    content = SERVERS.pem + OTHERS.pem.replace(b"\nM", b"\nX", 1)
    assert [one.subject for one in read_certificates(content, is_lenient=True)] == [SERVERS.name]
    with pytest.raises(TlsError, match="there is no certificate in it"):
        read_certificates(b"hello", is_lenient=True)


def check_all(chain: list[x509.Certificate]) -> None:
    checks: list[Callable[[], None]] = [
        lambda: check_chain(chain),
        lambda: check_key(chain, OWN.key),
        lambda: check_cas(chain),
        lambda: check_crl(SERVERS.crl(), chain),
    ]
    for check in checks:
        with contextlib.suppress(TlsError):
            check()


@settings(max_examples=2000)
@given(st.data())
def test_damaged_certificates_are_checked_or_refused(data: st.DataObject) -> None:
    der = bytearray(data.draw(st.sampled_from([der_of(OWN), ssl.PEM_cert_to_DER_cert(SERVERS.pem.decode())])))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        damaged = read_certificates(ssl.DER_cert_to_PEM_cert(bytes(der)).encode())
    except TlsError:
        return
    check_all(damaged)
    check_all(damaged + read_certificates(SERVERS.pem))
    check_all(read_certificates(OWN.certificate) + damaged)
