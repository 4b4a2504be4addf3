"""A real cluster of six nodes that AWS tells of, natproxy before it, and what happens to nodes. I/O: runs it all."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import redis
from prometheus_client.parser import text_string_to_metric_families

from bench.accounts import open_sockets, resident_bytes
from bench.daemon import Daemon
from bench.parts.how import CannotError
from bench.soak.ledger import Ledger
from tests.scenarios.daemon import OwnAddress
from tests.standins.caches import major_version, redis_program
from tests.standins.cloud import Cloud
from tests.standins.rediscluster import SLOTS

GROUP = "soak"
SHARDS, REPLICAS = 3, 1
NODES = SHARDS * (1 + REPLICAS)
FIRST_PORT, ADMIN_PORT = 25001, 25900
OPEN_SECONDS = 30.0
REST_SECONDS = 15.0
"""How long after the last client has gone all its connections may still be there."""
LOOK_SECONDS = 0.1
OLDEST = 7
"""Of redis-server, for a cluster that can be told all this."""
SLOTS_MOVED = 400
IN_MIDST_SECONDS = 1.0
"""How long slots are open, with some of their keys here and some there, and dead nodes are dead."""
BATCH = 500

CHANGES = ("failover", "death", "slots", "replacement")


class Sample(NamedTuple):
    """One line of natproxy's metrics."""

    labels: Mapping[str, str]
    value: float


class Stage:
    """What runs."""

    def __init__(self, cloud: Cloud, daemon: Daemon, ip: str, seed: int) -> None:
        self.cloud = cloud
        self.daemon = daemon
        self.ip = ip
        self.ports = tuple(range(FIRST_PORT, FIRST_PORT + NODES))
        self.changes: Counter[str] = Counter()
        self._chance = random.Random(f"{seed} changes")
        self._sockets_at_rest = 0

    # nodes

    def hidden(self) -> tuple[str, ...]:
        """Return what the addresses of all nodes there are and will be begin with."""
        address, _ = self.cloud.where(self._members()[0])
        block = ipaddress.ip_network(f"{address}/22", strict=False)
        return tuple(str(part.network_address).removesuffix("0") for part in block.subnets(new_prefix=24))

    def change(self, kind: str) -> None:
        """Let something happen to the nodes, and wait until they have got over it."""
        shard = self._chance.randrange(SHARDS)
        match kind:
            case "failover":
                self.cloud.failover(GROUP, shard)
            case "death":
                self.cloud.failover(GROUP, shard, kill=True)
            case "slots":
                self._move_slots(shard)
            case "replacement":
                self.cloud.replace(self._chance.choice(self._members()))
            case _:
                raise ValueError(kind)
        self.cloud.redis_cluster(GROUP).wait_until_whole()
        self.changes[kind] += 1

    def _move_slots(self, shard: int) -> None:
        cluster = self.cloud.redis_cluster(GROUP)
        to = cluster.shards[shard][0]
        owned = to.view()[to.id].slots
        slots = self._chance.sample(sorted(set(range(SLOTS)) - owned), SLOTS_MOVED)
        cluster.open_slots(slots, to)
        cluster.carry_keys(slots, to, most=1)
        time.sleep(IN_MIDST_SECONDS)
        cluster.carry_keys(slots, to)
        cluster.close_slots(slots, to)

    def _members(self) -> list[str]:
        return [member for shard in self.cloud.world.group(GROUP).shards for member in shard.members]

    def flaws(self, ledger: Ledger) -> list[str]:
        """Return the writes that the nodes, asked without natproxy, do not have as they should."""
        address, port = self.cloud.where(self._members()[0])
        found: list[str] = []
        keys = list(ledger.attempted)
        client: Any = redis.RedisCluster(host=address, port=port)
        with contextlib.closing(client):
            for start in range(0, len(keys), BATCH):
                some = keys[start : start + BATCH]
                batch = client.pipeline()
                for key in some:
                    batch.get(key)
                flaws = map(ledger.flaw, some, batch.execute())
                found += [flaw for flaw in flaws if flaw is not None]
        return found

    # natproxy

    def wait_until_open(self) -> None:
        """Block until all ports are served."""
        deadline = time.monotonic() + OPEN_SECONDS
        while sum(sample.value for sample in self.samples("natproxy_listener_state", state="open")) <= NODES:
            if time.monotonic() > deadline:
                raise RuntimeError(f"natproxy does not open all ports: {self.daemon.log.read_text()[-2000:]}")
            time.sleep(LOOK_SECONDS)
        self._sockets_at_rest = self._sockets()

    def wait_for_rest(self) -> list[str]:
        """Block until no connection is left, or for REST_SECONDS; return what is left."""
        deadline = time.monotonic() + REST_SECONDS
        while (left := self._left_open()) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return left

    def _left_open(self) -> list[str]:
        still = [sample for sample in self.samples("natproxy_connections_open") if sample.value]
        left = [f"{sample.value:.0f} on port {sample.labels['port']}" for sample in still]
        sockets = self._sockets() - self._sockets_at_rest
        return [*left, *([f"{sockets} sockets of the worker"] if sockets else [])]

    def _sockets(self) -> int:
        return sum(map(open_sockets, self.daemon.pids()[1:]))

    def memory(self) -> dict[str, int]:
        """Return the resident bytes of natproxy's processes."""
        controller, *workers = self.daemon.pids()
        return {"worker": sum(map(resident_bytes, workers)), "controller": resident_bytes(controller)}

    def samples(self, name: str, **labels: str) -> list[Sample]:
        """Return the metric's samples that have these labels."""
        with urllib.request.urlopen(f"http://{self.ip}:{ADMIN_PORT}/metrics", timeout=30) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        found = [sample for family in families for sample in family.samples if sample.name == name]
        return [Sample(one.labels, one.value) for one in found if labels.items() <= one.labels.items()]

    def counted(self, name: str, label: str) -> Counter[str]:
        """Return a metric's sums by one of its labels."""
        counts: Counter[str] = Counter()
        for sample in self.samples(name):
            counts[sample.labels[label]] += int(sample.value)
        return counts

    def failures(self) -> list[str]:
        """Return what natproxy itself did wrong, by its log and its metrics."""
        lines = self.daemon.log.read_text(encoding="utf-8").splitlines()
        found = [
            line for line in lines if not line.startswith("{") or json.loads(line)["level"] in {"error", "critical"}
        ]
        internal = self.counted("natproxy_connections_ended_total", "outcome")["internal"]
        restarts = sum(sample.value for sample in self.samples("natproxy_worker_restarts_total"))
        found += [f"{internal} connections ended by natproxy's own fault"] if internal else []
        return found + ([f"{restarts:.0f} workers died"] if restarts else [])


def config(cloud: Cloud, ip: str) -> str:
    """Return natproxy's config."""
    written: dict[str, object] = {
        "listen": {"address": ip, "ports": f"{FIRST_PORT}-{FIRST_PORT + 9}"},
        "resolver": cloud.resolver,
        "caches": [{"id": GROUP}],
        "clients": {"max_connections_per_client": 4096},
        "aws": {"refresh": "1s"},
        "timeouts": {"drain": "2s", "stop": "1s"},
        "admin": {"address": ip, "port": ADMIN_PORT},
        "state_dir": "{state_dir}",
        "log": {"format": "json"},
    }
    return json.dumps(written)


@contextlib.contextmanager
def staged(seed: int) -> Iterator[Stage]:
    """Build it; yield it once all ports are open. Raises CannotError where that cannot be done here."""
    program = redis_program()
    if program is None or major_version(program) < OLDEST:
        raise CannotError(f"needs redis-server {OLDEST} or newer")
    with contextlib.closing(OwnAddress()) as own, Cloud(ttl_seconds=1) as cloud:
        cloud.replication_group(GROUP, mode="cluster-enabled", shards=SHARDS, replicas=REPLICAS)
        with Daemon(config(cloud, own.ip), cloud.environ) as daemon:
            stage = Stage(cloud, daemon, own.ip, seed)
            stage.wait_until_open()
            yield stage
