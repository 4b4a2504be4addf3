"""The names of the stand-in world: what each answers, and whose turn it is where answers rotate. Pure."""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

MAX_ALIAS_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Record:
    """What one name leads to: addresses, or other names."""

    addresses: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    """CNAME targets; one of them is answered at a time, in turn."""
    window: int | None = None
    """How many of the addresses one answer carries, moving on by one each time; None = all."""


class ResourceRecord(NamedTuple):
    """One line of an answer."""

    owner: str
    kind: str
    """A | AAAA | CNAME."""
    value: str


class Zone:
    """All names. May be asked and changed from any thread.

    Names published by a world are replaced as a whole at each change of it; names set by hand win over them.
    """

    def __init__(self, ttl_seconds: int = 15) -> None:
        self.ttl_seconds = ttl_seconds
        self._published: dict[str, Record] = {}
        self._by_hand: dict[str, Record] = {}
        self._turns: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def publish(self, records: Mapping[str, Record]) -> None:
        """Replace every name that was published before."""
        with self._lock:
            self._published = {_canonical(name): record for name, record in records.items()}

    def put(self, name: str, *addresses: str, window: int | None = None) -> None:
        """Let a name answer these addresses, whatever is published."""
        with self._lock:
            self._by_hand[_canonical(name)] = Record(addresses=tuple(addresses), window=window)

    def alias(self, name: str, *targets: str) -> None:
        """Let a name lead to other names, one at a time in turn, whatever is published."""
        with self._lock:
            self._by_hand[_canonical(name)] = Record(aliases=tuple(targets))

    def drop(self, name: str) -> None:
        """Forget what was set by hand."""
        with self._lock:
            self._by_hand.pop(_canonical(name), None)

    def names(self) -> tuple[str, ...]:
        """Every name that exists."""
        with self._lock:
            return tuple(sorted(self._published.keys() | self._by_hand.keys()))

    def record(self, name: str) -> Record | None:
        """What a name leads to now; None where it does not exist."""
        with self._lock:
            return self._record(name)

    def answer(self, name: str, kind: str) -> tuple[ResourceRecord, ...] | None:
        """Answer a query of ``kind`` (A | AAAA | CNAME | any other); None = the name does not exist.

        Each call takes the name's next turn. A name that exists but has nothing of that kind answers ().
        """
        with self._lock:
            return self._answer(_canonical(name), kind, MAX_ALIAS_DEPTH)

    def addresses(self, name: str) -> tuple[str, ...]:
        """All addresses a name can lead to, over all its turns; takes no turn."""
        with self._lock:
            return tuple(sorted(self._reachable(_canonical(name), MAX_ALIAS_DEPTH)))

    def _record(self, name: str) -> Record | None:
        name = _canonical(name)
        return self._by_hand.get(name) or self._published.get(name)

    def _answer(self, name: str, kind: str, depth: int) -> tuple[ResourceRecord, ...] | None:
        record = self._record(name)
        if record is None:
            return None
        turn = self._turns[name, kind]
        self._turns[name, kind] += 1
        if record.aliases:
            target = _canonical(record.aliases[turn % len(record.aliases)])
            alias = ResourceRecord(name, "CNAME", target)
            rest = self._answer(target, kind, depth - 1) if depth and kind != "CNAME" else ()
            return (alias, *(rest or ()))
        fitting = [address for address in record.addresses if _kind_of(address) == kind]
        return tuple(ResourceRecord(name, kind, address) for address in _window(fitting, turn, record.window))

    def _reachable(self, name: str, depth: int) -> set[str]:
        record = self._record(name)
        if record is None or not depth:
            return set()
        reachable = set(record.addresses)
        for target in record.aliases:
            reachable |= self._reachable(_canonical(target), depth - 1)
        return reachable


def _canonical(name: str) -> str:
    return name.rstrip(".").lower()


def _kind_of(address: str) -> str:
    return "A" if ipaddress.ip_address(address).version == 4 else "AAAA"


def _window(addresses: list[str], turn: int, width: int | None) -> list[str]:
    if not addresses:
        return []
    start = turn % len(addresses)
    turned = addresses[start:] + addresses[:start]
    return turned if width is None else turned[:width]
