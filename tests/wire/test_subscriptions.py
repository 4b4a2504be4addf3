from __future__ import annotations

import pytest

from natproxy.wire.frames import NoFrameError
from natproxy.wire.subscriptions import Subscriptions, first_word


def confirm(subscriptions: Subscriptions, told: list[tuple[bytes, int]], *, is_array: bool = True) -> list[int]:
    return [subscriptions.confirmed(word, count, is_array=is_array) for word, count in told]


def test_each_sort_is_counted_by_the_numbers_in_the_confirmations() -> None:
    """Channels and patterns are counted together there, shard channels by themselves."""
    subscriptions = Subscriptions()
    told = [(b"subscribe", 1), (b"subscribe", 2), (b"psubscribe", 3), (b"ssubscribe", 1), (b"unsubscribe", 2)]
    assert confirm(subscriptions, told) == [1, 2, 1, 1, 1]
    assert Subscriptions().bring_arrays < subscriptions.bring_arrays
    told = [(b"punsubscribe", 1), (b"unsubscribe", 0), (b"unsubscribe", 0)]
    assert confirm(subscriptions, told) == [0, 0, 0]
    assert subscriptions.bring_arrays
    assert confirm(subscriptions, [(b"sunsubscribe", 0)]) == [0]
    assert Subscriptions().bring_arrays == subscriptions.bring_arrays


def test_confirmations_that_are_pushes_count_too_but_messages_are_no_arrays_then() -> None:
    subscriptions = Subscriptions()
    told = [(b"subscribe", 1), (b"psubscribe", 2), (b"unsubscribe", 1)]
    assert confirm(subscriptions, told, is_array=False) == [1, 1, 0]
    assert not subscriptions.bring_arrays
    # With RESP2 again.
    assert confirm(subscriptions, [(b"subscribe", 2)]) == [1]
    assert subscriptions.bring_arrays


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
