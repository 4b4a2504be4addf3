"""Reads a client's side of RESP: which commands it sends, without keeping them. Pure."""

from __future__ import annotations

from typing import Protocol

from natproxy.wire import frames
from natproxy.wire.commands import LONGEST_NAME, WITH_SUBCOMMAND, Awaited, classify
from natproxy.wire.frames import LONGEST_HEADER, MOST_ARGUMENTS, MOST_BULK_BYTES, NoFrameError, number_of
from natproxy.wire.rewriter import Fallback

LONGEST_INLINE = 64 * 1024
"""Redis' own limit for a command without lengths (PROTO_INLINE_MAX_SIZE)."""


class UnreadableError(Exception):
    """After this command nobody can tell what answers what."""

    def __init__(self, reason: Fallback) -> None:
        super().__init__(reason)
        self.reason = reason


class Asker(Protocol):
    """Who is told what was asked, in its order. Given with each call: kept, the two would hold each other for ever."""

    def plain_asked(self, count: int) -> None:
        """Take in so many plain commands."""

    def special_asked(self, awaited: Awaited) -> None:
        """Take in one that is not. May raise UnreadableError."""


class Requests:
    """What a client sends, as far as it matters."""

    __slots__ = ("_arguments", "_rest", "opaque")

    def __init__(self) -> None:
        self.opaque = 0
        """Bytes still to come of an argument."""
        self._arguments = 0
        """Arguments still to come of the command, after that one."""
        self._rest = b""
        """The beginning of a header or a name."""

    @property
    def is_between(self) -> bool:
        """True where what comes next is a new command."""
        return not (self.opaque or self._arguments or self._rest)

    def take(self, data: bytes, asker: Asker) -> None:
        """Go on by what has come. Raises NoFrameError (that is no RESP), UnreadableError (nobody can read on)."""
        if self.opaque >= len(data):
            self.opaque -= len(data)
            return
        pos, self.opaque = self.opaque, 0
        if self._rest:
            data, self._rest = self._rest + data, b""
        end = len(data)
        while 0 <= pos < end:
            before = pos
            pos = self._argument(data, pos) if self._arguments else self._command(data, pos, asker)
            if pos < 0:
                self._rest = data[before:]

    def _argument(self, data: bytes, pos: int) -> int:
        """Step over arguments; return where the next thing begins, or -1 where not even its header is whole."""
        if self._arguments > 2 and (match := frames.bulks(data, pos)) is not None and match.end() > pos:
            count = data.count(b"\n", pos, match.end()) // 2
            if count > self._arguments:
                raise NoFrameError
            self._arguments -= count
            return match.end()
        start, length = _bulk_header(data, pos)
        if start < 0:
            return -1
        self._arguments -= 1
        return self._over(data, start + length + 2)

    def _over(self, data: bytes, stop: int) -> int:
        self.opaque = max(0, stop - len(data))
        return min(stop, len(data))

    def _command(self, data: bytes, pos: int, asker: Asker) -> int:
        if data[pos] != ord("*"):
            return self._inline(data, pos, asker)
        run = frames.requests_by_head.get(data[pos : pos + 4])
        if run is not None:
            match, feeds = run
            found = match(data, pos)
            if found is not None and (stop := found.end()) > pos:
                asker.plain_asked(data.count(b"\n", pos, stop) // feeds)
                return stop
        stop = data.find(b"\r\n", pos, pos + LONGEST_HEADER)
        if stop < 0:
            return _unless_too_long(data, pos, LONGEST_HEADER)
        words = number_of(data[pos + 1 : stop], MOST_ARGUMENTS)
        if words <= 0:
            return _after_nothing(data, stop + 2)  # Redis takes no notice of it
        return self._named(data, stop + 2, words, asker)

    def _named(self, data: bytes, pos: int, words: int, asker: Asker) -> int:
        """Read the one or two words of a command that tell what it is."""
        start, length = _bulk_header(data, pos)
        if start < 0 or (length <= LONGEST_NAME and start + length > len(data)):
            return -1
        name = data[start : start + length].upper() if length <= LONGEST_NAME else b""
        second = b""
        if name in WITH_SUBCOMMAND and words > 1:
            at, second_length = _bulk_header(data, start + length + 2)
            if at < 0 or (second_length <= LONGEST_NAME and at + second_length > len(data)):
                return -1
            second = data[at : at + second_length].upper() if second_length <= LONGEST_NAME else b""
        self._arguments = words - 1
        _tell(asker, classify(name, second, words))
        return self._over(data, start + length + 2)

    def _inline(self, data: bytes, pos: int, asker: Asker) -> int:
        stop = data.find(b"\n", pos, pos + LONGEST_INLINE)
        if stop < 0:
            return _unless_too_long(data, pos, LONGEST_INLINE)
        found = frames.inlines(data, pos)
        if found is not None and found.end() > pos:
            asker.plain_asked(data.count(b"\n", pos, found.end()))
            return found.end()
        words = data[pos:stop].split()
        if not words:
            return _after_nothing(data, stop + 1)
        awaited = classify(words[0].upper(), words[1].upper() if len(words) > 1 else b"", len(words))
        if isinstance(awaited, Awaited) and awaited.confirmations:
            telling = words  # which are counted, and what stands in quotes is one
        else:
            telling = words[: 1 + (words[0].upper() in WITH_SUBCOMMAND)]
        if any(quote in word for word in telling for quote in (b'"', b"'")):
            raise NoFrameError
        _tell(asker, awaited)
        return stop + 1


def _tell(asker: Asker, awaited: Awaited | Fallback | None) -> None:
    if awaited is None:
        asker.plain_asked(1)
    elif isinstance(awaited, Fallback):
        raise UnreadableError(awaited)
    else:
        asker.special_asked(awaited)


def _after_nothing(data: bytes, pos: int) -> int:
    """Return where what is no command ends: blank lines, arrays of nothing."""
    found = frames.nothing(data, pos)
    return pos if found is None else found.end()


def _bulk_header(data: bytes, pos: int) -> tuple[int, int]:
    """Return where the body of the bulk string at ``pos`` begins, and its length; (-1, 0): that is not there yet."""
    stop = data.find(b"\r\n", pos, pos + LONGEST_HEADER)
    if stop < 0:
        return _unless_too_long(data, pos, LONGEST_HEADER), 0
    if data[pos] != ord("$"):
        raise NoFrameError
    length = number_of(data[pos + 1 : stop], MOST_BULK_BYTES)
    if length < 0:
        raise NoFrameError
    return stop + 2, length


def _unless_too_long(data: bytes, pos: int, longest: int) -> int:
    """Return -1; raise NoFrameError where so much has come that it should have been whole."""
    if len(data) - pos >= longest:
        raise NoFrameError
    return -1
