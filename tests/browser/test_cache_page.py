"""The page of a cache in a browser: the lines of `natproxy snippets`, a button that copies them, and no JavaScript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import Chromium
from tests.browser.world import CLUSTER, GROUP, MEMCACHED, SECRET, STATIC, World
from tests.scenarios.waiting import eventually

SNIPPETS = """
return [...document.querySelectorAll("details.snippet")].map((each) => [
  each.dataset.client, each.querySelector("code").textContent,
]);
"""
CLIPBOARD = "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)))"
SELECTED = "return getSelection().toString()"


def url(world: World, cache: str) -> str:
    return f"{world.admin}/caches/{cache}"


def permit(browser: Chromium, world: World, setting: str) -> None:
    """Let pages of the admin side write to the clipboard, or not; reading is for the test alone."""
    for name in ("clipboard-write", "clipboard-read"):
        chosen = "granted" if name == "clipboard-read" else setting
        browser.command("Browser.setPermission", origin=world.admin, permission={"name": name}, setting=chosen)


@pytest.fixture
def page(browser: Chromium, world: World) -> Iterator[Chromium]:
    """A browser that shows the page of a group."""
    browser.open(url(world, GROUP))
    yield browser
    browser.command("Browser.resetPermissions")


@pytest.mark.parametrize("cache", [GROUP, CLUSTER, MEMCACHED, SECRET, STATIC])
def test_its_lines_are_those_of_the_command(browser: Chromium, world: World, cache: str) -> None:
    said: list[Any] = []
    for words in ([], ["--connect"]):
        done = world.daemon.cli("snippets", cache, *words, "--json")
        assert done.returncode == 0, done.stderr
        said += json.loads(done.stdout)["snippets"]
    browser.open(url(world, cache))
    assert browser.text("h1") == cache
    found = browser.script(SNIPPETS)
    assert found
    assert found == [[each["client"], each["text"]] for each in said]


def test_its_ports_are_those_of_the_cache(page: Chromium, world: World) -> None:
    (cache,) = (cache for cache in world.daemon.document().caches if cache.id == GROUP)
    shown = page.script("return [...document.querySelectorAll('#routes [data-route]')].map((row) => row.dataset.route)")
    assert shown == [str(route.port) for route in cache.routes]


@pytest.mark.parametrize("way", ["granted", "denied"])
def test_the_button_copies_or_where_it_may_not_selects(page: Chromium, world: World, way: str) -> None:
    permit(page, world, way)
    page.command("Page.bringToFront")
    button = page.find("details.snippet[open] button.copy")
    code = page.script("return document.getElementById(arguments[0]).textContent", button.get_attribute("data-copy"))
    button.click()
    eventually(lambda: page.text("#copied") != "", "it says what it did")
    if way == "granted":
        assert page.driver.execute_async_script(CLIPBOARD) == code
    else:
        assert str(page.script(SELECTED)).strip() == code.strip()
    assert page.complaints() == []


def test_every_client_can_be_unfolded_and_copied(page: Chromium, world: World) -> None:
    permit(page, world, "granted")
    folded = page.all("details.snippet:not([open])")
    assert folded
    for details in folded:
        details.find_element("css selector", "summary").click()
        button = details.find_element("css selector", "button.copy")
        assert button.is_displayed()
    last = folded[-1].find_element("css selector", "code").get_property("textContent")
    button.click()
    eventually(
        lambda: page.driver.execute_async_script(CLIPBOARD) == last,
        "the last one is on the clipboard",
    )


def test_without_javascript_it_has_the_lines_and_no_button(browser: Chromium, world: World) -> None:
    browser.open(url(world, GROUP))
    lines = browser.script(SNIPPETS)
    browser.show(has_scripts=False)
    browser.open(url(world, GROUP))
    assert browser.script(SNIPPETS) == lines
    assert [button for button in browser.all("button") if button.is_displayed()] == []
    last = browser.all("details.snippet")[-1]
    last.find_element("css selector", "summary").click()
    assert last.find_element("css selector", "code").is_displayed()


def test_a_cache_that_is_not_there_has_a_page_that_says_so(browser: Chromium, world: World) -> None:
    browser.open(url(world, "no-such-cache"))
    assert browser.find("h1").is_displayed()
    assert browser.find("main a, nav a, header a").get_attribute("href") == f"{world.admin}/"
