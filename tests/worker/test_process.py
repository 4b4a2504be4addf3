"""A worker as a whole: what it is told, what it tells, what it survives, how it ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from natproxy import messages
from natproxy.channel import controller_end, worker_end
from natproxy.model import Outcome
from natproxy.worker import process
from natproxy.worker.polling import IN
from tests.wire.talk import SLOTS, array, command
from tests.worker.hand import SECONDS, listen, reset
from tests.worker.running import WORKER, Running, Totals, accept, connect, is_closed, receive_exactly, served

BULK_BYTES = 200 << 20
MODEST_BYTES = 12 << 20
"""What a worker's memory may grow by, whatever a peer does."""
FEW_DESCRIPTORS = ("sh", "-c", 'ulimit -n 92; exec "$@"', "sh", *WORKER)


@pytest.fixture
def child() -> Iterator[Running]:
    """A worker that is a process."""
    with Running(is_process=True) as running:
        yield running


def echo_once(client: socket.socket, inside: socket.socket) -> None:
    """Show that the two are joined."""
    client.sendall(b"ping")
    assert receive_exactly(inside, 4) == b"ping"
    inside.sendall(b"pong")
    assert receive_exactly(client, 4) == b"pong"


# Memory and descriptors.


def test_memory_stays_bounded_while_a_node_does_not_read(child: Running, node: socket.socket) -> None:
    port = child.serve(node)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
        before = child.rss_bytes()
        sender = threading.Thread(target=client.sendall, args=(bytes(BULK_BYTES),))
        sender.start()
        moved = 0
        while (now := child.counts(port).client_bytes) != moved or not now:
            moved = now
            assert child.rss_bytes() - before < MODEST_BYTES
        assert moved < BULK_BYTES
        receive_exactly(inside, BULK_BYTES)
        sender.join()
        assert child.rss_bytes() - before < MODEST_BYTES
        assert child.counts(port).client_bytes == BULK_BYTES + 4


def test_memory_stays_bounded_while_a_client_asks_for_topologies_and_reads_none(
    child: Running, node: socket.socket
) -> None:
    """And while what it is told is rewritten: what waits is one reply, not all."""
    rows = array(*[SLOTS[4:]] * 2000)
    child.order(messages.Book("shop", (("10.0.1.230", 6379, 7000),), "cache.example.com", "", 1))
    port = child.serve(node, rewrite="cluster", book="shop")
    with connect(port) as client, accept(node) as inside:
        asked = command("CLUSTER", "SLOTS")
        for _ in range(2):
            client.sendall(asked)
            receive_exactly(inside, len(asked))
            inside.sendall(rows)
            told = receive_exactly(client, len(rows) + 2000 * (len("cache.example.com") - len("10.0.1.230")))
            assert told.count(b"cache.example.com") == 2000
        before = child.rss_bytes()
        client.sendall(asked * 2000)
        receive_exactly(inside, len(asked) * 2000)

        def send() -> None:
            with contextlib.suppress(OSError):  # reset in the end
                inside.sendall(rows * 400)

        sender = threading.Thread(target=send)
        sender.start()
        moved = 0
        while (now := child.counts(port).node_bytes) != moved:
            moved = now
            assert child.rss_bytes() - before < MODEST_BYTES
        assert moved < len(rows) * 400
        reset(client)
        sender.join()


def test_ten_thousand_short_connections_leave_nothing_behind(child: Running, node: socket.socket) -> None:
    port = child.serve(node)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
    child.until_ended(port, 1)
    before = child.descriptors(), child.rss_bytes()
    for number in range(10_000):
        client, inside = connect(port), accept(node)
        reset(client if number % 2 else inside)
        client.close()
        inside.close()
        child.hear(0)
    totals = child.until_ended(port, 10_001)
    assert totals.ended.total() == totals.opened == 10_001
    # One that reset as soon as it had accepted may have been taken for one that could not be dialled.
    assert sum(totals.dials) + totals.ended[Outcome.NODE_RESET] >= 5_000
    child.counts(port)
    assert (child.open, totals.open, totals.live) == (0, 0, {})
    assert child.descriptors() == before[0]
    assert child.rss_bytes() - before[1] < MODEST_BYTES


def test_a_worker_out_of_descriptors_rests_and_goes_on(child: Running, node: socket.socket) -> None:
    """The kernel's limit comes down below what the worker counts on."""
    dual = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = child.serve(node, sock=dual)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(connect(port))
        first_inside = stack.enter_context(accept(node))
        echo_once(first, first_inside)
        child.leave_descriptors(0)
        for _ in range(5):
            with connect(port) as client:
                assert is_closed(client)
        totals = child.until_ended(port, 5)
        assert totals.ended == {Outcome.NO_DESCRIPTORS: 5}
        assert child.accept_pauses > 0
        assert child.finish(port).client.startswith("127.0.0.1:")
        echo_once(first, first_inside)
        # Room for the client, not for the dial.
        child.leave_descriptors(1)
        with connect(port) as client:
            assert is_closed(client)
        totals = child.until_ended(port, 6)
        assert totals.ended == {Outcome.NO_DESCRIPTORS: 6}
        assert not any(isinstance(message, messages.DialFailed) for message in child.said)
        child.leave_all_descriptors()
        client = stack.enter_context(connect(port))
        echo_once(client, stack.enter_context(accept(node)))


def test_descriptors_are_kept_free_for_new_routes(node: socket.socket) -> None:
    with Running(is_process=True, command=FEW_DESCRIPTORS) as running, contextlib.ExitStack() as stack:
        port = running.serve(node)
        for _ in range(13):
            client = stack.enter_context(connect(port))
            echo_once(client, stack.enter_context(accept(node)))
        refused = 0
        for _ in range(5):
            client = stack.enter_context(connect(port))
            refused += is_closed(client)
        totals = running.until_ended(port, 5)
        assert totals.ended == {Outcome.NO_DESCRIPTORS: 5}
        assert running.accept_pauses == 0
        # There is room for a route still.
        with listen() as other:
            running.serve(other)
            assert running.counts(port).open == 13


def test_pipes_do_not_use_up_the_descriptors_that_are_kept_for_new_routes(node: socket.socket) -> None:
    limit = 200
    limited = f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({limit}, {limit}))"
    command = (sys.executable, "-P", "-c", f"{limited}; from natproxy.worker.process import main; main()")
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(Running(is_process=True, command=command))
        port = running.serve(node)
        joined: list[tuple[socket.socket, socket.socket]] = []
        while True:
            client = stack.enter_context(connect(port))
            client.send(b"x")
            ready = select.select([node, client], [], [], SECONDS)[0]
            if node not in ready:
                assert is_closed(client)
                break
            inside = stack.enter_context(accept(node))
            assert receive_exactly(inside, 1) == b"x"
            joined.append((client, inside))
        assert len(joined) >= 20
        for client, _ in joined[:20]:  # each stalls with bytes in a pipe
            client.setblocking(False)
            while select.select([], [client], [], 0.2)[1]:
                client.send(bytes(1 << 20))
        assert running.descriptors() <= limit - 8
        others = [running.serve(node) for _ in range(4)]
        assert running.counts(others[-1]).open == 0
        joined[-1][0].send(b"y")
        assert receive_exactly(joined[-1][1], 1) == b"y"


def test_a_worker_serves_five_hundred_routes(child: Running, node: socket.socket) -> None:
    ports = [child.serve(node) for _ in range(500)]
    for port in ports:
        child.tell(served(port, node, keepalive_seconds=10.0))
    before = child.descriptors()
    for port in ports[::50]:
        with connect(port) as client, accept(node) as inside:
            echo_once(client, inside)
    for port in ports[::50]:
        assert child.until_ended(port, 1).opened == 1
    assert child.descriptors() <= before + 500
    for port in ports[1:]:
        child.tell(messages.Unserve(port, Outcome.ROUTE_REMOVED.value))
    with connect(ports[0]) as client, accept(node) as inside:
        echo_once(client, inside)
    child.counts(ports[0])
    assert child.descriptors() < 40


# What it does meanwhile.


def test_idle_connections_are_closed_and_busy_ones_are_not(running: Running, node: socket.socket) -> None:
    port = running.serve(node, idle_seconds=0.3)
    with connect(port) as idle, accept(node) as idle_inside, connect(port) as busy, accept(node) as busy_inside:
        totals = running.totals.setdefault(port, Totals())
        while not totals.ended:
            echo_once(busy, busy_inside)
            running.hear(0.01)
        assert totals.ended == {Outcome.IDLE: 1}
        assert is_closed(idle)
        assert is_closed(idle_inside)
        echo_once(busy, busy_inside)
        assert running.outcome(port) == (Outcome.IDLE, "")


def test_many_connections_are_looked_after_in_several_turns(
    running: Running, node: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_SWEEP_AT_ONCE", 3)
    port = running.serve(node)
    with contextlib.ExitStack() as stack:
        for number in range(9):
            client = stack.enter_context(connect(port))
            echo_once(client, stack.enter_context(accept(node)))
            totals = running.counts(port)
            while totals.client_bytes < 4 * (number + 1):
                running.hear(0.01)
        running.update(port, node, idle_seconds=0.1)
        assert running.until_ended(port, 9).ended == {Outcome.IDLE: 9}


def test_two_workers_share_a_port(node: socket.socket) -> None:
    with Running(is_process=True) as one, Running(is_process=True) as other, listen() as listening:
        port = listening.getsockname()[1]
        for running in (one, other):
            running.tell(served(port, node, sockets=1), [listening])
        for _ in range(40):
            with connect(port) as client, accept(node) as inside:
                echo_once(client, inside)
        # One that unserves leaves the other to go on.
        one.order(messages.Unserve(port, Outcome.ROUTE_REMOVED.value))
        with connect(port) as client, accept(node) as inside:
            echo_once(client, inside)
        mine, its = (running.totals.setdefault(port, Totals()) for running in (one, other))

        def are_all_told() -> bool:
            one.hear(0)
            return mine.ended.total() + its.ended.total() == 41

        other.until(are_all_told)
        assert mine.opened + its.opened == 41


def test_many_orders_are_obeyed_in_turn_and_what_is_left_at_the_end_is_closed(
    node: socket.socket,
) -> None:
    """500 new routes at once must not delay a byte."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    ours, theirs = socket.socketpair()
    controller, channel = controller_end(ours), worker_end(theirs)
    worker = process.Worker(channel)
    worker.loop.watch(channel.fileno(), IN, worker)
    most = max(process._READS_AT_ONCE, process._ORDERS_AT_ONCE)
    ports = []
    for _ in range(3 * most):
        with listen() as listening:
            ports.append(listening.getsockname()[1])
            controller.send(served(ports[-1], node, sockets=1), [listening.fileno()])
    obeyed = 0
    while obeyed < len(ports) - most:
        worker.loop.turn()
        now_obeyed = len(worker._ports)
        assert 0 < now_obeyed - obeyed <= 2 * process._ORDERS_AT_ONCE
        obeyed = now_obeyed
        assert list(worker._ports) == ports[:obeyed]
    assert worker._orders
    worker._close()
    controller.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# How it ends.


def test_a_worker_that_is_told_to_stop_lets_connections_end_by_themselves(child: Running, node: socket.socket) -> None:
    port = child.serve(node)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
        child.tell(messages.Stop(3600.0))
        echo_once(client, inside)
        client.close()
        assert inside.recv(1) == b""
    assert child.wait_for_end() == 0
    child.until(lambda: child.has_ended or not child.hear(0))
    assert isinstance(child.said[-1], messages.Stopped)
    assert child.totals[port].ended == {Outcome.CLIENT_CLOSED: 1}
    assert (child.totals[port].client_bytes, child.totals[port].node_bytes) == (8, 8)
    assert len(child.finished) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_what_has_not_ended_when_the_time_is_up_is_closed(child: Running, node: socket.socket, seconds: float) -> None:
    ports = [child.serve(node) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        clients = []
        for port in ports:
            for _ in range(2):
                clients.append(stack.enter_context(connect(port)))
                echo_once(clients[-1], stack.enter_context(accept(node)))
        child.tell(messages.Stop(seconds))
        for client in clients:
            assert is_closed(client)
    assert child.wait_for_end() == 0
    child.until(lambda: child.has_ended or not child.hear(0))
    assert [type(message) for message in child.said].count(messages.Stopped) == 1
    assert isinstance(child.said[-1], messages.Stopped)
    assert [child.totals[port].ended for port in ports] == [{Outcome.STOPPED: 2}] * 3
    assert len(child.finished) == 6


def test_a_second_order_to_stop_may_be_stricter(child: Running, node: socket.socket) -> None:
    port = child.serve(node)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
        child.tell(messages.Stop(3600.0))
        child.tell(messages.Stop(0.0))
        assert is_closed(client)
    assert child.wait_for_end() == 0


def test_an_idle_worker_stops_at_once(child: Running) -> None:
    child.tell(messages.Stop(3600.0))
    assert child.wait_for_end() == 0


def test_who_connects_after_the_stop_waits_in_the_socket_that_is_kept(child: Running, node: socket.socket) -> None:
    with listen() as kept:
        port = kept.getsockname()[1]
        child.tell(served(port, node, sockets=1), [kept])
        with connect(port) as staying, accept(node) as inside:
            echo_once(staying, inside)
            child.tell(messages.Stop(3600.0))
            child.until(lambda: not child.listens(port))
            with connect(port) as waiting:
                echo_once(staying, inside)
                staying.close()
                inside.close()
                assert child.wait_for_end() == 0
                with accept(kept) as taken:
                    assert taken.getpeername() == waiting.getsockname()


@pytest.mark.parametrize("is_process", [False, True])
def test_a_worker_whose_controller_is_gone_ends(node: socket.socket, is_process: bool) -> None:
    with Running(is_process=is_process) as running:
        port = running.serve(node)
        with connect(port) as client, accept(node) as inside:
            echo_once(client, inside)
            running.channel.close()
            assert is_closed(client)
            assert is_closed(inside)
        assert running.wait_for_end() == 0
        with pytest.raises(ConnectionRefusedError):
            connect(port)


def test_a_worker_that_hears_nonsense_ends(child: Running) -> None:
    child.channel._sock.send(b"\0\0\0\x05hello")
    assert child.wait_for_end() == 0


def test_a_worker_told_of_a_socket_that_it_has_no_descriptor_for_ends(child: Running, node: socket.socket) -> None:
    """Better than to serve a port on another one's socket; the controller starts another worker."""
    port = child.serve(node)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
        child.leave_descriptors(0)
        with listen() as other:
            child.tell(served(1, node, sockets=1), [other])
            assert child.wait_for_end() == 0


def test_signals_that_reach_the_whole_group_are_left_to_the_controller(child: Running, node: socket.socket) -> None:
    port = child.serve(node)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child.pid, number)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)


def test_a_worker_in_a_thread_gives_back_all_it_had(node: socket.socket) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with Running() as running:
        port = running.serve(node)
        with connect(port) as client, accept(node) as inside:
            echo_once(client, inside)
            running.tell(messages.Stop(0.0))
            running.expect(messages.Stopped)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
