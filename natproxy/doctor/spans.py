"""Port numbers as runs, and as a person writes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def spans(ports: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Join ports that follow each other: (first, last) of each run, ascending."""
    found: list[tuple[int, int]] = []
    for port in sorted(set(ports)):
        if found and found[-1][1] == port - 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return tuple(found)


def written(ports: Iterable[int]) -> str:
    """Write ports as a person does: ``6379-6381, 11211``."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans(ports))
