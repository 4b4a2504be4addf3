"""Each fault as boto3 sees it, and how boto3 behaves then: what natproxy's discovery is built for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from mypy_boto3_elasticache import ElastiCacheClient

from tests.standins.aws import AwsServer, AwsWorld, FaultKind
from tests.standins.aws.faults import Faults

THREE_TRIES = Config(retries={"total_max_attempts": 3, "mode": "legacy"}, connect_timeout=2, read_timeout=2)


def total(client: ElastiCacheClient) -> int:
    return len(client.describe_cache_clusters()["CacheClusters"])


@pytest.fixture
def three(world: AwsWorld) -> AwsWorld:
    world.add_memcached("mc")
    return world


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        ("throttle", "Throttling", 400),
        ("server-error", "ServiceUnavailable", 503),
        ("internal-error", "InternalFailure", 500),
        ("denied", "AccessDenied", 403),
        ("expired", "ExpiredToken", 403),
        ("invalid-key", "InvalidClientTokenId", 403),
    ],
)
def test_errors_have_awss_codes(
    aws: AwsServer, client: ElastiCacheClient, kind: FaultKind, code: str, status: int
) -> None:
    aws.fault("DescribeCacheClusters", kind)
    with pytest.raises(ClientError) as refused:
        total(client)
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert total(client) == 0, "a fault strikes as often as was ordered"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("reset", ConnectionClosedError),
        ("close", ConnectionClosedError),
        ("truncated", ResponseParserError),
        ("cut-off", ResponseParserError),
        ("empty", ResponseParserError),
        ("html", KeyError),
        ("nonsense", KeyError),
    ],
)
def test_spoilt_answers_raise_what_botocore_raises(
    three: AwsWorld, aws: AwsServer, client: ElastiCacheClient, kind: FaultKind, error: type[Exception]
) -> None:
    aws.fault("DescribeCacheClusters", kind)
    with pytest.raises(error):
        total(client)
    assert total(client) == len(three.clusters)


@pytest.mark.parametrize("kind", ["throttle", "server-error", "internal-error", "reset", "close"])
def test_botocore_retries_these_by_itself(
    aws: AwsServer, connect: Callable[..., ElastiCacheClient], kind: FaultKind
) -> None:
    fault = aws.fault("DescribeCacheClusters", kind, times=1)
    assert total(connect(config=THREE_TRIES)) == 0
    assert fault.hits == 1
    assert len(aws.calls("DescribeCacheClusters")) == 2


@pytest.mark.parametrize("kind", ["denied", "expired", "truncated", "html"])
def test_botocore_does_not_retry_these(
    aws: AwsServer, connect: Callable[..., ElastiCacheClient], kind: FaultKind
) -> None:
    aws.fault("DescribeCacheClusters", kind)
    with pytest.raises((ClientError, ResponseParserError, KeyError)):
        total(connect(config=THREE_TRIES))
    assert len(aws.calls("DescribeCacheClusters")) == 1


def test_a_hang_ends_in_a_read_timeout(aws: AwsServer, connect: Callable[..., ElastiCacheClient]) -> None:
    aws.fault("DescribeCacheClusters", "hang")
    impatient = connect(config=Config(retries={"total_max_attempts": 1}, read_timeout=0.2))
    with pytest.raises(ReadTimeoutError):
        total(impatient)
    assert total(impatient) == 0


def test_a_slow_answer_comes_when_it_is_released(three: AwsWorld, aws: AwsServer, client: ElastiCacheClient) -> None:
    fault = aws.fault("DescribeCacheClusters", "slow")
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(total(client)))
    asking.start()
    fault.wait_until_hit()
    assert found == []
    fault.release()
    asking.join(10)
    assert found == [len(three.clusters)]


def test_many_can_hang_at_once_and_the_server_still_ends(world: AwsWorld) -> None:
    with AwsServer(world) as server:
        fault = server.fault("imds", "hang", times=None)
        host, port = server.endpoint_url.removeprefix("http://").split(":")
        hanging = [socket.create_connection((host, int(port))) for _ in range(40)]
        for connection in hanging:
            connection.sendall(b"GET /latest/meta-data/ HTTP/1.1\r\nHost: x\r\n\r\n")
        fault.wait_until_hit(40)
    for connection in hanging:
        assert connection.recv(1) == b""
        connection.close()


def test_while_it_is_down_nobody_listens_and_then_it_is_at_the_same_port(
    aws: AwsServer, client: ElastiCacheClient
) -> None:
    before = aws.endpoint_url
    assert total(client) == 0
    aws.go_down()
    with pytest.raises((EndpointConnectionError, ConnectionClosedError)):
        total(client)
    with pytest.raises(EndpointConnectionError):
        total(client)
    aws.go_up()
    assert aws.endpoint_url == before
    assert total(client) == 0


def test_going_down_cuts_what_hangs(aws: AwsServer, client: ElastiCacheClient) -> None:
    fault = aws.fault("DescribeCacheClusters", "hang")
    errors: list[type[Exception]] = []

    def ask() -> None:
        try:
            total(client)
        except (ConnectionClosedError, EndpointConnectionError) as error:
            errors.append(type(error))

    asking = threading.Thread(target=ask)
    asking.start()
    fault.wait_until_hit()
    aws.go_down()
    asking.join(10)
    assert errors == [ConnectionClosedError]


def test_faults_are_by_operation(aws: AwsServer, client: ElastiCacheClient) -> None:
    aws.fault("DescribeReplicationGroups", "denied", times=None)
    assert total(client) == 0
    for _ in range(2):
        with pytest.raises(ClientError):
            client.describe_replication_groups()
    aws.heal()
    assert client.describe_replication_groups()["ReplicationGroups"] == []


def test_a_star_means_every_operation_but_not_the_metadata() -> None:
    faults = Faults()
    fault = faults.add("*", "throttle", times=None)
    assert faults.take("DescribeEvents") is fault
    assert faults.take("AssumeRole") is fault
    assert faults.take("imds") is None


def test_faults_strike_in_the_order_they_were_ordered_in() -> None:
    faults = Faults()
    first, second = faults.add("A", "throttle", times=2), faults.add("A", "denied")
    assert [faults.take("A"), faults.take("A"), faults.take("A"), faults.take("A")] == [first, first, second, None]


def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="sulk"):
        Faults().add("A", "sulk")  # type: ignore[arg-type]


def test_waiting_for_a_fault_ends_in_time() -> None:
    with pytest.raises(TimeoutError, match="struck 0 requests"):
        Faults().add("A", "throttle").wait_until_hit(seconds=0.01)
