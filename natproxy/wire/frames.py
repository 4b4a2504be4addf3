"""RESP's framing, as cheap as Python can have it: where requests and replies end, without making objects of them. Pure.

Most traffic is small: one compiled expression then knows a whole command or reply, lengths and all. A bulk string of up
to 99 bytes is an alternation over its length (``3\\r\\n[^\\n]{3}``), so what matches is framed truly, never by guess;
bodies with a line feed in them, and longer ones, are stepped over one by one, by their length. Runs of commands or
elements match in one call, and are counted by their line feeds.

https://valkey.io/topics/protocol/ and https://github.com/antirez/RESP3/blob/master/spec.md
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_BULK_BYTES = 1 << 40
"""Longer than any engine takes: a length beyond it is none."""
MOST_ELEMENTS = 1 << 32
MOST_ARGUMENTS = (1 << 31) - 1
"""Redis' own limit for the arguments of a command since 7.0 (networking.c, processMultibulkBuffer)."""
LONGEST_HEADER = 32
"""A type, a number, CRLF."""
LONGEST_LINE = 64 * 1024
"""A line that does not end within so many bytes is none."""
_LONGEST_SMALL = 107
"""The longest bulk string that is small: ``$99``, CRLF, 99 bytes, CRLF."""


class NoFrameError(Exception):
    """What comes is no RESP, or none that can be told the end of."""


def _times(count: int) -> bytes:
    return b"[^\n]{%d}" % count if count else b""


def _bulk() -> bytes:
    """Match one bulk string of 0 to 99 bytes without a line feed."""
    by_digit = [b"0\r\n"]
    for first in range(1, 10):
        longer = b"|".join(b"%d\r\n%b" % (second, _times(10 * first + second)) for second in range(10))
        by_digit.append(b"%d(?:\r\n%b|%b)" % (first, _times(first), longer))
    return rb"\$(?:%b)\r\n" % b"|".join(by_digit)


_NOT_PLAIN = {
    4: b"ROLE|INFO|EXEC|SYNC",
    5: b"MULTI|RESET|PSYNC",
    6: b"CLIENT",
    7: b"CLUSTER|DISCARD|MONITOR",
    8: b"REPLCONF",
    9: b"SUBSCRIBE",
    10: b"PSUBSCRIBE|SSUBSCRIBE",
    11: b"UNSUBSCRIBE",
    12: b"PUNSUBSCRIBE|SUNSUBSCRIBE",
}
"""Length -> the names of commands that are not answered by just one reply that nobody need look at."""


def _plain_name() -> bytes:
    """Match the name of a plain command as a bulk string."""

    def of_length(length: int) -> bytes:
        besides = b"(?!(?i:%b))" % _NOT_PLAIN[length] if length in _NOT_PLAIN else b""
        return besides + _times(length)

    short = [b"%d\r\n%b" % (length, of_length(length)) for length in range(2, 10)]
    long = b"|".join(b"%d\r\n%b" % (length - 10, of_length(length)) for length in range(10, 20))
    return rb"\$(?:%b|1(?:\r\n[^\n]|%b))\r\n" % (b"|".join(short), long)


_BULK = _bulk()
_NAME = _plain_name()
_LINE = (
    rb"[+:,#(_][^\r\n]*+\r\n|(?:[$*]-1|[*~%]0)\r\n"
    rb"|-(?!MOVED |ASK |REDIRECT |READONLY)[^\r\n]*+\r\n"
)
"""A reply, or an element, of one line, that is no redirection."""


def _commands(arguments: int, more: int = 0) -> bytes:
    """Match plain commands of so many small arguments, and ``more`` that the expression does not go on to."""
    return rb"%d\r\n%b%b" % (arguments + more + 1, _NAME, _BULK * arguments)


is_one_request = re.compile(rb"\*(?:%b)" % b"|".join(_commands(count) for count in (1, 2, 0, 3, 4))).fullmatch
"""Not None: one whole plain command."""
is_one_reply = re.compile(_BULK + b"|" + _LINE).fullmatch
"""Not None: one whole plain reply."""
large_request = re.compile(
    rb"\*(?:%b)\$([0-9]{3,12})\r\n" % b"|".join(_commands(count, 1) for count in (1, 0, 2, 3))
).match
"""Not None: a plain command begins whose last argument is not small; the group is its length."""
large_reply = re.compile(rb"\$([0-9]{3,12})\r\n").match
"""Not None: a bulk string begins that is not small; the group is its length."""
bulks = re.compile(rb"(?:%b)*" % _BULK).match
"""As many small bulk strings as there are; each has two line feeds."""
lines = re.compile(rb"(?:%b)*" % _LINE).match
"""As many plain one-line replies or elements as there are."""
requests_by_head = {
    b"*%d\r\n" % (count + 1): (re.compile(rb"(?:\*%b)*" % _commands(count)).match, 2 * count + 3) for count in range(4)
}
"""How a command begins -> as many plain commands of that many arguments as there are, and the line feeds of each."""
inlines = re.compile(
    rb"(?:(?!(?i:%b)[\s\x00])[^\s\x00*\"'][^\s\x00\"']*+(?=\s)[^\n]*+\n)*" % b"|".join(_NOT_PLAIN.values())
).match
"""As many plain commands without lengths as there are: lines, of which the first word has no quotes."""
nothing = re.compile(rb"(?:\r?\n|\*0\r\n)*").match
"""As much as there is of what Redis takes no notice of."""

_OF_ONE_LINE = b"+-(,"
"""What is a line of any length."""
_KINDS = b"+-:_,#($=!*~>%|"


class Frames(NamedTuple):
    """How far ``skip_frames`` came."""

    pos: int
    """Where the next frame's header begins, or the data's end."""
    left: int
    """Frames that are still to come."""
    opaque: int
    """Bytes beyond the data's end that belong to a body."""


def skip_frames(data: bytes | bytearray, pos: int, left: int) -> Frames:
    """Step over ``left`` frames from ``pos``, an aggregate's elements among them, as far as the data goes.

    Raises NoFrameError.
    """
    end = len(data)
    while left and pos < end:
        if left > 1:
            stop, count = run(data, pos, left)
            if count:
                pos, left = stop, left - count
                continue
        stop = data.find(b"\r\n", pos, pos + LONGEST_HEADER)
        kind = data[pos]
        if stop < 0:
            stop = data.find(b"\r\n", pos) if kind in _OF_ONE_LINE else -1
            if stop < 0:
                check_beginning(kind, end - pos)
                return Frames(pos, left, 0)
        pos, left = _after(kind, data, pos, stop, left)
    return Frames(min(pos, end), left, max(0, pos - end))


def run(data: bytes | bytearray, pos: int, most: int) -> tuple[int, int]:
    """Return where a run of small frames from ``pos`` on ends, and how many they are: ``most`` at most, perhaps none.

    No more is looked at than so many can take: who asks for a few each time would read the rest again and again.
    """
    end = min(len(data), pos + most * _LONGEST_SMALL)
    matching, feeds = bulks, 2
    stop = _end_of(matching(data, pos, end), pos)
    if stop == pos:
        matching, feeds = lines, 1
        stop = _end_of(matching(data, pos, end), pos)
    count = data.count(b"\n", pos, stop) // feeds
    width = (stop - pos) * most // max(count, 1)
    while count > most:
        stop = _end_of(matching(data, pos, pos + width), pos)
        count = data.count(b"\n", pos, stop) // feeds
        width //= 2
    return stop, count


def _end_of(match: re.Match[bytes] | None, pos: int) -> int:
    return pos if match is None else match.end()


def check_beginning(kind: int, length: int) -> None:
    """Raise NoFrameError where a header or line that has no end yet, after so many bytes, will have none."""
    if kind not in _KINDS or length >= (LONGEST_LINE if kind in _OF_ONE_LINE else LONGEST_HEADER):
        raise NoFrameError


def _after(kind: int, data: bytes | bytearray, pos: int, stop: int, left: int) -> tuple[int, int]:
    """Return where the frame whose header ends at ``stop`` ends, and how many are left after it."""
    if kind in b"+-:_,#(":
        return stop + 2, left - 1
    number = data[pos + 1 : stop]
    if kind in b"$=!":
        length = number_of(number, MOST_BULK_BYTES)
        return (stop + 2 if length < 0 else stop + length + 4), left - 1
    if kind in b"*~>":
        return stop + 2, left - 1 + max(0, number_of(number, MOST_ELEMENTS))
    if kind == ord("%"):
        return stop + 2, left - 1 + 2 * max(0, number_of(number, MOST_ELEMENTS))
    if kind == ord("|"):
        # An attribute stands before what it is about, and is no reply itself.
        return stop + 2, left + 2 * max(0, number_of(number, MOST_ELEMENTS))
    raise NoFrameError


def number_of(text: bytes | bytearray, most: int) -> int:
    """Return the number in a header: 0 to ``most``, or -1 for a null. Raises NoFrameError for all else."""
    if text == b"-1":
        return -1
    if not text.isdigit() or (number := int(text)) > most:
        raise NoFrameError
    return number
