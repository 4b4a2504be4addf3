"""natproxy.config.places: what users read of a place."""

from __future__ import annotations

import pytest

from natproxy.config.places import Place, dotted, existing, is_related


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ((), ""),
        (("listen", "ports"), "listen.ports"),
        (("caches", 0, "clients", "allow", 2), "caches[0].clients.allow[2]"),
        (("a\nb",), r"'a\nb'"),
        (("",), "''"),
        (("k" * 99,), "k" * 60 + "..."),
    ],
)
def test_a_place_is_shown_on_one_short_line(place: Place, text: str) -> None:
    assert dotted(place) == text


def test_places_are_related_when_one_lies_within_the_other() -> None:
    assert is_related(("caches", 0), ("caches", 0, "ports"))
    assert is_related(("caches", 0, "ports"), ("caches", 0))
    assert is_related((), ("caches",))
    assert not is_related(("caches", 0, "ports"), ("caches", 1))


def test_a_place_is_cut_down_to_what_stands_in_the_file() -> None:
    lines: dict[Place, int] = {(): 1, ("clients",): 1, ("clients", "allow"): 2}
    assert existing(("clients", "allow", 0), lines) == ("clients", "allow")
    assert existing(("clients", "allow"), lines) == ("clients", "allow")
    assert existing(("nodes", "tls"), lines) == ()
    assert existing(("nodes", "tls"), {}) == ()
