from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from natproxy.discover import names as names_module
from natproxy.discover.names import Names
from tests.standins.dns import DnsFault, DnsServer
from tests.standins.zone import Zone

HOST = "my-redis-001.x7f3k.0001.use1.cache.amazonaws.com"
OTHER = "my-redis-002.x7f3k.0001.use1.cache.amazonaws.com"
LONG = 3600.0
"""An interval that no test waits for."""

Answer = tuple[str, tuple[str, ...] | None, str]


class Answers:
    """Every answer told, and a way to wait for the next one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Answer] = asyncio.Queue()

    def __call__(self, host: str, addresses: tuple[str, ...] | None, reason: str) -> None:
        self.queue.put_nowait((host, addresses, reason))

    async def next(self) -> Answer:
        async with asyncio.timeout(20):
            return await self.queue.get()


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    """A DNS server that lets answers be kept for an hour, which natproxy must not do."""
    with DnsServer(Zone(ttl_seconds=3600)) as server:
        server.zone.put(HOST, "10.0.1.230")
        server.zone.put(OTHER, "10.0.1.231")
        yield server


@asynccontextmanager
async def resolving(*servers: str, interval: float = LONG) -> AsyncIterator[tuple[Names, Answers]]:
    answers = Answers()
    names = Names(servers or None, answers, interval)
    try:
        yield names, answers
    finally:
        await names.close()


async def test_a_new_name_is_resolved_at_once(dns: DnsServer) -> None:
    async with resolving(dns.where) as (names, answers):
        names.watch([HOST])
        assert await answers.next() == (HOST, ("10.0.1.230",), "")
    assert sorted(query.kind for query in dns.queries(HOST)) == ["A", "AAAA"]


async def test_it_works_on_uvloop_too(dns: DnsServer) -> None:
    async def resolve() -> Answer:
        async with resolving(dns.where) as (names, answers):
            names.watch([HOST])
            return await answers.next()

    def run() -> Answer:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(resolve())

    assert await asyncio.to_thread(run) == (HOST, ("10.0.1.230",), "")


async def test_an_answer_is_the_whole_set_sorted_by_number_ipv4_first(dns: DnsServer) -> None:
    dns.zone.put(HOST, "10.0.1.231", "2001:db8::1", "10.0.1.9", "10.0.1.100")
    async with resolving(dns.where) as (names, answers):
        names.watch([HOST])
        assert await answers.next() == (HOST, ("10.0.1.9", "10.0.1.100", "10.0.1.231", "2001:db8::1"), "")


async def test_a_large_set_comes_over_tcp(dns: DnsServer) -> None:
    addresses = tuple(f"10.0.2.{number}" for number in range(1, 251))
    dns.zone.put(HOST, *addresses)
    async with resolving(dns.where) as (names, answers):
        names.watch([HOST])
        assert await answers.next() == (HOST, addresses, "")
    assert "tcp" in {query.transport for query in dns.queries(HOST)}


async def test_other_names_are_followed(dns: DnsServer) -> None:
    dns.zone.alias("primary.example", HOST)
    async with resolving(dns.where) as (names, answers):
        names.watch(["primary.example"])
        assert await answers.next() == ("primary.example", ("10.0.1.230",), "")


async def test_names_are_asked_for_again_and_no_ttl_keeps_an_old_answer(dns: DnsServer) -> None:
    async with resolving(dns.where, interval=0.1) as (names, answers):
        names.watch([HOST])
        assert await answers.next() == (HOST, ("10.0.1.230",), "")
        dns.zone.put(HOST, "10.0.1.240", "2001:db8::1")
        assert await answers.next() == (HOST, ("10.0.1.240", "2001:db8::1"), "")


async def test_two_questions_about_a_name_are_a_second_apart_however_short_the_interval(dns: DnsServer) -> None:
    async with resolving(dns.where, interval=0.001) as (names, answers):
        names.watch([HOST])
        started = time.monotonic()
        for _ in range(3):
            await answers.next()
        assert time.monotonic() - started > 1.9


async def test_hurry_asks_again_long_before_the_interval(dns: DnsServer) -> None:
    async with resolving(dns.where) as (names, answers):
        names.watch([HOST])
        await answers.next()
        dns.zone.put(HOST, "10.0.1.240")
        started = time.monotonic()
        for _ in range(100):
            names.hurry(HOST)
        assert await answers.next() == (HOST, ("10.0.1.240",), "")
        assert time.monotonic() - started < 15
    assert len([query for query in dns.queries(HOST) if query.kind == "A"]) == 2


async def test_hurry_about_a_name_nobody_watches_does_nothing(dns: DnsServer) -> None:
    async with resolving(dns.where) as (names, _answers):
        names.hurry(HOST)
        names.watch(["10.0.1.230"])
        names.hurry("10.0.1.230")
    assert not dns.queries()


async def test_a_name_no_longer_watched_is_not_asked_for(dns: DnsServer) -> None:
    async with resolving(dns.where, interval=0.1) as (names, answers):
        names.watch([HOST, OTHER])
        assert {(await answers.next())[0], (await answers.next())[0]} == {HOST, OTHER}
        names.watch([OTHER])
        asked = len(dns.queries(HOST))
        for _ in range(3):
            assert (await answers.next())[0] == OTHER
        assert len(dns.queries(HOST)) == asked


async def test_watching_the_same_names_again_asks_nothing_new(dns: DnsServer) -> None:
    async with resolving(dns.where) as (names, answers):
        names.watch([HOST])
        await answers.next()
        names.watch([HOST, OTHER])
        assert (await answers.next())[0] == OTHER
        assert len(dns.queries(HOST)) == 2


async def test_numeric_hosts_answer_themselves_at_once_and_only_when_new(dns: DnsServer) -> None:
    async with resolving(dns.where) as (names, answers):
        names.watch(["10.0.1.230", "2001:DB8::0:1"])
        names.watch(["10.0.1.230", "2001:DB8::0:1", "10.0.1.231"])
        told = [answers.queue.get_nowait() for _ in range(3)]
        assert told == [
            ("10.0.1.230", ("10.0.1.230",), ""),
            ("2001:DB8::0:1", ("2001:db8::1",), ""),
            ("10.0.1.231", ("10.0.1.231",), ""),
        ]
        assert answers.queue.empty()
    assert not dns.queries()


async def test_the_hosts_file_is_read() -> None:
    async with resolving() as (names, answers):
        names.watch(["localhost"])
        host, addresses, _ = await answers.next()
        assert host == "localhost"
        assert addresses is not None
        assert "127.0.0.1" in addresses


# failures


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nxdomain", "the name does not exist"),
        ("empty", "the name has no address"),
        ("servfail", "the DNS server failed (SERVFAIL)"),
        ("refused", "the DNS server refused the question"),
        ("silent", "the DNS server does not answer"),
    ],
)
async def test_a_failure_is_told_with_its_reason_and_the_next_answer_is_taken(
    dns: DnsServer, fault: DnsFault, reason: str
) -> None:
    dns.fail(HOST, fault)
    async with resolving(dns.where) as (names, answers):
        names.watch([HOST])
        assert await answers.next() == (HOST, None, reason)
        dns.heal()
        names.hurry(HOST)
        assert await answers.next() == (HOST, ("10.0.1.230",), "")


async def test_a_dns_server_that_is_gone_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
    async with resolving(where) as (names, answers):
        names.watch([HOST])
        host, addresses, reason = await answers.next()
        assert (host, addresses) == (HOST, None)
        assert reason in {"the DNS server refuses the connection", "the DNS server does not answer"}


async def test_the_second_server_is_asked_where_the_first_is_silent(dns: DnsServer) -> None:
    with DnsServer(Zone()) as silent:
        silent.fail("*", "silent")
        async with resolving(silent.where, dns.where) as (names, answers):
            names.watch([HOST])
            assert await answers.next() == (HOST, ("10.0.1.230",), "")


@pytest.mark.parametrize(
    "host", ["", " ", "a..b", "x" * 64 + ".example", "x." * 200, "späße.example", "\udc80.example"]
)
async def test_what_cannot_be_a_host_name_fails_and_harms_no_other(dns: DnsServer, host: str) -> None:
    async with resolving(dns.where) as (names, answers):
        names.watch([host, HOST])
        told = {told_host: addresses for told_host, addresses, _ in (await answers.next(), await answers.next())}
        assert told == {host: None, HOST: ("10.0.1.230",)}


class HalfServer(DnsServer):
    """Fails every question of one kind."""

    broken: str | None = None

    def respond(self, packet: bytes, transport: str) -> bytes | None:
        kind = packet[12:].split(b"\0", 1)[1][1]
        if self.broken is not None and {1: "A", 28: "AAAA"}.get(kind) == self.broken:
            return packet[:2] + b"\x81\x82" + packet[4:12] + packet[12:]
        return super().respond(packet, transport)


@pytest.mark.parametrize("broken", ["A", "AAAA"])
async def test_a_family_that_fails_counts_as_what_it_answered_last(broken: str) -> None:
    with HalfServer(Zone()) as dns:
        dns.zone.put(HOST, "10.0.1.230", "2001:db8::1")
        async with resolving(dns.where) as (names, answers):
            names.watch([HOST])
            assert await answers.next() == (HOST, ("10.0.1.230", "2001:db8::1"), "")
            dns.broken = broken
            names.hurry(HOST)
            assert await answers.next() == (HOST, ("10.0.1.230", "2001:db8::1"), "")
            dns.broken = None
            dns.zone.put(HOST, "10.0.1.230")
            names.hurry(HOST)
            assert await answers.next() == (HOST, ("10.0.1.230",), "")


async def test_a_name_without_ipv6_resolves_though_questions_for_ipv6_fail() -> None:
    with HalfServer(Zone()) as dns:
        dns.zone.put(HOST, "10.0.1.230")
        dns.broken = "AAAA"
        async with resolving(dns.where) as (names, answers):
            names.watch([HOST])
            assert await answers.next() == (HOST, ("10.0.1.230",), "")


async def test_whoever_fails_to_take_an_answer_in_is_told_the_next_one_all_the_same(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    def clumsy(host: str, _addresses: tuple[str, ...] | None, _reason: str) -> None:
        told.put_nowait(host)
        raise RuntimeError("dropped it")

    names = Names((dns.where,), clumsy, LONG)
    names.watch([HOST])
    await told.get()
    names.hurry(HOST)
    await told.get()
    await names.close()
    assert "dropped it" in caplog.text


# life


async def test_other_servers_are_asked_after_a_reconfiguration(dns: DnsServer) -> None:
    with DnsServer(Zone()) as second:
        second.zone.put(HOST, "10.0.9.9")
        async with resolving(dns.where) as (names, answers):
            names.watch([HOST])
            assert await answers.next() == (HOST, ("10.0.1.230",), "")
            names.reconfigure((second.where,))
            assert await answers.next() == (HOST, ("10.0.9.9",), "")
            names.reconfigure((second.where,))
            assert len(second.queries(HOST)) == 2


async def test_closing_ends_questions_under_way_and_leaves_no_task(dns: DnsServer) -> None:
    dns.fail("*", "silent")
    answers = Answers()
    names = Names((dns.where,), answers, LONG)
    names.watch([HOST, OTHER])
    await dns.wait_for_async(HOST)
    await names.close()
    assert answers.queue.empty()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_many_names_are_resolved_quickly_and_threads_do_not_grow(dns: DnsServer) -> None:
    hosts = [f"node-{number}.example" for number in range(500)]
    for number, host in enumerate(hosts):
        dns.zone.put(host, f"10.1.{number // 250}.{number % 250 + 1}")
    before = threading.active_count()
    async with resolving(dns.where) as (names, answers):
        names.watch(hosts)
        told: dict[str, tuple[str, ...]] = {}
        while len(told) < len(hosts):  # where the machine is busy, one is asked for again now and then
            host, addresses, _ = await answers.next()
            if addresses is not None:
                told[host] = addresses
        assert told["node-499.example"] == ("10.1.1.250",)
        assert threading.active_count() <= before + 1  # pycares' one, which closes resolvers
        assert len(names._resolvers._open) <= 3


def test_a_resolver_never_lives_long_enough_to_be_asked_for_a_name_twice() -> None:
    assert names_module.RESOLVER_SECONDS < names_module.MIN_SECONDS
