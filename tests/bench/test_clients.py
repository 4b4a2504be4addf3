"""The small clients move and time what they are told to, over real sockets."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench import accounts, bulk, idle, interpreter, latency, machine
from bench.certificates import Files
from bench.parts.connections import sizes


def test_a_percentile_is_one_of_the_values() -> None:
    values = list(range(1, 101))
    assert [latency.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [51, 100, 100]
    assert latency.percentile([7], 0.99) == 7


def test_each_request_is_timed_until_enough_are_answered() -> None:
    near, far = socket.socketpair()

    def answer() -> None:
        for _ in range(26):  # it has asked again before it sees that it is enough
            far.recv(4096)
            far.sendall(b"+OK\r\n")

    node = threading.Thread(target=answer)
    node.start()
    with near, far:
        took = latency.ask([near], 25, sys.maxsize)
        node.join()
    assert len(took) == 25
    assert min(took) > 0


def test_each_request_is_timed_over_tls_and_a_certificate_is_shown(tmp_path: Path) -> None:
    files = Files.make(tmp_path, ips=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    near, far = socket.socketpair()

    def answer() -> None:
        with context.wrap_socket(far, server_side=True) as node:
            for _ in range(26):
                node.recv(4096)
                node.sendall(b"+OK\r\n")

    node = threading.Thread(target=answer)
    node.start()
    shown = (str(files.ca), str(files.member), str(files.member_key))
    (secured,) = latency.secured([near], "127.0.0.1", *shown)
    with secured:
        took = latency.ask([secured], 25, sys.maxsize)
        node.join()
    assert len(took) == 25


def test_a_proxy_that_hangs_up_is_an_error() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError):
            latency.ask([near], 1, sys.maxsize)
        with pytest.raises(ConnectionError):
            bulk.take(near, 1)


def test_a_stream_has_as_many_bytes_as_were_asked_for() -> None:
    near, far = socket.socketpair()
    count = 3 * bulk.CHUNK + 17
    node = threading.Thread(target=bulk.give, args=(far, count))
    node.start()
    with near, far:
        bulk.take(near, count)
        node.join()
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            near.recv(1)


def test_resting_connections_are_held_while_the_block_lasts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        taken: list[socket.socket] = []

        def answer() -> None:
            for _ in range(3):
                client, _ = listener.accept()
                taken.append(client)
                client.recv(len(idle.PING), socket.MSG_WAITALL)
                client.sendall(idle.PONG)

        node = threading.Thread(target=answer)
        node.start()
        with idle.held("127.0.0.1", port, 3, processes=1):
            node.join()
            taken[0].setblocking(False)
            with pytest.raises(BlockingIOError):
                taken[0].recv(1)
        taken[0].setblocking(True)
        assert [client.recv(1) for client in taken] == [b"", b"", b""]
        for client in taken:
            client.close()


def test_an_account_knows_a_process_s_time_memory_children_and_sockets() -> None:
    own = accounts.Account((os.getpid(),))
    assert own.cpu_seconds()[os.getpid()] > 0
    assert sum(accounts.Account((os.getpid(),), is_fleeting=True).cpu_seconds().values()) > 0
    assert own.resident_bytes() > 1_000_000
    before = accounts.open_sockets(os.getpid())
    pair = socket.socketpair()
    assert accounts.open_sockets(os.getpid()) == before + 2
    for sock in pair:
        sock.close()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in accounts.children(os.getpid())
        child.communicate()


def test_no_more_connections_are_opened_than_descriptors_allow() -> None:
    assert sizes(65536) == [100, 1_000, 10_000]
    assert sizes(20_000) == [100, 1_000, 9_850]
    assert sizes(1_024) == [100, 362]


def test_an_interpreter_that_can_is_taken_as_it_is() -> None:
    assert interpreter.provide("") == sys.executable
    assert interpreter.provide(sys.executable) == sys.executable
    with pytest.raises(RuntimeError, match="no-such-python"):
        interpreter.provide("no-such-python")


def test_the_machine_is_described() -> None:
    found = machine.describe()
    assert found["Python"].startswith("{}.{}".format(*sys.version_info))
    assert found["processors"] == str(os.cpu_count())
