"""The rules: Prometheus takes them, they name what natproxy exposes, and each alert is tried both ways."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.monitoring.exposed import VALUES, families, series
from tests.monitoring.promql import named
from tests.monitoring.reference import PATH, anchor, renewed
from tests.monitoring.rules import DIRECTORY, RULES, TESTS, Alert, alerts, cases, known_series, raw_metrics, records

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
ALERTS = alerts()
EXPRESSIONS = {**{alert.name: alert.expr for alert in ALERTS}, **records()}


def promtool(*words: str) -> str:
    """Run it beside the rules; return what it says."""
    done = subprocess.run(["promtool", *words], cwd=DIRECTORY, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    assert f"SUCCESS: {len(EXPRESSIONS)} rules found" in promtool("check", "rules", RULES.name)


@needs_promtool
def test_the_rules_do_as_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", TESTS.name)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_is_tried_where_it_fires_and_where_it_must_not_though_there_is_something(alert: Alert) -> None:
    of_it = [case for case in cases() if case.alert == alert.name]
    assert [case.where for case in of_it if case.fires]
    needed = raw_metrics(alert.expr)
    assert [
        case.where for case in of_it if not case.fires and needed <= {name.partition("{")[0] for name in case.series}
    ]


def test_no_case_is_of_an_alert_that_is_not_there() -> None:
    assert {case.alert for case in cases()} == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_what_it_is_how_bad_and_what_to_do(alert: Alert) -> None:
    assert alert.severity in {"critical", "warning", "info"}
    assert set(alert.annotations) == {"summary", "description", "runbook", "reference"}
    paragraphs = alert.annotations["runbook"].split("\n")
    assert [line.partition(":")[0] for line in paragraphs] == ["Means", "Look at", "Do"]
    assert alert.annotations["reference"] == anchor(alert.name)
    text = " ".join(alert.annotations.values())
    assert set(re.findall(r"natproxy_[a-z_]+", text)) <= set(series())


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_what_an_alert_s_texts_name_is_there_whenever_it_fires(alert: Alert) -> None:
    named_labels = set(re.findall(r"\$labels\.(\w+)", " ".join(alert.annotations.values())))
    for case in cases():
        for labels in case.fires if case.alert == alert.name else ():
            assert named_labels <= set(re.findall(r"(\w+)=", labels)), case.where


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_names_what_natproxy_exposes(name: str) -> None:
    known, found = known_series(), named(EXPRESSIONS[name])
    assert found.metrics
    assert found.metrics <= set(known)
    for matcher in found.matchers:
        assert matcher.label in known[matcher.metric], matcher
        assert set(matcher.alternatives) <= VALUES.get(matcher.label, set(matcher.alternatives)), matcher
    assert found.grouped <= frozenset().union(*(known[metric] for metric in found.metrics))


def test_the_cases_are_fed_what_natproxy_exposes() -> None:
    known = series()
    for case in cases():
        for one in case.series:
            metric, _, inside = one.partition("{")
            labels = dict(re.findall(r'(\w+)="([^"]*)"', inside))
            assert set(labels) <= known[metric], one
            for label, value in labels.items():
                assert value in VALUES.get(label, {value}) or not value, one


def test_the_manual_repeats_the_runbook_and_the_metrics() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert text == renewed(text), "python -m tests.monitoring.reference writes it anew"
    for alert in ALERTS:
        assert text.count(f"### {alert.name}\n") == 1
    for one in families():
        if one.name.startswith("natproxy_"):
            assert f"| `{one.name}` |" in text
