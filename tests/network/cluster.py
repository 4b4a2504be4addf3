"""A real Redis cluster on the guide's nodes, as AWS tells of it. I/O: runs redis-servers in its network, as root."""

from __future__ import annotations

from typing import Self

from tests.network.aws import GuideAws
from tests.network.guide import NODE_IPS, NODES, REDIS_PORT, GuideNetwork
from tests.standins.certificates import Authority
from tests.standins.clusternode import ClusterNode
from tests.standins.rediscluster import RedisCluster

CLUSTER_ID = "my-cluster"
SHARDS, SIZE = 3, 2
ADDRESSES = NODE_IPS[10 : 10 + SHARDS * SIZE]
"""10.0.1.230 and on: of each shard the primary, then its replica."""
MORE_ADDRESSES = NODE_IPS[10 + SHARDS * SIZE :][:SIZE]
"""Of one more shard, for a while."""


class GuideCluster:
    """A replication group in cluster mode, as AWS tells of it, and its real nodes."""

    def __init__(self, network: GuideNetwork, authority: Authority | None) -> None:
        """With an ``authority`` they speak TLS, with its certificates."""
        self._network = network
        self._authority = authority
        self._made: list[ClusterNode] = []
        tls = "off" if authority is None else "required"
        shape = {"mode": "cluster-enabled", "shards": SHARDS, "replicas": SIZE - 1, "addresses": ADDRESSES, "tls": tls}
        self.aws = GuideAws(network, [{"do": "add_replication_group", "group_id": CLUSTER_ID, **shape}])
        self.names = {
            address: f"{CLUSTER_ID}-{shard + 1:04d}-{number + 1:03d}"
            for shard in range(SHARDS)
            for number, address in enumerate(ADDRESSES[shard * SIZE : (shard + 1) * SIZE])
        }
        """Address -> cluster id."""
        self.cluster = RedisCluster()

    def __enter__(self) -> Self:
        nodes = [self.start(address) for address in ADDRESSES]
        self.cluster.follow([nodes[start : start + SIZE] for start in range(0, len(nodes), SIZE)])
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._made:
            node.stop()

    def start(self, address: str) -> ClusterNode:
        """Start the node of an address, empty."""
        host = str(self.aws.do("node_host", cluster_id=self.names[address]))
        prefix = ("ip", "netns", "exec", self._network.namespaces.name(NODES))
        if self._authority is None:
            node = ClusterNode(address, REDIS_PORT, prefix=prefix)
        else:
            issued = self._authority.issue("node", dns=[f"*.{host.partition('.')[2]}"], usage="both")  # as AWS's
            node = ClusterNode(
                address, REDIS_PORT, host=host, certificate=issued, ca=self._authority.pem, prefix=prefix
            )
        self._made.append(node)
        return node

    def grow(self) -> ClusterNode:
        """Get one more shard, which has no slots and is still "creating" to AWS; return its primary."""
        self.names |= {ip: f"{CLUSTER_ID}-{SHARDS + 1:04d}-{place:03d}" for place, ip in enumerate(MORE_ADDRESSES, 1)}
        self.aws.do("add_shard", group_id=CLUSTER_ID, replicas=SIZE - 1, addresses=MORE_ADDRESSES, creating=True)
        new = [self.start(address) for address in MORE_ADDRESSES]
        self.cluster.follow([*self.cluster.shards, new], evenly=False)
        return new[0]

    def shrink(self) -> None:
        """Give it back: it loses its slots before AWS takes its nodes away."""
        *rest, gone = self.cluster.shards
        self.cluster.follow(rest)
        self.aws.do("remove_shard", group_id=CLUSTER_ID, shard=SHARDS, settle=True)
        for node in gone:
            node.kill()

    def fail_over(self, shard: int, *, kill: bool = False) -> None:
        """Let a shard's replica be its primary. ``kill``: the old one dies first, and comes back as a new replica."""
        old, new = self.cluster.shards[shard]
        if kill:
            self.cluster.kill(old)
        self.cluster.failover(new, how="takeover" if kill else "coordinated")
        self.aws.do("failover", group_id=CLUSTER_ID, shard=shard, to=self.names[new.address])
        if kill:
            shards = list(self.cluster.shards)
            shards[shard] = [new, self.start(old.address)]
            self.cluster.follow(shards)
        self.cluster.wait_until_whole()
