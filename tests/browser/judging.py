"""Whether a page can be read and used: by its layout, by axe-core, by the keyboard. I/O: a browser, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium.webdriver.remote.webelement import WebElement

from tests.browser.chromium import Chromium, Screen

HERE = Path(__file__).parent
AXE = HERE / "node_modules/axe-core/axe.min.js"
"""Of `make browser`."""
LAYOUT = (HERE / "layout.js").read_text(encoding="utf-8")
ALL_RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
OF_COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, { runOnly: arguments[0], resultTypes: ["violations"] }).then(
  (found) => done({ violations: found.violations, passes: found.passes.length }),
  (error) => done({ error: String(error) }),
);
"""
FOCUS = """
const element = document.activeElement;
const style = getComputedStyle(element);
const box = element.getBoundingClientRect();
const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
return {
  isOnPage: element !== document.body,
  isOutlined: element.matches(":focus-visible") && outlined,
  isInView: box.width > 1 && box.height > 1 && box.bottom > 0 && box.top < innerHeight && box.left < innerWidth,
};
"""
REACHABLE = """
return [...document.querySelectorAll("a[href], button, summary, input, select, textarea, [tabindex='0']")].filter(
  (each) => each.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true }) && !each.disabled,
);
"""


@dataclass(frozen=True)
class Finding:
    """One rule that a page breaks, and where."""

    impact: str
    """minor | moderate | serious | critical."""
    rule: str
    help: str
    places: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.places) - 2} more" if len(self.places) > 2 else ""
        return f"{self.impact}: {self.rule}: {self.help}: {' | '.join(self.places[:2])}{more}"


def why_no_axe() -> str | None:
    """Return why there can be no scan here, or None where there can."""
    return None if AXE.is_file() else "axe-core is not installed (`make browser` does that)"


def scan(browser: Chromium, rules: Mapping[str, Any] = ALL_RULES) -> list[Finding]:
    """Return what axe-core finds wrong with the page that is shown."""
    if not browser.script("return window.axe !== undefined"):
        browser.script(AXE.read_text(encoding="utf-8"))
    answer: dict[str, Any] = browser.driver.execute_async_script(RUN_AXE, rules)
    assert "error" not in answer, answer["error"]
    assert answer["passes"], "no rule of axe-core's was applied"
    return [
        Finding(found["impact"], found["id"], found["help"], tuple(node["html"][:120] for node in found["nodes"]))
        for found in answer["violations"]
    ]


def layout_mistakes(browser: Chromium, screen: Screen) -> list[str]:
    """Return what of the page is cut off, beyond the edge, or on top of something else."""
    found: list[str] = browser.script(LAYOUT, screen.width)
    return found


def reachable(browser: Chromium) -> list[WebElement]:
    """Return what can be used on the page, in the order of the document."""
    found: list[WebElement] = browser.script(REACHABLE)
    return found


def focus_mistakes(browser: Chromium) -> list[str]:
    """Return what is wrong with how the element that has the focus is shown."""
    state: dict[str, bool] = browser.script(FOCUS)
    wants = {"isOnPage": "nothing has the focus", "isOutlined": "it is not outlined", "isInView": "it is not in view"}
    return [complaint for key, complaint in wants.items() if not state[key]]
