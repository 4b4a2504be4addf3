"""The first bytes of a client: TLS, a known protocol in the clear, or nothing known."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import HandshakeFailure
from natproxy.tls.first_bytes import ENOUGH_BYTES, is_text, is_tls, what_instead
from tests.tls.handshakes import fed
from tests.tls.samples import VERSIONS, peer

PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
CLEAR = [
    b"*1\r\n$4\r\nPING\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\n\x00\xff\x16\r\n",
    b"PING\r\n",
    b"set a 0 0 1\r\n\xff\r\n",
    b"get a\r\n",
    b"mg a v\r\n",
    b"config get cluster\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PROXY TCP4 198.51.100.27 203.0.113.73 5000 6379\r\n",
    PROXY_V2 + b"\x21\x11\0\x0c" + bytes(12),
    PROXY_V2[:5],
    b"\r\n",
    struct.pack("!BBHBBHIIQ", 0x80, 0x0B, 0, 0, 0, 0, 0, 0, 0),  # memcached's binary `version`
    struct.pack("!BBHBBHIIQ", 0x80, 0x60, 7, 0, 0, 0, 7, 0, 0) + b"cluster",
    b"\x80",
    b"\x81\0\0",
    b"*",
    b"\t x",
]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_client_s_hello_begins_tls(version: str) -> None:
    hello = fed(peer(is_server=False, version=version), b"", is_server=False).outgoing.read()
    assert is_tls(hello) is True
    assert [is_tls(hello[:count]) for count in range(4)] == [None, None, None, True]


@pytest.mark.parametrize("minor", range(6))
def test_the_versions_a_record_may_name(minor: int) -> None:
    assert is_tls(bytes([0x16, 3, minor])) is (minor <= 4)


@pytest.mark.parametrize(
    "data", [b"\x15\x03\x01", b"\x17\x03\x03", b"\x16\x02\x00", b"\x16\x03\x05", b"\x03", b"\x16\x16"]
)
def test_other_records_begin_nothing(data: bytes) -> None:
    assert is_tls(data) is False


@pytest.mark.parametrize("data", CLEAR)
def test_a_known_protocol_in_the_clear(data: bytes) -> None:
    assert is_tls(data) is False
    assert what_instead(data) is HandshakeFailure.CLEAR_TEXT


@pytest.mark.parametrize("data", CLEAR)
def test_its_first_byte_alone_is_enough_to_say_it_is_not_tls(data: bytes) -> None:
    assert is_tls(data[:1]) is False


@pytest.mark.parametrize(
    "data",
    [b"\0", b"\0\0\0", b"\x15\x03\x01\0\x02", b"\x16\x03\x05", b"\xff" * 20, b"ab\0cd", b"\n", b"\x80\x16\x42", b""],
)
def test_garbage(data: bytes) -> None:
    assert what_instead(data) is HandshakeFailure.GARBAGE


def test_the_hello_of_ssl_2_is_an_old_version() -> None:
    assert what_instead(b"\x80\x2e\x01\x00\x02" + bytes(20)) is HandshakeFailure.VERSION
    assert what_instead(b"\x80\x2e\x01\x03\x01" + bytes(20)) is HandshakeFailure.VERSION


def test_only_text_is_worth_an_answer_in_text() -> None:
    assert is_text(b"PING\r\n")
    assert is_text(b"set a 0 0 1\r\n\xff\r\n")
    assert not is_text(b"\x80\x0b\0\0")
    assert not is_text(b"")


def test_a_long_line_is_judged_by_its_beginning() -> None:
    assert what_instead(b"GET /" + b"x" * 10_000 + b"\0") is HandshakeFailure.CLEAR_TEXT


@given(st.binary(max_size=40))
def test_it_is_known_as_soon_as_it_can_be_and_never_changes(data: bytes) -> None:
    verdicts = [is_tls(data[:count]) for count in range(len(data) + 1)]
    assert verdicts[0] is None
    for before, after in itertools.pairwise(verdicts):
        assert before is None or after is before
    assert None not in verdicts[ENOUGH_BYTES:]
    assert (verdicts[-1] is True) == (len(data) >= 3 and data[0] == 0x16 and data[1] == 3 and data[2] <= 4)
    assert what_instead(data) in {HandshakeFailure.CLEAR_TEXT, HandshakeFailure.GARBAGE, HandshakeFailure.VERSION}


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1), st.binary())
def test_a_printable_line_is_clear_text_whatever_follows(line: str, rest: bytes) -> None:
    assert what_instead(line.encode() + b"\r\n" + rest) is HandshakeFailure.CLEAR_TEXT
