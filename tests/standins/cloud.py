"""AWS, its names and its caches in one: real caches behind DNS names, described by the AWS stand-in. I/O: all of it.

    with Cloud() as cloud:
        cloud.replication_group("my-redis", replicas=2)
        cloud.memcached("my-memcached", nodes=3)
        environ = {**os.environ, **cloud.environ}        # for a natproxy process
        config = f"resolver: {cloud.resolver}\\n..."       # natproxy's key for where names are asked
        cloud.failover("my-redis")                       # really promotes a replica
        cloud.replace("my-redis-002")                    # really kills it and starts anew at another address
        cloud.standalone("alone", tls="required")        # really speaks TLS; cloud.authority vouches for it
        cloud.aws.fault("*", "throttle", times=None)     # see aws/faults.py; cloud.dns.fail(name, "servfail")

Each cloud has a block of loopback addresses (127.a.b.0/22) to itself, so that several run side by side.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import socket
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from tests.standins.aws.records import GroupMode, TlsMode
from tests.standins.aws.server import AwsServer
from tests.standins.aws.world import AwsWorld
from tests.standins.caches import CacheServer, is_port_free
from tests.standins.certificates import Authority, Issued
from tests.standins.clusternode import ClusterNode
from tests.standins.dns import DnsServer
from tests.standins.fleet import Backing, Fleet
from tests.standins.rediscluster import RedisCluster

BLOCK_SIZE = 1024
SERVICE_OFFSET = 1
FIRST_NODE_OFFSET = 10
REDIS_PORTS = (6379, 16379, 26379, 36379)
MEMCACHED_PORTS = (11211, 21211, 31211, 41211)


class Cloud:
    """One account in one region, with everything running on loopback addresses of its own.

    ``port`` and ``memcached_port`` are those of all nodes; the customary ones where they are free.
    """

    def __init__(
        self,
        *,
        backing: Backing = "real",
        region: str = "us-east-1",
        page_size: int = 3,
        ttl_seconds: int = 15,
        port: int | None = None,
        memcached_port: int | None = None,
    ) -> None:
        self._claim, self._block = _claim_block()
        service = str(self._block + SERVICE_OFFSET)
        self.port = port or _first_free(service, REDIS_PORTS)
        self.memcached_port = memcached_port or _first_free(service, MEMCACHED_PORTS)
        addresses = (str(self._block + offset) for offset in range(FIRST_NODE_OFFSET, BLOCK_SIZE - 1))
        self._addresses: Iterator[str] = addresses
        self.world = AwsWorld(region=region, addresses=addresses, ttl_seconds=ttl_seconds)
        for node_port in {self.port, self.port + 1, self.memcached_port}:
            self.world.network.open_caches(node_port)
        self.aws = AwsServer(self.world, address=service, page_size=page_size)
        self.dns = DnsServer(self.world.zone, service)
        self.authority = Authority("Stand-in for Amazon's CA")
        self._fleet = Fleet(self.world, backing, self.authority)
        self._stack = contextlib.ExitStack()

    # life

    def start(self) -> None:
        """Start AWS and DNS; the caches start as they are made."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._claim.close)
            stack.enter_context(self.dns)
            stack.enter_context(self.aws)
            self._fleet.start()
            stack.callback(self._fleet.stop)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End everything; raises what the AWS stand-in could not render."""
        self._stack.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def environ(self) -> dict[str, str]:
        """Environment for a natproxy process with a user's keys."""
        return self.aws.environ

    @property
    def instance_environ(self) -> dict[str, str]:
        """Environment for a natproxy process on an instance, whose keys and region come from instance metadata."""
        return self.aws.instance_environ

    @property
    def resolver(self) -> str:
        """``ip:port`` of the DNS server."""
        return self.dns.where

    # making caches

    def replication_group(
        self,
        group_id: str,
        *,
        engine: str = "redis",
        mode: GroupMode = "cluster-disabled",
        shards: int = 1,
        replicas: int = 2,
        tls: TlsMode = "off",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Make a replication group; its caches replicate for real, in cluster mode as a real cluster."""
        with self._change():
            self.world.add_replication_group(
                group_id, engine=engine, mode=mode, shards=shards, replicas=replicas, tls=tls, tags=tags, port=self.port
            )

    def standalone(self, cluster_id: str, *, tls: TlsMode = "off", tags: Mapping[str, str] | None = None) -> None:
        """Make a cache of one node that is in no replication group."""
        with self._change():
            self.world.add_standalone(cluster_id, tls=tls, tags=tags, port=self.port)

    def memcached(
        self, cluster_id: str, *, nodes: int = 3, tls: TlsMode = "off", tags: Mapping[str, str] | None = None
    ) -> None:
        """Make a memcached cluster."""
        with self._change():
            self.world.add_memcached(cluster_id, nodes=nodes, tls=tls, tags=tags, port=self.memcached_port)

    def serverless(self, name: str, *, speaks_tls: bool = False, tags: Mapping[str, str] | None = None) -> None:
        """Make a serverless cache of three addresses, which tell of a cluster, and speak TLS only where told."""
        with self._change():
            if speaks_tls:
                self._fleet.tls_serverless.add(name)
            self.world.add_serverless(name, tags=tags, port=self.port, reader_port=self.port + 1)

    # what happens to them

    def failover(self, group_id: str, shard: int = 0, *, to: str | None = None, kill: bool = False) -> str:
        """Promote a replica; the old primary comes back as a replica. ``kill`` lets it die first.

        Returns the new primary's cluster id.
        """
        record = self.world.group(group_id).shards[shard]
        old = (record.primary, "0001")
        if kill:
            self._fleet.crash(old)
        live = [member for member in record.members if member != record.primary and not self._is_down(member)]
        chosen = to or next(iter(live), None)
        if chosen is not None:
            self._fleet.promote(record, chosen)
        with self._change():
            return self.world.failover(group_id, shard, chosen)

    def replace(self, cluster_id: str, node_id: str = "0001", *, same_address: bool = False) -> str:
        """Kill a node and start it anew, empty, under the same id and name; return the address it has now.

        A primary with replicas is failed over first, as AWS does. The new one answers before DNS leads to it.
        """
        self._fail_over_if_primary(cluster_id)
        key, (old, port) = (cluster_id, node_id), self.where(cluster_id, node_id)
        with self._change():
            address = old if same_address else next(self._addresses)
            self._fleet.close(key)
            self._fleet.down.discard(key)
            self._fleet.open(key, address, port)
            return self.world.replace_node(cluster_id, node_id, address=address)

    def kill(self, cluster_id: str, node_id: str = "0001") -> None:
        """Let a node die as by kill -9; nobody is told, and it stays dead until ``revive`` or ``replace``."""
        self.where(cluster_id, node_id)
        self._fleet.down.add((cluster_id, node_id))
        self._fleet.crash((cluster_id, node_id))

    def revive(self, cluster_id: str, node_id: str = "0001") -> None:
        """Start a killed node again where it was."""
        with self._change():
            self._fleet.down.discard((cluster_id, node_id))

    def add_replica(self, group_id: str, shard: int = 0, *, creating: bool = False) -> str:
        """Grow a shard; return the new member's cluster id."""
        with self._change():
            return self.world.add_replica(group_id, shard, creating=creating).id

    def add_shard(self, group_id: str, *, replicas: int = 1) -> list[str]:
        """Grow a group in cluster mode; return the new members' cluster ids."""
        with self._change():
            return self.world.add_shard(group_id, replicas=replicas).members

    def add_memcached_node(self, cluster_id: str, *, creating: bool = False) -> str:
        """Grow a memcached cluster; return the new node's id."""
        with self._change():
            return self.world.add_memcached_node(cluster_id, creating=creating).id

    def remove_node(self, cluster_id: str, node_id: str = "0001", *, settle: bool = False) -> None:
        """Take a node away: AWS says deleting and it still serves until ``settle``."""
        with self._change():
            self.world.remove_node(cluster_id, node_id, settle=settle)

    def remove_shard(self, group_id: str, shard: int, *, settle: bool = False) -> None:
        """Take a shard away: AWS says deleting and it still serves until ``settle``."""
        with self._change():
            self.world.remove_shard(group_id, shard, settle=settle)

    def delete_cache(self, cache_id: str, *, settle: bool = False) -> None:
        """Delete a whole cache: AWS says deleting and it still serves until ``settle``."""
        with self._change():
            self.world.delete_cache(cache_id, settle=settle)

    def tls_migration(self, cache_id: str, to: TlsMode) -> None:
        """Take a cache one step on: off -> preferred -> required, or back; real ones are started anew, and empty."""
        with self._change():
            self.world.tls_migration(cache_id, to)

    def show_certificate(self, issued: Issued, cluster_id: str, node_id: str = "0001") -> None:
        """Let a node that speaks TLS show this certificate from now on; it is started anew, and empty."""
        key, (address, port) = (cluster_id, node_id), self.where(cluster_id, node_id)
        with self._change():
            self._fleet.certificates[key] = issued
            self._fleet.close(key)
            self._fleet.open(key, address, port)

    def settle(self) -> None:
        """Finish what is under way: creating becomes available, deleting becomes gone."""
        with self._change():
            self.world.settle()

    # looking

    def server(self, cluster_id: str, node_id: str = "0001") -> CacheServer:
        """Return the cache that runs as a node now."""
        return self._fleet.servers[cluster_id, node_id]

    def redis_cluster(self, group_id: str) -> RedisCluster:
        """Return the real cluster of a group in cluster mode: to move slots, and to ask its nodes."""
        return self._fleet.clusters[group_id]

    def cluster_node(self, cluster_id: str) -> ClusterNode:
        """Return a node of it."""
        server = self.server(cluster_id)
        assert isinstance(server, ClusterNode), f"{cluster_id} is no node of a real cluster"
        return server

    def where(self, cluster_id: str, node_id: str = "0001") -> tuple[str, int]:
        """Return address and port of a node."""
        cluster = self.world.cluster(cluster_id)
        return cluster.node(node_id).address, cluster.port

    def accepted(self, cluster_id: str, node_id: str = "0001") -> int:
        """How many connections an echoing node has accepted."""
        return self._fleet.echo.accepted(*self.where(cluster_id, node_id))

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """Change the world and the caches as one step for AWS; the replicas then catch up on their own time."""
        with self.world.lock:
            yield
            self._fleet.follow_world()
        self._fleet.wait_until_in_step()

    def _is_down(self, cluster_id: str) -> bool:
        return (cluster_id, "0001") in self._fleet.down

    def _fail_over_if_primary(self, cluster_id: str) -> None:
        group_id = self.world.cluster(cluster_id).group
        if group_id is None:
            return
        for number, shard in enumerate(self.world.group(group_id).shards):
            if shard.primary == cluster_id and len(shard.members) > 1:
                self.failover(group_id, number)


def _claim_block() -> tuple[socket.socket, ipaddress.IPv4Address]:
    """Claim 1,024 loopback addresses for as long as the returned socket is open.

    The claim is an abstract Unix socket: it belongs to the network namespace, as loopback does, and ends with us.
    """
    chosen = random.Random(os.urandom(8))
    while True:
        block = ipaddress.IPv4Address(f"127.{chosen.randrange(16, 240)}.{chosen.randrange(0, 256, 4)}.0")
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0natproxy-standins-{block}")
        except OSError:
            claim.close()
        else:
            return claim, block


def _first_free(address: str, ports: tuple[int, ...]) -> int:
    for port in ports:
        if is_port_free(address, port):
            return port
    message = f"none of the ports {ports} is free on {address}"
    raise RuntimeError(message)
