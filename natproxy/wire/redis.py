"""Reads along with one RESP connection: pairs replies with commands, and rewrites those that carry addresses. Pure.

Theory. What answers what is known by counting: each command is answered by one reply, in order. Nearly all are *plain*:
nobody looks at their replies, except for whether they are a redirection, and of them only a number is kept (``ahead``).
Special ones wait in a queue, each with the number of plain ones behind it. Exceptions to one-for-one are commands of
the SUBSCRIBE family (commands.py) and, of replies, pushes.

- A body can hold anything, so only what begins a reply (or an element of EXEC's) is ever looked at; bodies are stepped
  over by their length, also where they have not come yet (``reply_opaque``).
- A header, or the line of an error, that has not come whole is held back until it has; a topology reply is put together
  and rewritten (topology.py). Nothing else is.
- What cannot be paired for sure is passed on untouched from then on: ``fell_back``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from natproxy.wire import frames
from natproxy.wire.asking import Requests, UnreadableError
from natproxy.wire.commands import CONFIRMATIONS, MESSAGES, Awaited, How
from natproxy.wire.frames import LONGEST_LINE, MOST_ELEMENTS, NoFrameError, check_beginning, number_of, skip_frames
from natproxy.wire.rewriter import (
    FAR,
    MANY,
    MOST_HELD_BYTES,
    Bytes,
    Fallback,
    Hint,
    Reply,
    ViewNow,
    Witness,
    always,
    never,
)
from natproxy.wire.subscriptions import Subscriptions, first_word
from natproxy.wire.topology import redirect, rewrite

MOST_SPECIAL = 4096
"""Special commands that may wait for their replies, and that may be queued in a transaction."""
_REDIRECTIONS = (b"-MOVED ", b"-ASK ", b"-REDIRECT ")

_QUEUED = b"+QUEUED\r\n"
_queued = re.compile(rb"(?:%b)*" % re.escape(_QUEUED)).match


class RedisRewriter:
    """See rewriter.Rewriter."""

    __slots__ = (
        "_after",
        "_collected",
        "_element",
        "_elements",
        "_held",
        "_in_multi",
        "_is_at_start",
        "_is_blind",
        "_is_push",
        "_is_sure",
        "_kept",
        "_left",
        "_pieces",
        "_queued",
        "_reply_opaque",
        "_requests",
        "_scan",
        "_specials",
        "_subscriptions",
        "_view",
        "_witness",
        "ahead",
        "is_one_reply",
        "is_one_request",
    )

    reads_requests = True
    is_one_request: Callable[[Bytes], object | None]
    is_one_reply: Callable[[Bytes], object | None]

    def __init__(self, view: ViewNow, witness: Witness) -> None:
        self._view = view
        self._witness = witness
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.ahead = 0
        self._reply_opaque = 0
        self._requests = Requests()
        self._specials: deque[Awaited] = deque()
        self._after: deque[int] = deque()
        """For each special command how many plain ones came after it."""
        self._is_blind = False
        """All passes unread."""
        self._is_sure = True
        """Nothing was asked before it began to read along."""
        self._is_at_start = False
        """Nothing but the inside of a value comes before the next plain reply."""
        self._held = b""
        """The beginning of a header or a line, not passed on yet."""
        self._left = 0
        """Frames still to come of the reply, element or push that is passing."""
        self._is_push = False
        self._collected: bytearray | None = None
        """A topology reply as far as it has come."""
        self._scan = (0, 1)
        """Up to where it has been read, and how many frames were still to come there."""
        self._in_multi = False
        self._queued: dict[int, Reply] = {}
        """Which commands of the transaction are answered by addresses."""
        self._element = 0
        """Commands queued so far; then the element of EXEC's reply that is passing."""
        self._elements = 0
        """Elements of EXEC's reply that are still to come."""
        self._subscriptions = Subscriptions()
        self._pieces: list[bytes] = []
        """What goes on in place of what has been read in this call."""
        self._kept = 0
        """Up to where that stands for what came."""
        self._settle()

    # Contract.

    @property
    def request_opaque(self) -> int:
        """How many bytes that come next from the client are the inside of a value."""
        return self._requests.opaque

    @request_opaque.setter
    def request_opaque(self, count: int) -> None:
        self._requests.opaque = count

    @property
    def reply_opaque(self) -> int:
        """How many bytes that come next from the node are the inside of a value."""
        return self._reply_opaque

    @reply_opaque.setter
    def reply_opaque(self, count: int) -> None:
        self._reply_opaque = count
        if self._is_at_start:
            self.is_one_reply = never if count else frames.is_one_reply

    def large_request(self, head: Bytes) -> bool:
        """Say whether a large plain command begins; account for it."""
        if self._specials or not self._requests.is_between or (found := frames.large_request(head)) is None:
            return False
        self.ahead += 1
        self._requests.opaque = found.end() + int(found[1]) + 2
        self.is_one_request = never
        return True

    def large_reply(self, head: Bytes) -> bool:
        """Say whether a large plain reply begins; account for it."""
        if not (self._is_at_start and self.ahead) or (found := frames.large_reply(head)) is None:
            return False
        self.ahead -= 1
        self.reply_opaque = found.end() + int(found[1]) + 2
        return True

    def requests(self, data: Bytes) -> None:
        """Look at what the client sends."""
        if self._is_blind:
            return
        asked = self._requests
        if (asked.opaque or self.large_request(data)) and asked.opaque >= len(data):
            asked.opaque -= len(data)
            self._settle_requests()
            return
        try:
            asked.take(data if isinstance(data, bytes) else bytes(data), self)
        except NoFrameError:
            self._fall_back(Fallback.REQUEST)
        except UnreadableError as error:
            self._fall_back(error.reason)
        self._settle()

    def replies(self, data: Bytes) -> Bytes:
        """Return what is to go on to the client."""
        if self._is_blind:
            return self._unread(data)
        if (self._reply_opaque or self.large_reply(data)) and self._reply_opaque >= len(data):
            self.reply_opaque -= len(data)
            return data
        opaque, self._reply_opaque = self._reply_opaque, 0
        out = self._read(data if isinstance(data, bytes) else bytes(data), opaque)
        self._settle()
        return out

    def _unread(self, data: Bytes) -> Bytes:
        if rest := self.rest():
            # What came from the client made it fall back, in the middle of a reply.
            self._reply_opaque, self.is_one_reply = FAR, always
            return rest + data
        return data

    def rest(self) -> bytes:
        """Return what is held, once nothing more will come from the node."""
        rest = self._held if self._collected is None else bytes(self._collected)
        self._held, self._collected = b"", None
        return rest

    # What is asked.

    def plain_asked(self, count: int) -> None:
        """Take in so many plain commands."""
        if self._after:
            self._after[-1] += count
        else:
            self.ahead += count

    def special_asked(self, awaited: Awaited) -> None:
        """Take in one that is not."""
        if len(self._specials) >= MOST_SPECIAL:
            raise UnreadableError(Fallback.TOO_LARGE)
        self._specials.append(awaited)
        self._after.append(0)

    # Life.

    def _settle(self) -> None:
        """Choose the shortcuts that hold from now on."""
        if self._is_blind:
            if self.is_one_reply is not never:
                self._reply_opaque = FAR
            return
        self._settle_requests()
        is_in_midst = self._left or self._held or self._collected is not None
        self._is_at_start = not is_in_midst and self._is_simple()
        self.is_one_reply = frames.is_one_reply if self._is_at_start and not self._reply_opaque else never

    def _settle_requests(self) -> None:
        is_between = not self._specials and self._requests.is_between
        self.is_one_request = frames.is_one_request if is_between else never

    def _is_simple(self) -> bool:
        return self._is_sure and not (self._in_multi or self._elements or self._subscriptions.bring_arrays)

    def _be_blind(self) -> None:
        self._is_blind = True
        self._is_at_start = False
        self.ahead, self._reply_opaque = MANY, FAR
        self._left = 0
        self._specials.clear()
        self._after.clear()

    def _fall_back(self, reason: Fallback) -> None:
        """Pass everything on from now on."""
        self._be_blind()
        self._requests.opaque = FAR
        self.is_one_request = self.is_one_reply = always
        if self._held or self._collected is not None:
            self._reply_opaque, self.is_one_reply = 0, never
        self._witness.fell_back(reason)

    def _answers_another(self) -> bool:
        """Say whether a reply that is not what was asked for answers something from before all that is known."""
        return False

    # What is answered.

    def _read(self, data: bytes, pos: int) -> bytes:
        """Return what goes on in place of ``data``, of which the first ``pos`` bytes are the inside of a value."""
        work = self._held + data
        self._held, self._pieces, self._kept = b"", [], 0
        end = len(work)
        try:
            while pos < end:
                stop = self._step(work, pos)
                if stop < 0:
                    break
                pos = stop
                if self._is_blind:
                    pos = end
        except NoFrameError:
            pos = self._give_up(end)
        if end - pos > LONGEST_LINE or (not self._is_sure and (pos < end or self._collected is not None)):
            pos = self._give_up(end)
        self._held = work[pos:]
        if not self._kept and pos == end:
            return work
        self._pieces.append(work[self._kept : pos])
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def _give_up(self, end: int) -> int:
        """Pass on all that has come, and whatever comes."""
        if self._collected is not None:
            self._give_back(self._collected, end)
        self._fall_back(Fallback.ANSWER)
        return end

    def _step(self, work: bytes, pos: int) -> int:
        """Go on by one thing; return where the next begins, or -1 where this one is not whole yet and is to be held."""
        if self._collected is not None:
            return self._collect(self._collected, work, pos)
        return self._skip(work, pos) if self._left else self._begin(work, pos)

    def _skip(self, work: bytes, pos: int) -> int:
        found = skip_frames(work, pos, self._left)
        self._left, self._reply_opaque = found.left, found.opaque
        if not found.left:
            self._ended()
        elif found.pos == pos:
            return -1
        return found.pos

    def _ended(self) -> None:
        if self._is_push:
            self._is_push = False
        else:
            self._answered()

    def _answered(self) -> None:
        """A whole reply, or element of EXEC's reply, has passed."""
        if self._elements:
            self._elements -= 1
            self._element += 1
            if self._elements:
                return
        if self.ahead:
            self.ahead -= 1
        elif self._specials:
            self._specials.popleft()
            self.ahead = self._after.popleft()

    def _begin(self, work: bytes, pos: int) -> int:
        """A reply, an element or a push begins."""
        if (self.ahead > 1 or self._elements > 1) and (stop := self._begin_run(work, pos)) > pos:
            return stop
        stop = work.find(b"\r\n", pos)
        kind = work[pos]
        if stop < 0:
            check_beginning(kind, len(work) - pos)
            return -1
        if kind == ord("-"):
            return self._error(work, pos, stop + 2)
        if kind == ord(">") or (kind == ord("*") and not self._elements and self._may_be_message()):
            return self._pushed(work, pos, stop)
        return self._answer(work, pos, stop)

    def _answer(self, work: bytes, pos: int, stop: int) -> int:
        """A reply, or an element of EXEC's, begins, and is no error."""
        if self._elements:
            is_plain = self._element not in self._queued
            return self._pass(work, pos) if is_plain else self._collect_from(work, pos)
        if not self.ahead and self._specials:
            return self._special(self._specials[0], work, pos, stop)
        if not (self.ahead or self._answers_another()):
            raise NoFrameError  # nobody asked
        if self._in_multi and work[pos:stop] == b"+QUEUED":
            self._element += 1
        return self._pass(work, pos)

    def _begin_run(self, work: bytes, pos: int) -> int:
        """Step over plain replies, or elements of EXEC's; return where they end, ``pos`` = there are none."""
        if self._elements:
            stop, count = (pos, 0) if self._queued else frames.run(work, pos, self._elements - 1)
            self._elements -= count
            self._element += count
            return stop
        if self._in_multi:
            found = _queued(work, pos, pos + self.ahead * len(_QUEUED))
            stop = pos if found is None else found.end()
            count = (stop - pos) // len(_QUEUED)
            self.ahead -= count
            self._element += count
            return stop
        if self._is_simple():
            stop, count = frames.run(work, pos, self.ahead)
            self.ahead -= count
            return stop
        return pos

    def _pass(self, work: bytes, pos: int) -> int:
        self._left = 1
        return self._skip(work, pos)

    def _special(self, awaited: Awaited, work: bytes, pos: int, stop: int) -> int:
        """The reply to a special command begins, and it is no error."""
        line = work[pos:stop]
        if self._in_multi and line == b"+QUEUED":
            return self._queue(awaited, work, pos, stop)
        match awaited.how:
            case How.TOPOLOGY:
                if line[:1] in b"*$=~%":
                    return self._collect_from(work, pos)
                self._is_push = self._answers_another()
            case How.EXEC:
                self._in_multi = False
                self._element = 0
                if line[:1] == b"*" and (count := number_of(line[1:], MOST_ELEMENTS)) > 0:
                    self._elements = count
                    return stop + 2
            case How.MULTI:
                self._in_multi, self._element, self._queued = True, 0, {}
            case How.DISCARD:
                self._in_multi = False
            case How.RESET:
                self._in_multi = False
                self._subscriptions = Subscriptions()
            case How.MONITOR:
                self._fall_back(Fallback.MONITOR)
                return stop + 2
            case How.SUBSCRIBE:
                raise NoFrameError
        return self._pass(work, pos)

    def _queue(self, awaited: Awaited, work: bytes, pos: int, stop: int) -> int:
        """A special command will be answered by an element of EXEC's reply."""
        if awaited.reply is None:
            raise NoFrameError  # SUBSCRIBE or MONITOR in a transaction: EXEC's reply is no array of replies then
        if len(self._queued) >= MOST_SPECIAL:
            self._fall_back(Fallback.TOO_LARGE)
            return stop + 2
        self._queued[self._element] = awaited.reply
        self._element += 1
        return self._pass(work, pos)

    def _error(self, work: bytes, pos: int, stop: int) -> int:
        line = work[pos:stop]
        if line.startswith(_REDIRECTIONS):
            redirected = redirect(line, self._view())
            if redirected is not None:
                self._replace(work, pos, redirected.line, stop)
                self._witness.rewritten(redirected.reply)
                if redirected.hint is not None:
                    self._witness.hint(redirected.hint)
        elif line.startswith(b"-READONLY"):
            self._witness.hint(Hint.READ_ONLY)
        if not (self._elements or self.ahead) and self._specials:
            if self._answers_another():
                return stop
            if self._specials[0].how is How.EXEC:
                self._in_multi = False
        self._answered()
        return stop

    def _replace(self, work: bytes, pos: int, by: bytes, stop: int) -> None:
        self._pieces += (work[self._kept : pos], by)
        self._kept = stop

    # Topology replies.

    def _collect_from(self, work: bytes, pos: int) -> int:
        found = skip_frames(work, pos, 1)
        if not (found.left or found.opaque):
            self._replace(work, pos, self._rewritten(work[pos : found.pos]), found.pos)
            return found.pos
        self._replace(work, pos, b"", pos)
        self._collected, self._scan = bytearray(), (0, 1)
        return self._collect(self._collected, work, pos)

    def _collect(self, collected: bytearray, work: bytes, pos: int) -> int:
        """Put the reply together; rewrite it once it is whole."""
        collected += work[pos:]
        at, left = self._scan
        if at < len(collected):
            found = skip_frames(collected, at, left)
            at, left = found.pos + found.opaque, found.left
            self._scan = at, left
        if left or at > len(collected):
            self._kept = len(work)
            if max(at, len(collected)) > MOST_HELD_BYTES:
                self._give_back(collected, len(work))
                self._fall_back(Fallback.TOO_LARGE)
            return len(work)
        stop = len(work) - (len(collected) - at)
        del collected[at:]
        self._collected = None
        self._give_back(self._rewritten(bytes(collected)), stop)
        return stop

    def _give_back(self, data: bytes | bytearray, stop: int) -> None:
        self._pieces.append(bytes(data))
        self._kept, self._collected = stop, None

    def _rewritten(self, data: bytes) -> bytes:
        reply = self._queued[self._element] if self._elements else self._specials[0].reply
        done = None if reply is None else rewrite(reply, data, self._view())
        if done is None and not self._elements and self._answers_another():
            return data
        self._answered()
        if done is None:
            return data
        if reply is not None:
            self._witness.rewritten(reply)
        if done.is_missing:
            self._witness.hint(Hint.UNKNOWN_NODE)
        if done.roles:
            self._witness.learnt(done.roles)
        return done.data

    # Publish and subscribe.

    def _may_be_message(self) -> bool:
        is_awaited = not self.ahead and self._specials and self._specials[0].how is How.SUBSCRIBE
        return bool(is_awaited) or self._subscriptions.bring_arrays

    def _pushed(self, work: bytes, pos: int, stop: int) -> int:
        """A push begins, or with RESP2 an array that may be one: a message, or a subscription's confirmation."""
        is_push = work[pos] == ord(">")
        word = b"" if work[pos + 1 : stop] in (b"0", b"-1") else first_word(work, stop + 2)
        if word is None:
            return -1
        if word not in CONFIRMATIONS:
            if is_push or word in MESSAGES:
                self._is_push = True
                self._left = 1
                return self._skip(work, pos)
            return self._answer(work, pos, stop)
        found = skip_frames(work, pos, 1)
        if found.left or found.opaque:
            return -1
        self._confirmed(word, work[pos : found.pos], is_array=not is_push)
        return found.pos

    def _confirmed(self, word: bytes, confirmation: bytes, *, is_array: bool) -> None:
        count = number_of(confirmation.rpartition(b"\r\n:")[2][:-2], MOST_ELEMENTS)
        of_sort = self._subscriptions.confirmed(word, count, is_array=is_array)
        if self.ahead or not self._specials or self._specials[0].word != word:
            return  # a slot that was moved away took its subscriptions along
        awaited = self._specials[0]
        if awaited.confirmations > 1:
            self._specials[0] = awaited._replace(confirmations=awaited.confirmations - 1)
        elif awaited.confirmations == 1 or not of_sort:
            self._answered()
