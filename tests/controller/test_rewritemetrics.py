from __future__ import annotations

from collections import Counter

from natproxy.controller.rewritemetrics import Rewrites, hint_family, rewrite_families
from natproxy.messages import RouteCounts
from natproxy.wire.rewriter import Fallback, Hint, Reply


def counts(rewritten: dict[str, int], fallbacks: dict[str, int]) -> RouteCounts:
    return RouteCounts(6379, 0, 0, {}, 0, 0, (), 0.0, (), rewritten=rewritten, fallbacks=fallbacks)


def test_replies_and_fallbacks_are_added_up_by_kind() -> None:
    rewrites = Rewrites()
    rewrites.add(counts({Reply.MOVED: 2, Reply.SLOTS: 1}, {Fallback.MONITOR: 1}))
    rewrites.add(counts({Reply.MOVED: 3}, {Fallback.TOO_LARGE: 4}))
    families = rewrite_families([(["a", "6379"], rewrites), (["b", "6380"], Rewrites())], ["cache", "port"])
    assert [
        (sample.name, tuple(sample.labels.values()), sample.value) for family in families for sample in family.samples
    ] == [
        ("natproxy_replies_rewritten_total", ("a", "6379", "moved"), 5),
        ("natproxy_replies_rewritten_total", ("a", "6379", "cluster-slots"), 1),
        ("natproxy_rewrite_fallbacks_total", ("a", "6379", "monitor"), 1),
        ("natproxy_rewrite_fallbacks_total", ("a", "6379", "too-large"), 4),
    ]


def test_every_hint_is_there_from_the_start() -> None:
    family = hint_family(Counter({Hint.READ_ONLY.value: 2}))
    assert {sample.labels["hint"]: sample.value for sample in family.samples} == {
        "unknown-node": 0,
        "moved-to-self": 0,
        "read-only": 2,
    }
