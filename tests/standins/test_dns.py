from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import aiodns
import dnslib
import pytest

from tests.standins.aws import AwsWorld
from tests.standins.dns import DnsFault, DnsServer
from tests.standins.zone import Zone

NAME = "n.example"


@pytest.fixture
def zone() -> Zone:
    zone = Zone()
    zone.put(NAME, "10.0.1.230")
    zone.put("both.example", "10.0.1.230", "2001:db8::1")
    zone.alias("primary.example", NAME)
    zone.put("many.example", *(f"10.0.2.{number}" for number in range(100)))
    return zone


@pytest.fixture
def dns(zone: Zone) -> Iterator[DnsServer]:
    with DnsServer(zone) as server:
        yield server


async def resolved(dns: DnsServer, name: str, kind: str = "A") -> list[str]:
    """Resolve as natproxy does, with aiodns; aliases are followed, and left out."""
    resolver = aiodns.DNSResolver(nameservers=[dns.where], timeout=0.5, tries=1)
    try:
        answer = await resolver.query_dns(name, kind)
    finally:
        await resolver.close()
    return [record.data.addr for record in answer.answer if hasattr(record.data, "addr")]


def asked(dns: DnsServer, name: str, kind: str = "A", *, tcp: bool = False) -> dnslib.DNSRecord:
    question = dnslib.DNSRecord.question(name, kind)
    return dnslib.DNSRecord.parse(question.send(dns.address, dns.port, tcp=tcp, timeout=5))


async def test_aiodns_resolves_addresses_of_both_kinds(dns: DnsServer) -> None:
    assert await resolved(dns, "both.example") == ["10.0.1.230"]
    assert await resolved(dns, "both.example", "AAAA") == ["2001:db8::1"]


async def test_aiodns_follows_aliases(dns: DnsServer) -> None:
    assert await resolved(dns, "primary.example") == ["10.0.1.230"]


async def test_aiodns_sees_a_change_at_once_with_a_new_resolver(dns: DnsServer, zone: Zone) -> None:
    assert await resolved(dns, NAME) == ["10.0.1.230"]
    zone.put(NAME, "10.0.1.240")
    assert await resolved(dns, NAME) == ["10.0.1.240"]


async def test_aiodns_goes_on_over_tcp_where_udp_is_too_small(dns: DnsServer) -> None:
    assert len(await resolved(dns, "many.example")) == 100
    assert [query.transport for query in dns.queries("many.example")] == ["udp", "tcp"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("nxdomain", aiodns.error.ARES_ENOTFOUND),
        ("servfail", aiodns.error.ARES_ESERVFAIL),
        ("refused", aiodns.error.ARES_EREFUSED),
        ("silent", aiodns.error.ARES_ETIMEOUT),
        ("empty", aiodns.error.ARES_ENODATA),
    ],
)
async def test_each_fault_is_aiodnss_error_until_it_is_healed(dns: DnsServer, fault: DnsFault, code: int) -> None:
    dns.fail(NAME, fault)
    with pytest.raises(aiodns.error.DNSError) as failed:
        await resolved(dns, NAME)
    assert failed.value.args[0] == code
    assert await resolved(dns, "both.example") == ["10.0.1.230"], "other names are well"
    dns.heal(NAME)
    assert await resolved(dns, NAME) == ["10.0.1.230"]


async def test_a_name_that_does_not_exist_is_not_found(dns: DnsServer) -> None:
    with pytest.raises(aiodns.error.DNSError) as failed:
        await resolved(dns, "other.example")
    assert failed.value.args[0] == aiodns.error.ARES_ENOTFOUND


def test_a_star_lets_every_name_fail(dns: DnsServer) -> None:
    dns.fail("*", "servfail")
    assert asked(dns, NAME).header.rcode == dnslib.RCODE.SERVFAIL
    dns.heal()
    assert asked(dns, NAME).header.rcode == dnslib.RCODE.NOERROR


@pytest.mark.parametrize("tcp", [False, True])
def test_answers_carry_the_zones_ttl(dns: DnsServer, tcp: bool) -> None:
    answer = asked(dns, "primary.example", tcp=tcp)
    assert [(str(r.rname), dnslib.QTYPE[r.rtype], str(r.rdata), r.ttl) for r in answer.rr] == [
        ("primary.example.", "CNAME", "n.example.", 15),
        ("n.example.", "A", "10.0.1.230", 15),
    ]


def test_an_answer_that_is_too_large_for_udp_says_so(dns: DnsServer) -> None:
    answer = asked(dns, "many.example")
    assert answer.header.tc == 1
    assert answer.rr == []


def test_a_tcp_connection_carries_several_questions(dns: DnsServer) -> None:
    question = bytes(dnslib.DNSRecord.question(NAME).pack())
    with socket.create_connection((dns.address, dns.port), 5) as connection, connection.makefile("rb") as stream:
        for _ in range(2):
            connection.sendall(len(question).to_bytes(2) + question)
            length = int.from_bytes(stream.read(2))
            assert len(dnslib.DNSRecord.parse(stream.read(length)).rr) == 1


def test_noise_is_passed_over(dns: DnsServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noisy:
        noisy.sendto(b"noise", (dns.address, dns.port))
    assert len(asked(dns, NAME).rr) == 1


def test_questions_are_counted_and_waited_for(dns: DnsServer) -> None:
    asking = threading.Thread(target=asked, args=(dns, "N.example"))
    asking.start()
    [query] = dns.wait_for(NAME)
    asking.join(10)
    assert (query.name, query.kind, query.transport) == (NAME, "A", "udp")
    with pytest.raises(TimeoutError, match="asked for 1 times, not 2"):
        dns.wait_for_more(NAME, seconds=0.01)


async def test_a_running_loop_can_wait_too(dns: DnsServer) -> None:
    waiting = asyncio.gather(dns.wait_for_async(NAME), resolved(dns, NAME))
    assert (await waiting)[1] == ["10.0.1.230"]


async def test_the_names_of_a_world_follow_it() -> None:
    world = AwsWorld()
    world.add_replication_group("my-redis")
    primary = world.group_names(world.group("my-redis")).primary()
    reader = world.group_names(world.group("my-redis")).reader()
    with DnsServer(world.zone) as dns:
        assert await resolved(dns, primary) == ["10.0.1.230"]
        assert {*await resolved(dns, reader), *await resolved(dns, reader)} == {"10.0.1.231", "10.0.1.232"}
        world.failover("my-redis")
        assert await resolved(dns, primary) == ["10.0.1.231"]


def test_a_taken_port_is_said(dns: DnsServer, zone: Zone) -> None:
    with pytest.raises(OSError, match="in use"):
        DnsServer(zone, port=dns.port).start()
