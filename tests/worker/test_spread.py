"""Connections that one worker passes on to another: who gets them, and what becomes of those on the way."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy import messages
from natproxy.model import Outcome
from natproxy.worker import process
from natproxy.worker import spread as spread_module
from natproxy.worker.shared import NOBODY, Loads, create_shared_counts, wipe
from natproxy.worker.spread import MORE_AT_LEAST, ON_THE_WAY_MOST, STUCK_SECONDS, Spread, create_inboxes
from tests.worker.hand import SECONDS, listen
from tests.worker.running import Running, accept, connect, is_closed, receive_exactly, served


class Rows:
    """What several workers share, and the clock of each ``Spread`` that is made here."""

    def __init__(self, count: int) -> None:
        self.now = 100.0
        self.memory = create_shared_counts(count)
        self.inboxes = create_inboxes(count)
        self._made: list[Spread] = []

    def spread(self, row: int) -> Spread:
        """What a worker of that row makes of it when it starts."""
        inbox = self.inboxes[row][0].dup()
        outboxes = [sending.dup() for _, sending in self.inboxes]
        self._made.append(Spread(Loads(self.memory, row), row, inbox, outboxes, lambda: self.now))
        return self._made[-1]

    def present(self, row: int, count: int = 0) -> Spread:
        """A worker that is there and has so many connections."""
        made = self.spread(row)
        made.come()
        made.tell(count)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for spread in self._made:
            spread.close()
        for ends in self.inboxes:
            for end in ends:
                end.close()
        os.close(self.memory)


@pytest.fixture
def rows() -> Iterator[Rows]:
    with Rows(3) as made:
        yield made


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """One end of a connection; what is passed on is a copy of it."""
    with socket.socket() as sock:
        yield sock


def give(sender: Spread, row: int, client: socket.socket) -> bool:
    return sender.pass_on(row, client.dup(), 6379, "198.51.100.27", 40000)


def take(receiver: Spread) -> int:
    """Take what has come; return how many."""
    count = 0
    for one, *_ in receiver.received():
        assert one is not None
        one.close()
        count += 1
    return count


# Who gets the next one.


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (0, (0, 0), None),
        (1, (0, 0), None),
        (2, (0, 0), 1),
        (2, (1, 0), 2),
        (9, (8, 8), None),
        (10, (9, 8), 2),
        (102, (100, 100), None),
        (105, (100, 101), 1),
        (1000, (970, 970), None),
        (1003, (970, 971), 1),
        (5, (NOBODY, 4), None),
        (5, (NOBODY, 3), 2),
        (5000, (NOBODY, NOBODY), None),
    ],
)
def test_the_one_with_clearly_fewer_gets_it(
    rows: Rows, own: int, others: tuple[int, int], expected: int | None
) -> None:
    one = rows.present(0, own)
    for row, count in enumerate(others, 1):
        rows.present(row, count)
    assert one.row_with_less() == expected


def test_who_is_gone_or_leaves_gets_nothing(rows: Rows) -> None:
    one, two = rows.present(0, 10), rows.present(1)
    assert one.row_with_less() == 1
    wipe(rows.memory, 1)
    assert one.row_with_less() is None
    rows.present(1)
    assert one.row_with_less() == 1
    two.leave()
    two.tell(3)  # its connections end, and it does not come back by that
    assert one.row_with_less() is None


def test_what_is_on_its_way_counts(rows: Rows, client: socket.socket) -> None:
    one, two = rows.present(0, 10), rows.present(1)
    rows.present(2, 4)
    passed = []
    for _ in range(6):
        row = one.row_with_less()
        passed.append(row)
        if row is not None:
            assert give(one, row, client)
    assert passed == [1, 1, 1, 1, 1, 2]
    assert take(two) == 5
    two.tell(5)
    assert one.row_with_less() == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(1, 60), st.integers(0, 3), st.randoms(use_true_random=False))
def test_whatever_comes_to_one_worker_ends_up_spread(
    count: int, connections: int, laziness: int, chance: random.Random
) -> None:
    """The others take what is theirs now and then, in any order."""
    with Rows(count) as rows, socket.socket() as client:
        workers = [rows.present(row) for row in range(count)]
        has = [0] * count

        def catch_up(row: int) -> None:
            has[row] += take(workers[row])
            workers[row].tell(has[row])

        for _ in range(connections):
            row = workers[0].row_with_less()
            if row is None:
                has[0] += 1
                workers[0].tell(has[0])
            else:
                assert give(workers[0], row, client)
            if not chance.randint(0, laziness):
                catch_up(chance.randrange(1, count))
        for row in range(1, count):
            while workers[row].inbox in _readable(workers[row].inbox):
                catch_up(row)
        assert sum(has) == connections
        assert max(has) - min(has) <= MORE_AT_LEAST + 1


def _readable(inbox: socket.socket) -> list[socket.socket]:
    try:
        inbox.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return []
    return [inbox]


# Who does not take what it is sent.


def test_one_that_hangs_is_sent_a_bounded_number(rows: Rows, client: socket.socket) -> None:
    one = rows.present(0, 1000)
    rows.present(1)
    sent = 0
    while (row := one.row_with_less()) is not None:
        assert give(one, row, client)
        sent += 1
    assert sent == ON_THE_WAY_MOST


def test_one_that_leaves_it_for_long_is_sent_no_more_until_it_takes_something(
    rows: Rows, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread_module, "TAKEN_PER_TURN", 1)
    one, two = rows.present(0, 1000), rows.present(1)
    for _ in range(2):
        assert one.row_with_less() == 1
        assert give(one, 1, client)
    rows.now += 2 * STUCK_SECONDS
    assert one.row_with_less() is None
    assert take(two) == 1
    assert one.row_with_less() == 1
    rows.now += 2 * STUCK_SECONDS
    assert one.row_with_less() is None
    assert take(two) == 1
    rows.now += 60.0  # nothing is on its way: that is no reason
    assert one.row_with_less() == 1
    assert give(one, 1, client)
    assert one.row_with_less() == 1


def test_a_successor_is_not_blamed(rows: Rows, client: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    one = rows.present(0, 1000)
    rows.present(1)
    while (row := one.row_with_less()) is not None:
        assert give(one, row, client)
    wipe(rows.memory, 1)
    monkeypatch.setattr(os, "getpid", lambda: 7)
    successor = rows.present(1)
    assert one.row_with_less() == 1
    assert give(one, 1, client)
    taken = sum(take(successor) for _ in range(1 + ON_THE_WAY_MOST // spread_module.TAKEN_PER_TURN))
    assert taken == ON_THE_WAY_MOST + 1, "what was on its way is not lost"
    assert one.row_with_less() == 1


def test_a_sender_s_successor_counts_what_it_sent_itself(rows: Rows, client: socket.socket) -> None:
    two = rows.present(1)
    before = rows.present(0, 10)
    for _ in range(3):
        assert give(before, 1, client)
    after = rows.present(0, 10)
    assert take(two) == 3
    for _ in range(8):
        assert after.row_with_less() == 1
        assert give(after, 1, client)
    assert take(two) == 8
    two.tell(8)
    assert after.row_with_less() == 1


def test_what_does_not_fit_stays(rows: Rows, client: socket.socket) -> None:
    one = rows.present(0, 1000)
    one._outboxes[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    copies = [client.dup() for _ in range(20)]
    passed = [one.pass_on(1, copy, 6379, "198.51.100.27", 40000) for copy in copies]
    assert passed[0]
    assert not passed[-1]
    assert [copy.fileno() < 0 for copy in copies] == passed, "whoever has it closes it"
    for copy in copies:
        copy.close()


# What a worker does with it.


class Stage:
    """A worker of one row that runs, the test in the place of another one, and a node."""

    def __init__(self, rows: Rows, running: Running, mine: Spread, node: socket.socket) -> None:
        self.rows, self.running, self.mine, self.node = rows, running, mine, node

    def pass_on(self, port: int, source: str = "127.0.0.7") -> socket.socket:
        """Accept a connection and pass it on for ``port``; return the client's end."""
        with listen() as listening:
            client = connect(listening.getsockname()[1], source=(source, 0))
            accepted, (ip, client_port) = listening.accept()
        assert self.mine.pass_on(0, accepted, port, ip, client_port)
        return client


@pytest.fixture
def stage(rows: Rows, node: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(process, "TICK_SECONDS", 0.05)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    mine = rows.present(1)
    with Running(spread=rows.spread(0)) as running:
        yield Stage(rows, running, mine, node)
    mine.close()
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def echo_once(client: socket.socket, inside: socket.socket) -> None:
    client.sendall(b"ping")
    assert receive_exactly(inside, 4) == b"ping"


def test_a_connection_that_was_passed_on_is_like_any_other(stage: Stage) -> None:
    port = stage.running.serve(stage.node)
    with stage.pass_on(port) as client, accept(stage.node) as inside:
        name = client.getsockname()
        echo_once(client, inside)
        totals = stage.running.counts(port)
        assert (totals.open, totals.opened) == (1, 1)
        assert stage.mine._loads.all()[0] == 1
        client.close()
        assert is_closed(inside)
    finished = stage.running.finish(port)
    assert finished.client == f"{name[0]}:{name[1]}"
    assert (finished.client_bytes, finished.outcome) == (4, Outcome.CLIENT_CLOSED)
    stage.running.counts(port)
    assert stage.mine._loads.all()[0] == 0


def test_its_new_worker_turns_it_away_where_it_may_not_enter(stage: Stage) -> None:
    port = stage.running.serve(stage.node, allow=("127.0.0.8/32",), max_connections=0)
    with stage.pass_on(port) as stranger, stage.pass_on(port, "127.0.0.8") as client:
        assert is_closed(stranger)
        assert is_closed(client)
    assert stage.running.until_ended(port, 2).ended == {Outcome.NOT_ALLOWED: 1, Outcome.LIMIT: 1}


def test_it_waits_for_a_port_that_is_not_served_yet(stage: Stage) -> None:
    with listen() as listening:
        port = listening.getsockname()[1]
        with stage.pass_on(port) as client, stage.pass_on(port) as other:
            stage.running.until(lambda: stage.mine._loads.all()[0] == 2)
            stage.running.serve(stage.node, sock=listening)
            for one in (client, other):
                with accept(stage.node) as inside:
                    echo_once(one, inside)
                    one.close()
                    assert is_closed(inside)
            assert stage.running.until_ended(port, 2).opened == 2
    stage.running.counts(port)
    assert stage.running.open == 0


def test_it_is_closed_where_the_port_never_comes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread_module, "HOLD_SECONDS", 0.05)
    with stage.pass_on(1) as client:
        assert is_closed(client)
    assert stage.running.until_ended(1, 1).ended == {Outcome.ROUTE_REMOVED: 1}
    stage.running.counts(1)
    assert stage.running.open == 0


def test_one_that_came_without_its_descriptor_is_counted(stage: Stage) -> None:
    port = stage.running.serve(stage.node)
    stage.mine._outboxes[0].send(spread_module._HEAD.pack(1, port, 40000) + b"198.51.100.27")
    assert stage.running.until_ended(port, 1).ended == {Outcome.NO_DESCRIPTORS: 1}


def test_a_worker_that_stops_is_passed_no_more_and_serves_what_was_on_its_way(stage: Stage) -> None:
    port = stage.running.serve(stage.node)
    with connect(port) as staying, accept(stage.node) as inside, stage.pass_on(1) as waiting:
        echo_once(staying, inside)
        stage.running.until(lambda: stage.mine._loads.all()[0] == 2)
        stage.running.tell(messages.Stop(3600.0))
        assert is_closed(waiting), "nobody will serve that port any more"
        stage.running.until(lambda: stage.mine._loads.all()[0] == NOBODY)
        with stage.pass_on(port) as late, accept(stage.node) as late_inside:
            echo_once(late, late_inside)
            late.close()
            assert is_closed(late_inside)
        staying.close()
        assert is_closed(inside)
        inside.close()
        # It has none left, but the other one has not stopped yet.
        with stage.pass_on(port) as last, accept(stage.node) as last_inside:
            echo_once(last, last_inside)
            last.close()
            assert is_closed(last_inside)
        stage.mine.leave()
        stage.running.expect(messages.Stopped)
    assert stage.running.totals[port].ended == {Outcome.CLIENT_CLOSED: 3}
    assert stage.mine._loads.all()[0] == NOBODY


def test_what_comes_during_a_stop_ends_with_the_others(stage: Stage) -> None:
    port = stage.running.serve(stage.node)
    with connect(port) as staying, accept(stage.node) as inside:
        echo_once(staying, inside)
        stage.running.tell(messages.Stop(0.5))
        stage.running.until(lambda: stage.mine._loads.all()[0] == NOBODY)
        with stage.pass_on(port) as late, accept(stage.node) as late_inside:
            echo_once(late, late_inside)
            stage.mine.leave()
            assert is_closed(late)
            assert is_closed(staying)
    stage.running.expect(messages.Stopped)
    assert stage.running.totals[port].ended == {Outcome.STOPPED: 2}


def test_a_worker_that_stops_does_not_wait_for_ever_for_one_that_hangs(stage: Stage) -> None:
    stage.running.serve(stage.node)
    stage.running.tell(messages.Stop(0.0))
    stage.running.expect(messages.Stopped)
    assert stage.mine._loads.all()[1] != NOBODY, "the other one is still there"


def test_strangers_and_those_there_is_no_room_for_are_not_passed_round(stage: Stage) -> None:
    port = stage.running.serve(stage.node, allow=("127.0.0.7/32",), max_connections=3)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            echo_once(
                stack.enter_context(connect(port, source=("127.0.0.7", 0))), stack.enter_context(accept(stage.node))
            )
        with connect(port) as stranger:
            assert is_closed(stranger)
        with connect(port, source=("127.0.0.7", 0)) as passed:
            stage.mine.inbox.setblocking(True)
            stage.mine.inbox.settimeout(SECONDS)
            ((client, number, ip, client_port),) = [next(stage.mine.received())]
            assert client is not None
            client.close()
            assert (number, (ip, client_port)) == (port, passed.getsockname())
            assert is_closed(passed)
        stage.mine.inbox.setblocking(False)
        stage.running.update(port, stage.node, allow=("127.0.0.7/32",), max_connections=2)
        with connect(port, source=("127.0.0.7", 0)) as refused:
            assert is_closed(refused)
        assert take(stage.mine) == 0
        assert stage.running.until_ended(port, 2).ended == {Outcome.NOT_ALLOWED: 1, Outcome.LIMIT: 1}


def test_a_worker_with_no_others_passes_nothing_on(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    assert running.worker is not None
    assert running.worker.spread is None
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            echo_once(stack.enter_context(connect(port)), stack.enter_context(accept(node)))


def test_inboxes_are_for_those_who_are_handed_them() -> None:
    for ends in create_inboxes(2):
        for end in ends:
            assert not end.get_inheritable()
            assert not end.getblocking()
            end.close()


def test_a_port_may_be_served_twice_while_nobody_waits(stage: Stage) -> None:
    port = stage.running.serve(stage.node)
    stage.running.order(served(port, stage.node))
    with stage.pass_on(port) as client, accept(stage.node) as inside:
        echo_once(client, inside)
