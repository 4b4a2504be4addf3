"""AWS is slow, throttled, down, denying, or talks nonsense: what is known keeps being served, and is said once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from natproxy.model import DiscoveryFailure
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import connect
from tests.scenarios.waiting import eventually
from tests.standins.aws.faults import FaultKind
from tests.standins.cloud import Cloud

FAILED = "discovery failed, the last known routes stay"


@pytest.fixture(scope="module")
def shared_cloud() -> Iterator[Cloud]:
    with Cloud() as made:
        made.replication_group("my-redis", replicas=1)
        yield made


@pytest.fixture(scope="module")
def shared(shared_cloud: Cloud, module_natproxy: Natproxies) -> Daemon:
    daemon = module_natproxy(shared_cloud, caches=[{"id": "my-redis"}])
    daemon.wait_for_route("my-redis-002/0001")
    return daemon


@pytest.fixture(scope="module")
def hanging_cloud() -> Iterator[Cloud]:
    with Cloud() as made:
        made.replication_group("my-redis", replicas=1)
        yield made


@pytest.fixture(scope="module", autouse=True)
def hanging(hanging_cloud: Cloud, module_natproxy: Natproxies) -> Daemon:
    """One that AWS does not answer any more. To find that out takes it 20 s, which it spends beside the other tests."""
    daemon = module_natproxy(hanging_cloud, caches=[{"id": "my-redis"}])
    daemon.wait_for_route("my-redis-002/0001")
    hanging_cloud.aws.fault("DescribeReplicationGroups", "hang", times=2).wait_until_hit()
    return daemon


def failures(daemon: Daemon, reason: DiscoveryFailure) -> float:
    return daemon.metric("natproxy_discovery_failures_total", reason=reason)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("throttle", DiscoveryFailure.THROTTLED),
        ("server-error", DiscoveryFailure.SERVER),
        ("reset", DiscoveryFailure.UNREACHABLE),
        ("truncated", DiscoveryFailure.NONSENSE),
        ("html", DiscoveryFailure.NONSENSE),
        ("nonsense", DiscoveryFailure.NONSENSE),
        ("denied", DiscoveryFailure.DENIED),
        ("expired", DiscoveryFailure.CREDENTIALS),
    ],
)
def test_routes_keep_serving_while_aws_fails_and_the_reason_is_logged_once_and_counted(
    shared_cloud: Cloud, shared: Daemon, kind: FaultKind, reason: DiscoveryFailure
) -> None:
    before, logged, counted = shared.ports(), len(shared.log), failures(shared, reason)
    with connect(shared.ip, before["my-redis-002/0001"] or 0) as live:
        assert live.ping()
        shared_cloud.aws.fault("*", kind, times=None)
        try:
            eventually(lambda: failures(shared, reason) >= counted + 2, f"two failures {reason}")
            assert live.ping()
            assert shared.ports() == before
            with connect(shared.ip, before["my-redis:primary"] or 0) as fresh:
                assert fresh.ping()
            status, text = shared.get("/readyz")
            assert (status, f"what was known is served ({reason}: " in text) == (200, True)
            assert any(f"what was known is served ({reason}: " in note for note in shared.document().notes)
        finally:
            shared_cloud.aws.heal()
        told = shared.logged(FAILED, logged)
        assert len({line.get("operation") for line in told}) == len(told)
        assert {line["reason"] for line in told} == {reason}
        shared.reload()  # which asks at once, where the retry may take its time
        shared.wait_for_log("discovery works again", since=logged)
        assert (shared.get("/readyz"), shared.document().notes) == ((200, "ready\n"), ())
        assert live.ping()


def test_nobody_at_aws_s_address_changes_nothing_either(shared_cloud: Cloud, shared: Daemon) -> None:
    before, logged = shared.ports(), len(shared.log)
    shared_cloud.aws.go_down()
    try:
        shared.wait_for_log(FAILED, since=logged, reason="unreachable")
        with connect(shared.ip, before["my-redis-002/0001"] or 0) as fresh:
            assert fresh.ping()
        assert shared.ports() == before
    finally:
        shared_cloud.aws.go_up()
    shared.reload()
    shared.wait_for_log("discovery works again", since=logged)


def test_a_stop_does_not_wait_for_an_answer_of_aws(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=0)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    cloud.aws.fault("*", "hang", times=None).wait_until_hit()
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5


def test_started_with_aws_down_it_serves_at_once_what_it_knew_and_is_ready_though_readyz_says_what_it_waits_for(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=1)
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}])
    port = daemon.wait_for_route("my-redis-002/0001")
    before = daemon.ports()
    assert daemon.get("/readyz") == (200, "ready\n")
    assert daemon.stop() == 0
    cloud.aws.go_down()
    try:
        daemon.start()  # returns at READY=1
        with connect(daemon.ip, port) as talk:
            assert talk.ping(), "served as soon as it is READY"
        assert daemon.ports() == before
        daemon.wait_for_log(FAILED, reason="unreachable")
        status, text = daemon.get("/readyz")
        assert (status, "unreachable" in text) == (503, True)
        assert daemon.get("/healthz")[0] == 200
        daemon.notified.wait_for(lambda said: "waiting for the first answer of AWS (unreachable" in said, "STATUS=")
    finally:
        cloud.aws.go_up()
    eventually(lambda: daemon.get("/readyz")[0] == 200, "it is ready once AWS has answered")


def test_started_for_the_first_time_with_aws_down_it_is_ready_and_says_why_there_are_no_routes(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.replication_group("my-redis", replicas=0)
    cloud.aws.go_down()
    daemon = natproxy.prepare(cloud, caches=[{"id": "my-redis"}]).start()
    daemon.wait_for_log(FAILED, reason="unreachable")
    (cache,) = daemon.document().caches
    assert (cache.id, cache.routes) == ("my-redis", ())
    assert "waiting for the first answer of AWS" in str(cache.reason)
    shown = daemon.cli("routes")
    assert shown.returncode == 0
    assert "waiting for the first answer of AWS" in shown.stdout
    cloud.aws.go_up()
    daemon.wait_for_route("my-redis-001/0001")


def test_credentials_that_expire_are_looked_up_anew_on_an_instance(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=0)
    daemon = natproxy.prepare(cloud, environ=cloud.instance_environ, caches=[{"id": "my-redis"}]).start()
    daemon.wait_for_route("my-redis-001/0001")
    looked_up = len(cloud.aws.calls("imds"))
    cloud.aws.fault("*", "expired", times=1)
    cloud.aws.wait_for_more("DescribeServerlessCaches", 2)
    assert len(cloud.aws.calls("imds")) > looked_up
    assert daemon.get("/readyz")[0] == 200
    assert not daemon.logged(FAILED), "found again within the same round"


def test_caches_are_found_by_their_tags_and_each_is_asked_for_its_tags_once_not_in_each_round(
    paper_cloud: Cloud, natproxy: Natproxies
) -> None:
    paper_cloud.replication_group("ours", replicas=0, tags={"Environment": "dev", "Team": "web"})
    paper_cloud.memcached("also-ours", nodes=1, tags={"Environment": "dev", "Team": "web"})
    paper_cloud.memcached("theirs", nodes=1, tags={"Environment": "prod", "Team": "web"})
    daemon = natproxy(paper_cloud, caches=[{"tags": {"Environment": "dev", "Team": "web"}}], aws={"refresh": "100ms"})
    for name in ("ours-001/0001", "also-ours/0001"):
        daemon.wait_for_route(name, "open")
    paper_cloud.aws.wait_for_more("DescribeServerlessCaches", 5)
    assert {cache.id for cache in daemon.document().caches} == {"ours", "also-ours"}
    asked = [call.params["ResourceName"] for call in paper_cloud.aws.calls("ListTagsForResource")]
    assert len(asked) == len(set(asked)) >= 3
    paper_cloud.memcached("late", nodes=1, tags={"Environment": "dev", "Team": "web"})
    daemon.wait_for_route("late/0001", "open")
    assert len(paper_cloud.aws.calls("ListTagsForResource")) == len(asked) + 1


def test_while_aws_hangs_a_node_that_moves_is_followed_by_its_name_and_the_hang_is_told(
    hanging_cloud: Cloud, hanging: Daemon
) -> None:
    port = hanging.wait_for_route("my-redis-002/0001")
    hanging_cloud.replace("my-redis-002")

    def is_reached() -> bool:
        with connect(hanging.ip, port) as talk:
            return talk.ping()

    eventually(is_reached, "the new node is reached")
    assert hanging.get("/healthz")[0] == 200
    hanging.wait_for_log(FAILED, operation="DescribeReplicationGroups", reason="timeout", seconds=40)
    hanging.wait_for_log("discovery works again")
    assert failures(hanging, DiscoveryFailure.TIMEOUT) == 1
