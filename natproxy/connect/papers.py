"""The developer's bundle, read and found good. I/O: reads files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from natproxy.errors import BundleError, PkiError, TlsError
from natproxy.messages import ClientTls
from natproxy.model import PORTAL_PORT
from natproxy.pki.unpacking import NAMES, manifest_of, unpacked
from natproxy.tls import pem
from natproxy.tls.contexts import node_context
from natproxy.tls.identity import Identity, identify

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Papers:
    """Who this developer is, and whom to trust."""

    path: Path
    name: str
    """The name in the certificate."""
    host: str | None
    """What the bundle says that is dialled."""
    portal_port: int
    ca: bytes
    """Who vouches for natproxy, PEM."""
    own: ClientTls
    expires: float
    """Unix time."""

    @property
    def expires_on(self) -> str:
        """The day, in UTC."""
        return day(self.expires)

    def context(self) -> ssl.SSLContext:
        """Return a context that shows the certificate, and trusts the bundle's CA alone. Raises BundleError."""
        try:
            return node_context(self.ca, self.own)
        except TlsError as error:
            message = f"{self.path} cannot be used: {error}"
            raise BundleError(message) from error


def read_papers(path: Path, now: float) -> Papers:
    """Read a bundle, zip or directory. ``now`` is the Unix time. Raises BundleError."""
    try:
        files = unpacked(path)
        manifest = manifest_of(path, files)
    except PkiError as error:
        raise BundleError(str(error)) from error
    if manifest.get("version", 1) != 1:
        message = f"{path} is of version {manifest['version']}, this natproxy reads version 1: use a newer natproxy"
        raise BundleError(message)
    identity = _identity(path, files["client.crt"])
    host, port = manifest.get("host"), manifest.get("portal_port")
    papers = Papers(
        path=path,
        name=identity.name,
        host=host if isinstance(host, str) and host else None,
        portal_port=port if isinstance(port, int) and 0 < port < 65536 else PORTAL_PORT,
        ca=files["ca.crt"],
        own=ClientTls(files["client.crt"], files["client.key"]),
        expires=identity.not_after,
    )
    papers.context()
    _check_dates(papers, identity.not_before, now)
    return papers


def stamp(path: Path) -> Stamp:
    """Return what changes when the bundle does: whoever finds another one reads it again."""
    return tuple(_stamp(file) for file in (path, *(path / name for name in NAMES)))


def day(unix_time: float) -> str:
    """Write a day as certificates count them, in UTC."""
    return datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%d")


def _identity(path: Path, certificate: bytes) -> Identity:
    blocks = pem.certificates(certificate)
    if not blocks:
        message = f"{path} cannot be used: there is no certificate in its client.crt (PEM, BEGIN CERTIFICATE)"
        raise BundleError(message)
    try:
        return identify(ssl.PEM_cert_to_DER_cert(blocks[0].decode("ascii")))
    except (TlsError, ValueError) as error:
        message = f"{path} cannot be used: its client.crt cannot be read: {error}"
        raise BundleError(message) from error


def _check_dates(papers: Papers, starts: float, now: float) -> None:
    if now > papers.expires:
        message = (
            f"the certificate of {papers.name} in {papers.path} expired on {papers.expires_on}: ask the operator for "
            "a new bundle"
        )
        raise BundleError(message)
    if now < starts:
        message = (
            f"the certificate of {papers.name} in {papers.path} is not valid before {day(starts)}, and it is "
            f"{day(now)} here: set this computer's clock"
        )
        raise BundleError(message)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino
