"""What revocation lists say of whom, and which of them are refused."""

from __future__ import annotations

import base64
import datetime
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.errors import TlsError
from natproxy.tls.identity import identify
from natproxy.tls.revocation import read_crl
from tests.tls.samples import CLIENTS, DAY, DEV1, IMPOSTOR, NOW, OTHERS, OWN, der_of

DEV2 = CLIENTS.issue("dev2", usage="client")
CRL = CLIENTS.crl([DEV2])
KEY = ec.generate_private_key(ec.SECP256R1())


def listed(*extensions: tuple[x509.ExtensionType, bool], until: datetime.datetime | None = None) -> bytes:
    """Make any revocation list, as PEM."""
    builder = x509.CertificateRevocationListBuilder(CLIENTS.name, NOW - DAY, until or NOW + DAY)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def scope(**values: bool | frozenset[x509.ReasonFlags]) -> x509.IssuingDistributionPoint:
    given: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**(given | values))  # type: ignore[arg-type]


def test_who_is_on_it_is_revoked() -> None:
    found = read_crl(CRL)
    assert found.is_revoked(identify(der_of(DEV2)))
    assert not found.is_revoked(identify(der_of(DEV1)))


def test_a_number_counts_for_its_issuer_only() -> None:
    same_number = OTHERS.issue("dev2", usage="client", serial=DEV2.serial)
    assert not read_crl(CRL).is_revoked(identify(der_of(same_number)))
    assert read_crl(CRL + OTHERS.crl([DEV2])).is_revoked(identify(der_of(same_number)))


def test_until_when_it_holds() -> None:
    until = NOW.replace(microsecond=0) + DAY
    found = read_crl(CLIENTS.crl(next_update=until))
    dev1 = identify(der_of(DEV1))
    assert found.next_updates == {"cn=clients ca": until.timestamp()}
    assert not found.is_stale(dev1, until.timestamp() - 1)
    assert found.is_stale(dev1, until.timestamp())
    assert found.is_stale(dev1, until.timestamp() + 1)


def test_no_list_of_the_issuer_is_as_bad_as_an_old_one() -> None:
    assert read_crl(CRL).is_stale(identify(der_of(OWN)), NOW.timestamp())


def test_several_lists_in_one_file() -> None:
    other = OTHERS.issue("x", usage="client")
    found = read_crl(b"# two\n" + CRL + b"\n\n" + OTHERS.crl([other]))
    assert found.is_revoked(identify(der_of(DEV2)))
    assert found.is_revoked(identify(der_of(other)))
    assert len(found.next_updates) == 2


def test_two_lists_of_one_issuer_revoke_what_either_does() -> None:
    old = CLIENTS.crl([DEV1], this_update=NOW - 2 * DAY, next_update=NOW - DAY)
    for content in (old + CRL, CRL + old):
        found = read_crl(content)
        assert found.is_revoked(identify(der_of(DEV1)))
        assert found.is_revoked(identify(der_of(DEV2)))
        assert not found.is_stale(identify(der_of(DEV1)), NOW.timestamp())


def test_an_issuer_s_name_is_the_same_in_any_case() -> None:
    assert read_crl(IMPOSTOR.crl([5])).revoked == {("cn=clients ca", 5)}


def test_an_empty_list_is_a_list() -> None:
    found = read_crl(CLIENTS.crl())
    assert found.revoked == frozenset()
    assert not found.is_stale(identify(der_of(DEV1)), NOW.timestamp())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no revocation list in it"),
        (b"hello", "no revocation list in it"),
        (OWN.certificate, "no revocation list in it"),
        (CRL[:-10], "no revocation list in it"),
        (CRL.replace(b"\n", b"\nAAAA", 1), "revocation list 1 of 1 cannot be read"),
        (CRL + CRL.replace(b"\nM", b"\n=", 1), "revocation list 2 of 2 cannot be read"),
        (listed((x509.DeltaCRLIndicator(1), True)), "of CN=Clients CA is a delta"),
        (listed((x509.DeltaCRLIndicator(1), False)), "of CN=Clients CA is a delta"),
        (listed((scope(indirect_crl=True), True)), "of CN=Clients CA is an indirect one"),
        (listed((scope(only_contains_ca_certs=True), True)), "tells only about some"),
        (listed((scope(only_contains_attribute_certs=True), True)), "tells only about some"),
        (listed((scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise})), True)), "tells only about"),
        (
            listed((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0"), True)),
            r"critical extension that natproxy does not know \(1\.2\.3\.4\)",
        ),
    ],
)
def test_lists_that_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(TlsError, match=message):
        read_crl(content)


def test_a_list_that_holds_for_ever_is_refused() -> None:
    with pytest.raises(TlsError, match="does not say when the next is due"):
        read_crl(FOR_EVER)


def test_what_else_a_list_may_say() -> None:
    number = (x509.CRLNumber(5), False)
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0"), False)
    assert read_crl(listed(number, unknown, (scope(only_contains_user_certs=True), True))).next_updates


@settings(max_examples=2000)
@given(st.data())
def test_a_damaged_list_is_read_or_refused(data: st.DataObject) -> None:
    block = bytearray(x509.load_pem_x509_crl(CRL).public_bytes(serialization.Encoding.DER))
    for _ in range(data.draw(st.integers(1, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_crl(armoured(bytes(block)))
    except TlsError:
        return
    found.is_revoked(identify(der_of(DEV1)))


@given(st.binary())
def test_garbage_is_refused(content: bytes) -> None:
    for text in (content, armoured(content), b"-----BEGIN X509 CRL-----\n" + content + b"\n-----END X509 CRL-----"):
        with pytest.raises(TlsError):
            read_crl(text)


def armoured(der: bytes) -> bytes:
    """Write DER as a PEM block."""
    return b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(der) + b"-----END X509 CRL-----\n"


def without_next_update() -> bytes:
    """Take nextUpdate out of a list, by hand: cryptography signs no such one. Its signature does not hold then."""
    der = x509.load_pem_x509_crl(CLIENTS.crl(this_update=NOW, next_update=NOW + DAY))
    content = der.tbs_certlist_bytes
    time = re.compile(rb"\x17\x0d\d{12}Z")
    first, second = time.finditer(content)
    content = content[: second.start()] + content[second.end() :]
    inner = content[2 if content[1] < 0x80 else 3 :]
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    whole = sequence(inner) + algorithm + bytes([3, len(der.signature) + 1, 0]) + der.signature
    assert first.end() == second.start()
    return armoured(sequence(whole))


def sequence(content: bytes) -> bytes:
    length = len(content)
    prefix = b"" if length < 0x80 else b"\x81" if length < 0x100 else b"\x82"
    return b"\x30" + prefix + length.to_bytes(max(1, len(prefix) and prefix[0] - 0x80), "big") + content


FOR_EVER = without_next_update()
