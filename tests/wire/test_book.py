from __future__ import annotations

import pytest

from natproxy.wire.book import Book, View, plain_host

BOOK = Book({("10.0.1.230", 6379): 7001, ("node.example", 6379): 7001, ("fd00:1::230", 6379): 7002})


def view(own_ip: str = "10.0.1.230", own_port: int = 6379, book: Book = BOOK) -> View:
    return View(book, "10.0.0.55", own_ip, own_port, speaks_tls=False)


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("10.0.1.230", "10.0.1.230"),
        ("Node.Example.", "node.example"),
        ("", ""),
        ("FD00:1:0::230", "fd00:1::230"),
        ("[fd00:1::230]", "fd00:1::230"),
        ("::ffff:10.0.1.230", "10.0.1.230"),
        ("no:address", "no:address"),
    ],
)
def test_all_spellings_of_a_host_are_one(host: str, plain: str) -> None:
    assert plain_host(host) == plain


@pytest.mark.parametrize(
    ("host", "port", "found"),
    [
        ("10.0.1.230", 6379, 7001),
        ("NODE.example", 6379, 7001),
        ("[FD00:1::230]", 6379, 7002),
        ("", 6379, 7001),
        ("?", 6379, 7001),
        ("10.0.1.230", 6380, None),
        ("", 6380, None),
        ("10.0.1.231", 6379, None),
    ],
)
def test_a_node_is_found_by_host_and_port(host: str, port: int, found: int | None) -> None:
    assert view().find(host, port) == found


def test_the_node_itself_is_found_by_what_was_dialled() -> None:
    assert view().own == 7001
    assert view("::ffff:10.0.1.230").own == 7001
    assert view("fd00:1::230").own == 7002
    assert view(own_port=6380).own is None


@pytest.mark.parametrize(
    ("host", "ip", "told_host", "told_ip"),
    [
        ("", "", "10.0.0.55", "10.0.0.55"),
        ("cache.example", "", "cache.example", ""),
        ("cache.example", "203.0.113.73", "cache.example", "203.0.113.73"),
        ("203.0.113.73", "203.0.113.73", "203.0.113.73", "203.0.113.73"),
    ],
)
def test_clients_are_told_what_is_public_or_what_they_reached(host: str, ip: str, told_host: str, told_ip: str) -> None:
    now = view(book=Book(public_host=host, public_ip=ip))
    assert (now.host, now.ip) == (told_host, told_ip)
