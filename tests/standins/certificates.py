"""Authorities, certificates and revocation lists: good ones, and every kind of bad one. Pure, but for ``write``.

ca = Authority("Clients CA")
dev1 = ca.issue("dev1", usage="client")
certificate, key = dev1.write(directory, "dev1")
ca.crl([dev1])                                       # a revocation list with dev1 on it
Authority("Issuing CA", parent=ca).issue("dev2")     # its certificate carries the one between it and the root
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Usage = Literal["client", "server", "both", "none", "codesigning"]
Key = Literal["ec", "rsa2048", "rsa1024"]
Hash = Literal["sha256", "sha1"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

LIFE = timedelta(days=365)
AGE = timedelta(hours=1)
"""How old a new certificate is: clocks differ."""
USAGES = {
    "client": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "server": [ExtendedKeyUsageOID.SERVER_AUTH],
    "both": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "none": [],
    "codesigning": [ExtendedKeyUsageOID.CODE_SIGNING],
}

BIT_STRING, SEQUENCE = 0x03, 0x30
WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
"""AlgorithmIdentifier of ecdsa-with-SHA256, as DER."""
WITH_SHA1 = bytes.fromhex("300906072a8648ce3d0401")


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, both as PEM."""

    certificate: bytes
    """The certificate, then those between it and the root."""
    key: bytes
    """PKCS #8, not encrypted."""
    serial: int

    def write(self, directory: Path, stem: str = "server") -> tuple[Path, Path]:
        """Write both; return the paths of the certificate and of the key, which only its owner can read."""
        certificate, key = directory / f"{stem}.crt", directory / f"{stem}.key"
        certificate.write_bytes(self.certificate)
        key.touch(0o600)
        key.chmod(0o600)
        key.write_bytes(self.key)
        return certificate, key

    def __repr__(self) -> str:
        return f"<Issued {self.serial:x}>"


class Authority:
    """A CA with an EC P-256 key: a root, or one below ``parent``."""

    def __init__(self, name: str = "Test CA", *, parent: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = parent or self
        builder = _builder(self.name, signer.name, self._key, (_now() - AGE, _now() + 10 * LIFE))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(is_ca=True), critical=True)
        builder = builder.add_extension(_key_identifier(signer), critical=False)
        self.pem: bytes = _pem(builder.sign(signer._key, hashes.SHA256()))
        """Its certificate."""
        self._between: bytes = b"" if parent is None else self.pem + parent._between

    def issue(
        self,
        name: str | None,
        *,
        dns: Iterable[str] = (),
        ips: Iterable[str] = (),
        uris: Iterable[str] = (),
        usage: Usage = "server",
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
        key: Key = "ec",
        hash: Hash = "sha256",  # noqa: A002
        serial: int | None = None,
    ) -> Issued:
        """Issue a certificate: ``name`` is its CN, the rest of the names its SANs. Valid now, unless dates say else."""
        private = _new_key(key)
        builder = _builder(_subject(name), self.name, private, _dates(not_before, not_after), serial)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(is_ca=False), critical=True)
        builder = builder.add_extension(_key_identifier(self), critical=False)
        if USAGES[usage]:
            builder = builder.add_extension(x509.ExtendedKeyUsage(USAGES[usage]), critical=False)
        if names := _general_names(dns, ips, uris):
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=name is None)
        signed = builder.sign(self._key, hashes.SHA256())
        return _issued(self._sign_with_sha1(signed) if hash == "sha1" else signed, private, self._between)

    def crl(
        self,
        revoked: Iterable[Issued | int] = (),
        *,
        this_update: datetime.datetime | None = None,
        next_update: datetime.datetime | None = None,
    ) -> bytes:
        """Sign a revocation list (PEM) with these certificates or serials on it."""
        begin, end = _dates(this_update, next_update)
        builder = x509.CertificateRevocationListBuilder(self.name, begin, end)
        builder = builder.add_extension(_key_identifier(self), critical=False)
        builder = builder.add_extension(x509.CRLNumber(int(_now().timestamp() * 1000)), critical=False)
        for entry in revoked:
            serial = entry if isinstance(entry, int) else entry.serial
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin)
            builder = builder.add_revoked_certificate(one.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _sign_with_sha1(self, certificate: x509.Certificate) -> x509.Certificate:
        """Sign it anew, by hand: cryptography signs no certificate with so weak a hash."""
        content = certificate.tbs_certificate_bytes.replace(WITH_SHA256, WITH_SHA1, 1)
        content = _sequence(content[_header_length(content) :])
        signature = self._key.sign(content, ec.ECDSA(hashes.SHA1()))
        whole = content + WITH_SHA1 + _der(BIT_STRING, b"\0" + signature)
        return x509.load_der_x509_certificate(_sequence(whole))


def self_signed(name: str, *, dns: Iterable[str] = ()) -> Issued:
    """Make a server's certificate that nobody but itself vouches for."""
    key = _new_key("ec")
    builder = _builder(_subject(name), _subject(name), key, _dates(None, None))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName(_general_names(dns or [name], (), ())), critical=False)
    return _issued(builder.sign(key, hashes.SHA256()), key, b"")


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    dates: tuple[datetime.datetime, datetime.datetime],
    serial: int | None = None,
) -> x509.CertificateBuilder:
    number = x509.random_serial_number() if serial is None else serial
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), number, *dates)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _issued(certificate: x509.Certificate, key: PrivateKey, between: bytes) -> Issued:
    return Issued(_pem(certificate) + between, _key_pem(key), certificate.serial_number)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _new_key(kind: Key) -> PrivateKey:
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


def _subject(name: str | None) -> x509.Name:
    return x509.Name([] if name is None else [x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_names(dns: Iterable[str], ips: Iterable[str], uris: Iterable[str]) -> list[x509.GeneralName]:
    return [
        *map(x509.DNSName, dns),
        *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips),
        *map(x509.UniformResourceIdentifier, uris),
    ]


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _key_identifier(signer: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer._key.public_key())


def _dates(
    begin: datetime.datetime | None, end: datetime.datetime | None
) -> tuple[datetime.datetime, datetime.datetime]:
    """Fill in what is missing, so that the end never comes before the beginning."""
    now = _now()
    if begin is None:
        begin = min(now, end or now) - AGE
    return begin, end or max(now, begin) + LIFE


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _sequence(content: bytes) -> bytes:
    return _der(SEQUENCE, content)


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def _header_length(der: bytes) -> int:
    return 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)
