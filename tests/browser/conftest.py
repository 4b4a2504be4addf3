"""One browser, and one small world whose pages it shows, for all tests of a package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium, chromium, why_missing
from tests.browser.world import World, open_world
from tests.scenarios.conftest import some_natproxies


@pytest.fixture(scope="package")
def chromium_itself() -> Iterator[Chromium]:
    if missing := why_missing():
        pytest.skip(missing)
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(chromium_itself: Chromium) -> Chromium:
    """A browser that shows pages as on a desk, in light colours, and has nothing to tell."""
    chromium_itself.show()
    return chromium_itself


@pytest.fixture(scope="package")
def world(chromium_itself: Chromium) -> Iterator[World]:  # first of all the browser: without it there is no test
    with some_natproxies() as natproxies, open_world(natproxies) as made:
        yield made
