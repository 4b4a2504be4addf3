from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.wire.book import Book
from natproxy.wire.rewriter import Reply
from natproxy.wire.topology import Rewritten, rewrite
from tests.wire.samples import (
    A1,
    B1,
    BOOK,
    C1,
    CAPTURED_PRIMARY_INFO,
    CAPTURED_REPLICA_INFO,
    CAPTURED_ROLES,
    HOST,
    IP,
    NAMES,
    book_without,
    bulk,
    parse_info,
    read_by_redis_py,
    verbatim,
    view,
    wire,
)

PRIMARY, REPLICA = (sample.data for sample in CAPTURED_ROLES)
LETTUCE = re.compile(r"^slave(\d+):([a-zA-Z,=\d.:]+)$", re.MULTILINE)
"""How Lettuce finds replicas in INFO (ReplicaTopologyProvider)."""


def told(reply: Reply, data: bytes, book: Book = BOOK) -> Rewritten:
    rewritten = rewrite(reply, data, view(book))
    assert rewritten is not None
    assert rewritten.roles == ()
    return rewritten


def test_a_primary_names_its_replicas() -> None:
    rewritten = told(Reply.ROLE, PRIMARY)
    assert rewritten.data == wire(f"*3 $6 master :14 *2 *3 $17 {HOST} $4 7003 $2 14 *3 $17 {HOST} $4 7002 $2 14 ")
    assert not rewritten.is_missing


def test_replicas_without_a_port_are_left_out() -> None:
    rewritten = told(Reply.ROLE, PRIMARY, book_without(C1))
    assert rewritten.data == wire(f"*3 $6 master :14 *1 *3 $17 {HOST} $4 7002 $2 14 ")
    assert rewritten.is_missing
    assert told(Reply.ROLE, PRIMARY, Book()).data == wire("*3 $6 master :14 *0 ")


def test_a_replica_names_its_primary() -> None:
    rewritten = told(Reply.ROLE, REPLICA)
    assert rewritten.data == wire(f"*5 $5 slave $17 {HOST} :7001 $9 connected :14 ")
    by_name = wire(f"*5 $5 slave $39 {NAMES[B1]} :6379 $7 connect :-1 ")
    assert told(Reply.ROLE, by_name).data == wire(f"*5 $5 slave $17 {HOST} :7002 $7 connect :-1 ")


def test_a_primary_without_a_port_stays_and_is_missed() -> None:
    rewritten = told(Reply.ROLE, REPLICA, book_without(A1))
    assert (rewritten.data, rewritten.is_missing) == (REPLICA, True)


def test_info_of_a_primary() -> None:
    expected = CAPTURED_PRIMARY_INFO.replace("ip=10.0.1.232,port=6379", f"ip={HOST},port=7003")
    expected = expected.replace("ip=10.0.1.231,port=6379", f"ip={HOST},port=7002")
    assert told(Reply.INFO, bulk(CAPTURED_PRIMARY_INFO)).data == bulk(expected)
    assert told(Reply.INFO, verbatim(CAPTURED_PRIMARY_INFO)).data == verbatim(expected)


def test_info_of_a_replica() -> None:
    expected = CAPTURED_REPLICA_INFO.replace("host:10.0.1.230", f"host:{HOST}").replace("port:6379", "port:7001")
    rewritten = told(Reply.INFO, verbatim(CAPTURED_REPLICA_INFO))
    assert (rewritten.data, rewritten.is_missing) == (verbatim(expected), False)


def test_info_of_a_replica_in_the_middle_of_a_chain() -> None:
    data = CAPTURED_REPLICA_INFO.replace(
        "connected_slaves:0", "connected_slaves:1\r\nslave0:ip=10.0.1.232,port=6379,state=online,offset=14,lag=1"
    )
    info = parse_info(read_by_redis_py(told(Reply.INFO, bulk(data)).data))
    assert (info["master_host"], info["master_port"]) == (HOST, 7001)
    assert info["slave0"]["port"] == 7003


def test_replicas_in_info_are_counted_anew_where_one_is_left_out() -> None:
    rewritten = told(Reply.INFO, bulk(CAPTURED_PRIMARY_INFO), book_without(C1))
    assert rewritten.is_missing
    info = parse_info(read_by_redis_py(rewritten.data))
    assert info["connected_slaves"] == 1
    assert info["slave0"] == {"ip": HOST, "port": 7002, "state": "online", "offset": 14, "lag": 0}
    assert "slave1" not in info


def test_a_replica_that_the_node_itself_does_not_list_is_still_counted() -> None:
    data = CAPTURED_PRIMARY_INFO.replace("connected_slaves:2", "connected_slaves:3")
    info = parse_info(read_by_redis_py(told(Reply.INFO, bulk(data), book_without(C1)).data))
    assert info["connected_slaves"] == 2


def test_no_less_than_none_is_counted() -> None:
    data = CAPTURED_PRIMARY_INFO.replace("connected_slaves:2", "connected_slaves:1")
    assert b"\r\nconnected_slaves:0\r\n" in told(Reply.INFO, bulk(data), Book()).data


def test_a_primary_without_a_port_stays_in_info_and_is_missed() -> None:
    data = bulk(CAPTURED_REPLICA_INFO)
    rewritten = told(Reply.INFO, data, book_without(A1))
    assert (rewritten.data, rewritten.is_missing) == (data, True)


@pytest.mark.parametrize(
    ("host", "ip", "shown"),
    [
        ("cache.example.com", "203.0.113.73", "cache.example.com"),
        ("cache-dev.example.com", "203.0.113.73", "203.0.113.73"),
        ("cache-dev.example.com", "", "cache-dev.example.com"),
        ("2001:db8::73", "2001:db8::73", "2001:db8::73"),
    ],
)
def test_lettuce_can_read_the_address_of_a_replica_if_there_is_one_it_can(host: str, ip: str, shown: str) -> None:
    rewritten = told(Reply.INFO, bulk(CAPTURED_PRIMARY_INFO), Book(BOOK.ports, host, ip))
    text = rewritten.data.decode().replace("\r\n", "\n")
    assert f"\nslave0:ip={shown},port=7003,state=online" in text
    assert len(LETTUCE.findall(text)) == (0 if "-" in shown else 2)


LINES = {
    "# Replication": "# Replication",
    "": "",
    "role:master": "role:master",
    "slave_priority:100": "slave_priority:100",
    "slave2:state=online": "slave2:state=online",
    " slave0:ip=10.0.1.231,port=6379": " slave0:ip=10.0.1.231,port=6379",
    "slave0:ip=10.0.1.231": "slave0:ip=10.0.1.231",
    "slave0:ip=10.0.1.231,port=6379": f":ip={HOST},port=7002",
    "slave7:ip=10.0.1.232,port=6379,state=online,x=y": f":ip={HOST},port=7003,state=online,x=y",
    "slave1:ip=10.0.1.232,port=6380,state=online": None,
    "slave9:ip=10.0.1.99,port=6379,state=online": None,
    "connected_slaves:7": "connected_slaves:7",
}
"""Lines of INFO, and how they are told; one that begins with a colon is a replica's, and numbered."""


@given(st.lists(st.sampled_from(list(LINES)), max_size=12))
def test_of_info_only_lines_of_replicas_change(lines: list[str]) -> None:
    rewritten = rewrite(Reply.INFO, bulk("\r\n".join(lines)), view())
    kept = [shown for line in lines if (shown := LINES[line]) is not None]
    left_out = len(lines) - len(kept)
    numbers = iter(range(len(lines)))
    numbered = [f"slave{next(numbers)}{line}" if line.startswith(":") else line for line in kept]
    expected = "\r\n".join(numbered).replace("connected_slaves:7", f"connected_slaves:{max(0, 7 - left_out)}")
    if rewritten is None:
        assert "\r\n".join(lines) == expected
    else:
        assert (rewritten.data, rewritten.is_missing) == (bulk(expected), left_out > 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Server\r\nredis_version:7.0.15\r\ntcp_port:6379\r\n",
        "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n",
        "master_host:10.0.1.230\r\n",
        "master_port:6379\r\n",
        "master_host:10.0.1.230\r\nmaster_host:10.0.1.231\r\nmaster_port:6379\r\n",
    ],
)
def test_info_that_names_no_node_goes_on_untouched(text: str) -> None:
    assert rewrite(Reply.INFO, bulk(text), view()) is None


def test_public_addresses_may_be_the_same_as_private_ones() -> None:
    rewritten = told(Reply.ROLE, REPLICA, Book({("10.0.1.230", 6379): 6379}, "10.0.1.230", IP))
    assert (rewritten.data, rewritten.is_missing) == (REPLICA, False)
