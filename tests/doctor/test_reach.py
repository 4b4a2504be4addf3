from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from natproxy.doctor.findings import Check, Verdict
from natproxy.doctor.outcomes import Outcome
from natproxy.doctor.reach import Dialled, dial, dial_all, reach_findings
from natproxy.doctor.targets import Target
from natproxy.model import Address
from tests.standins.dns import DnsServer
from tests.standins.zone import Zone

NODE = "my-redis-001.x.use1.cache.amazonaws.com"
PLACE = Address("10.0.1.230", 6379)


def target(host: str = NODE, port: int = 6379, *, is_static: bool = False, may_be_local: bool = True) -> Target:
    subject = "legacy" if is_static else "my-redis-001/0001"
    return Target(subject, host, port, False, None, None, is_static, may_be_local=may_be_local)


def dialled(outcome: Outcome, detail: str = "", *, is_static: bool = False) -> Dialled:
    return Dialled(target(is_static=is_static), (PLACE.ip,), PLACE.ip, outcome, detail)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer(Zone()) as server:
        yield server


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@contextlib.contextmanager
def full_port() -> Iterator[int]:
    """A port whose backlog is full: the kernel drops who knocks."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            knock = stack.enter_context(socket.socket())
            knock.setblocking(False)
            knock.connect_ex(sock.getsockname())
        yield sock.getsockname()[1]


async def test_every_address_is_dialled_and_each_tells_its_own(dns: DnsServer, listening: int) -> None:
    dns.zone.put(NODE, "127.0.0.1", "127.0.0.9")
    one = target(port=listening)
    found = await dial_all([one], 3.0, (dns.where,))
    both = ("127.0.0.1", "127.0.0.9")
    assert found == (
        Dialled(one, both, "127.0.0.1", "open"),
        Dialled(one, both, "127.0.0.9", "refused", "Connection refused"),
    )


async def test_an_address_that_two_targets_share_is_dialled_once(dns: DnsServer, listening: int) -> None:
    dns.zone.put(NODE, "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        twice = [target(port=sock.getsockname()[1]), target("127.0.0.1", sock.getsockname()[1], is_static=True)]
        assert [one.outcome for one in await dial_all(twice, 3.0, (dns.where,))] == ["open", "open"]
        sock.accept()[0].close()
        with pytest.raises(BlockingIOError):
            sock.accept()


async def test_names_that_do_not_resolve_or_lead_where_no_node_can_be(dns: DnsServer) -> None:
    dns.zone.put(NODE, "127.0.0.1", "169.254.169.254")
    local, gone = target(may_be_local=False), target("gone.example.com")
    found = await dial_all([local, gone], 3.0, (dns.where,))
    asked = f"asked of {dns.where} (`resolver` in the config)"
    assert [(one.outcome, one.detail) for one in found] == [
        ("no-name", f"it resolves to 127.0.0.1, 169.254.169.254, {asked}"),
        ("no-name", f"the name does not exist, {asked}"),
    ]
    names = reach_findings(found)[:2]
    assert [one.verdict for one in names] == [Verdict.BAD, Verdict.BAD]
    assert "/etc/hosts" in names[0].mend
    assert "enableDnsSupport" in names[1].mend


async def test_silence_is_a_timeout() -> None:
    with full_port() as port:
        assert await dial(Address("127.0.0.1", port), 0.2) == ("timeout", "no answer within 0.2 s")


async def test_what_cannot_be_reached_says_why() -> None:
    outcome, detail = await dial(Address("255.255.255.255", 6379), 1.0)
    assert (outcome, bool(detail)) == ("unreachable", True)


def test_a_node_that_is_well() -> None:
    name, reach = reach_findings([dialled("open")])
    assert (name.check, name.verdict, name.evidence) == (Check.NAMES, Verdict.GOOD, f"{NODE}: 10.0.1.230")
    assert (reach.check, reach.verdict) == (Check.REACH, Verdict.GOOD)
    assert reach.subject == "my-redis-001/0001"
    assert reach.evidence == "10.0.1.230:6379 takes connections"


def test_a_refusal_points_at_the_cache_s_state_and_port_or_at_the_static_target() -> None:
    assert "port in AWS's console" in reach_findings([dialled("refused")])[1].mend
    assert f"the target {NODE}:6379 in the config" in reach_findings([dialled("refused", is_static=True)])[1].mend


def test_a_timeout_is_explained_by_who_knows_more_and_only_a_timeout() -> None:
    def explain(one: Dialled) -> tuple[str, str]:
        return f"sg-1 does not let {one.address} in", "aws ec2 authorize-security-group-ingress"

    silent = reach_findings([dialled("timeout", "no answer within 3 s")], explain)[1]
    assert (silent.verdict, silent.evidence) == (Verdict.BAD, "sg-1 does not let 10.0.1.230 in")
    assert silent.mend == "aws ec2 authorize-security-group-ingress"
    assert "sg-1" not in reach_findings([dialled("refused")], explain)[1].evidence
    generic = reach_findings([dialled("timeout", "no answer within 3 s")], lambda _: None)[1]
    assert generic.evidence == "10.0.1.230:6379: no answer within 3 s"
    assert "security group" in generic.mend


def test_what_is_unreachable_points_at_the_routes() -> None:
    found = reach_findings([dialled("unreachable", "No route to host")])[1]
    assert found.evidence == "10.0.1.230:6379 cannot be reached: No route to host"
    assert "route" in found.mend


def test_no_address_is_not_a_matter_of_reach_and_a_server_that_fails_is_named() -> None:
    name, reach = reach_findings(
        [Dialled(target(), (), "", "no-name", "the DNS server does not answer, asked of 1.2.3.4")]
    )
    assert (name.verdict, reach.verdict) == (Verdict.BAD, Verdict.UNKNOWN)
    assert name.evidence == f"{NODE}: the DNS server does not answer, asked of 1.2.3.4"
    assert "dig" in name.mend


def test_a_target_with_one_bad_address_of_two_tells_of_the_bad_one() -> None:
    good = Dialled(target(), ("10.0.1.230", "10.0.1.231"), "10.0.1.231", "open")
    found = reach_findings([dialled("refused"), good])
    assert [one.verdict for one in found] == [Verdict.GOOD, Verdict.BAD]
    assert found[1].evidence.startswith("10.0.1.230:6379 refuses")
