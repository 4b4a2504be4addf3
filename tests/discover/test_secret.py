from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from natproxy.config import Aws
from natproxy.discover.secret import ask_secret, region_of
from natproxy.discover.session import Sessions
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure
from tests.standins.aws import AwsServer, FaultKind

WORD = "s3cr3t-w0rd"


@dataclass
class Place:
    aws: AwsServer
    sessions: Sessions
    arn: str

    def ask(self, stop: threading.Event | None = None) -> str:
        return ask_secret(self.sessions, self.arn, stop or threading.Event())


@pytest.fixture
def place(aws: AwsServer) -> Iterator[Place]:
    sessions = Sessions(Aws(), now=time.time, connect_seconds=1.0, read_seconds=10.0, attempts=1)
    yield Place(aws, sessions, aws.world.set_secret("probe-AbCdEf", WORD))
    sessions.forget()


def test_a_secret_is_asked_for_by_its_arn_and_as_it_is_now(place: Place) -> None:
    assert place.ask() == WORD
    place.aws.world.set_secret("probe-AbCdEf", "another")
    assert place.ask() == "another"
    assert [call.params for call in place.aws.calls("GetSecretValue")] == [{"SecretId": place.arn}] * 2


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("denied", DiscoveryFailure.DENIED),
        ("throttle", DiscoveryFailure.THROTTLED),
        ("internal-error", DiscoveryFailure.SERVER),
        ("reset", DiscoveryFailure.UNREACHABLE),
        ("html", DiscoveryFailure.NONSENSE),
    ],
)
def test_why_it_was_not_told_is_said_in_the_words_of_discovery(
    place: Place, kind: FaultKind, reason: DiscoveryFailure
) -> None:
    place.aws.fault("GetSecretValue", kind)
    with pytest.raises(DiscoveryError, match=r"^GetSecretValue: ") as caught:
        place.ask()
    assert caught.value.reason == reason
    assert place.ask() == WORD


def test_a_denial_names_the_action_that_the_role_lacks(place: Place) -> None:
    place.aws.fault("GetSecretValue", "denied")
    with pytest.raises(DiscoveryError, match="not authorized to perform: secretsmanager:GetSecretValue on resource"):
        place.ask()


def test_credentials_that_have_ended_are_looked_up_afresh_once(place: Place) -> None:
    assert place.ask() == WORD
    place.aws.fault("GetSecretValue", "expired")
    assert place.ask() == WORD
    place.aws.fault("GetSecretValue", "expired", times=2)
    with pytest.raises(DiscoveryError) as caught:
        place.ask()
    assert caught.value.reason == DiscoveryFailure.CREDENTIALS
    place.aws.heal()
    place.sessions.forget()
    place.aws.fault("GetSecretValue", "expired")
    with pytest.raises(DiscoveryError):  # they were fresh
        place.ask()


def test_a_secret_that_does_not_exist_or_holds_bytes_is_no_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.arn = place.arn.replace("probe", "other")
    with pytest.raises(DiscoveryError, match="can't find the specified secret"):
        place.ask()

    class OfBytes:
        def get_secret_value(self, **_: object) -> dict[str, object]:
            return {"SecretBinary": WORD.encode()}

    monkeypatch.setattr(place.sessions, "secrets", lambda _stop, _region: OfBytes())
    with pytest.raises(DiscoveryError, match="holds bytes") as caught:
        place.ask()
    assert WORD not in str(caught.value)


def test_no_call_begins_once_it_is_stopped(place: Place) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(DiscoveryError, match="cut short") as caught:
        place.ask(stop)
    assert caught.value.reason == DiscoveryFailure.TIMEOUT
    assert not place.aws.calls("GetSecretValue")


@pytest.mark.parametrize(
    ("arn", "region"),
    [
        ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:probe-AbCdEf", "eu-west-1"),
        ("arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:probe", "cn-north-1"),
        ("probe", ""),
        ("urn:a:b:c:d:e", ""),
    ],
)
def test_the_region_is_the_arn_s(arn: str, region: str) -> None:
    assert region_of(arn) == region
