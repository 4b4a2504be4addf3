"""Reads along with a connection to a group without cluster mode: only ROLE and INFO matter, and are seldom asked. Pure.

Clients ask these when they connect. So the first few commands are read along with; then it sleeps, and looks only at
how what comes from either side begins. A question that wakes it does not tell what else is still to be answered before:
the next reply that is of the right shape is taken for its answer, nothing is held back for it, and what cannot be read
sends it to sleep again.
"""

from __future__ import annotations

import re

from natproxy.wire import frames
from natproxy.wire.redis import RedisRewriter
from natproxy.wire.rewriter import Bytes, Fallback, Hint, ViewNow, Witness

FEW = 64
"""Commands after which it falls asleep."""
GUESSES = 64
"""Replies among which it looks for the one it was woken for."""

_no_question = re.compile(rb"(?!\*[1-9]\r\n\$4\r\n(?i:ROLE|INFO)\r\n)").match
_no_refusal = re.compile(rb"(?!-READONLY)").match


class LazyRedisRewriter(RedisRewriter):
    """See rewriter.Rewriter."""

    __slots__ = ("_few", "_guesses", "_is_asleep")

    def __init__(self, view: ViewNow, witness: Witness) -> None:
        self._few = FEW
        self._guesses = 0
        """Replies that may yet belong to commands from before it was woken."""
        self._is_asleep = False
        super().__init__(view, witness)

    def requests(self, data: Bytes) -> None:
        """Look at what the client sends."""
        if self._is_asleep and _no_question(data) is None:
            self._wake()
        super().requests(data)

    def replies(self, data: Bytes) -> Bytes:
        """Return what is to go on to the client."""
        if self._is_asleep and _no_refusal(data) is None:
            self._witness.hint(Hint.READ_ONLY)
        return super().replies(data)

    def _one_of_few(self, data: Bytes) -> object | None:
        """Count the first commands; fall asleep after them, as soon as nothing is awaited."""
        self._few -= 1
        if self._few > 0 or self.ahead or self.is_one_reply is not frames.is_one_reply:
            return frames.is_one_request(data)
        self._sleep()
        return _no_question(data)

    def _settle_requests(self) -> None:
        super()._settle_requests()
        if self.is_one_request is frames.is_one_request:
            self.is_one_request = self._one_of_few

    def _sleep(self) -> None:
        self._be_blind()
        self._is_asleep, self._guesses = True, 0
        self.is_one_request, self.is_one_reply = _no_question, _no_refusal

    def _wake(self) -> None:
        self._begin_anew()
        self._is_asleep = self._is_sure = False
        self._few, self._guesses = FEW, GUESSES

    def _fall_back(self, reason: Fallback) -> None:
        if self._is_sure:
            super()._fall_back(reason)
        else:
            self._sleep()

    def _answers_another(self) -> bool:
        if self._is_sure:
            return False
        self._guesses -= 1
        if not self._guesses:
            self._sleep()
        return True
