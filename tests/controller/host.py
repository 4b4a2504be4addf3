"""A place where a daemon runs in the test's own process: free ports, a directory, a stand-in for ElastiCache."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from natproxy.config import load_config
from natproxy.controller.daemon import Daemon
from natproxy.controller.desk import Desk
from natproxy.discover.parse import RawAnswers
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure
from tests.controller.samples import free_ports, free_range
from tests.standins.aws import AwsWorld


class FakeAws:
    """Answers what it is set to; ``None``: not yet."""

    def __init__(self) -> None:
        self.answer: RawAnswers | DiscoveryError | None = None
        self.asked: asyncio.Queue[bool] = asyncio.Queue()
        self.is_closed = False

    async def fetch(self, want_tags: bool) -> RawAnswers:
        self.asked.put_nowait(want_tags)
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, DiscoveryError):
            raise self.answer
        assert self.answer is not None
        return self.answer

    async def secret(self, arn: str) -> str:
        raise DiscoveryError(DiscoveryFailure.DENIED, f"{arn}: denied")

    async def close(self) -> None:
        self.is_closed = True


class Host:
    """A place for a daemon: free ports, a directory, and somebody who listens to what it tells systemd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.config = directory / "natproxy.yaml"
        self.range = free_range(4)
        self.admin, self.static, self.nobody = free_ports(3)
        self.aws = FakeAws()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.notify.bind(str(directory / "notify"))
        self.write()

    def write(self, text: str = "") -> None:
        self.config.write_text(
            f"listen: {{address: 127.0.0.1, ports: {self.static}-{self.static}}}\n"
            f"admin: {{port: {self.admin}}}\nstate_dir: {self.state_dir}\n"
            f"resolver: 127.0.0.1:{self.nobody}\n{text}\n"
        )

    def write_caches(self) -> None:
        """Select my-redis, which has two nodes and two endpoints."""
        self.write(f"caches: [{{id: my-redis, ports: {self.range[0]}-{self.range[-1]}}}]")

    def daemon(self) -> Daemon:
        return Daemon(load_config(self.config), {"NOTIFY_SOCKET": str(self.directory / "notify")})

    async def told(self, *words: str) -> str:
        """Wait until systemd has been told all of ``words`` in one message."""
        async with asyncio.timeout(20):
            while True:
                message = (await asyncio.get_running_loop().sock_recv(self.notify, 10_000)).decode()
                if all(word in message for word in words):
                    return message

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Daemon, asyncio.Task[int]]]:
        daemon = self.daemon()
        task = asyncio.get_running_loop().create_task(daemon.run())
        try:
            ready = asyncio.get_running_loop().create_task(self.told("READY=1"))
            await asyncio.wait([ready, task], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                with suppress(asyncio.CancelledError):
                    await ready
                task.result()
            yield daemon, task
        finally:
            daemon._stopping.set()
            with suppress(Exception):
                await task


def world() -> AwsWorld:
    world = AwsWorld()
    world.add_replication_group("my-redis", replicas=1)
    return world


async def tick_until(daemon: Daemon, holds: Callable[[], bool]) -> None:
    """Wait until something holds after one of the main loop's ticks."""
    tick, held = daemon._tick, asyncio.Event()

    def tick_and_look() -> None:
        tick()
        if holds():
            held.set()

    daemon._tick = tick_and_look  # type: ignore[method-assign]
    await asyncio.wait_for(held.wait(), 20)


def shown(daemon: Daemon, line: str) -> str:
    """A metric's value."""
    lines = Desk(daemon.engine).metrics()[0].decode().splitlines()
    return next(found.rpartition(" ")[2] for found in lines if found.startswith(line + " "))
