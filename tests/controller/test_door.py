"""natproxy.controller.door: who is let in, and what slow ones and many of them cost the others."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from natproxy.controller import door as door_module
from natproxy.controller import webtls
from natproxy.controller.door import HANDSHAKES_PER_SECOND, MOST_HANDSHAKES, SHARE_OF_A_CLIENT, Door, Pace
from natproxy.controller.httpserver import HttpServer, text_answer
from natproxy.controller.sockets import Sockets
from natproxy.controller.webmetrics import SideCounts
from natproxy.controller.webtls import WebTls
from natproxy.model import Network
from tests.controller.webside import Identities

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ANYWHERE: Network = ipaddress.ip_network("0.0.0.0/0")


class Counts(SideCounts):
    """Tells when something is counted."""

    def __init__(self) -> None:
        super().__init__("portal")
        self.said = asyncio.Event()

    def record_refusal(self, reason: str) -> None:
        super().record_refusal(reason)
        self.said.set()


class Side:
    def __init__(self, tls: WebTls | None, allow: Iterable[Network] | None, address: str) -> None:
        self.counts = Counts()
        http = HttpServer(_hello, tell=self.counts.record_request)
        self.door = Door("portal", Sockets([address]).open(0), http, counts=self.counts, allow=allow, tls=tls)

    async def told(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so, looking anew whenever a client has been turned away."""
        async with asyncio.timeout(20):
            while not is_so():
                self.counts.said.clear()
                await self.counts.said.wait()

    def refusals(self) -> Counter[str]:
        _, refusals = self.counts.families()
        return Counter({sample.labels["reason"]: int(sample.value) for sample in refusals.samples})


async def _hello(_: web.BaseRequest) -> web.Response:
    return text_answer(200, "hello")


@asynccontextmanager
async def side(
    tls: WebTls | None = None, allow: Iterable[Network] | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[Side]:
    found = Side(tls, allow, address)
    found.door.open()
    yield found
    await found.door.close(1.0)


async def greeted(port: int, source: str = "127.0.0.1", to: str = "127.0.0.1") -> bytes:
    """Ask in the clear; return the first line that comes."""
    try:
        reader, writer = await asyncio.open_connection(to, port, local_addr=(source, 0))
    except ConnectionError:
        return b""
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await reader.readline()
    writer.close()
    return said


async def silent(port: int, source: str) -> Pair:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))


def test_a_pace_lets_a_second_s_worth_go_at_once_and_then_holds_back() -> None:
    now = 1000.0
    pace = Pace(10, lambda: now)
    assert [pace.wait_seconds() for _ in range(10)] == pytest.approx([0.0] * 10)
    assert pace.wait_seconds() == pytest.approx(0.1)
    assert pace.wait_seconds() == pytest.approx(0.2)
    now += 0.2
    assert pace.wait_seconds() == pytest.approx(0.1)
    now += 100
    assert [pace.wait_seconds() for _ in range(10)] == pytest.approx([0.0] * 10)
    assert pace.wait_seconds() > 0.05


@pytest.mark.parametrize(
    ("allowed", "source", "is_let_in"),
    [
        ("127.0.0.2/32", "127.0.0.2", True),
        ("127.0.0.2/32", "127.0.0.1", False),
        ("127.0.0.0/8", "127.9.9.9", True),
        ("::/0", "127.0.0.1", False),
    ],
)
async def test_only_allowed_networks_are_answered(allowed: str, source: str, is_let_in: bool) -> None:
    async with side(allow=[ipaddress.ip_network(allowed)]) as found:
        assert await greeted(found.door.port, source) == (b"HTTP/1.1 200 OK\r\n" if is_let_in else b"")
    assert found.refusals() == ({} if is_let_in else {"network": 1})


async def test_ipv4_through_an_ipv6_socket_counts_as_ipv4() -> None:
    async with side(allow=[ipaddress.ip_network("127.0.0.1/32")], address="::") as found:
        assert (await greeted(found.door.port)).startswith(b"HTTP/1.1 200")
        assert await greeted(found.door.port, "127.0.0.2") == b""
        assert await greeted(found.door.port, "::1", "::1") == b""
    assert found.refusals() == {"network": 2}


async def test_who_is_not_allowed_is_closed_before_any_handshake(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    async with side(WebTls(lambda: identities.tls), [ipaddress.ip_network("127.0.0.2/32")]) as found:
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await identities.ask(found.door.port)
    assert found.refusals() == {"network": 1}


async def test_slow_handshakes_of_a_few_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "HANDSHAKES_PER_SECOND", 100_000)
    identities = Identities(tmp_path)
    async with side(WebTls(lambda: identities.tls)) as found:
        slow: list[Pair] = []
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            slow += await asyncio.gather(*(silent(found.door.port, source) for _ in range(MOST_HANDSHAKES)))
        for _, writer in slow[::7]:
            writer.write(b"\x16")  # the first byte of a handshake, and no other
        answer = await identities.ask(found.door.port, "/")
        assert (answer.status, answer.body) == (200, b"hello\n")
        assert found.refusals()["limit"] > len(slow) - MOST_HANDSHAKES
        for _, writer in slow:
            writer.close()
        await found.told(lambda: found.refusals()["closed"] >= MOST_HANDSHAKES // SHARE_OF_A_CLIENT)
        assert (await identities.ask(found.door.port, "/")).status == 200


async def test_silent_ones_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webtls, "HANDSHAKE_SECONDS", 0.05)
    identities = Identities(tmp_path)
    async with side(WebTls(lambda: identities.tls)) as found:
        reader, writer = await silent(found.door.port, "127.0.0.1")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert found.refusals() == {"timeout": 1}


async def test_a_rush_of_handshakes_waits_in_the_kernel(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    many = HANDSHAKES_PER_SECOND + 10
    begun = asyncio.get_running_loop().time()
    async with side(WebTls(lambda: identities.tls)) as found:
        for number in range(many):
            _, writer = await silent(found.door.port, f"127.0.1.{number + 1}")
            writer.transport.abort()
        await found.told(lambda: found.refusals().total() == many)
    assert asyncio.get_running_loop().time() - begun > 0.9 * 10 / HANDSHAKES_PER_SECOND


async def test_it_goes_on_after_a_connection_that_could_not_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, iter([OSError(24, "Too many open files")])

    async def failing(listener: object) -> object:
        for failure in failures:
            raise failure
        return await accept(listener)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "sock_accept", failing)
    async with side(allow=[ANYWHERE]) as found:
        assert (await greeted(found.door.port)).startswith(b"HTTP/1.1 200")
