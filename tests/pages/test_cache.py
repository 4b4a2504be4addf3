from __future__ import annotations

from natproxy.documents import SnippetsDocument
from natproxy.pages.cache import cache_page
from tests.pages.samples import LINES, cache_view, read

OPERATOR_FACTS = ("State", "Node speaks", "Rewrite", "Target")


def test_the_operator_sees_all_of_a_route() -> None:
    tree = read(
        cache_page(cache_view(), LINES, is_portal=False, public_host="cache.dev.example.com", local_lines=LINES)
    )
    assert tree.one("h1").text == "orders"
    assert tree.one(id="facts").text == "valkey · cluster-enabled · TLS required"
    row = tree.one("tr", data_route="6379")
    assert [row.one("td", data_label=label).text for label in ("Clients speak", "Node speaks", "Rewrite")] == [
        *("TLS + certificate", "TLS"),
        "redis",
    ]
    assert row.one("td", data_label="Target").text == "orders-0001-001.abc123.cache.amazonaws.com:6379"
    other = tree.one("tr", data_route="6383")
    assert other.one("td", data_label="State").text == "▲ unreachable not resolved yet"
    assert other.one("td", data_label="Clients speak").text == "TLS with the node"
    assert tree.one("footer").text == "The same lines: natproxy snippets orders"


def test_the_developer_sees_no_target_state_or_reason() -> None:
    page = cache_page(cache_view(reason="10.0.0.1 is down"), LINES, is_portal=True, local_lines=LINES)
    tree = read(page)
    labels = {one.attributes["data-label"] for one in tree.all() if "data-label" in one.attributes}
    assert labels == {"Port", "Leads to", "Role", "Zone", "Clients speak"}
    assert not labels & {*OPERATOR_FACTS}
    for secret in ("amazonaws.com", "10.0.1.20", "10.0.0.1", "not resolved yet", "unreachable"):
        assert secret not in tree.raw
    assert "10.0." not in page


def test_lines_can_be_opened_and_copied_one_by_one() -> None:
    tree = read(cache_page(cache_view(), LINES, is_portal=True, local_lines=SnippetsDocument(cache="orders")))
    shell, go = tree.one(id="snippets").find("details")
    assert ("open" in shell.attributes, "open" in go.attributes) == (True, False)
    assert (shell.attributes["data-client"], shell.one("summary").text) == ("redis-cli", "redis-cli shell")
    assert go.one(class_="note").text == "Needs go-redis 9 or newer."
    for place, button in enumerate(tree.find("button")):
        assert "hidden" in button.attributes, "the script shows it: without, it would do nothing"
        assert tree.one("code", id=button.attributes["data-copy"]).raw == LINES.snippets[place].text
        assert button.text == f"Copy the lines for {LINES.snippets[place].title}"
    assert tree.one(id="copied").attributes["role"] == "status"
    assert tree.one(class_="remarks").text == "The files are those of your bundle."


def test_lines_through_connect_come_first_where_there_are_any() -> None:
    tree = read(cache_page(cache_view(), LINES, is_portal=True, local_lines=LINES))
    assert [one.text for one in tree.find("h2")] == ["Ports", "Through natproxy connect", "Straight to natproxy"]
    copied = [button.attributes["data-copy"] for button in tree.find("button")]
    assert copied == ["local-1", "local-2", "snippet-1", "snippet-2"]


def test_a_cache_without_ports_says_so() -> None:
    none = SnippetsDocument(cache="orders", remarks=("It has no port yet.",))
    tree = read(cache_page(cache_view(routes=(), reason="waiting for AWS"), none, is_portal=False, local_lines=none))
    assert tree.one(class_="empty").text == "This cache has no port yet."
    assert tree.one("p", class_="reason card").text == "waiting for AWS"
    assert "It has no port yet." in tree.one(id="snippets").text
