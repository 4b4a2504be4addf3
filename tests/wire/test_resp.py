from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.wire.resp import (
    MOST_LINES,
    MOST_NESTED,
    UnlikeError,
    Value,
    decode,
    items_of,
    number_of,
    pairs_of,
    read,
    text_of,
    with_items,
    with_text,
)
from tests.wire.samples import SAMPLES, Sample, read_by_redis_py

WORDS = st.text("abc-:_ 0123456789", max_size=8).map(str.encode)
BODIES = st.one_of(st.binary(max_size=20), st.sampled_from((b"\r\n-MOVED 1 10.0.1.231:6379\r\n", b"*2\r\n")))
LEAVES = st.one_of(
    WORDS.map(lambda word: b"+%b\r\n" % word),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b":%d\r\n" % number),
    BODIES.map(lambda body: b"$%d\r\n%b\r\n" % (len(body), body)),
    BODIES.map(lambda body: b"=%d\r\ntxt:%b\r\n" % (len(body) + 4, body)),
    st.sampled_from((b"_\r\n", b"#t\r\n", b"#f\r\n", b",1.5\r\n", b",inf\r\n", b"(349\r\n")),
)


def counted(mark: bytes, items: list[bytes], per_count: int = 1) -> bytes:
    return b"%b%d\r\n" % (mark, len(items) // per_count) + b"".join(items)


def arrays(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    pairs = st.lists(st.tuples(WORDS.map(lambda word: b"$%d\r\n%b\r\n" % (len(word), word)), children), max_size=4)
    return st.one_of(
        st.lists(children, max_size=5).map(lambda items: counted(b"*", items)),
        pairs.map(lambda items: counted(b"%", [one for pair in items for one in pair], per_count=2)),
    )


PLAIN = st.recursive(LEAVES, arrays, max_leaves=20)
"""What redis-py can read, too."""
MORE_LEAVES = st.one_of(
    LEAVES,
    st.sampled_from((b"$-1\r\n", b"*-1\r\n")),
    WORDS.map(lambda word: b"-ERR %b\r\n" % word),
    BODIES.map(lambda body: b"!%d\r\n%b\r\n" % (len(body), body)),
)
TREES = st.recursive(
    MORE_LEAVES,
    lambda children: st.one_of(
        arrays(children),
        st.lists(children, max_size=4).map(lambda items: counted(b"~", items)),
        st.lists(children, max_size=4).map(lambda items: counted(b">", items)),
        st.tuples(children, children, children).map(lambda three: b"|1\r\n" + b"".join(three)),
    ),
    max_leaves=20,
)


def rebuilt(value: Value) -> Value:
    """Make a tree anew from its leaves."""
    return with_items(value, [rebuilt(item) for item in value.items]) if value.items else value


def as_python(value: Value) -> Any:
    """Return what redis-py would."""
    text = text_of(value)
    match value.raw[:1]:
        case b"*" if value.raw != b"*-1\r\n":
            return [as_python(item) for item in value.items]
        case b"%":
            return {as_python(key): as_python(one) for key, one in pairs_of(value)}
        case b":" | b"(" if text is not None:
            return int(text)
        case b"," if text is not None:
            return float(text)
        case b"#":
            return value.raw == b"#t\r\n"
        case _:
            return text


@given(TREES)
def test_a_tree_that_nobody_touched_is_the_same_bytes(data: bytes) -> None:
    tree = decode(data)
    assert tree.raw == data
    assert rebuilt(tree).raw == data


@given(PLAIN)
def test_a_tree_says_what_redis_py_reads(data: bytes) -> None:
    assert as_python(decode(data)) == read_by_redis_py(data)


@given(TREES, TREES)
def test_only_one_whole_reply_is_a_tree(data: bytes, more: bytes) -> None:
    assert read(data + more, 0) == (decode(data), len(data))
    for other in (data[:-1], data[: len(data) // 2], data + more, data + b"\r\n"):
        with pytest.raises(UnlikeError):
            decode(other)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_tree_or_none(data: bytes) -> None:
    with suppress(UnlikeError):
        assert decode(data).raw == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"x\r\n",
        b"hello\r\n",
        b"+OK",
        b"+OK\n",
        b"$\r\n\r\n",
        b"$-2\r\n",
        b"$+1\r\nx\r\n",
        b"$1 \r\nx\r\n",
        b"$1\r\nxy\r\n",
        b"$2\r\nx\r\n",
        b"$99999999999999999999\r\nx\r\n",
        b"$" + b"9" * 5000 + b"\r\nx\r\n",
        b"$?\r\n;1\r\nx\r\n;0\r\n",
        b"*?\r\n:1\r\n.\r\n",
        b"=-1\r\n",
        b"!-1\r\n",
        b"=3\r\ntxt\r\n",
        b"%-1\r\n",
        b"%1\r\n:1\r\n",
        b"|1\r\n:1\r\n:2\r\n",
        b"*3000000000\r\n",
        b"*2\r\n:1\r\n",
        b"~1000\r\n" + b"_\r\n" * 999,
    ],
)
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(UnlikeError):
        decode(data)


def test_arrays_nest_only_so_deep() -> None:
    def nested(depth: int) -> bytes:
        return b"*1\r\n" * depth + b":1\r\n"

    assert decode(nested(MOST_NESTED)).raw == nested(MOST_NESTED)
    for depth in (MOST_NESTED + 1, 100_000):
        with pytest.raises(UnlikeError):
            decode(nested(depth))


def test_a_reply_has_only_so_many_values() -> None:
    def array(count: int) -> bytes:
        return b"*%d\r\n" % count + b"_\r\n" * count

    assert len(decode(array(MOST_LINES - 1)).items) == MOST_LINES - 1
    with pytest.raises(UnlikeError):
        decode(array(MOST_LINES))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"$2\r\nhi\r\n", b"hi"),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"=6\r\ntxt:hi\r\n", b"hi"),
        (b"=4\r\ntxt:\r\n", b""),
        (b"+hi\r\n", b"hi"),
        (b":6379\r\n", b"6379"),
        (b"$-1\r\n", None),
        (b"_\r\n", None),
        (b"-ERR\r\n", None),
        (b"!3\r\nERR\r\n", None),
        (b"#t\r\n", None),
        (b"*1\r\n$2\r\nhi\r\n", None),
    ],
)
def test_strings_and_numbers_have_a_text(data: bytes, text: bytes | None) -> None:
    assert text_of(decode(data)) == text


@pytest.mark.parametrize(
    ("data", "changed"),
    [
        (b"$2\r\nhi\r\n", b"$3\r\nnew\r\n"),
        (b"=6\r\nmkd:hi\r\n", b"=7\r\nmkd:new\r\n"),
        (b"+hi\r\n", b"+new\r\n"),
        (b":1\r\n", b":new\r\n"),
        (b"$-1\r\n", b"$3\r\nnew\r\n"),
        (b"_\r\n", b"$3\r\nnew\r\n"),
    ],
)
def test_a_string_keeps_its_kind_and_nil_becomes_a_bulk_string(data: bytes, changed: bytes) -> None:
    assert with_text(decode(data), b"new").raw == changed


@pytest.mark.parametrize(
    "data", [b":-1\r\n", b"+x\r\n", b"_\r\n", b"*0\r\n", b"$1\r\n \r\n", b":%b\r\n" % (b"1" * 5000)]
)
def test_what_is_no_number_is_refused(data: bytes) -> None:
    with pytest.raises(UnlikeError):
        number_of(decode(data))


def test_numbers_may_be_strings() -> None:
    assert [number_of(decode(data)) for data in (b":0\r\n", b"$4\r\n6379\r\n", b"+1\r\n")] == [0, 6379, 1]


@pytest.mark.parametrize("data", [b"%0\r\n", b">0\r\n", b"*-1\r\n", b"$-1\r\n", b":1\r\n", b"|0\r\n:1\r\n"])
def test_what_is_no_array_has_no_items(data: bytes) -> None:
    with pytest.raises(UnlikeError):
        items_of(decode(data))


@pytest.mark.parametrize("data", [b"*1\r\n:1\r\n", b":1\r\n", b"_\r\n", b">2\r\n:1\r\n:2\r\n"])
def test_what_is_no_map_has_no_pairs(data: bytes) -> None:
    with pytest.raises(UnlikeError):
        pairs_of(decode(data))


@pytest.mark.parametrize("data", [b"%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n", b"*4\r\n+a\r\n:1\r\n+b\r\n:2\r\n"])
def test_a_map_may_be_an_array(data: bytes) -> None:
    value = decode(data)
    assert [(text_of(key), text_of(one)) for key, one in pairs_of(value)] == [(b"a", b"1"), (b"b", b"2")]
    header = b"%1" if data[:1] == b"%" else b"*2"
    assert with_items(value, value.items[:2]).raw == header + b"\r\n+a\r\n:1\r\n"


def test_a_count_that_still_fits_is_kept_as_it_was_written() -> None:
    value = decode(b"*02\r\n:1\r\n:2\r\n")
    assert with_items(value, value.items[::-1]).raw == b"*02\r\n:2\r\n:1\r\n"
    assert with_items(value, ()).raw == b"*0\r\n"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_what_real_nodes_say_is_understood(sample: Sample) -> None:
    assert rebuilt(decode(sample.data)).raw == sample.data
