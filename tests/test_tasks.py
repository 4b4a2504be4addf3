"""Tasks with a name and an owner."""

from __future__ import annotations

import asyncio

from natproxy.tasks import TaskOwner


class Noting:
    """Notes failures, and can be waited for."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []
        self.happened = asyncio.Event()

    def __call__(self, name: str, error: BaseException) -> None:
        self.failures.append((name, repr(error)))
        self.happened.set()


async def fail() -> None:
    raise RuntimeError("no")


async def wait_for_ever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def test_a_failure_is_told_once_with_the_task_s_name() -> None:
    noting = Noting()
    owner = TaskOwner(noting)
    task = owner.start("the work", fail())
    assert task.get_name() == "the work"
    await noting.happened.wait()
    assert noting.failures == [("the work", "RuntimeError('no')")]
    await owner.cancel_all()
    assert len(noting.failures) == 1


async def test_a_task_that_ends_well_is_forgotten() -> None:
    noting = Noting()
    owner = TaskOwner(noting)
    await owner.start("nothing", asyncio.sleep(0))
    await asyncio.sleep(0)
    assert not owner._tasks
    assert noting.failures == []


async def test_cancelling_waits_for_every_end_and_is_no_failure() -> None:
    noting = Noting()
    owner = TaskOwner(noting)
    ended: list[str] = []
    for number in range(3):
        owner.start(f"waiting {number}", wait_for_ever(ended))
    await asyncio.sleep(0)
    await owner.cancel_all()
    assert ended == ["ended"] * 3
    await asyncio.sleep(0)
    assert not owner._tasks
    assert noting.failures == []


async def test_a_task_that_fails_when_it_is_cancelled_is_told_and_stops_nothing() -> None:
    noting = Noting()
    owner = TaskOwner(noting)
    ended: list[str] = []

    async def stumble() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("stumbled")

    owner.start("stumbling", stumble())
    owner.start("waiting", wait_for_ever(ended))
    await asyncio.sleep(0)
    await owner.cancel_all()
    await noting.happened.wait()
    assert ended == ["ended"]
    assert noting.failures == [("stumbling", "RuntimeError('stumbled')")]


async def test_who_waits_for_the_ends_can_itself_be_cancelled() -> None:
    owner = TaskOwner(Noting())
    is_allowed = asyncio.Event()
    is_cancelled = asyncio.Event()

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            is_cancelled.set()
            await is_allowed.wait()

    owner.start("lingering", linger())
    await asyncio.sleep(0)
    waiting = asyncio.get_running_loop().create_task(owner.cancel_all())
    await is_cancelled.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    is_allowed.set()
    await owner.cancel_all()
    assert not owner._tasks


async def test_cancelling_nothing_is_fine() -> None:
    await TaskOwner(Noting()).cancel_all()
