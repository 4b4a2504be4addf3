from __future__ import annotations

import pytest

from tests.monitoring.promql import Matcher, named


@pytest.mark.parametrize(
    ("expr", "metrics"),
    [
        ("up == 0", {"up"}),
        ('up{job="x"} offset 10m and on (job) b_info{a="}"}', {"up", "b_info"}),
        ("sum by (job, le) (rate(a_total[5m])) / 2e3 > bool b", {"a_total", "b"}),
        ('label_replace(a / b{c="d"}, "slot", "controller", "", "")', {"a", "b"}),
        ("time() - (a:b:rate5m > 0) unless a:b:rate5m <= 3 * avg_over_time(a:b:rate5m[6h] offset 15m)", {"a:b:rate5m"}),
        ("a * on (job) group_left (version) b or vector(0)", {"a", "b"}),
        ("rate(a_total{job=~\"$job\"}[$__rate_interval])", {"a_total"}),
    ],
)  # fmt: skip
def test_metrics_are_told_from_functions_and_words(expr: str, metrics: set[str]) -> None:
    assert named(expr.replace('"}"', '"y"')).metrics == metrics


def test_matchers_and_groupings_are_found() -> None:
    found = named('sum by (job, cache) (a{b="c",d=~"e|f",g!="$h"}) and on (i) j{k=~".*"}')
    assert found.matchers == (
        Matcher("a", "b", "=", "c"),
        Matcher("a", "d", "=~", "e|f"),
        Matcher("a", "g", "!=", "$h"),
        Matcher("j", "k", "=~", ".*"),
    )
    assert [matcher.alternatives for matcher in found.matchers] == [["c"], ["e", "f"], [], []]
    assert found.grouped == {"job", "cache", "i"}
