"""The files that TLS needs, read and found good or refused by name. I/O: reads files.

What expires, or what names are missing, is no reason to refuse: ``expiries`` and ``unnamed`` tell.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from natproxy.errors import TlsError
from natproxy.messages import ServerTls
from natproxy.tls import chains, pem
from natproxy.tls.contexts import node_context, server_context
from natproxy.tls.expiry import Expiry, expiries, unnamed

__all__ = ["MAX_BYTES", "Expiry", "MaterialError", "expiries", "load_ca", "load_clients", "load_server", "unnamed"]

MAX_BYTES = 1024 * 1024


class MaterialError(TlsError):
    """One of the files cannot be used; the text names it.

    ``key`` tells what it was to be: certificate, key, client_ca, crl (under ``tls`` in the config) or ca (``nodes``).
    """

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


def load_server(certificate: Path, key: Path, client_ca: Path | None, crl: Path | None, min_version: str) -> ServerTls:
    """Read what natproxy needs to be a TLS server; what is returned makes a context. Raises MaterialError.

    Refused are: files that are missing, too large or not PEM; a key that others can get at, that is encrypted, or that
    is another certificate's; a chain out of order; CAs that are none; revocation lists that no client CA has signed.
    """
    with _blamed("certificate", certificate):
        content = _read(certificate)
        chain = chains.read_certificates(content)
        chains.check_chain(chain)
    with _blamed("key", key):
        own = _read(key, is_key=True)
        chains.check_key(chain, own)
    server = ServerTls(
        certificate=b"".join(pem.certificates(content)),
        key=pem.keys(own)[0],
        client_ca=None if client_ca is None else _cas("client_ca", client_ca),
        min_version=min_version,
    )
    if crl is not None:
        server = msgspec.structs.replace(server, crl=_revocation_lists(crl, server.client_ca))
    with _blamed("certificate", certificate):
        server_context(server)  # here too: a weak certificate, ...
    return server


def load_ca(path: Path) -> bytes:
    """Read the CAs that vouch for nodes. Raises MaterialError."""
    return _cas("ca", path)


def load_clients(client_ca: Path, crl: Path | None) -> tuple[bytes, bytes | None]:
    """Read who vouches for clients, and the revocation lists of those. Raises MaterialError."""
    cas = _cas("client_ca", client_ca)
    return cas, None if crl is None else _revocation_lists(crl, cas)


def _cas(key: str, path: Path) -> bytes:
    with _blamed(key, path):
        content = _read(path)
        chains.check_cas(chains.read_certificates(content, is_lenient=True))
        node_context(content)  # OpenSSL has the last word: it reads what we do not
    return b"".join(pem.certificates(content))


def _revocation_lists(path: Path, client_ca: bytes | None) -> bytes:
    with _blamed("crl", path):
        if client_ca is None:
            raise TlsError("a revocation list means nothing without client_ca")
        content = _read(path)
        chains.check_crl(content, chains.read_certificates(client_ca, is_lenient=True))
    return b"".join(pem.revocation_lists(content))


@contextlib.contextmanager
def _blamed(key: str, path: Path) -> Iterator[None]:
    try:
        yield
    except TlsError as error:
        raise MaterialError(key, f"{path}: {error}") from error


def _read(path: Path, *, is_key: bool = False) -> bytes:
    """Read a file, whole; whoever may read or change a file with a key in it must be the right one."""
    try:
        # A pipe is not waited for: it is refused below. The mode is that of the file that was opened, whatever the
        # path leads to by now.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise TlsError(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise TlsError("it is not a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TlsError(f"it cannot be read: {error.strerror or error}") from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise TlsError(f"it is larger than {MAX_BYTES} bytes")
    if is_key or pem.keys(content):
        _check_mode(stat.S_IMODE(mode))
    return content


def _check_mode(mode: int) -> None:
    if mode & stat.S_IRWXO:
        raise TlsError(f"there is a key in it, and its mode {mode:04o} lets every user at it: chmod 0640 or 0600")
    if mode & stat.S_IWGRP:
        raise TlsError(f"there is a key in it, and its mode {mode:04o} lets its group write to it: chmod 0640 or 0600")
