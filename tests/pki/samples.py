"""A CA in a directory, a clock that is set by hand, and the real OpenSSL."""

from __future__ import annotations

import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from natproxy.pki.authority import Authority
from natproxy.pki.terms import ServerNames

NAMES = ServerNames(("cache.dev.example.com",), ("203.0.113.73",))
LOCAL = ServerNames(("localhost",), ("127.0.0.1", "::1"))
PARTS = ["README.txt", "ca.crt", "client.crt", "client.key", "manifest.json"]


class Clock:
    """The time, which stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


def make(directory: Path, clock: Clock | None = None, names: ServerNames = NAMES) -> Authority:
    """Make a CA in directory/ca."""
    authority = Authority(directory / "ca", now=clock or Clock())
    authority.init(names)
    return authority


def issue(authority: Authority, name: str, days: int = 90) -> Path:
    """Issue a bundle into a new directory beside the CA's; return that."""
    out = authority.directory.with_name(f"{name}-{len(authority.listing().certificates)}")
    authority.issue(name, days, out)
    return out


def unpack(bundle: Path, to: Path) -> Path:
    """Unpack a zip, with the modes it says; return where."""
    to.mkdir()
    with zipfile.ZipFile(bundle) as archive:
        for info in archive.infolist():
            (to / info.filename).write_bytes(archive.read(info))
            (to / info.filename).chmod(info.external_attr >> 16 & 0o777)
    return to


def certificate(path: Path) -> x509.Certificate:
    """Read a certificate."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def revoked_serials(path: Path) -> set[int]:
    """Return the serials on a list."""
    return {entry.serial_number for entry in x509.load_pem_x509_crl(path.read_bytes())}


def openssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real OpenSSL."""
    argv = ["openssl", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
