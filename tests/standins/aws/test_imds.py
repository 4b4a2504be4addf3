from __future__ import annotations

import http.client
import json

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.utils import IMDSRegionProvider
from mypy_boto3_elasticache import ElastiCacheClient

from tests.standins.aws import AwsServer
from tests.standins.aws.network import NATPROXY_GROUP, THIS_INSTANCE


@pytest.fixture
def _on_instance(aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be one on an instance, with nothing of its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in aws.instance_environ.items():
        monkeypatch.setenv(name, value)


def asked(aws: AwsServer, method: str, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(aws.endpoint_url.removeprefix("http://"), timeout=5)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def token(aws: AwsServer) -> str:
    status, text = asked(aws, "PUT", "/latest/api/token", x_aws_ec2_metadata_token_ttl_seconds="60")
    assert status == 200
    return text


def test_nothing_is_told_without_a_token(aws: AwsServer) -> None:
    path = "/latest/meta-data/placement/region"
    assert asked(aws, "GET", path)[0] == 401
    assert asked(aws, "GET", path, x_aws_ec2_metadata_token="made-up")[0] == 401
    assert asked(aws, "GET", path, x_aws_ec2_metadata_token=token(aws)) == (200, "us-east-1")


@pytest.mark.parametrize(("method", "ttl", "status"), [("GET", "60", 405), ("PUT", "", 400), ("PUT", "99999", 400)])
def test_a_token_is_given_only_as_aws_does(aws: AwsServer, method: str, ttl: str, status: int) -> None:
    assert asked(aws, method, "/latest/api/token", x_aws_ec2_metadata_token_ttl_seconds=ttl)[0] == status


def test_the_region_is_told_in_three_ways(aws: AwsServer) -> None:
    with_token = {"x_aws_ec2_metadata_token": token(aws)}
    assert asked(aws, "GET", "/latest/meta-data/placement/availability-zone/", **with_token) == (200, "us-east-1a")
    status, text = asked(aws, "GET", "/latest/dynamic/instance-identity/document", **with_token)
    assert (status, json.loads(text)["region"]) == (200, "us-east-1")
    assert asked(aws, "GET", "/latest/meta-data/hostname", **with_token)[0] == 404


@pytest.mark.usefixtures("_on_instance")
def test_botocore_finds_region_and_credentials_by_itself(aws: AwsServer) -> None:
    session = boto3.Session()
    assert IMDSRegionProvider(session._session).provide() == "us-east-1"
    client = session.client("elasticache", region_name="us-east-1")
    assert client.describe_cache_clusters()["CacheClusters"] == []
    client.close()
    assert aws.calls("DescribeCacheClusters")[0].access_key.startswith("ASIA")


@pytest.mark.usefixtures("_on_instance")
def test_dead_role_credentials_need_a_new_session(aws: AwsServer) -> None:
    def session() -> ElastiCacheClient:
        return boto3.Session().client("elasticache", region_name="us-east-1")

    old = session()
    assert old.describe_cache_clusters()["CacheClusters"] == []
    aws.keyring.expire_sessions()
    for _ in range(2):
        with pytest.raises(ClientError, match="ExpiredToken"):
            old.describe_cache_clusters()
    new = session()
    assert new.describe_cache_clusters()["CacheClusters"] == []
    old.close()
    new.close()


@pytest.mark.usefixtures("_on_instance")
def test_in_an_outage_the_old_credentials_are_told_again(aws: AwsServer) -> None:
    aws.imds.is_stuck = True
    first = boto3.Session().get_credentials()
    again = boto3.Session().get_credentials()
    assert first is not None
    assert again is not None
    assert again.access_key == first.access_key


@pytest.mark.usefixtures("_on_instance")
def test_metadata_can_fail(aws: AwsServer) -> None:
    aws.fault("imds", "server-error", times=None)
    client = boto3.Session().client("elasticache", region_name="us-east-1")
    with pytest.raises(NoCredentialsError):
        client.describe_cache_clusters()
    client.close()


def test_the_interfaces_are_told(aws: AwsServer) -> None:
    with_token = {"x_aws_ec2_metadata_token": token(aws)}

    def told(path: str) -> tuple[int, str]:
        return asked(aws, "GET", f"/latest/meta-data/{path}", **with_token)

    mac = told("mac")[1]
    assert told("network/interfaces/macs/") == (200, f"{mac}/")
    below = f"network/interfaces/macs/{mac}"
    assert told(f"{below}/security-group-ids") == (200, NATPROXY_GROUP)
    assert told(f"{below}/interface-id")[1].startswith("eni-")
    assert (told("local-ipv4")[1], told(f"{below}/local-ipv4s")[1]) == ("10.0.0.55", "10.0.0.55")
    assert told("instance-id") == (200, THIS_INSTANCE)
    assert told("security-groups") == (200, "natproxy")
    assert told("public-ipv4") == told(f"{below}/public-ipv4s") == (200, "203.0.113.73")
    aws.world.network.associate("203.0.113.73", None)
    assert told("public-ipv4")[0] == told(f"{below}/public-ipv4s")[0] == 404
    aws.world.network.add_interface(0x11, "10.0.1.55", THIS_INSTANCE)
    assert told("network/interfaces/macs")[1].splitlines() == [f"{mac}/", "0e:00:00:00:00:11/"]
