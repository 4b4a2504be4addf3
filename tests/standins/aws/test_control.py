from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.aws import AwsServer, AwsWorld, ControlRefusedError, ask_control
from tests.standins.aws.control import SERVER_ACTIONS, WORLD_ACTIONS


@pytest.fixture
def path(world: AwsWorld, tmp_path: Path) -> Iterator[str]:
    where = str(tmp_path / "control.sock")
    with AwsServer(world, control_path=where):
        yield where
    assert not Path(where).exists()


def test_the_world_is_driven_over_a_unix_socket(world: AwsWorld, path: str) -> None:
    ask_control(path, "add_replication_group", group_id="my-redis", replicas=1, addresses=["10.0.1.230", "10.0.1.231"])
    assert ask_control(path, "failover", group_id="my-redis") == "my-redis-002"
    assert ask_control(path, "replace_node", cluster_id="my-redis-001", address="10.0.1.240") == "10.0.1.240"
    assert ask_control(path, "nodes") == [
        ["my-redis-001", "0001", "10.0.1.240", 6379],
        ["my-redis-002", "0001", "10.0.1.231", 6379],
    ]
    assert world.groups["my-redis"].shards[0].primary == "my-redis-002"


def test_the_world_is_driven_over_http(aws: AwsServer, world: AwsWorld) -> None:
    ask_control(aws.endpoint_url, "add_memcached", cluster_id="mc", nodes=1)
    ask_control(aws.endpoint_url, "patch", kind="cluster", cache_id="mc", EngineVersion=None)
    assert "EngineVersion" not in world.patched("cluster", "mc", {"EngineVersion": "1"})


def test_faults_and_calls_too(aws: AwsServer) -> None:
    assert ask_control(aws.endpoint_url, "fault", operation="DescribeEvents", kind="throttle", times=3) == "throttle"
    assert aws.faults.take("DescribeEvents") is not None
    ask_control(aws.endpoint_url, "heal")
    assert aws.faults.take("DescribeEvents") is None
    assert ask_control(aws.endpoint_url, "calls") == []
    with pytest.raises(ControlRefusedError, match="TimeoutError"):
        ask_control(aws.endpoint_url, "wait_for", operation="DescribeEvents", seconds=0.01)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"do": "stop"}, "no action 'stop'"),
        ({"do": "failover", "group_id": "other"}, "no replication group other"),
        ({"do": "failover", "group": "my-redis"}, "unexpected keyword"),
    ],
)
def test_what_is_refused_is_said(aws: AwsServer, order: dict[str, str], said: str) -> None:
    with pytest.raises(ControlRefusedError, match=said):
        ask_control(aws.endpoint_url, **order)


def test_more_actions_can_be_registered(aws: AwsServer) -> None:
    aws.actions["double"] = lambda number: 2 * number
    assert ask_control(aws.endpoint_url, "double", number=21) == 42


def test_every_action_exists(aws: AwsServer) -> None:
    assert all(callable(getattr(aws.world, name)) for name in WORLD_ACTIONS)
    assert all(callable(getattr(aws, name)) for name in SERVER_ACTIONS)
