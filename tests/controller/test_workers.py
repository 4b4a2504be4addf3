from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import uvloop

from natproxy import channel as channel_module
from natproxy import messages
from natproxy.controller import workers as workers_module
from natproxy.controller.children import Child, Spawner
from natproxy.controller.logs import TextFormatter
from natproxy.controller.workers import SILENT_SECONDS, WORKER_COMMAND, Workers
from natproxy.errors import NatproxyError
from natproxy.model import Outcome
from tests.standins.certificates import Authority

SCRIPT = """
import os, signal, socket, sys, time
from natproxy import messages
from natproxy.channel import worker_end
sock = socket.socket(fileno=int(sys.argv[1]))
channel = worker_end(sock)
channel.send(messages.Ready(os.getpid()))
"""


def stand_in(script: str) -> tuple[str, ...]:
    """A worker that is ready and then does what ``script`` says."""
    return (sys.executable, "-c", SCRIPT + script)


IGNORES_ALL = stand_in("while True: signal.pause()")
DIES_WITH_LAST_WORDS = stand_in("""
import select
heard = []
while not any(isinstance(message, messages.Book) for message, _ in heard):
    select.select([sock], [], [])
    heard += channel.receive()
for port in range(100):
    channel.send(messages.DialFailed(port, "node-refused", "x" * 50))
os._exit(7)
""")

SAYS_WHAT_IT_HEARS = stand_in("""
import select
while True:
    select.select([sock], [], [])
    for message, fds in channel.receive():
        said = message.server.certificate.decode() if isinstance(message, messages.Tls) else ""
        said = f"{message.name} {message.version}" if isinstance(message, messages.Book) else said
        channel.send(messages.DialFailed(0, type(message).__name__, said))
""")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "RESTART_SECONDS", 0.01)


class Stage:
    """Workers, a node that echoes, and one port."""

    def __init__(self, count: int, command: Sequence[str]) -> None:
        self.heard: asyncio.Queue[tuple[int, messages.Up]] = asyncio.Queue()
        self.lost: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self.workers = Workers(
            count,
            lambda number, message: self.heard.put_nowait((number, message)),
            lambda number, why: self.lost.put_nowait((number, why)),
            command,
        )
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.port = self.listening.getsockname()[1]
        self.node: asyncio.Server | None = None

    async def open(self) -> None:
        self.node = await asyncio.start_server(echo, "127.0.0.1", 0)

    def serve(self, **facts: object) -> messages.Serve:
        assert self.node is not None
        address = self.node.sockets[0].getsockname()
        serve = messages.Serve(self.port, "c", "node", "n", (address,), False, None, 3.0, None, 30.0)
        return msgspec.structs.replace(serve, **facts)

    async def hear(self, wanted: Callable[[messages.Up], bool]) -> tuple[int, messages.Up]:
        """Wait for a message."""
        async with asyncio.timeout(20):
            while True:
                number, message = await self.heard.get()
                if wanted(message):
                    return number, message

    async def next_loss(self) -> tuple[int, str]:
        return await asyncio.wait_for(self.lost.get(), 20)

    async def talk(self) -> bytes:
        """Connect, say a word, and return what comes back."""
        async with asyncio.timeout(20):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionResetError:  # the port was closed with the connection in its queue
                return b""
            try:
                writer.write(b"PING")
                return await reader.read(4)
            except ConnectionResetError:
                return b""
            finally:
                writer.transport.abort()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(100):
            writer.write(chunk)
    except ConnectionResetError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def staged(count: int = 1, command: Sequence[str] = WORKER_COMMAND) -> AsyncIterator[Stage]:
    stage = Stage(count, command)
    try:
        await stage.open()
        await stage.workers.start()
        yield stage
    finally:
        await stage.workers.stop(0.0)
        stage.listening.close()
        assert stage.node is not None
        stage.node.close()
        assert stage.workers.running == 0


async def test_all_are_started_and_serve_what_they_are_told() -> None:
    async with staged(2) as stage:
        assert stage.workers.running == 2
        assert len(set(stage.workers.pids().values())) == 2
        assert sorted(stage.workers.slots()) == [0, 1]
        assert set(stage.workers.slots().values()) == set(stage.workers.pids().values())
        stage.workers.serve(stage.serve(), [stage.listening])
        assert await stage.talk() == b"PING"


async def test_counts_come_up_and_orders_go_down() -> None:
    async with staged() as stage:
        stage.workers.serve(stage.serve(), [stage.listening])
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        await stage.hear(lambda message: isinstance(message, messages.Counts) and message.open == 1)
        stage.workers.end(messages.End(stage.port, None, 0.0, Outcome.GONE))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        _, message = await stage.hear(lambda message: isinstance(message, messages.Finished))
        assert isinstance(message, messages.Finished)
        assert [one.outcome for one in message.connections] == [Outcome.GONE]
        writer.close()


async def test_a_policy_is_told_when_it_is_new() -> None:
    async with staged() as stage:
        stage.workers.serve(stage.serve(), [stage.listening])
        stage.workers.set_policy(messages.Policy(log_connections=False))
        assert await stage.talk() == b"PING"
        _, message = await stage.hear(
            lambda message: (
                isinstance(message, messages.Finished)
                or (isinstance(message, messages.Counts) and any(route.ended for route in message.routes))
            )
        )
        assert isinstance(message, messages.Counts)


def tls(certificate: bytes) -> messages.Tls:
    return messages.Tls(messages.ServerTls(certificate, b"-----SECRET-----"), {})


async def heard(stage: Stage, count: int) -> list[tuple[str, str]]:
    """What a worker has been told: (message, the certificate in it)."""
    said = [(await stage.hear(lambda message: isinstance(message, messages.DialFailed)))[1] for _ in range(count)]
    return [(one.outcome, one.detail) for one in said if isinstance(one, messages.DialFailed)]


async def test_tls_is_told_before_the_ports_and_again_when_it_is_new() -> None:
    async with staged(1, SAYS_WHAT_IT_HEARS) as stage:
        stage.workers.set_tls(tls(b"one"))
        stage.workers.serve(stage.serve(client_tls="terminate"), [stage.listening])
        stage.workers.set_tls(tls(b"one"))
        stage.workers.set_tls(tls(b"two"))
        assert await heard(stage, 4) == [("Policy", ""), ("Tls", "one"), ("Serve", ""), ("Tls", "two")]


async def test_a_successor_is_told_the_newest_tls_before_its_ports() -> None:
    async with staged(1, SAYS_WHAT_IT_HEARS) as stage:
        stage.workers.serve(stage.serve(client_tls="terminate"), [stage.listening])
        stage.workers.set_tls(tls(b"one"))
        stage.workers.set_tls(tls(b"two"))
        await heard(stage, 4)
        ((_, pid),) = stage.workers.pids().items()
        os.kill(pid, signal.SIGKILL)
        await stage.next_loss()
        assert await heard(stage, 3) == [("Policy", ""), ("Tls", "two"), ("Serve", "")]


async def test_tls_may_be_told_before_there_are_workers() -> None:
    stage = Stage(1, SAYS_WHAT_IT_HEARS)
    stage.workers.set_tls(tls(b"one"))
    try:
        await stage.workers.start()
        assert await heard(stage, 2) == [("Policy", ""), ("Tls", "one")]
    finally:
        await stage.workers.stop(0.0)
        stage.listening.close()


async def test_the_certificate_of_now_is_shown_by_every_worker_and_its_successor() -> None:
    ca = Authority()
    trusting = ssl.create_default_context(cadata=ca.pem.decode())

    async def shown(stage: Stage) -> int:
        """Talk TLS to the port; return the serial number of the certificate there."""
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(ConnectionResetError):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", stage.port, ssl=trusting, server_hostname="cache.example"
                    )
                    break
            writer.write(b"PING")
            assert await reader.readexactly(4) == b"PING"
            serial = int(writer.get_extra_info("peercert")["serialNumber"], 16)
            writer.transport.abort()
            return serial

    first, second = (ca.issue("cache.example", dns=["cache.example"]) for _ in range(2))
    async with staged() as stage:
        stage.workers.set_tls(messages.Tls(messages.ServerTls(first.certificate, first.key), {}))
        stage.workers.serve(stage.serve(client_tls="terminate"), [stage.listening])
        assert await shown(stage) == first.serial
        stage.workers.set_tls(messages.Tls(messages.ServerTls(second.certificate, second.key), {}))
        ((_, pid),) = stage.workers.pids().items()
        os.kill(pid, signal.SIGKILL)
        await stage.next_loss()
        assert await shown(stage) == second.serial


async def test_keys_are_not_logged_where_they_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(channel_module, "MAX_FRAME_BYTES", 64)
    async with staged(1, SAYS_WHAT_IT_HEARS) as stage:
        stage.workers.set_tls(tls(b"x" * 100))
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert told == ["worker gets no certificates"]
        assert not any("SECRET" in TextFormatter().format(record) for record in caplog.records)


def book(name: str, version: int) -> messages.Book:
    return messages.Book(name, (("10.0.1.230", 6379, 6379),), "cache.dev.example.com", "203.0.113.73", version)


async def test_books_are_told_when_they_are_new_and_emptied_when_no_port_names_them() -> None:
    async with staged(1, SAYS_WHAT_IT_HEARS) as stage:
        for one in (book("a", 1), book("a", 1), book("b", 1), book("a", 2)):
            stage.workers.set_book(one)
        stage.workers.forget_book("a")
        stage.workers.forget_book("a")
        stage.workers.set_policy(messages.Policy(log_connections=False))
        told = await heard(stage, 6)
        assert told == [
            ("Policy", ""),
            ("Book", "a 1"),
            ("Book", "b 1"),
            ("Book", "a 2"),
            ("Book", "a 0"),
            ("Policy", ""),
        ]


async def test_a_successor_is_told_the_newest_books_before_its_ports() -> None:
    async with staged(1, SAYS_WHAT_IT_HEARS) as stage:
        stage.workers.serve(stage.serve(rewrite="cluster", book="a"), [stage.listening])
        stage.workers.set_tls(tls(b"one"))
        for one in (book("a", 1), book("b", 1), book("a", 2)):
            stage.workers.set_book(one)
        stage.workers.forget_book("b")
        await heard(stage, 7)
        ((_, pid),) = stage.workers.pids().items()
        os.kill(pid, signal.SIGKILL)
        await stage.next_loss()
        assert await heard(stage, 4) == [("Policy", ""), ("Tls", "one"), ("Book", "a 2"), ("Serve", "")]


async def test_a_book_that_does_not_fit_the_channel_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channel_module, "MAX_FRAME_BYTES", 64)
    async with staged(1, SAYS_WHAT_IT_HEARS) as stage:
        stage.workers.set_book(book("a" * 100, 1))
        assert "worker gets no book" in [record.getMessage() for record in caplog.records]


async def test_an_unserved_port_is_closed() -> None:
    async with staged() as stage:
        stage.workers.serve(stage.serve(), [stage.listening])
        assert await stage.talk() == b"PING"
        stage.workers.unserve(stage.port, Outcome.GONE)
        stage.workers.unserve(stage.port, Outcome.GONE)  # harmless
        stage.listening.close()
        assert stage.workers._served == {}
        while True:
            try:
                assert await stage.talk() == b""
            except ConnectionRefusedError:
                break


async def test_a_killed_worker_is_replaced_and_its_successor_serves_by_the_newest_values() -> None:
    async with staged() as stage:
        stage.workers.serve(stage.serve(addresses=()), [stage.listening])
        stage.workers.serve(stage.serve(), ())  # its name has answered
        assert await stage.talk() == b"PING"
        ((number, pid),) = stage.workers.pids().items()
        os.kill(pid, signal.SIGKILL)
        assert await stage.next_loss() == (number, "was killed by signal 9")
        assert await stage.talk() == b"PING"
        assert number not in stage.workers.pids()


async def test_workers_that_end_together_are_replaced_each_in_its_own_place() -> None:
    async with staged(3) as stage:
        first = dict(stage.workers._workers)
        for worker in list(first.values())[:2]:
            worker.process.kill()
        for _ in range(2):
            await stage.next_loss()
        await stage.hear(lambda message: isinstance(message, messages.Counts) and stage.workers.running == 3)
        assert {worker.row for worker in stage.workers._workers.values()} == {0, 1, 2}


async def test_a_successor_refuses_on_a_draining_port() -> None:
    async with staged() as stage:
        stage.workers.serve(stage.serve(), [stage.listening])
        stage.workers.serve(stage.serve(refuse=Outcome.GONE.value), ())
        assert await stage.talk() == b""
        ((_, pid),) = stage.workers.pids().items()
        os.kill(pid, signal.SIGKILL)
        await stage.next_loss()
        assert await stage.talk() == b""


async def test_last_words_are_heard_and_the_end_is_told_as_it_was() -> None:
    async with staged(1, DIES_WITH_LAST_WORDS) as stage:
        stage.workers.set_book(messages.Book("die", (), "", "", 1))  # not before it counts as started
        for expected in range(100):
            number, message = await asyncio.wait_for(stage.heard.get(), 20)
            assert isinstance(message, messages.DialFailed)
            assert (number, message.port) == (1, expected)
        assert await stage.next_loss() == (1, "ended with status 7")


async def test_a_worker_that_closes_its_channel_and_lives_on_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "KILL_SECONDS", 0.05)
    async with staged(1, stand_in("sock.close()\nwhile True: signal.pause()")) as stage:
        assert await stage.next_loss() == (1, "was killed by signal 9")


async def test_a_worker_that_cannot_be_replaced_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, refusals = Spawner.start, iter([True, True, False])

    def start(spawner: Spawner, command: Sequence[str], **options: Any) -> Child:
        if next(refusals, False):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(spawner, command, **options)

    async with staged() as stage:
        stage.workers.serve(stage.serve(), [stage.listening])
        monkeypatch.setattr(Spawner, "start", start)
        ((_, pid),) = stage.workers.pids().items()
        os.kill(pid, signal.SIGKILL)
        await stage.next_loss()
        assert await stage.talk() == b"PING"
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert told == ["worker not started, it will be tried again"] * 2


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ((sys.executable, "-c", "raise SystemExit(3)"), "it ended with status 3"),
        (("/nonexistent/python",), "No such file"),
    ],
)
async def test_a_worker_that_cannot_start_is_told(command: Sequence[str], why: str) -> None:
    stage = Stage(1, command)
    with pytest.raises(NatproxyError, match=f"a worker cannot be started: .*{why}"):
        await stage.workers.start()
    await stage.workers.stop(0.0)
    assert stage.lost.empty()
    stage.listening.close()


async def test_a_worker_that_does_not_get_ready_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "START_SECONDS", 0.05)
    monkeypatch.setattr(workers_module, "KILL_SECONDS", 0.05)
    stage = Stage(1, (sys.executable, "-c", "import signal; signal.pause()"))
    with pytest.raises(NatproxyError, match=r"cannot be started: it was not ready within 0\.05 s"):
        await stage.workers.start()
    await stage.workers.stop(0.0)
    assert stage.workers.running == 0
    stage.listening.close()


def test_it_all_works_on_the_daemon_s_own_loop() -> None:
    async def live() -> None:
        async with staged() as stage:
            stage.workers.serve(stage.serve(), [stage.listening])
            assert await stage.talk() == b"PING"
            ((number, pid),) = stage.workers.pids().items()
            os.kill(pid, signal.SIGKILL)
            assert await stage.next_loss() == (number, "was killed by signal 9")
            assert await stage.talk() == b"PING"

    uvloop.run(live())


# Workers that hang.


async def test_a_stopped_worker_is_killed_and_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged() as stage:
        stage.workers.kill_silent()
        assert stage.workers.silent() == []
        ((number, pid),) = stage.workers.pids().items()
        os.kill(pid, signal.SIGSTOP)
        stage.workers._workers[number].heard_at -= SILENT_SECONDS + 1.0
        assert stage.workers.silent() == [number]
        stage.workers.kill_silent()
        assert await stage.next_loss() == (number, "was killed by signal 9")
        assert [record.getMessage() for record in caplog.records] == ["worker hangs and is killed"]
        stage.workers.serve(stage.serve(), [stage.listening])
        assert await stage.talk() == b"PING"


async def test_nobody_is_killed_for_a_silence_in_which_this_process_did_not_listen() -> None:
    async with staged() as stage:
        stage.workers.kill_silent()
        (worker,) = stage.workers._workers.values()
        worker.heard_at -= 60.0  # the process, or the whole machine, was paused for a minute
        stage.workers._looked_at -= 60.0
        stage.workers.kill_silent()
        assert stage.workers.silent() == []
        assert worker.status is None
        assert stage.workers.running == 1


# The end.


async def test_connections_may_end_by_themselves_at_a_stop() -> None:
    async with staged() as stage:
        stage.workers.serve(stage.serve(), [stage.listening])
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(b"PING")
        assert await reader.readexactly(4) == b"PING"
        stopping = asyncio.get_running_loop().create_task(stage.workers.stop(30.0))
        writer.write(b"PONG")
        assert await reader.readexactly(4) == b"PONG"
        writer.write_eof()
        assert await reader.read() == b""
        await asyncio.wait_for(stopping, 20)
        _, message = await stage.hear(lambda message: isinstance(message, messages.Finished))
        assert isinstance(message, messages.Finished)
        assert stage.lost.empty()
        writer.close()


async def test_a_worker_that_ignores_the_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "KILL_SECONDS", 0.05)
    async with staged(2, IGNORES_ALL) as stage:
        processes = [worker.process for worker in stage.workers._workers.values()]
        await asyncio.wait_for(stage.workers.stop(0.0), 20)
        assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2
        assert stage.lost.empty()


async def test_no_successor_comes_up_once_the_stop_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "KILL_SECONDS", 0.5)
    async with staged(2) as stage:
        stage.workers.serve(stage.serve(), [stage.listening])
        first = dict(stage.workers.pids())
        os.kill(first[2], signal.SIGSTOP)  # so that the stop takes its time
        os.kill(first[1], signal.SIGKILL)
        await stage.next_loss()  # its successor is due in a moment
        await asyncio.wait_for(stage.workers.stop(0.0), 20)
        assert stage.workers.running == 0
        assert next(stage.workers._numbers) == 3


async def test_all_can_be_ended_at_once() -> None:
    async with staged(2, IGNORES_ALL) as stage:
        processes = [worker.process for worker in stage.workers._workers.values()]
        stage.workers.kill_all()
        assert [await process.wait() for process in processes] == [-signal.SIGKILL] * 2
