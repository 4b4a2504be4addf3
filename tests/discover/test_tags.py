from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from natproxy.discover.session import CutShortError
from natproxy.discover.tags import TagLists

if TYPE_CHECKING:
    from mypy_boto3_elasticache import ElastiCacheClient

KEEP = 300.0
PREFIX = "arn:aws:elasticache:us-east-1:123456789012"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Client:
    """Answers ListTagsForResource, or raises what it is told to."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.errors: dict[str, Exception] = {}
        self.value = "dev"

    def list_tags_for_resource(self, *, ResourceName: str) -> dict[str, Any]:  # noqa: N803
        self.calls[ResourceName] += 1
        if ResourceName in self.errors:
            raise self.errors[ResourceName]
        return {"TagList": [{"Key": "Environment", "Value": self.value}, {"Key": "Bare"}]}

    @property
    def real(self) -> ElastiCacheClient:
        return cast("ElastiCacheClient", self)


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "m"}}, "ListTagsForResource")


def arns(kind: str, count: int) -> list[str]:
    return [f"{PREFIX}:{kind}:{kind[0]}-{number:03d}" for number in range(count)]


def test_each_arn_is_asked_for_once_while_it_is_fresh() -> None:
    client, tags, wanted = Client(), TagLists(KEEP), arns("cluster", 3)
    clock = Clock()
    for clock.now in (0.0, 15.0, 30.0):
        assert tags.refresh(client.real, wanted, clock) == ()
    assert client.calls == dict.fromkeys(wanted, 1)
    assert tags.of(wanted) == {arn: {"Environment": "dev", "Bare": ""} for arn in wanted}
    assert tags.of([*wanted[:1], "arn:unknown"]).keys() == {wanted[0]}


def test_calls_are_spread_after_the_first_round_and_each_tag_is_news_within_the_keeping_time() -> None:
    client, tags, wanted = Client(), TagLists(KEEP), arns("cluster", 300)
    clock = Clock()
    rounds: list[int] = []
    for _ in range(60):
        before = client.calls.total()
        tags.refresh(client.real, wanted, clock)
        rounds.append(client.calls.total() - before)
        clock.now += 15.0
    assert rounds[0] == 300
    assert max(rounds[1:]) < 60
    assert sum(rounds[1:21]) >= 299  # within the keeping time each was asked for again
    client.value = "production"
    for _ in range(22):
        tags.refresh(client.real, wanted, clock)
        clock.now += 15.0
    assert {known["Environment"] for known in tags.of(wanted).values()} == {"production"}


def test_a_failed_call_keeps_what_was_known() -> None:
    client, tags, wanted = Client(), TagLists(KEEP), arns("cluster", 1)
    tags.refresh(client.real, wanted, lambda: 0.0)
    client.errors[wanted[0]] = error("InternalFailure")
    (failure,) = tags.refresh(client.real, wanted, lambda: KEEP)
    assert (failure.operation, failure.reason, failure.message) == (
        "ListTagsForResource",
        "server-error",
        "InternalFailure: m",
    )
    assert tags.of(wanted)[wanted[0]]["Environment"] == "dev"
    client.errors.clear()
    assert tags.refresh(client.real, wanted, lambda: KEEP + 1) == ()
    assert client.calls[wanted[0]] == 3


@pytest.mark.parametrize(
    "failing",
    [error("Throttling"), error("ExpiredToken"), ReadTimeoutError(endpoint_url="https://e", error="e")],
)
def test_what_concerns_all_of_them_ends_the_round(failing: Exception) -> None:
    client, tags, wanted = Client(), TagLists(KEEP), arns("cluster", 5)
    client.errors[wanted[2]] = failing
    assert len(tags.refresh(client.real, wanted, lambda: 0.0)) == 1
    assert client.calls.keys() == set(wanted[:3])
    client.errors.clear()
    assert tags.refresh(client.real, wanted, lambda: 1.0) == ()
    assert tags.of(wanted).keys() == set(wanted)
    assert client.calls[wanted[0]] == 1


def test_a_denial_ends_the_round_for_its_type_of_resource() -> None:
    client, tags = Client(), TagLists(KEEP)
    wanted = [*arns("cluster", 3), *arns("serverlesscache", 2)]
    client.errors[wanted[0]] = error("AccessDenied")
    (failure,) = tags.refresh(client.real, wanted, lambda: 0.0)
    assert failure.reason == "denied"
    assert client.calls.keys() == {wanted[0], *wanted[3:]}


def test_a_cache_deleted_meanwhile_is_no_failure() -> None:
    client, tags, wanted = Client(), TagLists(KEEP), arns("replicationgroup", 2)
    for code in ("CacheClusterNotFound", "ReplicationGroupNotFoundFault", "ServerlessCacheNotFoundFault"):
        client.errors[wanted[0]] = error(code)
        assert tags.refresh(client.real, wanted, lambda: 0.0) == ()
    assert tags.of(wanted).keys() == {wanted[1]}


def test_a_round_that_is_cut_short_ends_at_once() -> None:
    client, tags, wanted = Client(), TagLists(KEEP), arns("cluster", 2)
    client.errors[wanted[0]] = CutShortError()
    with pytest.raises(CutShortError):
        tags.refresh(client.real, wanted, lambda: 0.0)
    assert client.calls.keys() == {wanted[0]}


def test_what_exists_no_more_is_forgotten() -> None:
    client, tags, wanted = Client(), TagLists(KEEP), arns("cluster", 2)
    tags.refresh(client.real, wanted, lambda: 0.0)
    tags.forget_all_but(wanted[:1])
    assert tags.of(wanted).keys() == {wanted[0]}


def test_an_arn_of_a_shape_not_known_is_asked_for_like_any_other() -> None:
    client, tags = Client(), TagLists(KEEP)
    assert tags.refresh(client.real, ["odd"], lambda: 0.0) == ()
    assert tags.of(["odd"])
