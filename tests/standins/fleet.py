"""The caches that run for a world: started, told whom to follow, and stopped as it changes. I/O: processes, TCP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from tests.standins.aws.records import ShardRecord
from tests.standins.aws.world import AwsWorld
from tests.standins.caches import CacheServer, RedisServer, start_memcached, start_redis
from tests.standins.certificates import Authority, Issued
from tests.standins.echo import EchoNodes

Backing = Literal["real", "fake", "echo", "none"]
"""real caches (fake ones where the programs are missing) | fake ones | listeners that only echo | nobody listens."""

NodeKey = tuple[str, str]
"""(cluster id, node id); for serverless, which has no nodes, (name, ``ip:port``)."""


class Listening(NamedTuple):
    """Where one node's cache is, and how it speaks."""

    address: str
    port: int
    speaks_tls: bool


class Fleet:
    """One running cache for each node of a world, but for those that are held down.

    Real caches speak TLS where the world says so, with certificates of ``authority``'s.
    """

    def __init__(self, world: AwsWorld, backing: Backing, authority: Authority) -> None:
        self.world = world
        self.backing = backing
        self.authority = authority
        self.certificates: dict[NodeKey, Issued] = {}
        """What a node shows instead of a certificate with its own names."""
        self.tls_serverless: set[str] = set()
        """Serverless caches that speak TLS; in AWS they all do."""
        self.echo = EchoNodes()
        self.down: set[NodeKey] = set()
        """Nodes that stay dead although the world has them."""
        self.servers: dict[NodeKey, CacheServer] = {}
        self._listening: dict[NodeKey, Listening] = {}

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
                self.open(key, where.address, where.port)
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
        speaks_tls = self._speaks_tls(key)
        self._listening[key] = Listening(address, port, speaks_tls)
        if self.backing == "echo":
            self.echo.open(address, port)
        elif self.backing in ("real", "fake"):
            cluster = self.world.clusters.get(key[0])
            start = start_memcached if cluster is not None and cluster.engine == "memcached" else start_redis
            certificate = self._certificate(key) if speaks_tls else None
            self.servers[key] = start(address, port, prefer_real=self.backing == "real", certificate=certificate)

    def _speaks_tls(self, key: NodeKey) -> bool:
        if self.backing != "real":
            return False
        cluster = self.world.clusters.get(key[0])
        if cluster is None:
            return key[0] in self.tls_serverless
        return (cluster if cluster.group is None else self.world.group(cluster.group)).tls != "off"

    def _certificate(self, key: NodeKey) -> Issued:
        """Return what the node shows: as AWS's, it names everything beside its own name."""
        if (chosen := self.certificates.get(key)) is not None:
            return chosen
        name = self.world.node_host(*key) if key[0] in self.world.clusters else self.world.serverless_host(key[0])
        wildcard = f"*.{name.partition('.')[2]}"
        return self.authority.issue(wildcard, dns=[wildcard, name])

    def close(self, key: NodeKey) -> None:
        """End one node's cache, as by kill -9; nothing where it does not run."""
        where = self._listening.pop(key, None)
        if where is None:
            return
        if self.backing == "echo":
            self.echo.close(where.address, where.port)
        elif (server := self.servers.pop(key, None)) is not None:
            server.kill()
            server.stop()

    def _wanted(self) -> dict[NodeKey, Listening]:
        wanted = {(cluster, node): (address, port) for cluster, node, address, port in self.world.nodes()}
        for cache in self.world.serverless.values():
            for address in cache.addresses:
                for port in (cache.port, cache.reader_port):
                    wanted[cache.name, f"{address}:{port}"] = (address, port)
        return {key: Listening(*where, self._speaks_tls(key)) for key, where in wanted.items()}

    def _shards(self) -> Iterator[tuple[RedisServer, list[RedisServer]]]:
        """The primary of each shard, where it runs, with its replicas that run."""
        for group in self.world.groups.values():
            for shard in group.shards:
                running = {member: self.servers.get((member, "0001")) for member in shard.members}
                primary = running.pop(shard.primary)
                if isinstance(primary, RedisServer):
                    yield primary, [server for server in running.values() if isinstance(server, RedisServer)]
