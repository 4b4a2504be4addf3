from __future__ import annotations

from natproxy.doctor.findings import Check, Finding, Verdict


def test_the_checks_stand_in_the_order_in_which_things_fail() -> None:
    order = list(Check)
    assert order.index(Check.CREDENTIALS) < order.index(Check.CACHES) < order.index(Check.NAMES)
    assert order.index(Check.NAMES) < order.index(Check.REACH) < order.index(Check.NODE_TLS)


def test_a_finding_is_data() -> None:
    one = Finding(Check.CLOCK, "", Verdict.GOOD, "in step")
    assert one == Finding(Check.CLOCK, "", Verdict.GOOD, "in step", "")
    assert f"{one.check} {one.verdict}" == "clock good"
