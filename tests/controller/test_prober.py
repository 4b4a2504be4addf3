from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from natproxy.controller import prober as prober_module
from natproxy.controller.prober import Prober
from natproxy.model import Address
from tests.controller.samples import free_ports


class Answers:
    """What the prober tells, to be waited for."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[Address, bool]] = asyncio.Queue()
        self.prober = Prober(lambda address, answers: self.queue.put_nowait((address, answers)), seconds=0.0)

    async def next(self) -> tuple[Address, bool]:
        return await asyncio.wait_for(self.queue.get(), 10)


@pytest.fixture
async def answers() -> AsyncIterator[Answers]:
    answers = Answers()
    yield answers
    await answers.prober.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


async def test_an_address_that_listens_answers(answers: Answers, listening: socket.socket) -> None:
    address = Address(*listening.getsockname())
    answers.prober.watch([(address, 5.0)])
    assert await answers.next() == (address, True)


async def test_a_probe_hangs_up_at_once(answers: Answers, listening: socket.socket) -> None:
    answers.prober.watch([(Address(*listening.getsockname()), 5.0)])
    await answers.next()
    accepted, _ = listening.accept()
    with accepted:
        assert accepted.recv(1) == b""


async def test_an_address_that_refuses_does_not_answer(answers: Answers) -> None:
    address = Address("127.0.0.1", *free_ports(1))
    answers.prober.watch([(address, 5.0)])
    assert await answers.next() == (address, False)


async def test_an_address_that_says_nothing_does_not_answer(answers: Answers) -> None:
    with socket.socket() as full:  # its queue is full: the kernel ignores whoever comes
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = Address(*full.getsockname())
        with socket.create_connection(address):
            answers.prober.watch([(address, 0.05)])
            assert await answers.next() == (address, False)


async def test_an_address_in_doubt_is_asked_again(answers: Answers, listening: socket.socket) -> None:
    address = Address(*listening.getsockname())
    for _ in range(3):
        answers.prober.watch([(address, 5.0)])
        assert await answers.next() == (address, True)


async def test_an_address_is_not_asked_before_it_is_due(listening: socket.socket) -> None:
    told: asyncio.Queue[tuple[Address, bool]] = asyncio.Queue()
    prober = Prober(lambda address, answers: told.put_nowait((address, answers)), seconds=60.0)
    address = Address(*listening.getsockname())
    prober.watch([(address, 5.0)])
    await asyncio.wait_for(told.get(), 10)
    prober.watch([(address, 5.0)])
    assert not prober._tasks._tasks
    await prober.close()


async def test_nothing_is_told_of_an_address_that_is_not_in_doubt_any_more(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def slowly(address: Address, timeout_seconds: float) -> bool:
        asked.set()
        await released.wait()
        return False

    monkeypatch.setattr(prober_module, "_answers", slowly)
    answers.prober.watch([(Address("192.0.2.1", 6379), 3.0)])
    await asyncio.wait_for(asked.wait(), 10)
    answers.prober.watch([])
    released.set()
    await asyncio.gather(*answers.prober._tasks._tasks)
    assert answers.queue.empty()
    assert answers.prober._due == {}


async def test_addresses_that_wait_for_their_turn_do_not_pile_up(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = asyncio.Event()

    async def never_soon(address: Address, timeout_seconds: float) -> bool:
        await released.wait()
        return False

    monkeypatch.setattr(prober_module, "_answers", never_soon)
    addresses = [(Address("192.0.2.1", number), 3.0) for number in range(1, 101)]
    for _ in range(20):
        answers.prober.watch(addresses)
        await asyncio.sleep(0)
    assert len(answers.prober._tasks._tasks) == 100
    released.set()
    assert {(await answers.next())[0] for _ in addresses} == {address for address, _ in addresses}


async def test_what_is_forgotten_leaves_nothing_behind(answers: Answers, listening: socket.socket) -> None:
    address = Address(*listening.getsockname())
    answers.prober.watch([(address, 5.0)])
    await answers.next()
    answers.prober.watch([])
    assert (answers.prober._due, answers.prober._timeouts, answers.prober._being_asked) == ({}, {}, set())


async def test_a_closed_prober_asks_no_more(listening: socket.socket) -> None:
    told: list[Address] = []
    prober = Prober(lambda address, _answers: told.append(address))
    prober.watch([(Address(*listening.getsockname()), 5.0)])
    await prober.close()
    assert told == []
    assert not prober._tasks._tasks
