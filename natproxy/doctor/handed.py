"""What a developer hands the doctor: which ports to try, and the certificates to try them with. I/O: reads files.

Works on any platform; what only some options need is imported where they are read.
"""

from __future__ import annotations

import re
import ssl
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from natproxy.errors import DoctorError, PkiError, TlsError
from natproxy.pki.unpacking import manifest_of, read, unpacked
from natproxy.tls.contexts import node_context

USUAL_PORTS = "6379-6388,11211-11220"
"""Those of the guide, and what it takes for a node more."""
MOST_PORTS = 2000
_SPAN = re.compile(r"([0-9]{1,5})(?: *- *([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Port:
    """One port that is to be tried."""

    number: int
    is_certain: bool = False
    """It was named by itself, so that it should be open; of a range some may not be in use."""


@dataclass(frozen=True, slots=True)
class Papers:
    """The certificates to try with, all of them PEM."""

    ca: bytes | None = None
    """Who vouches for natproxy; None = the system's roots."""
    certificate: bytes | None = None
    key: bytes | None = None
    host: str | None = None
    """What the bundle says that is dialled."""

    def context(self) -> ssl.SSLContext:
        """Return a context as a developer's client has it. Raises DoctorError."""
        try:
            context = node_context(self.ca)
        except TlsError as error:
            message = f"the CA cannot be used: {error}"
            raise DoctorError(message) from error
        if self.certificate is not None and self.key is not None:
            with tempfile.TemporaryDirectory(prefix="natproxy-doctor-") as directory:  # ssl reads them from paths only
                path = Path(directory) / "client.pem"
                path.touch(0o600)
                path.write_bytes(self.certificate.rstrip() + b"\n" + self.key)
                try:
                    context.load_cert_chain(path, password=_refuse_to_ask)
                except (ssl.SSLError, OSError) as error:
                    reason = (getattr(error, "reason", None) or "not PEM").replace("_", " ").lower()
                    message = f"your certificate and its key cannot be used together: {reason}"
                    raise DoctorError(message) from error
        return context


def _refuse_to_ask() -> str:
    """Stand in for OpenSSL's own question at the terminal, which nobody may be there to answer."""
    raise DoctorError("your key is encrypted: decrypt it first (openssl pkey -in client.key -out plain.key)")


def read_ports(text: str) -> tuple[Port, ...]:
    """Read ``6379-6388,11211``. Raises DoctorError."""
    found: dict[int, Port] = {}
    for part in text.split(","):
        span = _SPAN.fullmatch(part.strip())
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (0, 0)
        if not 1 <= first <= last <= 65535:
            message = f"{part.strip()!r} is neither a port nor a range of ports: write them as 6379-6388,11211"
            raise DoctorError(message)
        for number in range(first, last + 1):
            found[number] = Port(number, is_certain=first == last)
    return _limited(found.values())


def read_routes(path: Path) -> tuple[Port, ...]:
    """Read the ports from what ``natproxy routes --json`` printed. Raises DoctorError."""
    import msgspec  # noqa: PLC0415

    from natproxy.documents import RoutesDocument  # noqa: PLC0415

    try:
        document = msgspec.json.decode(_read(path), type=RoutesDocument)
    except (msgspec.MsgspecError, ValueError) as error:
        message = f"{path} is not what `natproxy routes --json` prints: {error}"
        raise DoctorError(message) from error
    numbers = (route.port for cache in document.caches for route in cache.routes)
    return _limited(Port(number, is_certain=True) for number in numbers if number is not None)


def read_config_ports(path: Path) -> tuple[Port, ...]:
    """Read the ports from natproxy's config file. Raises ConfigError, DoctorError."""
    from natproxy.config import load_config  # noqa: PLC0415

    config = load_config(path)
    found = {number: Port(number) for entry in config.caches for number in config.candidate_ports(entry)}
    found.update({static.port: Port(static.port, is_certain=True) for static in config.static})
    return _limited(found.values())


def read_papers(bundle: Path | None, ca: Path | None, certificate: Path | None, key: Path | None) -> Papers:
    """Read a bundle of ``natproxy pki issue`` (zip or directory), or single files, which win. Raises DoctorError."""
    if (certificate is None) != (key is None):
        raise DoctorError("a certificate and its key go together: give --cert and --key")
    files, manifest = ({}, {}) if bundle is None else _bundle(bundle)
    host = manifest.get("host")
    return Papers(
        ca=files.get("ca.crt") if ca is None else _read(ca),
        certificate=files.get("client.crt") if certificate is None else _read(certificate),
        key=files.get("client.key") if key is None else _read(key),
        host=host if isinstance(host, str) else None,
    )


def _bundle(path: Path) -> tuple[Mapping[str, bytes], Mapping[str, object]]:
    """Return the bundle's files by name, and what its manifest says."""
    try:
        files = unpacked(path)
        return files, manifest_of(path, files)
    except PkiError as error:
        raise DoctorError(str(error)) from error


def _read(path: Path) -> bytes:
    try:
        return read(path)
    except PkiError as error:
        raise DoctorError(str(error)) from error


def _limited(ports: Iterable[Port]) -> tuple[Port, ...]:
    found = tuple(sorted(ports, key=lambda port: port.number))
    if len(found) > MOST_PORTS:
        message = f"these are {len(found)} ports, and the doctor tries {MOST_PORTS} at most: name fewer with --ports"
        raise DoctorError(message)
    if not found:
        raise DoctorError("there are no ports to try: name some with --ports")
    return found
