"""What one program has written into the cluster, and what must be there at the end. Pure.

Each write has a number, which its value begins with. Where a write failed nobody knows whether it came to pass, perhaps
later: its key is not written again. So what is read must be what was acknowledged last, or, of a key that failed, what
was attempted last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def value(number: int, size: int) -> bytes:
    """Return the value of a write: at least as long as its number needs."""
    return (b"%d:" % number).ljust(size, b"x")


def number_of(found: bytes) -> int | None:
    """Return which write a value is of; None where it is no value of ours, or a damaged one."""
    digits, colon, filling = found.partition(b":")
    return int(digits) if digits.isdigit() and colon and not filling.strip(b"x") else None


@dataclass
class Ledger:
    """Of each key the number, and the size, of its last write."""

    acknowledged: dict[str, tuple[int, int]] = field(default_factory=dict)
    attempted: dict[str, tuple[int, int]] = field(default_factory=dict)
    count: int = 0
    """Writes acknowledged in all."""

    def attempt(self, keys: list[str], size: int) -> bytes:
        """Take note that these are about to be written; return the value."""
        number = 1 + max(self.attempted.get(key, (0, 0))[0] for key in keys)
        self.attempted |= dict.fromkeys(keys, (number, size))
        return value(number, size)

    def acknowledge(self, keys: list[str]) -> None:
        """Take note that these have been written."""
        self.count += len(keys)
        for key in keys:
            self.acknowledged[key] = self.attempted[key]

    def add(self, other: Ledger) -> None:
        """Take in what somebody else wrote, under keys of his own."""
        self.acknowledged |= other.acknowledged
        self.attempted |= other.attempted
        self.count += other.count

    def is_doubtful(self, key: str) -> bool:
        """Whether the last write of a key was not acknowledged."""
        return self.attempted.get(key) != self.acknowledged.get(key)

    def flaw(self, key: str, found: bytes | None) -> str | None:
        """Return what is wrong with what was read; None where nothing is."""
        told, tried = self.acknowledged.get(key), self.attempted.get(key)
        good = {None if told is None else value(*told), None if tried is None else value(*tried)}
        if found in good:
            return None
        if found is not None and number_of(found) is None:
            return f"{key} is damaged: {found[:40]!r}, {len(found)} bytes"
        number = None if found is None else number_of(found)
        return f"{key} has write {number}, of {told} acknowledged and {tried} attempted"

    def plain(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {"acknowledged": self.acknowledged, "attempted": self.attempted, "count": self.count}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Ledger:
        """Return what ``plain`` was made of."""
        told, tried = (
            {key: (int(number), int(size)) for key, (number, size) in plain[name].items()}
            for name in ("acknowledged", "attempted")
        )
        return cls(told, tried, plain["count"])
