"""What nodes really say, the book of those nodes, and how redis-py reads it.

The replies came from six servers of Redis 7.0.15 at the guide's addresses, asked with RESP2 and RESP3 while they were
made up in many ways; those to INFO are shortened. What other versions and ElastiCache say stands where it is tested.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from redis import _parsers, cluster
from redis._parsers import helpers

from natproxy.wire.book import Book, View
from natproxy.wire.rewriter import Reply

HOST, IP = "cache.example.com", "203.0.113.73"
A1, A2 = "f34ec9f98ae948aadc67b8f3bd153f4a606c7870", "2c037972ea77a44ea92f5472480881ab9b5d5e66"
B1, B2 = "114c30a96d9fdad93e4776dd42bc3521006470d3", "9352dd2dbe63f24f600943180ef09ee3dea1fe4b"
C1, C2 = "e8983d120ecdc879fb6514f985fefe2f81eef0fb", "8de3c95124ab3f61a4c66facd24e8455e2447f95"
SUFFIX = ".g.x.use1.cache.amazonaws.com"
NAMES = {
    A1: f"g-0001-001{SUFFIX}",
    B1: f"g-0002-001{SUFFIX}",
    C1: f"g-0003-001{SUFFIX}",
    C2: f"g-0001-002{SUFFIX}",
    A2: f"g-0002-002{SUFFIX}",
    B2: f"g-0003-002{SUFFIX}",
}
IPS = {A1: "10.0.1.230", B1: "10.0.1.231", C1: "10.0.1.232", C2: "10.0.1.233", A2: "10.0.1.234", B2: "10.0.1.235"}
PORTS = {A1: 7001, B1: 7002, C1: 7003, C2: 7004, A2: 7005, B2: 7006}
"""Natproxy's."""
BOOK = Book(
    ports={(hosts[node], 6379): port for node, port in PORTS.items() for hosts in (NAMES, IPS)},
    public_host=HOST,
    public_ip=IP,
)


def book_without(*nodes: str) -> Book:
    """The book, some nodes not in it."""
    strangers = {hosts[node] for node in nodes for hosts in (NAMES, IPS)}
    return Book({key: port for key, port in BOOK.ports.items() if key[0] not in strangers}, HOST, IP)


def view(book: Book = BOOK, *, own: str = A1, speaks_tls: bool = False) -> View:
    """A connection to the node ``own``."""
    return View(book, local_ip="10.0.0.55", own_ip=IPS[own], own_port=6379, speaks_tls=speaks_tls)


def wire(spaced: str) -> bytes:
    """Return a reply that is written with spaces for line ends."""
    return spaced.replace(" ", "\r\n").encode()


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text.encode()), text.encode())


def verbatim(text: str) -> bytes:
    return b"=%d\r\ntxt:%b\r\n" % (len(text.encode()) + 4, text.encode())


class Sample(NamedTuple):
    """One reply to one question."""

    name: str
    reply: Reply
    data: bytes


def _slots_node(node: str, endpoint: str, metadata: str) -> str:
    return f"*4 {endpoint} :6379 $40 {node} {metadata}"


def _by_name(node: str, mark: str) -> str:
    return _slots_node(node, f"$39 {NAMES[node]}", f"{mark} $2 ip $10 {IPS[node]} ")


CAPTURED_SLOTS = tuple(
    Sample(f"captured slots, {name}", Reply.SLOTS, wire(text))
    for name, text in {
        "resp2 by ip, no replica yet": "*3 "
        f"*3 :0 :5460 {_slots_node(A1, f'$10 {IPS[A1]}', '*0 ')}"
        f"*3 :5461 :10922 {_slots_node(B1, f'$10 {IPS[B1]}', '*0 ')}"
        f"*3 :10923 :16383 {_slots_node(C1, f'$10 {IPS[C1]}', '*0 ')}",
        "resp3 by ip, with host names": "*3 "
        f"*4 :0 :5460 {_slots_node(A1, f'$10 {IPS[A1]}', f'%1 $8 hostname $39 {NAMES[A1]} ')}"
        f"{_slots_node(A2, f'$10 {IPS[A2]}', f'%1 $8 hostname $39 {NAMES[A2]} ')}"
        f"*4 :5461 :10922 {_slots_node(B1, f'$10 {IPS[B1]}', f'%1 $8 hostname $39 {NAMES[B1]} ')}"
        f"{_slots_node(B2, f'$10 {IPS[B2]}', f'%1 $8 hostname $39 {NAMES[B2]} ')}"
        f"*4 :10923 :16383 {_slots_node(C1, f'$10 {IPS[C1]}', f'%1 $8 hostname $39 {NAMES[C1]} ')}"
        f"{_slots_node(C2, f'$10 {IPS[C2]}', f'%1 $8 hostname $39 {NAMES[C2]} ')}",
        "resp2 by name": "*3 "
        f"*4 :0 :5460 {_by_name(A1, '*2')}{_by_name(A2, '*2')}"
        f"*4 :5461 :10922 {_by_name(B1, '*2')}{_by_name(B2, '*2')}"
        f"*4 :10923 :16383 {_by_name(C1, '*2')}{_by_name(C2, '*2')}",
        "resp3 by name, failed over": "*3 "
        f"*4 :0 :5460 {_by_name(A1, '%1')}{_by_name(A2, '%1')}"
        f"*3 :5461 :10922 {_by_name(B2, '%1')}"
        f"*4 :10923 :16383 {_by_name(C1, '%1')}{_by_name(C2, '%1')}",
        "resp3 of unknown endpoints": "*3 "
        f"*3 :0 :5460 {_slots_node(A1, '_', f'%1 $2 ip $10 {IPS[A1]} ')}"
        f"*3 :5461 :10922 {_slots_node(B1, '_', f'%1 $2 ip $10 {IPS[B1]} ')}"
        f"*3 :10923 :16383 {_slots_node(C1, '_', f'%1 $2 ip $10 {IPS[C1]} ')}",
        "resp2 of names not set": "*3 "
        f"*3 :0 :5460 {_slots_node(A1, '$1 ?', f'*2 $2 ip $10 {IPS[A1]} ')}"
        f"*3 :5461 :10922 {_slots_node(B1, '$1 ?', f'*2 $2 ip $10 {IPS[B1]} ')}"
        f"*3 :10923 :16383 {_slots_node(C1, '$1 ?', f'*2 $2 ip $10 {IPS[C1]} ')}",
    }.items()
)


def _shards_node(node: str, names: str, mark: str, *, role: str, health: str, offset: int) -> str:
    tail = f"$4 role ${len(role)} {role} $18 replication-offset :{offset} $6 health ${len(health)} {health} "
    return f"{mark} $2 id $40 {node} {names}{tail}"


def _by_name_in_shards(node: str, role: str = "master", offset: int = 28) -> str:
    names = f"$4 port :6379 $2 ip $10 {IPS[node]} $8 endpoint $39 {NAMES[node]} $8 hostname $39 {NAMES[node]} "
    return _shards_node(node, names, "%8", role=role, health="online", offset=offset)


def _unknown_in_shards(node: str, role: str = "master", health: str = "online") -> str:
    names = f"$4 port :6379 $2 ip $10 {IPS[node]} $8 endpoint $0  "
    return _shards_node(node, names, "*14", role=role, health=health, offset=0)


def _shard(mark: str, slots: str, *nodes: str) -> str:
    return f"{mark} $5 slots *2 {slots} $5 nodes *{len(nodes)} {''.join(nodes)}"


CAPTURED_SHARDS = tuple(
    Sample(f"captured shards, {name}", Reply.SHARDS, wire("".join(shards)))
    for name, shards in {
        "resp3 by name, failed over, one without an address": (
            "*4 ",
            _shard("%2", ":5461 :10922", _by_name_in_shards(B2, offset=14)),
            _shard("%2", ":10923 :16383", _by_name_in_shards(C1), _by_name_in_shards(C2, "replica")),
            _shard("%2", ":0 :5460", _by_name_in_shards(A1), _by_name_in_shards(A2, "replica")),
            f"%2 $5 slots *0 $5 nodes *1 %7 $2 id $40 {B1} $2 ip $0  $8 endpoint $39 {NAMES[B1]} $8 hostname ",
            f"$39 {NAMES[B1]} $4 role $6 master $18 replication-offset :0 $6 health $4 fail ",
        ),
        "resp2 of unknown endpoints, replicas loading": (
            "*3 ",
            _shard("*4", ":10923 :16383", _unknown_in_shards(C1), _unknown_in_shards(C2, "replica", "loading")),
            _shard("*4", ":0 :5460", _unknown_in_shards(A1), _unknown_in_shards(A2, "replica", "loading")),
            _shard("*4", ":5461 :10922", _unknown_in_shards(B1), _unknown_in_shards(B2, "replica", "loading")),
        ),
    }.items()
)

CAPTURED_ROWS = f"""\
{B2} 10.0.1.235:6379@16379,{NAMES[B2]} master - 0 1795285795000 7 connected 5461-10922
55725dd6173abe4be661e5b214982e9fb9d7d049 10.0.1.99:6379@16379 handshake - 1795285795175 0 0 disconnected
{A2} 10.0.1.234:6379@16379,{NAMES[A2]} slave {A1} 0 1795285795074 1 connected
{C2} 10.0.1.233:6379@16379,{NAMES[C2]} slave {C1} 0 1795285795074 3 connected
{C1} 10.0.1.232:6379@16379,{NAMES[C1]} master - 0 1795285795074 3 connected 10923-16383
{A1} 10.0.1.230:6379@16379,{NAMES[A1]} myself,master - 0 1795285794000 1 connected 0-5460 [12182-<-{C1}]
{B1} 10.0.1.231:6379@16379,{NAMES[B1]} master,fail - 1795285790045 1795285789040 2 disconnected
"""
"""After a failover, a slot on its way, a stranger being met."""
CAPTURED_PLAIN_ROWS = f"""\
{C2} 10.0.1.233:6379@16379 slave {C1} 0 1795285785024 3 connected
{A1} 10.0.1.230:6379@16379 master - 0 1795285784923 1 connected 0-5460
{B2} 10.0.1.235:6379@16379 slave {B1} 0 1795285785024 2 connected
{C1} 10.0.1.232:6379@16379 myself,master - 0 1795285784000 3 connected 10923-16383 [12182->-{A1}]
{B1} 10.0.1.231:6379@16379 master - 0 1795285785024 2 connected 5461-10922
{A2} 10.0.1.234:6379@16379 slave {A1} 0 1795285785024 1 connected
"""
CAPTURED_NOADDR = f"{B1} :0@0,{NAMES[B1]} master,fail,noaddr - 1795285790045 1795285789040 2 disconnected"
CAPTURED_ALONE = f"{A1} :6379@16379 myself,master - 0 0 0 connected 0-16383"
CAPTURED_REPLICA = f"{A2} 10.0.1.234:6379@16379 slave {A1} 0 1795285785026 1 connected"
CAPTURED_NODES = (
    Sample("captured nodes, resp2", Reply.NODES, bulk(CAPTURED_ROWS)),
    Sample("captured nodes, resp3", Reply.NODES, verbatim(CAPTURED_PLAIN_ROWS)),
    Sample("captured nodes, one without an address", Reply.NODES, bulk(f"{CAPTURED_NOADDR}\n{CAPTURED_ALONE}\n")),
    Sample("captured replicas", Reply.REPLICAS, b"*1\r\n" + bulk(CAPTURED_REPLICA)),
)

CAPTURED_ROLES = (
    Sample(
        "captured role, primary",
        Reply.ROLE,
        wire("*3 $6 master :14 *2 *3 $10 10.0.1.232 $4 6379 $2 14 *3 $10 10.0.1.231 $4 6379 $2 14 "),
    ),
    Sample("captured role, replica", Reply.ROLE, wire("*5 $5 slave $10 10.0.1.230 :6379 $9 connected :14 ")),
)

CAPTURED_PRIMARY_INFO = """\
# Server
redis_version:7.0.15
redis_mode:standalone
os:Linux 6.1.0 x86_64
tcp_port:6379

# Replication
role:master
connected_slaves:2
slave0:ip=10.0.1.232,port=6379,state=online,offset=14,lag=0
slave1:ip=10.0.1.231,port=6379,state=online,offset=14,lag=0
master_failover_state:no-failover
master_replid:ed017b93bba54cff341ed7b31f512fd193ad4264
master_repl_offset:14

# Keyspace
""".replace("\n", "\r\n")
CAPTURED_REPLICA_INFO = """\
# Replication
role:slave
master_host:10.0.1.230
master_port:6379
master_link_status:up
master_last_io_seconds_ago:2
master_sync_in_progress:0
slave_read_repl_offset:14
slave_repl_offset:14
slave_priority:100
slave_read_only:1
replica_announced:1
connected_slaves:0
master_failover_state:no-failover
master_replid:ed017b93bba54cff341ed7b31f512fd193ad4264
""".replace("\n", "\r\n")
CAPTURED_INFOS = (
    Sample("captured info, primary", Reply.INFO, bulk(CAPTURED_PRIMARY_INFO)),
    Sample("captured info, replica", Reply.INFO, verbatim(CAPTURED_REPLICA_INFO)),
)
SAMPLES = CAPTURED_SLOTS + CAPTURED_SHARDS + CAPTURED_NODES + CAPTURED_ROLES + CAPTURED_INFOS


def private_addresses(book: Book = BOOK) -> Iterator[bytes]:
    """Yield what must not be in a rewritten reply."""
    yield from (host.encode() for host, _ in book.ports)
    yield b"10.0.1."


parse_info: Callable[[object], dict[str, Any]] = helpers.parse_info
parse_cluster_nodes: Callable[[object], dict[str, Any]] = helpers.parse_cluster_nodes
parse_cluster_slots: Callable[[object], dict[tuple[int, int], Any]] = cluster.parse_cluster_slots
parse_cluster_shards: Callable[[object], list[Any]] = cluster.parse_cluster_shards
_parser_of: dict[int, Callable[[int], Any]] = {2: _parsers._RESP2Parser, 3: _parsers._RESP3Parser}
_encoder_of: Callable[[str, str, bool], Any] = _parsers.Encoder


class _Connection:
    """What redis-py's parsers want: something to receive from."""

    socket_timeout = None
    encoder = _encoder_of("utf-8", "strict", False)

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self._sock = self

    def recv(self, size: int) -> bytes:
        return self._data.read(size)

    def is_at_end(self) -> bool:
        return not self._data.read(1)


def read_by_redis_py(data: bytes, protocol: int = 3) -> object:
    """Return one reply as redis-py understands it; nothing may come after it."""
    connection = _Connection(data)
    parser = _parser_of[protocol](1 << 16)
    parser.on_connect(connection)
    reply: object = parser.read_response()
    assert connection.is_at_end()
    return reply
