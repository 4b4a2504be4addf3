from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from natproxy.discover.failures import MAX_CHARACTERS, error_code, failure_of
from natproxy.model import DiscoveryFailure


def answered(code: str, message: str = "a message", status: int = 400) -> aws.ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return aws.ClientError(response, "DescribeCacheClusters")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("Throttling", "throttled"),
        ("ThrottlingException", "throttled"),
        ("RequestLimitExceeded", "throttled"),
        ("AccessDenied", "denied"),
        ("AccessDeniedException", "denied"),
        ("UnauthorizedOperation", "denied"),
        ("ExpiredToken", "credentials"),
        ("ExpiredTokenException", "credentials"),
        ("RequestExpired", "credentials"),
        ("InvalidClientTokenId", "credentials"),
        ("UnrecognizedClientException", "credentials"),
        ("AuthFailure", "credentials"),
        ("SignatureDoesNotMatch", "credentials"),
        ("InternalFailure", "server-error"),
        ("InvalidParameterValue", "server-error"),
    ],
)
def test_what_aws_answers_is_told_apart_by_its_code(code: str, reason: str) -> None:
    assert failure_of(answered(code))[0] == reason


def test_missing_credentials_come_with_what_to_do() -> None:
    assert failure_of(aws.NoCredentialsError())[1].startswith("no credentials are found: give this EC2 instance a role")


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "credentials"), (403, "denied"), (429, "throttled"), (500, "server-error")]
)
def test_a_code_not_known_is_told_apart_by_its_status(status: int, reason: str) -> None:
    assert failure_of(answered("Whatever", status=status)) == (reason, "Whatever: a message")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (aws.NoCredentialsError(), "credentials"),
        (aws.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), "credentials"),
        (aws.CredentialRetrievalError(provider="process", error_msg="exit 1"), "credentials"),
        (aws.MetadataRetrievalError(error_msg="no answer"), "credentials"),
        (aws.UnauthorizedSSOTokenError(), "credentials"),
        (aws.TokenRetrievalError(provider="sso", error_msg="expired"), "credentials"),
        (aws.ProfileNotFound(profile="dev"), "credentials"),
        (aws.ReadTimeoutError(endpoint_url="https://e", error="e"), "timeout"),
        (aws.ConnectTimeoutError(endpoint_url="https://e", error="e"), "unreachable"),
        (aws.EndpointConnectionError(endpoint_url="https://e", error="e"), "unreachable"),
        (aws.ConnectionClosedError(endpoint_url="https://e", error="e"), "unreachable"),
        (aws.ProxyConnectionError(proxy_url="http://p", error="e"), "unreachable"),
        (aws.SSLError(endpoint_url="https://e", error=OSError("e")), "unreachable"),
        (aws.HTTPClientError(error="e"), "unreachable"),
        (aws.NoRegionError(), "unreachable"),
        (aws.ResponseStreamingError(error="e"), "nonsense"),
        (aws.IncompleteReadError(actual_bytes=1, expected_bytes=2), "nonsense"),
        (ResponseParserError("Unable to parse response"), "nonsense"),
        (aws.PaginationError(message="the same token twice"), "nonsense"),
        (KeyError("DescribeCacheClustersResult"), "nonsense"),
        (TypeError("None is not iterable"), "nonsense"),
        (Exception(), "nonsense"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_what_boto3_raises_is_told_apart_by_its_type(error: Exception, reason: str) -> None:
    told, message = failure_of(error)
    assert told == DiscoveryFailure(reason)
    assert message


def test_a_denial_keeps_the_words_of_aws() -> None:
    words = "User: arn:aws:iam::1:user/n is not authorized to perform: elasticache:DescribeCacheClusters"
    assert failure_of(answered("AccessDenied", words))[1] == f"AccessDenied: {words}"


@pytest.mark.parametrize(
    "error",
    [
        answered("SignatureDoesNotMatch", "the canonical string should have been 'x-amz-security-token:SECRET'"),
        answered("InternalFailure", "first line\nx-amz-security-token:SECRET"),
        ResponseParserError("invalid XML received:\nb'<SecretAccessKey>SECRET'"),
        KeyError("SECRET"),
    ],
)
def test_no_message_carries_what_was_signed_or_answered(error: Exception) -> None:
    assert "SECRET" not in failure_of(error)[1]


def test_a_message_is_one_short_printable_line() -> None:
    message = failure_of(answered("InternalFailure", "\x1b[31m" + "x" * 1000 + "\nmore"))[1]
    assert len(message) == MAX_CHARACTERS
    assert message.startswith("InternalFailure: ?[31mxxx")
    assert message.endswith("x…")
    assert failure_of(answered("InternalFailure", ""))[1] == "InternalFailure: no message"


def test_only_what_aws_answered_has_a_code() -> None:
    assert error_code(answered("CacheClusterNotFound")) == "CacheClusterNotFound"
    assert error_code(KeyError("Code")) == ""
