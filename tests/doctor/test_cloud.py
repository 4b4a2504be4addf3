from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError

from natproxy.config import Aws
from natproxy.doctor import cloud
from natproxy.doctor.cloud import Cloud
from natproxy.model import DiscoveryFailure
from tests.discover.conftest import use_environ
from tests.discover.samples import account
from tests.standins.aws import AwsServer
from tests.standins.aws.network import CACHE_GROUP, NATPROXY_GROUP, OTHER_INSTANCE, THIS_INSTANCE

ROLE = "arn:aws:iam::123456789012:role/caches"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    with AwsServer(account()) as server:
        use_environ(monkeypatch, server.environ)
        yield server


@pytest.fixture
def ask() -> Iterator[Callable[..., Cloud]]:
    made: list[Cloud] = []

    def make(**config: str) -> Cloud:
        made.append(Cloud(Aws.model_validate(config), time.time))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_who_and_where_by_keys(aws: AwsServer, ask: Callable[..., Cloud]) -> None:
    who, where = ask().who(), ask().where("")
    assert (who.arn, who.account) == ("arn:aws:iam::123456789012:user/natproxy", "123456789012")
    assert (who.source, who.trouble) == ("the environment's variables", None)
    assert who.skew_seconds is not None
    assert abs(who.skew_seconds) < 60
    assert (where.region, where.source) == ("us-east-1", "AWS_REGION")
    assert {"eu-west-1", "cn-north-1"} <= set(where.known)
    assert aws.calls("GetCallerIdentity")


def test_who_and_where_on_an_instance(
    aws: AwsServer, ask: Callable[..., Cloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_environ(monkeypatch, aws.instance_environ)
    assert ask().who().source == "this instance's role"
    assert ask().where("").source == "instance metadata"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert ask().where("").source == "AWS_DEFAULT_REGION or the AWS config file"
    assert ask(region="us-east-1").where("").source == "aws.region in the config"


@pytest.mark.usefixtures("aws")
def test_who_in_another_role(ask: Callable[..., Cloud]) -> None:
    who = ask(role_arn=ROLE).who()
    assert who.arn == "arn:aws:sts::123456789012:assumed-role/caches/natproxy"
    assert who.source == f"{ROLE}, assumed by the environment's variables"


def test_a_clock_is_compared_even_where_aws_refuses(aws: AwsServer, ask: Callable[..., Cloud]) -> None:
    aws.now = lambda: time.time() - 3600
    who = ask().who()
    assert who.trouble is not None
    assert (who.trouble.reason, who.trouble.code) == (DiscoveryFailure.CREDENTIALS, "SignatureDoesNotMatch")
    assert who.skew_seconds is not None
    assert 3500 < who.skew_seconds < 3700


def test_a_role_that_may_not_be_assumed(aws: AwsServer, ask: Callable[..., Cloud]) -> None:
    aws.fault("AssumeRole", "denied", times=None)
    asked = ask(role_arn=ROLE)
    trouble = asked.who().trouble
    assert trouble is not None
    assert trouble.reason is DiscoveryFailure.DENIED
    assert asked.where("eu-west-3").region == "us-east-1"


def test_nobody_names_a_region(ask: Callable[..., Cloud], monkeypatch: pytest.MonkeyPatch) -> None:
    use_environ(monkeypatch, {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"})
    assert ask().where("").region == ""
    assert ask().where("eu-west-3").region == "eu-west-3"
    trouble = ask().who().trouble
    assert trouble is not None
    assert "region" in trouble.message


def test_every_action_is_tried_once(aws: AwsServer, ask: Callable[..., Cloud]) -> None:
    arn = aws.world.set_secret("probe", "word")
    aws.fault("DescribeCacheClusters", "denied")
    aws.fault("DescribeAddresses", "denied")
    asked = ask()
    trials = (*asked.try_listings(), *asked.try_secrets([arn]), *asked.try_network())
    assert [(one.action, one.resource, one.trouble and one.trouble.reason) for one in trials] == [
        ("elasticache:DescribeReplicationGroups", "replicationgroup:*", None),
        ("elasticache:DescribeCacheClusters", "cluster:*", DiscoveryFailure.DENIED),
        ("elasticache:DescribeServerlessCaches", "serverlesscache:*", None),
        ("secretsmanager:GetSecretValue", arn, None),
        ("ec2:DescribeSecurityGroups", "*", None),
        ("ec2:DescribeInstances", "*", None),
        ("ec2:DescribeAddresses", "*", DiscoveryFailure.DENIED),
    ]
    assert "word" not in repr(trials)
    assert len(aws.calls()) == len(trials)
    assert all(call.params["DryRun"] for call in aws.calls("DescribeInstances"))
    assert asked.try_secrets([]) == ()


def test_the_network_is_described(aws: AwsServer, ask: Callable[..., Cloud]) -> None:
    asked = ask()
    groups = asked.security_groups([CACHE_GROUP, NATPROXY_GROUP, "sg-0gone"])
    assert [group["GroupName"] for group in groups] == ["caches", "natproxy"]
    (elastic,) = asked.elastic_ips(["203.0.113.73", "203.0.113.74"])
    assert elastic["InstanceId"] == THIS_INSTANCE
    aws.world.network.associate("203.0.113.74", OTHER_INSTANCE, is_elastic=False)
    assert [one["InstanceId"] for one in asked.instances_at(["203.0.113.74"])] == [OTHER_INSTANCE]
    aws.fault("DescribeAddresses", "denied")
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        asked.elastic_ips(["203.0.113.73"])


def test_a_question_that_hangs_is_ended(
    aws: AwsServer, ask: Callable[..., Cloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "READ_SECONDS", 60.0)
    asked = ask()
    fault = aws.fault("DescribeCacheClusters", "hang", times=None)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(asked.try_listings()))
    thread.start()
    fault.wait_until_hit()
    asked.interrupt()
    thread.join(20)
    assert not thread.is_alive()
    assert len(found) == 3
