"""What a PromQL expression names: metrics, labels and their values. Pure.

It knows as much of PromQL as is used here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_WORDS = frozenset(("and", "or", "unless", "bool", "offset", "inf", "nan"))
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_NAME = re.compile(r"(?<![\w:$.])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()")
_ASIDE = re.compile(r'\[[^\]]*\]|\boffset\s+\w+|"[^"]*"|\b\d[\w.]*')
"""Ranges, offsets, strings, numbers."""


class Matcher(NamedTuple):
    """One condition of a selector."""

    metric: str
    label: str
    operator: str
    value: str

    @property
    def alternatives(self) -> list[str]:
        """The values that it names; none where it is a variable, or a pattern with more to it than alternatives."""
        if "$" in self.value or re.search(r"[.*+()\[\]]", self.value):
            return []
        return self.value.split("|") if "~" in self.operator else [self.value]


class Named(NamedTuple):
    """What an expression names."""

    metrics: frozenset[str]
    matchers: tuple[Matcher, ...]
    grouped: frozenset[str]
    """The labels in ``by``, ``on`` and the like."""


def named(expr: str) -> Named:
    """Return what ``expr`` names."""
    matchers = tuple(
        Matcher(metric, *matcher) for metric, inside in _SELECTOR.findall(expr) for matcher in _MATCHER.findall(inside)
    )
    grouped = frozenset(label.strip() for inside in _GROUPING.findall(expr) for label in inside.split(","))
    bare = _GROUPING.sub(" ", re.sub(r"\{[^}]*\}", " ", expr))
    metrics = frozenset(_NAME.findall(_ASIDE.sub(" ", bare))) - _WORDS
    return Named(metrics, matchers, grouped - {""})
