"""Those who move as much as goes, and those who do not read, take nothing from the others but their share.

Measured by progress, not by time. How much a leg may move in one turn is proved in tests/worker/test_relay.py.
"""

from __future__ import annotations

import contextlib
import statistics
import threading

from tests.scenarios.peers import Talk
from tests.scenarios.streams import ends_of
from tests.scenarios.ways import MEBIBYTE, SIDES, WAYS, House, Way, each_count_of_workers, every_way

SMALL_ONES = 50
ROUNDS = 15
GREEDY_SHARE_BYTES = 32 * MEBIBYTE
"""More than two greedy ones move (10 MiB at most was seen) while each of the others gets one answer."""
STALLED_FOR_EACH = 2
STALLED_COST_BYTES = 600 * 1024
"""More than is kept for one that does not read: what one read takes at most, as it is and as it is sent."""

pytestmark = each_count_of_workers


class Greedy:
    """A link over which one side says as much as goes, for as long as this is open, and the other hears it all."""

    def __init__(self, one: Talk, other: Talk) -> None:
        self.heard = 0
        self._one, self._other = one, other
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=act, daemon=True) for act in (self._say, self._hear)]
        for thread in self._threads:
            thread.start()

    def _say(self) -> None:
        data = bytes(MEBIBYTE)
        while not self._is_over.is_set():
            self._one.say(data)
        self._one.finish()

    def _hear(self) -> None:
        while piece := self._other.receive(MEBIBYTE):
            self.heard += len(piece)

    def close(self) -> None:
        """Let it end."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def small_ones(house: House) -> list[Talk]:
    """Return clients of nodes that echo, on every way."""
    return [house.client(WAYS[number % len(WAYS)], "echo") for number in range(SMALL_ONES)]


def ask_all(talks: list[Talk], number: int) -> None:
    """Have each of them get one answer."""
    words = b"%d;" % number * (number + 1)
    for talk in talks:
        talk.say(words)
    for talk in talks:
        assert talk.hear(len(words)) == words


@every_way
def test_each_of_many_small_ones_gets_its_answers_while_two_move_as_much_as_goes(tidy_house: House, way: Way) -> None:
    talks = small_ones(tidy_house)
    client, node = tidy_house.link(way)
    node_of_other, other = reversed(tidy_house.link(way))
    with (
        contextlib.closing(Greedy(client, node)) as up,
        contextlib.closing(Greedy(node_of_other, other)) as down,
    ):
        moved = []
        for number in range(ROUNDS):
            before = up.heard + down.heard
            ask_all(talks, number)
            moved.append(up.heard + down.heard - before)
        assert up.heard, "the one went on"
        assert down.heard, "and so did the other"
    assert statistics.median(moved) < GREEDY_SHARE_BYTES


def test_many_that_do_not_read_cost_little_memory_and_hold_up_nobody(tidy_house: House) -> None:
    daemon = tidy_house.daemon
    talks = small_ones(tidy_house)
    ask_all(talks, 1)
    before = daemon.resident_bytes()
    stalled = []
    for way in WAYS:
        for who in SIDES * STALLED_FOR_EACH:
            one, other = ends_of(tidy_house.link(way), who)
            one.stuff(daemon)
            assert one.said > MEBIBYTE
            stalled.append(other)
            ask_all(talks, len(stalled))
    for number in range(ROUNDS):
        ask_all(talks, number)
    assert daemon.resident_bytes() - before < len(stalled) * STALLED_COST_BYTES
    for other in stalled:
        other.hear(2 * MEBIBYTE)
    ask_all(talks, 2)
    assert daemon.resident_bytes() - before < len(stalled) * STALLED_COST_BYTES
