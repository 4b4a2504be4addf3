"""Processes that are started from a thread of their own: how nice they are, how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop

from natproxy.controller.children import NICENESS, Child, Spawner, give_way

PAUSES = (sys.executable, "-c", "import signal; signal.pause()")
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()
    made.close()


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def test_a_child_keeps_the_niceness_that_its_parent_has_given_up() -> None:
    async def live() -> None:
        began_with = niceness(0)
        spawner = Spawner()
        give_way()
        try:
            assert niceness(0) == min(19, began_with + NICENESS)
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(niceness, 0).result() == niceness(0)
            for _ in range(2):
                child = spawner.start(PAUSES, pass_fds=(), env=os.environ)
                assert niceness(child.pid) == began_with
                child.kill()
                assert await child.wait() == -signal.SIGKILL
        finally:
            spawner.close()

    if niceness(0) > 19 - NICENESS:
        pytest.skip("these tests are as nice as they can be")
    with ThreadPoolExecutor(1) as pool:  # niceness is a thread's, and cannot always be taken back
        pool.submit(lambda: asyncio.run(live())).result()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_end_is_told_as_it_was(spawner: Spawner, run: Run) -> None:
    async def live() -> None:
        child = spawner.start((sys.executable, "-c", "raise SystemExit(3)"), pass_fds=(), env=os.environ)
        assert [*await asyncio.gather(child.wait(), child.wait())] == [3, 3]
        child.kill()
        assert child.returncode == await child.wait() == 3
        other = spawner.start(PAUSES, pass_fds=(), env=os.environ)
        assert other.returncode is None
        os.kill(other.pid, signal.SIGTERM)
        assert await other.wait() == -signal.SIGTERM

    run(live())


async def test_a_child_has_what_it_is_handed_and_nothing_to_read(spawner: Spawner) -> None:
    ours, theirs = socket.socketpair()
    code = "import os, sys; os.write(int(sys.argv[1]), os.environ['WORD'].encode() + sys.stdin.buffer.read())"
    with ours, theirs:
        command = (sys.executable, "-c", code, str(theirs.fileno()))
        child = spawner.start(command, pass_fds=[theirs.fileno()], env={"WORD": "hello"})
        assert await child.wait() == 0
        assert ours.recv(100) == b"hello"


async def test_what_cannot_be_started_is_told_and_the_next_one_is(spawner: Spawner) -> None:
    with pytest.raises(FileNotFoundError):
        spawner.start(("/nonexistent/python",), pass_fds=(), env=os.environ)
    assert await spawner.start((sys.executable, "-c", ""), pass_fds=(), env=os.environ).wait() == 0


def test_a_child_may_outlive_the_loop_that_started_it(spawner: Spawner) -> None:
    async def live() -> Child:
        return spawner.start(PAUSES, pass_fds=(), env=os.environ)

    child = asyncio.run(live())
    assert child.returncode is None
    child.kill()
    assert child._process.wait(20) == -signal.SIGKILL
