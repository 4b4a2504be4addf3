"""Each client program by itself, on a cluster that it reaches without natproxy: what fails here is not natproxy's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import PROGRAMS, ROOT, Program
from tests.standins.caches import redis_program
from tests.standins.clusternode import ClusterNode
from tests.standins.rediscluster import RedisCluster

PORT = 6379
SECONDS = 60.0
Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    if redis_program() is None:
        pytest.skip("redis-server is not installed")
    nodes = [ClusterNode(f"127.3.2.{10 + number}", PORT) for number in range(6)]
    cluster = RedisCluster()
    cluster.follow([nodes[0:2], nodes[2:4], nodes[4:6]])
    yield cluster
    for node in nodes:
        node.stop()


@pytest.fixture(scope="module")
def tours(cluster: RedisCluster) -> Iterator[Mapping[str, Process]]:
    """All of them at once."""
    host = cluster.nodes[0].address
    started = {
        name: start(program.argv(host, PORT, name))
        for name, program in PROGRAMS.items()
        if program.why_missing() is None
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


def start(argv: list[str]) -> Process:
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_makes_its_tour(cluster: RedisCluster, tours: Mapping[str, Process], name: str) -> None:
    if name not in tours:
        pytest.skip(str(PROGRAMS[name].why_missing()))
    output, errors = tours[name].communicate(timeout=SECONDS)
    assert tours[name].returncode == 0, output + errors
    [tour] = said(output)
    assert tour["event"] == "tour"
    assert set(tour["addresses"]) <= {f"{node.address}:{PORT}" for node in cluster.nodes}
    assert len(tour["addresses"]) >= 3


@pytest.mark.parametrize("name", [name for name in PROGRAMS if not name.startswith("ioredis")])  # which tries for ever
def test_where_there_is_no_cluster_it_fails(name: str) -> None:
    program = PROGRAMS[name]
    if (reason := program.why_missing()) is not None:
        pytest.skip(reason)
    done = subprocess.run(
        program.argv("127.3.2.9", PORT, name), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 1
    assert [line["event"] for line in said(done.stdout)] == ["failed"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert Program(("sh",), ("sh", "Makefile")).why_missing() is None
    reason = Program(("x",), ("sh", "no-such-program", "tests/no/such/file")).why_missing()
    assert reason is not None
    assert "no-such-program, tests/no/such/file" in reason
