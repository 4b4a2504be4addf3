from __future__ import annotations

from natproxy.controller.configmetrics import ConfigCounts


def test_reloads_are_counted_by_result() -> None:
    def shown() -> list[float]:
        return [one.value for family in counts.families() for one in family.samples if "_created" not in one.name]

    clock = iter([100.0, 200.0, 300.0])
    counts = ConfigCounts(now=lambda: next(clock))
    assert shown() == [0, 0, 1, 100.0]
    counts.record_reload(is_accepted=True)
    counts.record_reload(is_accepted=False)
    assert shown() == [1, 1, 0, 200.0]
    counts.record_reload(is_accepted=True)
    assert shown() == [2, 1, 1, 300.0]
