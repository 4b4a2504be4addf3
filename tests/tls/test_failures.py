"""Every way a handshake can fail, on the proxy's side towards clients and towards nodes, in TLS 1.2 and 1.3."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.messages import ClientTls
from natproxy.model import HandshakeFailure as Why
from natproxy.tls.contexts import node_context
from natproxy.tls.failures import why
from tests.standins.certificates import Issued, self_signed
from tests.tls.handshakes import Side, fed, shake
from tests.tls.samples import (
    CLIENTS,
    DAY,
    DEV1,
    HOST,
    IMPOSTOR,
    IP,
    NODE,
    NOW,
    OTHERS,
    OWN,
    SERVERS,
    VERSIONS,
    Dates,
    peer,
    proxy,
    tampered_with,
    weak,
)

REVOKED = CLIENTS.issue("dev2", usage="client")
CRL = CLIENTS.crl([REVOKED])
OLD_CRL = CLIENTS.crl(this_update=NOW - 2 * DAY, next_update=NOW - DAY)
EARLY_CRL = CLIENTS.crl(this_update=NOW + DAY, next_update=NOW + 2 * DAY)
PAST = Dates(not_before=NOW - 2 * DAY, not_after=NOW - DAY)
FUTURE = Dates(not_before=NOW + DAY, not_after=NOW + 2 * DAY)

TAMPERED = tampered_with(CLIENTS.issue("dev1", usage="client"))

both_versions = pytest.mark.parametrize("version", VERSIONS)


def told(side: Side, *, is_server: bool) -> tuple[Why, str]:
    found, text = why(side.fault, is_server=is_server)
    assert text
    assert text.strip() == text
    assert text.isprintable()
    assert "_ssl.c" not in text
    assert "[" not in text
    assert not side.is_done or not is_server
    return found, text


# What a client shows: (certificate, revocation lists, reason, a part of the line).
CLIENTS_CERTIFICATES: list[tuple[str, Issued | None, bytes, Why, str]] = [
    ("none", None, CRL, Why.NO_CERTIFICATE, "it showed no certificate"),
    ("expired", CLIENTS.issue("dev1", usage="client", **PAST), CRL, Why.EXPIRED, "certificate has expired"),
    ("early", CLIENTS.issue("dev1", usage="client", **FUTURE), CRL, Why.NOT_YET_VALID, "not yet valid"),
    ("other-ca", OTHERS.issue("dev1", usage="client"), CRL, Why.UNKNOWN_CA, "no CA that is trusted here"),
    ("impostor", IMPOSTOR.issue("dev1", usage="client"), CRL, Why.UNKNOWN_CA, "no CA that is trusted here"),
    ("self-signed", self_signed("dev1"), CRL, Why.UNKNOWN_CA, "no CA that is trusted here"),
    ("revoked", REVOKED, CRL, Why.REVOKED, "its certificate is revoked"),
    ("crl-old", DEV1, OLD_CRL, Why.CRL_EXPIRED, "the revocation list is out of date"),
    ("crl-early", DEV1, EARLY_CRL, Why.CRL_EXPIRED, "not yet valid"),
    ("crl-of-others", DEV1, OTHERS.crl(), Why.CRL_MISSING, "no revocation list of its certificate's issuer"),
    ("crl-of-impostor", DEV1, IMPOSTOR.crl(), Why.CRL_MISSING, "no revocation list of its certificate's issuer"),
    ("for-servers", CLIENTS.issue("dev1", usage="server"), CRL, Why.WRONG_USAGE, "for another purpose"),
    ("for-code", CLIENTS.issue("dev1", usage="codesigning"), CRL, Why.WRONG_USAGE, "for another purpose"),
    ("tampered-with", TAMPERED, CRL, Why.BAD_CERTIFICATE, "certificate signature failure"),
    ("weak-key", weak("key"), CRL, Why.WEAK, "too weak"),
    ("weak-signature", weak("signature"), CRL, Why.WEAK, "too weak"),
]


@both_versions
@pytest.mark.parametrize(
    ("shown", "crl", "reason", "text"),
    [row[1:] for row in CLIENTS_CERTIFICATES],
    ids=[row[0] for row in CLIENTS_CERTIFICATES],
)
def test_a_client_s_bad_certificate(version: str, shown: Issued | None, crl: bytes, reason: Why, text: str) -> None:
    server, client = shake(proxy(CLIENTS.pem, crl), peer(is_server=False, shows=shown, version=version))
    found, line = told(server, is_server=True)
    assert found is reason
    assert text in line
    assert isinstance(client.error, ssl.SSLError)  # it is told so, by an alert
    assert why(client.error, is_server=False)[0] is Why.ALERT


@both_versions
def test_a_client_s_good_certificate(version: str) -> None:
    server, client = shake(proxy(CLIENTS.pem, CRL), peer(is_server=False, shows=DEV1, version=version))
    assert (server.error, client.error) == (None, None)
    assert server.is_done
    assert client.is_done


# What a node shows: (certificate, reason, a part of the line).
NODES_CERTIFICATES: list[tuple[str, Issued, Why, str]] = [
    ("expired", SERVERS.issue(NODE, dns=[NODE], **PAST), Why.EXPIRED, "certificate has expired"),
    ("early", SERVERS.issue(NODE, dns=[NODE], **FUTURE), Why.NOT_YET_VALID, "not yet valid"),
    ("other-ca", OTHERS.issue(NODE, dns=[NODE]), Why.UNKNOWN_CA, "no CA that is trusted here"),
    ("self-signed", self_signed(NODE), Why.UNKNOWN_CA, "no CA that is trusted here"),
    ("wrong-name", OWN, Why.WRONG_NAME, f"certificate is not valid for '{NODE}'"),
    ("for-clients", SERVERS.issue(NODE, dns=[NODE], usage="client"), Why.WRONG_USAGE, "for another purpose"),
    ("weak-key", weak("key", "server"), Why.WEAK, "too weak"),
    ("weak-signature", weak("signature", "server"), Why.WEAK, "too weak"),
]


@both_versions
@pytest.mark.parametrize(
    ("shown", "reason", "text"), [row[1:] for row in NODES_CERTIFICATES], ids=[row[0] for row in NODES_CERTIFICATES]
)
def test_a_node_s_bad_certificate(version: str, shown: Issued, reason: Why, text: str) -> None:
    node, ours = shake(peer(is_server=True, shows=shown, version=version), node_context(SERVERS.pem), NODE)
    found, line = told(ours, is_server=False)
    assert found is reason
    assert text in line
    assert not ours.is_done
    assert why(node.fault, is_server=True)[0] is Why.ALERT


@both_versions
def test_a_node_dialled_by_address_whose_certificate_is_for_another(version: str) -> None:
    context = peer(is_server=True, shows=OWN, version=version)
    _, ours = shake(context, node_context(SERVERS.pem), "10.0.1.220")
    assert told(ours, is_server=False) == (
        Why.WRONG_NAME,
        "IP address mismatch, certificate is not valid for '10.0.1.220'",
    )
    _, ours = shake(context, node_context(SERVERS.pem), IP)
    assert ours.is_done


@both_versions
def test_a_node_that_wants_a_certificate_of_ours(version: str) -> None:
    context = peer(is_server=True, shows=OWN, demands=True, version=version)
    node, ours = shake(context, node_context(SERVERS.pem), HOST)
    found, line = told(ours, is_server=False)
    assert found is Why.ALERT
    assert "it asks for a client certificate" in line
    # In TLS 1.3 our side is done before the node says no: the alert is met by the first read.
    assert ours.is_done is (version == "1.3")
    assert why(node.fault, is_server=True)[0] is Why.NO_CERTIFICATE


@both_versions
@pytest.mark.parametrize(
    ("shown", "alert"),
    [
        (OTHERS.issue("dev1", usage="client"), "unknown ca"),
        (CLIENTS.issue("dev1", usage="server"), "unsupported certificate"),
        (CLIENTS.issue("dev1", usage="client", **PAST), "certificate expired"),
        (REVOKED, "certificate revoked"),
    ],
    ids=["unknown-ca", "wrong-usage", "expired", "revoked"],
)
def test_a_node_that_does_not_accept_what_it_is_shown(version: str, shown: Issued, alert: str) -> None:
    ours = node_context(SERVERS.pem, ClientTls(shown.certificate, shown.key))
    ours.minimum_version = ours.maximum_version = VERSIONS[version]
    _, client = shake(proxy(CLIENTS.pem, CRL), ours, HOST)
    assert told(client, is_server=False) == (
        Why.ALERT,
        f"it gave up with the alert {alert}: it does not accept the certificate it was shown",
    )


@both_versions
@pytest.mark.parametrize(
    ("shown", "alert"),
    [
        (OTHERS.issue(HOST, dns=[HOST]), "unknown ca"),
        (SERVERS.issue(HOST, dns=[HOST], **PAST), "certificate expired"),
        (SERVERS.issue(HOST, dns=[HOST], **FUTURE), "bad certificate"),
        (SERVERS.issue("other", dns=["other"]), "bad certificate"),
    ],
    ids=["unknown-ca", "expired", "early", "wrong-name"],
)
def test_a_client_that_does_not_trust_us(version: str, shown: Issued, alert: str) -> None:
    strict = node_context(SERVERS.pem)
    strict.minimum_version = strict.maximum_version = VERSIONS[version]
    server, _ = shake(peer(is_server=True, shows=shown), strict, HOST)
    assert told(server, is_server=True) == (
        Why.ALERT,
        f"it gave up with the alert {alert}: it does not trust natproxy's certificate",
    )


def test_a_client_too_old() -> None:
    server, client = shake(proxy(min_version="1.3"), peer(is_server=False, version="1.2"))
    assert told(server, is_server=True) == (Why.VERSION, "no TLS version in common (unsupported protocol)")
    assert told(client, is_server=False) == (Why.VERSION, "it gave up with the alert protocol version")


@pytest.mark.parametrize("last", [b"\x03\x01", b"\x03\x02"])
def test_a_client_that_knows_only_tls_1_0_or_1_1(last: bytes) -> None:
    body = last + bytes(32) + b"\0" + b"\0\x02\0\x2f" + b"\x01\0"  # random, no session, one cipher, no compression
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    server = fed(proxy(), b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello, is_server=True)
    assert told(server, is_server=True)[0] is Why.VERSION


def test_no_cipher_in_common() -> None:
    server, client = shake(proxy(), peer(is_server=False, version="1.2", ciphers="ECDHE+AES:!AESGCM:!AESCCM"))
    assert told(server, is_server=True)[0] is Why.CIPHER
    # That is all a node tells its peer: the alert stands for a lot.
    assert told(client, is_server=False) == (
        Why.ALERT,
        "it gave up with the alert handshake failure: no cipher suite in common, or it asks for a client certificate",
    )


def test_a_node_without_a_certificate() -> None:
    node, ours = shake(peer(is_server=True), node_context(SERVERS.pem), NODE)
    assert told(ours, is_server=False)[0] is Why.ALERT
    assert why(node.fault, is_server=True)[0] is Why.CIPHER


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\n\r\n"])
def test_http_is_clear_text_to_openssl_too(data: bytes) -> None:
    assert told(fed(proxy(), data, is_server=True), is_server=True) == (Why.CLEAR_TEXT, "it does not speak TLS")


@pytest.mark.parametrize("data", [b"-ERR unknown command\r\n", b"ERROR\r\n", b"HTTP/1.1 400 Bad\r\n", b"\x81\0\0\0\0"])
def test_a_node_that_answers_in_the_clear(data: bytes) -> None:
    ours = fed(node_context(SERVERS.pem), data, is_server=False, name=NODE)
    assert told(ours, is_server=False) == (Why.CLEAR_TEXT, "it does not speak TLS")


def test_a_record_that_is_no_tls_after_a_good_beginning() -> None:
    client = fed(peer(is_server=False), b"", is_server=False)
    hello = client.outgoing.read()
    broken = fed(proxy(), hello + b"\r\n garbage \r\n", is_server=True)
    assert told(broken, is_server=True)[0] is Why.PROTOCOL
    broken = fed(proxy(), b"\x16\x03\x01\0\x05hello", is_server=True)
    assert told(broken, is_server=True) == (Why.PROTOCOL, "unexpected message")


@pytest.mark.parametrize("is_server", [True, False])
@pytest.mark.parametrize("data", [b"", b"\x16", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"])
def test_a_peer_that_goes_away_midway(data: bytes, is_server: bool) -> None:
    context = proxy() if is_server else node_context(SERVERS.pem)
    side = fed(context, data, is_server=is_server, name=None if is_server else NODE, ends=True)
    assert told(side, is_server=is_server) == (Why.CLOSED, "it went away in the middle of the handshake")


def test_a_node_that_says_goodbye_at_once() -> None:
    side = fed(node_context(SERVERS.pem), b"\x15\x03\x03\0\x02\x01\0", is_server=False, name=NODE)
    assert told(side, is_server=False)[0] is Why.CLOSED


# RFC 8446, 6.2: number -> (reason, a part of the line).
ALERTS = {
    10: (Why.ALERT, "unexpected message"),
    20: (Why.ALERT, "bad record mac"),
    22: (Why.ALERT, "record overflow"),
    40: (Why.ALERT, "handshake failure"),
    42: (Why.ALERT, "bad certificate"),
    43: (Why.ALERT, "unsupported certificate"),
    44: (Why.ALERT, "certificate revoked"),
    45: (Why.ALERT, "certificate expired"),
    46: (Why.ALERT, "certificate unknown"),
    47: (Why.ALERT, "illegal parameter"),
    48: (Why.ALERT, "unknown ca"),
    49: (Why.ALERT, "access denied"),
    50: (Why.ALERT, "decode error"),
    51: (Why.ALERT, "decrypt error"),
    70: (Why.VERSION, "protocol version"),
    71: (Why.CIPHER, "insufficient security"),
    80: (Why.ALERT, "internal error"),
    86: (Why.VERSION, "inappropriate fallback"),
    109: (Why.ALERT, "missing extension"),
    110: (Why.ALERT, "unsupported extension"),
    112: (Why.ALERT, "unrecognized name"),
    116: (Why.ALERT, "certificate required"),
}


@pytest.mark.parametrize("number", ALERTS)
def test_a_node_s_alert(number: int) -> None:
    side = fed(node_context(SERVERS.pem), bytes([0x15, 3, 3, 0, 2, 2, number]), is_server=False, name=NODE)
    found, line = told(side, is_server=False)
    assert (found, ALERTS[number][1] in line) == (ALERTS[number][0], True), line


@pytest.mark.parametrize("number", range(256))
def test_every_alert_has_a_reason(number: int) -> None:
    side = fed(node_context(SERVERS.pem), bytes([0x15, 3, 3, 0, 2, 2, number]), is_server=False, name=NODE)
    told(side, is_server=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # What OpenSSL 3.2 and later say of SSLV3_ALERT_*.
        ("[SSL] ssl/tls alert handshake failure (_ssl.c:1032)", Why.ALERT),
        ("[SSL: UNKNOWN] ssl/tls alert bad certificate (_ssl.c:1032)", Why.ALERT),
        ("[SSL] tlsv1 alert protocol version (_ssl.c:1032)", Why.VERSION),
        ("[SSL] peer did not return a certificate (_ssl.c:1032)", Why.NO_CERTIFICATE),
        ("[SSL] no suitable groups (_ssl.c:1032)", Why.CIPHER),
        ("[SSL] something of the future (_ssl.c:1032)", Why.PROTOCOL),
        ("unknown error (_ssl.c:1032)", Why.PROTOCOL),
        ("", Why.PROTOCOL),
    ],
)
def test_reasons_that_python_has_no_name_for(text: str, reason: Why) -> None:
    found, line = why(ssl.SSLError(1, text), is_server=True)
    assert found is reason
    assert line
    assert "_ssl.c" not in line


def test_an_error_of_the_system_is_a_peer_that_went_away() -> None:
    assert why(ssl.SSLSyscallError(5, "Some I/O error occurred"), is_server=True)[0] is Why.CLOSED


def test_a_verdict_without_a_number_is_a_bad_certificate() -> None:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1)")
    assert why(error, is_server=True) == (Why.BAD_CERTIFICATE, "certificate verify failed")


@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_whatever_a_peer_sends_has_a_reason(data: bytes, is_server: bool, begins_well: bool) -> None:
    context, name = (proxy(), None) if is_server else (node_context(SERVERS.pem), NODE)
    content = b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data if begins_well else data
    side = fed(context, content, is_server=is_server, name=name, ends=True)
    told(side, is_server=is_server)


@given(st.data())
def test_whatever_becomes_of_a_good_peer_s_bytes_has_a_reason(data: st.DataObject) -> None:
    hello = bytearray(fed(peer(is_server=False), b"", is_server=False).outgoing.read())
    for _ in range(data.draw(st.integers(1, 4))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(hello)))
    side = fed(proxy(), bytes(hello[:cut]), is_server=True, ends=True)
    told(side, is_server=True)
