"""The judges of the pages find what is wrong, and nothing else."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.browser.chromium import DESK, PHONE, Chromium, Screen
from tests.browser.judging import OF_COLOURS, focus_mistakes, layout_mistakes, reachable, scan, why_no_axe

GOOD = """<!DOCTYPE html><html lang="en"><head><title>Good</title><meta name="viewport" content="width=device-width">
<style>:focus-visible {{ outline: 3px solid blue }} {style}</style></head>
<body><main><h1>Good</h1><p>Words that are as long as they are.</p>{body}</main></body></html>"""
LONG = "x" * 300


def page(body: str = "", style: str = "") -> str:
    return "data:text/html," + quote(GOOD.format(body=body, style=style))


@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize(
    "body",
    [
        "",
        '<p style="position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden">unseen</p>',
        f'<div tabindex="0" style="overflow-x: auto; width: 90%"><pre>{LONG}</pre></div>',
        f"<details><summary>more</summary><p>{LONG}</p></details>",
    ],
    ids=["plain", "for screen readers", "scrolls", "folded"],
)
def test_a_good_page_has_no_mistakes(browser: Chromium, screen: Screen, body: str) -> None:
    browser.show(screen=screen)
    browser.open(page(body))
    assert layout_mistakes(browser, screen) == []


@pytest.mark.parametrize(
    ("body", "mistake"),
    [
        (f"<pre>{LONG}</pre>", "the page scrolls sideways"),
        (f"<pre>{LONG}</pre>", "beyond the edge: pre"),
        (f'<p style="overflow: hidden">{LONG}</p>', "cut off: p"),
        ('<p style="overflow: hidden; height: 9px">low</p>', "cut off: p"),
        ('<p>one</p><p style="margin-top: -2em">other</p>', "on top of one another: p"),
        (f'<div tabindex="-1" style="overflow-x: auto">{LONG}</div>', "scrolls sideways, but not by keyboard: div"),
    ],
)
def test_a_mistake_is_found(browser: Chromium, body: str, mistake: str) -> None:
    browser.show(screen=PHONE)
    browser.open(page(body))
    found = layout_mistakes(browser, PHONE)
    assert any(each.startswith(mistake) for each in found), found


def test_a_page_that_does_not_fit_itself_to_a_phone_is_found(browser: Chromium) -> None:
    browser.show(screen=PHONE)
    browser.open("data:text/html,<!DOCTYPE html><p>wide")
    assert "the page is 980 pixels wide, not 360" in layout_mistakes(browser, PHONE)


@pytest.mark.skipif(why_no_axe() is not None, reason=str(why_no_axe()))
def test_the_scan_finds_what_is_wrong(browser: Chromium) -> None:
    browser.open(page())
    assert scan(browser) == []
    browser.open(page('<button></button><p style="color: #eee">pale</p>'))
    assert {finding.rule for finding in scan(browser)} == {"button-name", "color-contrast"}
    assert {finding.rule for finding in scan(browser, OF_COLOURS)} == {"color-contrast"}


def test_a_focus_that_cannot_be_seen_is_found(browser: Chromium) -> None:
    browser.open(page('<a href="#a">a</a><button>b</button>', ":focus-visible { outline: none } p { height: 3000px }"))
    assert focus_mistakes(browser)[0] == "nothing has the focus"
    assert browser.tab().text == "a"
    assert focus_mistakes(browser) == ["it is not outlined"]
    browser.script("scrollTo(0, 0)")
    assert focus_mistakes(browser) == ["it is not outlined", "it is not in view"]
    assert [element.text for element in reachable(browser)] == ["a", "b"]
