from __future__ import annotations

import errno
import http.client
import socket
import ssl

import pytest

from natproxy.connect.faults import (
    Attempt,
    RefusedError,
    alert_in,
    not_agreed,
    not_answered,
    not_found,
    not_reached,
    refusal,
)
from natproxy.errors import PortalError, PortalUnreachableError

ATTEMPT = Attempt("cache.example.com", 6378, "dev1", "2027-01-01", "cache.example.com")


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] {reason.lower()} (_ssl.c:1006)")
    error.reason = reason
    return error


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert Attempt("2001:db8::1", 6378).place == "[2001:db8::1]:6378"


def test_a_name_that_leads_nowhere() -> None:
    unknown = not_found(ATTEMPT, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert str(unknown) == "there is no host called cache.example.com: check the spelling"
    assert "is this computer online" in str(not_found(ATTEMPT, socket.gaierror(socket.EAI_AGAIN, "Try again")))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError("timed out"), "port 6378 is closed by a firewall or security group: ask the operator to open it"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "closed by a firewall or security group"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "nobody listens on cache.example.com:6378"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "is this computer online? (Network is unreachable)"),
        (OSError(errno.EMFILE, "Too many open files"), "cannot be reached: Too many open files"),
    ],
)
def test_no_connection_comes_about(error: OSError, text: str) -> None:
    found = not_reached(ATTEMPT, error)
    assert text in str(found)
    assert isinstance(found, PortalUnreachableError)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", "the certificate of dev1 has been revoked: ask the operator for a new"),
        (
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "of dev1 for expired, and its last day is 2027-01-01",
        ),
        ("TLSV1_ALERT_UNKNOWN_CA", "does not know the CA that issued the certificate of dev1"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "does not let the certificate of dev1 in"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "whose log has the reason"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "do not agree on TLS"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS, so it is not natproxy's portal"),
        ("UNEXPECTED_EOF_WHILE_READING", "natproxy does not let your network in"),
    ],
)
def test_what_tls_says_is_said_plainly(reason: str, text: str) -> None:
    found = not_agreed(ATTEMPT, tls_error(reason))
    assert text in str(found)
    of_the_certificate = "CERTIFICATE" in reason or "UNKNOWN_CA" in reason
    assert type(found) is (RefusedError if of_the_certificate else PortalError)


@pytest.mark.parametrize(
    ("error", "text", "kind"),
    [
        (TimeoutError(), "takes connections, but does not answer", PortalUnreachableError),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "closed the connection without a word", PortalError),
        (http.client.RemoteDisconnected("closed"), "closed the connection without a word", PortalError),
        (http.client.BadStatusLine("-ERR"), "does not speak HTTP as that does", PortalError),
        (OSError(errno.EIO, "Input/output error"), "broke", PortalUnreachableError),
    ],
)
def test_a_connection_that_leads_to_nothing(error: Exception, text: str, kind: type[PortalError]) -> None:
    found = not_agreed(ATTEMPT, error)
    assert text in str(found)
    assert type(found) is kind


def test_who_hangs_up_after_the_handshake_does_not_mind_the_network() -> None:
    for error in (ConnectionResetError(errno.ECONNRESET, "reset"), tls_error("UNEXPECTED_EOF_WHILE_READING")):
        assert "had seen the certificate of dev1" in str(not_agreed(ATTEMPT, error, is_greeted=True))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "does not let the certificate of dev1 in"),
        (503, "is busy now"),
        (404, "not natproxy's portal, or"),
    ],
)
def test_an_answer_that_is_none(status: int, text: str) -> None:
    assert text in str(not_answered(ATTEMPT, status))


def test_an_alert_is_found_in_what_the_worker_tells() -> None:
    line = "alert: 203.0.113.73:6379 as cache.example.com: it gave up with the alert unknown ca: it does not trust"
    assert alert_in(line) == "unknown ca"
    assert alert_in("wrong-name: it is for another host") == ""
    assert refusal(ATTEMPT, "") is None
    assert refusal(ATTEMPT, "decode error") is None
