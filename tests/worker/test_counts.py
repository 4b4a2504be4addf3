from __future__ import annotations

from natproxy.messages import DIAL_BUCKETS
from natproxy.model import Address
from natproxy.wire.rewriter import Fallback, Reply
from natproxy.worker.counts import PortCounts


def test_dials_are_counted_by_the_first_bucket_that_holds_them() -> None:
    counts = PortCounts(1)
    address = Address("127.0.0.1", 1)
    for seconds in (0.0, DIAL_BUCKETS[0], DIAL_BUCKETS[0] * 1.001, DIAL_BUCKETS[-1], 1000.0):
        counts.dialled(address, seconds)
    taken = counts.take(5)
    assert taken is not None
    assert taken.dials == (2, 1, *[0] * (len(DIAL_BUCKETS) - 3), 1, 1)
    assert taken.live == (("127.0.0.1", 1, 5),)
    # The next ones start anew; what lives on is told again.
    again = counts.take(5)
    assert again is not None
    assert (again.opened, again.dials, again.dial_seconds, again.live) == (0, (), 0.0, taken.live)
    for _ in range(5):
        counts.left(address)
    assert counts.take(0) is None


def test_rewritten_replies_and_fallbacks_are_counted_by_kind() -> None:
    counts = PortCounts(1)
    counts.rewritten(Reply.MOVED)
    counts.rewritten(Reply.MOVED)
    counts.fell_back(Fallback.MONITOR)
    taken = counts.take(1)
    assert taken is not None
    assert (taken.rewritten, taken.fallbacks) == ({"moved": 2}, {"monitor": 1})
    again = counts.take(1)
    assert again is not None
    assert (again.rewritten, again.fallbacks) == ({}, {})
