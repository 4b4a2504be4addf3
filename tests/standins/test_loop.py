from __future__ import annotations

import asyncio
import threading

import pytest

from tests.standins.loop import LoopThread


async def thread_name() -> str:
    return threading.current_thread().name


def test_work_runs_in_the_thread_and_its_result_comes_back() -> None:
    with LoopThread("worker") as thread:
        assert thread.call(thread_name()) == "worker"


def test_an_error_comes_back_too() -> None:
    async def fail() -> None:
        raise LookupError("nothing")

    with LoopThread("worker") as thread, pytest.raises(LookupError, match="nothing"):
        thread.call(fail())


async def test_it_serves_beside_a_running_loop() -> None:
    with LoopThread("worker") as thread:
        assert await asyncio.to_thread(thread.call, thread_name()) == "worker"


def test_what_still_runs_is_cancelled_at_the_end() -> None:
    cancelled = threading.Event()

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with LoopThread("worker") as thread:
        with pytest.raises(TimeoutError):
            thread.call(wait_for_ever(), seconds=0.01)
        asyncio.run_coroutine_threadsafe(wait_for_ever(), thread.loop)
    assert cancelled.is_set()


def test_it_can_be_stopped_twice_and_started_again() -> None:
    thread = LoopThread("worker")
    thread.start()
    thread.stop()
    thread.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = thread.loop
    with thread:
        assert thread.call(thread_name()) == "worker"
