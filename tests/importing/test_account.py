from __future__ import annotations

import pytest

from natproxy.config import Aws
from natproxy.discover.parse import RawAnswers, parse_snapshot
from natproxy.errors import DiscoveryError
from natproxy.importing.account import ask_account, everything, resolve
from natproxy.model import Kind
from tests.discover.conftest import use_environ
from tests.discover.samples import ACCOUNT_IDS, account, answers_of
from tests.standins.cloud import Cloud


def test_everything_selects_every_cache_there_is() -> None:
    raw = answers_of(account())
    snapshot = parse_snapshot(raw, everything(raw))
    assert sorted(cache.id for cache in snapshot.caches) == sorted(ACCOUNT_IDS)
    assert all(cache.is_complete for cache in snapshot.caches)


def test_answers_that_are_not_what_they_should_be_select_what_is_left() -> None:
    raw = RawAnswers(
        [{"ReplicationGroupId": 7}, {}, {"ReplicationGroupId": "good"}], None, [{"ServerlessCacheName": "BAD ID"}]
    )
    assert [entry.id for entry in everything(raw).caches] == ["good"]
    assert everything(RawAnswers(None, None, None)).caches == ()


async def test_every_node_and_where_its_name_leads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cloud(backing="none") as cloud:
        use_environ(monkeypatch, cloud.environ)
        cloud.replication_group("my-redis", replicas=1)
        cloud.serverless("less")
        found = await ask_account(Aws(), (cloud.resolver,))
        assert [cache.id for cache in found.snapshot.caches] == ["my-redis", "less"]
        node = found.snapshot.caches[0].nodes[1]
        assert node.endpoint is not None
        assert found.addresses[node.endpoint.host] == (cloud.where("my-redis-002")[0],)
        serverless = found.snapshot.caches[1].endpoints[Kind.PRIMARY]
        assert len(found.addresses[serverless.host]) > 1
        assert found.doubts == ()


async def test_what_could_not_be_found_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cloud(backing="none") as cloud:
        use_environ(monkeypatch, cloud.environ)
        cloud.replication_group("my-redis", replicas=1)
        cloud.world.partial("missing-cluster", "my-redis-001")
        host = cloud.world.node_host("my-redis-002", "0001")
        cloud.dns.fail(host, "nxdomain")
        cloud.aws.fault("DescribeServerlessCaches", "denied", times=None)
        found = await ask_account(Aws(), (cloud.resolver,))
        assert host not in found.addresses
        denied, incomplete, nameless = found.doubts
        assert denied.startswith("DescribeServerlessCaches: ")
        assert incomplete.startswith("what AWS says of my-redis is not complete")
        assert nameless == f"{host}: the name does not exist; rules that lead to its address are not recognised"


async def test_an_aws_that_cannot_be_asked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cloud(backing="none") as cloud:
        use_environ(monkeypatch, cloud.environ)
        cloud.aws.fault("*", "denied", times=None)
        with pytest.raises(DiscoveryError):
            await ask_account(Aws(), (cloud.resolver,))


async def test_names_that_nobody_answers_for_are_given_up_in_time() -> None:
    with Cloud(backing="none") as cloud:
        cloud.dns.fail("slow.example", "silent")
        addresses, failures = await resolve(("10.0.0.7", "slow.example"), (cloud.resolver,), seconds=0.3)
    assert addresses == {"10.0.0.7": ("10.0.0.7",)}
    assert failures == {"slow.example": "no DNS server has answered in time"}


async def test_no_names_need_no_answers() -> None:
    assert await resolve((), None) == ({}, {})
