"""Every page, on a phone and on a desk, in light and dark: it can be read, used without a mouse, and heard."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.chromium import SCREENS, Chromium
from tests.browser.judging import OF_COLOURS, focus_mistakes, layout_mistakes, reachable, scan, why_no_axe
from tests.browser.world import CLUSTER, GROUP, World
from tests.scenarios.waiting import eventually

PAGES: dict[str, Callable[[World], str]] = {
    "status": lambda world: f"{world.admin}/",
    "cache": lambda world: f"{world.admin}/caches/{CLUSTER}",
    "missing": lambda world: f"{world.admin}/caches/no-such-cache",
    "portal": lambda world: f"{world.portal}/",
    "portal-cache": lambda world: f"{world.portal}/caches/{GROUP}",
}
every_page = pytest.mark.parametrize("page", PAGES)
every_screen = pytest.mark.parametrize("screen", SCREENS)
UNFOLD = "document.querySelectorAll('details').forEach((each) => { each.open = true })"
LANDMARKS = "return [...document.querySelectorAll('header, main, footer')].map((each) => each.localName)"
GROUND = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"


def look(browser: Chromium, world: World, page: str, screen: str) -> None:
    browser.show(screen=SCREENS[screen])
    browser.open(PAGES[page](world))


def brightness(browser: Chromium) -> int:
    """Return that of the page's ground: 0 is black, 255 white."""
    red, green, blue = browser.script(GROUND)
    return int(red + green + blue) // 3


@every_page
@every_screen
def test_nothing_is_cut_off_or_in_the_way_of_anything_else(
    browser: Chromium, world: World, page: str, screen: str
) -> None:
    look(browser, world, page, screen)
    folded = layout_mistakes(browser, SCREENS[screen])
    browser.script(UNFOLD)
    found = {*folded, *layout_mistakes(browser, SCREENS[screen])}
    assert not found, "\n".join(found)


@pytest.mark.skipif(why_no_axe() is not None, reason=str(why_no_axe()))
@every_page
@every_screen
def test_a_scan_for_accessibility_finds_nothing(browser: Chromium, world: World, page: str, screen: str) -> None:
    look(browser, world, page, screen)
    browser.script(UNFOLD)
    found = scan(browser)
    bright = brightness(browser)
    browser.prefer("dark")
    found += scan(browser, OF_COLOURS)
    assert not found, "\n".join(map(str, found))
    assert bright > 195
    assert brightness(browser) < 60


@every_page
def test_it_has_one_title_and_its_landmarks(browser: Chromium, world: World, page: str) -> None:
    look(browser, world, page, "desk")
    assert browser.driver.title
    assert len(browser.all("h1")) == 1
    assert browser.script(LANDMARKS) == ["header", "main", "footer"]


@every_page
@every_screen
def test_everything_is_reached_by_the_keyboard_in_order_and_seen(
    browser: Chromium, world: World, page: str, screen: str
) -> None:
    look(browser, world, page, screen)
    wanted = reachable(browser)
    assert wanted
    for element in wanted:
        assert browser.tab() == element, element.get_attribute("outerHTML")
        assert focus_mistakes(browser) == [], element.get_attribute("outerHTML")


def test_the_first_key_leads_past_the_header(browser: Chromium, world: World) -> None:
    look(browser, world, "status", "desk")
    skip = browser.tab()
    assert skip.get_attribute("href") == f"{world.admin}/#main"
    browser.press(Keys.ENTER)
    eventually(lambda: browser.script("return document.activeElement.id") == "main", "the content has the focus")


def test_a_developer_copies_a_line_without_a_mouse(browser: Chromium, world: World) -> None:
    look(browser, world, "cache", "desk")
    browser.command(
        "Browser.setPermission", origin=world.admin, permission={"name": "clipboard-write"}, setting="granted"
    )
    try:
        wanted = [element.get_attribute("data-copy") for element in reachable(browser)]
        target = next(name for name in wanted if name)
        while browser.tab().get_attribute("data-copy") != target:
            assert browser.script("return document.activeElement !== document.body"), "it was never reached"
        browser.press(Keys.ENTER)
        eventually(lambda: browser.text("#copied") != "", "it says what it did")
    finally:
        browser.command("Browser.resetPermissions")
