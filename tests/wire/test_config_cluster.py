from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.wire.book import Book
from natproxy.wire.config_cluster import Told, tell
from tests.wire.memcached_feeding import BOOK, PORTS, view_of

A = b"a.x.0001.use1.cache.amazonaws.com|10.0.1.230|11211"
B = b"b.x.0002.use1.cache.amazonaws.com|10.0.1.231|11211"
PUBLIC = b"cache.example|203.0.113.73|"


@pytest.mark.parametrize(
    ("body", "told", "left_out"),
    [
        (b"12\n" + A + b" " + B + b"\n", b"17\n" + PUBLIC + b"7001 " + PUBLIC + b"7002\n", 0),
        (b"12\n" + B + b" " + A + b"\n", b"17\n" + PUBLIC + b"7002 " + PUBLIC + b"7001\n", 0),
        (b"12\n" + A + b"\n", b"17\n" + PUBLIC + b"7001\n", 0),
        # By name alone, by address alone, by the address where the name is not known, and the other way round.
        (b"12\na.x.0001.use1.cache.amazonaws.com||11211\n", b"17\n" + PUBLIC + b"7001\n", 0),
        (b"12\nA.X.0001.USE1.cache.amazonaws.com.||11211\n", b"17\n" + PUBLIC + b"7001\n", 0),
        (b"12\n|10.0.1.232|11212\n", b"17\n" + PUBLIC + b"7003\n", 0),
        (b"12\n10.0.1.232||11212\n", b"17\n" + PUBLIC + b"7003\n", 0),
        (b"12\nnew.example|10.0.1.232|11212\n", b"17\n" + PUBLIC + b"7003\n", 0),
        (b"12\nb.x.0002.use1.cache.amazonaws.com|10.9.9.9|11211\n", b"17\n" + PUBLIC + b"7002\n", 0),
        (b"12\n|fd00:0::1|11211\n", b"17\n" + PUBLIC + b"7004\n", 0),
        # The port counts too.
        (b"12\n" + A + b" |10.0.1.232|11211\n", b"17\n" + PUBLIC + b"7001\n", 1),
        # Nodes without a port are left out; an empty name is not the node that is asked.
        (b"12\nx.example|10.9.9.9|11211 " + A + b" y.example||11211\n", b"17\n" + PUBLIC + b"7001\n", 2),
        (b"12\n" + A + b" ||11211 ?|?|11211\n", b"17\n" + PUBLIC + b"7001\n", 2),
        # None is left.
        (b"12\nx.example|10.9.9.9|11211\n", b"0\n\n", 1),
        (b"12\n||11211\n", b"0\n\n", 1),
        (b"12\n\n", b"0\n\n", 0),
        # Line ends and spaces as they may come.
        (b"12\r\n" + A + b"\r\n", b"17\r\n" + PUBLIC + b"7001\r\n", 0),
        (b"12\n" + A + b"  " + B + b" \n\r\n", b"17\n" + PUBLIC + b"7001 " + PUBLIC + b"7002\n\r\n", 0),
        (b"12\n" + A, b"17\n" + PUBLIC + b"7001", 0),
        (b"9223372036854775807\n" + A + b"\n", b"9223372036854775812\n" + PUBLIC + b"7001\n", 0),
    ],
)
def test_nodes_are_told_by_their_public_ports(body: bytes, told: bytes, left_out: int) -> None:
    assert tell(body, view_of()) == Told(told, left_out)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"12",
        b"\n" + A + b"\n",
        b"x\n" + A + b"\n",
        b"-1\n" + A + b"\n",
        b"12 13\n" + A + b"\n",
        b"12\nwords\n",
        b"12\na|b\n",
        b"12\na|b|c\n",
        b"12\na|10.0.1.230|11211|more\n",
        b"12\na|10.0.1.230|112110\n",
        b"12\n" + A + b"," + B + b"\n",
        b"12\n" + A + b"\n" + B + b"\n",
        b"12\n" + A + b"\nmore",
        b"12\n" + A + b"\0\n",
    ],
)
def test_what_is_no_node_list_is_left_alone(body: bytes) -> None:
    assert tell(body, view_of()) is None


def test_without_a_public_host_it_is_the_address_that_the_client_reached() -> None:
    view = view_of(Book(ports=PORTS, version=1), local_ip="fd00::9")
    assert tell(b"12\n" + A + b"\n", view) == Told(b"13\nfd00::9|fd00::9|7001\n", 0)


def test_where_no_public_address_is_known_the_name_stands_in_its_place() -> None:
    """pymemcache's client dials that field, and cannot dial nothing."""
    view = view_of(Book(ports=PORTS, public_host="cache.example", version=1))
    assert tell(b"12\n" + A + b"\n", view) == Told(b"13\ncache.example|cache.example|7001\n", 0)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 1000), st.booleans())
def test_the_version_grows_whenever_either_grows(version: int, book_version: int, more: int, is_node: bool) -> None:
    def told(version: int, book_version: int) -> int:
        book = Book(ports=PORTS, public_host="cache.example", version=book_version)
        answer = tell(b"%d\n" % version + A + b"\n", view_of(book))
        assert answer is not None
        return int(answer.body.partition(b"\n")[0])

    before = told(version, book_version)
    assert told(version + more, book_version) > before if is_node else told(version, book_version + more) > before


words = st.text(st.characters(codec="ascii", exclude_characters="| \t\n\r\v\f\0\x1c\x1d\x1e\x1f\x85"), max_size=20)


@given(st.integers(0, 10**18), st.lists(st.tuples(words, words, st.integers(0, 99999)), max_size=10))
def test_any_list_comes_out_with_known_nodes_only(version: int, nodes: list[tuple[str, str, int]]) -> None:
    listed = [*nodes, ("a.x.0001.use1.cache.amazonaws.com", "10.0.1.230", 11211)]
    body = f"{version}\n{' '.join(f'{host}|{ip}|{port}' for host, ip, port in listed)}\n".encode()
    told = tell(body, view_of())
    assert told is not None
    assert told.body == b"%d\n" % (version + BOOK.version) + PUBLIC + b"7001\n"
    assert told.left_out == len(nodes)
