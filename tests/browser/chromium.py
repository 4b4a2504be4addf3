"""Chromium without a window, and all that a test asks of it. I/O: chromedriver, Chromium, files.

Both are Debian's (`make servers`); nothing is looked for elsewhere or downloaded. Chromium has a home and a profile of
its own, and ends with its driver.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PROGRAMS = ("chromium", "chromedriver")
MARK = "not loaded anew"
OWN_DIRECTORIES = ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")

Scheme = Literal["light", "dark"]


@dataclass(frozen=True)
class Screen:
    """How large a screen is, in CSS pixels, and whether it is a phone's."""

    width: int
    height: int
    is_phone: bool = False


PHONE, DESK = Screen(360, 740, is_phone=True), Screen(1400, 1000)
SCREENS = {"phone": PHONE, "desk": DESK}


def why_missing() -> str | None:
    """Return why there can be no browser here, or None where there can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)} (`make servers` does that)" if missing else None


class Chromium:
    """One browser with one tab."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        driver.set_page_load_timeout(30)
        self.command("Network.enable")

    def command(self, name: str, **words: Any) -> Mapping[str, Any]:
        """Run a command of the DevTools protocol."""
        answer: Mapping[str, Any] = self.driver.execute_cdp_cmd(name, words)
        return answer

    def script(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; ``return`` says what is returned."""
        return self.driver.execute_script(code, *arguments)

    # how pages are shown

    def show(
        self, *, screen: Screen = DESK, scheme: Scheme = "light", has_scripts: bool = True, scale: int = 1
    ) -> None:
        """Show pages from now on like this, and forget what there was to tell of the ones before.

        ``scale``: how many of the picture's pixels are one of the page's.
        """
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=screen.width,
            height=screen.height,
            deviceScaleFactor=scale,
            mobile=screen.is_phone,
        )
        self.prefer(scheme)
        self.command("Emulation.setScriptExecutionDisabled", value=not has_scripts)
        self.open("about:blank")
        self.complaints()
        self.requested()

    def prefer(self, scheme: Scheme) -> None:
        """Show this page and later ones in these colours, and have nothing move."""
        preferred = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in preferred.items()]
        self.command("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    # what is in them

    def find(self, selector: str) -> WebElement:
        """Return the first element that a CSS selector finds. Raises NoSuchElementException."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all of them."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text of an element, as it is in the document: also what is scrolled away, or folded."""
        found = self.script("return document.querySelector(arguments[0])?.textContent ?? null", selector)
        assert found is not None, f"there is no {selector}"
        return " ".join(str(found).split())

    def attribute(self, selector: str, name: str) -> str | None:
        """Return an attribute of the first element that a CSS selector finds now, or None."""
        code = "return document.querySelector(arguments[0])?.getAttribute(arguments[1]) ?? null"
        found: str | None = self.script(code, selector, name)
        return found

    def mark(self) -> None:
        """Write something into the page that it loses when it is loaded anew."""
        self.script("window.natproxyMark = arguments[0]", MARK)

    def is_marked(self) -> bool:
        """Whether it is still the page that was marked."""
        return bool(self.script("return window.natproxyMark === arguments[0]", MARK))

    # what a person does

    def press(self, *keys: str) -> None:
        """Press and release keys, one after another."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab(self) -> WebElement:
        """Go to the next place with the keyboard; return it."""
        self.press(Keys.TAB)
        return self.driver.switch_to.active_element

    # what it tells

    def complaints(self) -> list[str]:
        """Return what the console was told since this was last asked: errors, warnings, what the policy forbade."""
        return [f"{entry['level']}: {entry['message']}" for entry in self._log("browser")]

    def requested(self) -> list[str]:
        """Return the URL of every request since this was last asked."""
        messages = (json.loads(entry["message"])["message"] for entry in self._log("performance"))
        sent = (each["params"] for each in messages if each["method"] == "Network.requestWillBeSent")
        return [each["request"]["url"] for each in sent]

    def _log(self, kind: str) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return found


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Run a browser."""
    with tempfile.TemporaryDirectory(prefix="natproxy-chromium-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        environ = {**os.environ, **dict.fromkeys(OWN_DIRECTORIES, directory)}
        service = Service(executable_path=str(shutil.which("chromedriver")), env=environ, log_output=subprocess.DEVNULL)
        driver = webdriver.Chrome(options=_options(home / "profile"), service=service)
        try:
            yield Chromium(driver)
        finally:
            driver.quit()


def _options(profile: Path) -> Options:
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for word in (
        "--headless=new",
        "--no-sandbox",  # root cannot have one, and the pages are ours
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-breakpad",
        "--no-first-run",
        "--no-proxy-server",
        "--hide-scrollbars",
        "--lang=en-US",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return options
