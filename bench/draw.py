"""Draws figures as SVG. I/O: reads them as JSON from stdin (see plots.py), writes files.

    .venv/plots/bin/python bench/draw.py DIRECTORY <figures.json

Runs in a virtual environment of its own, with matplotlib and without the bench. The same figures give the same files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

INCHES = (7.0, 3.8)
STYLE = {
    "svg.hashsalt": "natproxy",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def draw(figure: dict[str, Any], directory: Path) -> Path:
    """Draw one figure; return its file."""
    paper, axes = plt.subplots(figsize=INCHES, layout="constrained")
    for line in figure["lines"]:
        axes.plot(line["x"], line["y"], marker="o", markersize=4, label=line["name"], color=line["colour"])
        axes.fill_between(line["x"], line["least"], line["most"], color=line["colour"], alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    ticks = sorted({x for line in figure["lines"] for x in line["x"]})
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks], rotation=30 if len(ticks) > 6 else 0)
    axes.minorticks_off()
    if figure["is_y_logarithmic"]:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(figure["x"])
    axes.set_ylabel(figure["y"])
    axes.set_title(figure["title"], loc="left", fontsize=10)
    axes.legend(frameon=False)
    path = directory / str(figure["file"])
    paper.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(paper)
    text = "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    path.write_text(text + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Draw all."""
    mpl.rcParams.update(STYLE)
    for figure in json.load(sys.stdin):
        print(draw(figure, Path(sys.argv[1])))


if __name__ == "__main__":
    main()
