from __future__ import annotations

import msgspec

from bench import plots
from tests.bench.samples import CURVE, PART


def test_a_figure_has_a_line_of_medians_and_the_spread_for_each_proxy() -> None:
    (figure,) = plots.figures({"values": PART})
    assert figure["file"] == "cost-by-value.svg"
    ours, theirs = figure["lines"]
    assert (ours["name"], ours["x"], ours["y"]) == ("natproxy", [16, 1 << 20], [2.0, 2000.0])
    assert (ours["least"], ours["most"]) == ([1.0, 2000.0], [3.0, 2000.0])
    assert (theirs["name"], theirs["x"], theirs["y"]) == ("HAProxy", [16], [4.0])


def test_a_proxy_has_the_same_colour_in_every_figure() -> None:
    lines = plots.figure(CURVE)["lines"]
    assert [line["colour"] for line in lines] == [plots.COLOURS["natproxy"], plots.COLOURS["HAProxy"]]


def test_a_curve_of_many_units_is_not_drawn() -> None:
    table = msgspec.structs.replace(CURVE, is_drawn=False)
    assert plots.figures({"routes": msgspec.structs.replace(PART, curves=[table])}) == []
