from __future__ import annotations

from bench.accounts import Account, spent
from bench.peers.ports import Open
from bench.rounds import Done, Pace, fitting, measure, reading, rotated

NOBODY = Account(())


def test_each_round_has_every_proxy_once_and_begins_with_another() -> None:
    order: list[int] = []

    def load(door: Open, amount: int) -> Done:
        order.append(door.port)
        return Done(amount, 1.0)

    found = measure(load, {"a": Open(1, NOBODY), "b": Open(2, NOBODY)}, Pace(rounds=2, seconds=0.5), first=10)
    assert order == [1, 2, 1, 2, 2, 1]
    assert {name: len(rounds) for name, rounds in found.items()} == {"a": 2, "b": 2}


def test_the_warm_up_tells_how_much_fits_into_a_round() -> None:
    amounts: list[int] = []

    def load(door: Open, amount: int) -> Done:
        amounts.append(amount)
        return Done(amount, 0.1)

    measure(load, {"a": Open(1, NOBODY)}, Pace(rounds=1, seconds=0.4), first=10)
    assert amounts == [10, 40]
    assert fitting(1, 100.0, 0.1) == 1


def test_a_reading_is_microseconds_for_each_and_the_shares_of_the_busy() -> None:
    found = reading(Done(100, 2.0, 0.5, 0.9), {7: 0.003, 8: 0.001, 9: 0.0})
    assert (round(found.cost, 6), found.p50, found.p99, found.rate) == (40.0, 0.5, 0.9, 50.0)
    assert found.shares == (0.75, 0.25)


def test_one_thread_alone_has_no_shares() -> None:
    assert reading(Done(1, 1.0), {7: 1.0, 8: 0.0}).shares == ()


def test_a_thread_that_came_meanwhile_began_with_nothing() -> None:
    assert spent({1: 2.0, 3: 1.0}, {1: 2.5, 2: 0.25}) == {1: 0.5, 2: 0.25}


def test_the_order_goes_round() -> None:
    assert [rotated("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
