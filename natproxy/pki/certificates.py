"""What is signed: the CA's own certificate, the server's, a developer's, and the revocation list. Pure.

ECDSA with P-256 and SHA-256 throughout; extensions as RFC 5280 wants them, which `openssl verify -x509_strict` and
Python 3.13 check. Whatever is signed is valid from five minutes ago: the instance's clock may be behind the operator's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from natproxy.pki.terms import ServerNames, Term, is_host_name

CLOCK_SKEW = timedelta(minutes=5)
_LONGEST_TEXT = 64
"""Of a common name and of an organization's (RFC 5280, appendix A.1)."""

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Ca:
    """A certificate that signs, with its key."""

    certificate: x509.Certificate
    key: Key = field(repr=False)

    @property
    def name(self) -> str:
        """Its common name."""
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def new_key() -> Key:
    """Make a private key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_serial() -> int:
    """Return 159 random bits."""
    return x509.random_serial_number()


def key_pem(key: Key) -> bytes:
    """Return the key as PKCS #8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return the certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def found_ca(host: str, term: Term) -> Ca:
    """Make a CA for the certificates of one host; its name holds a piece of its key's, so that no two CAs share one."""
    key = new_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = _name(f"natproxy CA {identifier.digest[:4].hex().upper()}", organization=host)
    builder = (
        _builder(subject, subject, key.public_key(), term)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return Ca(builder.sign(key, hashes.SHA256()), key)


def sign_server(ca: Ca, key: Key, names: ServerNames, term: Term) -> x509.Certificate:
    """Make the certificate that natproxy shows to clients."""
    alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in names.hosts]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in names.addresses]
    builder = _builder(_name(names.host), ca.certificate.subject, key.public_key(), term)
    return _sign_leaf(ca, builder, alternatives, ExtendedKeyUsageOID.SERVER_AUTH)


def sign_client(ca: Ca, key: Key, name: str, term: Term) -> x509.Certificate:
    """Make a developer's certificate: the name is its CN, and its DNS SAN where it looks like a host's, else a URI."""
    alternative = x509.DNSName(name) if is_host_name(name) else x509.UniformResourceIdentifier(f"urn:natproxy:{name}")
    builder = _builder(_name(name), ca.certificate.subject, key.public_key(), term)
    return _sign_leaf(ca, builder, [alternative], ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class SignedList:
    """What a revocation list says."""

    number: int
    revoked: Mapping[int, datetime]
    """Serial number -> when it was revoked."""


def read_list(content: bytes, ca: Ca) -> SignedList | None:
    """Return what this CA's list (PEM) says; None where it is damaged, or not of this CA."""
    try:
        found = x509.load_pem_x509_crl(content)
        if not found.is_signature_valid(ca.key.public_key()):
            return None
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        return SignedList(number, {one.serial_number: one.revocation_date_utc for one in found})
    except (ValueError, x509.ExtensionNotFound):
        return None


def sign_list(
    ca: Ca, number: int, revoked: Iterable[tuple[int, datetime]], now: datetime, next_update: datetime
) -> bytes:
    """Make the revocation list with these serials and the times they were revoked; return it as PEM."""
    builder = (
        x509.CertificateRevocationListBuilder(ca.certificate.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(next_update)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_issued_by(ca), critical=False)
    )
    for serial, since in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def load_pair(certificate: bytes, key: bytes) -> tuple[x509.Certificate, Key]:
    """Read a certificate and its key from PEM. Raises ValueError, whose text says which of them is wrong and why."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        raise ValueError("the certificate is damaged") from None
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except TypeError:
        raise ValueError("the key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("the key is damaged") from None
    if not isinstance(private, Key) or private.public_key() != found.public_key():
        raise ValueError("the key is not the certificate's")
    return found, private


def _sign_leaf(
    ca: Ca, builder: x509.CertificateBuilder, alternatives: list[x509.GeneralName], usage: x509.ObjectIdentifier
) -> x509.Certificate:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(_issued_by(ca), critical=False)
        .sign(ca.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, term: Term
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, key, term.serial)
        .not_valid_before(term.begins - CLOCK_SKEW)
        .not_valid_after(term.ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str, *, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_LONGEST_TEXT])]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:_LONGEST_TEXT]))
    return x509.Name(attributes)


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issued_by(ca: Ca) -> x509.AuthorityKeyIdentifier:
    identifier = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
