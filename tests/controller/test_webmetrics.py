from __future__ import annotations

from natproxy.controller.webmetrics import SideCounts


def test_what_a_side_counts_carries_its_name() -> None:
    counts = SideCounts("portal")
    for code in (200, 404, 200):
        counts.record_request(code)
    counts.record_refusal("network")
    found = {
        (sample.name, *sample.labels.values()): sample.value for one in counts.families() for sample in one.samples
    }
    assert found == {
        ("natproxy_portal_requests_total", "200"): 2,
        ("natproxy_portal_requests_total", "404"): 1,
        ("natproxy_portal_refusals_total", "network"): 1,
    }


def test_a_side_that_nobody_asks_has_its_families_all_the_same() -> None:
    assert [one.name for one in SideCounts("admin").families()] == [
        "natproxy_admin_requests",
        "natproxy_admin_refusals",
    ]
