"""Who a client is by its certificate, and whether one of the names that may connect is among its own. Pure."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from natproxy.errors import TlsError

UNREADABLE = (
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    Warning,  # where warnings are errors
)
"""What ``cryptography`` raises where a certificate or a list is not as it should be."""
S = TypeVar("S")
T = TypeVar("T")
_LABEL = re.compile(r"[A-Za-z0-9_-]+")
_MOST_BYTES = 16 * 1024
_MOST_NAMES = 256
_MOST_SERIAL_BITS = 512
"""Of a client's certificate. RFC 5280 wants 160 bits at most; whoever shows one decides what it costs to read, to keep
and to log it, also where nobody vouches for it."""
_SHOWN_CHARACTERS = 128
"""Of a name in the log. A CN has 64 at most (RFC 5280, appendix A.1), which nothing enforces."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate that has been verified, reduced to what decides and what is logged."""

    name: str
    """Its CN, else its first SAN; empty where it has neither. To be shown: a long one is cut short."""
    names: frozenset[str]
    """CN, and DNS (in lower case) and URI SANs."""
    serial: int
    issuer: str
    """RFC 4514, case folded: to be compared, not to be shown."""
    not_before: float
    not_after: float
    hosts: frozenset[str] = frozenset()
    """Those of ``names`` that are DNS names, and so are compared without regard to case."""
    uris: frozenset[str] = frozenset()
    """Those that are URIs, which no wildcard means."""


def identify(der: bytes) -> Identity:
    """Read a certificate, such as ``SSLObject.getpeercert(True)`` gives after a handshake, a resumed one too.

    Raises TlsError where it is none, or a monster.
    """
    if len(der) > _MOST_BYTES:
        raise TlsError(f"the certificate has {len(der)} bytes: {_MOST_BYTES} are enough for a client's")
    try:
        return quietly(_read, der)
    except UNREADABLE as error:
        raise TlsError(f"the certificate cannot be read: {fault(error)}") from error


def _read(der: bytes) -> Identity:
    certificate = x509.load_der_x509_certificate(der)
    common = [_text(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    hosts, uris = _alternative_names(certificate)
    names, serial = [*common, *hosts, *uris], certificate.serial_number
    if len(names) > _MOST_NAMES:
        raise TlsError(f"the certificate has {len(names)} names: {_MOST_NAMES} are enough for a client's")
    if serial.bit_length() > _MOST_SERIAL_BITS:
        raise TlsError(f"the certificate's serial number has {serial.bit_length()} bits")
    return Identity(
        name=_shown(names[0]) if names else "",
        names=frozenset(names),
        serial=serial,
        issuer=issuer_key(certificate.issuer),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        hosts=frozenset(hosts),
        uris=frozenset(uris),
    )


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}..."


def quietly(read: Callable[[S], T], source: S) -> T:
    """Read something without being told what is odd about it: serial number 0, a name that is too long, ...

    Whoever shows a certificate would write to standard error that way, past the log and its limits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        return read(source)


def serial_of(certificate: x509.Certificate) -> int:
    """Return its serial number, be it one that none should have."""
    number: int = quietly(operator.attrgetter("serial_number"), certificate)
    return number


def fault(error: Exception) -> str:
    """Say in plain words why ``cryptography`` cannot read something."""
    text = str(error).partition("\n")[0]
    is_plain = text.isprintable() and not any(word in text for word in ("ParseError", "asn1", "ASN.1", "PEM", "://"))
    return text[:200] if text and is_plain else "it is damaged"


def issuer_key(name: x509.Name) -> str:
    """Return what two issuers have in common that are the same."""
    return name.rfc4514_string().casefold()


def serial_text(serial: int) -> str:
    """Write a serial number as ``openssl x509 -serial`` does: upper-case hex, whole bytes."""
    digits = f"{abs(serial):X}"
    return ("-" if serial < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def is_named(identity: Identity, patterns: tuple[str, ...] | None) -> bool:
    """Tell whether the certificate has a name that one of ``patterns`` means; None = any certificate will do.

    A pattern is a CN or URI SAN as it stands, or a DNS SAN in upper or lower case. ``*.ci.example.com`` means every
    CN and DNS SAN with exactly one label more. Nothing else is a wildcard.
    """
    return patterns is None or any(_is_meant(identity, pattern) for pattern in patterns)


def _is_meant(identity: Identity, pattern: str) -> bool:
    if pattern.startswith("*.") and len(pattern) > 2:
        rest = pattern[1:]
        return any(_is_one_label_more(name, rest) for name in identity.names - identity.hosts - identity.uris) or any(
            _is_one_label_more(name, _lower(rest)) for name in identity.hosts
        )
    return pattern in identity.names or _lower(pattern) in identity.hosts


def _is_one_label_more(name: str, rest: str) -> bool:
    return name.endswith(rest) and _LABEL.fullmatch(name.removesuffix(rest)) is not None


def _alternative_names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    hosts = [_lower(name) for name in names.get_values_for_type(x509.DNSName)]
    return hosts, names.get_values_for_type(x509.UniformResourceIdentifier)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _lower(name: str) -> str:
    """Fold the case of ASCII letters only: others have none in a host name."""
    return name.lower() if name.isascii() else name
