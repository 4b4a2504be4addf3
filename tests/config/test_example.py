"""config.example.yaml: good, complete, and true about the defaults and about what needs a restart."""

from __future__ import annotations

from natproxy.config import Config, load_config
from natproxy.config.loader import Document, load_document
from natproxy.config.model import Section, WrittenCache
from natproxy.config.places import Place, Plain
from natproxy.config.reading import RESTART_ONLY
from natproxy.config.structure import SECTIONS
from tests.config.samples import EXAMPLE, load

TEXT = EXAMPLE.read_text(encoding="utf-8")
GLOBAL = {place: section for place, section in SECTIONS.items() if "*" not in place}
CHOSEN: set[Place] = {
    ("public_host",), ("public_ip",), ("listen", "ports"), ("caches",), ("static",), ("clients", "allow"),
    ("tls", "certificate"), ("tls", "key"), ("tls", "client_ca"), ("tls", "crl"),
}  # fmt: skip
"""Keys whose value in the example is an example; all others stand there with their default."""


def document() -> Document:
    return load_document(TEXT)


def at(place: Place) -> Plain:
    value = document().value
    for step in place:
        assert isinstance(value, dict)
        value = value[str(step)]
    return value


def config() -> Config:
    return load_config(EXAMPLE)


def test_the_example_is_good() -> None:
    assert config().warnings == ()
    assert [entry.id for entry in config().caches] == ["my-redis", "my-memcached", "my-serverless", None]
    assert [entry.clients.tls for entry in config().caches] == ["terminate", "terminate", "passthrough", "terminate"]


def test_every_key_stands_in_the_example() -> None:
    for place, section in GLOBAL.items():
        found = at(place)
        assert isinstance(found, dict)
        assert set(found) == set(section.model_fields), f"of {place}"
    for name in ("caches", "static"):
        listed = at((name,))
        assert isinstance(listed, list)
        keys = {key for entry in listed if isinstance(entry, dict) for key in entry}
        assert keys == set(SECTIONS[name, "*"].model_fields)
    assert "endpoints" in WrittenCache.model_fields


def test_what_the_example_gives_as_default_is_the_default() -> None:
    loaded, bare = config(), load("tls: {certificate: /x.crt, key: /x.key}")
    for place, section in GLOBAL.items():
        for name in section.model_fields:
            here = (*place, name)
            if here in CHOSEN or here in GLOBAL:
                continue
            mine: Section | None = getattr(loaded, str(place[0])) if place else loaded
            theirs: Section | None = getattr(bare, str(place[0])) if place else bare
            if mine is theirs is None:
                continue  # a section that asks for nothing there
            assert getattr(mine, name) == getattr(theirs, name), here


def test_keys_that_need_a_restart_are_marked_and_no_others() -> None:
    lines = TEXT.splitlines()

    def comment_above(line: int) -> str:
        above = []
        while (before := lines[line - 2].strip()).startswith("#"):
            above.append(before)
            line -= 1
        return " ".join(above)

    keys = {place: line for place, line in document().lines.items() if place and isinstance(place[-1], str)}
    marked = {place for place, line in keys.items() if "[restart]" in comment_above(line)}
    whole = {place for place in marked if place in GLOBAL}
    assert marked - whole | _keys_of(whole) == {*RESTART_ONLY} - {*GLOBAL} | _keys_of({*RESTART_ONLY} & {*GLOBAL})


def _keys_of(sections: set[Place]) -> set[Place]:
    return {(*place, name) for place in sections for name in GLOBAL[place].model_fields}


def test_no_line_is_longer_than_the_code_s() -> None:
    assert max(len(line) for line in TEXT.splitlines()) <= 120
