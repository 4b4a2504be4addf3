"""redis-benchmark: how it is called, and what it says. I/O: runs it."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS = 60.0
"""No run may take longer."""


@dataclass(frozen=True)
class Answer:
    """What a run of redis-benchmark reported: the mean of its tests."""

    requests: int
    seconds: float
    p50: float
    """Milliseconds."""
    p99: float


def command(host: str, port: int, tests: Sequence[str], requests: int, options: Sequence[str]) -> list[str]:
    """Return the command line of a run; ``requests`` are those of each test."""
    asked = ["-h", host, "-p", str(port), "-t", ",".join(tests), "-n", str(requests), "--csv"]
    return ["redis-benchmark", *asked, *options]


def parse(text: str, requests: int) -> Answer:
    """Return what ``--csv`` says. Raises ValueError where it says something else."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"test"')), None)
    if start is None:
        raise ValueError(f"redis-benchmark said: {text[-300:]!r}")
    tests = list(csv.DictReader(lines[start:]))
    if not tests:
        raise ValueError(f"redis-benchmark ran no test: {text[-300:]!r}")
    rates = [float(test["rps"]) for test in tests]
    return Answer(
        requests=requests * len(tests),
        seconds=sum(requests / rate for rate in rates),
        p50=sum(float(test["p50_latency_ms"]) for test in tests) / len(tests),
        p99=sum(float(test["p99_latency_ms"]) for test in tests) / len(tests),
    )


def run(
    port: int,
    tests: Sequence[str],
    requests: int,
    options: Sequence[str],
    *,
    host: str = "127.0.0.1",
    prefix: Sequence[str] = (),
) -> Answer:
    """Run it, ``prefix`` in front; raises RuntimeError where it fails."""
    argv = [*prefix, *command(host, port, tests, requests, options)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed: {done.stdout[-300:]} {done.stderr[-300:]}")
    return parse(done.stdout, requests)
