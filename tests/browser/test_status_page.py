"""The status page in a browser: it shows what /status and /routes say, follows by itself, and needs no JavaScript."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec
import pytest
from selenium.webdriver.remote.webelement import WebElement

from natproxy.documents import LiveRoute, StatusDocument
from tests.browser.chromium import Chromium
from tests.browser.world import ABSENT, CACHES, GROUP, MEMCACHED, STATIC, World, busy
from tests.scenarios.peers import connect
from tests.scenarios.waiting import eventually

OFFLINE = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
ROWS = """
return [...document.querySelectorAll("[data-cache] [data-route]")].map((row) => [
  row.closest("[data-cache]").dataset.cache, Number(row.dataset.route), row.dataset.state, row.innerText,
]);
"""


def status(world: World) -> StatusDocument:
    return msgspec.json.decode(world.daemon.get("/status")[1], type=StatusDocument)


def live_routes(document: StatusDocument) -> Iterator[tuple[str, LiveRoute]]:
    for cache in document.caches:
        for route in (*cache.endpoints, *(node for shard in cache.shards for node in shard.nodes)):
            yield cache.id, route


def row(port: int | None) -> str:
    return f'[data-route="{port}"]'


@pytest.fixture
def page(browser: Chromium, world: World) -> Chromium:
    """A browser that shows the status page, and has shown no other."""
    browser.open(world.admin + "/")
    return browser


def is_online(browser: Chromium, *, is_so: bool) -> None:
    browser.command("Network.emulateNetworkConditions", offline=not is_so, **OFFLINE)


def test_it_shows_every_cache_and_route_that_there_is(page: Chromium, world: World) -> None:
    shown = {(cache, port): (state, text) for cache, port, state, text in page.script(ROWS)}
    document = world.daemon.document()
    assert set(shown) == {(cache.id, route.port) for cache in document.caches for route in cache.routes}
    assert [each.get_attribute("data-cache") for each in page.all("[data-cache]")] == [
        cache.id for cache in document.caches
    ]
    for cache in document.caches:
        for route in cache.routes:
            state, text = shown[cache.id, route.port]
            assert state == route.state
            named = str(route.node or route.kind)
            assert all(
                word in text for word in (str(route.port), named, route.state, route.role or "", route.zone or "")
            )
    assert "not-there" in page.text(f'[data-cache="{ABSENT}"]')
    assert page.attribute(row(world.daemon.routes()[STATIC].port), "data-state") == "unreachable"


def test_it_shows_what_the_status_says(page: Chromium, world: World) -> None:
    document = status(world)
    assert {(cache, route.port) for cache, route in live_routes(document)} == {
        (cache.id, route.port) for cache in world.daemon.document().caches for route in cache.routes
    }
    assert document.readiness in page.text("#readiness")
    assert all(text in page.text("#troubles") for text in (*document.troubles, *document.notes))
    certificates = page.text("#certificates")
    assert document.certificates
    assert all(one.subject in certificates and one.expires[:10] in certificates for one in document.certificates)
    shown = [str(event.get_attribute("data-event")) for event in page.all("[data-event]")]
    assert shown
    assert {int(number) for number in shown} <= {event.id for event in status(world).events}


def test_it_counts_connections_and_draws_traffic_by_itself(page: Chromium, world: World) -> None:
    port = world.daemon.wait_for_route(f"{MEMCACHED}/0002")
    page.mark()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(contextlib.closing(connect(world.daemon.ip, port)))
        eventually(lambda: page.text(f"{row(port)} .connections") == "3", "three connections are shown")
    eventually(lambda: page.text(f"{row(port)} .connections") == "0", "none is shown")
    used = world.daemon.wait_for_route(f"{GROUP}:primary")
    flat = page.attribute(f"{row(used)} svg.sparkline", "aria-label")
    with busy(world):
        eventually(lambda: "kB/s" in page.text(f"{row(used)} .rate"), "traffic is shown")
        label = f"{row(used)} svg.sparkline"
        eventually(lambda: page.attribute(label, "aria-label") != flat, "the curve tells of it")
    assert page.is_marked()
    assert page.complaints() == []


def test_it_follows_a_failover_and_keeps_its_reader_s_place(page: Chromium, world: World) -> None:
    members = {name: route for name, route in world.daemon.routes().items() if name.startswith(f"{GROUP}-")}
    (old,) = (route.port for route in members.values() if route.role == "primary")
    promoted, new = next((name, route.port) for name, route in members.items() if route.role == "replica")
    before = {event.id for event in status(world).events}
    summary = page.find(f"{row(new)} details.more > summary")
    summary.click()
    assert page.script("return document.activeElement === arguments[0]", summary)
    page.mark()
    world.cloud.failover(GROUP, to=promoted.partition("/")[0])
    eventually(lambda: page.attribute(row(new), "data-role") == "primary", "the new primary is shown")
    eventually(lambda: page.attribute(row(old), "data-role") == "replica", "the old one is shown as a replica")

    def is_told() -> bool:
        told = [each.get_attribute("data-event") for each in page.all('#events [data-kind="failover"]')]
        return bool({int(str(number)) for number in told} - before)

    eventually(is_told, "the failover is among the events")
    assert page.is_marked()
    assert page.attribute(f"{row(new)} details.more", "open") is not None
    focused = "return document.activeElement.closest('[data-route]')?.dataset.route"
    assert page.script(focused) == str(new)
    assert page.complaints() == []


def test_it_says_when_natproxy_cannot_be_reached_and_when_it_can_again(page: Chromium) -> None:
    eventually(lambda: page.text("#connection") != "", "it says that it is up to date")
    good = page.text("#connection")
    page.mark()
    is_online(page, is_so=False)
    try:
        eventually(lambda: "lost" in page.text("#connection").lower(), "it says that the connection is lost")
    finally:
        is_online(page, is_so=True)
    eventually(lambda: "lost" not in page.text("#connection").lower(), "it is back")
    assert good
    assert page.is_marked()


def test_it_can_be_stopped_and_goes_on(page: Chromium, world: World) -> None:
    port = world.daemon.wait_for_route(f"{MEMCACHED}/0002")
    button = page.find("#pause")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    with contextlib.closing(connect(world.daemon.ip, port)):
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        eventually(lambda: page.text(f"{row(port)} .connections") == "1", "it goes on")
    eventually(lambda: page.text(f"{row(port)} .connections") == "0", "nobody is there any more")


def test_without_javascript_it_shows_the_same(browser: Chromium, world: World) -> None:
    browser.open(world.admin + "/")
    with_scripts = {(cache, port) for cache, port, _, _ in browser.script(ROWS)}
    browser.show(has_scripts=False)
    browser.open(world.admin + "/")
    assert {(cache, port) for cache, port, _, _ in browser.script(ROWS)} == with_scripts
    assert {cache for cache, _ in with_scripts} == {str(each["id"]) for each in CACHES} - {ABSENT} | {STATIC}
    assert visible(browser, ".still")
    assert not visible(browser, "#live")
    details = browser.find(f"{row(world.daemon.wait_for_route(f'{GROUP}:reader'))} details.more")
    details.find_element("css selector", "summary").click()
    assert details.get_attribute("open") is not None
    browser.find(".cache-link").click()
    eventually(lambda: browser.driver.current_url.startswith(f"{world.admin}/caches/"), "a cache's page is shown")


def visible(browser: Chromium, selector: str) -> list[WebElement]:
    return [element for element in browser.all(selector) if element.is_displayed()]


def test_it_asks_nobody_else_and_breaks_no_policy(page: Chromium, world: World) -> None:
    eventually(lambda: page.text("#connection") != "", "it has updated itself")
    requested = page.requested()
    assert requested
    assert [url for url in requested if not url.startswith(world.admin + "/")] == []
    assert page.complaints() == []


def test_a_script_that_got_into_it_would_not_run(page: Chromium) -> None:
    code = "const s = document.createElement('script'); s.text = 'window.stolen = 1'; document.body.append(s)"
    page.script(code)
    assert page.script("return window.stolen ?? null") is None
    assert any("Content Security Policy" in each for each in page.complaints())
