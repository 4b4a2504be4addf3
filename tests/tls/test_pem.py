"""What is taken out of a PEM file, and what is left."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from natproxy.tls import pem
from tests.tls.samples import CLIENTS, DEV1, OWN, SERVERS

CRL = CLIENTS.crl([DEV1])
ALL = b"# comment \xc3\xa9\n" + OWN.certificate + b"\n" + CRL + OWN.key + SERVERS.pem + b"rest"


def test_each_kind_is_found_among_the_others() -> None:
    assert pem.certificates(ALL) == [OWN.certificate, SERVERS.pem]
    assert pem.revocation_lists(ALL) == [CRL]
    assert pem.keys(ALL) == [OWN.key]


def test_lines_may_end_as_on_windows() -> None:
    text = ALL.replace(b"\n", b"\r\n")
    assert [len(pem.certificates(text)), len(pem.revocation_lists(text)), len(pem.keys(text))] == [2, 1, 1]


@pytest.mark.parametrize("text", [b"", b"hello", OWN.certificate[:-20], OWN.certificate[20:], b"\0" * 100])
def test_what_is_not_whole_is_not_there(text: bytes) -> None:
    assert pem.certificates(text) == []


@pytest.mark.parametrize("kind", ["RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"])
def test_every_kind_of_key_is_one(kind: str) -> None:
    text = OWN.key.replace(b"PRIVATE KEY", kind.encode())
    assert pem.keys(b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + text) == [text]


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL], ids=["new", "old"]
)
def test_an_encrypted_key_is_known_as_one(form: serialization.PrivateFormat) -> None:
    key = serialization.load_pem_private_key(OWN.key, None)
    locked = key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret"))
    [found] = pem.keys(locked)
    assert pem.is_encrypted(found)
    assert not pem.is_encrypted(OWN.key)


@given(st.binary(), st.binary())
def test_what_lies_around_a_block_does_not_matter(before: bytes, after: bytes) -> None:
    assert OWN.certificate in pem.certificates(before + b"\n" + OWN.certificate + after)


@given(st.lists(st.sampled_from([b"-----BEGIN X509 CRL-----\n", b"-----END X509 CRL-----", b"AA\n", b"-", b"\n"])))
def test_any_arrangement_of_lines_is_taken_apart(lines: list[bytes]) -> None:
    for block in pem.revocation_lists(b"".join(lines)):
        assert block.count(b"BEGIN") == block.count(b"END") == 1


@pytest.mark.parametrize("line", [b"-----BEGIN PRIVATE KEY-----\n", b"-----BEGIN CERTIFICATE-----\nAA\n", b"-", b"A "])
def test_a_megabyte_of_beginnings_takes_no_time(line: bytes) -> None:
    content = b"-----BEGIN " + line * (1024 * 1024 // len(line))
    assert pem.keys(content) == pem.certificates(content) == pem.revocation_lists(content) == []
