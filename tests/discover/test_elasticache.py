from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from natproxy.config import Aws
from natproxy.discover.elasticache import NICENESS, ElastiCache
from natproxy.discover.failures import failure_of
from natproxy.discover.parse import RawAnswers, parse_snapshot
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure
from tests.discover.conftest import use_environ
from tests.discover.samples import ACCOUNT_IDS, EVERY_ID, answers_of, config
from tests.standins.aws import AwsServer, FaultKind

LISTINGS = ("DescribeReplicationGroups", "DescribeCacheClusters", "DescribeServerlessCaches")
SHORT = 1.0
"""Seconds after which a hanging call is given up, where a test waits for that: enough for the others to be answered."""
ROLE = "arn:aws:iam::123456789012:role/discovery"


@asynccontextmanager
async def discovery(aws: Aws | None = None, **options: Any) -> AsyncIterator[ElastiCache]:
    """Discovery that tries once."""
    quick: dict[str, Any] = {"attempts": 1}
    elasticache = ElastiCache(aws or Aws(), **(quick | options))
    try:
        yield elasticache
    finally:
        await elasticache.close()
    assert not discovery_threads()


def discovery_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("natproxy-discovery")]


async def reason_of(fetching: Awaitable[object]) -> tuple[str, str]:
    with pytest.raises(DiscoveryError) as caught:
        await fetching
    return caught.value.reason, str(caught.value)


def start(fetching: Coroutine[Any, Any, RawAnswers]) -> asyncio.Task[RawAnswers]:
    return asyncio.get_running_loop().create_task(fetching)


# what is asked


async def test_all_pages_of_all_listings_are_fetched(aws: AwsServer) -> None:
    async with discovery() as elasticache:
        raw = await elasticache.fetch(False)
    assert raw.failures == ()
    snapshot = parse_snapshot(raw, config(EVERY_ID))
    assert [cache.id for cache in snapshot.caches] == list(ACCOUNT_IDS)
    assert snapshot == parse_snapshot(answers_of(aws.world), config(EVERY_ID))
    assert len(aws.calls("DescribeCacheClusters")) == 4  # 11 clusters, 3 a page
    assert {call.params["ShowCacheNodeInfo"] for call in aws.calls("DescribeCacheClusters")} == {True}


async def test_pages_are_asked_for_as_large_as_aws_allows(aws: AwsServer) -> None:
    aws.page_size = 1000
    async with discovery() as elasticache:
        await elasticache.fetch(False)
    assert [aws.calls(listing)[0].params for listing in LISTINGS] == [
        {"MaxRecords": 100},
        {"MaxRecords": 100, "ShowCacheNodeInfo": True},
        {"MaxResults": 50},
    ]


async def test_many_clusters_are_all_there(aws: AwsServer) -> None:
    for number in range(120):
        aws.world.add_memcached(f"more-{number}", nodes=1)
    aws.page_size = 100
    async with discovery(read_seconds=10.0) as elasticache:
        raw = await elasticache.fetch(False)
    assert raw.cache_clusters is not None
    assert len({cluster["CacheClusterId"] for cluster in raw.cache_clusters}) == 131
    assert len(aws.calls("DescribeCacheClusters")) == 2


async def test_an_account_without_caches_has_empty_listings(aws: AwsServer) -> None:
    for listing in LISTINGS:
        aws.world.partial("empty", listing)
    async with discovery() as elasticache:
        raw = await elasticache.fetch(True)
    assert (raw.replication_groups, raw.cache_clusters, raw.serverless_caches) == ([], [], [])
    assert raw.failures == ()


# tags


async def test_tags_are_asked_for_once_for_each_cache_and_not_for_members(aws: AwsServer) -> None:
    async with discovery() as elasticache:
        first = await elasticache.fetch(True)
        for _ in range(3):
            again = await elasticache.fetch(True)
    assert len(aws.calls("ListTagsForResource")) == 6
    assert first.tags == again.tags
    assert {arn.rpartition(":")[2]: dict(tags) for arn, tags in first.tags.items()} == {
        "redis": {"Environment": "dev"},
        "memo": {"Environment": "dev", "Team": "web"},
        "serverless": {"Environment": "dev"},
        "enabled": {},
        "compatible": {},
        "standalone": {},
    }


async def test_tags_are_not_asked_for_where_nothing_selects_by_them(aws: AwsServer) -> None:
    async with discovery() as elasticache:
        raw = await elasticache.fetch(False)
    assert raw.tags == {}
    assert not aws.calls("ListTagsForResource")


async def test_denied_tags_fail_alone(aws: AwsServer) -> None:
    aws.fault("ListTagsForResource", "denied", times=None)
    async with discovery() as elasticache:
        raw = await elasticache.fetch(True)
    assert raw.tags == {}
    assert [(failure.operation, failure.reason) for failure in raw.failures] == [("ListTagsForResource", "denied")]
    assert len(aws.calls("ListTagsForResource")) == 3  # one for each type of resource
    snapshot = parse_snapshot(raw, config("caches: [{id: redis}, {tags: {Environment: dev}}]"))
    assert [cache.id for cache in snapshot.caches] == ["redis"]
    assert not snapshot.is_complete


# one listing fails


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("denied", "denied"),
        ("throttle", "throttled"),
        ("server-error", "server-error"),
        ("internal-error", "server-error"),
        ("hang", "timeout"),
        ("reset", "unreachable"),
        ("close", "unreachable"),
        ("truncated", "nonsense"),
        ("cut-off", "nonsense"),
        ("html", "nonsense"),
        ("nonsense", "nonsense"),
        ("empty", "nonsense"),
    ],
)
async def test_one_listing_that_fails_leaves_the_others(
    aws: AwsServer, listing: str, fault: FaultKind, reason: str
) -> None:
    aws.fault(listing, fault, times=None)
    async with discovery(read_seconds=SHORT if fault == "hang" else 10.0) as elasticache:
        raw = await elasticache.fetch(False)
        aws.heal()
        assert (await elasticache.fetch(False)).failures == ()
    answered = {
        "DescribeReplicationGroups": raw.replication_groups,
        "DescribeCacheClusters": raw.cache_clusters,
        "DescribeServerlessCaches": raw.serverless_caches,
    }
    assert answered.pop(listing) is None
    assert all(answered.values())
    assert [(failure.operation, failure.reason) for failure in raw.failures] == [(listing, reason)]


async def test_a_later_page_that_fails_spoils_its_listing(aws: AwsServer) -> None:
    async with discovery() as elasticache:
        slow = aws.fault("DescribeCacheClusters", "slow")
        fetching = start(elasticache.fetch(False))
        await asyncio.to_thread(slow.wait_until_hit)
        aws.fault("DescribeCacheClusters", "throttle")
        slow.release()
        raw = await fetching
    assert raw.cache_clusters is None
    assert raw.replication_groups
    assert [failure.reason for failure in raw.failures] == ["throttled"]


async def test_a_denial_names_what_is_missing_in_the_policy(aws: AwsServer) -> None:
    aws.fault("DescribeServerlessCaches", "denied")
    async with discovery() as elasticache:
        (failure,) = (await elasticache.fetch(False)).failures
    assert "is not authorized to perform: elasticache:DescribeServerlessCaches" in failure.message


# all fails


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("denied", "denied"),
        ("throttle", "throttled"),
        ("server-error", "server-error"),
        ("hang", "timeout"),
        ("reset", "unreachable"),
        ("truncated", "nonsense"),
        ("html", "nonsense"),
        ("expired", "credentials"),
        ("invalid-key", "credentials"),
    ],
)
async def test_where_nothing_is_answered_the_reason_is_raised_and_the_next_round_can_succeed(
    aws: AwsServer, fault: FaultKind, reason: str
) -> None:
    async with discovery(read_seconds=SHORT if fault == "hang" else 10.0) as elasticache:
        aws.fault("*", fault, times=None)
        assert (await reason_of(elasticache.fetch(True)))[0] == reason
        aws.heal()
        assert (await elasticache.fetch(True)).failures == ()


async def test_an_endpoint_where_nobody_listens_is_unreachable(aws: AwsServer) -> None:
    async with discovery() as elasticache:
        aws.go_down()
        reason, message = await reason_of(elasticache.fetch(False))
        aws.go_up()
        assert (await elasticache.fetch(False)).failures == ()
    assert reason == DiscoveryFailure.UNREACHABLE
    assert message.startswith("DescribeReplicationGroups: Could not connect to the endpoint URL")


async def test_a_host_that_is_silent_is_unreachable(aws: AwsServer) -> None:
    with socket.socket() as silent:  # its backlog is full at once, so that no handshake is answered
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        with socket.socket() as first, socket.socket() as second:
            first.setblocking(False)
            second.setblocking(False)
            first.connect_ex(silent.getsockname())
            second.connect_ex(silent.getsockname())
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            async with discovery(Aws(endpoint_url=url), connect_seconds=0.1) as elasticache:
                assert (await reason_of(elasticache.fetch(False)))[0] == DiscoveryFailure.UNREACHABLE


@pytest.mark.parametrize("fault", ["throttle", "server-error", "reset", "hang"])
async def test_a_passing_trouble_is_tried_again_at_once(aws: AwsServer, fault: FaultKind) -> None:
    aws.fault("DescribeReplicationGroups", fault)
    async with discovery(attempts=2, read_seconds=SHORT if fault == "hang" else 10.0) as elasticache:
        assert (await elasticache.fetch(False)).failures == ()


async def test_an_answer_that_never_ends_is_given_up_after_the_round(aws: AwsServer) -> None:
    aws.fault("DescribeCacheClusters", "hang", times=None)
    async with discovery(read_seconds=60.0, round_seconds=0.3) as elasticache:
        reason, message = await reason_of(elasticache.fetch(False))
        assert (reason, message) == (DiscoveryFailure.TIMEOUT, "no complete answer within 0.3 s")
        aws.heal()
        elasticache._round_seconds = 60.0
        assert (await elasticache.fetch(False)).failures == ()


# credentials


async def test_expired_keys_are_looked_up_afresh_within_the_round(aws: AwsServer) -> None:
    async with discovery() as elasticache:
        await elasticache.fetch(False)
        aws.fault("DescribeReplicationGroups", "expired")
        assert (await elasticache.fetch(False)).failures == ()


async def test_new_keys_in_the_credentials_file_are_found(
    aws: AwsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    for name in aws.user.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write(secret_key: str) -> None:
        keys = f"aws_access_key_id = {aws.user.access_key}\naws_secret_access_key = {secret_key}\n"
        file.write_text(f"[default]\n{keys}", encoding="utf-8")

    async with discovery() as elasticache:
        reason, message = await reason_of(elasticache.fetch(False))
        assert (reason, message) == (
            DiscoveryFailure.CREDENTIALS,
            f"DescribeReplicationGroups: {failure_of(NoCredentialsError())[1]}",
        )
        write("wrong")
        reason, message = await reason_of(elasticache.fetch(False))
        assert reason == DiscoveryFailure.CREDENTIALS
        assert message.endswith("the secret key is wrong, or this host's clock is")
        write(aws.user.secret_key)
        assert (await elasticache.fetch(False)).failures == ()


async def test_a_clock_that_is_wrong_is_named(aws: AwsServer) -> None:
    aws.now = lambda: time.time() + 3600
    async with discovery() as elasticache:
        reason, message = await reason_of(elasticache.fetch(False))
    assert reason == DiscoveryFailure.CREDENTIALS
    assert "clock" in message


async def test_only_one_question_is_asked_with_bad_credentials(aws: AwsServer) -> None:
    aws.fault("*", "expired", times=None)
    async with discovery() as elasticache:
        await reason_of(elasticache.fetch(True))
    assert [call.operation for call in aws.calls()] == ["DescribeReplicationGroups"]


async def test_on_an_instance_keys_and_region_come_from_its_metadata(
    aws: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_environ(monkeypatch, aws.instance_environ)
    async with discovery() as elasticache:
        assert (await elasticache.fetch(False)).failures == ()
    assert aws.calls("DescribeReplicationGroups")[0].access_key.startswith("ASIA")


async def test_expired_instance_keys_are_replaced_once_the_instance_has_new_ones(
    aws: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_environ(monkeypatch, aws.instance_environ)
    async with discovery() as elasticache:
        await elasticache.fetch(False)
        aws.imds.is_stuck = True
        aws.keyring.expire_sessions()
        assert (await reason_of(elasticache.fetch(False)))[0] == DiscoveryFailure.CREDENTIALS
        aws.imds.is_stuck = False
        assert (await elasticache.fetch(False)).failures == ()


async def test_without_a_region_anywhere_the_operator_is_told_where_to_write_one(
    aws: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")
    async with discovery() as elasticache:
        reason, message = await reason_of(elasticache.fetch(False))
        assert reason == DiscoveryFailure.UNREACHABLE
        assert "set aws.region or AWS_REGION" in message
        monkeypatch.setenv("AWS_DEFAULT_REGION", aws.world.region)
        assert (await elasticache.fetch(False)).failures == ()


async def test_the_configs_region_and_endpoint_come_first(aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")  # which the stand-in does not take
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    async with discovery(Aws(region=aws.world.region, endpoint_url=aws.endpoint_url)) as elasticache:
        assert (await elasticache.fetch(False)).failures == ()


# roles


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


async def test_a_role_is_assumed_once_and_renewed_before_it_expires(aws: AwsServer) -> None:
    clock = Clock()
    async with discovery(Aws(role_arn=ROLE), now=clock) as elasticache:
        for _ in range(2):
            await elasticache.fetch(False)
        assert len(aws.calls("AssumeRole")) == 1
        (assumed,) = aws.calls("AssumeRole")
        assert assumed.params["RoleArn"] == ROLE
        assert assumed.access_key == aws.user.access_key
        first_key = aws.calls("DescribeReplicationGroups")[0].access_key
        assert first_key.startswith("ASIA")
        clock.ahead = 3600 - 600 - 30
        await elasticache.fetch(False)
        assert len(aws.calls("AssumeRole")) == 1
        clock.ahead = 3600 - 600 + 30
        await elasticache.fetch(False)
        assert len(aws.calls("AssumeRole")) == 2
        assert aws.calls("DescribeReplicationGroups")[-1].access_key != first_key


async def test_a_renewal_that_fails_is_told_while_the_old_session_still_serves(aws: AwsServer) -> None:
    clock = Clock()
    async with discovery(Aws(role_arn=ROLE), now=clock) as elasticache:
        await elasticache.fetch(False)
        clock.ahead = 3600 - 300
        aws.fault("AssumeRole", "denied", times=None)
        raw = await elasticache.fetch(False)
        assert raw.replication_groups
        assert [(failure.operation, failure.reason) for failure in raw.failures] == [("AssumeRole", "denied")]
        clock.ahead = 3600 + 1
        reason, message = await reason_of(elasticache.fetch(False))
        assert reason == DiscoveryFailure.DENIED
        assert message.startswith("AssumeRole: AccessDenied")
        aws.heal()
        assert (await elasticache.fetch(False)).failures == ()


async def test_a_role_that_is_refused_is_told(aws: AwsServer) -> None:
    aws.fault("AssumeRole", "denied", times=None)
    async with discovery(Aws(role_arn=ROLE)) as elasticache:
        reason, message = await reason_of(elasticache.fetch(False))
    assert reason == DiscoveryFailure.DENIED
    assert f"sts:AssumeRole on resource: {ROLE}" in message


async def test_an_assumed_session_that_dies_early_is_replaced(aws: AwsServer) -> None:
    async with discovery(Aws(role_arn=ROLE)) as elasticache:
        await elasticache.fetch(False)
        aws.keyring.expire_sessions()
        assert (await elasticache.fetch(False)).failures == ()
    assert len(aws.calls("AssumeRole")) == 2


# life


async def test_a_fetch_can_be_cancelled_and_the_next_one_works(aws: AwsServer) -> None:
    async with discovery(read_seconds=60.0) as elasticache:
        hang = aws.fault("DescribeCacheClusters", "hang")
        fetching = start(elasticache.fetch(False))
        await asyncio.to_thread(hang.wait_until_hit)
        started = time.monotonic()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert (await elasticache.fetch(False)).failures == ()
        assert time.monotonic() - started < 20  # and not the minute that the read may take


async def test_closing_cuts_a_hanging_call_short_and_joins_the_thread(aws: AwsServer) -> None:
    elasticache = ElastiCache(Aws(), read_seconds=60.0)
    hang = aws.fault("DescribeReplicationGroups", "hang", times=None)
    fetching = start(elasticache.fetch(False))
    await asyncio.to_thread(hang.wait_until_hit)
    started = time.monotonic()
    await elasticache.close()
    assert time.monotonic() - started < 20
    assert not discovery_threads()
    assert (await reason_of(fetching))[0] == DiscoveryFailure.TIMEOUT
    await elasticache.close()
    assert (await reason_of(elasticache.fetch(False)))[0] == DiscoveryFailure.UNREACHABLE


async def test_closing_without_a_fetch_leaves_nothing() -> None:
    async with discovery():
        pass


async def test_the_loop_is_free_while_aws_is_slow(aws: AwsServer) -> None:
    slow = aws.fault("DescribeReplicationGroups", "slow")
    async with discovery(read_seconds=60.0) as elasticache:
        fetching = start(elasticache.fetch(False))
        await asyncio.to_thread(slow.wait_until_hit)
        assert not fetching.done()
        (thread,) = discovery_threads()
        assert thread.native_id is not None
        assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        slow.release()
        assert (await fetching).failures == ()


def test_boto3_is_imported_by_the_first_fetch_only() -> None:
    script = "import sys, natproxy.discover.elasticache as e, natproxy.discover.parse; print('boto3' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert told.stdout == "False\n"


# secrets


async def test_nothing_secret_is_logged_or_raised_even_at_debug(
    aws: AwsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    use_environ(monkeypatch, aws.instance_environ)
    told: list[str] = []
    faults: tuple[FaultKind, ...] = ("denied", "expired", "truncated", "cut-off", "html", "throttle", "reset")
    async with discovery(Aws(role_arn=ROLE)) as elasticache:
        told.append(json.dumps(list((await elasticache.fetch(False)).failures)))
        for operation in ("*", "AssumeRole"):
            for fault in faults:
                aws.fault(operation, fault, times=None)
                aws.keyring.expire_sessions()
                told.append(repr(await reason_of(elasticache.fetch(False))))
                aws.heal()
    text = caplog.text + "\n".join(told)
    for credentials in aws.keyring._keys.values():
        assert credentials.secret_key not in text
        assert credentials.token is None or credentials.token not in text
    assert "Authorization" not in text
    assert not [record for record in caplog.records if record.name.startswith(("boto", "urllib3"))]


async def test_a_secret_is_asked_for_in_the_same_thread_and_session(aws: AwsServer) -> None:
    arn = aws.world.set_secret("probe", "word")
    async with discovery(Aws(role_arn=ROLE)) as elasticache:
        await elasticache.fetch(False)
        assert await elasticache.secret(arn) == "word"
        assert len(discovery_threads()) == 1
    assert len(aws.calls("AssumeRole")) == 1


async def test_a_secret_that_waits_its_turn_and_is_wanted_no_more_cuts_nobody_short(aws: AwsServer) -> None:
    arn = aws.world.set_secret("probe", "word")
    slow = aws.fault("DescribeReplicationGroups", "slow")
    async with discovery(read_seconds=60.0) as elasticache:
        fetching = start(elasticache.fetch(False))
        await asyncio.to_thread(slow.wait_until_hit)
        waiting = asyncio.get_running_loop().create_task(elasticache.secret(arn))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        slow.release()
        assert (await fetching).failures == ()
        assert len(aws.calls("DescribeReplicationGroups")) == 1
        assert not aws.calls("GetSecretValue")


async def test_no_secret_is_logged_or_raised(aws: AwsServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    arn = aws.world.set_secret("probe", "s3cr3t-w0rd")
    told: list[str] = []
    faults: tuple[FaultKind, ...] = ("denied", "expired", "truncated", "cut-off", "html", "throttle", "reset")
    async with discovery() as elasticache:
        assert await elasticache.secret(arn) == "s3cr3t-w0rd"
        for fault in faults:
            aws.fault("GetSecretValue", fault, times=None)
            told.append(repr(await reason_of(elasticache.secret(arn))))
            aws.heal()
    assert len(told) == len(faults)
    assert "s3cr3t" not in caplog.text + "\n".join(told)
