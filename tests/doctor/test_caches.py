from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from natproxy.discover.parse import Failure, RawAnswers, parse_snapshot
from natproxy.doctor.caches import Listed, cache_findings
from natproxy.doctor.findings import Finding, Verdict
from natproxy.model import Cache, DiscoveryFailure, Mode, NodeTls, Snapshot
from tests.discover.samples import ACCOUNT_IDS, EVERY_ID, account, answers_of, config
from tests.standins.aws import AwsWorld
from tests.standins.aws.network import CACHE_GROUP

REGION = "us-east-1 (AWS_REGION)"


def look(text: str = EVERY_ID, world: AwsWorld | None = None, **left_out: Any) -> list[Finding]:
    answers = replace(answers_of(world or account(), with_tags="tags" in text), **left_out)
    return cache_findings(config(text), answers, parse_snapshot(answers, config(text)), REGION)


def only(found: list[Finding]) -> Finding:
    (one,) = [one for one in found if one.verdict is not Verdict.GOOD]
    return one


def test_a_cache_of_every_shape() -> None:
    assert {one.subject: one.evidence for one in look()} == {
        "compatible": "valkey, cluster-compatible, 2 nodes: available",
        "enabled": "redis, cluster-enabled, 4 nodes: available",
        "memo": "memcached, 3 nodes: available",
        "redis": "redis, cluster-disabled, 3 nodes: available",
        "serverless": "valkey, serverless: available",
        "standalone": "valkey, standalone, 1 node: available",
    }


@pytest.mark.parametrize(
    ("wanted", "mend"),
    [
        ("rediss", "redis (replication group)"),
        ("serverles", "serverless (serverless cache)"),
        ("memos", "memo (cache cluster)"),
        ("enabled-0003-001", "enabled (replication group)"),
        ("d-0001-001", "enabled-0001-001 (a node of enabled)"),
        ("unlike-any", f"write one that exists there: {', '.join(ACCOUNT_IDS)}"),
    ],
)
def test_an_id_that_aws_does_not_know(wanted: str, mend: str) -> None:
    bad = only(look(f"caches: [{{id: {wanted}}}]"))
    assert (bad.subject, bad.verdict) == ("caches[0]", Verdict.BAD)
    assert bad.evidence == f"AWS knows no cache called {wanted} in {REGION}"
    assert mend in bad.mend


def test_the_id_of_a_node() -> None:
    bad = only(look("caches: [{id: redis}, {id: redis-002}]"))
    assert (bad.subject, bad.mend) == ("caches[1]", "write id: redis")


def test_tags_that_no_cache_has() -> None:
    bad = only(look("caches: [{tags: {environment: dev}}]"))
    assert bad.evidence == f"no cache in {REGION} has the tags environment=dev"
    assert "Environment=dev" in bad.mend
    assert look("caches: [{tags: {Team: web}}]")[0].verdict is Verdict.GOOD
    denied = Failure("ListTagsForResource", DiscoveryFailure.DENIED, "denied")
    assert only(look("caches: [{tags: {a: b}}]", tags={}, failures=(denied,))).verdict is Verdict.UNKNOWN
    assert "none at all" in only(look("caches: [{tags: {a: b}}]", tags={})).mend


def test_nothing_at_all_in_the_region() -> None:
    bad = only(look(world=AwsWorld()))
    assert bad.evidence == f"AWS lists no cache at all in {REGION}"
    assert "aws.region" in bad.mend


def test_what_was_not_listed_is_not_judged() -> None:
    one = only(look("caches: [{id: redis}, {id: serverless}]", serverless_caches=None))
    assert (one.subject, one.verdict) == ("caches[1]", Verdict.UNKNOWN)
    assert "not listed: serverless cache" in one.evidence
    assert one.mend == "see the permissions above"
    one = only(look("caches: [{id: rediss}]", serverless_caches=None))
    assert one.mend.endswith("what has a name like it: redis (replication group)")
    nothing: dict[str, Any] = {"replication_groups": None, "cache_clusters": None, "serverless_caches": None}
    assert only(look("caches: [{id: redis}]", **nothing)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("status", "verdict", "mend"),
    [
        ("modifying", Verdict.WARNING, "wait"),
        ("snapshotting", Verdict.WARNING, "wait"),
        ("creating", Verdict.WARNING, "wait"),
        ("deleting", Verdict.BAD, "take it out"),
        ("create-failed", Verdict.BAD, "AWS could not make it"),
        ("incompatible-network", Verdict.BAD, "its subnets"),
        ("failed", Verdict.BAD, "AWS could not make it"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "cache", "field"),
    [
        ("group", "redis", "Status"),
        ("cluster", "memo", "CacheClusterStatus"),
        ("serverless", "serverless", "Status"),
    ],
)
def test_states(*, kind: str, cache: str, field: str, status: str, verdict: Verdict, mend: str) -> None:
    world = account()
    world.patch(kind, cache, **{field: status})
    one = only(look(f"caches: [{{id: {cache}}}]", world))
    assert (one.subject, one.verdict) == (cache, verdict)
    assert one.mend.startswith(mend)


def test_the_states_of_nodes() -> None:
    world = account()
    world.set_node_status("memo", "rebooting", "0002")
    assert only(look("caches: [{id: memo}]", world)).subject == "memo/0002"
    world.cluster("redis-003").status = "deleting"
    one = only(look("caches: [{id: redis}]", world))
    assert (one.subject, one.verdict) == ("redis-003", Verdict.WARNING)


def test_an_answer_that_leaves_something_out() -> None:
    world = account()
    world.partial("missing-nodes", "memo")
    one = only(look("caches: [{id: memo}]", world))
    assert (one.subject, one.verdict) == ("memo", Verdict.WARNING)
    assert "leaves out" in one.evidence


def test_a_cache_that_only_the_state_file_tells_of() -> None:
    known = Snapshot((Cache("old", "redis", Mode.STANDALONE, NodeTls.OFF, ()),))
    answers = answers_of(account())
    found = cache_findings(config("caches: [{id: old}]"), answers, known, REGION)
    assert [(one.subject, one.verdict) for one in found] == [("old", Verdict.UNKNOWN)]


def test_the_security_groups_of_each_shape() -> None:
    world = account()
    world.patch("cluster", "redis-002", SecurityGroups=[{"SecurityGroupId": "sg-2", "Status": "active"}])
    answers = answers_of(world)
    listed = Listed(answers)
    found = {cache.id: listed.security_groups(cache) for cache in parse_snapshot(answers, config(EVERY_ID)).caches}
    assert found.pop("redis") == (CACHE_GROUP, "sg-2")
    assert set(found.values()) == {(CACHE_GROUP,)}
    assert len(found) == 5
    lost = Cache("gone", "valkey", Mode.SERVERLESS, NodeTls.REQUIRED, ())
    assert Listed(RawAnswers(None, None, None)).security_groups(lost) == ()
