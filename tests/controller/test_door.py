"""natproxy.controller.door: who is let in, and what slow ones and many of them cost the others."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from natproxy.controller import door as door_module
from natproxy.controller import webtls
from natproxy.controller.door import (
    HANDSHAKES_PER_SECOND,
    MOST_HANDSHAKES,
    REFUSALS_LOGGED,
    SHARE_OF_A_CLIENT,
    Door,
    Pace,
)
from natproxy.controller.httpserver import HttpServer, text_answer
from natproxy.controller.sockets import Sockets
from natproxy.controller.webmetrics import SideCounts
from natproxy.controller.webtls import WebTls
from natproxy.model import Network
from natproxy.tls.identity import serial_text
from tests.controller.webside import Identities, closed

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


def refusals_logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    return [
        {name: str(value) for name, value in vars(record)["natproxy_fields"].items() if value is not None}
        for record in caplog.records
        if (record.levelno, record.getMessage()) == (logging.INFO, "portal refused a client")
    ]


async def test_whoever_is_refused_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "natproxy")
    identities = Identities(tmp_path)
    revoked = identities.clients.issue("dev2", usage="client")
    identities.tls = identities.made((revoked,))
    async with side(WebTls(lambda: identities.tls), [ipaddress.ip_network("127.0.0.1/32")]) as found:
        assert await greeted(found.door.port, "127.0.0.2") == b""
        assert await greeted(found.door.port) == b"HTTP/1.1 400 Bad Request\r\n"
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await identities.ask(found.door.port, "/", revoked)
        await found.told(lambda: found.refusals().total() == 3)
        reader, writer = await identities.talk(found.door.port, identities.dev)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readline()
        own_port = writer.get_extra_info("sockname")[1]
        identities.tls = identities.made((revoked, identities.dev))
        found.door.tick()
        await closed(writer)
    stranger, plain, claimed, ended = refusals_logged(caplog)
    assert stranger.pop("client").startswith("127.0.0.2:")
    assert stranger == {"reason": "network"}
    assert plain.pop("client").startswith("127.0.0.1:")
    assert plain == {"reason": "clear-text", "detail": "it does not speak TLS"}
    assert claimed.pop("client").startswith("127.0.0.1:")
    serial = serial_text(revoked.serial)
    assert claimed == {
        "reason": "revoked",
        "claimed_certificate": "dev2",
        "claimed_serial": serial,
        "detail": "its certificate is revoked",
    }
    serial = serial_text(identities.dev.serial)
    assert ended == {
        "reason": "revoked",
        "client": f"127.0.0.1:{own_port}",
        "certificate": "dev1",
        "serial": serial,
        "detail": f"the certificate of dev1 (serial {serial}) is revoked",
    }


async def test_strangers_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "natproxy")
    many = 200
    async with side(allow=[]) as found:
        for _ in range(many):
            assert await greeted(found.door.port) == b""
        await found.told(lambda: found.refusals().total() == many)
        told = len(refusals_logged(caplog))
        assert REFUSALS_LOGGED <= told <= many / 2
        assert found.counts.dropped_lines == many - told


async def test_lines_that_nobody_wants_are_not_counted_as_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "natproxy")
    async with side(allow=[]) as found:
        for _ in range(3 * REFUSALS_LOGGED):
            assert await greeted(found.door.port) == b""
        await found.told(lambda: found.refusals().total() == 3 * REFUSALS_LOGGED)
    assert found.counts.dropped_lines == 0


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


async def test_many_quick_ones_of_a_few_keep_nobody_waiting(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    many = 2 * HANDSHAKES_PER_SECOND
    async with side(WebTls(lambda: identities.tls)) as found:
        for number in range(HANDSHAKES_PER_SECOND):  # from now on others have to wait
            _, writer = await silent(found.door.port, f"127.0.1.{number + 1}")
            writer.transport.abort()
        for _ in range(many):
            _, writer = await silent(found.door.port, "127.0.0.2")
            writer.transport.abort()
        assert (await identities.ask(found.door.port, "/")).status == 200
        # At the common pace, in the order of arrival, all of them would have been begun before.
        assert found.refusals()["limit"] > many / 2


async def test_what_a_client_began_while_nobody_waited_is_not_held_against_it(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    async with side(WebTls(lambda: identities.tls)) as found:
        for _ in range(HANDSHAKES_PER_SECOND // SHARE_OF_A_CLIENT * 2):
            assert (await identities.ask(found.door.port, "/")).status == 200
        assert found.refusals() == {}


def test_a_pace_is_used_up_and_rests() -> None:
    now = 1000.0
    pace = Pace(8, lambda: now, 2.0)
    seen = [(pace.is_used_up, pace.is_rested)]
    for _ in range(16):
        seen.append((pace.is_used_up, pace.is_rested))
        pace.wait_seconds()
    assert seen[:2] == [(False, True)] * 2
    assert seen[2:] == [(False, False)] * 15
    assert (pace.is_used_up, pace.is_rested) == (True, False)
    now += 0.125
    assert (pace.is_used_up, pace.is_rested) == (False, False)
    now += 2
    assert (pace.is_used_up, pace.is_rested) == (False, True)


async def test_those_who_are_turned_away_do_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, rounds = asyncio.get_running_loop(), 0
    seen: list[int] = []
    many, are_done = 20, asyncio.Event()

    def record(_: str) -> None:
        seen.append(rounds)
        if len(seen) == many:
            are_done.set()

    def come_round() -> None:
        nonlocal rounds
        rounds += 1
        if not are_done.is_set():
            loop.call_soon(come_round)

    async with side(allow=[]) as found:
        monkeypatch.setattr(found.counts, "record_refusal", record)
        loop.call_soon(come_round)
        socks = [socket.create_connection(("127.0.0.1", found.door.port)) for _ in range(many)]
        async with asyncio.timeout(20):
            await are_done.wait()
        for sock in socks:
            sock.close()
    assert len(set(seen)) == many


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
