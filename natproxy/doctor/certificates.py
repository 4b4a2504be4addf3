"""A peer's certificate, reduced to what a finding says of it. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509

from natproxy.tls.chains import shown
from natproxy.tls.identity import UNREADABLE, quietly

_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Shown:
    """What a certificate says."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """DNS names and IP addresses among its SANs."""
    begins: datetime.datetime
    ends: datetime.datetime

    def names_text(self) -> str:
        """Return its names, or the subject of one that has none, short enough for a line."""
        if not self.names:
            return f"nobody by a subject alternative name (subject {self.subject})"
        more = f" and {len(self.names) - _MOST_NAMES} more" if len(self.names) > _MOST_NAMES else ""
        return ", ".join(self.names[:_MOST_NAMES]) + more

    def dates_text(self) -> str:
        """Return from when until when it holds."""
        return f"from {instant(self.begins)} until {instant(self.ends)}"


def read_certificate(der: bytes) -> Shown | None:
    """Return what a certificate says; None where it cannot be read."""
    try:
        one = quietly(x509.load_der_x509_certificate, der)
        return Shown(
            shown(one.subject), shown(one.issuer), _names(one), one.not_valid_before_utc, one.not_valid_after_utc
        )
    except UNREADABLE:
        return None


def instant(at: datetime.datetime) -> str:
    """Write a moment for people, in UTC."""
    return at.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _names(one: x509.Certificate) -> tuple[str, ...]:
    try:
        names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return (*names.get_values_for_type(x509.DNSName), *addresses)
