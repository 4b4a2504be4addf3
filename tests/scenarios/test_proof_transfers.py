"""Every byte arrives, whichever way it takes: both directions at once, sizes around every boundary, any bursts."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from tests.scenarios.streams import background, ends_of, pieces, wait_until_still
from tests.scenarios.tlspeers import Version
from tests.scenarios.ways import (
    MEBIBYTE,
    SIDES,
    TLS_WAYS,
    WAYS,
    House,
    Side,
    Way,
    each_count_of_workers,
    either_first,
    every_way,
)

AT_ONCE_BYTES, AFTERWARDS_BYTES = 12 * MEBIBYTE, 4 * MEBIBYTE
BOUNDARIES = (16 << 10, 64 << 10, 256 << 10, MEBIBYTE)
"""What a TLS record holds, one read of a TLS leg, one read of a clear leg, and all reads of a turn."""
SIZES = (1, *(boundary + more for boundary in BOUNDARIES for more in (-1, 0, 1)), 8 * MEBIBYTE)
BURST_BYTES = 2 * MEBIBYTE + 1
STALLED_BYTES = 32 * MEBIBYTE
"""More than all buffers on the way hold, where those at its ends are narrow."""

pytestmark = each_count_of_workers


def ways_and_versions() -> list[tuple[Way, Version | None]]:
    """Every way, and those in which natproxy speaks TLS once with each version."""
    return [(way, version) for way in WAYS for version in (("TLSv1.2", "TLSv1.3") if way in TLS_WAYS else (None,))]


@either_first
@pytest.mark.parametrize(("way", "version"), ways_and_versions())
def test_both_directions_at_once_and_who_has_said_its_last_byte_hears_the_other_out(
    tidy_house: House, way: Way, version: Version | None, first: Side
) -> None:
    since = len(tidy_house.daemon.log)
    link = tidy_house.link(way, version)
    one, other = ends_of(link, first)
    all_at_once = [
        background(one.say_last, *pieces(AT_ONCE_BYTES, seed=1)),
        background(other.say, *pieces(AT_ONCE_BYTES, seed=2)),
        background(one.hear, AT_ONCE_BYTES),
    ]
    assert other.hear_to_the_end() == AT_ONCE_BYTES
    for part in all_at_once:
        part.result()
    afterwards = background(other.say_last, *pieces(AFTERWARDS_BYTES, seed=3))
    assert one.hear_to_the_end() == AT_ONCE_BYTES + AFTERWARDS_BYTES
    afterwards.result()
    line = tidy_house.ended(link[0], since=since)
    assert line["outcome"] == f"{first}-closed"
    if way != "passthrough":  # there it counts records
        said = {first: one.said, SIDES[first == "client"]: other.said}
        assert (line["client_bytes"], line["node_bytes"]) == (said["client"], said["node"])


@every_way
def test_sizes_around_every_boundary_both_ways_one_after_another(tidy_house: House, way: Way) -> None:
    client, node = ends_of(tidy_house.link(way))
    for size in SIZES:
        parts = background(client.say, size), background(node.say, size), background(client.hear, size)
        node.hear(size)
        for part in parts:
            part.result()


@every_way
@either_first
def test_sizes_around_every_boundary_with_the_end_right_behind(tidy_house: House, way: Way, first: Side) -> None:
    for size in SIZES:
        one, other = ends_of(tidy_house.link(way), first)
        asking = background(one.say_last, size)
        assert other.hear_to_the_end() == size
        asking.result()
        answering = background(other.say_last, size)
        assert one.hear_to_the_end() == size
        answering.result()


def tiny_and_huge(seed: int, count: int) -> list[int]:
    """Return sizes of bursts: one to three tiny ones, then a huge one, and so on."""
    dice = random.Random(seed)
    sizes: list[int] = []
    while len(sizes) < count:
        sizes += [dice.randint(1, 100) for _ in range(dice.randint(1, 3))]
        sizes.append(dice.choice([200_000, 262_144, 300_001, MEBIBYTE, 3 * MEBIBYTE + dice.randint(-9, 9)]))
    return sizes


@every_way
def test_tiny_and_huge_bursts_in_turn_both_ways_at_once(tidy_house: House, way: Way) -> None:
    """A relay may move what is huge in another manner than what is tiny, and change in the middle of a stream."""
    client, node = ends_of(tidy_house.link(way))
    up, down = tiny_and_huge(seed=1, count=24), tiny_and_huge(seed=2, count=24)
    parts = background(client.say, *up), background(node.say, *down), background(client.hear, sum(down))
    node.hear(sum(up))
    for part in parts:
        part.result()
    # And with a rest after each: the answer to a burst is said once all of it has come.
    for question, answer in zip(up[:12], down[:12], strict=True):
        asking = background(client.say, question)
        node.hear(question)
        asking.result()
        answering = background(node.say, answer)
        client.hear(answer)
        answering.result()


@every_way
@either_first
def test_a_reader_that_stops_in_the_middle_of_a_burst_gets_it_all_and_holds_up_nothing_else(
    tidy_house: House, way: Way, first: Side
) -> None:
    """``first`` speaks. The memory that the stall costs is bounded; the other direction stays open."""
    daemon = tidy_house.daemon
    one, other = ends_of(tidy_house.link(way), first)
    one.narrow()
    other.narrow()
    one.say(7)
    other.hear(7)
    before = daemon.resident_bytes()
    burst = background(one.say_in_slices, STALLED_BYTES)
    other.hear(MEBIBYTE // 2 + 3)
    wait_until_still(daemon, lambda: one.said)
    assert one.said < STALLED_BYTES
    assert daemon.resident_bytes() - before < 8 * MEBIBYTE
    back = background(other.say, *tiny_and_huge(seed=3, count=6))
    one.hear(sum(tiny_and_huge(seed=3, count=6)))
    back.result()
    for step in (1, 100, MEBIBYTE):  # a little room at a time
        other.hear(step)
    other.hear(STALLED_BYTES + 7 - other.heard)
    burst.result()
    one.say(5)
    other.hear(5)
    assert daemon.resident_bytes() - before < 8 * MEBIBYTE
    one.talk.finish()
    assert other.hear_to_the_end() == one.said


@every_way
@either_first
@pytest.mark.parametrize("reader", ["reads", "stalls"])
def test_an_end_right_after_a_burst_comes_after_all_of_it(
    tidy_house: House, way: Way, first: Side, reader: Literal["reads", "stalls"]
) -> None:
    one, other = ends_of(tidy_house.link(way), first)
    one.narrow()
    other.narrow()
    size = BURST_BYTES if reader == "reads" else STALLED_BYTES
    burst = background(one.say_in_slices, size)
    if reader == "stalls":
        wait_until_still(tidy_house.daemon, lambda: one.said)
        assert not burst.done()
    else:
        burst.result()

    def end() -> None:
        burst.result()
        one.talk.finish()

    ending = background(end)
    assert other.hear_to_the_end() == size
    ending.result()
    other.say_last(3)
    assert one.hear_to_the_end() == 3
