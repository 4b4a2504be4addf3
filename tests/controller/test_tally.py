"""What several workers have open adds up, and a dead one's share goes."""

from __future__ import annotations

from natproxy.controller.tally import Tally
from natproxy.messages import Counts, RouteCounts
from natproxy.model import Address

ONE, TWO = Address("10.0.1.230", 6379), Address("10.0.1.231", 6379)


def counts(port: int, opened: int, **live: int) -> Counts:
    at = {"one": ONE, "two": TWO}
    told = tuple((*at[name], number) for name, number in live.items())
    return Counts(open=opened, routes=(RouteCounts(port, opened, 0, {}, 0, 0, (), 0.0, told),))


def test_workers_add_up_and_the_last_word_of_each_counts() -> None:
    tally = Tally()
    tally.take(1, counts(6379, 9, one=9))
    tally.take(1, counts(6379, 3, one=2))
    tally.take(2, counts(6379, 4, one=1, two=3))
    tally.take(3, counts(6380, 1, two=1))
    assert (tally.connections(6379), tally.connections(6380), tally.connections(6381)) == (7, 1, 0)
    assert tally.live() == {(6379, ONE): 3, (6379, TWO): 3, (6380, TWO): 1}
    assert tally.addresses(6379) == {ONE, TWO}
    assert tally.addresses(6381) == set()


def test_what_a_dead_worker_had_open_is_forgotten() -> None:
    tally = Tally()
    tally.take(1, counts(6379, 2, one=2))
    tally.take(2, counts(6379, 1, two=1))
    tally.forget(1)
    tally.forget(1)
    assert tally.connections(6379) == 1
    assert tally.live() == {(6379, TWO): 1}


def test_a_port_that_is_not_told_of_any_more_has_nothing_open() -> None:
    tally = Tally()
    tally.take(1, counts(6379, 2, one=2))
    tally.take(1, Counts(open=0, routes=()))
    assert tally.connections(6379) == 0
    assert not tally.live()
