"""natproxy.config.loader: what a file means, and where in it each value stands."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.config.loader import MAX_DEPTH, MAX_TEXT, MAX_VALUES, load_document
from natproxy.config.places import Plain


def value(text: str) -> Plain:
    document = load_document(text)
    assert document.findings == ()
    assert document.is_readable
    return document.value


def stop(text: str) -> tuple[int | None, str]:
    """Return line and words of what ended the reading."""
    document = load_document(text)
    assert not document.is_readable
    assert document.value is None
    return document.findings[-1].line, document.findings[-1].message


@pytest.mark.parametrize(
    "word",
    ["on", "off", "yes", "no", "On", "NO", "y", "True", "FALSE", "1.2", "0644", "12:30", "1e3", "2026-01-02", ".inf"],
)
def test_words_and_numbers_stay_text(word: str) -> None:
    assert value(f"key: {word}") == {"key": word}
    assert value(f"{word}: x") == {word: "x"}
    assert value(f'key: "{word}"') == {"key": word}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ('""', ""),
        ("'null'", "null"),
    ],
)
def test_only_true_false_and_null_are_more_than_text(written: str, meant: Plain) -> None:
    assert value(f"key: {written}") == {"key": meant}


@pytest.mark.parametrize("text", ["", "   \n", "# nothing\n", "---\n", "null"])
def test_an_empty_file_is_null(text: str) -> None:
    assert value(text) is None


def test_every_value_has_its_line_and_a_mapping_s_value_has_its_key_s() -> None:
    document = load_document("# one\na:\n  - b\n  - c: [1,\n      2]\nd:\n\n  |\n  text\n")
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("a", 0): 3,
        ("a", 1): 4,
        ("a", 1, "c"): 4,
        ("a", 1, "c", 0): 4,
        ("a", 1, "c", 1): 5,
        ("d",): 6,
    }


def test_a_key_written_twice_is_found_and_the_first_stays() -> None:
    document = load_document("a: 1\nb:\n  c: 2\n  c: 3\na: 4\n")
    assert document.value == {"a": "1", "b": {"c": "2"}}
    found = [(finding.place, finding.line, finding.message) for finding in document.findings]
    assert found == [
        (("b", "c"), 4, "is written twice: first on line 3"),
        (("a",), 5, "is written twice: first on line 1"),
    ]


def test_keys_that_only_look_different_are_the_same() -> None:
    assert load_document("a: 1\n'a': 2\n").findings[0].line == 2


def test_aliases_give_the_anchored_value_again_on_lines_of_its_own() -> None:
    document = load_document("a: &it\n  - x\nb: *it\n")
    assert document.value == {"a": ["x"], "b": ["x"]}
    assert document.lines["b",] == 3
    assert document.lines["b", 0] == 2


def test_aliased_values_are_not_shared() -> None:
    given_value = value("a: &it [x]\nb: *it\n")
    assert isinstance(given_value, dict)
    assert given_value["a"] is not given_value["b"]


def test_aliases_are_counted_in_full() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert stop(bomb) == (5, f"the file holds more than {MAX_VALUES} values (aliases counted in full)")


def test_aliases_cannot_build_what_could_not_be_written() -> None:
    tower = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000))
    assert stop(tower) == (MAX_DEPTH, f"is nested more than {MAX_DEPTH} levels deep")


@pytest.mark.parametrize("text", ["a: *it", "a: &it [*it]", "&it a: 1\nb: *it", "a: *b\nb: &b 1"])
def test_an_alias_needs_an_anchor_that_has_ended(text: str) -> None:
    assert stop(text)[0] == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb:\n\tc: 2\n", 3, "not YAML: a tab, where YAML allows only spaces"),
        (
            "a: [1,\n2\nb: 3\n",
            3,
            "not YAML: a list in [ ] is not closed, or a comma is missing in it (it begins on line 1)",
        ),
        ("a: {b: 1\n", 2, "not YAML: a mapping in { } is not closed, or a comma is missing in it (it begins on line 1"),
        ("a: 'x\n\nb: 1\n", 4, "not YAML: a quote is not closed (it begins on line 1)"),
        ("a: 'x\n---\nb: 1\n", 2, "not YAML: a quote is not closed (it begins on line 1)"),
        ("a: 1\n\nb: c: d\n", 3, "not YAML: a key and its ':' are not expected here: look at the indentation"),
        ("a:\n  - b\n c: 1\n", 3, "not YAML: the indentation fits none of the lines above"),
        ("a: @x", 1, "not YAML: a value cannot begin with this character (@ ` %): put it in quotes"),
        ("a: 1\nword\nb: 2\n", 3, "not YAML: a line without a ':', where a key is expected"),
        ('a: "\\q"', 1, "not YAML: an unknown escape (\\) in double quotes: use single quotes, or write \\\\"),
        ('a: "\\xZZ"', 1, "not YAML: an escape (\\) in double quotes with wrong digits: use single quotes"),
        ('a: 1\nb: "\\U00110000"', 2, "not YAML: a number beyond all bounds, here or further down"),
        (f"%YAML 1.{'9' * 5000}\n---\na: 1", 1, "not YAML: a number beyond all bounds, here or further down"),
        ("%YAML 2.0\n---\na: 1", 1, "not YAML: a %YAML line of a version that nobody knows"),
        ("%YAML x\n---\na: 1", 1, "not YAML: this line cannot be read"),
        ("a: 1\nb: \x01\n", 2, "has a character that YAML does not allow"),
        ('a: 1\nb: "\\0"\n', 2, "has a control character, or half of a surrogate pair"),
        ('a: 1\nb: "\\ud800"\n', 2, "has a control character, or half of a surrogate pair"),
        ('"\\e": 1\n', 1, "has a control character, or half of a surrogate pair"),
        ("a: !secret x\n", 1, "tags (!name) have no meaning here: put a value that begins with ! in quotes"),
        ("a: !!python/object:os.system x\n", 1, "tags (!name) have no meaning here"),
        ("a: !x!y z\n", 1, "not YAML: tags (!name) have no meaning here: put a value that begins with ! in quotes"),
        ("a: 1\n? [b]\n: c\n", 2, "a key must be plain text (put a key that begins with & * ! { [ in quotes)"),
        ("a: &a b\n*a : c\n", 2, "a key must be plain text (put a key that begins with & * ! { [ in quotes)"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", 3, "merge keys (<<) are not YAML 1.2: write the keys out, or give a whole"),
        ("a: 1\n---\nb: 2\n", 2, "a second document begins here (---): a config file is one document"),
        (f"a: {'x' * (MAX_TEXT + 1)}", 1, f"is longer than {MAX_TEXT} characters"),
        ("[" * 5000, 1, f"is nested more than {MAX_DEPTH} levels deep"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str, line: int, words: str) -> None:
    found, said = stop(text)
    assert found == line
    assert said.startswith(words)


def test_what_was_found_before_reading_had_to_stop_is_kept() -> None:
    document = load_document("a: 1\na: 2\nb: 'x\n")
    assert [finding.line for finding in document.findings] == [2, 4]


_TREES = st.recursive(
    st.none() | st.booleans() | st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz_-", min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_TREES)
def test_json_is_read_as_json_reads_it(tree: Plain) -> None:
    assert value(json.dumps(tree, ensure_ascii=False)) == tree


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, unique=True), st.integers(0, 3))
def test_lines_are_counted_whatever_stands_between(keys: list[str], gap: int) -> None:
    document = load_document("".join(f"{key}: {key}\n" + "\n# word\n" * gap for key in keys))
    assert [document.lines[key,] for key in keys] == [1 + index * (1 + 2 * gap) for index in range(len(keys))]
