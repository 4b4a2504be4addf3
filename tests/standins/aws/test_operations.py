from __future__ import annotations

from collections.abc import Callable

import boto3
import pytest
from botocore.exceptions import ClientError
from mypy_boto3_elasticache import ElastiCacheClient
from mypy_boto3_sts import STSClient

from tests.standins.aws import AwsServer, AwsWorld


def test_every_listing_is_paged(aws: AwsServer, world: AwsWorld, client: ElastiCacheClient) -> None:
    aws.page_size = 2
    for number in range(5):
        world.add_memcached(f"mc-{number}")
        world.add_replication_group(f"group-{number}", replicas=0)
        world.add_serverless(f"less-{number}")
    clusters = [
        c["CacheClusterId"]
        for page in client.get_paginator("describe_cache_clusters").paginate(ShowCacheNodeInfo=True)
        for c in page["CacheClusters"]
    ]
    groups = [
        g["ReplicationGroupId"]
        for page in client.get_paginator("describe_replication_groups").paginate()
        for g in page["ReplicationGroups"]
    ]
    less = [
        s["ServerlessCacheName"]
        for page in client.get_paginator("describe_serverless_caches").paginate()
        for s in page["ServerlessCaches"]
    ]
    assert sorted(clusters) == sorted([*(f"mc-{n}" for n in range(5)), *(f"group-{n}-001" for n in range(5))])
    assert groups == [f"group-{n}" for n in range(5)]
    assert less == [f"less-{n}" for n in range(5)]
    assert len(aws.calls("DescribeCacheClusters")) == 5
    assert [call.params.get("Marker") is not None for call in aws.calls("DescribeReplicationGroups")] == [
        False,
        True,
        True,
    ]
    assert [call.params.get("NextToken") is not None for call in aws.calls("DescribeServerlessCaches")] == [
        False,
        True,
        True,
    ]


def test_a_last_page_that_is_full_has_no_marker(aws: AwsServer, world: AwsWorld, client: ElastiCacheClient) -> None:
    aws.page_size = 3
    world.add_replication_group("my-redis", replicas=2)
    assert "Marker" not in client.describe_cache_clusters()


@pytest.mark.parametrize("marker", ["made-up", "RGVzY3JpYmVFdmVudHM6Mg=="])
def test_a_marker_of_elsewhere_is_refused(client: ElastiCacheClient, marker: str) -> None:
    with pytest.raises(ClientError, match="marker is not valid"):
        client.describe_cache_clusters(Marker=marker)


@pytest.mark.parametrize("count", [19, 101])
def test_aws_takes_20_to_100_records_a_page(client: ElastiCacheClient, count: int) -> None:
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        client.describe_cache_clusters(MaxRecords=count)


def test_nodes_are_shown_only_where_asked_for(world: AwsWorld, client: ElastiCacheClient) -> None:
    world.add_memcached("mc")
    assert "CacheNodes" not in client.describe_cache_clusters()["CacheClusters"][0]
    assert len(client.describe_cache_clusters(ShowCacheNodeInfo=True)["CacheClusters"][0]["CacheNodes"]) == 3


def test_clusters_outside_groups_can_be_asked_for(world: AwsWorld, client: ElastiCacheClient) -> None:
    world.add_memcached("mc")
    world.add_replication_group("my-redis")
    answer = client.describe_cache_clusters(ShowCacheClustersNotInReplicationGroups=True)
    assert [c["CacheClusterId"] for c in answer["CacheClusters"]] == ["mc"]


def test_one_cache_can_be_asked_for_and_an_unknown_one_is_an_error(world: AwsWorld, client: ElastiCacheClient) -> None:
    world.add_replication_group("my-redis")
    world.add_serverless("less")
    assert len(client.describe_replication_groups(ReplicationGroupId="my-redis")["ReplicationGroups"]) == 1
    assert len(client.describe_cache_clusters(CacheClusterId="MY-REDIS-002")["CacheClusters"]) == 1
    assert len(client.describe_serverless_caches(ServerlessCacheName="less")["ServerlessCaches"]) == 1
    with pytest.raises(client.exceptions.ReplicationGroupNotFoundFault):
        client.describe_replication_groups(ReplicationGroupId="other")
    with pytest.raises(client.exceptions.CacheClusterNotFoundFault):
        client.describe_cache_clusters(CacheClusterId="other")
    with pytest.raises(client.exceptions.ServerlessCacheNotFoundFault):
        client.describe_serverless_caches(ServerlessCacheName="other")


def test_tags_are_listed_by_arn(world: AwsWorld, client: ElastiCacheClient) -> None:
    world.add_replication_group("my-redis", tags={"Environment": "dev"})
    world.add_memcached("mc", tags={"Team": "web", "Environment": "dev"})
    world.add_serverless("less", tags={})

    def tags(kind: str, cache_id: str) -> dict[str, str]:
        listed = client.list_tags_for_resource(ResourceName=world.arn(kind, cache_id))["TagList"]
        return {tag["Key"]: tag["Value"] for tag in listed}

    assert tags("replicationgroup", "my-redis") == {"Environment": "dev"}
    assert tags("cluster", "my-redis-002") == {"Environment": "dev"}, "a group's tags hold for its members"
    assert tags("cluster", "mc") == {"Team": "web", "Environment": "dev"}
    assert tags("serverlesscache", "less") == {}
    with pytest.raises(client.exceptions.ReplicationGroupNotFoundFault):
        tags("replicationgroup", "other")
    with pytest.raises(client.exceptions.InvalidARNFault):
        client.list_tags_for_resource(ResourceName="arn:aws:s3:::bucket")


def test_the_arns_in_the_answers_are_those_that_tags_are_listed_by(world: AwsWorld, client: ElastiCacheClient) -> None:
    world.add_replication_group("my-redis", tags={"a": "b"})
    world.add_serverless("less", tags={"c": "d"})
    arns = [
        client.describe_replication_groups()["ReplicationGroups"][0]["ARN"],
        client.describe_cache_clusters()["CacheClusters"][0]["ARN"],
        client.describe_serverless_caches()["ServerlessCaches"][0]["ARN"],
    ]
    assert [client.list_tags_for_resource(ResourceName=arn)["TagList"][0]["Key"] for arn in arns] == ["a", "a", "c"]


def test_events_are_newest_first_and_only_of_the_window() -> None:
    clock = 1_770_000_000.0
    world = AwsWorld(now=lambda: clock)
    world.add_replication_group("my-redis")
    world.failover("my-redis")
    clock += 30 * 60
    world.replace_node("my-redis-001")
    with AwsServer(world) as aws:
        session = boto3.Session(aws.user.access_key, aws.user.secret_key, None, "us-east-1")
        client = session.client("elasticache", endpoint_url=aws.endpoint_url)
        recent = [e["Message"] for e in client.describe_events(Duration=10)["Events"]]
        every = [e["Message"] for p in client.get_paginator("describe_events").paginate() for e in p["Events"]]
        of_group = client.describe_events(SourceType="replication-group", SourceIdentifier="my-redis")["Events"]
        client.close()
    assert recent == ["Finished recovery for cache nodes 0001", "Recovering cache nodes 0001"]
    assert every[:2] == recent
    assert every[3] == "Test Failover API called for node group 0001"
    assert len(of_group) == 2


def test_an_empty_answer_can_be_ordered(world: AwsWorld, client: ElastiCacheClient) -> None:
    world.add_replication_group("my-redis")
    world.partial("empty", "DescribeReplicationGroups")
    assert client.describe_replication_groups()["ReplicationGroups"] == []
    assert len(client.describe_cache_clusters()["CacheClusters"]) == 3
    world.whole()
    assert len(client.describe_replication_groups()["ReplicationGroups"]) == 1


def test_an_operation_that_is_not_served_is_refused(client: ElastiCacheClient) -> None:
    with pytest.raises(ClientError, match="InvalidAction"):
        client.describe_users()


def test_sts_says_who_one_is(sts: STSClient) -> None:
    assert sts.get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:user/natproxy"


def test_a_role_session_lasts_12_hours_at_most(sts: STSClient) -> None:
    role = "arn:aws:iam::123456789012:role/reader"
    with pytest.raises(ClientError, match="DurationSeconds"):  # botocore itself refuses less than 15 minutes
        sts.assume_role(RoleArn=role, RoleSessionName="natproxy", DurationSeconds=43201)


@pytest.mark.parametrize(
    ("operation", "ask", "resource"),
    [
        ("DescribeCacheClusters", lambda c: c.describe_cache_clusters(), "cluster:*"),
        ("DescribeReplicationGroups", lambda c: c.describe_replication_groups(), "replicationgroup:*"),
        ("DescribeServerlessCaches", lambda c: c.describe_serverless_caches(), "serverlesscache:*"),
        ("DescribeEvents", lambda c: c.describe_events(), "*"),
    ],
)
def test_a_denial_names_the_action_and_the_wildcard(
    aws: AwsServer, client: ElastiCacheClient, operation: str, ask: Callable[[ElastiCacheClient], object], resource: str
) -> None:
    aws.fault(operation, "denied")
    with pytest.raises(ClientError) as denied:
        ask(client)
    error = denied.value.response["Error"]
    full = resource if resource == "*" else f"arn:aws:elasticache:us-east-1:123456789012:{resource}"
    assert error["Code"] == "AccessDenied"
    assert error["Message"] == (
        "User: arn:aws:iam::123456789012:user/natproxy is not authorized to perform: "
        f"elasticache:{operation} on resource: {full} because no identity-based policy allows the "
        f"elasticache:{operation} action"
    )
