"""EC2 as real boto3 sees it: the network of the guide, and what can be done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.model import ListShape, Shape, StructureShape
from botocore.parsers import create_parser

from tests.standins.aws import AwsServer, AwsWorld, RenderError, WorldError
from tests.standins.aws.conftest import ONE_TRY
from tests.standins.aws.control import ask_control
from tests.standins.aws.ec2operations import EC2_OPERATIONS
from tests.standins.aws.ec2protocol import parse_ec2, render_ec2, render_ec2_error
from tests.standins.aws.keys import Credentials
from tests.standins.aws.network import (
    CACHE_GROUP,
    NATPROXY_GROUP,
    OTHER_INSTANCE,
    PUBLIC_ADDRESS,
    THIS_INSTANCE,
    TRUSTED_CLIENT,
    VPC,
)
from tests.standins.aws.render import QueryError, service_model


@pytest.fixture
def connect(aws: AwsServer) -> Iterator[Callable[..., Any]]:
    clients: list[Any] = []

    def make(credentials: Credentials | None = None) -> Any:
        keys = credentials or aws.user
        session: Any = boto3.Session(keys.access_key, keys.secret_key, keys.token, "us-east-1")
        clients.append(session.client("ec2", endpoint_url=aws.endpoint_url, config=ONE_TRY))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def ec2(connect: Callable[..., Any]) -> Any:
    return connect()


def groups(ec2: Any, *ids: str) -> Any:
    return ec2.describe_security_groups(GroupIds=list(ids))["SecurityGroups"]


def test_the_guide_s_groups(ec2: Any) -> None:
    caches, natproxy = groups(ec2, CACHE_GROUP, NATPROXY_GROUP)
    assert (caches["GroupName"], caches["VpcId"]) == ("caches", VPC)
    assert caches["IpPermissions"][0]["UserIdGroupPairs"] == [{"GroupId": NATPROXY_GROUP, "UserId": "123456789012"}]
    first = natproxy["IpPermissions"][0]
    assert (first["IpProtocol"], first["FromPort"], first["ToPort"]) == ("tcp", 6379, 6478)
    assert first["IpRanges"] == [{"CidrIp": TRUSTED_CLIENT}]
    assert caches["IpPermissionsEgress"][0]["IpProtocol"] == "-1"
    assert "FromPort" not in caches["IpPermissionsEgress"][0]


def test_rules_come_and_go(world: AwsWorld, ec2: Any) -> None:
    world.network.forbid(NATPROXY_GROUP)
    for peer in ("0.0.0.0/0", "2001:db8::/32", "pl-0a1b2c3d", CACHE_GROUP):
        world.network.allow(NATPROXY_GROUP, peer, 6379, 6381)
    world.network.allow(NATPROXY_GROUP, "10.0.0.0/8", protocol="udp")
    joined, other = groups(ec2, NATPROXY_GROUP)[0]["IpPermissions"]
    assert [
        next(iter(item.values())) for items in ("IpRanges", "Ipv6Ranges", "PrefixListIds") for item in joined[items]
    ] == [
        "0.0.0.0/0",
        "2001:db8::/32",
        "pl-0a1b2c3d",
    ]
    assert (other["IpProtocol"], other["FromPort"], other["ToPort"]) == ("udp", 0, 65535)
    world.network.forbid(NATPROXY_GROUP, "0.0.0.0/0")
    assert groups(ec2, NATPROXY_GROUP)[0]["IpPermissions"][0]["IpRanges"] == []
    with pytest.raises(WorldError, match="no security group sg-1"):
        world.network.allow("sg-1", "0.0.0.0/0")


def test_instances_and_whose_an_address_is(world: AwsWorld, ec2: Any) -> None:
    def owner(address: str) -> list[str]:
        answer = ec2.describe_instances(Filters=[{"Name": "ip-address", "Values": [address]}])
        return [one["InstanceId"] for reservation in answer["Reservations"] for one in reservation["Instances"]]

    assert owner(PUBLIC_ADDRESS) == [THIS_INSTANCE]
    world.network.associate(PUBLIC_ADDRESS, OTHER_INSTANCE)
    assert owner(PUBLIC_ADDRESS) == [OTHER_INSTANCE]
    (reservation,) = ec2.describe_instances(InstanceIds=[OTHER_INSTANCE])["Reservations"]
    (interface,) = reservation["Instances"][0]["NetworkInterfaces"]
    assert interface["Association"]["PublicIp"] == PUBLIC_ADDRESS
    world.network.wear([CACHE_GROUP], OTHER_INSTANCE)
    (reservation,) = ec2.describe_instances(InstanceIds=[OTHER_INSTANCE])["Reservations"]
    assert reservation["Instances"][0]["SecurityGroups"] == [{"GroupId": CACHE_GROUP, "GroupName": "caches"}]


def test_elastic_ips(world: AwsWorld, ec2: Any) -> None:
    def found() -> Any:
        return ec2.describe_addresses(Filters=[{"Name": "public-ip", "Values": [PUBLIC_ADDRESS]}])["Addresses"][0]

    assert found()["InstanceId"] == THIS_INSTANCE
    world.network.add_interface(0x77, "10.0.0.77")
    world.network.associate(PUBLIC_ADDRESS, "eni-0a1b2c3d4e5f60777")
    assert "InstanceId" not in found()
    assert found()["NetworkInterfaceId"] == "eni-0a1b2c3d4e5f60777"
    world.network.associate(PUBLIC_ADDRESS, None)
    assert "AssociationId" not in found()
    world.network.associate("203.0.113.99", THIS_INSTANCE, is_elastic=False)
    assert len(ec2.describe_addresses()["Addresses"]) == 1
    with pytest.raises(WorldError, match="no instance or interface i-1"):
        world.network.associate(PUBLIC_ADDRESS, "i-1")


@pytest.mark.parametrize(
    ("method", "arguments", "code"),
    [
        ("describe_security_groups", {"GroupIds": ["sg-1"]}, "InvalidGroup.NotFound"),
        ("describe_instances", {"InstanceIds": ["i-1"]}, "InvalidInstanceID.NotFound"),
        ("describe_addresses", {"PublicIps": ["192.0.2.1"]}, "InvalidAddress.NotFound"),
        ("describe_security_groups", {"Filters": [{"Name": "colour", "Values": ["red"]}]}, "InvalidParameterValue"),
        ("describe_vpcs", {}, "InvalidAction"),
    ],
)
def test_what_ec2_refuses(ec2: Any, method: str, arguments: Any, code: str) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(ec2, method)(**arguments)
    assert refused.value.response["Error"]["Code"] == code


def test_a_dry_run_answers_nothing(aws: AwsServer, ec2: Any) -> None:
    with pytest.raises(ClientError, match="DryRunOperation"):
        ec2.describe_security_groups(DryRun=True)
    aws.fault("DescribeSecurityGroups", "denied")
    with pytest.raises(ClientError, match=r"UnauthorizedOperation.*perform: ec2:DescribeSecurityGroups"):
        ec2.describe_security_groups(DryRun=True)


def test_errors_are_called_as_ec2_calls_them(aws: AwsServer, ec2: Any, connect: Callable[..., Any]) -> None:
    for kind, code in (
        ("throttle", "RequestLimitExceeded"),
        ("expired", "RequestExpired"),
        ("invalid-key", "AuthFailure"),
    ):
        aws.fault("DescribeAddresses", kind)  # type: ignore[arg-type]
        with pytest.raises(ClientError, match=code):
            ec2.describe_addresses()
    stranger = Credentials("AKIAAAAAAAAAAAAAAAAA", "secret", "arn:aws:iam::1:user/nobody")
    with pytest.raises(ClientError, match="InvalidClientTokenId"):  # before the service is known
        connect(stranger).describe_addresses()


def test_pages(world: AwsWorld, ec2: Any) -> None:
    for number in range(5):
        world.network.add_group(f"sg-{number}", "more")
    pages = ec2.get_paginator("describe_security_groups").paginate(PaginationConfig={"PageSize": 5})
    assert [len(page["SecurityGroups"]) for page in pages] == [5, 2]


def test_the_network_is_driven_from_outside(aws: AwsServer, ec2: Any) -> None:
    ask_control(aws.endpoint_url, "forbid", group=NATPROXY_GROUP)
    ask_control(aws.endpoint_url, "allow", group=NATPROXY_GROUP, peer="0.0.0.0/0", first=6379)
    (rule,) = groups(ec2, NATPROXY_GROUP)[0]["IpPermissions"]
    assert (rule["FromPort"], rule["IpRanges"]) == (6379, [{"CidrIp": "0.0.0.0/0"}])


def sample(shape: Shape, depth: int = 0) -> Any:
    """Build a value with every member the model knows that can be rendered."""
    if isinstance(shape, StructureShape):
        return {name: sample(member, depth + 1) for name, member in shape.members.items()}
    if isinstance(shape, ListShape):
        return [sample(shape.member, depth + 1)]
    values: dict[str, Any] = {"boolean": True, "integer": 17, "long": 17, "double": 0.5, "float": 0.5}
    if shape.type_name == "string":
        return shape.metadata["enum"][-1] if "enum" in shape.metadata else "a <&> text"
    return values[shape.type_name]


@pytest.mark.parametrize("name", ["DescribeSecurityGroups", "DescribeAddresses"])
def test_a_whole_output_comes_back_from_botocores_parser_as_it_was(name: str) -> None:
    model = service_model("ec2").operation_model(name)
    assert model.output_shape is not None
    output = sample(model.output_shape)
    response = {"status_code": 200, "headers": {}, "body": render_ec2(model, output)}
    answer = create_parser("ec2").parse(response, model.output_shape)
    assert answer.pop("ResponseMetadata")["RequestId"]
    assert answer == output


def test_an_error_is_read_by_botocore() -> None:
    model = service_model("ec2").operation_model("DescribeAddresses")
    assert model.output_shape is not None
    response = {"status_code": 403, "headers": {}, "body": render_ec2_error("AccessDenied", "no <way>")}
    answer = create_parser("ec2").parse(response, model.output_shape)
    assert answer["Error"] == {"Code": "UnauthorizedOperation", "Message": "no <way>"}


def test_what_ec2_does_not_know_is_refused() -> None:
    model = service_model("ec2").operation_model("DescribeSecurityGroups")
    with pytest.raises(RenderError, match="Colour"):
        render_ec2(model, {"SecurityGroups": [{"Colour": "red"}]})
    for body, message in (
        ("Colour=red", "no parameter Colour"),
        ("Filter=red", "is no list"),
        ("DryRun=perhaps", "no boolean"),
    ):
        with pytest.raises(QueryError, match=message):
            parse_ec2(model, f"Action=DescribeSecurityGroups&Version=1&{body}")


def test_parameters_get_their_names_and_types() -> None:
    model = service_model("ec2").operation_model("DescribeSecurityGroups")
    body = "Action=DescribeSecurityGroups&GroupId.2=sg-2&GroupId.1=sg-1&Filter.1.Name=a&Filter.1.Value.1=b&DryRun=true"
    assert parse_ec2(model, body) == {
        "GroupIds": ["sg-1", "sg-2"],
        "Filters": [{"Name": "a", "Values": ["b"]}],
        "DryRun": True,
    }
    assert parse_ec2(model, "Action=DescribeSecurityGroups&MaxResults=5") == {"MaxResults": 5}


def test_every_operation_is_one_of_ec2_s() -> None:
    assert set(EC2_OPERATIONS) <= set(service_model("ec2").operation_names)
