from __future__ import annotations

import asyncio
import threading

import pytest

from natproxy.connect.aside import aside
from natproxy.errors import PortalError


async def test_what_is_returned_and_raised_beside_the_loop_is_so_here() -> None:
    assert await aside("work", lambda: threading.current_thread().name) == "work"

    def fail() -> None:
        raise PortalError("it is none")

    with pytest.raises(PortalError, match="it is none"):
        await aside("work", fail)


def test_nobody_waits_for_what_hangs() -> None:
    may_end = threading.Event()
    ended = threading.Event()

    def hang() -> None:
        may_end.wait(20)
        ended.set()

    async def give_up() -> None:
        begun = asyncio.get_running_loop().create_task(aside("work", hang), name="begun")
        await asyncio.sleep(0)
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun

    asyncio.run(give_up())
    assert not ended.is_set()
    may_end.set()  # the loop is closed by now
    assert ended.wait(20)
