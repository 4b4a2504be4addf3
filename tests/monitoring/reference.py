"""The parts of docs/monitoring.md that repeat what the rules and the registry say.

``python -m tests.monitoring.reference`` writes them anew. I/O: that file.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from tests.monitoring.exposed import families
from tests.monitoring.rules import Alert, alerts

PATH = Path(__file__).parents[2] / "docs" / "monitoring.md"
_VALUE = re.compile(r"\{\{ \$value[^}]*\}\}")
_LABEL = re.compile(r"\{\{ \$labels\.(\w+) \}\}")


def anchor(name: str) -> str:
    """Return where an alert's part begins, as the rules refer to it."""
    return f"docs/monitoring.md#{name.lower()}"


def runbook() -> str:
    """Return a part for each alert."""
    return "\n".join(map(_part, alerts()))


def metrics() -> str:
    """Return a table of natproxy's own metrics."""
    rows = ["| metric | labels | what it is |", "|---|---|---|"]
    rows += [
        f"| `{one.name}` | {', '.join(one.labels)} | {one.text} |"
        for one in families()
        if one.name.startswith("natproxy_")
    ]
    return "\n".join(rows) + "\n"


def _part(alert: Alert) -> str:
    lasts = "at once" if alert.lasts == "0s" else f"after {alert.lasts}"
    paragraphs = [re.sub(r"^([A-Z][a-z ]+):", r"**\1:**", line) for line in alert.annotations["runbook"].splitlines()]
    opening = f"*{alert.severity}, {lasts}*: {_plain(alert.annotations['summary'])}."
    return "\n\n".join((f"### {alert.name}", *map(_wrapped, (opening, *paragraphs)))) + "\n"


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def _plain(text: str) -> str:
    return _LABEL.sub(lambda found: found[1].upper(), _VALUE.sub("N", text))


PARTS = {"runbook": runbook, "metrics": metrics}


def renewed(text: str) -> str:
    """Return the file's text with its parts written anew."""
    for name, part in PARTS.items():
        pattern = rf"(<!-- {name}: written by tests/monitoring/reference.py -->\n\n).*?(\n<!-- end of {name} -->)"
        pieces = re.split(pattern, text, maxsplit=1, flags=re.DOTALL)
        assert len(pieces) == 4, f"{PATH.name} has no place for the {name}"
        text = pieces[0] + pieces[1] + part() + pieces[2] + pieces[3]
    return text


if __name__ == "__main__":
    PATH.write_text(renewed(PATH.read_text(encoding="utf-8")), encoding="utf-8")
