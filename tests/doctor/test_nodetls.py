from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.nodetls import node_tls_findings
from natproxy.doctor.reach import Dialled
from natproxy.doctor.targets import Target
from tests.doctor.speakers import Speaker, Talk, closes, is_redis, is_silent, says, server_context
from tests.standins.certificates import Authority, Issued

NODE = "my-redis-001.my-redis.x.use1.cache.amazonaws.com"
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
SHORT = 0.2


class Nodes:
    """A CA for nodes, its file, and what the doctor finds of a node."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority("Nodes CA")
        self.ca = directory / "nodes.crt"
        self.ca.write_bytes(self.authority.pem)

    async def judge(
        self,
        talk: Talk,
        shown: Issued | None = None,
        *,
        tls: bool = True,
        is_static: bool = False,
        seconds: float = 5.0,
        ca: str | None = None,
        is_opaque: bool = False,
    ) -> list[Finding]:
        context = None if shown is None else server_context(shown)
        with Speaker(talk, context=context) as node:
            target = Target(
                "node", NODE, node.port, tls, None, ca or str(self.ca), is_static=is_static, is_opaque=is_opaque
            )
            return await node_tls_findings([Dialled(target, (node.ip,), node.ip, "open")], seconds)

    async def finding(self, talk: Talk, shown: Issued | None = None, **more: object) -> Finding:
        (found,) = await self.judge(talk, shown, **more)  # type: ignore[arg-type]
        assert (found.check, found.subject) == (Check.NODE_TLS, "node")
        assert bool(found.mend) is (found.verdict is not Verdict.GOOD)
        return found


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


async def test_a_good_certificate(nodes: Nodes) -> None:
    found = await nodes.finding(is_redis, nodes.authority.issue("node", dns=[f"*.{NODE.partition('.')[2]}"]))
    assert found.verdict is Verdict.GOOD
    assert found.evidence.endswith("speaks TLSv1.3, and its certificate is good")


async def test_another_name_is_told_with_those_in_the_certificate(nodes: Nodes) -> None:
    found = await nodes.finding(is_redis, nodes.authority.issue("node", dns=["other.example.com"]))
    assert found.verdict is Verdict.BAD
    assert f"does not name {NODE}: it is for other.example.com" in found.evidence
    assert "nodes.server_name" in found.mend


async def test_an_unknown_issuer_is_named_with_the_file_that_lacks_it(nodes: Nodes) -> None:
    found = await nodes.finding(is_redis, Authority("Other CA").issue("node", dns=[NODE]))
    assert found.verdict is Verdict.BAD
    assert f"issued by CN=Other CA, which no CA in nodes.ca ({nodes.ca})" in found.evidence
    assert str(nodes.ca) in found.mend


async def test_an_expired_certificate_is_told_with_its_dates(nodes: Nodes) -> None:
    shown = nodes.authority.issue(
        "node", dns=[NODE], not_before=LONG_AGO, not_after=LONG_AGO + datetime.timedelta(days=1)
    )
    found = await nodes.finding(is_redis, shown)
    assert found.verdict is Verdict.BAD
    assert "(valid from 2020-01-01 00:00 UTC until 2020-01-02 00:00 UTC)" in found.evidence


@pytest.mark.parametrize("is_static", [False, True])
async def test_a_node_in_the_clear_where_tls_is_expected(nodes: Nodes, is_static: bool) -> None:
    found = await nodes.finding(is_redis, is_static=is_static)
    assert found.verdict is Verdict.BAD
    assert "speaks no TLS, and natproxy would speak TLS to it" in found.evidence
    assert ("the config says on" if is_static else "encryption in transit") in found.mend


@pytest.mark.parametrize("is_static", [False, True])
async def test_a_node_with_tls_where_it_is_expected_in_the_clear(nodes: Nodes, is_static: bool) -> None:
    shown = nodes.authority.issue("node", dns=[NODE])
    found = await nodes.finding(is_redis, shown, tls=False, is_static=is_static)
    assert found.verdict is Verdict.BAD
    assert "speaks TLS, and natproxy would speak to it in the clear" in found.evidence
    assert ("nodes: {tls: on}" if is_static else "encryption in transit") in found.mend


@pytest.mark.parametrize("line", [b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n", b"ERROR\r\n"])
async def test_in_the_clear_as_expected(nodes: Nodes, line: bytes) -> None:
    assert (await nodes.finding(says(line), tls=False, seconds=1.0)).verdict is Verdict.GOOD


@pytest.mark.parametrize(("talk", "what"), [(closes, "closes the connection"), (is_silent, "says nothing")])
async def test_a_node_that_does_not_answer(nodes: Nodes, talk: Talk, what: str) -> None:
    found = await nodes.finding(talk, tls=False, seconds=SHORT)
    assert found.verdict is Verdict.WARNING
    assert what in found.evidence
    assert (await nodes.finding(talk, tls=False, is_static=True, seconds=SHORT)).verdict is Verdict.GOOD
    assert (await nodes.finding(talk, seconds=SHORT)).verdict is Verdict.BAD


async def test_tls_is_well_and_the_node_hangs(nodes: Nodes) -> None:
    found = await nodes.finding(is_silent, nodes.authority.issue("node", dns=[NODE]), seconds=1.0)
    assert found.verdict is Verdict.WARNING
    assert "does not answer a PING" in found.evidence


async def test_cas_that_cannot_be_read_are_told_once(nodes: Nodes, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.crt")
    (found,) = await nodes.judge(is_redis, ca=missing)
    assert (found.subject, found.verdict) == (missing, Verdict.BAD)
    assert "No such file" in found.evidence


async def test_what_clients_speak_past_natproxy_and_what_is_not_open_are_left_alone(nodes: Nodes) -> None:
    assert await nodes.judge(closes, tls=False, is_opaque=True) == []
    target = Target("node", NODE, 6379, True, None, None)
    assert await node_tls_findings([Dialled(target, (), "127.0.0.1", "refused")]) == []


async def test_a_node_that_goes_away_between_two_connections(nodes: Nodes) -> None:
    with Speaker(closes) as node:
        target = Target("node", NODE, node.port, False, None, None)
    (found,) = await node_tls_findings([Dialled(target, (node.ip,), node.ip, "open")])
    assert (found.verdict, "Connection refused" in found.evidence) == (Verdict.WARNING, True)
