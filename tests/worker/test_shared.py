"""Counts in shared memory: what one worker tells, the others see."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Outcome
from natproxy.worker import shared
from natproxy.worker.access import Census
from natproxy.worker.shared import NOBODY, Loads, SharedCounts, create_shared_counts, wipe


@pytest.fixture
def memory() -> Iterator[int]:
    fd = create_shared_counts(3)
    yield fd
    os.close(fd)


def test_what_one_tells_the_others_see_and_it_does_not_count_itself(memory: int) -> None:
    one, two, three = (SharedCounts(memory, row) for row in range(3))
    one.tell("a", 3)
    two.tell("a", 4)
    assert (one.elsewhere("a"), two.elsewhere("a"), three.elsewhere("a")) == (4, 3, 7)
    assert one.elsewhere("b") == 0
    one.tell("a", 0)
    assert three.elsewhere("a") == 4
    for counts in (one, two, three):
        counts.close()


def test_another_process_sees_it(memory: int) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: SharedCounts(memory, 1).tell("a", 9))
    child.start()
    child.join(10)
    assert child.exitcode == 0
    mine = SharedCounts(memory, 0)
    assert mine.elsewhere("a") == 9
    mine.close()


def test_a_dead_worker_s_counts_are_wiped_and_only_its(memory: int) -> None:
    one, two, three = (SharedCounts(memory, row) for row in range(3))
    one.tell("a", 3)
    two.tell("a", 4)
    wipe(memory, 0)
    assert three.elsewhere("a") == 4
    for counts in (one, two, three):
        counts.close()


def test_a_limit_holds_for_all_workers_together(memory: int) -> None:
    tables = [SharedCounts(memory, row) for row in range(3)]
    workers = [Census(table) for table in tables]
    for number in range(6):
        assert workers[number % 3].admit("", f"198.51.100.{number % 2}", 8, 3) is None
    assert [worker.admit("", "198.51.100.0", 8, 3) for worker in workers] == [Outcome.CLIENT_LIMIT] * 3
    assert [worker.admit("", "198.51.100.9", 8, 3) for worker in workers] == [None, None, Outcome.LIMIT]
    workers[0].leave("", "198.51.100.0")
    assert workers[2].admit("", "198.51.100.0", 8, 3) is None
    assert [worker.open for worker in workers] == [2, 3, 3]
    assert workers[1].admit("other", "198.51.100.0", 1, 1) is None
    assert workers[2].admit("other", "198.51.100.1", 1, 1) is Outcome.LIMIT
    for table in tables:
        table.close()


def test_a_worker_is_there_from_when_it_comes_until_it_is_wiped(memory: int) -> None:
    one, two, three = (Loads(memory, row) for row in range(3))
    assert three.all() == (NOBODY, NOBODY, NOBODY)
    for loads in (one, two):
        loads.come()
    two.tell(7)
    assert three.all() == (0, 7, NOBODY)
    assert three.pids() == (os.getpid(), os.getpid(), 0)
    counts = SharedCounts(memory, 0)
    counts.tell("a", 3)
    wipe(memory, 1)
    assert three.all() == (0, NOBODY, NOBODY)
    other = SharedCounts(memory, 1)
    assert other.elsewhere("a") == 3
    for loads in (one, two, three):
        loads.close()
    for table in (counts, other):
        table.close()


def test_what_was_taken_over_is_told_to_its_sender_and_outlives_the_receiver(memory: int) -> None:
    one, two, three = (Loads(memory, row) for row in range(3))
    for _ in range(3):
        two.take_over(0)
    two.take_over(2)
    three.take_over(0)
    assert (one.taken(), two.taken(), three.taken()) == ((0, 3, 1), (0, 0, 0), (0, 1, 0))
    wipe(memory, 1)
    again = Loads(memory, 1)
    again.take_over(0)
    assert one.taken() == (0, 4, 1)
    for loads in (one, two, three, again):
        loads.close()


@pytest.mark.parametrize("workers", [2, 3, 5, 16])
def test_rows_do_not_overlap(workers: int) -> None:
    fd = create_shared_counts(workers)
    loads = [Loads(fd, row) for row in range(workers)]
    tables = [SharedCounts(fd, row) for row in range(workers)]
    for row in range(workers):
        loads[row].come()
        loads[row].tell(row + 1)
        for other in range(workers):
            loads[row].take_over(other)
        tables[row].tell("a", 1)
    assert loads[0].all() == tuple(range(1, workers + 1))
    assert {one.taken() for one in loads} == {(1,) * workers}
    assert [table.elsewhere("a") for table in tables] == [workers - 1] * workers
    for row in range(workers):
        loads[row].close()
        tables[row].close()
    os.close(fd)


def test_two_runs_hash_differently() -> None:
    fds = [create_shared_counts(2) for _ in range(2)]
    counts = [SharedCounts(fd, 0) for fd in fds]
    assert counts[0]._hash("a") != counts[1]._hash("a")
    for one, fd in zip(counts, fds, strict=True):
        one.close()
        os.close(fd)


def test_a_full_window_is_counted_by_its_worker_alone(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedCounts, "_hash", lambda _, key: int(key) * shared.SLOTS + 5)
    one, two = SharedCounts(memory, 0), SharedCounts(memory, 1)
    for key in range(1, shared.WINDOW + 2):
        one.tell(str(key), key)
    assert [two.elsewhere(str(key)) for key in range(1, shared.WINDOW + 2)] == [*range(1, shared.WINDOW + 1), 0]
    one.tell("3", 0)
    one.tell(str(shared.WINDOW + 1), 7)
    assert (two.elsewhere("3"), two.elsewhere(str(shared.WINDOW + 1))) == (0, 7)
    one.close()
    two.close()


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abcdefgh"), st.integers(0, 1000)), max_size=60))
def test_any_sequence_of_tellings_adds_up(tellings: list[tuple[int, str, int]]) -> None:
    fd = create_shared_counts(3)
    workers = [SharedCounts(fd, row) for row in range(3)]
    expected: list[Counter[str]] = [Counter(), Counter()]
    for row, key, count in tellings:
        workers[row].tell(key, count)
        expected[row][key] = count
    for key in "abcdefgh":
        assert workers[2].elsewhere(key) == expected[0][key] + expected[1][key]
        assert workers[1].elsewhere(key) == expected[0][key]
    for worker in workers:
        worker.close()
    os.close(fd)
