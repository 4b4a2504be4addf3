"""What measurements find, as data: readings of rounds, rows of the table, curves of the plots. Pure.

Everything that is shown (tables, ratios, plots) is made from these, so it can be shown again without measuring.
"""

from __future__ import annotations

from typing import Literal

import msgspec

VERSION = 2
NATPROXY, HAPROXY, NGINX, SOCAT, STUNNEL, COMPILED, DNAT = (
    "natproxy", "HAProxy", "nginx", "socat", "stunnel", "compiled", "DNAT",
)  # fmt: skip
UNREAD = "rewrite: off"
"""Another port of the same natproxy, which rewrites nothing."""
OWN_TLS = "own TLS"
"""A client that speaks TLS itself, and shows its certificate, instead of going through natproxy connect."""


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one round of one proxy showed."""

    cost: float
    """In the row's unit, less is better."""
    p50: float | None = None
    """Milliseconds."""
    p99: float | None = None
    rate: float | None = None
    """Requests (or what the row counts) per second, in all."""
    shares: tuple[float, ...] = ()
    """Which part of the cost each thread has, 0 to 1, the busiest first; of one alone nothing is told."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the table: a workload, and what each proxy's rounds showed."""

    name: str
    unit: str
    """What ``cost`` is in: "us" of CPU for a request, "ms/GB", "KB" for a connection, "ms"."""
    readings: dict[str, list[Reading]]
    """Proxy -> rounds, in the order in which they ran; the n-th rounds of all belong together."""
    basis: Literal["cost", "p50", "rate", "value"] = "cost"
    """What ``reach`` is about: the ratio of costs, of p50, of rates; or natproxy's cost itself."""
    reach: float | None = None
    aim: float | None = None
    notes: tuple[str, ...] = ()
    against: str = HAPROXY
    """Whom ratios are against."""


class Point(msgspec.Struct, frozen=True):
    """One size on a curve."""

    x: int
    y: dict[str, list[float]]
    """Proxy -> rounds."""


class Curve(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a cost grows with something."""

    name: str
    x_name: str
    y_name: str
    points: list[Point]
    title: str = ""
    """Of the plot; none: ``y_name``."""
    is_y_logarithmic: bool = False
    is_drawn: bool = True
    """Else it is a table alone: its lines have different units."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one part of the bench found."""

    command: str
    """That repeats it."""
    date: str
    seconds: float
    machine: dict[str, str]
    rows: list[Row] = []
    curves: list[Curve] = []
    left_out: dict[str, str] = {}
    """What was not measured -> why."""
    has_failed: bool = False


class Results(msgspec.Struct, frozen=True):
    """All parts that were measured, by name."""

    parts: dict[str, Part]
    version: int = VERSION


def encode(results: Results) -> bytes:
    """Return the file."""
    text = msgspec.json.encode(_rounded(results))
    return text.replace(b',{"name":', b',\n{"name":') + b"\n"  # a row, or a curve, on each line


def decode(text: bytes) -> Results:
    """Return a file's results; raise ValueError where it is none, or one of another version."""
    try:
        results = msgspec.json.decode(text, type=Results)
    except msgspec.DecodeError as error:
        raise ValueError(f"not results of this bench: {error}") from None
    if results.version != VERSION:
        raise ValueError(f"these results have version {results.version}; this bench reads {VERSION}")
    return results


def _rounded(value: object) -> object:
    """Four digits are more than any of it is worth."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, msgspec.Struct):
        return {name: _rounded(one) for name, one in msgspec.structs.asdict(value).items()}
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
