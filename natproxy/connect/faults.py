"""Why the portal cannot be had: what was raised on the way becomes a sentence that says what to do. Pure."""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
import ssl
from dataclasses import dataclass

from natproxy.errors import PortalError, PortalUnreachableError
from natproxy.model import HandshakeFailure as Why
from natproxy.tls.failures import why

_NO_SUCH_NAME = frozenset(
    number for name in ("EAI_NONAME", "EAI_NODATA") if (number := getattr(socket, name, None)) is not None
)
_CLOSED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.RemoteDisconnected)
_NO_WAY = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL))
_ALERT = re.compile(r"the alert ([a-z ]+)")


class RefusedError(PortalError):
    """natproxy does not let the certificate in; asking again with the same one has the same answer for long."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who was asked, and by whom."""

    host: str
    port: int
    name: str = "?"
    """The name in the certificate that was shown."""
    expires_on: str = "?"
    """Its last day."""
    bundle_host: str | None = None
    """What the bundle says that is dialled."""

    @property
    def place(self) -> str:
        """Where the portal is meant to be."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def not_found(attempt: Attempt, error: OSError) -> PortalError:
    """Say why the host's name leads nowhere."""
    if error.errno in _NO_SUCH_NAME:
        text = f"there is no host called {attempt.host}: check the spelling"
    else:
        text = f"the name {attempt.host} cannot be resolved now: is this computer online? ({error.strerror or error})"
    return PortalUnreachableError(text)


def not_reached(attempt: Attempt, error: OSError) -> PortalError:
    """Say why no connection came about."""
    place, port = attempt.place, attempt.port
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        text = (
            f"{place} does not answer: port {port} is closed by a firewall or security group: ask the operator to open "
            "it for you"
        )
    elif isinstance(error, ConnectionRefusedError):
        text = (
            f"nobody listens on {place}: natproxy does not run there, or its portal is off or has another port: ask "
            "the operator, or write HOST:PORT"
        )
    elif error.errno in _NO_WAY:
        text = f"no way leads from here to {place}: is this computer online? ({os.strerror(error.errno)})"
    else:
        text = f"{place} cannot be reached: {error.strerror or error}"
    return PortalUnreachableError(text)


def not_agreed(attempt: Attempt, error: Exception, *, is_greeted: bool = False) -> PortalError:
    """Say what went wrong once there was a connection; ``is_greeted``: after our side of the handshake.

    TLS 1.3 tells only then whether a client's certificate is let in, and the alert may be lost on its way.
    """
    place = attempt.place
    if isinstance(error, ssl.SSLError):
        return _tls_fault(attempt, error, is_greeted=is_greeted)
    if isinstance(error, TimeoutError):
        text = f"{place} takes connections, but does not answer: is that natproxy's portal, and is it well?"
        return PortalUnreachableError(text)
    if isinstance(error, _CLOSED):
        return PortalError(_closed(attempt, is_greeted=is_greeted))
    if isinstance(error, http.client.HTTPException):
        return PortalError(f"{place} is not natproxy's portal: it does not speak HTTP as that does")
    return PortalUnreachableError(f"the connection to {place} broke: {error}")


def not_answered(attempt: Attempt, status: int) -> PortalError:
    """Say what another status than 200 means."""
    if status in {401, 403}:
        return RefusedError(
            f"natproxy on {attempt.place} does not let the certificate of {attempt.name} in (HTTP {status})"
        )
    if status in {429, 503}:
        return PortalUnreachableError(f"natproxy on {attempt.place} is busy now (HTTP {status})")
    return PortalError(f"{attempt.place} is not natproxy's portal, or an older one: it answers HTTP {status}")


def alert_in(text: str) -> str:
    """Return the name of the TLS alert that a line of ``tls.failures`` tells of; empty = none."""
    found = _ALERT.search(text)
    return found[1].strip() if found else ""


def refusal(attempt: Attempt, alert: str) -> str | None:
    """Say what an alert of natproxy's means to whoever showed this certificate; None: nothing in particular."""
    mine = f"the certificate of {attempt.name}"
    match alert:
        case "certificate revoked":
            return f"{mine} has been revoked: ask the operator for a new bundle"
        case "certificate expired":
            return (
                f"natproxy takes {mine} for expired, and its last day is {attempt.expires_on}: ask the operator for a "
                "new bundle; if that day is still to come, a clock is wrong, or natproxy's revocation list is out of "
                "date"
            )
        case "unknown ca":
            return f"natproxy does not know the CA that issued {mine}: ask the operator for a new bundle"
        case "certificate required" | "handshake failure":
            return f"natproxy does not let {mine} in: ask the operator for a new bundle"
        case "bad certificate" | "certificate unknown" | "unsupported certificate" | "access denied":
            return f"natproxy does not let {mine} in ({alert}): ask the operator, whose log has the reason"
    return None


def _tls_fault(attempt: Attempt, error: ssl.SSLError, *, is_greeted: bool) -> PortalError:
    place = attempt.place
    reason, line = why(error, is_server=False)
    if isinstance(error, ssl.SSLCertVerificationError):
        return PortalUnreachableError(_distrust(attempt, reason, line))
    if (text := refusal(attempt, alert_in(line))) is not None:
        return RefusedError(text)
    if reason is Why.CLEAR_TEXT:
        return PortalError(f"{place} does not speak TLS, so it is not natproxy's portal")
    if reason is Why.CLOSED:
        return PortalError(_closed(attempt, is_greeted=is_greeted))
    return PortalError(f"{place} and this computer do not agree on TLS: {line}")


def _distrust(attempt: Attempt, reason: Why, line: str) -> str:
    place = attempt.place
    match reason:
        case Why.WRONG_NAME:
            text = f"the certificate that {place} shows is for another host than {attempt.host}"
            if attempt.bundle_host is not None and attempt.bundle_host != attempt.host:
                return f"{text}: your bundle is for {attempt.bundle_host}: natproxy connect {attempt.bundle_host}"
            return f"{text}: ask the operator what to dial"
        case Why.UNKNOWN_CA:
            return (
                f"the CA in your bundle does not vouch for the certificate that {place} shows: something else answers "
                "there, or natproxy has a new CA: ask the operator for a new bundle"
            )
        case Why.EXPIRED:
            return f"natproxy's own certificate on {place} has expired: tell the operator (natproxy pki renew-server)"
        case Why.NOT_YET_VALID:
            return f"the certificate that {place} shows is not valid yet: set this computer's clock"
    return f"the certificate that {place} shows cannot be trusted: {line}"


def _closed(attempt: Attempt, *, is_greeted: bool) -> str:
    place = attempt.place
    if is_greeted:
        return (
            f"{place} closed the connection when it had seen the certificate of {attempt.name}: ask the operator, "
            "whose log has the reason"
        )
    return (
        f"{place} closed the connection without a word: natproxy does not let your network in, or that is not "
        "natproxy: ask the operator to let you in (portal.allow)"
    )
