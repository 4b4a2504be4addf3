"""The stand-in's world of caches and what can happen to it: failover, replacement, growth, shrinkage ... Pure.

    world = AwsWorld()
    world.add_replication_group("my-redis", replicas=2, tags={"Environment": "dev"})
    world.add_memcached("my-memcached", nodes=3)
    world.failover("my-redis")                        # roles swap, the primary's name moves
    world.replace_node("my-redis-002")                # same id, same name, a new address
    world.remove_node("my-redis-003"); world.settle() # "deleting" first, then gone
    world.partial("missing-nodes", "my-redis-001")    # answers leave something out; world.whole() ends it

Steps that take AWS minutes are two: the act shows the interim status, ``settle`` finishes everything under way.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from tests.standins.aws.records import (
    ClusterRecord,
    EventRecord,
    GroupRecord,
    NodeRecord,
    PartialKind,
    ShardRecord,
    TlsMode,
    WorldError,
)
from tests.standins.aws.state import WorldState

MISSING: Final = object()
"""As a patch: the field is left out of the answer."""

T = TypeVar("T")


class AwsWorld(WorldState):
    """What exists and what happens to it."""

    # secrets

    def set_secret(self, name: str, text: str) -> str:
        """Put a text into Secrets Manager, in place of what was there; return its ARN."""
        arn = f"arn:aws:secretsmanager:{self.region}:{self.account}:secret:{name}"
        with self.lock:
            self.secrets[arn] = text
        return arn

    # roles and nodes

    def failover(self, group_id: str, shard: int = 0, to: str | None = None) -> str:
        """Make a replica (``to``, else the next one) the primary of a shard; return the new primary's cluster id."""
        with self.lock:
            group = self.group(group_id)
            record = group.shards[shard]
            candidates = [member for member in record.members if member != record.primary]
            if not candidates or (to is not None and to not in candidates):
                message = f"shard {record.id} of {group_id} has no replica {to or ''} to fail over to"
                raise WorldError(message)
            old, record.primary = record.primary, to or candidates[0]
            done = f"Failover from primary node {old} to replica node {record.primary} completed"
            self.tell(group_id, "replication-group", f"Test Failover API called for node group {record.id}")
            self.tell(group_id, "replication-group", done)
            self.publish()
            return record.primary

    def replace_node(self, cluster_id: str, node_id: str = "0001", *, address: str | None = None) -> str:
        """Replace a node: the same id and name, at ``address`` (else the next free one; the old one may be given).

        Returns the address it has now.
        """
        with self.lock:
            node = self.cluster(cluster_id).node(node_id)
            node.address = address or next(self._addresses)
            self.tell(cluster_id, "cache-cluster", f"Recovering cache nodes {node_id}")
            self.tell(cluster_id, "cache-cluster", f"Finished recovery for cache nodes {node_id}")
            self.publish()
            return node.address

    def set_node_status(self, cluster_id: str, status: str, node_id: str = "0001") -> None:
        """Show a node as available, rebooting, creating or deleting."""
        with self.lock:
            self.cluster(cluster_id).node(node_id).status = status

    def add_replica(
        self, group_id: str, shard: int = 0, *, address: str | None = None, creating: bool = False
    ) -> ClusterRecord:
        """Grow a shard by one replica; with ``creating`` it has no nodes to show until ``settle``."""
        with self.lock:
            group = self.group(group_id)
            cluster = self._new_member(group, group.shards[shard], _given(address))
            self._grown(group, [cluster], creating=creating)
            return cluster

    def add_shard(
        self, group_id: str, *, replicas: int = 1, addresses: Iterable[str] = (), creating: bool = False
    ) -> ShardRecord:
        """Grow a group in cluster mode by one shard."""
        with self.lock:
            group = self.group(group_id)
            if group.mode == "cluster-disabled":
                raise WorldError("a replication group with cluster mode disabled has one shard")
            shard = self._new_shard(group, 1 + replicas, iter(addresses))
            self._grown(group, [self.cluster(member) for member in shard.members], creating=creating)
            return shard

    def add_memcached_node(self, cluster_id: str, *, address: str | None = None, creating: bool = False) -> NodeRecord:
        """Grow a memcached cluster by one node; with ``creating`` it has no Endpoint until ``settle``."""
        with self.lock:
            cluster = self.cluster(cluster_id)
            taken = {node.id for node in cluster.nodes}
            number = next(number for number in range(1, len(taken) + 2) if f"{number:04d}" not in taken)
            node = self._new_node(f"{number:04d}", _given(address))
            cluster.nodes = sorted([*cluster.nodes, node], key=lambda record: record.id)
            if creating:
                node.status, cluster.status = "creating", "modifying"
            message = f"Added cache node {node.id} in availability zone {node.zone}"
            self.tell(cluster_id, "cache-cluster", message)
            self.publish()
            return node

    def remove_node(self, cluster_id: str, node_id: str = "0001", *, settle: bool = False) -> None:
        """Take a replica, or a memcached node, away: ``deleting`` until ``settle``."""
        with self.lock:
            cluster = self.cluster(cluster_id)
            if cluster.group is not None:
                self._refuse_primary(self.group(cluster.group), cluster_id)
                cluster.status = "deleting"
            else:
                cluster.status = "modifying"
            cluster.node(node_id).status = "deleting"
            self.tell(cluster_id, "cache-cluster", f"Removed cache nodes {node_id}")
            if settle:
                self.settle()

    def remove_shard(self, group_id: str, shard: int, *, settle: bool = False) -> None:
        """Take a whole shard away: its members are ``deleting`` until ``settle``."""
        with self.lock:
            group = self.group(group_id)
            for member in group.shards[shard].members:
                self.cluster(member).status = "deleting"
            group.status = "modifying"
            if settle:
                self.settle()

    def delete_cache(self, cache_id: str, *, settle: bool = False) -> None:
        """Delete a group with its members, a cluster, or a serverless cache: ``deleting`` until ``settle``."""
        with self.lock:
            if cache_id in self.groups:
                group = self.groups[cache_id]
                group.status = "deleting"
                for member in group.members:
                    self.clusters[member].status = "deleting"
            elif cache_id in self.serverless:
                self.serverless[cache_id].status = "deleting"
            else:
                self.cluster(cache_id).status = "deleting"
            if settle:
                self.settle()

    def settle(self) -> None:
        """Finish everything under way: what was being created is available, what was being deleted is gone."""
        with self.lock:
            self._drop_deleted()
            for cluster in self.clusters.values():
                cluster.nodes = [node for node in cluster.nodes if node.status != "deleting"]
                for node in cluster.nodes:
                    node.status = "available"
                cluster.status = "available"
            for group in self.groups.values():
                group.status = "available"
            self.publish()

    # TLS

    def tls_migration(self, cache_id: str, to: TlsMode, *, show_tls_names: bool | None = None) -> None:
        """Take a cache one step on: off -> preferred (DNS has both forms of its names) -> required, or back.

        The answers show the TLS names from ``preferred`` on; ``show_tls_names=False`` keeps the old ones until then.
        """
        with self.lock:
            record = self.groups.get(cache_id) or self.cluster(cache_id)
            if {record.tls, to} == {"off", "required"}:
                raise WorldError("AWS goes from off to required, and back, by way of preferred")
            record.tls = to
            record.has_tls_names = to != "off" if show_tls_names is None else show_tls_names
            self.publish()

    # answers that are not whole

    def partial(self, kind: PartialKind, name: str) -> None:
        """Leave something out of the answers until ``whole``.

        ``missing-cluster`` ID, ``missing-nodes`` CLUSTER (no CacheNodes), ``missing-endpoint`` CLUSTER/NODE,
        ``missing-group`` ID, ``missing-members`` GROUP (no NodeGroupMembers), ``missing-serverless`` NAME,
        ``empty`` OPERATION (an answer with an empty list).
        """
        with self.lock:
            self.partials.add((kind, name))

    def whole(self) -> None:
        """End every ``partial`` and ``patch``."""
        with self.lock:
            self.partials.clear()
            self.patches.clear()

    def is_partial(self, kind: PartialKind, name: str) -> bool:
        """Whether this is left out now."""
        return (kind, name) in self.partials

    def patch(self, kind: str, cache_id: str, **fields: object) -> None:
        """Overwrite fields of the answers, for shapes that AWS gives at times; ``MISSING`` leaves a field out.

        ``kind`` is group | cluster | node (``cluster/node``) | serverless. A callable is given the old value. The
        renderer refuses fields and values that botocore's model does not know.
        """
        with self.lock:
            self.patches.setdefault((kind, cache_id), {}).update(fields)

    def reorder(self, seed: int | None) -> None:
        """List everything in another order (None: in the order it was made)."""
        with self.lock:
            self.order_seed = seed

    def ordered(self, records: Iterable[T]) -> list[T]:
        """Return records in the order the answers list them."""
        listed = list(records)
        if self.order_seed is not None:
            random.Random(self.order_seed).shuffle(listed)
        return listed

    def patched(self, kind: str, cache_id: str, answer: dict[str, object]) -> dict[str, object]:
        """Return one part of an answer with its patches applied."""
        for field, value in self.patches.get((kind, cache_id), {}).items():
            if value is MISSING:
                answer.pop(field, None)
            else:
                answer[field] = value(answer.get(field)) if callable(value) else value
        return answer

    def tell(self, source: str, source_type: str, message: str) -> None:
        """Add a line to DescribeEvents."""
        with self.lock:
            self.events.append(EventRecord(source, source_type, message, self._date()))

    def _grown(self, group: GroupRecord, clusters: list[ClusterRecord], *, creating: bool) -> None:
        for cluster in clusters:
            if creating:
                cluster.status, group.status = "creating", "modifying"
            message = f"Added cache node 0001 in availability zone {cluster.nodes[0].zone}"
            self.tell(cluster.id, "cache-cluster", message)
        self.publish()

    def _refuse_primary(self, group: GroupRecord, cluster_id: str) -> None:
        if any(shard.primary == cluster_id for shard in group.shards):
            message = f"{cluster_id} is a primary: fail over first"
            raise WorldError(message)

    def _drop_deleted(self) -> None:
        gone = {cluster.id for cluster in self.clusters.values() if cluster.status == "deleting"}
        self.clusters = {key: cluster for key, cluster in self.clusters.items() if key not in gone}
        self.groups = {key: group for key, group in self.groups.items() if group.status != "deleting"}
        self.serverless = {key: cache for key, cache in self.serverless.items() if cache.status != "deleting"}
        for group in self.groups.values():
            for shard in group.shards:
                shard.members = [member for member in shard.members if member not in gone]
            group.shards = [shard for shard in group.shards if shard.members]


def _given(address: str | None) -> Iterator[str]:
    return iter([address] if address else [])
