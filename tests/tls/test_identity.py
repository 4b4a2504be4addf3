"""Who a certificate is, how its serial number is written, and whom a list of names lets in."""

from __future__ import annotations

import datetime
import subprocess
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from natproxy.errors import TlsError
from natproxy.tls.identity import Identity, identify, is_named, serial_text
from tests.tls.handshakes import shake
from tests.tls.samples import CLIENTS, DAY, DEV1, NOW, OWN, der_of, peer, proxy

MANY = CLIENTS.issue(
    "dev1",
    dns=["Runner1.CI.example.com", "b.example.com"],
    uris=["spiffe://example.com/Dev1", "bare.example.net"],
    usage="client",
)
KEY = ec.generate_private_key(ec.SECP256R1())
DER = der_of(MANY)


def made(subject: list[tuple[x509.ObjectIdentifier, str]], *extensions: x509.ExtensionType) -> bytes:
    """Make any certificate, as DER."""
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    builder = x509.CertificateBuilder(CLIENTS.name, name, KEY.public_key(), 1, NOW - DAY, NOW + DAY)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def who(*names: str, hosts: tuple[str, ...] = ()) -> Identity:
    return Identity("x", frozenset(names) | frozenset(hosts), 1, "cn=ca", 0.0, 1.0, frozenset(hosts))


def test_a_certificate_is_its_names_serial_issuer_and_dates() -> None:
    born, until = NOW.replace(microsecond=0) - DAY, NOW.replace(microsecond=0) + DAY
    issued = CLIENTS.issue(
        "dev1", dns=["A.example.com"], usage="client", serial=0xABC, not_before=born, not_after=until
    )
    assert identify(der_of(issued)) == Identity(
        name="dev1",
        names=frozenset({"dev1", "a.example.com"}),
        serial=0xABC,
        issuer="cn=clients ca",
        not_before=born.timestamp(),
        not_after=until.timestamp(),
        hosts=frozenset({"a.example.com"}),
    )


def test_all_its_names_count() -> None:
    found = identify(DER)
    assert found.name == "dev1"
    assert found.names == {
        "dev1", "runner1.ci.example.com", "b.example.com", "spiffe://example.com/Dev1", "bare.example.net"
    }  # fmt: skip


def test_one_without_a_cn_is_called_by_its_first_san() -> None:
    assert identify(der_of(CLIENTS.issue(None, dns=["a.example.com"], uris=["spiffe://x"]))).name == "a.example.com"
    assert identify(der_of(CLIENTS.issue(None, uris=["spiffe://x"]))).name == "spiffe://x"


def test_one_without_any_name_has_none() -> None:
    found = identify(made([(NameOID.ORGANIZATION_NAME, "dev1")], x509.SubjectAlternativeName([x509.RFC822Name("a@b")])))
    assert (found.name, found.names) == ("", frozenset())
    assert not is_named(found, ("dev1", "", "a@b"))
    assert is_named(found, None)


def test_addresses_and_mail_are_no_names() -> None:
    assert identify(der_of(OWN)).names == {"cache.dev.example.com"}


def test_of_two_cns_both_count_and_the_first_is_shown() -> None:
    found = identify(made([(NameOID.COMMON_NAME, "one"), (NameOID.COMMON_NAME, "two")]))
    assert found.name == "one"
    assert found.names == {"one", "two"}


def test_what_is_odd_about_names_is_not_told(recwarn: pytest.WarningsRecorder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 65, _validate=False)])
    builder = x509.CertificateBuilder(CLIENTS.name, subject, KEY.public_key(), 1, NOW - DAY, NOW + DAY)
    der = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert identify(der).names == {"x" * 65}  # a warning is an error in these tests
    assert recwarn.list == []


def test_a_name_that_is_shown_is_no_longer_than_a_line_bears() -> None:
    assert identify(made([], x509.SubjectAlternativeName([x509.DNSName("a" * 128)]))).name == "a" * 128
    found = identify(made([], x509.SubjectAlternativeName([x509.DNSName("b" * 4000)])))
    assert found.name == "b" * 128 + "..."
    assert is_named(found, ("b" * 4000,))
    assert not is_named(found, (found.name,))


@pytest.mark.parametrize(
    ("names", "why"), [([f"n{number}" for number in range(257)], "257 names"), (["x" * 16_400], r"has 1\d{4} bytes")]
)
def test_a_monster_is_refused_before_it_costs_much(names: list[str], why: str) -> None:
    der = made([], x509.SubjectAlternativeName([x509.DNSName(name) for name in names]))
    with pytest.raises(TlsError, match=why):
        identify(der)


def test_as_many_names_as_anyone_has_are_read() -> None:
    names = [f"host-{number}.some-team.ci.example.com" for number in range(256)]
    assert identify(made([], x509.SubjectAlternativeName([x509.DNSName(name) for name in names]))).hosts == set(names)


def test_a_serial_number_that_fills_a_page_is_refused() -> None:
    der = made([], x509.SubjectAlternativeName([x509.DNSName("x" * 300)]))
    assert (der[:2], der[4:6], der[13:16]) == (b"\x30\x82", b"\x30\x82", b"\x02\x01\x01")  # the serial number is 1
    number = b"\x02\x82\x03\xe8" + b"\x7f" * 1000
    outer, inner = (int.from_bytes(der[at : at + 2], "big") + len(number) - 3 for at in (2, 6))
    longer = der[:2] + outer.to_bytes(2, "big") + der[4:6] + inner.to_bytes(2, "big") + der[8:13] + number + der[16:]
    with pytest.raises(TlsError, match="serial number has 7999 bits"):
        identify(longer)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_what_a_handshake_gives_is_read(version: str) -> None:
    server, _ = shake(proxy(CLIENTS.pem), peer(is_server=False, shows=MANY, version=version))
    der = server.tls.getpeercert(binary_form=True)
    assert der is not None
    assert identify(der) == identify(DER)


def test_a_resumed_session_still_knows_the_certificate() -> None:
    # TLS 1.2 without tickets: OpenSSL resumes by session id, and verifies nothing.
    context, client = proxy(CLIENTS.pem), peer(is_server=False, shows=MANY, version="1.2")
    _, first = shake(context, client)
    again, _ = shake(context, client, session=first.tls.session)
    assert again.tls.session_reused
    der = again.tls.getpeercert(binary_form=True)
    assert der is not None
    assert identify(der).serial == MANY.serial


@pytest.mark.parametrize(
    "der", [b"", b"0", DER[:-1], DER + b"\0", DER[1:], MANY.certificate, CLIENTS.crl(), b"\x30\x80"]
)
def test_what_is_no_certificate_is_an_error(der: bytes) -> None:
    with pytest.raises(TlsError, match=r"^the certificate cannot be read: it is damaged$"):
        identify(der)


@settings(max_examples=2000)
@given(st.data())
def test_a_damaged_certificate_is_read_or_refused(data: st.DataObject) -> None:
    der = bytearray(DER)
    for _ in range(data.draw(st.integers(1, 6))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = identify(bytes(der))
    except TlsError:
        return
    is_named(found, ("dev1", "*.ci.example.com"))
    serial_text(found.serial)


@given(st.binary())
def test_garbage_is_refused(der: bytes) -> None:
    with pytest.raises(TlsError):
        identify(der)


@pytest.mark.parametrize("serial", [1, 0xF, 0x10, 0xABC, 0xFF00, 2**159 - 1, 0x80])
def test_a_serial_number_is_written_as_openssl_does(serial: int) -> None:
    issued = CLIENTS.issue("dev1", usage="client", serial=serial)
    argv = ["openssl", "x509", "-noout", "-serial"]
    done = subprocess.run(argv, input=issued.certificate, capture_output=True, timeout=30, check=True)
    assert done.stdout.decode().strip() == f"serial={serial_text(serial)}"
    assert identify(der_of(issued)).serial == serial


@given(st.integers(min_value=0))
def test_a_serial_number_can_be_read_back(serial: int) -> None:
    text = serial_text(serial)
    assert int(text, 16) == serial
    assert len(text) % 2 == 0
    assert text == text.upper()


def test_a_negative_serial_number_is_written_too() -> None:
    assert serial_text(-1) == "-01"


@pytest.mark.parametrize(
    ("pattern", "is_meant"),
    [
        ("dev1", True),
        ("Dev1", False),  # a CN is as it is
        ("dev", False),
        ("dev11", False),
        ("dev*", False),
        ("*", False),
        ("", False),
        ("b.example.com", True),
        ("B.Example.COM", True),
        ("example.com", False),
        ("*.example.com", True),
        ("*.EXAMPLE.com", True),
        ("*.ci.example.com", True),
        ("*.CI.example.com", True),
        ("*.com", False),
        ("*.b.example.com", False),
        ("*.", False),
        ("*..", False),
        ("r*.ci.example.com", False),
        ("*.*.example.com", False),
        ("spiffe://example.com/Dev1", True),
        ("spiffe://example.com/dev1", False),
        ("spiffe://example.com/*", False),
        ("*.com/Dev1", False),
        ("bare.example.net", True),
        ("*.example.net", False),  # a URI, whatever it looks like
    ],
)
def test_whom_a_name_means(pattern: str, is_meant: bool) -> None:
    found = identify(DER)
    assert is_named(found, (pattern,)) is is_meant
    assert is_named(found, ("nobody", pattern)) is is_meant


def test_nobody_and_anybody() -> None:
    assert is_named(who("a"), None)
    assert not is_named(who("a"), ())


@pytest.mark.parametrize(
    "name", ["a.b.ci.example.com", ".ci.example.com", "ci.example.com", "xci.example.com", "a b.ci.example.com",
             "*.ci.example.com", "x/.ci.example.com", "a.ci.example.com.", "a\n.ci.example.com", "é.ci.example.com"]
)  # fmt: skip
def test_a_wildcard_is_one_plain_label(name: str) -> None:
    assert not is_named(who(name), ("*.ci.example.com",))
    assert not is_named(who(hosts=(name,)), ("*.ci.example.com",))


def test_a_wildcard_means_cns_as_they_are_written() -> None:
    assert is_named(who("runner1.ci.example.com"), ("*.ci.example.com",))
    assert not is_named(who("runner1.CI.example.com"), ("*.ci.example.com",))


names = st.text(st.sampled_from("ab.*-A/:é"), max_size=12)


@given(st.frozensets(names, max_size=3), st.frozensets(names, max_size=3), names)
@example(frozenset({"a.b"}), frozenset(), "*.b")
def test_a_match_is_equality_or_one_label_more(cns: frozenset[str], hosts: frozenset[str], pattern: str) -> None:
    small = frozenset(host.lower() if host.isascii() else host for host in hosts)
    found = who(*cns, hosts=tuple(small))
    if is_named(found, (pattern,)):
        candidates = {name.lower() for name in cns | small}
        suffix = pattern.lower().removeprefix("*")
        assert pattern.lower() in candidates or any(
            name.endswith(suffix) and name.count(".") == suffix.count(".") for name in candidates
        )
    for name in found.names:
        assert is_named(found, (name,)) or name.startswith("*.")


@pytest.mark.parametrize(("byte", "serial"), [(0x00, 0), (0xFF, -1)])
def test_a_serial_number_that_none_should_have(byte: int, serial: int) -> None:
    start = bytes.fromhex("a003020102 0201")  # the version, then an integer of one byte
    der = der_of(CLIENTS.issue("dev1", usage="client", serial=1)).replace(start + b"\x01", start + bytes([byte]), 1)
    assert identify(der).serial == serial  # cryptography warns of it, which is an error in these tests


def test_dates_are_those_of_the_certificate() -> None:
    found = identify(der_of(DEV1))
    assert datetime.datetime.fromtimestamp(found.not_after, datetime.UTC) > NOW
