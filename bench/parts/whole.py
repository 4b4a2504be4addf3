"""Rounds in which what the client used counts, too: for ways that differ in what they leave to it. I/O: runs loads."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench.accounts import children_seconds, spent
from bench.peers.ports import Open
from bench.results import Reading
from bench.rounds import SETTLE_SECONDS, Load, Pace, fitting, reading, rotated


def measure(loads: Mapping[str, tuple[Load, int]], ways: Mapping[str, Open], pace: Pace) -> dict[str, list[Reading]]:
    """As rounds.measure; each way has a load of its own, with how much its warm-up does."""
    amounts = {
        name: fitting(first, load(ways[name], first).seconds, pace.seconds) for name, (load, first) in loads.items()
    }
    found: dict[str, list[Reading]] = {name: [] for name in ways}
    for number in range(pace.rounds):
        for name in rotated(list(ways), number):
            before, clients = ways[name].account.cpu_seconds(), children_seconds()
            done = loads[name][0](ways[name], amounts[name])
            time.sleep(SETTLE_SECONDS)
            used = spent(before, ways[name].account.cpu_seconds())
            found[name].append(reading(done, {**used, 0: children_seconds() - clients}))
    return found
