"""All proxies by name: whether each can be run here, and running it. I/O: looks for programs, runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from bench import results
from bench.peers import compiled, haproxy, natproxy, nginx, socat, stunnel
from bench.peers.ports import Door, Open, Setting, own
from bench.programs import missing

Doors = dict[str, dict[str, Open]]
"""Proxy -> door -> where."""

RUN: dict[str, Callable[[tuple[Door, ...], Setting], AbstractContextManager[dict[str, Open]]]] = {
    results.NATPROXY: natproxy.run,
    results.HAPROXY: haproxy.run,
    results.NGINX: nginx.run,
    results.SOCAT: socat.run,
    results.STUNNEL: stunnel.run,
    results.COMPILED: compiled.run,
}
PROGRAMS = {
    results.HAPROXY: haproxy.PROGRAM,
    results.NGINX: nginx.PROGRAM,
    results.SOCAT: socat.PROGRAM,
    results.STUNNEL: stunnel.PROGRAM,
    results.COMPILED: compiled.PROGRAM,
}


def left_out(names: Iterable[str]) -> dict[str, str]:
    """Return those that cannot be run here, with the reason."""
    reasons = {name: missing(PROGRAMS[name]) for name in names if name in PROGRAMS}
    return {name: reason for name, reason in reasons.items() if reason is not None}


@contextlib.contextmanager
def open_doors(names: Iterable[str], doors: tuple[Door, ...], setting: Setting) -> Iterator[Doors]:
    """Run all of these that can be run, at once; yield their doors."""
    absent = left_out(names)
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(RUN[name](own(name, doors), setting)) for name in names if name not in absent}
