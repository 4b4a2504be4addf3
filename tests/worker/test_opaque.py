"""Values that pass unseen, through a worker whose legs read along: what a leg does before and after one."""

from __future__ import annotations

import socket

import pytest

from natproxy.worker.leg import Leg
from tests.worker.running import Running, accept, connect

VALUE = b"VALUE a 0 10000000\r\n"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each time that a leg took the long way."""
    calls: list[bool] = []
    pump = Leg.pump

    def counted(leg: Leg, until_empty: bool) -> None:
        calls.append(until_empty)
        pump(leg, until_empty=until_empty)

    monkeypatch.setattr(Leg, "pump", counted)
    return calls


def receive(sock: socket.socket, count: int) -> None:
    while count:
        came = len(sock.recv(min(count, 1 << 20)))
        assert came
        count -= came


def test_a_leg_in_the_middle_of_a_value_waits_for_more(
    running: Running, node: socket.socket, calls: list[bool]
) -> None:
    port = running.serve(node, rewrite="memcached")
    with connect(port) as client, accept(node) as ours:
        client.sendall(b"get a\r\n")
        ours.recv(100)
        ours.sendall(VALUE + bytes(3_000_000))
        receive(client, len(VALUE) + 3_000_000)
        before = len(calls)
        for _ in range(10):
            running.update(port, node, rewrite="memcached")  # the loop has turned when this returns
        assert len(calls) <= before + 3, "it goes round and round"
        ours.sendall(bytes(7_000_000) + b"\r\nEND\r\n")
        receive(client, 7_000_000 + 7)


def test_after_a_large_request_small_ones_take_the_short_way(
    running: Running, node: socket.socket, calls: list[bool]
) -> None:
    port = running.serve(node, rewrite="memcached")
    with connect(port) as client, accept(node) as ours:
        client.sendall(b"set a 0 0 3000000\r\n" + bytes(3_000_000) + b"\r\n")
        receive(ours, 19 + 3_000_002)
        before = len(calls)
        for _ in range(200):
            client.sendall(b"get b\r\n")
            receive(ours, 7)
        assert len(calls) < before + 20, "only the first few have to find the short way"
