"""The course of a soak: a warm-up in which everything happens once, then the same for minutes, then the reckoning.

I/O: runs the stage, and the client programs in processes of their own.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.rounds import tell
from bench.soak.ledger import Ledger
from bench.soak.orders import Order, encode, told_of
from bench.soak.stage import CHANGES, Stage, staged
from bench.soak.verdict import Line, Seen, counted, judge

ROOT = Path(__file__).parents[2]
PROGRAMS = ("visitors", "strangers")
SETTLE_SECONDS = 1.0
"""Until memory is looked at."""
LATE_SECONDS = 90.0
"""After its time a program is one that hangs; a reply alone may take REPLY_SECONDS."""


@dataclass(frozen=True)
class Course:
    """How long, and what happens to the nodes."""

    seconds: float
    warm_up_seconds: float = 20.0
    warm_up: Sequence[str] = CHANGES
    changes: Sequence[str] = CHANGES
    pause_seconds: float = 2.0
    """Between two changes."""
    seed: int = 1


class Phase(NamedTuple):
    """A part of the course."""

    name: str
    seconds: float
    changes: Iterator[str]


def soak(course: Course) -> list[Line]:
    """Return what must hold, and whether it does."""
    seen = Seen()
    ledger = Ledger()
    chance = random.Random(course.seed)
    with staged(course.seed) as stage:
        before = _phase(stage, course, Phase("warm-up", course.warm_up_seconds, iter(course.warm_up)), seen, ledger)
        after = _phase(stage, course, Phase("soak", course.seconds, _drawn(chance, course.changes)), seen, ledger)
        seen.memory = {name: (before[name], after[name]) for name in before}
        tell("  the reckoning")
        seen.written, seen.lost = ledger.count, stage.flaws(ledger)
        seen.changes = stage.changes
        seen.connections = sum(stage.counted("natproxy_connections_total", "port").values())
        seen.fallbacks = stage.counted("natproxy_rewrite_fallbacks_total", "reason")
        seen.rewritten = stage.counted("natproxy_replies_rewritten_total", "reply")
        seen.failures = stage.failures()
    tell(f"  came and went: {counted(seen.told.visits)}")
    tell(f"  failed while nodes changed: {counted(seen.told.errors)}")
    return judge(seen)


def _drawn(chance: random.Random, changes: Sequence[str]) -> Iterator[str]:
    while True:
        yield chance.choice(changes)


def _phase(stage: Stage, course: Course, phase: Phase, seen: Seen, ledger: Ledger) -> dict[str, int]:
    """Let clients come and go, and nodes change meanwhile; return the memory at rest after it."""
    until = time.monotonic() + phase.seconds
    programs = _begin(stage, phase, course.seed)
    try:
        for change in phase.changes:
            memory = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in stage.memory().items())
            tell(f"  {phase.name}, {max(0, until - time.monotonic()):.0f} s to go: {change} ({memory})")
            stage.change(change)
            time.sleep(course.pause_seconds)
            if time.monotonic() > until:
                break
        _end(programs, until, seen, ledger)
    finally:
        for program in programs.values():
            program.kill()
            program.wait()
    seen.left_open += stage.wait_for_rest()
    time.sleep(SETTLE_SECONDS)
    return stage.memory()


def _begin(stage: Stage, phase: Phase, seed: int) -> dict[str, subprocess.Popen[str]]:
    order = Order(phase.name, seed, phase.seconds, stage.ip, stage.ports, stage.hidden())
    return {
        program: subprocess.Popen(
            [sys.executable, "-m", f"bench.soak.{program}", encode(order)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for program in PROGRAMS
    }


def _end(programs: dict[str, subprocess.Popen[str]], until: float, seen: Seen, ledger: Ledger) -> None:
    """Wait for the programs, and take in what they tell."""
    for name, program in programs.items():
        try:
            said, complaint = program.communicate(timeout=max(0.0, until - time.monotonic()) + LATE_SECONDS)
        except subprocess.TimeoutExpired:
            seen.broken.append(f"{name} does not end")
            continue
        if program.returncode:
            seen.broken.append(f"{name}: {complaint[-500:]}")
            continue
        told = told_of(said)
        seen.told.add(told)
        if told.ledger is not None:
            ledger.add(Ledger.of(told.ledger))
