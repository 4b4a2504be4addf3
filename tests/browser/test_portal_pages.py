"""The portal's pages in a browser: what the developer's certificate may use, and nothing of anything else."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl

import pytest

from tests.browser.chromium import Chromium
from tests.browser.world import ABSENT, CLUSTER, DEVELOPER, GROUP, MEMCACHED, PORTAL_PORT, SECRET, STATIC, World
from tests.scenarios.tlspeers import HOST
from tests.scenarios.waiting import eventually

MINE = {GROUP, CLUSTER, MEMCACHED, STATIC}
ROUTES = """
return [...document.querySelectorAll("[data-cache] [data-route]")].map((row) => [
  row.closest("[data-cache]").dataset.cache, Number(row.dataset.route),
]);
"""


@pytest.fixture
def page(browser: Chromium, world: World) -> Chromium:
    """A browser that shows the portal's first page."""
    browser.open(world.portal + "/")
    return browser


def test_it_shows_what_the_directory_says(page: Chromium, world: World) -> None:
    shown = {tuple(each) for each in page.script(ROUTES)}
    assert {each.get_attribute("data-cache") for each in page.all("[data-cache]")} == MINE
    page.open(world.portal + "/directory")
    directory = json.loads(page.find("body").text)
    assert shown == {(cache["id"], route["port"]) for cache in directory["caches"] for route in cache["routes"]}


def test_it_tells_nothing_of_others_nor_of_what_is_behind(page: Chromium, world: World) -> None:
    source = page.driver.page_source
    document = world.daemon.document()
    behind = {str(route.target).partition(":")[0] for cache in document.caches for route in cache.routes}
    addresses = {
        each.partition(":")[0] for cache in document.caches for route in cache.routes for each in route.addresses
    }
    assert behind
    assert addresses
    assert [word for word in (SECRET, ABSENT, *behind, *addresses) if word in source] == []


def test_it_names_the_certificate_and_the_line_that_connects(page: Chromium) -> None:
    assert DEVELOPER in page.text("#facts")
    assert page.text("#connect") == f"natproxy connect {HOST}:{PORTAL_PORT} --bundle {DEVELOPER}.zip"


def test_a_cache_s_page_is_a_click_away_and_has_no_operator_s_facts(page: Chromium, world: World) -> None:
    page.find(f'[data-cache="{GROUP}"] a.cache-link').click()
    eventually(lambda: page.driver.current_url == f"{world.portal}/caches/{GROUP}", "its page is shown")
    (cache,) = (cache for cache in world.daemon.document().caches if cache.id == GROUP)
    source = page.driver.page_source
    assert page.all("details.snippet")
    assert [route.target for route in cache.routes if str(route.target) in source] == []
    page.find("nav a").click()
    eventually(lambda: page.driver.current_url == f"{world.portal}/", "the first page is shown")


@pytest.mark.parametrize("cache", [SECRET, ABSENT, "no-such-cache"])
def test_the_page_of_a_cache_that_is_another_s_looks_like_none(browser: Chromium, world: World, cache: str) -> None:
    browser.open(f"{world.portal}/caches/{cache}")
    shown = browser.find("main").text
    browser.open(f"{world.portal}/caches/never-heard-of")
    assert shown.replace(cache, "X") == browser.find("main").text.replace("never-heard-of", "X")


@pytest.mark.parametrize("path", ["/", f"/caches/{GROUP}"])
def test_its_pages_ask_nobody_else_and_break_no_policy(browser: Chromium, world: World, path: str) -> None:
    browser.open(world.portal + path)
    requested = browser.requested()
    assert requested
    assert [url for url in requested if not url.startswith(world.portal + "/")] == []
    assert browser.complaints() == []


def test_without_the_bridge_s_certificate_there_is_no_page(world: World) -> None:
    connection = http.client.HTTPSConnection(world.daemon.ip, PORTAL_PORT, timeout=10, context=world.papers.client())
    with contextlib.closing(connection), pytest.raises((ssl.SSLError, ConnectionError)):
        fetch(connection)


def fetch(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/directory")
    return connection.getresponse().read()
