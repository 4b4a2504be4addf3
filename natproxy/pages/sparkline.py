"""A small curve of what moved, as points of an SVG whose view box is ``box``, and in words. Pure.

The curve and the ground below it are one polyline; its edges lie outside the box, where nothing of them is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from natproxy.pages.words import rate, span

_HEIGHT = 100
_TOP, _BOTTOM = 7, 93
"""Where the highest value and zero lie, so that the line's own width is not cut off."""


def box(history: Sequence[int]) -> str:
    """Return the view box: one unit wide from value to value."""
    return f"0 0 {max(1, len(history) - 1)} {_HEIGHT}"


def points(history: Sequence[int]) -> str:
    """Return the points, the oldest value at the left; the highest is at the top, and none at all are zeros."""
    values = list(history) if len(history) > 1 else [*history, *history] or [0, 0]
    highest = max(1, *values)
    heights = [_BOTTOM - max(0, value) * (_BOTTOM - _TOP) // highest for value in values]
    curve = " ".join(f"{index},{height}" for index, height in enumerate(heights))
    floor = _HEIGHT + 20
    return f"-1,{floor} -1,{heights[0]} {curve} {len(values)},{heights[-1]} {len(values)},{floor}"


def in_words(history: Sequence[int], step_seconds: float) -> str:
    """Return what the curve says, for those who do not see it."""
    if not any(history):
        return "no traffic in the last minutes"
    return f"traffic of the last {span(len(history) * step_seconds)}: at most {rate(max(history))}"
