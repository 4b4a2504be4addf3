"""Reads along with a connection to a group without cluster mode: only ROLE and INFO matter, and are seldom asked. Pure.

Clients ask these when they connect. So the first few commands are read along with; then it sleeps, and looks only at
how what comes from either side begins. A question that wakes it does not tell what else is still to be answered before:
the next reply that is of the right shape is taken for its answer, nothing is held back for it, and it sleeps again when
it has found that, or comes to what cannot be read, or has looked for too long.
"""

from __future__ import annotations

import re

from natproxy.wire import frames
from natproxy.wire.redis import RedisRewriter
from natproxy.wire.rewriter import Bytes, Fallback, Hint, ViewNow, Witness, never

FEW = 64
"""Commands after which it falls asleep."""
GUESSES = 64
"""Replies among which it looks for the one it was woken for."""

_no_question = re.compile(rb"(?!\*[1-9]\r\n\$4\r\n(?i:ROLE|INFO)\r\n)").match
_no_refusal = re.compile(rb"(?!-READONLY)").match


class _First:
    """``is_one_request`` for the first few commands, which it counts. It knows no rewriter: the two would be a ring."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = FEW

    def __call__(self, data: Bytes) -> object | None:
        self.left -= 1
        return frames.is_one_request(data) if self.left >= 0 else None


class LazyRedisRewriter(RedisRewriter):
    """See rewriter.Rewriter."""

    __slots__ = ("_first", "_guesses", "_is_asleep")

    def __init__(self, view: ViewNow, witness: Witness) -> None:
        self._first = _First()
        self._guesses = 0
        """Replies that may yet belong to commands from before it was woken."""
        self._is_asleep = False
        super().__init__(view, witness)

    def requests(self, data: Bytes) -> None:
        """Look at what the client sends."""
        if self._first.left < 0 and not self._is_asleep and self._is_quiet():
            self._sleep()
        if self._is_asleep and not self._asks(data):
            return
        super().requests(data)

    def large_request(self, head: Bytes) -> bool:
        """Say whether a large plain command begins; account for it. Asleep, to see how the next one begins."""
        if not self._is_asleep:
            return super().large_request(head)
        if self._requests.opaque or (found := frames.large_request(head)) is None:
            return False
        self._requests.opaque = found.end() + int(found[1]) + 2
        self.is_one_request = never
        return True

    def _asks(self, data: Bytes) -> bool:
        """Asleep: say whether this begins with a question, or holds one behind the large value that it ends."""
        asked = self._requests
        if (asked.opaque or self.large_request(data)) and asked.opaque >= len(data):
            asked.opaque -= len(data)
            return False
        begins, asked.opaque, self.is_one_request = asked.opaque, 0, _no_question
        if _no_question(data, begins) is None:
            self._wake()
            self._requests.opaque = begins
        return not self._is_asleep

    def replies(self, data: Bytes) -> Bytes:
        """Return what is to go on to the client."""
        if self._is_asleep and _no_refusal(data) is None:
            self._witness.hint(Hint.READ_ONLY)
        return super().replies(data)

    def _is_quiet(self) -> bool:
        """Say whether a command begins and nothing is awaited."""
        is_between = not (self.ahead or self._specials) and self._requests.is_between
        return is_between and self.is_one_reply is frames.is_one_reply

    def _settle_requests(self) -> None:
        super()._settle_requests()
        if self.is_one_request is frames.is_one_request:
            self.is_one_request = self._first

    def _sleep(self) -> None:
        self._be_blind()
        self._is_asleep, self._guesses = True, 0
        self.is_one_request = never if self._requests.opaque else _no_question
        self.is_one_reply = _no_refusal

    def _wake(self) -> None:
        self._first, self._guesses = _First(), GUESSES
        self._begin_anew()
        self._is_asleep = self._is_sure = False

    def _fall_back(self, reason: Fallback) -> None:
        if self._is_sure:
            super()._fall_back(reason)
        else:
            self._sleep()

    def _rewritten(self, data: bytes) -> bytes:
        told = super()._rewritten(data)
        if not (self._is_sure or self._specials):
            self._sleep()
        return told

    def _answers_another(self) -> bool:
        if self._is_sure:
            return False
        self._guesses -= 1
        if not self._guesses:
            self._sleep()
        return True
