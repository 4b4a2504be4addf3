"""Who is revoked, and which revocation list is out of date. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509

from natproxy.errors import TlsError
from natproxy.tls import pem
from natproxy.tls.identity import UNREADABLE, Identity, fault, issuer_key, quietly

_UNDERSTOOD = (x509.CRLNumber, x509.AuthorityKeyIdentifier, x509.IssuingDistributionPoint)


@dataclass(frozen=True, slots=True)
class Revocations:
    """All that the loaded revocation lists say."""

    revoked: frozenset[tuple[str, int]]
    """(issuer, serial number) of every certificate on them."""
    next_updates: Mapping[str, float]
    """Issuer -> the Unix time from which its list no longer holds."""
    this_updates: Mapping[str, float] = field(default_factory=dict)
    """Issuer -> the Unix time at which its newest list was signed."""

    def is_older_than(self, other: Revocations) -> bool:
        """Tell whether a list of these was signed before that of the same issuer among the others."""
        return any(at < other.this_updates.get(issuer, at) for issuer, at in self.this_updates.items())

    def is_revoked(self, identity: Identity) -> bool:
        """Tell whether a list names this certificate."""
        return (identity.issuer, identity.serial) in self.revoked

    def is_stale(self, identity: Identity, now: float) -> bool:
        """Tell whether there is no list of the certificate's issuer that holds at ``now``."""
        until = self.next_updates.get(identity.issuer)
        return until is None or now >= until


def read_crl(crl: bytes) -> Revocations:
    """Read the revocation lists of a PEM file. Nobody's signature is verified here.

    Of several lists by one issuer whatever any of them revokes is revoked, and the longest lived tells until when.
    Raises TlsError.
    """
    revoked: set[tuple[str, int]] = set()
    next_updates: dict[str, float] = {}
    this_updates: dict[str, float] = {}
    lists = read_lists(crl)
    for (issuer, serials, until), one in zip(map(_read_one, lists), lists, strict=True):
        this_updates[issuer] = max(one.last_update_utc.timestamp(), this_updates.get(issuer, 0.0))
        revoked.update((issuer, serial) for serial in serials)
        next_updates[issuer] = max(until, next_updates.get(issuer, until))
    return Revocations(frozenset(revoked), next_updates, this_updates)


def read_lists(crl: bytes) -> list[x509.CertificateRevocationList]:
    """Return the file's lists, at least one. Raises TlsError."""
    if not (blocks := pem.revocation_lists(crl)):
        raise TlsError("there is no revocation list in it (PEM, BEGIN X509 CRL)")
    lists = []
    for number, block in enumerate(blocks, 1):
        try:
            lists.append(_load(block))
        except UNREADABLE as error:
            raise TlsError(f"revocation list {number} of {len(blocks)} cannot be read: {fault(error)}") from error
    return lists


def _load(block: bytes) -> x509.CertificateRevocationList:
    crl = quietly(x509.load_pem_x509_crl, block)
    _ = crl.issuer, crl.extensions, crl.last_update_utc, crl.next_update_utc  # these are read when they are asked for
    return crl


def _read_one(crl: x509.CertificateRevocationList) -> tuple[str, list[int], float]:
    try:
        shown = crl.issuer.rfc4514_string()
        if crl.next_update_utc is None:
            raise TlsError(f"the revocation list of {shown} does not say when the next is due: it would hold for ever")
        if what := _part(crl):
            raise TlsError(f"the revocation list of {shown} {what}")
        return issuer_key(crl.issuer), quietly(_serials, crl), crl.next_update_utc.timestamp()
    except UNREADABLE as error:
        raise TlsError(f"a revocation list cannot be read: {fault(error)}") from error


def _serials(crl: x509.CertificateRevocationList) -> list[int]:
    return [one.serial_number for one in crl]


def _part(crl: x509.CertificateRevocationList) -> str | None:
    """Say what makes a list one that does not tell all about its issuer's certificates (RFC 5280, 5.2)."""
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            return "is a delta: natproxy needs the whole list"
        if isinstance(value, x509.IssuingDistributionPoint):
            if value.indirect_crl:
                return "is an indirect one, with other issuers' certificates on it"
            if value.only_contains_ca_certs or value.only_contains_attribute_certs or value.only_some_reasons:
                return "tells only about some certificates or reasons"
        if extension.critical and not isinstance(value, _UNDERSTOOD):
            return f"has a critical extension that natproxy does not know ({extension.oid.dotted_string})"
    return None
