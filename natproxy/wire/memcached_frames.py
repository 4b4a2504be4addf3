"""Where memcached's replies begin and end, in text and in binary. Pure.

Theory: the stream of replies frames itself; no request needs to be known for it. In text all that comes is lines; three
kinds of line are followed by a block whose length they tell, and by CR LF. In binary all is packets with a length.
Block and packet may contain anything, and are stepped over by length.

Only ``stats cachedump`` and ``stats detail dump`` print raw keys, in which old versions allow line ends where the key
was stored through the binary protocol: such lines (ITEM, PREFIX) can hold forged ones. All other text that comes from
clients is printed without spaces and line ends, or URI-encoded.

Sources: memcached's doc/protocol.txt and protocol_binary.h; the opcodes for the configuration are those of Amazon's
cluster client for libmemcached.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from natproxy.wire.rewriter import Bytes

LONGEST_HEADER_BYTES = 2048
"""Keys have up to 250 bytes, opaque tokens 32: a longer header is none."""
LONGEST_SMALL_BYTES = 999
"""Values up to here are stepped over by the regular expression that steps over lines, many in one go."""
CONFIG_KEY = b"AmazonElastiCache:cluster"
"""What clients get where memcached is older than 1.4.14, which has no ``config get cluster``."""

BINARY_REPLY = 0x81
HEADER_BYTES = 24
_CONFIG_GETS = frozenset((0x60, 0x61, 0x62, 0x63))
"""Config get, quiet, with key, both."""
_KEYED_GETS = frozenset((0x0C, 0x0D, 0x23, 0x24))
"""Getk, getkq, gatk, gatkq: replies that tell their key. Those of get and gat do not, and are values like others."""
_LOOKED_AT = _CONFIG_GETS | _KEYED_GETS

_WORDS = (b"VALUE ", b"VA ", b"CONFIG ", b"ITEM ", b"PREFIX ")
"""What lines begin with that are more than a line, or cannot be trusted."""
_ANY_LINE = rb"(?!" + rb"|".join(_WORDS) + rb")[^\n]*+\n"
_END_OF_LINE = re.compile(rb"[^\n]*+\n")
_HEADER = re.compile(rb"(?P<name>(?P<word>VALUE|CONFIG) [^ \n]+) \d+ (?P<size>\d{1,10})(?: [^\n]*|\r?)\n")
_META_HEADER = re.compile(rb"VA (?P<size>\d{1,10})(?: [^\n]*|\r?)\n")
_SIZE = re.compile(rb"(?P<before>[A-Z]+ [^ ]+ \d+ )\d+(?P<after>[^\n]*\n)")
_NODE_LISTS = {b"CONFIG cluster": True, b"VALUE " + CONFIG_KEY: False}


class Kind(Enum):
    """What a frame is."""

    PLAIN = auto()
    """To be passed on: lines, a value, a packet; its end may not have come yet."""
    NODE_LIST = auto()
    """The answer to ``config get cluster``."""
    ITEM = auto()
    """The item of CONFIG_KEY: a node list, or what users put there where that key means nothing."""
    PART = auto()
    """The beginning of a header; more is to come before anything can be said."""
    LINE = auto()
    """The beginning of a line that is nothing more."""
    UNSURE = auto()
    """No reply, or one that cannot be framed for sure."""


Frame = tuple[Kind, int]
"""(kind, where it ends: perhaps beyond what has come; 0 for LINE and UNSURE)."""


class NodeListFrame(NamedTuple):
    """A frame with a node list in three parts."""

    head: bytes
    body: bytes
    tail: bytes


class Framing(NamedTuple):
    """One of the two protocols."""

    is_one_reply: Callable[[Bytes], object | None]
    """Whether these are whole replies, at least one, all of them plain: a quick look, which may miss some."""
    next_frame: Callable[[Bytes, int], Frame]
    """Return what begins at an offset, which is before the end of the data."""
    split: Callable[[bytes], NodeListFrame]
    join: Callable[[NodeListFrame, bytes], bytes]
    """Return the frame with another body, and with the length that this has."""


def framing_for(data: Bytes) -> Framing:
    """Choose by the first bytes of a connection's first reply: memcached never changes the protocol afterwards."""
    return BINARY if data[0] == BINARY_REPLY else text_framing()


def line_end(data: Bytes) -> int:
    """Return where the line that these bytes go on with ends; 0 = not here."""
    found = _END_OF_LINE.match(data)
    return found.end() if found else 0


@functools.cache
def text_framing() -> Framing:
    """Return the framing of text; the regular expression for small values takes a moment to compile."""
    small = re.compile(rb"(?:" + _ANY_LINE + rb"|" + _small_values() + rb"){1,256}")
    return Framing(small.fullmatch, functools.partial(_next_text_frame, small.match), _split_text, _join_text)


def _small_values() -> bytes:
    """Return a pattern for whole values whose length, up to LONGEST_SMALL_BYTES, is what their header says."""

    def digits(so_far: str) -> str:
        more = [digits(so_far + digit) for digit in "0123456789"] if _may_grow(so_far) else []
        ends = [rf"(?: [^\n]*+|\r)\n(?s:.{{{int(so_far)}}})\r\n"] if so_far else []
        return so_far[-1:] + "(?:" + "|".join(ends + more) + ")"

    return rb"(?:VALUE (?!" + CONFIG_KEY + rb" )[^ \n]++ \d++|VA) " + digits("").encode()


def _may_grow(digits: str) -> bool:
    return digits != "0" and int((digits or "0") + "9") <= LONGEST_SMALL_BYTES


def _next_text_frame(small: Callable[[Bytes, int], re.Match[bytes] | None], data: Bytes, at: int) -> Frame:
    if found := small(data, at):
        return Kind.PLAIN, found.end()
    if found := _META_HEADER.match(data, at):
        return Kind.PLAIN, found.end() + int(found["size"]) + 2
    if found := _HEADER.match(data, at):
        is_answer = _NODE_LISTS.get(found["name"])
        kind = Kind.PLAIN if is_answer is None else Kind.NODE_LIST if is_answer else Kind.ITEM
        return kind, found.end() + int(found["size"]) + 2
    begin = bytes(data[at : at + LONGEST_HEADER_BYTES])
    if not any(begin.startswith(word) or word.startswith(begin) for word in _WORDS):
        return Kind.LINE, 0
    if b"\n" in begin or len(begin) == LONGEST_HEADER_BYTES or begin.startswith((b"ITEM ", b"PREFIX ")):
        return Kind.UNSURE, 0
    return Kind.PART, len(data) + 1


def _split_text(frame: bytes) -> NodeListFrame:
    head = frame.index(b"\n") + 1
    return NodeListFrame(frame[:head], frame[head:-2], frame[-2:])


def _join_text(frame: NodeListFrame, body: bytes) -> bytes:
    head = _SIZE.sub(rb"\g<before>%d\g<after>" % len(body), frame.head)
    return head + body + frame.tail


def _is_one_packet(data: Bytes) -> object | None:
    is_one = (
        len(data) >= HEADER_BYTES
        and data[0] == BINARY_REPLY
        and data[1] not in _LOOKED_AT
        and int.from_bytes(data[8:12], "big") + HEADER_BYTES == len(data)
    )
    return True if is_one else None


def _next_packet(data: Bytes, at: int) -> Frame:
    if data[at] != BINARY_REPLY:
        return Kind.UNSURE, 0
    come = len(data) - at
    if come < HEADER_BYTES:
        return Kind.PART, len(data) + 1
    end = at + HEADER_BYTES + int.from_bytes(data[at + 8 : at + 12], "big")
    opcode, has_failed = data[at + 1], data[at + 6] or data[at + 7]
    if opcode not in _LOOKED_AT or has_failed:
        return Kind.PLAIN, end
    return (Kind.NODE_LIST, end) if opcode in _CONFIG_GETS else _keyed_packet(data, at, end)


def _keyed_packet(data: Bytes, at: int, end: int) -> Frame:
    key = at + HEADER_BYTES + data[at + 4]
    key_end = key + int.from_bytes(data[at + 2 : at + 4], "big")
    if key_end - key != len(CONFIG_KEY) or key_end > end:
        return Kind.PLAIN, end
    if key_end > len(data):
        return Kind.PART, len(data) + 1
    return (Kind.ITEM if data[key:key_end] == CONFIG_KEY else Kind.PLAIN), end


def _split_packet(frame: bytes) -> NodeListFrame:
    head = HEADER_BYTES + frame[4] + int.from_bytes(frame[2:4], "big")
    return NodeListFrame(frame[:head], frame[head:], b"")


def _join_packet(frame: NodeListFrame, body: bytes) -> bytes:
    size = len(frame.head) - HEADER_BYTES + len(body)
    return frame.head[:8] + size.to_bytes(4, "big") + frame.head[12:] + body


BINARY = Framing(_is_one_packet, _next_packet, _split_packet, _join_packet)
