"""Where requests and replies end, by compiled expressions and by counting: against a reader that takes its time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natproxy.wire import frames
from natproxy.wire.frames import (
    LONGEST_HEADER,
    LONGEST_LINE,
    MOST_BULK_BYTES,
    MOST_ELEMENTS,
    NoFrameError,
    bulks,
    is_one_reply,
    is_one_request,
    large_reply,
    large_request,
    lines,
    number_of,
    requests_by_head,
    run,
    skip_frames,
)
from tests.wire.talk import ASK, FORGED, MOVED, SLOTS, array, bulk, command

SECONDS = 1.0
"""More than anything here may take for what one read brings; it was many seconds, or would be."""


class NotWholeError(Exception):
    """More has to come."""


def end_of(data: bytes, at: int) -> int:
    """Return where the frame at ``at`` ends, by the letter of the specification."""
    stop = data.find(b"\r\n", at)
    if stop < 0:
        raise NotWholeError
    kind, number = data[at : at + 1], data[at + 1 : stop]
    at = stop + 2
    if kind in b"+-:_,#(" or number == b"-1":
        return at
    if kind in b"$=!":
        at += int(number) + 2
        if at > len(data):
            raise NotWholeError
        return at
    for _ in range(int(number) * (2 if kind in b"%|" else 1) + (kind == b"|")):
        at = end_of(data, at)
    return at


# Numbers.


@pytest.mark.parametrize(
    ("text", "number"), [(b"0", 0), (b"7", 7), (b"99", 99), (b"-1", -1), (b"%d" % MOST_ELEMENTS, MOST_ELEMENTS)]
)
def test_a_number(text: bytes, number: int) -> None:
    assert number_of(text, MOST_ELEMENTS) == number


@pytest.mark.parametrize(
    "text", [b"", b"-", b"-2", b"-0", b"+1", b" 1", b"1 ", b"1_0", b"0x1", b"1.0", b"?", b"%d" % (MOST_ELEMENTS + 1)]
)
def test_what_is_no_number(text: bytes) -> None:
    with pytest.raises(NoFrameError):
        number_of(text, MOST_ELEMENTS)


# One of them.


BODIES = [b"x" * size for size in range(130)] + [b"\r", b"\r\r", b"a\rb", b"\r\n"[:1] * 9]


def test_small_bulk_strings_are_known_whole() -> None:
    for body in BODIES:
        data = bulk(body)
        is_small = len(body) < 100
        assert (is_one_reply(data) is not None) is is_small
        assert (is_one_request(command("GET", body)) is not None) is is_small
        for wrong in (data[:-1], data + b"x", data + b"\r\n", data * 2, b"$0" + data[1:], data.replace(b"$", b"*")):
            assert is_one_reply(wrong) is None, wrong


def test_a_bulk_string_with_a_line_feed_is_left_to_others() -> None:
    """Its lines could be those of something else."""
    assert is_one_reply(bulk(b"a\nb")) is None
    assert is_one_request(command("GET", "\r\n")) is None
    assert is_one_request(command("\n")) is None


@pytest.mark.parametrize(
    "reply",
    [
        *(
            b"+OK\r\n",
            b"+\r\n",
            b":1\r\n",
            b":-5\r\n",
            b"_\r\n",
            b"#t\r\n",
            b",1.5\r\n",
            b"(12\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
        ),
        *(b"*0\r\n", b"~0\r\n", b"%0\r\n", b"-ERR x\r\n", b"-MOVEDX 1 2\r\n", b"-\r\n", b"-READONL\r\n"),
        b"+" + b"x" * 5000 + b"\r\n",
    ],
)
def test_replies_of_one_line(reply: bytes) -> None:
    assert is_one_reply(reply) is not None
    assert is_one_reply(memoryview(reply)) is not None
    for wrong in (reply[:-1], reply + b"\r\n", reply * 2, b" " + reply):
        assert is_one_reply(wrong) is None, wrong


@pytest.mark.parametrize(
    "reply",
    [
        *(MOVED, ASK, b"-REDIRECT 10.0.0.1:6379\r\n", b"-READONLY You can't write.\r\n"),
        *(b"*1\r\n:1\r\n", b">0\r\n", b"|0\r\n", b"%1\r\n+a\r\n:1\r\n", b"=5\r\ntxt:x\r\n", b"!3\r\nERR\r\n"),
        *(b"+a\rb\r\n", b"+a\nb\r\n", b"", b"x\r\n", b"$-2\r\n", b"$?\r\n"),
    ],
)
def test_replies_that_have_to_be_looked_at(reply: bytes) -> None:
    assert is_one_reply(reply) is None


@pytest.mark.parametrize("count", range(1, 8))
def test_commands_of_up_to_five_words_are_known_whole(count: int) -> None:
    data = command(*["word"] * count)
    assert (is_one_request(data) is not None) is (count <= 5)
    for wrong in (data[:-1], data + b"\r\n", data * 2, data.replace(b"*", b"*0"), data.replace(b"$4", b"$04")):
        assert is_one_request(wrong) is None, wrong


@pytest.mark.parametrize("size", [*range(1, 30)])
def test_names_of_up_to_nineteen_letters_are_known(size: int) -> None:
    for arguments in range(4):
        data = command("X" * size, *["a"] * arguments)
        assert (is_one_request(data) is not None) is (size < 20)
        match, feeds = requests_by_head[data[:4]]
        found = match(data * 3)
        assert found is not None
        assert found.end() == (3 * len(data) if size < 20 else 0)
        assert data.count(b"\n") == feeds


# Large ones.


@pytest.mark.parametrize("size", [0, 9, 10, 99, 100, 999, 1000, 123_456, 10**11, 10**12 - 1])
def test_large_replies_are_known_by_their_header(size: int) -> None:
    found = large_reply(b"$%d\r\nx" % size)
    assert (found is not None) is (size > 99)
    assert found is None or (int(found[1]), found.end()) == (size, len(b"$%d\r\n" % size))
    assert size < MOST_BULK_BYTES


@pytest.mark.parametrize("words", [("APPEND",), ("SET", "k"), ("HSET", "k", "f"), ("x", "k", "f", "g")])
def test_large_commands_are_known_by_their_beginning(words: tuple[str, ...]) -> None:
    for size, is_large in ((99, False), (100, True), (123_456, True)):
        data = command(*words, "y" * size)
        found = large_request(data[:200])
        assert (found is not None) is is_large
        assert found is None or data[found.end() :] == b"y" * int(found[1]) + b"\r\n"


@pytest.mark.parametrize(
    "data",
    [
        command("SET", "k", "x" * 500, "NX"),  # not the last
        command("SET", "k" * 500, "x" * 500),
        command("INFO", "x" * 500),
        command("multi", "x" * 500),
        command("CLUSTER", "x" * 500),
        command("a", "b", "c", "d", "e", "x" * 500),
        command("x" * 500),
        command("SET", "k", "x" * 500)[: len("*3..$3..SET..$1..k..$50")],
    ],
)
def test_beginnings_that_are_not_those_of_large_plain_commands(data: bytes) -> None:
    assert large_request(data) is None


# Many.


FRAMES = st.one_of(
    st.binary(max_size=120).map(bulk),
    st.sampled_from([b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*0\r\n", b"_\r\n", b"-ERR x\r\n", MOVED, b"#t\r\n"]),
    st.sampled_from([bulk(FORGED), SLOTS, b"=8\r\ntxt:x\r\ny\r\n", b"|1\r\n+a\r\n+b\r\n:1\r\n", b"%1\r\n+a\r\n*0\r\n"]),
    st.lists(st.binary(max_size=5).map(bulk), min_size=3, max_size=30).map(lambda few: array(*few)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=30), st.integers(1, 40), st.lists(st.integers(0, 1 << 20), max_size=8))
def test_frames_are_skipped_truly_however_they_come(pieces: list[bytes], left: int, cuts: list[int]) -> None:
    data = b"".join(pieces)
    expected, wanted = 0, left
    try:
        for _ in range(left):
            expected = end_of(data, expected)
    except NotWholeError:
        expected = len(data)
    # Whole, and as it grows: what is known is never taken back.
    for stops in ([len(data)], [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]):
        pos, wanted = 0, left
        for stop in stops:
            if pos < stop and wanted:
                found = skip_frames(data[:stop], pos, wanted)
                assert found.pos <= stop
                pos, wanted = found.pos + found.opaque, found.left
        assert (pos, wanted == 0) == (expected, len(pieces) >= left)


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAMES, max_size=40), st.integers(1, 60) | st.just(200))
def test_a_run_is_of_small_frames_and_not_longer_than_was_wanted(pieces: list[bytes], most: int) -> None:
    data = b"".join(pieces)
    stop, count = run(data, 0, most)
    assert count <= most
    at = 0
    for _ in range(count):
        at = end_of(data, at)
    assert at == stop
    assert not data[:stop].count(b"-MOVED ")
    if pieces and is_one_reply(pieces[0]) and most > 100:
        assert count  # of few it may be none, where the first is long and many short ones follow


def test_a_run_goes_as_far_as_it_is_wanted() -> None:
    for one in (b"$1\r\nx\r\n", b"+OK\r\n", b"$99\r\n" + b"x" * 99 + b"\r\n", b"_\r\n"):
        for most in (1, 2, 7, 1000, 5000, 1 << 62):
            found, at = 0, 0
            while found < min(most, 5000):
                at, count = run(one * 5000 + MOVED, at, most - found)
                assert count > 0
                found += count
            assert (at, found) == (len(one) * found, min(most, 5000))


@pytest.mark.parametrize("data", [b"", b"$1", b"$1\r\nx\r", b"*1\r\n:1\r\n", MOVED, b">1\r\n", b"x\r\n"])
def test_a_run_of_none(data: bytes) -> None:
    assert run(data, 0, 5) == (0, 0)
    assert run(b":1\r\n" + data, 4, 5) == (4, 0)


def test_the_body_that_has_not_come_is_told() -> None:
    assert skip_frames(b"$10\r\nabc", 0, 1) == (8, 0, 9)
    assert skip_frames(b"*2\r\n:1\r\n$10\r\nabc", 0, 1) == (16, 0, 9)
    assert skip_frames(b"*3\r\n:1\r\n$10\r\nabc", 0, 1) == (16, 1, 9)
    assert skip_frames(b"*3\r\n:1\r\n$1", 0, 1) == (8, 2, 0)


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"x\r\n",
            b"$?\r\n",
            b"*?\r\n",
            b";4\r\n",
            b"$-2\r\n",
            b"*1\r\nx\r\n",
            b"$x\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"\0",
            b"x",
        ),
        *(kind + b"1" * LONGEST_HEADER for kind in (b"$", b":", b"*", b"_")),
        *(b"+" + b"x" * LONGEST_LINE, b"*1\r\n-" + b"x" * LONGEST_LINE),
        *(b"$%d\r\n" % (MOST_BULK_BYTES + 1), b"*%d\r\n" % (MOST_ELEMENTS + 1)),
    ],
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(NoFrameError):
        skip_frames(data, 0, 1)


@pytest.mark.parametrize("data", [b"$", b"$5", b"*1\r\n*", b":" + b"1" * 20, b"+" + b"x" * (LONGEST_LINE - 2), b"=3\r"])
def test_what_may_become_a_frame_still(data: bytes) -> None:
    assert skip_frames(data, 0, 1).left == 1


# Floods: 256 KiB of what takes the longest, which one read may bring.

MUCH = 1 << 18


@pytest.mark.parametrize(
    "flood",
    [b":1\r\n", b"_\r\n", b"$0\r\n\r\n", b"$1\r\n\n\r\n", b"*1\r\n", b"|0\r\n", b"*1\r\n:1\r\n", b"+\r\n*1\r\n",
     b"-MOVED 1 :1\r\n", b"%1\r\n", b"$0\r\n\r\n+\r\n", b"*4294967296\r\n", b"$99\r\n" + b"x" * 99 + b"\r\n$0\r\n\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("left", [1, 2, 100, 20_000, 1 << 40])
def test_no_flood_takes_long(flood: bytes, left: int) -> None:
    data = flood * (MUCH // len(flood))
    started = time.process_time()
    pos = 0
    while pos < len(data):
        found = skip_frames(data, pos, left)
        if found.pos == pos:
            break
        pos = found.pos + found.opaque
    assert time.process_time() - started < SECONDS


@pytest.mark.parametrize("one", [b"$1\r\nx\r\n", b"+\r\n"])
def test_few_that_are_wanted_of_many_are_found_at_once(one: bytes) -> None:
    data = one * (MUCH // len(one))
    started = time.process_time()
    at = found = 0
    while at < len(data):
        at, count = run(data, at, 2)
        found += count
    assert found == MUCH // len(one)
    assert time.process_time() - started < SECONDS


def test_expressions_do_not_look_back() -> None:
    """Nothing that nearly matches takes longer than what does."""
    started = time.process_time()
    near = [
        bulk(b"x" * 50) * 4000 + b"$1\r\nxx\r\n",
        b"+" + b"x" * MUCH,
        command("a", "b", "c", "d" * 99)[:-1],
        b"*" * MUCH,
    ]
    near += [
        b"$9" * 50_000,
        b"$99\r\n" + b"x" * MUCH,
        command("SET", "k", "v") * 5000 + b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nx\r\n",
    ]
    for data in near:
        for expression in (
            is_one_reply,
            is_one_request,
            bulks,
            lines,
            large_request,
            large_reply,
            frames.inlines,
            frames.nothing,
        ):
            expression(data)
    assert time.process_time() - started < SECONDS  # fmt: skip


# Before 3.11.5 a possessive group may end in the midst of what does not match (gh-106052), and Debian 12 has 3.11.2.
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[^}]*\})\+|\(\?>")
RUNS = """
from natproxy.wire import frames
get, ask = b"*2\\r\\n$3\\r\\nGET\\r\\n$2\\r\\nkk\\r\\n", b"*2\\r\\n$7\\r\\nCLUSTER\\r\\n$5\\r\\nNODES\\r\\n"
run, _ = frames.requests_by_head[get[:4]]
assert run(get + ask, 0).end() == len(get)
assert run(ask, 0).end() == 0
assert frames.lines(b"+OK\\r\\n-MOVED 1 a:1\\r\\n", 0).end() == 5
assert frames.bulks(b"$1\\r\\na\\r\\n$12\\r\\nabc", 0).end() == 7
assert frames.inlines(b"GET x\\nROLE\\n", 0).end() == 6
assert frames.nothing(b"\\r\\n*0\\r\\n*0\\r", 0).end() == 6
"""
PYTHONS = sorted({sys.executable, *(found for name in ("/usr/bin/python3",) if (found := shutil.which(name)))})


def test_no_expression_has_a_possessive_group() -> None:
    sources = (path for path in Path(frames.__file__).parents[1].rglob("*.py"))
    assert [str(path) for path in sources if POSSESSIVE_GROUP.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("python", PYTHONS)
def test_a_run_ends_before_what_breaks_it_with_every_python_here(python: str) -> None:
    root = Path(frames.__file__).parents[2]
    script = "import sys\nif sys.version_info >= (3, 11):\n" + textwrap.indent(RUNS, "    ")
    done = subprocess.run([python, "-c", script], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
