"""The caches that run for a world: started, told whom to follow, and stopped as it changes. I/O: processes, TCP."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tests.standins.aws.records import ClusterRecord, GroupRecord, ShardRecord
from tests.standins.aws.world import AwsWorld
from tests.standins.caches import CacheServer, RedisServer, major_version, redis_program, start_redis
from tests.standins.certificates import Authority, Issued
from tests.standins.clusternode import ClusterNode
from tests.standins.echo import EchoNodes
from tests.standins.memcached_front import FrontedMemcached, Node
from tests.standins.rediscluster import RedisCluster
from tests.standins.small_serverless import Data, SmallServerless

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

    Real caches speak TLS where the world says so, with certificates of ``authority``'s; those of groups in cluster mode
    (where redis-server is no older than 7) are real clusters. The nodes of a memcached cluster tell clients of each
    other, by a list whose version grows with each change.
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
        self.clusters: dict[str, RedisCluster] = {}
        """By replication group."""
        self._told: dict[str, tuple[int, list[Node]]] = {}
        """By memcached cluster: version and node list."""
        self._data: dict[str, Data] = {}
        """By serverless cache: what its addresses share."""
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
        self._follow_clusters()
        self._tell_node_lists()
        for key in self._listening.keys() - wanted.keys():
            self.close(key)

    def wait_until_in_step(self) -> None:
        """Block until every replica has its primary's data."""
        for primary, replicas in list(self._shards()):
            primary.wait_for_replicas(len(replicas))

    def promote(self, shard: ShardRecord, chosen: str) -> None:
        """Let a replica have all data, and take writes, before the world makes it the primary."""
        self.wait_until_in_step()
        replica, primary = self.servers.get((chosen, "0001")), self.servers.get((shard.primary, "0001"))
        if chosen in shard.members and isinstance(replica, RedisServer):
            replica.promote()
        elif isinstance(replica, ClusterNode):
            cluster = self._cluster_of(replica)
            cluster.failover(replica, how="takeover" if primary is None else "coordinated")

    def crash(self, key: NodeKey) -> None:
        """End one node's cache as by kill -9; of a cluster's primary, when its replicas have all it acknowledged."""
        server = self.servers.get(key)
        if isinstance(server, ClusterNode):
            self._cluster_of(server).kill(server)
        self.close(key)

    def open(self, key: NodeKey, address: str, port: int) -> None:
        """Start one node's cache."""
        speaks_tls = self._speaks_tls(key)
        self._listening[key] = Listening(address, port, speaks_tls)
        if self.backing == "echo":
            self.echo.open(address, port)
        elif self.backing in ("real", "fake"):
            self.servers[key] = self._start(key, address, port, self._certificate(key) if speaks_tls else None)

    def _start(self, key: NodeKey, address: str, port: int, certificate: Issued | None) -> CacheServer:
        cluster, is_real = self.world.clusters.get(key[0]), self.backing == "real"
        tls = None if certificate is None else _server_side(certificate)
        if cluster is None:
            cache = self.world.serverless_cache(key[0])
            data = Data(self.world.serverless_host(cache.name), cache.port, cache.reader_port)
            return SmallServerless(address, port, self._data.setdefault(cache.name, data), tls=tls)
        if cluster.engine == "memcached":
            return FrontedMemcached(address, port, prefer_real=is_real, tls=tls)
        if self._group_in_cluster_mode(key) is not None:
            host = "" if certificate is None else self.world.node_host(*key)
            return ClusterNode(address, port, host=host, certificate=certificate, ca=self.authority.pem)
        return start_redis(address, port, prefer_real=is_real, certificate=certificate)

    def _group_in_cluster_mode(self, key: NodeKey) -> GroupRecord | None:
        """Return the group of a node that is to be one of a real cluster's."""
        cluster, program = self.world.clusters.get(key[0]), redis_program()
        if self.backing != "real" or cluster is None or cluster.group is None or program is None:
            return None
        group = self.world.group(cluster.group)
        return None if group.mode == "cluster-disabled" or major_version(program) < 7 else group

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
        cluster = self.world.clusters.get(key[0])
        name = self.world.serverless_host(key[0]) if cluster is None else self.world.node_host(*key)
        names = [wildcard := f"*.{name.partition('.')[2]}", name]
        if (
            cluster is not None and cluster.engine == "memcached"
        ):  # whose configuration endpoint the wildcard is not for
            names.append(self.world.cluster_names(cluster).memcached_configuration())
        return self.authority.issue(wildcard, dns=names, usage="both")  # a cluster's nodes are clients too

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

    def _follow_clusters(self) -> None:
        for group in self.world.groups.values():
            running = [self._running_cluster_nodes(shard) for shard in group.shards]
            cluster = self.clusters.setdefault(group.id, RedisCluster())
            # Where all of a shard is down, there is nobody who could do anything about it.
            if all(running) and running != cluster.shards:
                cluster.follow(running)
        self.clusters = {key: cluster for key, cluster in self.clusters.items() if key in self.world.groups}

    def _tell_node_lists(self) -> None:
        """A node is in the list from the moment it serves until it is to be taken away."""
        for cluster in self.world.clusters.values():
            if cluster.engine == "memcached":
                version, told = self._told.get(cluster.id, (0, []))
                nodes = self._node_list(cluster)
                self._told[cluster.id] = version, told = version + (nodes != told), nodes
                for node in cluster.nodes:
                    if isinstance(server := self.servers.get((cluster.id, node.id)), FrontedMemcached):
                        server.front.tell(version, told)

    def _node_list(self, cluster: ClusterRecord) -> list[Node]:
        nodes = [node for node in cluster.nodes if node.status not in ("creating", "deleting")]
        return [(self.world.node_host(cluster.id, node.id), node.address, cluster.port) for node in nodes]

    def _running_cluster_nodes(self, shard: ShardRecord) -> list[ClusterNode]:
        """The nodes of a shard that run, its primary first."""
        members = sorted(shard.members, key=lambda member: member != shard.primary)
        nodes = (self.servers.get((member, "0001")) for member in members)
        return [node for node in nodes if isinstance(node, ClusterNode)]

    def _cluster_of(self, node: ClusterNode) -> RedisCluster:
        return next(cluster for cluster in self.clusters.values() if node in cluster.nodes)

    def _shards(self) -> Iterator[tuple[RedisServer, list[RedisServer]]]:
        """The primary of each shard, where it runs, with its replicas that run."""
        for group in self.world.groups.values():
            for shard in group.shards:
                running = {member: self.servers.get((member, "0001")) for member in shard.members}
                primary = running.pop(shard.primary)
                if isinstance(primary, RedisServer):
                    yield primary, [server for server in running.values() if isinstance(server, RedisServer)]


def _server_side(certificate: Issued) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        context.load_cert_chain(*certificate.write(Path(directory)))
    return context
