"""How it all stands today: each certificate, the revocation list, and what should be done. Pure.

``Listing`` is also the JSON of ``natproxy pki list --json``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from cryptography import x509

from natproxy.pki.index import Entry, Index, Kind

State = Literal["valid", "expiring", "expired", "revoked"]

EXPIRING = {"ca": timedelta(days=180), "server": timedelta(days=30), "client": timedelta(days=14)}
"""How long before its end a certificate is to be thought of; natproxy warns of the server's as early."""
LIST_EXPIRING = timedelta(days=7)
"""natproxy warns of its list as early."""


class CertificateView(msgspec.Struct, frozen=True):
    """One certificate, as it stands."""

    name: str
    kind: Kind
    serial: str
    issued: datetime
    expires: datetime
    revoked: datetime | None
    state: State


class RevocationListView(msgspec.Struct, frozen=True):
    """The signed list in the directory; its fields are None where it is missing or damaged."""

    number: int | None
    until: datetime | None
    unlisted: tuple[str, ...]
    """Serials that are revoked but not on it."""
    unknown: int = 0
    """How many are on it that the index does not know as revoked."""


class Listing(msgspec.Struct, frozen=True):
    """All of it."""

    version: int
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    certificates: tuple[CertificateView, ...]
    list: RevocationListView
    remarks: tuple[str, ...]
    """What should be done, in sentences."""


def state_of(entry: Entry, now: datetime) -> State:
    """Return how a certificate stands."""
    if entry.revoked is not None:
        return "revoked"
    if entry.expires <= now:
        return "expired"
    return "expiring" if entry.expires - now <= EXPIRING[entry.kind] else "valid"


def is_good(entry: Entry, now: datetime) -> bool:
    """True where the certificate would be accepted: neither revoked nor expired."""
    return entry.revoked is None and now < entry.expires


def make_listing(index: Index, revocation_list: bytes | None, now: datetime, further: tuple[str, ...] = ()) -> Listing:
    """Return how everything stands; ``further`` are remarks of who looked at the files."""
    signed = _view_list(index, revocation_list)
    return Listing(
        1,
        index.hosts,
        index.addresses,
        tuple(_view(entry, now) for entry in index.certificates),
        signed,
        (*remarks_on(index, signed, now), *further),
    )


def remarks_on(index: Index, signed: RevocationListView, now: datetime) -> tuple[str, ...]:
    """Return what should be done soon about the CA, the server's certificate and the list."""
    remarks = []
    if state_of(index.ca, now) != "valid":
        remarks.append(
            f"the CA itself {_ends(index.ca.expires, now)}: make another one in another --dir, and hand out new bundles"
        )
    if state_of(index.server, now) != "valid":
        remarks.append(f"the server's certificate {_ends(index.server.expires, now)}: `natproxy pki renew-server`")
    if signed.unknown:
        remarks.append(
            f"the revocation list has {signed.unknown} that index.json does not: was an older one put back? They stay "
            "revoked, but restore the newest"
        )
    anew = "`natproxy pki crl` signs it anew"
    if signed.until is None:
        remarks.append(f"the revocation list is missing or damaged: {anew}")
    elif signed.unlisted:
        remarks.append(f"the revocation list lacks {', '.join(signed.unlisted)}: {anew}")
    elif signed.until - now <= LIST_EXPIRING:
        remarks.append(f"the revocation list {_ends(signed.until, now)}, and then lets nobody in: {anew}")
    return tuple(remarks)


def day(moment: datetime) -> str:
    """Return the moment as people read it: ``2025-01-31``."""
    return moment.strftime("%Y-%m-%d")


def _ends(moment: datetime, now: datetime) -> str:
    return f"ended on {day(moment)}" if moment <= now else f"ends on {day(moment)}"


def _view(entry: Entry, now: datetime) -> CertificateView:
    return CertificateView(
        entry.name, entry.kind, entry.serial, entry.issued, entry.expires, entry.revoked, state_of(entry, now)
    )


def _view_list(index: Index, content: bytes | None) -> RevocationListView:
    revoked = {entry.number: entry.serial for entry in index.revoked()}
    try:
        found = x509.load_pem_x509_crl(content or b"")
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (ValueError, x509.ExtensionNotFound):
        return RevocationListView(None, None, tuple(revoked.values()))
    listed = {entry.serial_number for entry in found}
    unlisted = tuple(serial for value, serial in revoked.items() if value not in listed)
    return RevocationListView(number, found.next_update_utc, unlisted, len(listed - revoked.keys()))
