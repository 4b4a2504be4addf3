"""Where in the config file something stands, and what is wrong there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Place: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes from the top of the file down: ``("caches", 0, "ports")``."""

Plain: TypeAlias = "bool | str | list[Plain] | dict[str, Plain] | None"
"""What the loader makes of YAML. Numbers stay text as they were written, so that ``1.2`` and ``007`` lose nothing."""

_LONGEST_KEY = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake, or one thing to warn of."""

    place: Place
    message: str
    line: int | None = None
    """1-based, where it differs from the line of ``place``."""
    needs: tuple[Place, ...] = ()
    """Further values that this was concluded from: where one of them is wrong itself, nothing is concluded."""


def dotted(place: Place) -> str:
    """Return the place as users read it: ``caches[0].ports``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_shown(step)}" for step in place)
    return text.removeprefix(".")


def is_related(one: Place, other: Place) -> bool:
    """True where one of the two places lies within the other, or they are the same."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def existing(place: Place, lines: Mapping[Place, int]) -> Place:
    """Cut a place down to what stands in the file: one value may have been taken for a list of one."""
    while place and place not in lines:
        place = place[:-1]
    return place


def _shown(key: str) -> str:
    """Return a key so that it stays on one short line."""
    if not key or not key.isprintable():
        key = ascii(key)
    return key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}..."
