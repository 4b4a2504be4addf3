"""Whether certificates, key, CAs and revocation lists fit together, found out before anybody relies on them. Pure.

Every function raises TlsError, whose text begins where the name of a file has just been said.
"""

from __future__ import annotations

import itertools
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from natproxy.errors import TlsError
from natproxy.tls import pem
from natproxy.tls.identity import UNREADABLE, fault, issuer_key, quietly
from natproxy.tls.revocation import read_crl, read_lists

T = TypeVar("T", bound=x509.ExtensionType)
_FOR_SERVERS = frozenset((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))


def read_certificates(content: bytes, *, is_lenient: bool = False) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, in their order; at least one has to be there.

    Lenient, those that only OpenSSL can read are left out: the systems' own collections of roots have such.
    """
    if not (blocks := pem.certificates(content)):
        raise TlsError("there is no certificate in it (PEM, BEGIN CERTIFICATE)")
    found = []
    for number, block in enumerate(blocks, 1):
        try:
            found.append(_load(block))
        except UNREADABLE as error:
            if not is_lenient:
                raise TlsError(f"certificate {number} of {len(blocks)} cannot be read: {fault(error)}") from error
    return found


def shown(name: x509.Name) -> str:
    """Write a subject or issuer for people."""
    return name.rfc4514_string() or "(a certificate without a subject)"


def check_chain(chain: list[x509.Certificate]) -> None:
    """Refuse a chain that is not the server's certificate, then each one's issuer."""
    own = chain[0]
    usages = _extension(own, x509.ExtendedKeyUsage)
    if usages is not None and not _FOR_SERVERS.intersection(usages):
        raise TlsError(f"the certificate of {shown(own.subject)} is not for servers: no client would accept it")
    for number, (one, issuer) in enumerate(itertools.pairwise(chain), 1):
        if not _is_issued_by(one, issuer):
            raise TlsError(
                f"certificate {number + 1} ({shown(issuer.subject)}) did not issue the one before it "
                f"({shown(one.subject)}): the server's own comes first, then each one's issuer"
            )


def check_key(chain: list[x509.Certificate], content: bytes) -> None:
    """Refuse a PEM file that does not hold just the key of the first certificate, in the clear."""
    if not (keys := pem.keys(content)):
        raise TlsError("there is no private key in it (PEM, BEGIN PRIVATE KEY)")
    if len(keys) > 1:
        raise TlsError(f"there are {len(keys)} private keys in it")
    if pem.is_encrypted(keys[0]):
        raise TlsError("the key is encrypted, and nobody is there to type its passphrase: decrypt it (openssl pkey)")
    try:
        public = serialization.load_pem_private_key(keys[0], None).public_key()
    except UNREADABLE as error:
        raise TlsError("the private key in it cannot be read") from error  # nothing about a key is told
    try:
        owners = [number for number, one in enumerate(chain) if _der(one.public_key()) == _der(public)]
    except UNREADABLE as error:
        raise TlsError(f"the certificate's key is of a kind that natproxy does not know: {fault(error)}") from error
    if not owners:
        raise TlsError("the key does not belong to the certificate")
    if owners[0] != 0:
        raise TlsError(f"the key belongs to certificate {owners[0] + 1} of its file: the server's own must come first")


def check_cas(cas: list[x509.Certificate]) -> None:
    """Refuse certificates that cannot vouch for others."""
    for one in cas:
        basic, usage = _extension(one, x509.BasicConstraints), _extension(one, x509.KeyUsage)
        if basic is None or not basic.ca:
            raise TlsError(f"the certificate of {shown(one.subject)} is not that of a CA")
        if usage is not None and not usage.key_cert_sign:
            raise TlsError(f"the certificate of {shown(one.subject)} may not be used to sign others (its key usage)")


def check_crl(content: bytes, cas: list[x509.Certificate]) -> None:
    """Refuse revocation lists that are unreadable, tell only a part, or that no one of ``cas`` has signed."""
    read_crl(content)
    for one in read_lists(content):
        named = [ca for ca in cas if issuer_key(ca.subject) == issuer_key(one.issuer)]
        if not named:
            raise TlsError(f"the revocation list is of {shown(one.issuer)}, which is none of the CAs in client_ca")
        signers = [ca for ca in named if _is_signed_by(one, ca)]
        if not signers:
            raise TlsError(f"the revocation list of {shown(one.issuer)} is not signed with that CA's key")
        usages = [_extension(ca, x509.KeyUsage) for ca in signers]
        if not any(usage is None or usage.crl_sign for usage in usages):
            raise TlsError(f"the CA {shown(one.issuer)} may not sign revocation lists (its key usage)")


def _load(block: bytes) -> x509.Certificate:
    one = quietly(x509.load_pem_x509_certificate, block)
    # These are read when they are asked for, and must not fail then.
    _ = one.subject, one.issuer, one.extensions, one.not_valid_before_utc, one.not_valid_after_utc
    return one


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _der(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _is_issued_by(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    if issuer_key(one.issuer) != issuer_key(issuer.subject):
        return False
    try:
        one.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except UNREADABLE:
        return True  # of a kind that only OpenSSL knows: it has the last word
    return True


def _is_signed_by(crl: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    except UNREADABLE:
        return False
