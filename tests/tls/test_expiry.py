"""When what is loaded expires, and which names the certificate leaves out."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.errors import TlsError
from natproxy.tls.expiry import Expiry, expiries, unnamed
from natproxy.tls.identity import serial_text
from tests.standins.certificates import Authority, Issued
from tests.tls.samples import CLIENTS, DAY, HOST, IP, NOW, OTHERS, SERVERS, der_of, own, read

BEGIN, END = NOW.replace(microsecond=0) - DAY, NOW.replace(microsecond=0) + 3 * DAY


def of_ca(use: str, ca: Authority) -> Expiry:
    found = read(ca.pem)
    return Expiry(
        use,
        found.subject.rfc4514_string(),
        serial_text(found.serial_number),
        found.not_valid_after_utc.timestamp(),
        found.not_valid_before_utc.timestamp(),
    )


def test_everything_that_is_loaded_has_an_expiry() -> None:
    between = Authority("Issuing CA", parent=SERVERS)
    issued = between.issue(HOST, serial=0xABC, not_before=BEGIN, not_after=END)
    crl = CLIENTS.crl(this_update=BEGIN, next_update=END)
    assert expiries(own(CLIENTS.pem, crl, issued=issued), {"/etc/ca.pem": OTHERS.pem}) == (
        Expiry("certificate", f"CN={HOST}", "0ABC", END.timestamp(), BEGIN.timestamp()),
        of_ca("certificate", between),
        of_ca("client_ca", CLIENTS),
        of_ca("nodes_ca", OTHERS),
        Expiry("crl", "CN=Clients CA", "", END.timestamp(), BEGIN.timestamp()),
    )


def test_nothing_loaded_nothing_expires() -> None:
    assert expiries(None, {}) == ()
    assert expiries(None, {"a": OTHERS.pem}) == (of_ca("nodes_ca", OTHERS),)


def test_each_counts_once() -> None:
    found = expiries(None, {"a": OTHERS.pem, "b": OTHERS.pem + CLIENTS.pem})
    assert found == (of_ca("nodes_ca", OTHERS), of_ca("nodes_ca", CLIENTS))


@pytest.mark.parametrize("is_old_first", [True, False])
def test_of_two_lists_by_one_issuer_the_longest_lived_counts(is_old_first: bool) -> None:
    old, new = CLIENTS.crl(next_update=END - DAY), CLIENTS.crl(next_update=END)
    [_, _, crl] = expiries(own(CLIENTS.pem, old + new if is_old_first else new + old), {})
    assert crl.expires == END.timestamp()


def test_what_is_not_valid_yet_says_so() -> None:
    issued = SERVERS.issue(HOST, not_before=NOW + DAY, not_after=NOW + 2 * DAY)
    [found] = expiries(own(issued=issued), {})
    assert found.starts > NOW.timestamp()


def test_what_cannot_be_read_is_an_error() -> None:
    with pytest.raises(TlsError):
        expiries(None, {"a": b"hello"})
    with pytest.raises(TlsError):
        expiries(own(CLIENTS.pem, b"hello"), {})


NAMED = SERVERS.issue("cn.example.com", dns=["Cache.example.com", "*.wild.example.com"], ips=[IP, "2001:db8::1"])


@pytest.mark.parametrize(
    ("host", "is_named"),
    [
        ("cache.example.com", True),
        ("CACHE.example.com", True),
        ("cache.example.com.", True),
        ("example.com", False),
        ("cn.example.com", False),
        ("a.wild.example.com", True),
        ("a.b.wild.example.com", False),
        ("wild.example.com", False),
        (IP, True),
        ("203.0.113.74", False),
        ("2001:DB8:0::1", True),
        ("2001:db8::2", False),
        ("", False),
    ],
)
def test_what_the_certificate_stands_for(host: str, is_named: bool) -> None:
    assert unnamed(own(issued=NAMED), [host]) == (() if is_named else (host,))


def test_names_left_out_are_told_in_order() -> None:
    assert unnamed(own(), [HOST, "b.example.com", IP, "192.0.2.1"]) == ("b.example.com", "192.0.2.1")


def test_a_certificate_without_sans_stands_for_nothing() -> None:
    assert unnamed(own(issued=SERVERS.issue(HOST)), [HOST, IP]) == (HOST, IP)


def test_a_wildcard_does_not_stand_for_a_top_level() -> None:
    assert unnamed(own(issued=SERVERS.issue(None, dns=["*.com"])), ["example.com"]) == ("example.com",)


def test_without_a_certificate_there_is_an_error() -> None:
    with pytest.raises(TlsError):
        unnamed(own(issued=Issued(b"hello", b"", 1)), [HOST])


@given(st.text(max_size=40))
def test_any_host_is_judged(host: str) -> None:
    assert unnamed(own(issued=NAMED), [host]) in {(), (host,)}


def test_a_serial_number_that_none_should_have() -> None:
    start = bytes.fromhex("a003020102 0201")  # the version, then an integer of one byte
    der = der_of(SERVERS.issue(HOST, serial=1)).replace(start + b"\x01", start + b"\0", 1)
    [found] = expiries(own(issued=Issued(ssl.DER_cert_to_PEM_cert(der).encode(), b"", 0)), {})
    assert found.serial == "00"
