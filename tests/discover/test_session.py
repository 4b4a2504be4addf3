from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionError as AwsConnectionError
from botocore.exceptions import HTTPClientError, NoRegionError

from natproxy.config import Aws
from natproxy.discover.session import CutShortError, Sessions
from tests.discover.conftest import use_environ
from tests.standins.aws import AwsServer


def sessions(aws: Aws | None = None, *, read_seconds: float = 60.0) -> Sessions:
    return Sessions(aws or Aws(), now=time.time, connect_seconds=5.0, read_seconds=read_seconds, attempts=2)


@pytest.mark.parametrize(
    ("zone", "region"),
    [
        ("eu-west-1a", "eu-west-1"),
        ("us-gov-west-1b", "us-gov-west-1"),
        ("us-west-2-lax-1a", "us-west-2"),
        ("us-east-1-wl1-bos-wlz-1", "us-east-1"),
    ],
)
def test_the_region_of_an_instance_is_that_of_its_zone_local_or_not(
    aws: AwsServer, monkeypatch: pytest.MonkeyPatch, zone: str, region: str
) -> None:
    use_environ(monkeypatch, aws.instance_environ)
    aws.imds._region = zone[:-1]  # the stand-in names the zone by adding a letter
    ours = sessions()
    assert ours.client(threading.Event()).meta.region_name == region
    ours.forget()


def test_metadata_that_tell_no_region_are_said_so(aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use_environ(monkeypatch, aws.instance_environ)
    aws.imds._region = "nowhere"
    with pytest.raises(NoRegionError):
        sessions().client(threading.Event())


@pytest.mark.parametrize(
    ("written", "environ", "region"),
    [
        ("eu-west-1", {"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-1"),
        (None, {"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-2"),
        (None, {"AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
    ],
)
def test_the_region_is_taken_from_the_first_place_that_has_one(
    monkeypatch: pytest.MonkeyPatch, written: str | None, environ: dict[str, str], region: str
) -> None:
    use_environ(monkeypatch, {"AWS_CONFIG_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true", **environ})
    ours = sessions(Aws(region=written))
    assert ours.client(threading.Event()).meta.region_name == region
    ours.forget()


def test_a_client_is_kept_until_it_is_forgotten(aws: AwsServer) -> None:
    ours, stop = sessions(), threading.Event()
    first = ours.client(stop)
    assert ours.client(stop) is first
    ours.forget()
    second = ours.client(stop)
    assert second is not first
    ours.forget()


def test_timeouts_and_tries_are_those_given(aws: AwsServer) -> None:
    ours = sessions(read_seconds=7.0)
    options: Any = ours.client(threading.Event()).meta.config
    assert (options.connect_timeout, options.read_timeout) == (5.0, 7.0)
    assert options.retries["total_max_attempts"] == 2
    ours.forget()


def test_no_call_begins_once_the_round_is_stopped(aws: AwsServer) -> None:
    ours, stop = sessions(), threading.Event()
    client = ours.client(stop)
    stop.set()
    with pytest.raises(CutShortError):
        client.describe_cache_clusters()
    assert not aws.calls()
    ours.forget()


def test_an_interruption_alone_is_a_closed_connection_that_is_tried_again(aws: AwsServer) -> None:
    ours = sessions()
    hang = aws.fault("DescribeCacheClusters", "hang")
    answers: list[object] = []
    client = ours.client(threading.Event())
    thread = threading.Thread(target=lambda: answers.append(client.describe_cache_clusters()["CacheClusters"]))
    thread.start()
    hang.wait_until_hit()
    ours.interrupt()
    thread.join()
    assert answers[0]
    assert len(aws.calls()) == 2
    ours.forget()


@contextmanager
def silent_tls_server(folder: Path) -> Iterator[tuple[str, Path, threading.Event]]:
    """Completes handshakes, takes requests and never answers; yields its URL, its certificate, and "has a request"."""
    certificate, key = folder / "crt.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    has_request = threading.Event()

    def serve() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
            peer.recv(1)
            has_request.set()
            while peer.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", certificate, has_request
        thread.join()


def test_a_call_that_waits_inside_tls_can_be_interrupted_too(
    aws: AwsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended: list[BaseException] = []
    with silent_tls_server(tmp_path) as (url, certificate, has_request):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        ours, stop = sessions(Aws(endpoint_url=url)), threading.Event()
        client = ours.client(stop)

        def call() -> None:
            try:
                client.describe_cache_clusters()
            except (CutShortError, AwsConnectionError, HTTPClientError) as error:
                ended.append(error)

        started = time.monotonic()
        thread = threading.Thread(target=call)
        thread.start()
        assert has_request.wait(10)
        stop.set()
        ours.interrupt()
        thread.join()
    assert [type(error) for error in ended] == [CutShortError]
    assert time.monotonic() - started < 20  # and not the minute that the read may take
    ours.forget()


def test_interrupting_when_nothing_is_under_way_does_no_harm(aws: AwsServer) -> None:
    ours = sessions()
    ours.interrupt()
    client = ours.client(threading.Event())
    client.describe_cache_clusters()
    ours.interrupt()
    assert client.describe_cache_clusters()["CacheClusters"]
    ours.forget()


def test_secrets_are_asked_for_by_the_same_session_one_client_a_region(aws: AwsServer) -> None:
    ours, stop = sessions(), threading.Event()
    first = ours.secrets(stop)
    assert ours.has_client
    assert first.meta.region_name == aws.world.region
    assert ours.secrets(stop, aws.world.region) is first
    elsewhere = ours.secrets(stop, "eu-west-3")
    assert elsewhere.meta.region_name == "eu-west-3"
    ours.forget()
    assert ours.secrets(stop) is not first
    ours.forget()


def test_other_services_are_asked_by_the_same_session(aws: AwsServer) -> None:
    ours, stop = sessions(Aws(role_arn="arn:aws:iam::123456789012:role/discovery")), threading.Event()
    sts = ours.service("sts", stop)
    assert ours.service("sts", stop) is sts
    assert sts.get_caller_identity()["Arn"].endswith("assumed-role/discovery/natproxy")
    assert ours.service("ec2", stop).meta.region_name == aws.world.region
    assert len(aws.calls("AssumeRole")) == 1
    ours.forget()
    assert ours.service("sts", stop) is not sts
    ours.forget()


def test_a_role_is_assumed_for_secrets_too(aws: AwsServer) -> None:
    ours, stop = sessions(Aws(role_arn="arn:aws:iam::123456789012:role/discovery")), threading.Event()
    arn = aws.world.set_secret("probe", "word")
    assert ours.secrets(stop).get_secret_value(SecretId=arn)["SecretString"] == "word"
    (call,) = aws.calls("GetSecretValue")
    assert call.access_key.startswith("ASIA")
    ours.forget()


def test_a_call_for_a_secret_can_be_cut_short(aws: AwsServer) -> None:
    ours, stop = sessions(), threading.Event()
    arn = aws.world.set_secret("probe", "word")
    hang = aws.fault("GetSecretValue", "hang")
    ended: list[BaseException] = []
    secrets = ours.secrets(stop)

    def call() -> None:
        try:
            secrets.get_secret_value(SecretId=arn)
        except CutShortError as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    hang.wait_until_hit()
    stop.set()
    ours.interrupt()
    thread.join(20)
    assert len(ended) == 1
    ours.forget()
