"""What a worker tells its controller, and what it leaves untold while that does not listen."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from natproxy import messages
from natproxy.channel import controller_end, worker_end
from natproxy.model import Outcome
from natproxy.wire.rewriter import Hint
from natproxy.worker import process, reports
from natproxy.worker.counts import PortCounts
from natproxy.worker.loop import Loop
from natproxy.worker.polling import IN
from natproxy.worker.reports import Reports
from tests.worker.hand import reset
from tests.worker.running import Running, Totals, accept, connect


def test_lines_for_the_log_are_told_only_where_they_are_wanted(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    running.order(messages.Policy(log_connections=False))
    with connect(port), accept(node):
        pass
    running.until_ended(port, 1)
    running.order(messages.Policy(log_connections=True))
    with connect(port) as client, accept(node):
        name = client.getsockname()
    assert running.finish(port).client == f"127.0.0.1:{name[1]}"


def test_a_controller_that_does_not_listen_costs_lines_but_no_counts(
    node: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(reports, "_BACKLOG_BYTES", 1000)
    with Running() as running:
        assert running.worker is not None
        running.worker._channel._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        port = running.serve(node)
        for _ in range(400):
            client, inside = connect(port), accept(node)
            client.sendall(b"x")
            assert inside.recv(1) == b"x"
            reset(client)
            inside.close()
        assert running.worker._channel.waiting_bytes < 200_000
        dropped: list[int] = []

        def are_all_told() -> bool:
            dropped.extend(message.dropped_logs for message in running.said if isinstance(message, messages.Counts))
            running.said.clear()
            return running.totals.setdefault(port, Totals()).ended.total() == 400

        running.until(are_all_told)
        assert running.totals[port].client_bytes == 400
        running.until(lambda: are_all_told() and sum(dropped) + len(running.finished) == 400)
        assert sum(dropped) > 0


def test_counts_wait_while_the_controller_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """They add up in the worker; a message a second that nobody reads would add up in its memory."""
    monkeypatch.setattr(reports, "_BACKLOG_BYTES", 1000)
    ours, theirs = socket.socketpair()
    controller, channel = controller_end(ours), worker_end(theirs)
    worker = process.Worker(channel)
    worker.loop.watch(channel.fileno(), IN, worker)
    while channel.waiting_bytes <= 1000:
        channel.send(messages.DialFailed(1, "x" * 10_000, ""))
    waiting = channel.waiting_bytes
    worker._tick()
    assert channel.waiting_bytes == waiting
    while channel.wants_write:
        controller.receive()
        channel.flush()
    worker._tick()
    assert isinstance(controller.receive()[-1][0], messages.Counts)
    worker.loop.close()
    controller.close()
    channel.close()


def test_a_worker_tells_nothing_of_a_port_where_nothing_happened(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    running.counts(port)
    running.said.clear()
    counts = running.expect(messages.Counts)
    assert port not in {route.port for route in counts.routes}
    assert msgspec.structs.asdict(counts).keys() == {"open", "routes", "accept_pauses", "dropped_logs", "sessions"}


def test_refusals_get_so_many_lines_a_second_for_each_reason() -> None:
    ours, theirs = socket.socketpair()
    controller, channel, loop = controller_end(ours), worker_end(theirs), Loop()
    told = Reports(loop, channel)
    most = reports._REFUSALS_LOGGED
    assert [told.may_log_refusal(Outcome.LIMIT) for _ in range(most + 2)] == [True] * most + [False] * 2
    assert told.may_log_refusal(Outcome.NOT_ALLOWED)
    told.second_begins()
    assert told.may_log_refusal(Outcome.LIMIT)
    lost = PortCounts(6379)
    lost.ended[Outcome.ROUTE_REMOVED] += 1
    told.port_gone(lost)
    told.port_gone(lost)  # nothing is left to tell of it
    for expected in ((2, [6379]), (0, [])):
        told.tell_counts([], 0)
        ((counts, _),) = controller.receive()
        assert isinstance(counts, messages.Counts)
        assert (counts.dropped_logs, [route.port for route in counts.routes]) == expected
    loop.close()
    controller.close()
    channel.close()


class Telling:
    """Reports by themselves, and what their controller hears of roles."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._controller, self._channel = controller_end(ours), worker_end(theirs)
        self.loop = Loop()
        self.reports = Reports(self.loop, self._channel)

    def learn(self, **roles: str) -> None:
        """A topology reply tells of nodes by their names."""
        self.reports.learnt("clu", tuple((name, 6379, role) for name, role in roles.items()))

    def heard(self) -> list[messages.Up]:
        return [message for message, _ in self._controller.receive()]

    def told(self) -> list[dict[str, str]]:
        heard = [message for message in self.heard() if isinstance(message, messages.Learnt)]
        assert {message.book for message in heard} <= {"clu"}
        return [{host: role for host, _, role in message.roles} for message in heard]

    def close(self) -> None:
        self.loop.close()
        self._controller.close()
        self._channel.close()


@pytest.fixture
def telling() -> Iterator[Telling]:
    made = Telling()
    yield made
    made.close()


BEFORE, AFTER = {"a": "primary", "b": "replica"}, {"a": "replica", "b": "primary"}


def test_roles_are_told_where_they_are_new_and_once_a_second(telling: Telling) -> None:
    telling.learn(**BEFORE)
    telling.learn(**BEFORE)
    assert telling.told() == [BEFORE]
    telling.reports.second_begins()
    telling.learn(**BEFORE)
    assert telling.told() == []
    telling.learn(**AFTER)
    telling.learn(a="replica")
    telling.learn(**AFTER)
    assert telling.told() == [AFTER]


def test_roles_that_come_too_soon_are_not_lost(telling: Telling) -> None:
    telling.learn(**BEFORE)
    assert telling.told() == [BEFORE]
    telling.learn(**AFTER)
    telling.learn(a="replica", c="replica")
    assert telling.told() == []
    telling.reports.second_begins()
    assert telling.told() == [{**AFTER, "c": "replica"}]
    telling.learn(**BEFORE)
    telling.reports.second_begins()
    assert telling.told() == [BEFORE]
    telling.reports.second_begins()
    assert telling.told() == []


def test_roles_are_told_again_as_another_worker_may_have_told_others(telling: Telling) -> None:
    telling.learn(**BEFORE)
    telling.reports.second_begins()
    telling.loop.now += reports._LEARNT_SECONDS
    telling.learn(**BEFORE)
    assert telling.told() == [BEFORE, BEFORE]


def test_hints_are_given_once_a_second_for_each_port_and_sort(telling: Telling) -> None:
    for _ in range(2):
        for _ in range(1000):
            telling.reports.hint(6379, Hint.READ_ONLY)
        telling.reports.hint(6380, Hint.READ_ONLY)
        telling.reports.hint(6379, Hint.UNKNOWN_NODE)
        assert telling.heard() == [
            messages.Hint(6379, "read-only"),
            messages.Hint(6380, "read-only"),
            messages.Hint(6379, "unknown-node"),
        ]
        telling.reports.second_begins()
