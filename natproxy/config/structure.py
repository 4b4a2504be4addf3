"""Plain values -> Written, with every key that is unknown, misspelt or wrong by itself. Pure.

So that one mistake does not hide others, a wrong value is taken out and the rest is validated again; what was taken out
is in ``Draft.unsure``, and nothing is concluded from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from natproxy.config.loader import Document
from natproxy.config.model import (
    Admin,
    Aws,
    Clients,
    Listen,
    Log,
    Nodes,
    Portal,
    Probe,
    Section,
    Timeouts,
    Tls,
    Written,
    WrittenCache,
    WrittenStatic,
)
from natproxy.config.places import Finding, Place, Plain, dotted, existing, is_related

_SHARED: Mapping[str, type[Section]] = {"clients": Clients, "nodes": Nodes, "timeouts": Timeouts}
_SCOPES: tuple[Place, ...] = ((), ("caches", "*"), ("static", "*"))
SECTIONS: Mapping[Place, type[Section]] = {
    (): Written,
    ("listen",): Listen,
    ("aws",): Aws,
    ("tls",): Tls,
    ("admin",): Admin,
    ("portal",): Portal,
    ("log",): Log,
    ("caches", "*"): WrittenCache,
    ("caches", "*", "probe"): Probe,
    ("static", "*"): WrittenStatic,
    **{(*scope, name): section for scope in _SCOPES for name, section in _SHARED.items()},
}
"""Which keys each mapping of the file has; ``*`` = any index."""

_STAND_INS: Mapping[str, Plain] = {
    "name": "unnamed",
    "port": "1",
    "target": "unknown:1",
    "certificate": "/unknown",
    "key": "/unknown",
}
"""For the keys that an entry of ``static``, or ``tls``, must have and lacks: never seen by anybody."""

_MOST_ROUNDS = 8
"""Three are needed: wrong values are taken out, then keys that must be there are missing, then all is good."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The file as far as it is good."""

    written: Written
    findings: tuple[Finding, ...]
    unsure: frozenset[Place]
    """Places whose values were taken out, or are not what was meant."""


def read_structure(document: Document) -> Draft:
    """Validate everything that can be judged by itself. ``document.value`` must be a mapping, and is used up."""
    tree = document.value
    findings = [*document.findings]
    unsure: set[Place] = set()
    for _ in range(_MOST_ROUNDS):
        try:
            return Draft(Written.model_validate(tree), tuple(findings), frozenset(unsure))
        except ValidationError as error:
            known = frozenset(unsure)
            errors = error.errors(include_url=False)
            misspelt = {_meant(details["loc"]) for details in errors if details["type"] == "extra_forbidden"}
            for details in errors:
                if details["type"] == "missing" and details["loc"] in misspelt:
                    continue
                location = details["loc"][:-1] if details["type"] == "missing" else details["loc"]
                place = existing(location, document.lines)
                if not any(is_related(details["loc"], other) for other in known):
                    findings.append(_finding(details, place))
                unsure.update(_mend(tree, details, place))
    return Draft(Written(), tuple(findings), frozenset({()}))


_A_LIST = "must be a list: begin each entry with a hyphen and a space, or put them all in [ ]"
_WORDS = {
    "model_type": "must be a mapping (key: value)",
    "dict_type": "must be a mapping (key: value)",
    "tuple_type": _A_LIST,
    "frozen_set_type": _A_LIST,
}


def _finding(details: ErrorDetails, place: Place) -> Finding:
    kind = details["type"]
    if kind == "missing":
        return Finding(place, f"{details['loc'][-1]} is missing")
    if kind == "extra_forbidden":
        return Finding(place, _unknown(place))
    if kind == "value_error":
        return Finding(place, str(details["ctx"]["error"]))
    if details["input"] is None:
        return Finding(place, "has no value: write one, or leave the key out")
    return Finding(place, _WORDS.get(kind, "is not what belongs here"))


def _unknown(place: Place) -> str:
    meant = _meant(place)
    key, colon, _ = str(place[-1]).partition(":")
    if colon and key in SECTIONS[_pattern(place[:-1])].model_fields:
        return f"is an unknown key: put a space after {key}:"
    if meant is None:
        return f"is an unknown key; known here: {', '.join(SECTIONS[_pattern(place[:-1])].model_fields)}"
    name = str(meant[-1]) if meant[:-1] == place[:-1] else dotted(meant)
    return f"is an unknown key; did you mean {name}?"


def _meant(place: Place) -> Place | None:
    """Return the place of the known key that an unknown one comes near to, or that stands in another mapping."""
    within, key = place[:-1], str(place[-1])[:60]
    near = difflib.get_close_matches(key, sorted(SECTIONS[_pattern(within)].model_fields), 1, 0.7)
    if near:
        return (*within, near[0])
    elsewhere = [other for other, section in SECTIONS.items() if "*" not in other and key in section.model_fields]
    likely = [other for other in elsewhere if other[-1:] and other[-1] in _SHARED] or elsewhere
    return (*likely[0], key) if len(likely) == 1 else None


def _pattern(place: Place) -> Place:
    return tuple("*" if isinstance(step, int) else step for step in place)


def _mend(tree: Plain, details: ErrorDetails, place: Place) -> Iterator[Place]:
    """Make the tree good at one place; yield what is unsure from now on."""
    if details["type"] == "missing":
        key = str(details["loc"][-1])
        holder = _at(tree, place)
        if isinstance(holder, dict):
            holder[key] = _STAND_INS[key]
        yield (*place, key)
        return
    if details["type"] == "extra_forbidden" and (meant := _meant(place)) is not None:
        yield meant
    holder = _at(tree, place[:-1])
    if isinstance(holder, list) and place[0] in {"caches", "static"} and len(place) == 2:
        holder[int(place[1])] = {}
        yield place
        return
    while isinstance(holder, list):
        place = place[:-1]
        holder = _at(tree, place[:-1])
    if isinstance(holder, dict):
        holder.pop(str(place[-1]), None)
    yield place


def _at(tree: Plain, place: Place) -> Plain:
    for step in place:
        if isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            tree = tree[step]
        elif isinstance(tree, dict):
            tree = tree.get(str(step))
    return tree
