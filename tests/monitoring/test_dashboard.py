"""The dashboard: what Grafana needs is there, and its queries name what natproxy exposes."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from monitoring.grafana import dashboard, panels
from natproxy.controller.activity import TURNED_AWAY
from tests.monitoring.exposed import VALUES, families
from tests.monitoring.promql import named
from tests.monitoring.rules import known_series

SHOWN: dict[str, Any] = json.loads(dashboard.PATH.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in SHOWN["panels"] if panel["type"] != "row"]
ROWS = [panel for panel in SHOWN["panels"] if panel["type"] == "row"]
NOT_SHOWN = {"natproxy_dial_seconds"}
"""Its buckets are."""
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES += [mark["expr"] for mark in SHOWN["annotations"]["list"]]


def titles(panel: dict[str, Any]) -> str:
    return str(panel["title"])


def test_the_file_is_what_the_code_writes() -> None:
    text = dashboard.PATH.read_text(encoding="utf-8")
    assert text == dashboard.text(), "python -m monitoring.grafana.dashboard writes it anew"


def test_it_is_a_dashboard_that_grafana_10_imports_anywhere() -> None:
    assert SHOWN["schemaVersion"] == 39
    assert SHOWN["id"] is None
    assert SHOWN["uid"] == SHOWN["title"] == "natproxy"
    variables = {one["name"]: one for one in SHOWN["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance", "cache", "node"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    sources = [one["datasource"] for one in (*PANELS, *SHOWN["annotations"]["list"], *SHOWN["templating"]["list"][1:])]
    sources += [target["datasource"] for panel in PANELS for target in panel["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    everything = SHOWN["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)
    places = [panel["gridPos"] for panel in everything]
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
    assert all(place["x"] >= 0 and place["w"] > 0 and place["x"] + place["w"] <= 24 for place in places)
    assert [row["title"] for row in ROWS] == list(panels.ROWS)


@pytest.mark.parametrize("panel", PANELS, ids=titles)
def test_a_panel_says_what_it_shows_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"timeseries", "stat", "bargauge", "table"}
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    steps = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert steps[0] is None
    assert steps[1:] == sorted(steps[1:])
    assert panel["targets"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters)
    for target in panel["targets"]:
        assert target["expr"]
        assert target["legendFormat"]
        assert target["instant"] is not target["range"]
        assert target["format"] == ("table" if panel["type"] == "table" else "time_series")
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"]


@pytest.mark.parametrize("expr", QUERIES)
def test_a_query_names_what_natproxy_exposes(expr: str) -> None:
    known, found = known_series(), named(expr)
    assert found.metrics <= set(known)
    for matcher in found.matchers:
        assert matcher.label in known[matcher.metric], matcher
        assert set(matcher.alternatives) <= VALUES.get(matcher.label, set(matcher.alternatives)), matcher
    assert found.grouped - {"version"} <= frozenset().union(*(known[metric] for metric in found.metrics))


@pytest.mark.parametrize("expr", QUERIES)
def test_a_query_is_limited_by_every_variable_that_its_metrics_have_a_label_for(expr: str) -> None:
    known, found = known_series(), named(expr)
    for metric in found.metrics - {"ALERTS"}:
        limited = {one.label for one in found.matchers if one.metric == metric and one.value == f"${one.label}"}
        assert limited == known[metric] & {"job", "instance", "cache", "node"}, metric


@pytest.mark.parametrize("panel", PANELS, ids=titles)
def test_what_a_legend_names_is_a_label_of_what_is_asked_for(panel: dict[str, Any]) -> None:
    known = known_series()
    for target in panel["targets"]:
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        found = named(target["expr"])
        kept = re.match(r"(?:topk\(10, )?(?:histogram_quantile\([\d.]+, )?sum by \(([^)]*)\)", target["expr"])
        labels = frozenset().union(*(known[metric] for metric in found.metrics))
        assert shown <= (set(re.split(r",\s*", kept[1])) if kept else labels), target


def test_all_that_natproxy_counts_is_shown_somewhere() -> None:
    asked = frozenset().union(*(named(expr).metrics for expr in QUERIES))
    ours = {one.name for one in families() if one.name.startswith("natproxy_")}
    assert ours - asked - NOT_SHOWN == set()


def test_refusals_by_cache_are_those_that_are_counted_as_refusals() -> None:
    assert set(panels.TURNED_AWAY.split("|")) == {outcome.value for outcome in TURNED_AWAY}
