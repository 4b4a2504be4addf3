from __future__ import annotations

from natproxy.controller.changes import NodeChange
from natproxy.controller.discoverymetrics import DiscoveryCounts
from natproxy.model import DiscoveryFailure


def samples(counts: DiscoveryCounts) -> dict[str, float]:
    """Return every sample by its name and, where it has one, its label's value."""
    return {
        " ".join([sample.name.removeprefix("natproxy_"), *sample.labels.values()]): sample.value
        for family in counts.families()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_rounds_of_discovery_are_counted_by_reason() -> None:
    counts = DiscoveryCounts(now=lambda: 1735689600.0)
    counts.record_round(DiscoveryFailure.DENIED)
    assert samples(counts)["discovery_last_success_timestamp_seconds"] == 0
    counts.record_round(None)
    counts.record_round(DiscoveryFailure.DENIED)
    found = samples(counts)
    assert found["discovery_last_success_timestamp_seconds"] == 1735689600.0
    assert found["discovery_runs_total"] == 3
    failures = {name: value for name, value in found.items() if name.startswith("discovery_failures_total")}
    assert len(failures) == len(DiscoveryFailure)
    assert {name: value for name, value in failures.items() if value} == {"discovery_failures_total denied": 2}


def test_changes_and_names_are_counted_and_readiness_is_shown() -> None:
    counts = DiscoveryCounts()
    assert (samples(counts)["ready"], samples(counts)["node_changes_total gone"]) == (0, 0)
    counts.show(15.0, is_ready=True)
    counts.record_change(NodeChange.GONE, 2)
    counts.record_name_failure()
    found = samples(counts)
    assert (found["ready"], found["discovery_refresh_seconds"]) == (1, 15)
    assert (found["node_changes_total gone"], found["node_changes_total added"]) == (2, 0)
    assert found["name_failures_total"] == 1
