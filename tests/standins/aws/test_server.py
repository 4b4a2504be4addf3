from __future__ import annotations

import threading

import boto3
import pytest
from botocore.exceptions import ClientError
from mypy_boto3_elasticache import ElastiCacheClient

from tests.standins.aws import AwsServer, AwsWorld, RenderError


def test_what_is_asked_is_recorded_with_its_parameters(aws: AwsServer, client: ElastiCacheClient) -> None:
    client.describe_cache_clusters(ShowCacheNodeInfo=True, MaxRecords=50)
    client.describe_replication_groups()
    assert [call.operation for call in aws.calls()] == ["DescribeCacheClusters", "DescribeReplicationGroups"]
    assert aws.calls("DescribeCacheClusters")[0].params == {"ShowCacheNodeInfo": True, "MaxRecords": 50}
    assert aws.calls("DescribeCacheClusters")[0].access_key == aws.user.access_key


def test_a_test_can_wait_for_the_nth_call(aws: AwsServer, client: ElastiCacheClient) -> None:
    client.describe_cache_clusters()
    asking = threading.Thread(target=client.describe_cache_clusters)
    asking.start()
    assert len(aws.wait_for("DescribeCacheClusters", 2)) == 2
    asking.join(10)
    with pytest.raises(TimeoutError, match="received 2 times, not 3"):
        aws.wait_for("DescribeCacheClusters", 3, seconds=0.01)
    with pytest.raises(TimeoutError, match="received 2 times, not 3"):
        aws.wait_for_more("DescribeCacheClusters", seconds=0.01)


async def test_a_running_loop_can_wait_too(aws: AwsServer, client: ElastiCacheClient) -> None:
    asking = threading.Thread(target=client.describe_cache_clusters)
    asking.start()
    assert len(await aws.wait_for_async("DescribeCacheClusters")) == 1
    asking.join(10)


def test_an_invented_field_gets_a_500_and_fails_the_test(world: AwsWorld) -> None:
    world.add_memcached("mc")
    world.patch("cluster", "mc", CurrentRole="primary")
    server = AwsServer(world)
    server.start()
    session = boto3.Session(server.user.access_key, server.user.secret_key, None, "us-east-1")
    client = session.client("elasticache", endpoint_url=server.endpoint_url)
    with pytest.raises(ClientError, match="InternalFailure"):
        client.describe_cache_clusters()
    client.close()
    with pytest.raises(RenderError, match="CurrentRole"):
        server.stop()


def test_boto3_needs_nothing_but_the_environment(aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environ.items():
        monkeypatch.setenv(name, value)
    client = boto3.Session().client("elasticache", region_name=aws.environ["AWS_REGION"])
    assert client.describe_cache_clusters()["CacheClusters"] == []
    client.close()


def test_the_world_may_change_between_two_calls(aws: AwsServer, world: AwsWorld, client: ElastiCacheClient) -> None:
    assert client.describe_replication_groups()["ReplicationGroups"] == []
    world.add_replication_group("my-redis")
    [told] = client.describe_replication_groups()["ReplicationGroups"]
    assert told["NodeGroups"][0]["NodeGroupMembers"][0]["CurrentRole"] == "primary"
    assert aws.errors == []


def test_a_server_can_be_started_again_on_its_port(world: AwsWorld) -> None:
    server = AwsServer(world)
    server.start()
    first = server.endpoint_url
    server.stop()
    with server:
        assert server.endpoint_url == first


def test_a_taken_port_is_said_and_leaves_nothing_behind(aws: AwsServer, world: AwsWorld) -> None:
    port = int(aws.endpoint_url.rpartition(":")[2])
    before = threading.active_count()
    with pytest.raises(OSError, match="in use"):
        AwsServer(world, port=port).start()
    assert threading.active_count() == before


def test_the_date_of_an_answer_is_the_server_s(aws: AwsServer, client: ElastiCacheClient) -> None:
    aws.now = lambda: 1_800_000_000.0
    with pytest.raises(ClientError, match="SignatureDoesNotMatch") as refused:
        client.describe_cache_clusters()
    headers = refused.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert headers["date"] == "Fri, 15 Jan 2027 08:00:00 GMT"
