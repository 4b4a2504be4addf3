from __future__ import annotations

import msgspec

from bench import tables
from bench.results import NATPROXY, UNREAD, Reading, Row
from tests.bench.samples import CURVE, MEMORY, PART, ROW


def cells(text: str) -> list[list[str]]:
    """Return a table's lines, the ruler left out."""
    lines = [line.strip("|").split("|") for line in text.splitlines()]
    return [[cell.strip() for cell in line] for number, line in enumerate(lines) if number != 1]


def test_the_table_has_ratios_costs_other_proxies_and_the_reach() -> None:
    head, row, memory = cells(tables.table([ROW, MEMORY]))
    assert head == [
        "workload", "ratio", "spread", "rate", "p50", "p99", "natproxy", "HAProxy", "nginx", "compiled", "reach",
    ]  # fmt: skip
    assert row == [
        "GET, 50 clients", "0.90", "0.50-1.00", "1.10", "0.80", "2.00", "11.0 us", "9.0 us", "0.50", "2.00",
        "0.95: missed (0.90)",
    ]  # fmt: skip
    assert memory[1] == "2.00"
    assert memory[6:] == ["1.50 KB", "3.0 KB", "-", "-", "3.5 KB: met"]


def test_every_line_has_as_many_cells_as_the_head() -> None:
    lines = tables.table([ROW, MEMORY]).splitlines()
    assert len({line.count("|") for line in lines}) == 1


def test_a_stream_s_cost_is_told_for_each_gigabyte() -> None:
    row = Row("one stream up", "us/GB", {NATPROXY: [Reading(400_000.0)]})
    assert "| 400 ms/GB |" in tables.table([row])


def test_a_reach_by_something_else_than_cost_says_so() -> None:
    row = msgspec.structs.replace(ROW, basis="p50", reach=0.5)
    assert tables.table([row]).endswith("| 0.5 by p50: met (0.80, 0.60-1.00) |")


def test_a_report_has_the_tables_and_says_what_was_left_out() -> None:
    part = msgspec.structs.replace(PART, rows=[msgspec.structs.replace(ROW, notes=("one more thing",))])
    report = tables.report({"relay": part})
    assert tables.table([ROW]) in report
    assert tables.curve_table(CURVE) in report
    assert "- GET, 50 clients: one more thing\n- left out: socat (not installed: socat)\n" in report


def test_a_curve_is_a_table_of_medians() -> None:
    assert cells(tables.curve_table(CURVE).partition("\n\n")[2]) == [
        ["bytes of a value", "natproxy", "HAProxy"],
        ["16", "2", "4"],
        ["1,048,576", "2,000", "-"],
    ]


def test_rows_against_different_ones_are_in_tables_of_their_own() -> None:
    read = Row("GET", "us", {NATPROXY: [Reading(2.0)], UNREAD: [Reading(1.0)]}, reach=0.4, against=UNREAD)
    first, second = tables.table([ROW, read, MEMORY]).split("\n\n")
    assert first == tables.table([ROW, MEMORY])
    head, row = cells(second)
    assert head[6:] == ["natproxy", "rewrite: off", "reach"]
    assert row == ["GET", "0.50", "0.50-0.50", "-", "-", "-", "2.0 us", "1.00 us", "0.4: met"]
