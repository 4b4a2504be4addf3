"""TLS sessions to be resumed with nodes. Pure but for what it keeps.

A session is asked for when it is needed, not when the handshake is done: in TLS 1.3 tickets come later, with the first
bytes (RFC 8446, 4.6.1). It is resumed only under the context and for the address and name that it was made with, so
that what was verified then is what would be verified now. One session serves many connections, for asking OpenSSL for
another costs as much as a third of what resuming saves.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

from natproxy.model import Address

REUSED_SECONDS = 300.0
"""How long one session is used at most; never for longer than the node's certificate is good."""


class _Known:
    """What is known of one address."""

    __slots__ = ("certificate_ends", "name", "session", "tls", "until")

    def __init__(self, tls: ssl.SSLObject, name: str) -> None:
        self.tls = tls
        """The last connection that was no resumed one."""
        self.name = name
        # Not later: while a ticket comes in, OpenSSL counts the handshake as not done.
        ends = (tls.getpeercert() or {}).get("notAfter")
        self.certificate_ends = ssl.cert_time_to_seconds(ends) if isinstance(ends, str) else 0.0
        self.session: ssl.SSLSession | None = None
        self.until = 0.0


class Sessions:
    """A session for each address of a port. ``now`` is the Unix time, as OpenSSL's."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._known: dict[Address, _Known] = {}

    def keep(self, tls: ssl.SSLObject, address: Address, name: str) -> None:
        """Remember a connection whose handshake is done."""
        if not tls.session_reused:
            self._known[address] = _Known(tls, name)

    def find(self, context: ssl.SSLContext, address: Address, name: str) -> ssl.SSLSession | None:
        """Return a session that a new connection may try to resume."""
        known = self._known.get(address)
        if known is None or known.name != name or known.tls.context is not context:
            return None
        if known.session is None:
            session = known.tls.session
            if session is None or not (session.has_ticket or known.tls.version() == "TLSv1.2"):
                return None
            known.session = session
            known.until = min(session.time + min(session.timeout, REUSED_SECONDS), known.certificate_ends)
        if self._now() >= known.until:
            del self._known[address]
            return None
        return known.session

    def drop(self, address: Address | None) -> None:
        """Resume nothing there: the last handshake failed."""
        if address is not None:
            self._known.pop(address, None)

    def prune(self, addresses: frozenset[Address]) -> None:
        """Forget all addresses but these."""
        self._known = {address: known for address, known in self._known.items() if address in addresses}
