"""Reads along with one memcached connection, and rewrites the node lists of auto discovery. Pure.

Theory. Replies frame themselves (memcached_frames.py), and what may be rewritten says so in its own header, so what
clients send is never looked at: nothing has to be paired, and noreply, quiet commands and errors in place of answers
cannot put it out of step. A client's request reaches the node unseen (``request_opaque``), and any number of plain
replies passes by one look at each piece (``is_one_reply``).

- A value is stepped over by its length, also where it has not come yet (``reply_opaque``).
- The beginning of a header is held back until the header has come whole; a node list until all of it has. Nothing else
  is ever held: any other line is passed on as it comes.
- What cannot be framed for sure is passed on untouched from then on: ``fell_back``.

One answer is not known: that of a binary ``get`` of the node list's key, which memcached before 1.4.14 needs, does not
say its key; a client that asks so (not by getk, and not in text) is told private addresses.
"""

from __future__ import annotations

from collections.abc import Callable

from natproxy.wire.config_cluster import tell
from natproxy.wire.memcached_frames import BINARY, Frame, Framing, Kind, framing_for, line_end
from natproxy.wire.rewriter import FAR, Bytes, Fallback, Hint, Reply, ViewNow, Witness, always, never

MOST_NODE_LIST_BYTES = 256 * 1024
"""A longer node list goes on untouched: the longest that AWS allows, 300 nodes, has 40 KiB."""


def _all_that_comes(_: Bytes, __: int) -> Frame:
    return Kind.PLAIN, FAR


_UNREAD = BINARY._replace(is_one_reply=always, next_frame=_all_that_comes)
"""The framing of a connection that has fallen back: one frame without an end."""


class MemcachedRewriter:
    """See rewriter.Rewriter. ``ahead`` counts nothing here: it is always enough, as any plain reply may come."""

    __slots__ = (
        "_framing",
        "_held",
        "_is_in_line",
        "_view",
        "_wanted",
        "_witness",
        "ahead",
        "is_one_reply",
        "is_one_request",
        "reply_opaque",
        "request_opaque",
    )

    reads_requests = False
    is_one_request: Callable[[Bytes], object | None]
    is_one_reply: Callable[[Bytes], object | None]

    def __init__(self, view: ViewNow, witness: Witness) -> None:
        self._view = view
        self._witness = witness
        self.ahead = self.request_opaque = FAR
        self.reply_opaque = 0
        self.is_one_request, self.is_one_reply = always, never
        self._framing: Framing | None = None
        """Not known before the first reply."""
        self._held = bytearray()
        """The beginning of a header or a node list, not passed on yet."""
        self._wanted = 0
        """How long that must have become to be looked at again."""
        self._is_in_line = False
        """A line has begun to pass that is nothing more."""

    def large_request(self, head: bytes) -> bool:
        """Say yes: see above."""
        return True

    def large_reply(self, head: bytes) -> bool:
        """Say whether plain replies begin that go on beyond these bytes; account for them."""
        if self.reply_opaque or self._held or self._is_in_line or not head:
            return False
        framing = self._framing = self._framing or framing_for(head)
        at, kind = 0, Kind.PLAIN
        while at < len(head) and kind is Kind.PLAIN:
            kind, at = framing.next_frame(head, at)
        if kind is not Kind.PLAIN or at <= len(head):
            return False
        self._settle(at, is_between=False)
        return True

    def requests(self, data: Bytes) -> None:
        """Nothing: see above."""

    def replies(self, data: Bytes) -> Bytes:
        """Return what is to go on to the client."""
        at = self.reply_opaque
        if at > len(data):
            self.reply_opaque = at - len(data)
            return data
        self.reply_opaque = 0
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return b""
            data = self.rest()
        elif self._is_in_line:
            at = line_end(data)
            if not at:
                return data
            self._is_in_line = False
        return self._read(data, at)

    def rest(self) -> bytes:
        """Return what is held, once nothing more will come from the node."""
        held = bytes(self._held)
        self._held.clear()
        return held

    def _read(self, data: Bytes, at: int) -> Bytes:
        """Return what is to go on for bytes in which, at an offset, a reply (or a part of one) begins."""
        if self._framing is None and data:
            self._framing = framing_for(data)
        pieces: list[Bytes] = []
        kept, end = 0, len(data)
        while at < end and self._framing is not None:
            kind, frame_end = self._framing.next_frame(data, at)
            if kind is Kind.LINE:
                self._is_in_line = True
                break
            if kind is not Kind.PLAIN:
                if self._is_doubtful(kind, frame_end - at):
                    continue
                if frame_end > end:
                    self._hold(data[at:], frame_end - at)
                    end = at
                    break
                if told := self._tell(self._framing, kind, bytes(data[at:frame_end])):
                    pieces += (data[kept:at], told)
                    kept = frame_end
            at = frame_end
        self._settle(at - end, is_between=at == len(data))
        if pieces:
            return b"".join((*pieces, data[kept:end]))
        return data if end == len(data) else data[:end]

    def _settle(self, beyond: int, *, is_between: bool) -> None:
        """Choose what holds until more comes; ``beyond``: so far the value that has begun goes on."""
        self.reply_opaque = max(beyond, 0)
        if self._framing is _UNREAD:
            self.is_one_reply = always
        elif self._framing is not None:
            self.is_one_reply = self._framing.is_one_reply if is_between else never

    def _hold(self, begun: Bytes, wanted: int) -> None:
        self._held += begun
        self._wanted = wanted

    def _is_doubtful(self, kind: Kind, length: int) -> bool:
        if kind is Kind.UNSURE:
            self._fall_back(Fallback.ANSWER)
        elif length > MOST_NODE_LIST_BYTES:
            self._fall_back(Fallback.TOO_LARGE)
        return self._framing is _UNREAD

    def _tell(self, framing: Framing, kind: Kind, frame: bytes) -> bytes | None:
        """Return a node list's frame with public addresses; None where it is none after all."""
        parts = framing.split(frame)
        told = tell(parts.body, self._view())
        if told is None:
            if kind is Kind.NODE_LIST:
                self._fall_back(Fallback.ANSWER)
            return None
        if told.left_out:
            self._witness.hint(Hint.UNKNOWN_NODE)
        self._witness.rewritten(Reply.CONFIG)
        return framing.join(parts, told.body)

    def _fall_back(self, reason: Fallback) -> None:
        """Pass everything on from now on."""
        self._framing = _UNREAD
        self._witness.fell_back(reason)
