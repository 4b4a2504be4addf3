from __future__ import annotations

import shlex

import pytest

from natproxy.pages.portal import connect_line, portal_page
from tests.pages.samples import read, routes_document


def test_it_lists_what_the_certificate_may_use() -> None:
    page = portal_page(routes_document(), certificate="dev1", expires="2027-01-01T00:00:00Z", portal_port=6378)
    tree = read(page)
    assert tree.one(id="facts").text == "Certificate dev1, valid until 2027-01-01"
    assert tree.one("code", id="connect-line").raw == "natproxy connect cache.dev.example.com --bundle dev1.zip\n"
    orders = tree.one("section", data_cache="orders")
    assert orders.one("a", class_="cache-link").attributes["href"] == "/caches/orders"
    assert [row.attributes["data-route"] for row in orders.one("tbody").find("tr")] == ["6379", "6383"]
    for secret in ("amazonaws", "10.0.1.20", "not resolved yet"):
        assert secret not in page


def test_one_that_may_use_nothing_is_told_whom_to_ask() -> None:
    tree = read(portal_page(routes_document(caches=()), certificate="dev1", expires=None, portal_port=6378))
    assert "clients.certificates" in tree.one(id="caches").text
    assert tree.one(id="facts").text == "Certificate dev1"


@pytest.mark.parametrize(
    ("host", "certificate", "port", "words"),
    [
        ("h.example.com", "dev1", 6378, ["h.example.com", "--bundle", "dev1.zip"]),
        ("203.0.113.73", "dev1", 7000, ["203.0.113.73:7000", "--bundle", "dev1.zip"]),
        ("2001:db8::1", "dev1", 7000, ["[2001:db8::1]:7000", "--bundle", "dev1.zip"]),
        ("2001:db8::1", "dev1", 6378, ["2001:db8::1", "--bundle", "dev1.zip"]),
        (None, "/etc/x; rm -rf /", 6378, ["NATPROXY-HOST", "--bundle", "bundle.zip"]),
        ("h; reboot", "-rf", 6378, ["h; reboot", "--bundle", "bundle.zip"]),
    ],
)
def test_the_line_is_safe_in_a_shell(host: str | None, certificate: str, port: int, words: list[str]) -> None:
    line = connect_line(host, certificate, port)
    assert line.endswith("\n")
    assert shlex.split(line, posix=True) == ["natproxy", "connect", *words]
