from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from natproxy.config import Aws
from natproxy.discover.asking import Asker
from natproxy.errors import DiscoveryError
from tests.standins.aws import MISSING, AwsServer

STOP = threading.Event()


@pytest.fixture
def asker(aws: AwsServer) -> Iterator[Asker]:
    asker = Asker(Aws(), now=time.time, connect_seconds=1.0, read_seconds=10.0, attempts=1, keep_tags_seconds=300.0)
    yield asker
    asker.close()


def test_a_round_asks_for_each_kind_of_cache(asker: Asker) -> None:
    raw = asker.ask(want_tags=True, stop=STOP)
    assert [len(items or ()) for items in (raw.replication_groups, raw.cache_clusters, raw.serverless_caches)] == [
        3,
        11,
        1,
    ]
    assert len(raw.tags) == 6


def test_tags_of_a_cache_that_is_gone_are_forgotten_once_all_listings_are_good(aws: AwsServer, asker: Asker) -> None:
    asker.ask(want_tags=True, stop=STOP)
    aws.world.delete_cache("memo", settle=True)
    aws.fault("DescribeReplicationGroups", "denied")
    assert asker.ask(want_tags=True, stop=STOP).tags.keys() == {
        aws.world.arn("cluster", "standalone"),
        aws.world.arn("serverlesscache", "serverless"),
    }
    asked = len(aws.calls("ListTagsForResource"))
    assert len(asker.ask(want_tags=True, stop=STOP).tags) == 5
    assert len(aws.calls("ListTagsForResource")) == asked  # those of the groups were not lost with their listing


def test_a_cache_without_an_arn_is_passed_over(aws: AwsServer, asker: Asker) -> None:
    aws.world.patch("serverless", "serverless", ARN=MISSING)
    assert len(asker.ask(want_tags=True, stop=STOP).tags) == 5


def test_credentials_refused_only_for_the_tags_bring_a_new_session(aws: AwsServer, asker: Asker) -> None:
    asker.ask(want_tags=False, stop=STOP)
    aws.fault("ListTagsForResource", "expired")
    raw = asker.ask(want_tags=True, stop=STOP)
    assert raw.failures == ()
    assert len(raw.tags) == 6


def test_a_round_that_is_stopped_says_so_and_the_next_is_good(asker: Asker) -> None:
    stop = threading.Event()
    stop.set()
    for is_first in (True, False):
        with pytest.raises(DiscoveryError, match="cut short"):
            asker.ask(want_tags=False, stop=stop)
        if is_first:
            assert asker.ask(want_tags=False, stop=STOP).failures == ()


def test_the_first_failure_is_the_one_that_is_raised(aws: AwsServer, asker: Asker) -> None:
    aws.fault("DescribeReplicationGroups", "throttle")
    aws.fault("DescribeCacheClusters", "denied")
    aws.fault("DescribeServerlessCaches", "html")
    with pytest.raises(DiscoveryError, match=r"^DescribeReplicationGroups: Throttling: Rate exceeded$") as caught:
        asker.ask(want_tags=True, stop=STOP)
    assert caught.value.reason == "throttled"
    assert not aws.calls("ListTagsForResource")
