from __future__ import annotations

import pytest

from natproxy.documents import DiscoveryView, StatusDocument
from natproxy.pages.status import headline, routes_of, status_page, tone
from tests.pages.samples import read, status

ALL_WELL = status(caches=status().caches[:1], troubles=(), notes=())


@pytest.mark.parametrize(
    ("document", "words", "colour"),
    [
        (ALL_WELL, "All is well", "good"),
        (status(), "3 routes not open", "warning"),
        (status(caches=status().caches[:1]), "Needs attention", "warning"),
        (status(caches=status().caches[2:], troubles=()), "Needs attention", "good"),
        (status(is_ready=False, readiness="waiting for the first answer of AWS"), "Not ready", "bad"),
    ],
)
def test_the_headline_says_how_it_stands(document: StatusDocument, words: str, colour: str) -> None:
    assert (headline(document), tone(document)) == (words, colour)
    tree = read(status_page(document))
    assert tree.one("h1").text == words
    assert tree.one("title").text == f"{words} - natproxy"
    said = tree.one(id="readiness").text
    assert said.endswith("ready" if document.is_ready else document.readiness)
    assert said[0] in "●▲✕", "never by its colour alone"


def test_every_route_stands_in_a_row_of_its_own() -> None:
    tree = read(status_page(status()))
    assert [route.port for route in routes_of(status())] == [6383, 6379, 6380, 6381, 6382, 6390, 6391, None]
    assert [row.attributes["data-route"] for row in tree.find("tr") if "data-route" in row.attributes] == [
        *("6383", "6379", "6380", "6381", "6382", "6390", "6391"),
        "",
    ]
    row = tree.one("tr", data_route="6379")
    assert (row.attributes["data-state"], row.attributes["data-role"]) == ("open", "primary")
    assert row.one("td", data_label="Open").text == "12"
    assert row.one("td", data_label="TLS, rewrite").text == "clients TLS + certificate node TLS rewrite redis"
    assert row.one("td", data_label="Dial p50 / p99").text == "0.42 ms / 12.3 ms"
    assert row.one("td", data_label="Turned away").text == "3"
    traffic = row.one("td", data_label="Traffic")
    assert traffic.text == "→ to the node 1.2 MB/s ← from the node 46 kB/s"
    assert traffic.one("svg").attributes["role"] == "img"
    assert traffic.one("svg").attributes["aria-label"].startswith("traffic of the last 2 min: at most")
    where = row.one("td", data_label="Leads to")
    assert where.one(class_="name").text == "orders-0001-001/0001"
    assert where.one(class_="zone").text == "eu-west-1a"
    assert "10.0.1.179:6379" in where.one("details").text


def test_states_have_a_mark_and_a_word_and_say_why() -> None:
    tree = read(status_page(status()))
    cells = {
        row.attributes["data-route"]: row.one("td", data_label="State").text
        for row in tree.find("tr")
        if "data-route" in row.attributes
    }
    assert cells["6379"] == "● open"
    assert cells["6390"] == "▲ unreachable connect-timeout: no answer within 3 s"
    assert cells["6391"] == "○ absent AWS gives no address"
    assert cells[""] == "✕ error no free port in 6390-6391"


def test_shards_are_groups_of_rows() -> None:
    tree = read(status_page(status()))
    orders = tree.one("section", data_cache="orders")
    assert [row.text for row in orders.find("tr", class_="shard")] == ["Shard 0001", "Shard 0002"]
    assert len(orders.one("tbody", data_shard="0002").find("tr")) == 3
    assert not tree.one("section", data_cache="sessions").find("tr", class_="shard")
    reports = tree.one("section", data_cache="reports")
    assert not reports.find("table")
    assert reports.one(class_="reason").text == "AWS knows no cache of this id"
    assert reports.one("a").attributes["href"] == "/caches/reports"


def test_events_and_certificates_are_told() -> None:
    tree = read(status_page(status()))
    log = tree.one(id="events")
    assert (log.attributes["role"], log.attributes["aria-live"]) == ("log", "polite")
    assert [one.one("time").text for one in log.find("li")] == [
        *("11:59:40", "11:58:00", "11:50:00"),
        "2026-01-30 23:10:00",
    ]
    assert log.one("li", data_event="3").attributes["data-kind"] == "failover"
    assert "primary now" in log.one("li", data_event="3").text
    assert log.one("li", data_event="2").one(class_="when").text == "11:50:00 reload · error"
    said = [one.text for one in tree.one(id="certificates").find("li")]
    assert said == [
        "Server certificate ✕ expired CN=cache.dev.example.com until 2026-02-02",
        "CA of clients ● valid CN=natproxy clients until 2026-02-02, 3,000 days left",
        "Revocation list ▲ expiring CN=natproxy clients until 2026-02-02, 3 days left",
    ]


@pytest.mark.parametrize(
    ("discovery", "words"),
    [
        (DiscoveryView(state="ok", age_seconds=7.2, interval_seconds=15.0), "7 s ago asked every 15 s"),
        (DiscoveryView(state="failing", age_seconds=130.0, interval_seconds=15.0), "2 min ago fails now"),
        (DiscoveryView(state="waiting", interval_seconds=15.0), "not yet"),
        (DiscoveryView(state="off", interval_seconds=15.0), "not asked"),
    ],
)
def test_the_age_of_what_aws_told_is_said(discovery: DiscoveryView, words: str) -> None:
    assert read(status_page(status(discovery=discovery))).one(data_fact="discovery").text == words


def test_without_its_script_the_page_says_that_it_stands_still() -> None:
    tree = read(status_page(ALL_WELL))
    assert "does not update itself" in tree.one("noscript").text
    assert tree.one("noscript").one("a").attributes["href"] == "/"
    assert "hidden" in tree.one(id="live").attributes, "a button that does nothing is not shown"
    assert not tree.find(id="troubles")


def test_with_nothing_to_show_it_says_what_to_do() -> None:
    tree = read(status_page(status(caches=(), events=(), certificates=(), troubles=(), notes=())))
    assert "natproxy reload" in tree.one(id="caches").text
    assert tree.one(id="events").text == "Nothing has happened yet."
    assert not tree.find(id="certificates")
