"""A worker in a thread of this process, driven from asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest

from natproxy import messages
from natproxy.errors import ChannelError, NatproxyError
from natproxy.model import Outcome
from natproxy.worker import inprocess, process
from natproxy.worker.inprocess import THREAD_NAME, WorkerThread, start_worker
from tests.worker.hand import SECONDS, listen
from tests.worker.running import served

M = TypeVar("M", bound=messages.Up)


class Driver:
    """Whoever started the worker: what it said and how it ended, as they come."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[messages.Up] = asyncio.Queue()
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.worker = start_worker(self.said.put_nowait, self.ended.set_result)

    async def expect(self, kind: type[M]) -> M:
        """Return the next message of a kind."""
        async with asyncio.timeout(SECONDS):
            while True:
                message = await self.said.get()
                if isinstance(message, kind):
                    return message

    def serve(self, node: socket.socket, **values: object) -> int:
        """Serve a new port that leads to a node; return its number."""
        with listen() as sock:
            port: int = sock.getsockname()[1]
            self.worker.send(served(port, node, sockets=1, **values), [sock])
        return port


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD_NAME]


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    driver = Driver()
    yield driver
    await driver.worker.stop(0.0)
    assert threads() == []


def wait_until_unheard(port: int) -> None:
    """Wait until nobody listens on a port: without connecting, for who is accepted would have to be ended."""
    listens = f"0100007F:{port:04X} 00000000:0000 0A"
    deadline = time.monotonic() + SECONDS
    while listens in Path("/proc/net/tcp").read_text(encoding="ascii"):
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_bytes_move_while_asyncio_does_other_work(driver: Driver) -> None:
    """The node, the client and the driver all live on the asyncio loop; the worker in its thread joins them."""
    assert (await driver.expect(messages.Ready)).pid == os.getpid()
    with listen() as node:
        server = await asyncio.start_server(echo, sock=node)
        port = driver.serve(node)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert [*threads()] == [THREAD_NAME]
        writer.close()
        finished = await driver.expect(messages.Finished)
        assert [(one.port, one.outcome) for one in finished.connections] == [(port, Outcome.CLIENT_CLOSED)]
        await writer.wait_closed()
        server.close()


async def test_a_stop_lets_connections_end_and_leaves_nothing_behind() -> None:
    before = descriptors()
    driver = Driver()
    with listen() as node:
        port = driver.serve(node)
        loop = asyncio.get_running_loop()
        node.setblocking(False)
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
            inside, _ = await loop.sock_accept(node)
            with inside:
                stopping = asyncio.get_running_loop().create_task(driver.worker.stop(SECONDS))
                await asyncio.to_thread(wait_until_unheard, port)
                client.sendall(b"last words")
                assert await loop.sock_recv(inside, 100) == b"last words"
                assert not stopping.done()
                client.close()
                assert await loop.sock_recv(inside, 1) == b""
            await stopping
    assert await driver.ended is None
    said = [driver.said.get_nowait() for _ in range(driver.said.qsize())]
    assert isinstance(said[-1], messages.Stopped)
    await driver.worker.stop(0.0)
    with pytest.raises(ChannelError), listen() as node:
        driver.serve(node)
    assert (threads(), descriptors()) == ([], before)


async def test_a_stop_closes_what_has_not_ended_in_time(driver: Driver) -> None:
    loop = asyncio.get_running_loop()
    with listen() as node:
        port = driver.serve(node)
        node.setblocking(False)
        with socket.create_connection(("127.0.0.1", port)) as client:
            inside, _ = await loop.sock_accept(node)
            with inside:
                await driver.worker.stop(0.0)
                client.settimeout(SECONDS)
                assert client.recv(1) == b""
    assert await driver.ended is None


async def test_a_process_has_one_worker_at_most_and_another_after_it(driver: Driver) -> None:
    with pytest.raises(NatproxyError, match="one worker is all that fits a process"):
        start_worker(lambda _: None, lambda _: None)
    await driver.worker.stop(0.0)
    another = Driver()
    await another.expect(messages.Ready)
    await another.worker.stop(0.0)
    assert await another.ended is None


async def test_what_ends_the_worker_is_told_after_its_last_message(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    await driver.expect(messages.Ready)

    def break_down(_worker: process.Worker, _message: object, _fds: object) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr(process.Worker, "_obey", break_down)
    driver.worker.send(messages.Policy(log_connections=True))
    error = await asyncio.wait_for(driver.ended, SECONDS)
    assert isinstance(error, ValueError)
    assert threads() == []
    await driver.worker.stop(0.0)


async def test_who_lets_go_of_the_worker_ends_it(driver: Driver) -> None:
    await driver.expect(messages.Ready)
    driver.worker.close()
    driver.worker.close()
    assert await asyncio.wait_for(driver.ended, SECONDS) is None
    with pytest.raises(ChannelError):
        driver.worker.send(messages.Policy(log_connections=True))


async def test_a_worker_that_hangs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inprocess, "END_SECONDS", 0.1)
    released = threading.Event()
    driver = Driver()
    await driver.expect(messages.Ready)
    monkeypatch.setattr(process.Worker, "_obey", lambda *_: released.wait(SECONDS))
    driver.worker.send(messages.Policy(log_connections=True))
    with pytest.raises(NatproxyError, match="hangs"):
        await driver.worker.stop(0.0)
    released.set()
    await asyncio.wait_for(driver.ended, SECONDS)


async def test_more_than_the_channel_holds_arrives_in_order(driver: Driver) -> None:
    """What does not fit waits, and goes while asyncio does something else."""
    big = messages.Book("shop", tuple((f"node-{n}.example.com", 6379, n % 65000) for n in range(40_000)), "h", "", 1)
    for _ in range(4):
        driver.worker.send(big)
    with listen() as node:
        server = await asyncio.start_server(echo, sock=node)
        port = driver.serve(node)
        async with asyncio.timeout(SECONDS):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                await asyncio.sleep(0.01)
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.close()
        await writer.wait_closed()
        server.close()


async def test_without_descriptors_it_is_said_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()

    def none_left(_worker: process.Worker, *_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(process.Worker, "__init__", none_left)
        with pytest.raises(NatproxyError, match="the worker cannot be started: Too many open files"):
            start_worker(lambda _: None, lambda _: None)
    assert descriptors() == before
    driver = Driver()
    assert isinstance(driver.worker, WorkerThread)
    await driver.worker.stop(0.0)
