"""Why a handshake failed: what ssl raised becomes a reason and a line for the log. Pure.

Reasons go by OpenSSL's numbers and names where it gives any: its texts differ from version to version.
"""

from __future__ import annotations

import re
import ssl

from natproxy.model import HandshakeFailure as Why

_BY_VERIFY_CODE = {
    2: Why.UNKNOWN_CA,
    3: Why.CRL_MISSING,
    8: Why.CRL_MISSING,  # there is a list, but it does not count
    9: Why.NOT_YET_VALID,
    10: Why.EXPIRED,
    11: Why.CRL_EXPIRED,  # not in force yet
    12: Why.CRL_EXPIRED,
    15: Why.CRL_MISSING,
    16: Why.CRL_MISSING,
    18: Why.UNKNOWN_CA,
    19: Why.UNKNOWN_CA,
    20: Why.UNKNOWN_CA,
    21: Why.UNKNOWN_CA,
    23: Why.REVOKED,
    26: Why.WRONG_USAGE,
    27: Why.UNKNOWN_CA,
    33: Why.CRL_MISSING,
    35: Why.CRL_MISSING,
    36: Why.CRL_MISSING,
    44: Why.CRL_MISSING,
    54: Why.CRL_MISSING,
    62: Why.WRONG_NAME,
    63: Why.WRONG_NAME,
    64: Why.WRONG_NAME,
    66: Why.WEAK,
    67: Why.WEAK,
    68: Why.WEAK,
}
"""X509_V_ERR_* of openssl/x509_vfy.h; the numbers are part of OpenSSL's ABI."""

_BY_REASON = {
    "CA_KEY_TOO_SMALL": Why.WEAK,
    "CA_MD_TOO_WEAK": Why.WEAK,
    "DH_KEY_TOO_SMALL": Why.WEAK,
    "EE_KEY_TOO_SMALL": Why.WEAK,
    "HTTPS_PROXY_REQUEST": Why.CLEAR_TEXT,
    "HTTP_REQUEST": Why.CLEAR_TEXT,
    "INAPPROPRIATE_FALLBACK": Why.VERSION,
    "INTERNAL_ERROR": Why.INTERNAL,
    "MALLOC_FAILURE": Why.INTERNAL,
    "NO_CERTIFICATE_RETURNED": Why.NO_CERTIFICATE,
    "NO_CIPHERS_AVAILABLE": Why.CIPHER,
    "NO_CIPHERS_SPECIFIED": Why.CIPHER,
    "NO_PROTOCOLS_AVAILABLE": Why.VERSION,
    "NO_SHARED_CIPHER": Why.CIPHER,
    "NO_SHARED_GROUPS": Why.CIPHER,
    "NO_SHARED_SIGNATURE_ALGORITHMS": Why.CIPHER,
    "NO_SUITABLE_GROUPS": Why.CIPHER,
    "NO_SUITABLE_KEY_SHARE": Why.CIPHER,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": Why.CIPHER,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Why.NO_CERTIFICATE,
    "PROXY_REQUEST": Why.CLEAR_TEXT,
    "SSL_NEGATIVE_LENGTH": Why.PROTOCOL,
    "TLSV1_ALERT_INAPPROPRIATE_FALLBACK": Why.VERSION,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": Why.CIPHER,
    "TLSV1_ALERT_PROTOCOL_VERSION": Why.VERSION,
    "UNEXPECTED_EOF_WHILE_READING": Why.CLOSED,
    "UNKNOWN_PROTOCOL": Why.VERSION,
    "UNSUPPORTED_PROTOCOL": Why.VERSION,
    "VERSION_TOO_HIGH": Why.VERSION,
    "VERSION_TOO_LOW": Why.VERSION,
    "WRONG_CIPHER_RETURNED": Why.CIPHER,
    "WRONG_CURVE": Why.CIPHER,
    "WRONG_SIGNATURE_TYPE": Why.CIPHER,
    "WRONG_SSL_VERSION": Why.VERSION,
}

_TEXTS = {
    Why.NO_CERTIFICATE: "it showed no certificate",
    Why.CLOSED: "it went away in the middle of the handshake",
    Why.CLEAR_TEXT: "it does not speak TLS",
    Why.REVOKED: "its certificate is revoked",
}
_HINTS = {
    Why.UNKNOWN_CA: "no CA that is trusted here vouches for its certificate",
    Why.CRL_EXPIRED: "the revocation list is out of date",
    Why.CRL_MISSING: "no revocation list of its certificate's issuer can be used",
    Why.WRONG_USAGE: "its certificate is for another purpose",
    Why.WEAK: "its certificate is too weak",
    Why.VERSION: "no TLS version in common",
    Why.CIPHER: "no cipher suite, group or signature scheme in common",
}

# SSL_R_*_ALERT_*: SSLV3_ALERT_BAD_CERTIFICATE, TLSV1_ALERT_UNKNOWN_CA, TLSV13_ALERT_CERTIFICATE_REQUIRED; a few alerts
# of TLS 1.0's extensions are named without the word.
_ALERT = re.compile(
    r"(?:SSLV3|SSL/TLS|TLSV1|TLSV13)_(?:ALERT_(\w+)|(UNSUPPORTED_EXTENSION|CERTIFICATE_UNOBTAINABLE|UNRECOGNIZED_NAME"
    r"|BAD_CERTIFICATE_STATUS_RESPONSE|BAD_CERTIFICATE_HASH_VALUE))"
)
_DISTRUST = frozenset(
    (
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    )
)
_PLACE = re.compile(r"\s*\(_ssl\.c:\d+\)")
_TAG = re.compile(r"\[[^\]]*\]\s*")


def why(error: ssl.SSLError, *, is_server: bool) -> tuple[Why, str]:
    """Say why a handshake (or what followed: a TLS 1.3 peer's verdict may come later) failed.

    Returns the reason and one plain line about the peer: the client where ``is_server``, else the node.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _by_certificate(error)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return Why.CLOSED, _TEXTS[Why.CLOSED]
    return _by_name(error, _name(error), is_server=is_server)


def _by_name(error: ssl.SSLError, name: str, *, is_server: bool) -> tuple[Why, str]:
    known = _BY_REASON.get(name)
    if alert := _ALERT.fullmatch(name):
        return known or Why.ALERT, _alert_text(alert[1] or alert[2], is_server=is_server)
    if name == "WRONG_VERSION_NUMBER" and not is_server:
        known = Why.CLEAR_TEXT  # a client's first bytes were looked at before: there it is a later record that is wrong
    if known is None and isinstance(error, ssl.SSLSyscallError):
        known = Why.CLOSED
    found = known or Why.PROTOCOL
    return found, _TEXTS.get(found) or _hinted(found, _plain(error))


def _by_certificate(error: ssl.SSLCertVerificationError) -> tuple[Why, str]:
    found = _BY_VERIFY_CODE.get(getattr(error, "verify_code", 0), Why.BAD_CERTIFICATE)
    message = _sentence(str(getattr(error, "verify_message", None) or "")) or _plain(error)
    return found, _TEXTS.get(found) or _hinted(found, message)


def _alert_text(alert: str, *, is_server: bool) -> str:
    text = f"it gave up with the alert {alert.replace('_', ' ').lower()}"
    if alert in _DISTRUST:
        verdict = (
            "does not trust natproxy's certificate" if is_server else "does not accept the certificate it was shown"
        )
        return f"{text}: it {verdict}"
    if alert == "CERTIFICATE_REQUIRED":
        return f"{text}: it asks for a client certificate"
    if alert == "HANDSHAKE_FAILURE":
        if is_server:
            return text
        return f"{text}: no cipher suite in common, or it asks for a client certificate"
    return text


def _name(error: ssl.SSLError) -> str:
    """Return OpenSSL's name for the reason, made from its text where Python's table has none."""
    reason = getattr(error, "reason", None)
    if reason:
        return str(reason)
    return _plain(error).upper().replace(" ", "_")


def _plain(error: ssl.SSLError) -> str:
    text = _PLACE.sub("", str(error.args[-1] if error.args else error))
    return _sentence(_TAG.sub("", text)) or "TLS failed"


def _hinted(found: Why, text: str) -> str:
    hint = _HINTS.get(found)
    return f"{hint} ({text})" if hint and hint != text else text


def _sentence(text: str) -> str:
    """Fit it into a line: no capital first, no full stop, one line."""
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
