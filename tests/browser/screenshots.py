"""Makes docs/images/*.png anew: python -m tests.browser.screenshots. I/O: a browser, a small world, files.

It takes two minutes: the curves of the status page tell of so much time, in which the world is used, fails over, and is
reloaded.
"""

from __future__ import annotations

import base64
import io
import math
import sys
import time
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from tests.browser.chromium import DESK, PHONE, Chromium, Scheme, Screen, chromium, why_missing
from tests.browser.world import GROUP, World, busy, open_world
from tests.scenarios.conftest import some_natproxies
from tests.scenarios.waiting import eventually

IMAGES = Path(__file__).parents[2] / "docs/images"
MOST_BYTES = 200_000
HISTORY_SECONDS = 125.0
RHYTHMS = (9.0, 23.0, 61.0, 37.0)
"""How long a wave of each developer's work is, in seconds."""
WIDE = Screen(DESK.width, 800)
NARROW = Screen(1100, 1060)


@dataclass(frozen=True)
class Picture:
    """One file, and what is on it."""

    name: str
    path: str
    screen: Screen
    is_portal: bool = False
    scheme: Scheme = "light"
    scale: int = 1


PICTURES = (
    Picture("status-light.png", "/", WIDE),
    Picture("status-dark.png", "/", WIDE, scheme="dark"),
    Picture("status-phone.png", "/", PHONE, scale=2),
    Picture("cache.png", f"/caches/{GROUP}", NARROW),
    Picture("portal.png", "/", NARROW, is_portal=True),
)


def main() -> int:
    if missing := why_missing():
        print(f"There can be no pictures here: {missing}", file=sys.stderr)
        return 2
    IMAGES.mkdir(exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))  # natproxy's log
        browser = stack.enter_context(chromium())
        world = stack.enter_context(open_world(stack.enter_context(some_natproxies()), is_tidy=True))
        stack.enter_context(busy(world, pause))
        live(world)
        sizes = {picture.name: take(browser, world, picture) for picture in PICTURES}
    for name, size in sizes.items():
        print(f"docs/images/{name}: {size / 1000:.0f} kB")
    return max(sizes.values()) > MOST_BYTES


def pause(developer: int) -> float:
    """Return how long a developer waits before the next question: now less, now more."""
    wave = math.sin(2 * math.pi * time.monotonic() / RHYTHMS[developer % len(RHYTHMS)])
    return 0.004 * math.pow(30.0, (1 - wave) / 2)


def live(world: World) -> None:
    """Let happen what happens to caches, for as long as the curves tell of."""
    until = time.monotonic() + HISTORY_SECONDS
    time.sleep(HISTORY_SECONDS / 3)
    world.cloud.replace(f"{GROUP}-003")
    time.sleep(HISTORY_SECONDS / 3)
    world.cloud.failover(GROUP)
    world.daemon.config["aws"]["absent_after"] = "2m"
    world.daemon.reload()
    time.sleep(max(0.0, until - time.monotonic()))
    eventually(lambda: {route.state for route in world.daemon.routes().values()} == {"open"}, "all is well", 60)


def take(browser: Chromium, world: World, picture: Picture) -> int:
    """Write one picture; return its size in bytes."""
    browser.show(screen=picture.screen, scheme=picture.scheme, scale=picture.scale)
    browser.open((world.portal if picture.is_portal else world.admin) + picture.path)
    shot = browser.command("Page.captureScreenshot", format="png", optimizeForSpeed=False)
    content = base64.b64decode(shot["data"])
    (IMAGES / picture.name).write_bytes(content)
    return len(content)


if __name__ == "__main__":
    sys.exit(main())
