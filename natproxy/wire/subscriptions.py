"""What a client has subscribed to, as a number: with RESP2, while it is not 0, messages come as plain arrays. Pure."""

from __future__ import annotations

from natproxy.wire.frames import MOST_BULK_BYTES, number_of

_LONGEST_WORD = len(b"punsubscribe")


class Subscriptions:
    """How many there are of each sort, as the confirmations tell."""

    __slots__ = ("_are_arrays", "_channels", "_patterns", "_shards")

    def __init__(self) -> None:
        self._channels = self._patterns = self._shards = 0
        self._are_arrays = False
        """The last confirmation was one, and no push as with RESP3: messages will be arrays, too."""

    @property
    def bring_arrays(self) -> bool:
        """True where messages may come that look like replies."""
        return self._are_arrays and bool(self._channels or self._patterns or self._shards)

    def confirmed(self, word: bytes, count: int, *, is_array: bool) -> int:
        """Take in a confirmation, which begins with ``word``; return how many subscriptions of its sort there are now.

        ``count``: the number in it, which is that of channels and patterns together, or that of shard channels.
        """
        self._are_arrays = is_array
        if word in (b"ssubscribe", b"sunsubscribe"):
            self._shards = count
            return count
        if word in (b"subscribe", b"unsubscribe"):
            self._channels = max(0, count - self._patterns)
            return self._channels
        self._patterns = max(0, count - self._channels)
        return self._patterns


def first_word(work: bytes, pos: int) -> bytes | None:
    """Return the bulk string at ``pos`` in lower case, empty where it is something else; None: it is not there yet."""
    stop = work.find(b"\r\n", pos)
    if stop < 0:
        return None
    if work[pos : pos + 1] != b"$":
        return b""
    length = number_of(work[pos + 1 : stop], MOST_BULK_BYTES)
    if not 0 <= length <= _LONGEST_WORD:
        return b""
    word = work[stop + 2 : stop + 2 + length]
    return word.lower() if len(word) == length else None
