from __future__ import annotations

import pytest

from natproxy.wire.frames import NoFrameError
from natproxy.wire.subscriptions import Subscriptions, first_word


def test_each_sort_is_counted_by_the_numbers_in_the_confirmations() -> None:
    """Channels and patterns are counted together there, shard channels by themselves."""
    subscriptions = Subscriptions()
    told = [(b"subscribe", 1), (b"subscribe", 2), (b"psubscribe", 3), (b"ssubscribe", 1), (b"unsubscribe", 2)]
    assert [subscriptions.confirmed(*one) for one in told] == [1, 2, 1, 1, 1]
    assert Subscriptions().are_any < subscriptions.are_any
    told = [(b"punsubscribe", 1), (b"unsubscribe", 0), (b"unsubscribe", 0)]
    assert [subscriptions.confirmed(*one) for one in told] == [0, 0, 0]
    assert subscriptions.are_any
    assert subscriptions.confirmed(b"sunsubscribe", 0) == 0
    assert not subscriptions.are_any


@pytest.mark.parametrize(
    ("work", "word"),
    [
        (b"$7\r\nMessage\r\n", b"message"),
        (b"$7\r\nmessag", None),
        (b"$7\r", None),
        (b"", None),
        (b":1\r\n", b""),
        (b"$100\r\nx", b""),
        (b"$-1\r\n", b""),
    ],
)
def test_the_first_word(work: bytes, word: bytes | None) -> None:
    assert first_word(b"*3\r\n" + work, 4) == word


def test_a_length_that_is_none() -> None:
    with pytest.raises(NoFrameError):
        first_word(b"$x\r\n", 0)
