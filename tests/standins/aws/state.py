"""The caches that exist in the stand-in's world, how they are made, and the names they have in DNS. Pure."""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import count, cycle, islice
from typing import TypeVar

from tests.standins.aws.names import CacheNames
from tests.standins.aws.network import Network
from tests.standins.aws.records import (
    ClusterRecord,
    EventRecord,
    GroupMode,
    GroupRecord,
    NodeRecord,
    PartialKind,
    ServerlessRecord,
    ShardRecord,
    TlsMode,
    WorldError,
)
from tests.standins.zone import Record, Zone

T = TypeVar("T")

VERSIONS = {"redis": "7.1.0", "valkey": "8.1.0", "memcached": "1.6.22"}
DEFAULT_PORTS = {"redis": 6379, "valkey": 6379, "memcached": 11211}
CONFIGURATION_WINDOW = 3
FIRST_ADDRESS = ipaddress.IPv4Address("10.0.1.230")


def guide_addresses() -> Iterator[str]:
    """Addresses as in AWS's guide: 10.0.1.230, .231, .232 and on."""
    return (str(FIRST_ADDRESS + offset) for offset in count())


class WorldState:
    """Everything that exists. All methods may be called from any thread; ``lock`` makes several of them one step.

    ``addresses`` yields the address of each new node; ``now`` gives Unix time, for creation times and events.
    """

    def __init__(
        self,
        *,
        region: str = "us-east-1",
        account: str = "123456789012",
        suffix: str = "x7f3k",
        addresses: Iterable[str] | None = None,
        now: Callable[[], float] = time.time,
        ttl_seconds: int = 15,
    ) -> None:
        self.region = region
        self.account = account
        self.suffix = suffix
        self.now = now
        self.zone = Zone(ttl_seconds)
        self.lock = threading.RLock()
        self.network = Network(self.lock)
        self.groups: dict[str, GroupRecord] = {}
        self.clusters: dict[str, ClusterRecord] = {}
        self.serverless: dict[str, ServerlessRecord] = {}
        self.events: list[EventRecord] = []
        self.secrets: dict[str, str] = {}
        """ARN -> text, of Secrets Manager."""
        self.patches: dict[tuple[str, str], dict[str, object]] = {}
        self.partials: set[tuple[PartialKind, str]] = set()
        self.order_seed: int | None = None
        self._addresses = iter(addresses) if addresses is not None else guide_addresses()
        self._zones = cycle(f"{region}{letter}" for letter in "abc")

    # what exists

    def group(self, group_id: str) -> GroupRecord:
        """Return a replication group, or raise WorldError."""
        return _found(self.groups, group_id, "replication group")

    def cluster(self, cluster_id: str) -> ClusterRecord:
        """Return a cache cluster, or raise WorldError."""
        return _found(self.clusters, cluster_id, "cache cluster")

    def serverless_cache(self, name: str) -> ServerlessRecord:
        """Return a serverless cache, or raise WorldError."""
        return _found(self.serverless, name, "serverless cache")

    def arn(self, kind: str, cache_id: str) -> str:
        """Name a resource; ``kind`` is replicationgroup | cluster | serverlesscache."""
        return f"arn:aws:elasticache:{self.region}:{self.account}:{kind}:{cache_id}"

    def group_names(self, group: GroupRecord, *, tls: bool | None = None) -> CacheNames:
        """Return the names of a replication group: those its answers show, or those with or without TLS."""
        return CacheNames(group.id, self.suffix, self.region, group.has_tls_names if tls is None else tls)

    def cluster_names(self, cluster: ClusterRecord) -> CacheNames:
        """Return the names of a memcached or standalone cluster."""
        return CacheNames(cluster.id, self.suffix, self.region, cluster.has_tls_names)

    def node_host(self, cluster_id: str, node_id: str = "0001") -> str:
        """Return the DNS name of a node, as its answers show it."""
        cluster = self.cluster(cluster_id)
        cluster.node(node_id)
        if cluster.group is not None:
            return self.group_names(self.group(cluster.group)).member(cluster_id)
        return self.cluster_names(cluster).numbered(node_id)

    def serverless_host(self, name: str) -> str:
        """Return the DNS name of a serverless cache."""
        self.serverless_cache(name)
        return CacheNames(name, self.suffix, self.region, has_tls=True).serverless()

    def node_address(self, cluster_id: str, node_id: str = "0001") -> str:
        """Return the address of a node now."""
        return self.cluster(cluster_id).node(node_id).address

    def nodes(self) -> list[tuple[str, str, str, int]]:
        """Every node of every cluster as (cluster id, node id, address, port)."""
        with self.lock:
            return [
                (cluster.id, node.id, node.address, cluster.port)
                for cluster in self.clusters.values()
                for node in cluster.nodes
            ]

    # making caches

    def add_replication_group(
        self,
        group_id: str,
        *,
        engine: str = "redis",
        mode: GroupMode = "cluster-disabled",
        shards: int = 1,
        replicas: int = 2,
        tls: TlsMode = "off",
        addresses: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> GroupRecord:
        """Make a replication group of ``shards`` times (1 + ``replicas``) nodes, the first of each the primary."""
        with self.lock:
            self._check_new(group_id)
            if mode == "cluster-disabled" and shards != 1:
                raise WorldError("a replication group with cluster mode disabled has one shard")
            group = GroupRecord(
                group_id, engine, mode, port or DEFAULT_PORTS[engine], self._date(), tags=dict(tags or {}), tls=tls
            )
            group.has_tls_names = tls != "off"
            self.groups[group_id] = group
            given = iter(addresses)
            for _ in range(shards):
                self._new_shard(group, 1 + replicas, given)
            self.publish()
            return group

    def add_standalone(
        self,
        cluster_id: str,
        *,
        engine: str = "redis",
        tls: TlsMode = "off",
        address: str | None = None,
        tags: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> ClusterRecord:
        """Make a Redis or Valkey cache of one node that is in no replication group."""
        with self.lock:
            given = iter([address] if address else [])
            cluster = self._new_cluster(cluster_id, engine, [self._new_node("0001", given)], port)
            return self._keep_cluster(cluster, tls, tags)

    def add_memcached(
        self,
        cluster_id: str,
        *,
        nodes: int = 3,
        tls: TlsMode = "off",
        addresses: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> ClusterRecord:
        """Make a memcached cluster with nodes 0001, 0002 ..."""
        with self.lock:
            given = iter(addresses)
            records = [self._new_node(f"{number:04d}", given) for number in range(1, nodes + 1)]
            return self._keep_cluster(self._new_cluster(cluster_id, "memcached", records, port), tls, tags)

    def add_serverless(
        self,
        name: str,
        *,
        engine: str = "valkey",
        addresses: Iterable[str] = (),
        window: int | None = 2,
        tags: Mapping[str, str] | None = None,
        port: int = 6379,
        reader_port: int = 6380,
    ) -> ServerlessRecord:
        """Make a serverless cache: one name with many addresses, of which DNS answers ``window`` at a time."""
        with self.lock:
            self._check_new(name)
            chosen = tuple(addresses) or tuple(islice(self._addresses, 3))
            cache = ServerlessRecord(name, engine, chosen, window, self._date(), port, reader_port)
            cache.tags = dict(tags or {})
            self.serverless[name] = cache
            self.publish()
            return cache

    def _new_cluster(self, cluster_id: str, engine: str, nodes: list[NodeRecord], port: int | None) -> ClusterRecord:
        return ClusterRecord(cluster_id, engine, VERSIONS[engine], port or DEFAULT_PORTS[engine], self._date(), nodes)

    def _keep_cluster(self, cluster: ClusterRecord, tls: TlsMode, tags: Mapping[str, str] | None) -> ClusterRecord:
        self._check_new(cluster.id)
        cluster.tls, cluster.has_tls_names, cluster.tags = tls, tls != "off", dict(tags or {})
        self.clusters[cluster.id] = cluster
        self.publish()
        return cluster

    def _new_shard(self, group: GroupRecord, size: int, given: Iterator[str]) -> ShardRecord:
        taken = {int(shard.id) for shard in group.shards}
        number = next(number for number in count(1) if number not in taken)
        shard = ShardRecord(f"{number:04d}", [], "")
        group.shards.append(shard)
        for _ in range(size):
            self._new_member(group, shard, given)
        shard.primary = shard.members[0]
        return shard

    def _new_member(self, group: GroupRecord, shard: ShardRecord, given: Iterator[str]) -> ClusterRecord:
        stem = group.id if group.mode == "cluster-disabled" else f"{group.id}-{shard.id}"
        number = next(number for number in count(1) if f"{stem}-{number:03d}" not in self.clusters)
        cluster_id = f"{stem}-{number:03d}"
        cluster = self._new_cluster(cluster_id, group.engine, [self._new_node("0001", given)], group.port)
        cluster.group = group.id
        self.clusters[cluster_id] = cluster
        shard.members.append(cluster_id)
        return cluster

    def _new_node(self, node_id: str, given: Iterator[str]) -> NodeRecord:
        return NodeRecord(node_id, next(given, None) or next(self._addresses), next(self._zones))

    def _check_new(self, cache_id: str) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", cache_id):
            message = f"{cache_id!r} is no name AWS would take"
            raise WorldError(message)
        if cache_id in self.groups or cache_id in self.clusters or cache_id in self.serverless:
            message = f"{cache_id} exists already"
            raise WorldError(message)

    def _date(self) -> datetime:
        return datetime.fromtimestamp(int(self.now()), UTC)

    # names in DNS

    def publish(self) -> None:
        """Bring the zone in line with what exists; every change of the world ends with it."""
        records: dict[str, Record] = {}
        for group in self.groups.values():
            for tls in _name_forms(group.tls):
                records |= self._group_records(group, self.group_names(group, tls=tls))
        for cluster in self.clusters.values():
            if cluster.group is None:
                for tls in _name_forms(cluster.tls):
                    records |= self._cluster_records(cluster, CacheNames(cluster.id, self.suffix, self.region, tls))
        for cache in self.serverless.values():
            name = self.serverless_host(cache.name)
            records[name] = Record(addresses=cache.addresses, window=cache.window)
        self.zone.publish(records)

    def _group_records(self, group: GroupRecord, names: CacheNames) -> dict[str, Record]:
        records = {names.member(member): Record((self.node_address(member),)) for member in group.members}
        if group.mode != "cluster-enabled" and group.shards:
            shard = group.shards[0]
            primary = names.member(shard.primary)
            replicas = tuple(names.member(member) for member in shard.members if member != shard.primary)
            records[names.primary()] = Record(aliases=(primary,))
            records[names.reader()] = Record(aliases=replicas or (primary,))
        if group.mode != "cluster-disabled":
            addresses = tuple(self.node_address(member) for member in group.members)
            records[names.configuration()] = Record(addresses, window=CONFIGURATION_WINDOW)
        return records

    def _cluster_records(self, cluster: ClusterRecord, names: CacheNames) -> dict[str, Record]:
        records = {names.numbered(node.id): Record((node.address,)) for node in cluster.nodes}
        if cluster.engine == "memcached":
            records[names.memcached_configuration()] = Record(tuple(node.address for node in cluster.nodes), window=1)
        return records


def _found(table: Mapping[str, T], key: str, kind: str) -> T:
    if key not in table:
        message = f"there is no {kind} {key}"
        raise WorldError(message)
    return table[key]


def _name_forms(tls: TlsMode) -> tuple[bool, ...]:
    """Whether DNS has the names without TLS (False), with TLS (True), or both."""
    return {"off": (False,), "preferred": (False, True), "required": (True,)}[tls]
