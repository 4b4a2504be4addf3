"""The CA in its directory: what each command does. I/O: talks to the file system.

ca.crt  ca.key           the CA itself
server.crt  server.key   what natproxy shows to clients
clients.crl              the revocation list
index.json               all that was ever signed
issued/NAME-SERIAL.crt   every certificate of a developer; no copy of its key is kept
.lock                    held by the command that is at work
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from natproxy.errors import PkiError
from natproxy.model import PORTAL_PORT
from natproxy.pki import certificates, files
from natproxy.pki.bundle import bundle_files
from natproxy.pki.certificates import Ca, SignedList, certificate_pem, key_pem, new_key
from natproxy.pki.handout import check_out, write_bundle
from natproxy.pki.index import VERSION, Entry, Index, decode_index, encode_index, make_entry, utc
from natproxy.pki.listing import Listing, day, is_good, make_listing
from natproxy.pki.terms import CA_DAYS, LIST_DAYS, SERVER_DAYS, ServerNames, Term, client_name, read_serial, serial_text

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Issued:
    """A bundle that was written."""

    entry: Entry
    out: Path
    others: tuple[Entry, ...]
    """The developer's other certificates that are still good."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation did."""

    entries: tuple[Entry, ...]
    """Empty where all of them had been revoked before."""
    until: datetime
    """When the new list ends."""


class Authority:
    """The CA in ``directory``. Every method raises PkiError, whose text names the file and what is wrong with it."""

    def __init__(self, directory: Path, *, now: Callable[[], datetime] | None = None) -> None:
        self.directory = directory
        self._clock = now

    def init(self, names: ServerNames, portal_port: int | None = None) -> Listing:
        """Make the directory, with a new CA in it: first beside it, under another name, then by one rename.

        ``portal_port`` goes into bundles; None: the customary one.
        """
        self._refuse_existing()
        staging = self.directory.with_name(f".{self.directory.name}.new")
        files.make_own_directory(staging)
        with files.locked(staging / ".lock"):  # the directory takes its lock along when it is renamed
            self._refuse_existing()
            self._found(staging, names, portal_port)
            files.rename(staging, self.directory)
        return self.listing()

    def issue(self, name: str, days: int, out: Path, *, force: bool = False, portal_port: int | None = None) -> Issued:
        """Sign a developer's certificate and write the bundle to ``out``, overwriting nothing unless ``force``.

        ``portal_port`` replaces the one that is remembered, for this bundle and later ones.
        """
        client_name(name)
        with self._changing() as (before, ca):
            _refuse_likeness(before, name)
            index = before.with_portal_port(portal_port)
            term, key = self._term(index, ca, days), new_key()
            check_out(out, self.directory, force=force)
            certificate = certificate_pem(certificates.sign_client(ca, key, name, term))
            entry = make_entry("client", name, term)
            parts = {"certificate": certificate, "key": key_pem(key), "ca": certificate_pem(ca.certificate)}
            self._save(index.with_entry(entry))
            try:
                files.make_directory(self.directory / "issued")
                files.write({self.directory / "issued" / f"{name}-{entry.serial}.crt": certificate})
                handed = bundle_files(name, index.names.host, index.portal_port or PORTAL_PORT, term.ends, **parts)
                write_bundle(handed, out, term.begins)
            except PkiError as error:
                message = f"{error}; the certificate {entry.serial} was not handed out: revoke it, and issue another"
                raise PkiError(message) from error
            return Issued(entry, out, tuple(other for other in index.of(name) if is_good(other, term.begins)))

    def revoke(self, name: str | None, serial: str | None = None) -> Revoked:
        """Revoke a developer's certificates that are still good, or the one with this serial; sign the list anew."""
        with self._changing() as (index, ca):
            now = self._now()
            chosen = _chosen(index, name, serial)
            entries = tuple(entry for entry in chosen if is_good(entry, now))
            if not entries and not any(entry.revoked for entry in chosen):
                message = f"nothing to revoke: {_whose(chosen)} expired on {day(max(e.expires for e in chosen))}"
                raise PkiError(message)
            marked = index.with_revoked(frozenset(entry.serial for entry in entries), now)
            return Revoked(entries, self._sign_list(marked.with_next_list(), ca))

    def renew_server(self, days: int, names: ServerNames | None = None) -> Entry:
        """Replace the server's key and certificate; ``names`` replace the names it has."""
        with self._changing() as (index, ca):
            names = names or index.names
            term, key = self._term(index, ca, days), new_key()
            certificate = certificates.sign_server(ca, key, names, term)
            entry = make_entry("server", names.host, term)
            self._save(index.with_names(names).with_entry(entry))
            files.write(_pair(self.directory, "server", certificate_pem(certificate), key_pem(key)))
            return entry

    def sign_list(self, days: int | None = None) -> datetime:
        """Sign the revocation list anew, for ``days`` from now on, or for as long as ever; return when it ends."""
        with self._changing() as (index, ca):
            return self._sign_list(index.with_next_list(days), ca)

    def listing(self) -> Listing:
        """Return how everything stands. Needs no lock, and writes nothing."""
        index = self._index()
        try:
            revocation_list = (self.directory / "clients.crl").read_bytes()
        except OSError:
            revocation_list = None
        return make_listing(index, revocation_list, self._now(), tuple(self._file_remarks(index)))

    def _now(self) -> datetime:
        return utc(datetime.now(UTC) if self._clock is None else self._clock())

    def _refuse_existing(self) -> None:
        if os.path.lexists(self.directory):
            message = f"{self.directory} is there already: a new CA makes its own directory (choose another --dir)"
            raise PkiError(message)

    def _found(self, staging: Path, names: ServerNames, portal_port: int | None) -> None:
        now = self._now()
        ca_term = Term(certificates.new_serial(), now, now + timedelta(days=CA_DAYS))
        server_term = Term(certificates.new_serial(), now, now + timedelta(days=SERVER_DAYS))
        ca, key = certificates.found_ca(names.host, ca_term), new_key()
        server = certificates.sign_server(ca, key, names, server_term)
        entries = make_entry("ca", ca.name, ca_term), make_entry("server", names.host, server_term)
        index = Index(VERSION, names.hosts, names.addresses, 1, LIST_DAYS, entries, portal_port)
        files.make_directory(staging / "issued")
        files.write(
            _pair(staging, "ca", certificate_pem(ca.certificate), key_pem(ca.key))
            | _pair(staging, "server", certificate_pem(server), key_pem(key))
            | {
                staging / "clients.crl": certificates.sign_list(ca, 1, (), now, now + timedelta(days=LIST_DAYS)),
                staging / "index.json": encode_index(index),
            }
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[Index, Ca]]:
        """Hold the lock, with the index and the CA as they are now."""
        self._index()  # where there is no CA, no lock is left behind
        with files.locked(self.directory / ".lock"):
            index = self._index()
            yield index, self._ca(index)

    def _index(self) -> Index:
        path = self.directory / "index.json"
        if not os.path.lexists(path):
            message = f"there is no CA in {self.directory} (no index.json): `natproxy pki init` makes one"
            raise PkiError(message)
        content = files.read(path)
        try:
            return decode_index(content)
        except PkiError as error:
            message = f"{path} {error}; nothing was changed"
            raise PkiError(message) from None

    def _ca(self, index: Index) -> Ca:
        certificate, key = self.directory / "ca.crt", self.directory / "ca.key"
        try:
            ca = Ca(*certificates.load_pair(files.read(certificate), files.read(key)))
        except ValueError as error:
            message = f"{certificate} and {key} cannot be used: {error}"
            raise PkiError(message) from None
        if serial_text(ca.certificate.serial_number) != index.ca.serial:
            message = f"{certificate} is not the CA that {self.directory / 'index.json'} is about"
            raise PkiError(message)
        return ca

    def _save(self, index: Index) -> None:
        files.write({self.directory / "index.json": encode_index(index)})

    def _term(self, index: Index, ca: Ca, days: int) -> Term:
        """Return a new certificate's serial and time. Raises PkiError where the CA ends before it."""
        now, end = self._now(), ca.certificate.not_valid_after_utc
        _check_clock(ca, now)
        if now + timedelta(days=days) > end:
            message = f"the CA itself ends on {day(end)}: --days {(end - now).days} at most, or make another CA"
            raise PkiError(message)
        known = {entry.number for entry in index.certificates}
        serial = next(serial for serial in iter(certificates.new_serial, None) if serial not in known)
        return Term(serial, now, now + timedelta(days=days))

    def _sign_list(self, index: Index, ca: Ca) -> datetime:
        """Save the index, then sign the list that it calls for; return when that ends: never after the CA."""
        now = self._now()
        _check_clock(ca, now)
        until = min(now + timedelta(days=index.list_days), ca.certificate.not_valid_after_utc)
        revoked = {entry.number: entry.revoked for entry in index.revoked() if entry.revoked is not None}
        if (last := self._last_list(ca)) is not None:
            # Where an older index was put back, nothing is let in again, and no number comes twice.
            index = index.with_number_after(last.number)
            revoked = {**last.revoked, **revoked}
        signed = certificates.sign_list(ca, index.list_number, revoked.items(), now, until)
        self._save(index)
        files.write({self.directory / "clients.crl": signed})
        return until

    def _last_list(self, ca: Ca) -> SignedList | None:
        try:
            content = (self.directory / "clients.crl").read_bytes()
        except OSError:
            return None
        return certificates.read_list(content, ca)

    def _file_remarks(self, index: Index) -> Iterator[str]:
        for name in ("ca.key", "server.key"):
            path = self.directory / name
            with contextlib.suppress(OSError):
                if path.stat().st_mode & _OTHERS:
                    yield f"others can read or write {path}: chmod 600"
        pair = self.directory / "server.crt", self.directory / "server.key"
        anew = "`natproxy pki renew-server` makes both anew"
        try:
            server, _ = certificates.load_pair(*map(files.read, pair))
        except (PkiError, ValueError) as error:
            yield f"server.crt and server.key cannot be used ({error}): {anew}"
            return
        if serial_text(server.serial_number) != index.server.serial:
            yield f"server.crt and server.key are not the newest, {index.server.serial}: {anew}"


def _pair(directory: Path, stem: str, certificate: bytes, key: bytes) -> dict[Path, bytes]:
    return {directory / f"{stem}.key": key, directory / f"{stem}.crt": certificate}


def _check_clock(ca: Ca, now: datetime) -> None:
    """Raise PkiError where the CA has ended, or has not begun."""
    begin, end = ca.certificate.not_valid_before_utc, ca.certificate.not_valid_after_utc
    if now < begin:
        message = f"this machine's clock says {day(now)}, but the CA was made on {day(begin)}: set the clock right"
        raise PkiError(message)
    if now >= end:
        message = f"the CA itself ended on {day(end)}: make another one in another --dir"
        raise PkiError(message)


def _refuse_likeness(index: Index, name: str) -> None:
    """Raise PkiError where another name differs in upper and lower case only.

    As host names natproxy takes both for one; whoever revoked one of them would leave the other a way in.
    """
    like = next((one.name for one in index.certificates if one.kind == "client" and one.is_like(name)), None)
    if like is not None:
        message = f"{name!a} differs from {like!a}, which was issued before, in upper and lower case only: write it so"
        raise PkiError(message)


def _chosen(index: Index, name: str | None, serial: str | None) -> tuple[Entry, ...]:
    """Return the developers' certificates that a name, a serial or both stand for: at least one."""
    found = index.certificates if name is None else index.of(name)
    if name is not None and not found:
        message = f"no certificate was ever issued to {name!a}: `natproxy pki list` shows to whom"
        raise PkiError(message)
    if serial is not None:
        wanted = read_serial(serial)
        found = tuple(entry for entry in found if entry.number == int(wanted, 16))
        if not found:
            message = f"there is no certificate {wanted}{'' if name is None else f' of {name}'}: `natproxy pki list`"
            raise PkiError(message)
        if found[0].kind != "client":
            message = f"{wanted} is the {found[0].kind}'s own certificate, which no list reaches: clients read none"
            raise PkiError(message)
    return tuple(entry for entry in found if entry.kind == "client")


def _whose(entries: tuple[Entry, ...]) -> str:
    return f"{entries[0].name}'s {'certificate' if len(entries) == 1 else 'last certificate'}"
