"""The rules and their tests, as they are written. I/O: reads the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.monitoring.exposed import TARGET, series
from tests.monitoring.promql import named

DIRECTORY = Path(__file__).parents[2] / "monitoring" / "prometheus"
RULES = DIRECTORY / "natproxy.rules.yml"
TESTS = DIRECTORY / "natproxy.rules.test.yml"
_ANY = 'ALERTS{alertstate="firing"}'
_ASKED = re.compile(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}')


class Alert(NamedTuple):
    """One alert."""

    name: str
    expr: str
    lasts: str
    """How long it must be so, as Prometheus writes durations; 0s = not at all."""
    severity: str
    annotations: dict[str, str]


class Case(NamedTuple):
    """One moment at which an alert is looked at."""

    alert: str
    where: str
    series: tuple[str, ...]
    """What the case has of, as selectors."""
    fires: tuple[str, ...]
    """The firing alerts that are expected."""


def _rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]


@cache
def alerts() -> list[Alert]:
    """Return all alerts."""
    return [
        Alert(rule["alert"], rule["expr"], rule.get("for", "0s"), rule["labels"]["severity"], rule["annotations"])
        for rule in _rules()
        if "alert" in rule
    ]


@cache
def records() -> dict[str, str]:
    """Return the name of each recorded series -> its expression."""
    return {rule["record"]: rule["expr"] for rule in _rules() if "record" in rule}


@cache
def known_series() -> dict[str, frozenset[str]]:
    """Return what natproxy exposes and what is recorded of it: name -> labels."""
    known = series()
    for name, expr in records().items():
        labels = frozenset[str]().union(*(known[metric] for metric in named(expr).metrics))
        given = re.findall(r'label_replace\(.*?"(\w+)",', expr, re.DOTALL)
        known[name] = labels | TARGET | set(given)
    return known


def raw_metrics(expr: str) -> frozenset[str]:
    """Return the metrics that an expression rests on, through recorded ones."""
    recorded = records()
    return frozenset().union(
        *(raw_metrics(recorded[name]) if name in recorded else {name} for name in named(expr).metrics)
    )


@cache
def cases() -> list[Case]:
    """Return all moments at which the tests of the rules look at one alert; some look at all of them at once."""
    found = []
    for group in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]:
        given = tuple(one["series"] for one in group["input_series"])
        for test in group["promql_expr_test"]:
            if test["expr"] == _ANY:
                continue
            asked = _ASKED.fullmatch(test["expr"])
            assert asked is not None, test
            fires = tuple(sample["labels"] for sample in test["exp_samples"])
            found.append(Case(asked[1], f"{group['name']} at {test['eval_time']}", given, fires))
    return found
