"""How many descriptors a process may have: as many as its user may."""

from __future__ import annotations

import resource

import pytest

from natproxy.worker.limits import descriptor_limit, raise_descriptor_limit


class Kernel:
    """Grants ``most`` at most, whatever the hard limit says."""

    def __init__(self, soft: int, hard: int, most: int) -> None:
        self.limits = (soft, hard)
        self._most = most

    def getrlimit(self, _which: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _which: int, limits: tuple[int, int]) -> None:
        if limits[0] > self._most:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "most", "granted"),
    [
        (1024, 524_288, 524_288, 524_288),
        (524_288, 524_288, 524_288, 524_288),
        (256, 1 << 62, 10_240, 10_240),  # macOS: the hard limit is infinity, and is not to be had
        (12_000, 1 << 62, 10_240, 12_000),  # nothing is taken away
        (256, 1 << 62, 512, 256),
    ],
)
def test_it_asks_for_all_that_it_can_get(
    soft: int, hard: int, most: int, granted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(soft, hard, most)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    raise_descriptor_limit()
    assert descriptor_limit() == granted
    assert kernel.limits[1] == hard
