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
    B2,
    BOOK,
    C1,
    C2,
    CAPTURED_ALONE,
    CAPTURED_NOADDR,
    CAPTURED_PLAIN_ROWS,
    CAPTURED_REPLICA,
    CAPTURED_ROWS,
    HOST,
    IP,
    IPS,
    NAMES,
    book_without,
    bulk,
    parse_cluster_nodes,
    read_by_redis_py,
    verbatim,
    view,
)

BY_IP = view(Book(BOOK.ports, IP, IP))
"""The public host is no name."""
SERVERLESS = "my-cache-x.serverless.use1.cache.amazonaws.com"


def told(data: bytes, now: View, reply: Reply = Reply.NODES) -> Rewritten:
    rewritten = rewrite(reply, data, now)
    assert rewritten is not None
    return rewritten


def row(address: str, flags: str = "master", rest: str = "- 0 17 3 connected 0-5460", node: str = B1) -> str:
    return f"{node} {address} {flags} {rest}\n"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("10.0.1.231:6379", f"{HOST}:7002"),  # before 4.0
        ("10.0.1.231:6379@16379", f"{HOST}:7002@16379"),
        (f"10.0.1.231:6379@16379,{NAMES[B1]}", f"{HOST}:7002@16379,{HOST}"),  # 7.0
        ("10.0.1.231:6379@16379,", f"{HOST}:7002@16379,"),
        ("10.0.1.231:6379@16379,,shard-id=69b3", f"{HOST}:7002@16379,,shard-id=69b3"),  # 7.2
        (
            f"10.0.1.231:6379@16379,{NAMES[B1]},shard-id=69b3,x=1",
            f"{HOST}:7002@16379,{HOST},shard-id=69b3,x=1",
        ),
        ("10.0.1.231:6379@16379,shard-id=69b3", f"{HOST}:7002@16379,shard-id=69b3"),
        (f"{NAMES[B1]}:6379@1122", f"{HOST}:7002@1122"),  # ElastiCache with TLS
        (f"{NAMES[B1]}:6379@1122,{NAMES[B1]}", f"{HOST}:7002@1122,{HOST}"),
        (f"10.9.9.231:6379@1122,{NAMES[B1]}", f"{HOST}:7002@1122,{HOST}"),
        (f"10.0.1.231:6379@1122,{NAMES[C1]}x", f"{HOST}:7002@1122,{HOST}"),
        (":0@0", ":0@0"),
        (f":0@0,{NAMES[B1]}", ":0@0"),
        (f":0@0,{NAMES[B1]},shard-id=69b3", ":0@0,,shard-id=69b3"),
    ],
)
def test_the_address_in_a_row(said: str, meant: str) -> None:
    flags = "master,fail,noaddr" if said.startswith(":0") else "master"
    data, expected = row(said, flags), row(meant, flags)
    rewritten = told(bulk(data), view())
    assert rewritten.data == bulk(expected)
    assert not rewritten.is_missing
    assert told(verbatim(data), view()).data == verbatim(expected)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (f"10.0.1.231:6379@16379,{NAMES[B1]}", f"{IP}:7002@16379"),
        (f"10.0.1.231:6379@16379,{NAMES[B1]},shard-id=69b3", f"{IP}:7002@16379,,shard-id=69b3"),
    ],
)
def test_where_the_public_host_is_an_address_no_host_name_is_told(said: str, meant: str) -> None:
    assert told(bulk(row(said)), BY_IP).data == bulk(row(meant))


@pytest.mark.parametrize(
    "slots",
    [
        "",
        " 0-5460",
        " 0 2 4-5460",
        f" 0-92 94-5460 [93-<-{A1}]",
        f" 0-5460 [77->-{C1}] [78->-{C1}]",
    ],
)
def test_all_else_in_a_row_stays(slots: str) -> None:
    rest = f"- 1795285790045 1795285789040 7 disconnected{slots}"
    data = row("10.0.1.231:6379@16379", "master,fail?,nofailover", rest)
    assert told(bulk(data), view()).data == bulk(data.replace("10.0.1.231:6379", f"{HOST}:7002"))


@pytest.mark.parametrize("address", [":6379@16379", "10.9.9.9:6379@16379", "alias:1234@1122,alias", ":0@0", ":6379"])
def test_the_own_row_is_known_by_what_was_dialled(address: str) -> None:
    rewritten = told(bulk(row(address, "myself,master")), view())
    shown = f"{HOST}:7001{'@' * ('@' in address)}{address.partition('@')[2]}".replace("alias", HOST)
    assert rewritten.data == bulk(row(shown, "myself,master"))
    assert not rewritten.is_missing


def test_the_own_row_stays_without_an_address_where_it_has_no_port() -> None:
    data = row(f"10.0.1.230:6379@16379,{NAMES[A1]}", "myself,master") + row("10.0.1.231:6379@16379")
    rewritten = told(bulk(data), view(book_without(A1)))
    assert rewritten.data == bulk(row(":0@0", "myself,master,noaddr") + row(f"{HOST}:7002@16379"))
    assert rewritten.is_missing
    assert told(bulk(row("10.0.1.230:6379", "myself,slave")), view(Book())).data == bulk(
        row(":0", "myself,slave,noaddr")
    )


def test_a_row_of_another_node_without_an_address_is_left_out_and_not_missed() -> None:
    rewritten = told(bulk(row(":6379@16379") + row("10.0.1.231:6379@16379")), view())
    assert rewritten.data == bulk(row(f"{HOST}:7002@16379"))
    assert not rewritten.is_missing


def test_rows_of_nodes_without_a_port_are_left_out() -> None:
    rewritten = told(bulk(CAPTURED_ROWS), view(book_without(C1)))
    assert rewritten.is_missing
    shown = parse_cluster_nodes(read_by_redis_py(rewritten.data))
    assert [node["node_id"] for node in shown.values()] == [B2, A2, C2, A1, B1]


def test_roles_are_told_but_those_of_failed_and_unknown_ones() -> None:
    roles = {host: role for host, _, role in told(bulk(CAPTURED_ROWS), view()).roles}
    assert roles == {
        IPS[A1]: Role.PRIMARY,
        IPS[A2]: Role.REPLICA,
        IPS[B2]: Role.PRIMARY,
        IPS[C1]: Role.PRIMARY,
        IPS[C2]: Role.REPLICA,
    }
    assert told(bulk(f"{CAPTURED_NOADDR}\n"), view()).roles == ()
    assert told(bulk(f"{CAPTURED_ALONE}\n"), view()).roles == ((IPS[A1], 6379, Role.PRIMARY),)


def test_ipv6_has_no_brackets() -> None:
    now = View(Book({("fd00:1::231", 6379): 7002}, "2001:db8::73"), "::1", "fd00:1::230", 6379, speaks_tls=False)
    for said in ("fd00:1::231:6379@16379", "[fd00:1::231]:6379@16379", "FD00:1:0::231:6379@16379"):
        assert told(bulk(row(said)), now).data == bulk(row("2001:db8::73:7002@16379"))


def test_serverless_caches_have_one_name_and_two_ports() -> None:
    now = View(
        Book({(SERVERLESS, 6379): 7001, (SERVERLESS, 6380): 7002}, HOST, IP), "", "10.0.2.7", 6380, speaks_tls=True
    )
    data = row(f"{SERVERLESS}:6379@1122", "master", node=A1) + row(f"{SERVERLESS}:6380@1122", "myself,slave")
    shown = row(f"{HOST}:7001@1122", "master", node=A1) + row(f"{HOST}:7002@1122", "myself,slave")
    assert told(bulk(data), now).data == bulk(shown)


def test_two_ids_may_share_an_address() -> None:
    data = row("10.0.1.231:6379@16379") + row("10.0.1.231:6379@16379", "master,fail", node=C1)
    assert told(bulk(data), view()).data == bulk(data.replace("10.0.1.231:6379", f"{HOST}:7002"))


def test_redis_py_reads_what_is_told_as_it_read_what_was_said() -> None:
    said = parse_cluster_nodes(read_by_redis_py(verbatim(CAPTURED_PLAIN_ROWS)))
    shown = parse_cluster_nodes(read_by_redis_py(told(verbatim(CAPTURED_PLAIN_ROWS), view()).data))
    assert {f"{HOST}:{BOOK.ports[address.split(':')[0], 6379]}": node for address, node in said.items()} == shown


@pytest.mark.parametrize("end", ["", "\n"])
def test_replicas_are_an_array_of_rows(end: str) -> None:
    def replicas(*rows: str) -> bytes:
        return b"*%d\r\n" % len(rows) + b"".join(bulk(one + end) for one in rows)

    said = replicas(CAPTURED_REPLICA, CAPTURED_REPLICA.replace("234", "99"), CAPTURED_REPLICA.replace("234", "235"))
    rewritten = told(said, view(), Reply.REPLICAS)
    assert rewritten.is_missing
    assert rewritten.roles[0] == (IPS[A2], 6379, Role.REPLICA)
    assert rewritten.data == replicas(
        CAPTURED_REPLICA.replace("10.0.1.234:6379", f"{HOST}:7005"),
        CAPTURED_REPLICA.replace("10.0.1.234:6379", f"{HOST}:7006"),
    )
    alone = told(replicas(CAPTURED_REPLICA), view(book_without(A2)), Reply.REPLICAS)
    assert (alone.data, alone.is_missing) == (b"*0\r\n", True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "# Server\r\nredis_version:7.0.15\r\n",
        f"{B1} 10.0.1.231:6379@16379 master - 0 1 2\n",
        f"{B1} 10.0.1.231 master - 0 1 2 connected\n",
        f"{B1} 10.0.1.231:x@16379 master - 0 1 2 connected\n",
        f"{B1} 10.0.1.231:6379@x master - 0 1 2 connected\n",
        CAPTURED_ROWS + "vars currentEpoch 7 lastVoteEpoch 0\n",
    ],
)
def test_what_is_no_row_goes_on_untouched(text: str) -> None:
    assert rewrite(Reply.NODES, bulk(text), view()) is None
    assert rewrite(Reply.REPLICAS, b"*1\r\n" + bulk(text), view()) is None
