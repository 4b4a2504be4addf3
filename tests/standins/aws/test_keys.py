from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.exceptions import ClientError
from mypy_boto3_elasticache import ElastiCacheClient

from tests.standins.aws import AwsServer
from tests.standins.aws.http import Request
from tests.standins.aws.keys import AwsError, Credentials, Keyring, verify

EXAMPLE_KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "arn:aws:iam::123456789012:user/x")
EXAMPLE_TIME = 1440938160.0  # 2015-08-30 12:36:00
EXAMPLE_SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"


def example(**changed: str) -> Request:
    """Return the worked example of AWS's own description of Signature Version 4."""
    headers = {
        "host": "iam.amazonaws.com",
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "x-amz-date": "20150830T123600Z",
        "authorization": (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
            f"SignedHeaders=content-type;host;x-amz-date, Signature={EXAMPLE_SIGNATURE}"
        ),
    }
    return Request("GET", "/?Action=ListUsers&Version=2010-05-08", {**headers, **changed}, b"")


@pytest.fixture
def keyring() -> Keyring:
    ring = Keyring(lambda: EXAMPLE_TIME, "123456789012")
    ring.add(EXAMPLE_KEY)
    return ring


def test_awss_own_example_is_right(keyring: Keyring) -> None:
    signed = verify(keyring, "us-east-1", EXAMPLE_TIME, example())
    assert (signed.credentials, signed.service) == (EXAMPLE_KEY, "iam")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"host": "elsewhere.amazonaws.com"}, "SignatureDoesNotMatch"),
        ({"content-type": "text/plain"}, "SignatureDoesNotMatch"),
        ({"x-amz-date": "20150830T123601Z"}, "SignatureDoesNotMatch"),
        ({"x-amz-date": "20150829T123600Z"}, "SignatureDoesNotMatch"),
        ({"x-amz-date": "today"}, "IncompleteSignature"),
        ({"authorization": "Basic eDp5"}, "IncompleteSignature"),
        ({"x-amz-security-token": "made-up"}, "InvalidClientTokenId"),
    ],
)
def test_a_request_that_was_changed_is_refused(keyring: Keyring, changed: dict[str, str], code: str) -> None:
    with pytest.raises(AwsError) as refused:
        verify(keyring, "us-east-1", EXAMPLE_TIME, example(**changed))
    assert refused.value.code == code


def test_a_changed_body_or_query_is_refused(keyring: Keyring) -> None:
    asked = example()
    for changed in (
        Request("GET", asked.target, asked.headers, b"Action=DeleteUser"),
        Request("POST", asked.target, asked.headers, b""),
        Request("GET", "/?Action=DeleteUser&Version=2010-05-08", asked.headers, b""),
    ):
        with pytest.raises(AwsError, match="SignatureDoesNotMatch"):
            verify(keyring, "us-east-1", EXAMPLE_TIME, changed)


def test_an_unsigned_request_is_refused(keyring: Keyring) -> None:
    with pytest.raises(AwsError, match="MissingAuthenticationToken"):
        verify(keyring, "us-east-1", EXAMPLE_TIME, Request("POST", "/", {"host": "x"}, b""))


def test_another_region_is_refused(keyring: Keyring) -> None:
    with pytest.raises(AwsError, match="valid region"):
        verify(keyring, "eu-west-1", EXAMPLE_TIME, example())


@pytest.mark.parametrize(("offset", "said"), [(901, "Signature expired"), (-901, "not yet current")])
def test_a_clock_that_is_off_by_more_than_15_minutes_is_refused(keyring: Keyring, offset: float, said: str) -> None:
    with pytest.raises(AwsError, match=said):
        verify(keyring, "us-east-1", EXAMPLE_TIME + offset, example())
    verify(keyring, "us-east-1", EXAMPLE_TIME + offset / 901 * 899, example())


def test_session_tokens_must_be_sent_and_end(keyring: Keyring) -> None:
    given = keyring.session("reader", "me", 900)
    assert keyring.find(given.access_key, given.token) == given
    for token in (None, "made-up"):
        with pytest.raises(AwsError, match="InvalidClientTokenId"):
            keyring.find(given.access_key, token)
    keyring.expire_sessions()
    with pytest.raises(AwsError, match="ExpiredToken"):
        keyring.find(given.access_key, given.token)


def test_a_session_token_outside_the_signature_is_refused() -> None:
    ring = Keyring(lambda: EXAMPLE_TIME, "123456789012")
    ring.add(Credentials("AKIDEXAMPLE", EXAMPLE_KEY.secret_key, EXAMPLE_KEY.arn, token="t", expires=EXAMPLE_TIME + 60))
    with pytest.raises(AwsError, match="must be signed"):
        verify(ring, "us-east-1", EXAMPLE_TIME, example(**{"x-amz-security-token": "t"}))


def test_botocores_signer_agrees_on_paths_and_queries() -> None:
    ring = Keyring(lambda: EXAMPLE_TIME, "123456789012")
    keys = ring.session("reader", "me", 900)
    asked = AWSRequest("POST", "http://127.0.0.1:1/a%20path/~x?b=2&a=1%2F2&a=0", {"X-Thing": "a   b "}, b"body=1")
    signer = SigV4Auth(BotocoreCredentials(keys.access_key, keys.secret_key, keys.token), "elasticache", "eu-west-1")
    signer.add_auth(asked)
    headers = {name.lower(): str(value) for name, value in asked.headers.items()} | {"host": "127.0.0.1:1"}
    request = Request("POST", "/a%20path/~x?b=2&a=1%2F2&a=0", headers, b"body=1")
    now = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    assert verify(ring, "eu-west-1", now, request).credentials == keys


def test_boto3_with_the_right_key_is_let_in(client: ElastiCacheClient) -> None:
    assert client.describe_cache_clusters()["CacheClusters"] == []


def test_boto3_with_a_wrong_secret_a_revoked_key_or_another_region_is_not(
    aws: AwsServer, connect: Callable[..., ElastiCacheClient]
) -> None:
    right = aws.user
    wrong = Credentials(right.access_key, "wrong", right.arn)
    revoked = aws.keyring.user("gone")
    aws.keyring.revoke(revoked.access_key)
    for client, code in (
        (connect(credentials=wrong), "SignatureDoesNotMatch"),
        (connect(credentials=revoked), "InvalidClientTokenId"),
        (connect(region="eu-west-1"), "SignatureDoesNotMatch"),
    ):
        with pytest.raises(ClientError) as refused:
            client.describe_cache_clusters()
        assert refused.value.response["Error"]["Code"] == code
    assert aws.calls() == []


def test_boto3_with_an_expired_session_is_told_so(aws: AwsServer, connect: Callable[..., ElastiCacheClient]) -> None:
    client = connect(credentials=aws.keyring.session("reader", "me", 900))
    client.describe_cache_clusters()
    aws.keyring.expire_sessions()
    with pytest.raises(ClientError, match="ExpiredToken"):
        client.describe_cache_clusters()


def test_a_clock_that_is_wrong_shows_as_a_signature_that_does_not_match(
    aws: AwsServer, client: ElastiCacheClient
) -> None:
    clock = aws.now
    aws.now = lambda: clock() + 3600
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch.*Signature expired"):
        client.describe_cache_clusters()


def test_a_role_can_be_assumed_and_used(aws: AwsServer, connect: Callable[..., ElastiCacheClient]) -> None:
    session = boto3.Session(aws.user.access_key, aws.user.secret_key, None, "us-east-1")
    sts = session.client("sts", endpoint_url=aws.endpoint_url)
    given = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/reader", RoleSessionName="natproxy")["Credentials"]
    sts.close()
    keys = Credentials(given["AccessKeyId"], given["SecretAccessKey"], "", given["SessionToken"])
    assert connect(credentials=keys).describe_cache_clusters()["CacheClusters"] == []
    assert aws.calls("DescribeCacheClusters")[0].access_key == keys.access_key
    assert given["Expiration"].timestamp() == pytest.approx(aws.now() + 3600, abs=60)
