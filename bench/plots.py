"""What is drawn of results: figures as data. Pure; draw.py puts them on paper."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from bench.results import HAPROXY, NATPROXY, NGINX, Curve, Part

COLOURS = {NATPROXY: "#0b6e4f", HAPROXY: "#c8553d", "HAProxy, 64 KiB buffers": "#e8a87c", NGINX: "#5b7db1"}
OTHER_COLOURS = ("#0b6e4f", "#c8553d", "#5b7db1", "#8c6bb1", "#999999")


def figures(parts: Mapping[str, Part]) -> list[dict[str, Any]]:
    """Return a figure for each curve of the parts that is drawn: plain data, as draw.py reads it."""
    return [figure(curve) for part in parts.values() for curve in part.curves if curve.is_drawn]


def figure(curve: Curve) -> dict[str, Any]:
    """Return a curve's figure: a line of medians for each name, with the least and the most of the rounds around it."""
    names = list(dict.fromkeys(name for point in curve.points for name in point.y))
    return {
        "file": f"{curve.name}.svg",
        "title": curve.title or curve.y_name,
        "x": curve.x_name,
        "y": curve.y_name,
        "is_y_logarithmic": curve.is_y_logarithmic,
        "lines": [_line(curve, name, number) for number, name in enumerate(names)],
    }


def _line(curve: Curve, name: str, number: int) -> dict[str, Any]:
    points = [point for point in curve.points if point.y.get(name)]
    return {
        "name": name,
        "colour": COLOURS.get(name, OTHER_COLOURS[number % len(OTHER_COLOURS)]),
        "x": [point.x for point in points],
        "y": [statistics.median(point.y[name]) for point in points],
        "least": [min(point.y[name]) for point in points],
        "most": [max(point.y[name]) for point in points],
    }
