"""A world, a server for it, and real boto3 clients that are closed in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import boto3
import pytest
from botocore.config import Config
from mypy_boto3_elasticache import ElastiCacheClient
from mypy_boto3_sts import STSClient

from tests.standins.aws import AwsServer, AwsWorld
from tests.standins.aws.keys import Credentials

ONE_TRY = Config(retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=2, read_timeout=2)


@pytest.fixture
def world() -> AwsWorld:
    return AwsWorld()


@pytest.fixture
def aws(world: AwsWorld) -> Iterator[AwsServer]:
    with AwsServer(world) as server:
        yield server


@pytest.fixture
def connect(aws: AwsServer) -> Iterator[Callable[..., ElastiCacheClient]]:
    """Make ElastiCache clients: ``connect(credentials=..., region=..., config=...)``."""
    clients: list[ElastiCacheClient] = []

    def make(
        credentials: Credentials | None = None, region: str = "us-east-1", config: Config = ONE_TRY
    ) -> ElastiCacheClient:
        keys = credentials or aws.user
        session = boto3.Session(keys.access_key, keys.secret_key, keys.token, region)
        clients.append(session.client("elasticache", endpoint_url=aws.endpoint_url, config=config))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., ElastiCacheClient]) -> ElastiCacheClient:
    return connect()


@pytest.fixture
def sts(aws: AwsServer) -> Iterator[STSClient]:
    session = boto3.Session(aws.user.access_key, aws.user.secret_key, None, "us-east-1")
    client = session.client("sts", endpoint_url=aws.endpoint_url, config=ONE_TRY)
    yield client
    client.close()
