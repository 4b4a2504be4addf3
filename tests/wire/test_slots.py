from __future__ import annotations

import pytest

from natproxy.model import Role
from natproxy.wire.book import Book, View
from natproxy.wire.rewriter import Reply
from natproxy.wire.topology import Rewritten, rewrite
from tests.wire.samples import (
    A1,
    A2,
    B1,
    BOOK,
    CAPTURED_SHARDS,
    CAPTURED_SLOTS,
    HOST,
    IP,
    IPS,
    NAMES,
    PORTS,
    book_without,
    parse_cluster_shards,
    parse_cluster_slots,
    read_by_redis_py,
    view,
    wire,
)

SERVERLESS = "my-cache-x.serverless.use1.cache.amazonaws.com"
BY_IP = view(Book(BOOK.ports, IP, IP))
"""The public host is no name."""


def told(reply: Reply, data: bytes, now: View) -> Rewritten:
    rewritten = rewrite(reply, data, now)
    assert rewritten is not None
    return rewritten


def one_range(node: str) -> bytes:
    return wire(f"*1 *3 :0 :16383 {node}")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        # 6.2 and before
        (f"*3 $10 10.0.1.231 :6379 $40 {B1} ", f"*3 $17 {HOST} :7002 $40 {B1} "),
        ("*2 $10 10.0.1.231 :6379 ", f"*2 $17 {HOST} :7002 "),
        # 7.0 and after
        (f"*4 $10 10.0.1.231 :6379 $40 {B1} *0 ", f"*4 $17 {HOST} :7002 $40 {B1} *0 "),
        (f"*4 $10 10.0.1.231 :6379 $40 {B1} %0 ", f"*4 $17 {HOST} :7002 $40 {B1} %0 "),
        (
            f"*4 $10 10.0.1.231 :6379 $40 {B1} *2 $8 hostname $39 {NAMES[B1]} ",
            f"*4 $17 {HOST} :7002 $40 {B1} *2 $8 hostname $17 {HOST} ",
        ),
        (
            f"*4 $39 {NAMES[B1]} :6379 $40 {B1} %1 $2 ip $10 10.0.1.231 ",
            f"*4 $17 {HOST} :7002 $40 {B1} %1 $2 ip $12 {IP} ",
        ),
        # endpoints that say nothing
        (
            f"*4 _ :6379 $40 {B1} %2 $2 ip $10 10.0.1.231 $8 hostname $39 {NAMES[B1]} ",
            f"*4 $17 {HOST} :7002 $40 {B1} %2 $2 ip $12 {IP} $8 hostname $17 {HOST} ",
        ),
        (
            f"*4 $-1 :6379 $40 {B1} *2 $2 ip $10 10.0.1.231 ",
            f"*4 $17 {HOST} :7002 $40 {B1} *2 $2 ip $12 {IP} ",
        ),
        (f"*4 $1 ? :6379 $40 {B1} %1 $2 ip $10 10.0.1.231 ", f"*4 $17 {HOST} :7002 $40 {B1} %1 $2 ip $12 {IP} "),
        (
            f"*4 $0  :6379 $40 {B1} %1 $8 hostname $39 {NAMES[B1]} ",
            f"*4 $17 {HOST} :7002 $40 {B1} %1 $8 hostname $17 {HOST} ",
        ),
        # and nothing else does: it is the node itself
        (f"*4 $0  :6379 $40 {A1} *0 ", f"*4 $17 {HOST} :7001 $40 {A1} *0 "),
        (f"*3 $-1 :6379 $40 {A1} ", f"*3 $17 {HOST} :7001 $40 {A1} "),
        (f"*4 _ :6379 $40 {A1} %1 $2 ip $0  ", f"*4 $17 {HOST} :7001 $40 {A1} %1 $2 ip $12 {IP} "),
        (f"*4 $1 ? :6379 $40 {A1} _ ", f"*4 $17 {HOST} :7001 $40 {A1} _ "),
        (f"*4 $1 ? :6379 $40 {A1} *-1 ", f"*4 $17 {HOST} :7001 $40 {A1} *-1 "),
        # ElastiCache with TLS, where AWS tells a name in another spelling; fields of later days
        (
            f"*4 $40 {NAMES[B1].upper()}. :6379 $40 {B1} %2 $2 ip $10 10.9.9.231 $17 availability-zone $2 1a ",
            f"*4 $17 {HOST} :7002 $40 {B1} %2 $2 ip $12 {IP} $17 availability-zone $2 1a ",
        ),
        # a name that is not known, of an address that is
        (
            f"*4 $5 alias :6379 $40 {B1} %1 $2 ip $10 10.0.1.231 ",
            f"*4 $17 {HOST} :7002 $40 {B1} %1 $2 ip $12 {IP} ",
        ),
    ],
)
def test_a_node_in_slots(said: str, meant: str) -> None:
    rewritten = told(Reply.SLOTS, one_range(said), view())
    assert rewritten.data == one_range(meant)
    assert not rewritten.is_missing
    assert len(rewritten.roles) == 1


def test_where_the_public_host_is_an_address_no_host_name_is_told() -> None:
    said = f"*4 _ :6379 $40 {B1} %2 $2 ip $10 10.0.1.231 $8 hostname $39 {NAMES[B1]} "
    assert told(Reply.SLOTS, one_range(said), BY_IP).data == one_range(f"*4 $12 {IP} :7002 $40 {B1} %1 $2 ip $12 {IP} ")
    flat = f"*4 $10 10.0.1.231 :6379 $40 {B1} *2 $8 hostname $39 {NAMES[B1]} "
    assert told(Reply.SLOTS, one_range(flat), BY_IP).data == one_range(f"*4 $12 {IP} :7002 $40 {B1} *0 ")


def test_ipv6_in_slots() -> None:
    now = View(Book({("fd00:1::231", 6379): 7002}, "2001:db8::73"), "::1", "fd00:1::230", 6379, speaks_tls=False)
    data = one_range(f"*4 $11 fd00:1::231 :6379 $40 {B1} *0 ")
    assert told(Reply.SLOTS, data, now).data == one_range(f"*4 $12 2001:db8::73 :7002 $40 {B1} *0 ")


def test_serverless_caches_have_one_name_and_two_ports() -> None:
    now = View(
        Book({(SERVERLESS, 6379): 7001, (SERVERLESS, 6380): 7002}, HOST, IP), "", "10.0.2.7", 6379, speaks_tls=True
    )
    length = len(SERVERLESS)
    said = wire(f"*1 *4 :0 :16383 *3 ${length} {SERVERLESS} :6379 $2 id *3 ${length} {SERVERLESS} :6380 $2 id ")
    rewritten = told(Reply.SLOTS, said, now)
    assert rewritten.data == wire(f"*1 *4 :0 :16383 *3 $17 {HOST} :7001 $2 id *3 $17 {HOST} :7002 $2 id ")
    assert rewritten.roles == ((SERVERLESS, 6379, Role.PRIMARY), (SERVERLESS, 6380, Role.REPLICA))


def test_two_ids_may_share_an_address() -> None:
    data = wire(f"*2 *3 :0 :99 *3 $10 10.0.1.231 :6379 $40 {B1} *3 :100 :16383 *3 $10 10.0.1.231 :6379 $40 {A1} ")
    assert told(Reply.SLOTS, data, view()).data == wire(
        f"*2 *3 :0 :99 *3 $17 {HOST} :7002 $40 {B1} *3 :100 :16383 *3 $17 {HOST} :7002 $40 {A1} "
    )


def test_a_replica_moves_up_where_the_primary_has_no_port() -> None:
    by_name = CAPTURED_SLOTS[2].data
    rewritten = told(Reply.SLOTS, by_name, view(book_without(A1)))
    assert rewritten.is_missing
    slots = parse_cluster_slots(read_by_redis_py(rewritten.data))
    assert slots[0, 5460] == {"primary": (HOST, PORTS[A2]), "replicas": []}
    assert (NAMES[A1], 6379, Role.PRIMARY) in rewritten.roles
    assert (NAMES[A2], 6379, Role.REPLICA) in rewritten.roles


def test_a_range_without_any_node_is_left_out() -> None:
    by_name = CAPTURED_SLOTS[2].data
    rewritten = told(Reply.SLOTS, by_name, view(book_without(A1, A2)))
    assert list(parse_cluster_slots(read_by_redis_py(rewritten.data))) == [(5461, 10922), (10923, 16383)]
    assert told(Reply.SLOTS, by_name, view(Book())).data == b"*0\r\n"


def test_a_primary_whose_address_no_node_knows_is_left_out_and_not_missed() -> None:
    data = wire(f"*2 *3 :0 :99 *4 $0  :0 $40 {B1} *0 *3 :100 :16383 *3 $10 10.0.1.230 :6379 $40 {A1} ")
    rewritten = told(Reply.SLOTS, data, view())
    assert rewritten.data == wire(f"*1 *3 :100 :16383 *3 $17 {HOST} :7001 $40 {A1} ")
    assert not rewritten.is_missing


def test_lists_of_nodes_that_begin_alike_are_told_apart() -> None:
    def ranges(primary: str, first: str, second: str) -> bytes:
        return wire(
            f"*3 *4 :0 :9 *3 {primary} $1 A *3 {first} $2 A2 *4 :10 :19 *3 {primary} $1 A *3 {second} $2 B2 "
            f"*4 :20 :29 *3 {primary} $1 A *3 {first} $2 A2 "
        )

    length = len(NAMES[A1])
    said = ranges(f"${length} {NAMES[A1]} :6379", f"$10 {IPS[A2]} :6379", f"$10 {IPS[B1]} :6379")
    meant = ranges(f"$17 {HOST} :7001", f"$17 {HOST} :7005", f"$17 {HOST} :7002")
    assert told(Reply.SLOTS, said, view()).data == meant


def test_nothing_is_told_of_a_node_of_more_bytes_than_a_node_has() -> None:
    for length, is_told in ((3900, True), (4096, False)):
        data = one_range(f"*4 $10 10.0.1.231 :6379 $40 {B1} *2 $4 note ${length} {'x' * length} ")
        assert (rewrite(Reply.SLOTS, data, view()) is not None) == is_told


@pytest.mark.parametrize(
    ("said", "meant", "speaks_tls"),
    [
        ("$4 port :6379", "$4 port :7002", False),
        ("$4 port :6379", "$8 tls-port :7002", True),
        ("$8 tls-port :6379", "$4 port :7002", False),
        ("$8 tls-port :6379", "$8 tls-port :7002", True),
        ("$4 port :6379 $8 tls-port :6380", "$4 port :7002", False),
        ("$4 port :6380 $8 tls-port :6379", "$8 tls-port :7002", True),
    ],
)
@pytest.mark.parametrize("is_map", [False, True])
def test_the_port_of_a_shard_s_node_fits_the_client(said: str, meant: str, is_map: bool, speaks_tls: bool) -> None:
    def shards(port: str, endpoint: str, ip: str) -> bytes:
        fields = f"$2 id $40 {B1} {port} $2 ip {ip} $8 endpoint {endpoint} $4 role $6 master $6 health $6 online "
        count = 5 + port.count(":")
        node = f"%{count} {fields}" if is_map else f"*{2 * count} {fields}"
        shard = "%2" if is_map else "*4"
        return wire(f"*1 {shard} $5 slots *4 :0 :99 :200 :299 $5 nodes *1 {node}")

    rewritten = told(Reply.SHARDS, shards(said, "$10 10.0.1.231", "$10 10.0.1.231"), view(speaks_tls=speaks_tls))
    assert rewritten.data == shards(meant, f"$17 {HOST}", f"$12 {IP}")
    assert rewritten.roles == (("10.0.1.231", 6379, Role.PRIMARY),)


@pytest.mark.parametrize(
    ("said", "public"),
    [
        (f"$2 ip $10 10.0.1.231 $8 endpoint $39 {NAMES[B1]} $8 hostname $39 {NAMES[B1]}", 7002),
        ("$2 ip $10 10.0.1.231 $8 endpoint $0  $8 hostname $1 x", 7002),
        ("$2 ip $10 10.0.1.231 $8 endpoint $1 ? $8 hostname $1 x", 7002),
        ("$2 ip $10 10.0.1.231 $8 endpoint _ $8 hostname $1 x", 7002),
        (f"$2 ip $10 10.9.9.231 $8 endpoint $1 ? $8 hostname $39 {NAMES[B1]}", 7002),
        ("$2 ip $0  $8 endpoint $0  $8 hostname $1 x", 7001),
        ("$2 ip $0  $8 endpoint $1 ? $8 hostname $0 ", 7001),
    ],
)
def test_the_names_of_a_shard_s_node(said: str, public: int) -> None:
    def shards(port: int, names: str) -> bytes:
        return wire(f"*1 *4 $5 nodes *1 %4 $4 port :{port} {names} $5 slots *0 ")

    meant = shards(public, f"$2 ip $12 {IP} $8 endpoint $17 {HOST} $8 hostname $17 {HOST}")
    assert told(Reply.SHARDS, shards(6379, said), view()).data == meant
    without = meant.replace(f"$17\r\n{HOST}".encode(), f"$12\r\n{IP}".encode())
    without = without.replace(wire(f"$8 hostname $12 {IP} "), b"").replace(b"%4", b"%3")
    assert told(Reply.SHARDS, shards(6379, said), BY_IP).data == without


def test_a_shard_without_any_node_is_left_out_and_other_keys_stay() -> None:
    def shard(node: str) -> str:
        return f"%3 $2 id $3 abc $5 slots *2 :0 :9 $5 nodes {node}"

    node = "%2 $4 port :6379 $8 endpoint $10 10.0.1.23"
    data = wire(f"*3 {shard('*0 ')}{shard(f'*1 {node}9 ')}{shard(f'*2 {node}9 {node}1 ')}")
    rewritten = told(Reply.SHARDS, data, view())
    assert rewritten.data == wire(f"*1 {shard(f'*1 %2 $4 port :7002 $8 endpoint $17 {HOST} ')}")
    assert rewritten.is_missing


def test_a_failed_node_tells_no_role_and_one_without_an_address_is_not_missed() -> None:
    rewritten = told(Reply.SHARDS, CAPTURED_SHARDS[0].data, view())
    assert not rewritten.is_missing
    assert {role[0] for role in rewritten.roles} == set(NAMES.values()) - {NAMES[B1]}
    shards = parse_cluster_shards(read_by_redis_py(rewritten.data))
    assert [[node[b"port"] for node in shard[b"nodes"]] for shard in shards] == [[7006], [7003, 7004], [7001, 7005]]


def test_slots_are_no_shards() -> None:
    assert rewrite(Reply.SLOTS, CAPTURED_SHARDS[0].data, view()) is None
    assert rewrite(Reply.SHARDS, CAPTURED_SLOTS[0].data, view()) is None
