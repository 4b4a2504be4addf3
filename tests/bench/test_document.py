from __future__ import annotations

import pytest

from bench import document, tables
from tests.bench.samples import CURVE, PART, ROW

PARTS = {"relay": PART}


def marked(what: str, inside: str) -> str:
    return f"Before\n<!-- bench: {what} -->\n{inside}\n<!-- bench: end -->\nAfter\n"


@pytest.mark.parametrize(
    ("what", "filled"),
    [
        ("table relay", tables.table([ROW])),
        ("notes relay", "- left out: socat (not installed: socat)"),
        ("curve cost-by-value", tables.curve_table(CURVE)),
        ("origin relay", "`python -m bench relay` on 2026-01-02: 2 processors (some), HAProxy 2.6."),
    ],
)
def test_what_stands_between_markers_is_replaced(what: str, filled: str) -> None:
    assert document.fill(marked(what, "old\nlines"), PARTS) == marked(what, filled)


def test_filling_twice_changes_nothing() -> None:
    once = document.fill(marked("table relay", ""), PARTS)
    assert document.fill(once, PARTS) == once


@pytest.mark.parametrize(
    ("what", "why"), [("graph relay", "no marker"), ("table tls", "lack tls"), ("curve nothing", "no curve nothing")]
)
def test_a_marker_that_cannot_be_filled_is_an_error(what: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        document.fill(marked(what, ""), PARTS)
