from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from natproxy.doctor.account import NEEDS_CREDENTIALS, Account
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.instance import Instance, this_instance
from natproxy.doctor.publicaddress import Owners
from tests.discover.conftest import use_environ
from tests.discover.samples import EVERY_ID, account, config
from tests.standins.aws import AwsServer
from tests.standins.aws.network import CACHE_GROUP, NATPROXY_GROUP, OTHER_INSTANCE, THIS_INSTANCE

TAGGED = "caches: [{tags: {Environment: dev}}]"
STATIC = "static: [{name: a, port: 6390, target: 'a.internal:6379'}]"
Make = Callable[..., Account]


@pytest_asyncio.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Account]]:
    made: list[Account] = []

    def account_of(text: str = EVERY_ID, instance: Instance | None = None) -> Account:
        made.append(Account(config(text), instance))
        return made[-1]

    yield account_of
    for one in made:
        await one.close()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> object:
    with AwsServer(account()) as server:
        use_environ(monkeypatch, server.instance_environ)
        yield server


def verdicts(findings: list[Finding], check: Check) -> list[Verdict]:
    return [one.verdict for one in findings if one.check is check]


async def test_the_questions_in_their_order(aws: AwsServer, make: Make) -> None:
    one = make(instance=this_instance())
    assert {(found.check, found.verdict) for found in await one.identify()} == {
        (Check.CREDENTIALS, Verdict.GOOD),
        (Check.CLOCK, Verdict.GOOD),
    }
    assert one.is_usable
    findings = await one.ask()
    assert verdicts(findings, Check.PERMISSIONS) == [Verdict.GOOD] * 6
    assert verdicts(findings, Check.CACHES) == [Verdict.GOOD] * 6
    assert len(one.snapshot().caches) == 6
    of_cache, groups = await one.security_groups()
    assert set(of_cache.values()) == {(CACHE_GROUP,)}
    assert set(groups) == {CACHE_GROUP, NATPROXY_GROUP}
    owners = await one.owners(["203.0.113.73"])
    assert owners.elastic_ips is not None
    assert [elastic["InstanceId"] for elastic in owners.elastic_ips] == [THIS_INSTANCE]
    assert owners.instances is not None
    assert aws.calls("ListTagsForResource") == []


async def test_before_anything_is_known(make: Make) -> None:
    one = make()
    assert not one.is_usable
    assert {found.evidence for found in await one.ask()} == {NEEDS_CREDENTIALS}
    assert await one.security_groups() == ({}, {})
    assert await one.owners(["203.0.113.73"]) == Owners()


async def test_without_credentials_nothing_more_is_asked(aws: AwsServer, make: Make) -> None:
    aws.fault("*", "expired", times=None)
    one = make()
    await one.identify()
    asked = len(aws.calls())
    findings = await one.ask()
    assert [(found.check, found.verdict) for found in findings] == [
        (Check.PERMISSIONS, Verdict.UNKNOWN),
        (Check.CACHES, Verdict.UNKNOWN),
    ]
    assert len(aws.calls()) == asked


async def test_a_config_without_caches_asks_elasticache_nothing(aws: AwsServer, make: Make) -> None:
    one = make(STATIC)
    await one.identify()
    findings = await one.ask()
    assert {found.check for found in findings} == {Check.PERMISSIONS}
    assert len(findings) == 3
    assert one.answers is None
    assert aws.calls("DescribeCacheClusters") == []


async def test_without_caches_no_permission_is_needed(make: Make) -> None:
    assert [(found.check, found.verdict, found.evidence) for found in await make(STATIC).ask()] == [
        (Check.PERMISSIONS, Verdict.GOOD, "not needed: no caches are configured")
    ]


async def test_tags_are_tried_where_they_select(aws: AwsServer, make: Make) -> None:
    one = make(TAGGED)
    await one.identify()
    assert verdicts(await one.ask(), Check.PERMISSIONS) == [Verdict.GOOD] * 7
    aws.fault("ListTagsForResource", "denied", times=None)
    other = make(TAGGED)
    await other.identify()
    findings = await other.ask()
    denied = [found for found in findings if found.subject == "elasticache:ListTagsForResource"]
    assert [found.verdict for found in denied] == [Verdict.BAD]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("caches: [{id: redis}]", Verdict.WARNING),
        ("caches: [{id: redis}, {id: serverless}]", Verdict.BAD),
        (TAGGED, Verdict.BAD),
    ],
)
async def test_the_serverless_listing_is_needed_where_something_may_be_in_it(
    aws: AwsServer, make: Make, text: str, verdict: Verdict
) -> None:
    aws.fault("DescribeServerlessCaches", "denied", times=None)
    one = make(text)
    await one.identify()
    denied = [found for found in await one.ask() if found.subject == "elasticache:DescribeServerlessCaches"]
    assert [found.verdict for found in denied] == [verdict]


async def test_listings_that_break_off_after_their_first_page(aws: AwsServer, make: Make) -> None:
    one = make()
    await one.identify()
    for operation in ("DescribeReplicationGroups", "DescribeCacheClusters", "DescribeServerlessCaches"):
        aws.fault(operation, "slow", times=1).release()
        aws.fault(operation, "html", times=None)
    findings = await one.ask()
    (unknown,) = [found for found in findings if found.check is Check.CACHES]
    assert unknown.verdict is Verdict.UNKNOWN
    assert "AWS could not be asked for its caches: DescribeReplicationGroups" in unknown.evidence


async def test_what_may_not_be_looked_at_is_left_out(aws: AwsServer, make: Make) -> None:
    for operation in ("DescribeSecurityGroups", "DescribeAddresses"):
        aws.fault(operation, "denied", times=None)
    aws.world.network.associate("203.0.113.74", OTHER_INSTANCE, is_elastic=False)
    one = make(instance=this_instance())
    await one.identify()
    await one.ask()
    of_cache, groups = await one.security_groups()
    assert of_cache["redis"] == (CACHE_GROUP,)
    assert groups == {}
    owners = await one.owners(["203.0.113.74"])
    assert owners.elastic_ips is None
    assert [raw["InstanceId"] for raw in owners.instances or ()] == [OTHER_INSTANCE]
