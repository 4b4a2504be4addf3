from __future__ import annotations

from natproxy.model import Role
from natproxy.wire.book import Book, View
from natproxy.wire.translation import Translation
from tests.wire.samples import A1, B1, BOOK, HOST, IP, IPS, NAMES, book_without, view

NODE = IPS[B1].encode(), b"", NAMES[B1].encode()


def test_a_node_is_found_by_any_of_its_names_and_ports() -> None:
    translation = Translation(view())
    for hosts in (NODE, NODE[::-1], (b"?", b"stranger", *NODE)):
        assert translation.port_for(hosts, (6379,)) == 7002
    assert translation.port_for(NODE, (1, 6379)) == 7002
    assert not translation.is_missing


def test_a_node_without_a_port_is_missed() -> None:
    translation = Translation(view(book_without(B1)))
    assert translation.port_for(NODE, (6379,)) is None
    assert translation.is_missing


def test_what_names_no_address_is_not_missed() -> None:
    translation = Translation(view())
    for hosts, ports in (((b"", b"?"), (6379,)), (NODE, ()), (NODE, (0,)), (NODE, (65536,))):
        assert translation.port_for(hosts, ports, role=Role.PRIMARY) is None
    assert not translation.is_missing
    assert translation.roles == ()


def test_the_node_that_is_asked_is_found_by_what_was_dialled() -> None:
    translation = Translation(view())
    assert translation.port_for((b"",), (6379,), is_own=True) == 7001
    assert translation.port_for((b"",), (1234,), is_own=True) == 7001
    assert translation.port_for((b"stranger",), (0,), is_own=True, role=Role.PRIMARY) == 7001
    assert translation.roles == ((IPS[A1], 6379, Role.PRIMARY),)
    assert not translation.is_missing
    assert Translation(view(book_without(A1))).port_for((b"",), (6379,), is_own=True) is None


def test_roles_are_told_once_by_the_name_that_the_book_knows() -> None:
    translation = Translation(view())
    for _ in range(2):
        translation.port_for((b"stranger", NAMES[B1].upper().encode()), (6379,), role=Role.REPLICA)
        translation.port_for((b"", b"Other"), (6379,), role=Role.PRIMARY)
        translation.port_for(NODE, (6379,))
    assert translation.roles == ((NAMES[B1], 6379, Role.REPLICA), ("other", 6379, Role.PRIMARY))


def test_a_name_is_told_only_where_there_is_one() -> None:
    by_name, by_ip = (Translation(view(Book(BOOK.ports, host, ip))) for host, ip in ((HOST, ""), (IP, IP)))
    assert (by_name.host, by_name.ip, by_name.hostname) == (HOST.encode(), HOST.encode(), HOST.encode())
    assert (by_ip.host, by_ip.ip, by_ip.hostname) == (IP.encode(), IP.encode(), b"")
    by_ipv6 = Translation(View(Book(public_host="2001:db8::73"), "::1", "10.0.1.230", 6379, speaks_tls=True))
    assert (by_ipv6.ip, by_ipv6.hostname, by_ipv6.speaks_tls) == (b"2001:db8::73", b"", True)
