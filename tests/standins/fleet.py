"""The caches that run for a world: started, told whom to follow, and stopped as it changes. I/O: processes, TCP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from tests.standins.aws.records import ShardRecord
from tests.standins.aws.world import AwsWorld
from tests.standins.caches import CacheServer, RedisServer, start_memcached, start_redis
from tests.standins.echo import EchoNodes

Backing = Literal["real", "fake", "echo", "none"]
"""real caches (fake ones where the programs are missing) | fake ones | listeners that only echo | nobody listens."""

NodeKey = tuple[str, str]
"""(cluster id, node id); for serverless, which has no nodes, (name, ``ip:port``)."""


class Fleet:
    """One running cache for each node of a world, but for those that are held down."""

    def __init__(self, world: AwsWorld, backing: Backing) -> None:
        self.world = world
        self.backing = backing
        self.echo = EchoNodes()
        self.down: set[NodeKey] = set()
        """Nodes that stay dead although the world has them."""
        self.servers: dict[NodeKey, CacheServer] = {}
        self._listening: dict[NodeKey, tuple[str, int]] = {}

    def start(self) -> None:
        """Get ready; the caches start with ``follow_world``."""
        self.echo.start()

    def stop(self) -> None:
        """End every cache, also where one does not end as it should."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.echo.stop)
            for key in list(self._listening):
                stack.callback(self.close, key)

    def follow_world(self) -> None:
        """Start what is missing, set who follows whom, stop what is gone."""
        wanted = self._wanted()
        self.down &= wanted.keys()
        for key, where in wanted.items():
            if key not in self.down and self._listening.get(key) != where:
                self.close(key)
                self.open(key, *where)
        for primary, replicas in self._shards():
            primary.promote()
            for replica in replicas:
                replica.follow(primary)
        for key in self._listening.keys() - wanted.keys():
            self.close(key)

    def wait_until_in_step(self) -> None:
        """Block until every replica has its primary's data."""
        for primary, replicas in list(self._shards()):
            primary.wait_for_replicas(len(replicas))

    def promote(self, shard: ShardRecord, chosen: str) -> None:
        """Let a replica have all data, and take writes, before the world makes it the primary."""
        self.wait_until_in_step()
        replica = self.servers.get((chosen, "0001"))
        if chosen in shard.members and isinstance(replica, RedisServer):
            replica.promote()

    def open(self, key: NodeKey, address: str, port: int) -> None:
        """Start one node's cache."""
        self._listening[key] = (address, port)
        if self.backing == "echo":
            self.echo.open(address, port)
        elif self.backing in ("real", "fake"):
            cluster = self.world.clusters.get(key[0])
            start = start_memcached if cluster is not None and cluster.engine == "memcached" else start_redis
            self.servers[key] = start(address, port, prefer_real=self.backing == "real")

    def close(self, key: NodeKey) -> None:
        """End one node's cache, as by kill -9; nothing where it does not run."""
        where = self._listening.pop(key, None)
        if where is None:
            return
        if self.backing == "echo":
            self.echo.close(*where)
        elif (server := self.servers.pop(key, None)) is not None:
            server.kill()
            server.stop()

    def _wanted(self) -> dict[NodeKey, tuple[str, int]]:
        wanted = {(cluster, node): (address, port) for cluster, node, address, port in self.world.nodes()}
        for cache in self.world.serverless.values():
            for address in cache.addresses:
                for port in (cache.port, cache.reader_port):
                    wanted[cache.name, f"{address}:{port}"] = (address, port)
        return wanted

    def _shards(self) -> Iterator[tuple[RedisServer, list[RedisServer]]]:
        """The primary of each shard, where it runs, with its replicas that run."""
        for group in self.world.groups.values():
            for shard in group.shards:
                running = {member: self.servers.get((member, "0001")) for member in shard.members}
                primary = running.pop(shard.primary)
                if isinstance(primary, RedisServer):
                    yield primary, [server for server in running.values() if isinstance(server, RedisServer)]
