from __future__ import annotations

import re

import pytest

from natproxy.pages.assets import STATIC

CSS = STATIC["/static/natproxy.css"].body.decode()
JS = STATIC["/static/natproxy.js"].body.decode()


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path, file in STATIC.items():
        addresses = re.findall(rb"(?:https?:)?//[\w.-]+", re.sub(rb"^\s*//.*$", b"", file.body, flags=re.MULTILINE))
        assert [one for one in addresses if one != b"http://www.w3.org"] == [], path
        assert b"@import" not in file.body
        assert b"url(" not in file.body


def test_the_script_makes_no_markup_and_no_code_of_what_it_reads() -> None:
    for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert risky not in JS


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


LIGHT = _colours(CSS.partition("@media (prefers-color-scheme: dark)")[0])
DARK = _colours(CSS.partition("@media (prefers-color-scheme: dark)")[2].partition("\n}\n")[0])


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


PAIRS = [
    *((text, ground) for text in ("text", "quiet", "link") for ground in ("ground", "card", "code")),
    *((tone, f"{tone}-ground") for tone in ("good", "warning", "bad", "idle")),
    *((tone, "card") for tone in ("good", "warning", "bad")),
    ("text", "idle-ground"),
    ("card", "text"),
]


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground(colours: dict[str, str]) -> None:
    assert set(LIGHT) == set(DARK)
    poor = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in PAIRS}
    assert {pair: round(ratio, 2) for pair, ratio in poor.items() if ratio < 4.5} == {}
    assert _contrast(colours["focus"], colours["ground"]) >= 3
    assert _contrast(colours["curve"], colours["card"]) >= 3
