"""The certificates, CAs and revocation lists that a worker goes by now. I/O: builds OpenSSL's contexts.

A context is never changed, only replaced, so that a handshake under way ends with what it began with, and a session of
an old one is never resumed under a new one.
"""

from __future__ import annotations

import _ssl
import contextlib
import hashlib
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from natproxy.errors import TlsError
from natproxy.messages import ServerTls, Tls
from natproxy.model import HandshakeFailure
from natproxy.tls.contexts import node_context, server_context

if TYPE_CHECKING:
    from natproxy.tls.identity import Identity
    from natproxy.tls.revocation import Revocations

MOST_SESSIONS = 2048
_LOOK_EVERY = 256
"""Handshakes between two looks at how many sessions there are."""
_KNOWN_MAX = 1024

Verdict = tuple[HandshakeFailure, str]
"""Why a client's certificate does not let it in, and a line on it."""


class Shown:
    """The certificate that a client showed."""

    __slots__ = ("anchor", "identity", "is_verified", "serial", "vouched")

    def __init__(
        self,
        identity: Identity,
        serial: str,
        anchor: bytes | None,
        vouched: frozenset[bytes],
        *,
        is_verified: bool = True,
    ) -> None:
        self.identity = identity
        self.is_verified = is_verified
        """False where the handshake failed: then it may be anybody's."""
        self.serial = serial
        """As it is shown."""
        self.anchor = anchor
        """The digest of the CA certificate that its chain ended in; None where a session was resumed."""
        self.vouched = vouched
        """The digests of all CA certificates that were trusted then."""


class Credentials:
    """Contexts, and who may come in by them. ``now`` is the Unix time."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._said = Tls(None, {})
        self._nodes: dict[str, ssl.SSLContext] = {}
        self._revocations: Revocations | None = None
        self._anchors: frozenset[bytes] = frozenset()
        self._known: dict[bytes, tuple[Identity, str]] = {}
        """A certificate in DER -> what it says, and its serial number as it is shown."""
        self._server: ssl.SSLContext | None = None
        self._handshakes = 0
        self.demands_certificate = False

    def take(self, tls: Tls) -> None:
        """Go by these from now on. Raises TlsError; then nothing has changed."""
        if tls.server != self._said.server:
            self._take_server(tls.server)
        if tls.client != self._said.client:
            self._nodes = {}  # and with each its sessions, which were begun as somebody else (sessions.py)
        kept = {name: ca for name, ca in tls.node_cas.items() if self._said.node_cas.get(name) == ca}
        self._nodes = {name: context for name, context in self._nodes.items() if not name or name in kept}
        self._said = tls

    def _take_server(self, server: ServerTls | None) -> None:
        context, anchors, revocations = None, frozenset[bytes](), None
        demands_certificate = False
        if server is not None:
            context = server_context(server)
            demands_certificate = server.client_ca is not None
            anchors = _digests(context)
            if server.crl is not None:
                from natproxy.tls.revocation import read_crl  # noqa: PLC0415 (heavy: only where it is needed)

                revocations = read_crl(server.crl)
        self._server, self._anchors, self._revocations = context, anchors, revocations
        self.demands_certificate = demands_certificate

    def server(self) -> ssl.SSLContext | None:
        """Return the context for one more handshake with a client; None where TLS is not configured.

        OpenSSL keeps a session of every TLS 1.2 client that it gives no ticket, up to 20,480 of several KiB each, and
        Python cannot tell it not to: a context that has too many is replaced.
        """
        self._handshakes += 1
        server, context = self._said.server, self._server
        is_looking = self._handshakes % _LOOK_EVERY == 0
        if server is None or context is None or not is_looking:
            return context
        if context.session_stats()["number"] > MOST_SESSIONS:
            with contextlib.suppress(TlsError):  # no memory, no descriptor: the old one will do
                self._server = server_context(server)
        return self._server

    def node(self, name: str) -> ssl.SSLContext:
        """Return the context for nodes that the CAs of this name vouch for (empty: the system's). Raises TlsError."""
        context = self._nodes.get(name)
        if context is None:
            if name and name not in self._said.node_cas:
                message = f"the CAs of {name} are not loaded"
                raise TlsError(message)
            ca = self._said.node_cas.get(name) if name else None
            context = self._nodes[name] = node_context(ca, self._said.client)
        return context

    def shown(self, tls: ssl.SSLObject) -> Shown | None:
        """Return the certificate that the client showed in a handshake that is done; None where it showed none."""
        der = tls.getpeercert(binary_form=True) if self.demands_certificate else None
        if der is None:
            return None
        if tls.session_reused:
            # By a context that may have been replaced since the handshake began.
            return self._known_as(der, None, _digests(tls.context))
        return self._known_as(der, _anchor(tls), self._anchors)

    def shown_in_vain(self, tls: ssl.SSLObject) -> Shown | None:
        """Return the certificate that was shown in a handshake that failed; whether it is genuine is not known.

        Raises TlsError.
        """
        der = _first(tls) if self.demands_certificate else None
        if der is None:
            return None
        identity, serial = _read(der)
        return Shown(identity, serial, None, frozenset(), is_verified=False)

    def _known_as(self, der: bytes, anchor: bytes | None, vouched: frozenset[bytes]) -> Shown:
        known = self._known.get(der)
        if known is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[der] = _read(der)
        digest = None if anchor is None else hashlib.sha256(anchor).digest()
        return Shown(*known, digest, vouched)

    def verdict(self, shown: Shown | None, names: tuple[str, ...] | None) -> Verdict | None:
        """Say why a client that showed this certificate may not come in now; None = it may.

        After a handshake this repeats what OpenSSL has looked at, because a resumed one looks at nothing.
        """
        if not self.demands_certificate:
            return None
        if shown is None:
            return HandshakeFailure.NO_CERTIFICATE, "no certificate was shown"
        from natproxy.tls.identity import is_named  # noqa: PLC0415 (heavy: only where it is needed)

        identity = shown.identity
        who = f"the certificate of {identity.name} (serial {shown.serial})"
        revocations = self._revocations
        if revocations is not None and revocations.is_revoked(identity):
            return HandshakeFailure.REVOKED, f"{who} is revoked"
        is_vouched = shown.anchor in self._anchors if shown.anchor is not None else shown.vouched == self._anchors
        if not is_vouched:
            return HandshakeFailure.UNKNOWN_CA, f"{who} is of a CA not trusted now"
        if not is_named(identity, names):
            return HandshakeFailure.NOT_ALLOWED, f"{who} has no name that is let in"
        return None

    def verdict_of_handshake(self, shown: Shown | None, names: tuple[str, ...] | None) -> Verdict | None:
        """Say why a handshake that is done is no way in; unlike for live connections, dates count too."""
        if (verdict := self.verdict(shown, names)) is not None or shown is None:
            return verdict
        identity, now = shown.identity, self._now()
        if now > identity.not_after:
            return HandshakeFailure.EXPIRED, f"the certificate of {identity.name} has expired"
        if now < identity.not_before:
            return HandshakeFailure.NOT_YET_VALID, f"the certificate of {identity.name} is not valid yet"
        if self._revocations is not None and self._revocations.is_stale(identity, now):
            return HandshakeFailure.CRL_EXPIRED, "the revocation list is past its nextUpdate"
        return None


def _digests(context: ssl.SSLContext) -> frozenset[bytes]:
    """Return the digests of the CA certificates that a context trusts."""
    return frozenset(hashlib.sha256(der).digest() for der in context.get_ca_certs(binary_form=True))


def _read(der: bytes) -> tuple[Identity, str]:
    """Return what a certificate says, and its serial number as it is shown. Raises TlsError."""
    from natproxy.tls.identity import identify, serial_text  # noqa: PLC0415 (heavy: only where it is needed)

    identity = identify(der)
    return identity, serial_text(identity.serial)


def _first(tls: ssl.SSLObject) -> bytes | None:
    """Return the client's certificate in DER, verified or not; None where it showed none."""
    chain = _chain(tls)
    return _der(chain[0]) if chain else None


def _anchor(tls: ssl.SSLObject) -> bytes | None:
    """Return the CA certificate in DER that the verified chain ended in."""
    chain = _chain(tls)
    return _der(chain[-1]) if chain else None


def _chain(tls: ssl.SSLObject) -> Sequence[Any]:
    """Return the chain that was verified, as far as it got, the client's certificate first: for ``_der``."""
    verified = getattr(tls, "get_verified_chain", None)  # since Python 3.13
    if verified is not None:
        return verified() or ()
    return tls._sslobj.get_verified_chain() or ()  # type: ignore[attr-defined] # noqa: SLF001 (the same, not yet public)


def _der(certificate: Any) -> bytes:
    """Return one of a chain in DER: asked for one by one, as it takes a while."""
    if isinstance(certificate, bytes):
        return certificate
    der: bytes = certificate.public_bytes(_ssl.ENCODING_DER)
    return der
