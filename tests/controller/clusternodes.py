"""Nodes to be asked for roles: a real cluster of one shard, and nodes that answer by script."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from natproxy.model import Address
from tests.standins.caches import is_port_free
from tests.standins.certificates import Authority, Issued
from tests.standins.clusternode import BUS_PORT, ClusterNode
from tests.standins.rediscluster import RedisCluster

PORT = 6379
UNKNOWN_SHARDS = b"-ERR Unknown subcommand or wrong number of arguments for 'SHARDS'. Try CLUSTER HELP.\r\n"
"""As Redis 6.2 answers."""


class Cluster:
    """A primary and its replica."""

    def __init__(self, primary: ClusterNode, replica: ClusterNode, cluster: RedisCluster) -> None:
        self.primary = primary
        self.replica = replica
        self._cluster = cluster

    def fail_over(self) -> None:
        """Let the two swap their roles."""
        self.primary, self.replica = self.replica, self.primary
        self._cluster.failover(self.primary)
        self._cluster.wait_until_whole()

    def demand(self, password: str = "") -> None:
        """Let nobody in without that password; empty: everybody."""
        for node in (self.primary, self.replica):
            node.ask("CONFIG", "SET", "masterauth", password)
            node.ask("CONFIG", "SET", "requirepass", password)


@contextmanager
def running_cluster(authority: Authority | None = None, host: str = "") -> Iterator[Cluster]:
    """Start one; with an ``authority`` it speaks TLS, and its nodes call themselves ``host``."""
    block = _free_block()
    certificate = None if authority is None else _good_for_both(authority, host)
    ca = b"" if authority is None else authority.pem
    nodes: list[ClusterNode] = []
    try:
        for number in (10, 11):
            own = f"{number}.{host}" if host else ""
            nodes.append(ClusterNode(f"{block}.{number}", PORT, host=own, certificate=certificate, ca=ca))
        cluster = RedisCluster()
        cluster.follow([nodes])
        yield Cluster(nodes[0], nodes[1], cluster)
    finally:
        for node in nodes:
            node.stop()


def _good_for_both(authority: Authority, host: str) -> Issued:
    return authority.issue(host, dns=[f"*.{host}"], usage="both")


def _free_block() -> str:
    while True:
        block = f"127.{random.randrange(64, 96)}.{random.randrange(1, 255)}"
        if all(is_port_free(f"{block}.{number}", port) for number in (10, 11) for port in (PORT, BUS_PORT)):
            return block


class ScriptedNode:
    """Answers each command by a script, and remembers what it was asked.

    ``script`` maps a command in upper case (of AUTH: that word alone) to its answer; None: it never answers; empty: it
    closes the connection.
    """

    def __init__(self, script: Mapping[str, bytes | None]) -> None:
        self.script = dict(script)
        self.heard: list[tuple[str, ...]] = []
        self.connections = 0
        self.address = Address("127.0.0.1", 0)
        self.asked = asyncio.Event()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while words := await _command(reader):
                self.heard.append(words)
                self.asked.set()
                answer = self.script.get(words[0] if words[0] == "AUTH" else " ".join(words), b"-ERR unknown\r\n")
                if answer == b"":
                    return
                if answer is not None:
                    for start in range(0, len(answer), 1000):
                        writer.write(answer[start : start + 1000])
                        await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()


async def _command(reader: asyncio.StreamReader) -> tuple[str, ...]:
    header = await reader.readuntil(b"\r\n")
    words = []
    for _ in range(int(header[1:])):
        length = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(length + 2))[:-2].decode())
    return tuple(words)


@asynccontextmanager
async def scripted(
    script: Mapping[str, bytes | None], tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedNode]:
    """Run such a node on a port of its own."""
    node = ScriptedNode(script)
    server = await asyncio.start_server(node.converse, "127.0.0.1", 0, ssl=tls)
    node.address = Address(*server.sockets[0].getsockname()[:2])
    try:
        yield node
    finally:
        server.close()


def slots_of(ip: str, port: int, *replicas: tuple[str, int]) -> bytes:
    """Return the answer of a node that has all slots, to CLUSTER SLOTS."""
    nodes = b"".join(
        b"*3\r\n$%d\r\n%b\r\n:%d\r\n$1\r\nx\r\n" % (len(host), host.encode(), number)
        for host, number in ((ip, port), *replicas)
    )
    return b"*1\r\n*%d\r\n:0\r\n:16383\r\n%b" % (3 + len(replicas), nodes)
