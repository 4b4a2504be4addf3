"""The index: all that was ever signed, as one JSON file fit to be read by a human. Pure.

The index is what is true; the certificates and lists beside it follow from it. Unknown fields are refused: writing the
index anew would lose them.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from natproxy.errors import PkiError
from natproxy.pki.terms import MOST_DAYS, ServerNames, Term, client_name, serial_text

VERSION = 1

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
"""Whatever else a host's name may be, it goes into lines that developers paste into a shell."""

Kind = Literal["ca", "server", "client"]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One certificate."""

    serial: Annotated[str, msgspec.Meta(pattern="^([0-9A-F]{2}){1,20}$")]
    """As ``terms.serial_text`` writes it."""
    kind: Kind
    name: Annotated[str, msgspec.Meta(min_length=1)]
    """Whose it is: the developer's name, the host's, the CA's common name."""
    issued: Moment
    expires: Moment
    revoked: Moment | None = None

    @property
    def number(self) -> int:
        """The serial as a number."""
        return int(self.serial, 16)

    def is_like(self, name: str) -> bool:
        """True where only upper and lower case tell its name from another one."""
        return self.name != name and self.name.lower() == name.lower()


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that the CA remembers."""

    version: int
    hosts: tuple[str, ...]
    """DNS names of the server's certificate; with ``addresses`` at least one."""
    addresses: tuple[str, ...]
    list_number: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    """Of the last revocation list that was signed, or was about to be."""
    list_days: Annotated[int, msgspec.Meta(ge=1, le=MOST_DAYS)]
    """How long revocation lists are valid."""
    certificates: tuple[Entry, ...]
    """In the order they were signed; the first is the CA's own."""
    portal_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    """Goes into bundles. None (and not written) where nobody has said one."""

    @property
    def names(self) -> ServerNames:
        """What the server's certificate is for."""
        return ServerNames(self.hosts, self.addresses)

    @property
    def ca(self) -> Entry:
        """The CA's own certificate."""
        return self.certificates[0]

    @property
    def server(self) -> Entry:
        """The server's newest certificate."""
        return [entry for entry in self.certificates if entry.kind == "server"][-1]

    def of(self, name: str) -> tuple[Entry, ...]:
        """Return every certificate of a developer."""
        return tuple(entry for entry in self.certificates if entry.kind == "client" and entry.name == name)

    def revoked(self) -> tuple[Entry, ...]:
        """Return what belongs on the revocation list: also what has expired since, for clocks that differ."""
        return tuple(entry for entry in self.certificates if entry.revoked is not None)

    def with_number_after(self, number: int) -> Index:
        """Return the index with a number for its next list that comes after ``number``."""
        return msgspec.structs.replace(self, list_number=max(self.list_number, number + 1))

    def with_entry(self, entry: Entry) -> Index:
        """Return the index with one more certificate."""
        return msgspec.structs.replace(self, certificates=(*self.certificates, entry))

    def with_names(self, names: ServerNames) -> Index:
        """Return the index with other names for the server."""
        return msgspec.structs.replace(self, hosts=names.hosts, addresses=names.addresses)

    def with_portal_port(self, portal_port: int | None) -> Index:
        """Return the index with another port for the portal; None: the one it has."""
        return self if portal_port is None else msgspec.structs.replace(self, portal_port=portal_port)

    def with_revoked(self, serials: frozenset[str], now: datetime) -> Index:
        """Return the index with these certificates revoked now."""
        certificates = tuple(
            msgspec.structs.replace(entry, revoked=now) if entry.serial in serials else entry
            for entry in self.certificates
        )
        return msgspec.structs.replace(self, certificates=certificates)

    def with_next_list(self, days: int | None = None) -> Index:
        """Return the index of the moment before the next list is signed, valid for ``days`` or for as long as ever."""
        return msgspec.structs.replace(self, list_number=self.list_number + 1, list_days=days or self.list_days)


def make_entry(kind: Kind, name: str, term: Term) -> Entry:
    """Return the entry of a new certificate."""
    return Entry(serial_text(term.serial), kind, name, term.begins, term.ends)


def encode_index(index: Index) -> bytes:
    """Return the content of the file."""
    return msgspec.json.format(msgspec.json.encode(index), indent=2) + b"\n"


def decode_index(content: bytes) -> Index:
    """Read the content of the file. Raises PkiError, whose text says what is wrong but names no file."""
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version > VERSION:
            message = f"was written by a newer natproxy (version {version})"
            raise PkiError(message)
        index = msgspec.json.decode(content, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"is damaged: {error}; restore it from the backup"
        raise PkiError(message) from None
    if reason := _nonsense(index):
        message = f"is damaged: {reason}; restore it from the backup"
        raise PkiError(message)
    return index


def utc(moment: datetime) -> datetime:
    """Return the moment in UTC and whole seconds, as certificates hold it."""
    return moment.astimezone(UTC).replace(microsecond=0)


class _Version(msgspec.Struct):
    version: Annotated[int, msgspec.Meta(ge=1)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _nonsense(index: Index) -> str | None:
    """Return what cannot be, though each value alone can."""
    kinds = [entry.kind for entry in index.certificates]
    if kinds[:1] != ["ca"] or kinds.count("ca") != 1 or "server" not in kinds:
        return "it must begin with the CA's own certificate, and hold a server's"
    if not index.hosts and not index.addresses:
        return "it names no host and no address"
    if not all(_HOST.fullmatch(text) for text in index.hosts) or not all(map(_is_address, index.addresses)):
        return "its hosts must be DNS names, its addresses IP addresses"
    serials = set()
    for entry in index.certificates:
        if entry.serial in serials:
            return f"the serial {entry.serial} stands there twice"
        serials.add(entry.serial)
    return next(filter(None, map(_nonsense_in, index.certificates)), None)


def _nonsense_in(entry: Entry) -> str | None:
    if not entry.number:
        return "a serial number is positive"
    moments = (entry.issued, entry.expires, entry.revoked)
    if any(moment is not None and not 1950 <= moment.year < 9999 for moment in moments):
        return f"{entry.serial} has a date that no certificate and no list can hold"
    if entry.kind != "client":
        return None if entry.name.isprintable() else f"{entry.serial} has a name that is not printable"
    try:
        client_name(entry.name)
    except PkiError as error:
        return str(error)
    return None
