"""One structure of an AWS answer, read with suspicion: every field may be absent, or not what it should be. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from natproxy.model import Endpoint

Raw = Mapping[str, object]
"""A structure as boto3 returns it, of which nothing is certain."""

LEAVING = frozenset({"deleting", "deleted"})
"""Statuses, in lower case, of what AWS takes away."""

MAX_TEXT = 1024
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f:.]{2,45}")


class Fields:
    """Reads the fields of one structure.

    A field of the wrong type reads as absent, and its name is put into ``doubts``, which all structures of one cache
    share. An absent field is not in doubt by itself: whoever reads it knows whether it may be absent.
    """

    def __init__(self, raw: Raw, doubts: set[str]) -> None:
        self.raw = raw
        self.doubts = doubts

    def text(self, name: str) -> str | None:
        """Return a non-empty string, or None. One that could steer a terminal, or fill a log, is in doubt."""
        value = self.raw.get(name)
        if isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable():
            return value or None
        self._doubt_unless_absent(name, value)
        return None

    def identifier(self, name: str) -> str | None:
        """Return the id of a cache, cluster or node, or None. It becomes part of names (``cluster/node``)."""
        value = self.text(name)
        if value is None or _IDENTIFIER.fullmatch(value):
            return value
        self.doubt(name)
        return None

    def word(self, name: str) -> str:
        """Return a string in lower case; empty where it is absent. For statuses, engines and the like."""
        return (self.text(name) or "").lower()

    def flag(self, name: str) -> bool | None:
        """Return a boolean, or None."""
        value = self.raw.get(name)
        if isinstance(value, bool):
            return value
        self._doubt_unless_absent(name, value)
        return None

    def number(self, name: str) -> int | None:
        """Return a whole number that is not negative, or None."""
        value = self.raw.get(name)
        if type(value) is int and value >= 0:  # True is an int too
            return value
        self._doubt_unless_absent(name, value)
        return None

    def endpoint(self, name: str) -> Endpoint | None:
        """Return ``{Address, Port}`` as an Endpoint, or None; half of one is in doubt."""
        value = self.raw.get(name)
        if isinstance(value, Mapping):
            host, port = value.get("Address"), value.get("Port")
            if isinstance(host, str) and _HOST.fullmatch(host) and type(port) is int and 0 < port < 65536:
                return Endpoint(host, port)
        self._doubt_unless_absent(name, value)
        return None

    def structures(self, name: str) -> list[Fields]:
        """Return a list's structures; items that are none are in doubt and left out."""
        items = self._items(name)
        good = [Fields(item, self.doubts) for item in items if isinstance(item, Mapping)]
        if len(good) < len(items):
            self.doubt(name)
        return good

    def identifiers(self, name: str) -> list[str]:
        """Return a list's ids; items that are none are in doubt and left out."""
        items = self._items(name)
        good = [item for item in items if isinstance(item, str) and _IDENTIFIER.fullmatch(item)]
        if len(good) < len(items):
            self.doubt(name)
        return good

    def doubt(self, name: str) -> None:
        """Say that this field should have been there."""
        self.doubts.add(name)

    def has(self, name: str) -> bool:
        """Whether the field is there at all, be it good or bad."""
        return self.raw.get(name) is not None

    def _items(self, name: str) -> list[object]:
        value = self.raw.get(name)
        if isinstance(value, list):
            return value
        self._doubt_unless_absent(name, value)
        return []

    def _doubt_unless_absent(self, name: str, value: object) -> None:
        if value is not None and value != "":
            self.doubts.add(name)
