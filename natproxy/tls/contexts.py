"""The two kinds of ssl.SSLContext: towards clients and towards nodes. I/O: talks to anonymous files of its own.

``ssl`` reads a certificate, its key and revocation lists from paths only. What came as bytes therefore goes into a
file in memory that has no name, and is gone when the context is made.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from natproxy.errors import TlsError
from natproxy.messages import ClientTls, ServerTls
from natproxy.tls import pem

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:@SECLEVEL=2"
"""For TLS 1.2: forward secrecy and authenticated encryption. TLS 1.3 has no other kind, and keeps its own list."""
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_DESCRIPTORS = Path("/proc/self/fd")
_NOT_ITS_KEY = frozenset(("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"))
"""The last where the key is of another type: then no certificate of that type is there."""
_WEAK = frozenset(("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"))


def server_context(server: ServerTls) -> ssl.SSLContext:
    """Return the context for handshakes with clients.

    Where ``client_ca`` is set every client must show a certificate that it vouches for, and with ``crl`` a revocation
    list of the certificate's issuer must be there, current, and not name it. Sessions are not resumed by ticket then;
    TLS 1.2 still resumes them by their id, which Python cannot switch off, so whoever uses the context looks at the
    certificate again after every handshake. Raises TlsError.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    if server.min_version not in VERSIONS:
        raise TlsError(f"{server.min_version!r} is not a TLS version natproxy can demand: 1.2 or 1.3")
    context.minimum_version = VERSIONS[server.min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 1
    _load_own(context, server.certificate, server.key)
    if server.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        _trust(context, server.client_ca)
        if server.crl is not None:
            _load_revocation_lists(context, server.crl)
    elif server.crl is not None:
        raise TlsError("a revocation list means nothing without the CA of clients")
    return context


def node_context(ca: bytes | None, own: ClientTls | None = None) -> ssl.SSLContext:
    """Return the context for handshakes with nodes that these CAs vouch for; None = the system's roots.

    The node's certificate must name the ``server_hostname`` it is used with. ``own`` is shown to a node that asks for
    a certificate; None = none is. Raises TlsError.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, ca)
    if own is not None:
        _load_own(context, own.certificate, own.key)
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.set_ciphers(CIPHERS)  # before any certificate is loaded: weak ones are refused then
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate may be all that is trusted
    return context


def _trust(context: ssl.SSLContext, ca: bytes) -> None:
    if not (blocks := pem.certificates(ca)):
        raise TlsError("there is no CA certificate in it")
    try:
        context.load_verify_locations(cadata=b"".join(blocks).decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"a CA certificate cannot be read: {_reason(error)}") from error


def _load_own(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    chain = pem.certificates(certificate)
    if not chain:
        raise TlsError("there is no certificate in it")
    if not (keys := pem.keys(key)):
        raise TlsError("there is no private key in it")
    if pem.is_encrypted(keys[0]):
        raise TlsError("the key is encrypted, and nobody is there to type its passphrase")
    with _path_of(b"".join(chain)) as certificate_path, _path_of(keys[0]) as key_path:
        try:
            context.load_cert_chain(certificate_path, key_path, password=_no_passphrase)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(_own_fault(error)) from error


def _own_fault(error: ssl.SSLError | ValueError) -> str:
    reason = getattr(error, "reason", None)
    if reason in _NOT_ITS_KEY:
        return "the key does not belong to the certificate"
    if reason in _WEAK:
        return f"the certificate is too weak to be used: {_reason(error)}"
    return f"the certificate or its key cannot be used: {_reason(error)}"


def _no_passphrase() -> str:
    raise TlsError("the key is encrypted, and nobody is there to type its passphrase")


def _load_revocation_lists(context: ssl.SSLContext, crl: bytes) -> None:
    # Nothing but the lists: a certificate that lay between them would become a trusted CA.
    if not (blocks := pem.revocation_lists(crl)):
        raise TlsError("there is no revocation list in it")
    with _path_of(b"".join(blocks)) as path:
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            raise TlsError(f"a revocation list cannot be read: {_reason(error)}") from error
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _reason(error: ssl.SSLError | ValueError) -> str:
    """Say what OpenSSL said, without where in its caller."""
    return (getattr(error, "reason", None) or str(error).partition(" (_ssl.c")[0]).replace("_", " ").lower()


@contextlib.contextmanager
def _path_of(content: bytes) -> Iterator[str]:
    """Give a path under which ``content`` can be read, by this user only and only within the block."""
    try:
        descriptor, path, named = _anonymous_file() or _private_file()
    except OSError as error:
        raise TlsError(f"there is no room for a private file to load TLS from: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield path
    except OSError as error:
        raise TlsError(f"a private file to load TLS from cannot be used: {error.strerror or error}") from error
    finally:
        if named:
            with contextlib.suppress(OSError):
                Path(path).unlink()


def _anonymous_file() -> tuple[int, str, bool] | None:
    """Make a file in memory; None where this system has none, or does not let it be opened by path."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("natproxy-tls")
    except OSError:
        return None
    path = _DESCRIPTORS / str(descriptor)
    if os.access(path, os.R_OK):
        return descriptor, str(path), False
    os.close(descriptor)
    return None


def _private_file() -> tuple[int, str, bool]:
    return *tempfile.mkstemp(prefix="natproxy-tls-"), True
