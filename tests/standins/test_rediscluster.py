from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.crc import key_slot

from tests.standins.caches import CacheError, redis_program
from tests.standins.certificates import Authority
from tests.standins.clusternode import ClusterNode
from tests.standins.rediscluster import SLOTS, RedisCluster
from tests.standins.resp import ReplyError, ask

pytestmark = pytest.mark.skipif(redis_program() is None, reason="redis-server is not installed")

PORT = 6379
AUTHORITY = Authority()
NewNode = Callable[..., ClusterNode]


@pytest.fixture(scope="module")
def new_node() -> Iterator[NewNode]:
    """Start nodes, each at an address of its own, and with its own host name where that is given."""
    made: list[ClusterNode] = []
    numbers = itertools.count(10)

    def start(host: str = "") -> ClusterNode:
        certificate = AUTHORITY.issue("node", dns=[host], usage="both") if host else None
        made.append(ClusterNode(f"127.3.1.{next(numbers)}", PORT, host=host, certificate=certificate, ca=AUTHORITY.pem))
        return made[-1]

    yield start
    for node in made:
        node.stop()


@pytest.fixture(scope="module")
def cluster(new_node: NewNode) -> RedisCluster:
    """Three shards of two nodes. Each test leaves them whole, in whatever shape."""
    cluster = RedisCluster()
    cluster.follow([[new_node(), new_node()] for _ in range(3)])
    return cluster


def client(cluster: RedisCluster) -> redis.RedisCluster:
    return redis.RedisCluster(cluster.nodes[0].address, PORT, decode_responses=True)


def key_in(slots: range) -> str:
    return next(f"key{number}" for number in itertools.count() if key_slot(f"key{number}".encode()) in slots)


def test_it_is_whole_and_serves_every_slot(cluster: RedisCluster) -> None:
    assert [[len(node.view()[node.id].slots) for node in shard] for shard in cluster.shards] == [
        [5461, 0], [5461, 0], [5462, 0],
    ]  # fmt: skip
    with client(cluster) as talk:
        for number in range(100):
            talk.set(f"a{number}", number)
        assert [talk.get(f"a{number}") for number in range(100)] == [str(number) for number in range(100)]


def test_slots_that_are_moved_are_seen_as_asked_then_as_moved(cluster: RedisCluster) -> None:
    owner, to = cluster.shards[0][0], cluster.shards[1][0]
    key = key_in(range(100))
    slot = key_slot(key.encode())
    there, here = f"{{{key}}}there", f"{{{key}}}here"
    ask(owner.address, PORT, "SET", key, "1")
    cluster.open_slots([slot], to)
    assert ask(owner.address, PORT, "GET", key) == "1"
    with pytest.raises(ReplyError, match=f"ASK {slot} {to.address}:{PORT}"):
        ask(owner.address, PORT, "SET", there, "2")
    with client(cluster) as talk:
        talk.set(there, "2")
        assert cluster.carry_keys([slot], to, most=1) == 1
        assert (talk.get(key), talk.get(there)) == ("1", "2")
        with pytest.raises(ReplyError, match="ASK"):
            ask(owner.address, PORT, "GET", here)
        cluster.close_slots([slot], to)
        with pytest.raises(ReplyError, match=f"MOVED {slot} {to.address}:{PORT}"):
            ask(owner.address, PORT, "GET", key)
        assert (talk.get(key), talk.get(there)) == ("1", "2")


def test_a_failover_loses_nothing_and_the_old_primary_follows(cluster: RedisCluster) -> None:
    old, new = cluster.shards[0]
    key = key_in(range(200, 5000))
    ask(old.address, PORT, "SET", key, "kept")
    cluster.failover(new)
    assert ask(new.address, PORT, "GET", key) == "kept"
    cluster.wait_until_whole()
    assert old.view()[old.id].primary == new.id
    assert cluster.shards[0] == [new, old]


def test_a_killed_primary_is_taken_over_from_and_another_node_takes_its_place(
    cluster: RedisCluster, new_node: NewNode
) -> None:
    dead, replica = cluster.shards[1]
    key = key_in(range(6000, 10000))
    ask(dead.address, PORT, "SET", key, "kept")
    cluster.kill(dead)
    assert not dead.is_running
    cluster.failover(replica, how="takeover")
    assert ask(replica.address, PORT, "GET", key) == "kept"
    fresh = new_node()
    cluster.follow([cluster.shards[0], [replica, fresh], cluster.shards[2]])
    assert all(dead.id not in node.view() for node in cluster.nodes)
    assert fresh.view()[fresh.id].primary == replica.id


def test_it_grows_and_shrinks_with_its_data(cluster: RedisCluster, new_node: NewNode) -> None:
    with client(cluster) as talk:
        for number in range(100):
            talk.set(f"b{number}", number)
        more = [new_node()]
        cluster.follow([*cluster.shards, more])
        assert len(more[0].view()[more[0].id].slots) == SLOTS // 4
        assert [talk.get(f"b{number}") for number in range(100)] == [str(number) for number in range(100)]
        cluster.follow(cluster.shards[:3])
        assert [talk.get(f"b{number}") for number in range(100)] == [str(number) for number in range(100)]
    assert more[0].id not in cluster.nodes[0].view()


def test_a_shard_of_one_node_that_is_replaced_begins_anew(new_node: NewNode) -> None:
    cluster = RedisCluster()
    first, second = new_node(), new_node()
    cluster.follow([[first], [second]])
    ask(first.address, PORT, "SET", (key := key_in(range(8000))), "lost")
    cluster.kill(first)
    fresh = new_node()
    cluster.follow([[fresh], [second]])
    assert fresh.view()[fresh.id].slots == frozenset(range(8192))
    assert ask(fresh.address, PORT, "GET", key) is None


def test_with_tls_it_calls_its_nodes_by_their_names(new_node: NewNode) -> None:
    cluster = RedisCluster()
    hosts = ["one.example", "two.example", "three.example"]
    first, second, third = map(new_node, hosts)
    cluster.follow([[first, third], [second]])
    trusting = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    with trusting.wrap_socket(_connect(first), server_hostname="one.example") as secured:
        secured.sendall(b"GET " + key_in(range(9000, 10000)).encode() + b"\r\n")
        answer = secured.recv(100).decode()
    assert answer.startswith("-MOVED ")
    assert answer.endswith(" two.example:6379\r\n")
    assert {member.host for member in first.view().values()} == set(hosts)
    cluster.failover(third)
    cluster.move_slots(range(10), second)
    cluster.wait_until_whole()


def _connect(node: ClusterNode) -> socket.socket:
    return socket.create_connection((node.address, PORT), 5)


def test_what_is_no_cluster_says_so(new_node: NewNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.standins.rediscluster.PATIENCE_SECONDS", 0.1)
    cluster = RedisCluster()
    cluster.shards = [[new_node()]]
    with pytest.raises(CacheError, match="slots are missing"):
        cluster.wait_until_whole()
