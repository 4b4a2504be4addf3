"""natproxy.config.places: what users read of a place."""

from __future__ import annotations

import pytest

from natproxy.config.places import Place, dotted, is_related


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
