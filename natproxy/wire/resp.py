"""One whole reply as a tree whose untouched parts keep their bytes: RESP2 and RESP3. Pure.

Each ``Value`` holds all of its bytes, those of its items included; what is changed is made anew from the leaves up, so
that nothing else differs. Streamed types (``$?``, ``*?``) are refused: no engine sends them.
https://github.com/antirez/RESP3/blob/master/spec.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

MOST_NESTED = 8
"""Arrays within arrays; real replies have four."""
MOST_BYTES = 4 * 1024 * 1024
"""Each level is a copy of what it holds; real replies that are read as a tree have some hundred kilobytes."""
MOST_LINES = 1 << 17
"""A reply with more has more values than anybody needs: the largest cluster's have half of it."""

_LINES = frozenset(b"+-:_#,(")
_SIZED = frozenset(b"$=!")
_COUNTED = frozenset(b"*~>%|")
_MAP, _ATTRIBUTE, _VERBATIM = b"%"[0], b"|"[0], b"="[0]
_NULLS = (b"$-1\r\n", b"*-1\r\n")
_FORMAT = 4
"""Bytes before a verbatim string's text: three letters and a colon."""
_LONGEST_NUMBER = 12


class UnlikeError(Exception):
    """A reply is not of the shape that was expected: it goes on untouched."""


class Value(NamedTuple):
    """One value of a reply."""

    raw: bytes
    items: tuple[Value, ...] = ()
    """What an array, set or push holds; of a map its keys and values in turn; of an attribute the same, and then what
    it is an attribute of."""


def decode(data: bytes) -> Value:
    """Return what is exactly one whole reply as a tree; raises UnlikeError where it is not."""
    if len(data) > MOST_BYTES or data.count(b"\r\n") > MOST_LINES:
        raise UnlikeError
    value, end = read(data, 0)
    if end != len(data):
        raise UnlikeError
    return value


def read(data: bytes, at: int, depth: int = 0) -> tuple[Value, int]:
    """Return the value that begins at ``at``, and where it ends; raises UnlikeError where there is no whole one."""
    end = data.find(b"\r\n", at) + 2
    if end < 2 or depth > MOST_NESTED:
        raise UnlikeError
    mark, line = data[at], data[at:end]
    if mark in _LINES or line in _NULLS:
        return Value(line), end
    if mark in _COUNTED:
        count = _number(line) * (2 if mark in (_MAP, _ATTRIBUTE) else 1) + (mark == _ATTRIBUTE)
        items = []
        for _ in range(count):
            item, end = read(data, end, depth + 1)
            items.append(item)
        return Value(data[at:end], tuple(items)), end
    if mark not in _SIZED:
        raise UnlikeError
    size = _number(line)
    end += size + 2
    if end > len(data) or data[end - 2 : end] != b"\r\n" or (mark == _VERBATIM and size < _FORMAT):
        raise UnlikeError
    return Value(data[at:end]), end


def _number(line: bytes) -> int:
    """Return the length or count that a header line holds."""
    digits = line[1:-2]
    if not digits.isdigit() or len(digits) > _LONGEST_NUMBER:
        raise UnlikeError
    return int(digits)


def text_of(value: Value) -> bytes | None:
    """Return what a string or number says; None for nil, and for what is neither."""
    raw = value.raw
    match raw[:1]:
        case b"$" if raw not in _NULLS:
            return raw[raw.index(b"\n") + 1 : -2]
        case b"=":
            return raw[raw.index(b"\n") + 1 + _FORMAT : -2]
        case b"+" | b":" | b"," | b"(":
            return raw[1:-2]
        case _:
            return None


def number_of(value: Value) -> int:
    """Return a number that is not negative; raises UnlikeError where the value is none."""
    text = text_of(value)
    if text is None or not text.isdigit() or len(text) > _LONGEST_NUMBER:
        raise UnlikeError
    return int(text)


def items_of(value: Value) -> tuple[Value, ...]:
    """Return an array's or set's items; raises UnlikeError where the value is neither."""
    if value.raw[:1] not in (b"*", b"~") or value.raw in _NULLS:
        raise UnlikeError
    return value.items


def pairs_of(value: Value) -> Iterator[tuple[Value, Value]]:
    """Return the pairs of a map, or of an array in its place (RESP2); raises UnlikeError where the value is neither."""
    if value.raw[:1] != b"%" and len(items_of(value)) % 2:
        raise UnlikeError
    return zip(value.items[::2], value.items[1::2], strict=True)


def with_text(value: Value, text: bytes) -> Value:
    """Return the same kind of string or number with another text; a bulk string where it was nil or something else."""
    raw = value.raw
    match raw[:1]:
        case b"=":
            start = raw.index(b"\n") + 1
            return Value(b"=%d\r\n%b%b\r\n" % (len(text) + _FORMAT, raw[start : start + _FORMAT], text))
        case b"+" | b":" | b"," | b"(" as mark:
            return Value(b"%b%b\r\n" % (mark, text))
        case _:
            return Value(b"$%d\r\n%b\r\n" % (len(text), text))


def with_items(value: Value, items: Sequence[Value]) -> Value:
    """Return the same kind of array, set or map with other items."""
    if len(items) == len(value.items):
        header = value.raw[: value.raw.index(b"\n") + 1]
    else:
        header = b"%b%d\r\n" % (value.raw[:1], len(items) // (2 if value.raw[:1] == b"%" else 1))
    return Value(header + b"".join([item.raw for item in items]), tuple(items))
