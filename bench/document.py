"""Puts results into a document, between markers. Pure.

    <!-- bench: table relay tls -->     the table of these parts' rows
    <!-- bench: notes relay tls -->     what has to be said beside it
    <!-- bench: curve values -->        a curve as a table
    <!-- bench: origin relay -->        command, date and machine
    <!-- bench: end -->

What stands between a marker and the next ``end`` is replaced; the markers stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from bench import tables
from bench.results import Part

MARKER = re.compile(r"<!-- bench: (?P<kind>\w+)(?P<names>[^>]*?) -->\n.*?<!-- bench: end -->", re.DOTALL)


def fill(text: str, parts: Mapping[str, Part]) -> str:
    """Return the document with its marked places filled. Raises ValueError at a marker that cannot be."""

    def one(found: re.Match[str]) -> str:
        kind, names = found["kind"], found["names"].split()
        if kind not in KINDS:
            raise ValueError(f"no marker is called {kind}; there are {', '.join(KINDS)}")
        return f"<!-- bench: {kind} {' '.join(names)} -->\n{KINDS[kind](names, parts)}\n<!-- bench: end -->"

    return MARKER.sub(one, text)


def _chosen(names: Sequence[str], parts: Mapping[str, Part]) -> list[Part]:
    if lacking := [name for name in names if name not in parts]:
        raise ValueError(f"these results lack {', '.join(lacking)}: python -m bench {' '.join(lacking)}")
    return [parts[name] for name in names]


def _table(names: Sequence[str], parts: Mapping[str, Part]) -> str:
    return tables.table([row for part in _chosen(names, parts) for row in part.rows])


def _notes(names: Sequence[str], parts: Mapping[str, Part]) -> str:
    return "\n".join(f"- {note}" for part in _chosen(names, parts) for note in tables.notes(part))


def _curve(names: Sequence[str], parts: Mapping[str, Part]) -> str:
    curves = {curve.name: curve for part in parts.values() for curve in part.curves}
    if lacking := [name for name in names if name not in curves]:
        raise ValueError(f"these results have no curve {', '.join(lacking)}")
    return "\n\n".join(tables.curve_table(curves[name]) for name in names)


def _origin(names: Sequence[str], parts: Mapping[str, Part]) -> str:
    _chosen(names, parts)
    together: dict[str, list[str]] = {}
    """What is said after the parts' names -> these."""
    for name in names:
        part = parts[name]
        machine = dict(part.machine)
        where = f"{machine.pop('processors', '?')} processors ({machine.pop('processor', '?')})"
        with_what = ", ".join(f"{what} {version}" for what, version in machine.items())
        options = part.command.partition(f" {name}")[2]
        together.setdefault(f"{options}` on {part.date}: {where}, {with_what}.", []).append(name)
    return "\n".join(f"`python -m bench {' '.join(measured)}{rest}" for rest, measured in together.items())


KINDS: dict[str, Callable[[Sequence[str], Mapping[str, Part]], str]] = {
    "table": _table,
    "notes": _notes,
    "curve": _curve,
    "origin": _origin,
}
