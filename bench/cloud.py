"""An AWS with many nodes, and DNS for them, in a process of its own. I/O: runs tests/standins/aws."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.programs import PEER_CORE, end, pin

ROOT = Path(__file__).parents[1]
RESOLVER = "127.0.5.54:5354"
NODES_IN_SHARD = 5
MOST_SHARDS = 100
"""Of one group."""
BLOCK = ipaddress.IPv4Network("10.64.0.0/16")


@dataclass(frozen=True)
class Cloud:
    """What natproxy has to be told of it."""

    environ: dict[str, str]
    caches: list[dict[str, str]]
    """For ``caches`` in the config."""
    resolver: str = RESOLVER


def orders(shards: int) -> list[dict[str, object]]:
    """Return what makes groups of so many shards in all, with five nodes each."""
    sizes = [MOST_SHARDS] * (shards // MOST_SHARDS) + ([shards % MOST_SHARDS] if shards % MOST_SHARDS else [])
    return [
        {
            "do": "add_replication_group",
            "group_id": f"big-{number}",
            "mode": "cluster-enabled",
            "shards": size,
            "replicas": NODES_IN_SHARD - 1,
            "addresses": addresses(number * MOST_SHARDS * NODES_IN_SHARD, size * NODES_IN_SHARD),
        }
        for number, size in enumerate(sizes)
    ]


def addresses(first: int, count: int) -> list[str]:
    """Return so many of the nodes' addresses."""
    return [str(BLOCK[1 + first + number]) for number in range(count)]


def cloud(shards: int) -> contextlib.AbstractContextManager[Cloud]:
    """Run one with so many shards."""
    return running_cloud(orders(shards))


@contextlib.contextmanager
def running_cloud(made: Sequence[Mapping[str, object]], *, core: str = PEER_CORE) -> Iterator[Cloud]:
    """Run one with these groups, nicely: it is not what is measured."""
    words = [word for order in made for word in ("--do", json.dumps(order))]
    argv = [*pin(core), "nice", "-n", "19", sys.executable, "-m", "tests.standins.aws", "--page-size", "100"]
    process = subprocess.Popen([*argv, "--dns", RESOLVER, *words], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        line = process.stdout.readline() if process.stdout is not None else b""
        if not line:
            raise RuntimeError("the stand-in for AWS did not start")
        yield Cloud(json.loads(line)["environ"], [{"id": str(order["group_id"])} for order in made])
    finally:
        end(process)
