from __future__ import annotations

import pytest

from natproxy.wire.memcached_frames import (
    BINARY,
    CONFIG_KEY,
    LONGEST_HEADER_BYTES,
    LONGEST_SMALL_BYTES,
    Framing,
    Kind,
    framing_for,
    line_end,
    text_framing,
)
from tests.standins.memcached_front import packet

TEXT = text_framing()
TOO_LONG = LONGEST_HEADER_BYTES + 1


@pytest.mark.parametrize(
    ("data", "kind", "end"),
    [
        (b"STORED\r\n", Kind.PLAIN, 8),
        (b"\r\n", Kind.PLAIN, 2),
        (b"\n", Kind.PLAIN, 1),
        (b"END\r\nEND\r\nSTO", Kind.PLAIN, 10),
        (b"VERSION 1.6.18\r\n", Kind.PLAIN, 16),
        (b"VALUE\r\n", Kind.PLAIN, 7),
        (b"VA\r\n", Kind.PLAIN, 4),
        (b"CONFIGURED\r\n", Kind.PLAIN, 12),
        (b"VALUE k 0 3\r\nabc\r\nEND\r\n", Kind.PLAIN, 23),
        (b"VALUE k 0 3 99\r\nabc\r\nEND\r\n", Kind.PLAIN, 26),
        (b"VALUE k 0 12\r\nabc\r\nEND\r\nab\r\n", Kind.PLAIN, 28),
        (b"VALUE k 0 0\r\n\r\nEND\r\n", Kind.PLAIN, 20),
        (b"VALUE k\r\t 4294967295 1\r\nx\r\n", Kind.PLAIN, 27),
        (b"VA 2\r\nhi\r\n", Kind.PLAIN, 10),
        (b"VA 2 t-1 kkey Ovalue\r\nhi\r\n", Kind.PLAIN, 26),
        # Values that have not come whole, or are long.
        (b"VALUE k 0 5\r\nabc", Kind.PLAIN, 20),
        (b"VALUE k 0 5\r\nabc\r\n", Kind.PLAIN, 20),
        (b"VALUE k 0 5000\r\nabc", Kind.PLAIN, 5018),
        (b"VALUE k 0 05\r\nabc", Kind.PLAIN, 21),
        (b"VA 5000 k1\r\nabc", Kind.PLAIN, 5014),
        (b"CONFIG other 0 5\r\nabc", Kind.PLAIN, 25),
        # Node lists.
        (b"CONFIG cluster 0 5\r\nabcde\r\nEND\r\n", Kind.NODE_LIST, 27),
        (b"CONFIG cluster 0 500\r\n", Kind.NODE_LIST, 524),
        (b"VALUE " + CONFIG_KEY + b" 0 5\r\nabcde\r\nEND\r\n", Kind.ITEM, 44),
        (b"VALUE " + CONFIG_KEY + b"s 0 5\r\nabcde\r\n", Kind.PLAIN, 45),
        # What has begun.
        (b"V", Kind.PART, 2),
        (b"VALUE", Kind.PART, 6),
        (b"VALUE k 0 5", Kind.PART, 12),
        (b"VALUE k 0 5\r", Kind.PART, 13),
        (b"VA 5", Kind.PART, 5),
        (b"CONFIG clus", Kind.PART, 12),
        (b"P", Kind.PART, 2),
        (b"I", Kind.PART, 2),
        (b"VE", Kind.LINE, 0),
        (b"STOR", Kind.LINE, 0),
        (b"VALUABLE", Kind.LINE, 0),
        (b"x" * TOO_LONG, Kind.LINE, 0),
        # What is no header, or may hold forged ones.
        (b"VALUE k 0 x\r\n", Kind.UNSURE, 0),
        (b"VALUE k 0 -1\r\n", Kind.UNSURE, 0),
        (b"VALUE k 0\r\n", Kind.UNSURE, 0),
        (b"VALUE k 0 99999999999\r\n", Kind.UNSURE, 0),
        (b"VA sf 2\r\nhi\r\n", Kind.UNSURE, 0),
        (b"CONFIG cluster\r\n", Kind.UNSURE, 0),
        (b"VALUE " + b"k" * TOO_LONG, Kind.UNSURE, 0),
        (b"ITEM key [1 b; 0 s]\r\n", Kind.UNSURE, 0),
        (b"ITEM k", Kind.UNSURE, 0),
        (b"PREFIX a get 1 hit 1 set 1 del 0\r\n", Kind.UNSURE, 0),
    ],
)
def test_text_is_lines_and_blocks_with_a_length(data: bytes, kind: Kind, end: int) -> None:
    assert TEXT.next_frame(data, 0) == (kind, end)
    assert TEXT.next_frame(b"END\r\n" + memoryview(data), 5) == (kind, end + 5 if end else 0)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 99, 100, 256, LONGEST_SMALL_BYTES, LONGEST_SMALL_BYTES + 1, 70_000])
def test_a_value_ends_where_its_length_says(size: int) -> None:
    body = (b"\r\nEND\r\nVALUE k 0 3\r\n" * (size // 10 + 1))[:size]
    for head in (b"VALUE k 0 %d\r\n" % size, b"VALUE k 0 %d 7\r\n" % size, b"VA %d\r\n" % size, b"VA %d c7\r\n" % size):
        frame = head + body + b"\r\n"
        assert TEXT.next_frame(frame, 0) == (Kind.PLAIN, len(frame))
        is_small = size <= LONGEST_SMALL_BYTES
        assert (TEXT.is_one_reply(frame + b"END\r\n") is not None) is is_small
        assert TEXT.is_one_reply(frame[:-1]) is None
        assert TEXT.is_one_reply(head + body + b"x\r\n") is None


@pytest.mark.parametrize(
    "data",
    [b"STORED\r\n", b"END\r\n", b"VALUE k 0 3\r\nabc\r\nEND\r\n", b"VA 3\r\nabc\r\n", b"1\r\n", b"HD\r\nHD\r\nMN\r\n"],
)
def test_plain_replies_are_seen_at_a_glance(data: bytes) -> None:
    assert TEXT.is_one_reply(memoryview(data)) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"STORED",
        b"END\r\nSTO",
        b"VALUE k 0 3\r\nabcd\r\nEND\r\n",
        b"VALUE k 0 3\r\nab\r\n",
        b"CONFIG cluster 0 1\r\n1\r\nEND\r\n",
        b"VALUE " + CONFIG_KEY + b" 0 1\r\n1\r\nEND\r\n",
        b"END\r\nCONFIG cluster 0 1\r\n1\r\nEND\r\n",
        b"ITEM k [1 b; 0 s]\r\n",
    ],
)
def test_nothing_else_is(data: bytes) -> None:
    assert TEXT.is_one_reply(data) is None


def test_thousands_of_lines_are_stepped_over_in_few_steps() -> None:
    data, at, steps = b"END\r\n" * 20_000, 0, 0
    while at < len(data):
        kind, at = TEXT.next_frame(data, at)
        steps += 1
        assert kind is Kind.PLAIN
    assert at == len(data)
    assert steps < 100


CONFIG = packet(0x60, b"opaq", bytes(4), b"1\n\n")
GETK = packet(0x0C, b"opaq", bytes(4), b"abc", key=CONFIG_KEY)
FAILED = bytes([0x81, 0x60, 0, 0, 0, 0, 0, 0x81, 0, 0, 0, 4]) + bytes(12) + b"nope"


@pytest.mark.parametrize(
    ("data", "kind", "end"),
    [
        (packet(0x00, b"opaq", bytes(4), b"abc"), Kind.PLAIN, 31),
        (packet(0x00, b"opaq", bytes(4), b"abc")[:24], Kind.PLAIN, 31),
        (packet(0x0A, b"opaq", b"", b"") * 2, Kind.PLAIN, 24),
        (packet(0x0C, b"opaq", bytes(4), b"abc", key=b"k" * 25), Kind.PLAIN, 56),
        (packet(0x0C, b"opaq", bytes(4), b"abc", key=b"k"), Kind.PLAIN, 32),
        (packet(0x0C, b"opaq", bytes(4), b"abc", key=b"k")[:24], Kind.PLAIN, 32),
        (FAILED, Kind.PLAIN, 28),
        (CONFIG, Kind.NODE_LIST, 31),
        (CONFIG[:24], Kind.NODE_LIST, 31),
        (packet(0x62, b"opaq", bytes(4), b"1\n\n", key=b"cluster"), Kind.NODE_LIST, 38),
        (GETK, Kind.ITEM, 56),
        (GETK[:53], Kind.ITEM, 56),
        (GETK[:52], Kind.PART, 53),
        (GETK[:23], Kind.PART, 24),
        (b"\x81", Kind.PART, 2),
        (b"\x80" + bytes(23), Kind.UNSURE, 0),
        (b"END\r\n", Kind.UNSURE, 0),
        # A packet that says its key is longer than itself.
        (b"\x81\x0c\x00\x19" + bytes(4) + b"\0\0\0\4" + bytes(12) + b"abcd", Kind.PLAIN, 28),
    ],
)
def test_binary_is_packets_with_a_length(data: bytes, kind: Kind, end: int) -> None:
    assert BINARY.next_frame(data, 0) == (kind, end)
    assert BINARY.next_frame(bytes(7) + memoryview(data), 7) == (kind, end + 7 if end else 0)


def test_one_packet_is_seen_at_a_glance() -> None:
    plain = packet(0x00, b"opaq", bytes(4), b"abc")
    assert BINARY.is_one_reply(memoryview(plain)) is not None
    for other in (b"", plain[:-1], plain + b"x", plain[:10], CONFIG, GETK, b"\x80" + plain[1:]):
        assert BINARY.is_one_reply(other) is None


@pytest.mark.parametrize(
    ("framing", "frame", "body", "joined"),
    [
        (TEXT, b"CONFIG cluster 0 3\r\n1\n\n\r\n", b"1\n\n", b"CONFIG cluster 0 10\r\n0123456789\r\n"),
        (TEXT, b"CONFIG cluster 0 3\n1\n\n\r\n", b"1\n\n", b"CONFIG cluster 0 10\n0123456789\r\n"),
        (TEXT, b"VALUE k9 8 3 7\r\n1\n\n\r\n", b"1\n\n", b"VALUE k9 8 10 7\r\n0123456789\r\n"),
        (BINARY, CONFIG, b"1\n\n", packet(0x60, b"opaq", bytes(4), b"0123456789")),
        (BINARY, GETK, b"abc", packet(0x0C, b"opaq", bytes(4), b"0123456789", key=CONFIG_KEY)),
    ],
)  # fmt: skip
def test_a_node_list_is_taken_out_and_another_put_in(
    framing: Framing, frame: bytes, body: bytes, joined: bytes
) -> None:
    parts = framing.split(frame)
    assert parts.body == body
    assert framing.join(parts, b"0123456789") == joined
    assert framing.join(parts, body) == frame


def test_the_first_byte_chooses_the_protocol() -> None:
    assert framing_for(CONFIG) is BINARY
    assert framing_for(memoryview(b"STORED\r\n")) is text_framing()


def test_a_line_ends_at_its_line_feed() -> None:
    assert line_end(b"RED\r\nEND\r\n") == 5
    assert line_end(memoryview(b"\n")) == 1
    assert line_end(b"RED\r") == 0
