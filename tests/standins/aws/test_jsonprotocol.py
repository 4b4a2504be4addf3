from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.standins.aws import AwsServer, AwsWorld, RenderError
from tests.standins.aws.conftest import ONE_TRY
from tests.standins.aws.jsonprotocol import operation_of, parse_json, render_json
from tests.standins.aws.render import QueryError, service_model

SERVICE = service_model("secretsmanager")
OPERATION = SERVICE.operation_model("GetSecretValue")


@pytest.fixture
def secrets(aws: AwsServer) -> Iterator[Any]:
    session = boto3.Session(aws.user.access_key, aws.user.secret_key, None, "us-east-1")
    untyped: Any = session
    client = untyped.client("secretsmanager", endpoint_url=aws.endpoint_url, config=ONE_TRY)
    yield client
    client.close()


def test_a_secret_is_told_as_it_stands(aws: AwsServer, world: AwsWorld, secrets: Any) -> None:
    arn = world.set_secret("probe", "one")
    assert secrets.get_secret_value(SecretId=arn)["SecretString"] == "one"
    assert world.set_secret("probe", "two") == arn
    answer = secrets.get_secret_value(SecretId=arn)
    assert (answer["SecretString"], answer["ARN"], answer["Name"]) == ("two", arn, "probe")
    assert [call.params for call in aws.calls("GetSecretValue")] == [{"SecretId": arn}] * 2


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        ("throttle", "ThrottlingException", 400),
        ("denied", "AccessDeniedException", 400),
        ("expired", "ExpiredTokenException", 400),
        ("invalid-key", "UnrecognizedClientException", 400),
        ("internal-error", "InternalFailure", 500),
    ],
)
def test_errors_have_the_codes_of_this_protocol(
    aws: AwsServer, secrets: Any, kind: Any, code: str, status: int
) -> None:
    arn = aws.world.set_secret("probe", "one")
    aws.fault("GetSecretValue", kind)
    with pytest.raises(ClientError) as caught:
        secrets.get_secret_value(SecretId=arn)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    if kind == "denied":
        assert f"secretsmanager:GetSecretValue on resource: {arn}" in str(caught.value)


def test_a_secret_that_is_not_there_and_an_operation_that_is_not_served(secrets: Any) -> None:
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        secrets.get_secret_value(SecretId="arn:aws:secretsmanager:us-east-1:123456789012:secret:none")
    with pytest.raises(ClientError, match="UnknownOperationException"):
        secrets.list_secrets()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"SecretId": "x", "Sekret": 1}', b"{}"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(QueryError):
        parse_json(OPERATION, body)


@pytest.mark.parametrize("output", [{"Sekret": "x"}, {"SecretString": 1}, {"VersionStages": "AWSCURRENT"}])
def test_what_aws_could_not_answer_is_refused(output: dict[str, object]) -> None:
    with pytest.raises(RenderError):
        render_json(OPERATION, output)


def test_only_the_service_s_own_targets_are_known() -> None:
    assert operation_of(SERVICE, "secretsmanager.GetSecretValue") == "GetSecretValue"
    assert operation_of(SERVICE, "elsewhere.GetSecretValue") == ""
    assert operation_of(SERVICE, "secretsmanager.Nothing") == ""
