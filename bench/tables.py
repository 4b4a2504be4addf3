"""Results as tables in Markdown. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench import ratios
from bench.ratios import Ratio
from bench.results import COMPILED, DNAT, NATPROXY, NGINX, SOCAT, STUNNEL, Curve, Part, Row

OTHERS = (NGINX, STUNNEL, SOCAT, COMPILED, DNAT)
NONE = "-"


def table(rows: Sequence[Row]) -> str:
    """Return a table of ratios for each that they are against; of the other proxies those that were measured."""
    return "\n\n".join(
        _table(against, [row for row in rows if row.against == against])
        for against in dict.fromkeys(row.against for row in rows)
    )


def _table(against: str, rows: Sequence[Row]) -> str:
    others = [name for name in OTHERS if any(name in row.readings for row in rows)]
    head = ["workload", "ratio", "spread", "rate", "p50", "p99", NATPROXY, against, *others, "reach"]
    return _grid(head, [_cells(row, others) for row in rows])


def _cells(row: Row, others: Sequence[str]) -> list[str]:
    cost = ratios.costs(row)
    return [
        row.name,
        NONE if cost is None else f"{cost.median:.2f}",
        NONE if cost is None else f"{cost.least:.2f}-{cost.most:.2f}",
        _median(ratios.rates(row)),
        _median(ratios.p50s(row)),
        _median(ratios.p99s(row)),
        _cost(row, NATPROXY),
        _cost(row, row.against),
        *(_median(ratios.costs(row, name)) for name in others),
        _reach(row),
    ]


def _median(found: Ratio | None) -> str:
    return NONE if found is None else f"{found.median:.2f}"


def _cost(row: Row, proxy: str) -> str:
    found = ratios.median_cost(row, proxy)
    if found is None:
        return NONE
    if row.unit == "us/GB":
        return f"{found / 1000:.0f} ms/GB"
    return f"{found:.{1 if found >= 2 else 2}f} {row.unit}"


def _reach(row: Row) -> str:
    found = ratios.reached(row)
    if found is None:
        return NONE
    value, is_met = found
    by = {"cost": "", "p50": " by p50", "rate": " by rate", "value": f" {row.unit}"}[row.basis]
    spread = ratios.basis(row) if row.basis in {"p50", "rate"} else None
    more = f" ({value:.2f}, {spread.least:.2f}-{spread.most:.2f})" if spread else "" if is_met else f" ({value:.2f})"
    return f"{row.reach:g}{by}: {'met' if is_met else 'missed'}{more}"


def report(parts: Mapping[str, Part]) -> str:
    """Return everything as one text: the table of all parts' rows, the curves as tables, and what has to be said."""
    rows = [row for part in parts.values() for row in part.rows]
    texts = [table(rows)] if rows else []
    texts += [curve_table(curve) for part in parts.values() for curve in part.curves]
    if said := [f"- {note}" for part in parts.values() for note in notes(part)]:
        texts.append("\n".join(said))
    return "\n\n".join(texts) + "\n"


def notes(part: Part) -> list[str]:
    """Return what has to be said beside a part's table."""
    found = [f"{row.name}: {note}" for row in part.rows for note in row.notes]
    return found + [f"left out: {what} ({why})" for what, why in part.left_out.items()]


def curve_table(curve: Curve) -> str:
    """Return a curve's medians."""
    names = list(dict.fromkeys(name for point in curve.points for name in point.y))
    lines = [
        [f"{point.x:,}", *(_number(point.y[name]) if name in point.y else NONE for name in names)]
        for point in curve.points
    ]
    return f"{curve.name}: {curve.y_name}\n\n" + _grid([curve.x_name, *names], lines)


def _number(values: Sequence[float]) -> str:
    found = statistics.median(values)
    return f"{found:.3g}" if abs(found) < 1000 else f"{found:,.0f}"


def _grid(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*text, *("| " + " | ".join(line) + " |" for line in lines)])
