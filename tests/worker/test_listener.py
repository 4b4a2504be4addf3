"""One port: who is let in, where it leads, what it counts, how its connections are ended."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from natproxy import messages
from natproxy.model import Address, Outcome
from natproxy.worker.listener import AVOID_SECONDS, Port
from natproxy.worker.loop import Loop
from natproxy.worker.process import Worker
from tests.worker.hand import listen, reset
from tests.worker.running import Running, accept, connect, is_closed, receive_exactly, served


def echo_once(client: socket.socket, inside: socket.socket) -> None:
    """Show that the two are joined."""
    client.sendall(b"ping")
    assert receive_exactly(inside, 4) == b"ping"
    inside.sendall(b"pong")
    assert receive_exactly(client, 4) == b"pong"


# Who may connect.


@pytest.mark.parametrize(
    ("listening", "source", "is_allowed"),
    [
        ("127.0.0.1", "127.0.0.7", True),
        ("127.0.0.1", "127.0.0.8", False),
        ("::", "127.0.0.7", True),
        ("::", "127.0.0.8", False),
        ("::", "::1", False),
    ],
)
def test_an_allow_list_lets_its_networks_in_and_ipv4_counts_as_ipv4_everywhere(
    running: Running, node: socket.socket, listening: str, source: str, is_allowed: bool
) -> None:
    if listening == "::":
        sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        sock = listen(listening)
    port = running.serve(node, sock=sock, allow=("127.0.0.7/32", "198.51.100.0/24"))
    with connect(port, "::1" if ":" in source else "127.0.0.1", (source, 0)) as client:
        if is_allowed:
            with accept(node) as inside:
                echo_once(client, inside)
        else:
            assert is_closed(client)
            assert running.outcome(port) == (Outcome.NOT_ALLOWED, "")
            totals = running.until_ended(port, 1)
            assert (totals.opened, totals.ended) == (0, {Outcome.NOT_ALLOWED: 1})


def test_a_new_allow_list_closes_whom_it_no_longer_allows_at_once(running: Running, node: socket.socket) -> None:
    port = running.serve(node, allow=None)
    with (
        connect(port, source=("127.0.0.7", 0)) as staying,
        accept(node) as staying_inside,
        connect(port, source=("127.0.0.8", 0)) as leaving,
        accept(node) as leaving_inside,
    ):
        running.update(port, node, allow=("127.0.0.7/32",))
        assert is_closed(leaving)
        assert is_closed(leaving_inside)
        assert running.finish(port).outcome == Outcome.NOT_ALLOWED
        echo_once(staying, staying_inside)
        # The same list again, and none at all, end nothing.
        running.update(port, node, allow=("127.0.0.7/32",))
        running.update(port, node, allow=None)
        assert running.counts(port).open == 1
        echo_once(staying, staying_inside)


def test_a_port_that_refuses_says_why(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    with connect(port) as client, accept(node) as inside:
        running.update(port, node, refuse=Outcome.GONE.value)
        with connect(port) as refused:
            assert is_closed(refused)
        assert running.outcome(port) == (Outcome.GONE, "")
        echo_once(client, inside)


def test_the_excess_over_a_limit_is_closed_at_once_and_counted(running: Running, node: socket.socket) -> None:
    port = running.serve(node, limit_group="excess", max_connections=3, max_connections_per_client=2)
    with contextlib.ExitStack() as stack:
        clients = []
        for source in ("127.0.0.7", "127.0.0.7", "127.0.0.8"):
            clients.append(stack.enter_context(connect(port, source=(source, 0))))
            stack.enter_context(accept(node)).shutdown(socket.SHUT_WR)
        for source in ("127.0.0.7", "127.0.0.9"):
            with connect(port, source=(source, 0)) as client:
                assert is_closed(client)
        totals = running.until_ended(port, 2)
        assert totals.ended == {Outcome.LIMIT: 2}
        clients[2].close()
        running.until_ended(port, 3)
        with connect(port, source=("127.0.0.7", 0)) as client:
            assert is_closed(client)
        totals = running.until_ended(port, 4)
        assert totals.ended[Outcome.CLIENT_LIMIT] == 1
        stack.enter_context(connect(port, source=("127.0.0.9", 0)))
        stack.enter_context(accept(node))
    totals = running.until_ended(port, 7)
    assert totals.opened == 4


def test_ports_of_one_group_share_a_limit_and_other_groups_do_not(running: Running, node: socket.socket) -> None:
    first, second = (running.serve(node, limit_group="together", max_connections=1) for _ in range(2))
    other = running.serve(node, limit_group="alone", max_connections=1)
    with connect(first), accept(node):
        with connect(second) as client:
            assert is_closed(client)
        with connect(other), accept(node):
            assert running.until_ended(second, 1).ended == {Outcome.LIMIT: 1}
    # A connection that was counted in one group leaves that group, whatever its port counts in by then.
    with connect(first), accept(node):
        running.update(first, node, limit_group="moved", max_connections=1)
        running.counts(first)
    running.until_ended(first, 2)
    running.update(first, node, limit_group="together", max_connections=1)
    with connect(second), accept(node):
        assert running.counts(second).open == 1


# Orders to end.


@pytest.fixture
def two_nodes() -> Iterator[tuple[socket.socket, socket.socket]]:
    with listen() as one, listen() as other:
        yield one, other


def test_an_order_for_one_address_leaves_the_others_alone(
    running: Running, two_nodes: tuple[socket.socket, socket.socket]
) -> None:
    old, new = two_nodes
    port = running.serve(old)
    with connect(port) as leaving, accept(old) as old_inside:
        echo_once(leaving, old_inside)
        running.update(port, new)
        with connect(port) as staying, accept(new) as inside:
            echo_once(staying, inside)
            assert running.counts(port).live == {old.getsockname(): 1, new.getsockname(): 1}
            running.order(messages.End(port, old.getsockname(), 0.0, Outcome.ROLE_MOVED.value))
            assert is_closed(leaving)
            assert running.outcome(port) == (Outcome.ROLE_MOVED, "")
            echo_once(staying, inside)
            assert running.counts(port).live == {new.getsockname(): 1}


def test_an_order_to_drain_ends_what_has_not_ended_by_then(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    with connect(port) as client, accept(node) as inside:
        running.order(messages.End(port, None, 0.3, Outcome.GONE.value))
        echo_once(client, inside)
        assert is_closed(client)
        assert is_closed(inside)
        assert running.outcome(port) == (Outcome.GONE, "")


def test_an_order_to_drain_lets_connections_end_by_themselves(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    client = connect(port)
    with accept(node):
        running.order(messages.End(port, None, 3600.0, Outcome.GONE.value))
        client.close()
    assert running.outcome(port) == (Outcome.CLIENT_CLOSED, "")


def test_an_order_is_not_meant_for_connections_that_come_later(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    with connect(port) as old, accept(node):
        running.order(messages.End(port, None, 0.2, Outcome.ADDRESS_CHANGED.value))
        with connect(port) as new, accept(node) as inside:
            assert is_closed(old)
            running.counts(port)
            echo_once(new, inside)


def test_an_order_can_be_taken_back(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
        running.order(messages.End(port, None, 0.3, Outcome.GONE.value))
        running.order(messages.End(port, node.getsockname(), None, Outcome.GONE.value))
        start = time.monotonic()
        running.until(lambda: time.monotonic() - start > 0.4)
        echo_once(client, inside)


def test_a_later_order_never_lengthens_an_earlier_one_but_may_shorten_it(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    with connect(port) as client, accept(node):
        running.order(messages.End(port, None, 0.3, Outcome.GONE.value))
        running.order(messages.End(port, None, 3600.0, Outcome.ROUTE_CHANGED.value))
        assert is_closed(client)
        assert running.outcome(port) == (Outcome.GONE, "")
    with connect(port) as client, accept(node):
        running.order(messages.End(port, None, 3600.0, Outcome.GONE.value))
        running.order(messages.End(port, None, 0.1, Outcome.ROUTE_CHANGED.value))
        assert is_closed(client)
        assert running.outcome(port) == (Outcome.ROUTE_CHANGED, "")


def test_an_order_for_a_port_that_is_not_served_does_nothing(running: Running) -> None:
    running.order(messages.End(1, None, 0.0, Outcome.GONE.value))
    running.order(messages.Unserve(1, Outcome.GONE.value))
    running.counts(1)


# A port's life.


def test_a_port_that_is_no_longer_served_closes_and_counts_its_last_connections(
    running: Running, node: socket.socket
) -> None:
    port = running.serve(node)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
        running.order(messages.Unserve(port, Outcome.ROUTE_REMOVED.value))
        assert is_closed(client)
        assert is_closed(inside)
        assert running.outcome(port) == (Outcome.ROUTE_REMOVED, "")
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    totals = running.until_ended(port, 1)
    assert (totals.open, totals.opened, totals.ended) == (0, 1, {Outcome.ROUTE_REMOVED: 1})
    assert (totals.client_bytes, totals.node_bytes, sum(totals.dials), totals.live) == (4, 4, 1, {})


def test_a_port_can_be_served_again_at_once(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    with connect(port), accept(node):
        running.order(messages.Unserve(port, Outcome.ROUTE_REMOVED.value))
        running.outcome(port)
    assert running.serve(node, sock=socket.create_server(("127.0.0.1", port))) == port
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
        totals = running.counts(port)
        assert (totals.open, totals.opened, totals.ended) == (1, 2, {Outcome.ROUTE_REMOVED: 1})


def test_a_new_target_is_for_new_connections(running: Running, two_nodes: tuple[socket.socket, socket.socket]) -> None:
    old, new = two_nodes
    port = running.serve(old)
    with connect(port) as before, accept(old) as old_inside:
        running.update(port, new)
        with connect(port) as after, accept(new) as new_inside:
            echo_once(before, old_inside)
            echo_once(after, new_inside)


def test_sockets_for_a_port_that_is_served_already_are_closed(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    running.counts(port)
    before = running.descriptors()
    with listen() as spare:
        running.tell(served(port, node, sockets=1), [spare])
        running.counts(port)
        assert running.descriptors() == before + 1  # this test's own


def test_a_port_listens_on_several_sockets(running: Running, node: socket.socket) -> None:
    with listen("127.0.0.1") as one, listen("::1") as other:
        port = one.getsockname()[1]
        running.tell(served(port, node, sockets=2), [one, other])
        for sock in (one, other):
            with connect(sock.getsockname()[1], sock.getsockname()[0]) as client, accept(node) as inside:
                echo_once(client, inside)


def test_new_connections_are_spread_over_the_addresses_of_a_name_that_rotates(
    running: Running, two_nodes: tuple[socket.socket, socket.socket]
) -> None:
    port = running.serve(*two_nodes, rotates=True)
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(connect(port))
        for node in two_nodes:
            for _ in range(3):
                stack.enter_context(accept(node))
        assert running.counts(port).live == {node.getsockname(): 3 for node in two_nodes}


# Counts.


def test_counts_add_up(running: Running, two_nodes: tuple[socket.socket, socket.socket]) -> None:
    dice = random.Random(3)
    port = running.serve(*two_nodes, rotates=True)
    expected: Counter[str] = Counter()
    client_bytes = node_bytes = 0
    for number in range(60):
        node = two_nodes[number % 2]
        client, inside = connect(port), accept(node)
        there, back = dice.randbytes(dice.randint(1, 50_000)), dice.randbytes(dice.randint(1, 50_000))
        client.sendall(there)
        assert receive_exactly(inside, len(there)) == there
        inside.sendall(back)
        assert receive_exactly(client, len(back)) == back
        client_bytes += len(there)
        node_bytes += len(back)
        match number % 4:
            case 0:
                client.close()
                assert inside.recv(1) == b""
                expected[Outcome.CLIENT_CLOSED] += 1
            case 1:
                inside.close()
                assert client.recv(1) == b""
                expected[Outcome.NODE_CLOSED] += 1
            case 2:
                reset(client)
                assert is_closed(inside)
                expected[Outcome.CLIENT_RESET] += 1
            case 3:
                reset(inside)
                assert is_closed(client)
                expected[Outcome.NODE_RESET] += 1
        client.close()
        inside.close()
    totals = running.until_ended(port, 60)
    assert totals.ended == expected
    assert (totals.opened, sum(totals.dials)) == (60, 60)
    assert (totals.client_bytes, totals.node_bytes) == (client_bytes, node_bytes)
    assert totals.dial_seconds > 0
    assert running.counts(port).live == {}
    assert totals.open == 0
    finished = [running.finish(port) for _ in range(60)]
    assert Counter(connection.outcome for connection in finished) == expected
    assert sum(connection.client_bytes for connection in finished) == client_bytes
    assert sum(connection.node_bytes for connection in finished) == node_bytes


def test_bytes_are_counted_while_a_connection_lives(running: Running, node: socket.socket) -> None:
    port = running.serve(node)
    with connect(port) as client, accept(node) as inside:
        echo_once(client, inside)
        totals = running.counts(port)
        assert (totals.client_bytes, totals.node_bytes, totals.open) == (4, 4, 1)
        echo_once(client, inside)
        totals = running.counts(port)
        assert (totals.client_bytes, totals.node_bytes) == (8, 8)


# Where to dial.


@pytest.fixture
def port() -> Iterator[Port]:
    ours, theirs = socket.socketpair()
    from natproxy.channel import worker_end

    worker = Worker(worker_end(ours))
    now = [100.0]
    loop = Loop(lambda: now[0])
    yield Port(worker, loop, served(1, ("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1)), [])
    loop.close()
    worker.loop.close()
    ours.close()
    theirs.close()


def ips(port: Port) -> list[str]:
    return [address.ip for address in port.addresses_in_order()]


def test_addresses_are_dialled_best_first(port: Port) -> None:
    assert ips(port) == ips(port) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_an_address_that_did_not_answer_comes_last_for_a_while(port: Port) -> None:
    port.avoid(Address("10.0.0.1", 1))
    assert ips(port) == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    port.loop.now += AVOID_SECONDS + 0.001
    assert ips(port) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert not port._avoided


def test_equal_addresses_take_turns_and_those_avoided_still_come_last(port: Port) -> None:
    port.serve = served(1, rotates=True)
    assert [ips(port)[0] for _ in range(4)] == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]
    port.avoid(Address("10.0.0.2", 1))
    assert {ips(port)[-1] for _ in range(3)} == {"10.0.0.2"}


def test_a_failure_is_told_once_a_second(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(port.worker.reports, "dial_failed", lambda number, outcome, detail: told.append(detail))
    monkeypatch.setattr(port.worker.reports, "dial_recovered", lambda number: told.append("recovered"))
    for detail in ("first", "too soon"):
        port.dial_failed(Outcome.REFUSED, detail)
    port.loop.now += 1.0
    port.dial_failed(Outcome.NO_DESCRIPTORS, "our own fault")
    port.dial_failed(Outcome.REFUSED, "a second later")
    assert told == ["first", "a second later"]
