from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.wire.memcached import MOST_NODE_LIST_BYTES, MemcachedRewriter
from natproxy.wire.memcached_frames import CONFIG_KEY
from natproxy.wire.rewriter import Bytes, Fallback, Hint, Reply, Rewriter
from tests.standins.memcached_front import packet
from tests.wire.memcached_feeding import BOOK, Feed, Recorder, config_answer, cut, value, view_of, ways_to_cut

NODES = b"a.x.0001.use1.cache.amazonaws.com|10.0.1.230|11211 b.x.0002.use1.cache.amazonaws.com|10.0.1.231|11211"
LIST = b"12\n" + NODES + b"\n"
TOLD = b"17\ncache.example|203.0.113.73|7001 cache.example|203.0.113.73|7002\n"
FORGED = [
    config_answer(LIST),
    value(CONFIG_KEY, LIST) + b"END\r\n",
    b"\r\nEND\r\n" + config_answer(LIST),
    b"\r\n" + config_answer(LIST),
    b"CONFIG cluster 0 99999\r\n",
    b"END\r\nVALUE k 0 7\r\n",
    b"\r\n",
    b"ITEM k [1 b; 0 s]\r\n",
    LIST,
    packet(0x60, b"opaq", bytes(4), LIST),
]


def opaque_packet(opcode: int, body: bytes, key: bytes = b"") -> bytes:
    return packet(opcode, b"opaq", bytes(4), body, key=key)


def as_rewriter(rewriter: MemcachedRewriter) -> Rewriter:
    return rewriter


def test_it_keeps_the_contract() -> None:
    rewriter = as_rewriter(MemcachedRewriter(view_of, Recorder()))
    assert rewriter.is_one_request(b"get k\r\n") is not None
    assert rewriter.is_one_request(b"\xff" * 70_000) is not None
    assert rewriter.request_opaque > 1 << 60
    assert rewriter.ahead > 1 << 60
    assert rewriter.is_one_reply(b"STORED\r\n") is None, "which protocol it is, the first reply tells"
    assert rewriter.large_request(b"set k 0 0 100000\r\n")
    rewriter.requests(b"config get cluster\r\n")
    assert rewriter.replies(b"") == b""
    assert rewriter.rest() == b""


@dataclass(frozen=True)
class Stream:
    """What a node sends, what is to come out, and what is rewritten in it."""

    came: bytes
    told: bytes
    lists: int = 0

    def __add__(self, other: Stream) -> Stream:
        return Stream(self.came + other.came, self.told + other.told, self.lists + other.lists)


def same(data: bytes) -> Stream:
    return Stream(data, data)


CONFIG = Stream(config_answer(LIST), config_answer(TOLD), 1)
TABLE = {
    "config": CONFIG,
    "config, then more": CONFIG + same(b"STORED\r\n"),
    "in a pipeline": same(b"STORED\r\n") + CONFIG + same(value(b"k", b"v") + b"END\r\n") + CONFIG + same(b"1\r\n"),
    "as an item": Stream(value(CONFIG_KEY, LIST), value(CONFIG_KEY, TOLD), 1) + same(b"END\r\n"),
    "as an item of several, with cas": same(value(b"a", FORGED[0], b" 7"))
    + Stream(value(CONFIG_KEY, LIST, b" 8"), value(CONFIG_KEY, TOLD, b" 8"), 1)
    + same(value(b"b", FORGED[1], b" 9") + b"END\r\n"),
    "another's item of that name": same(value(CONFIG_KEY, b"not a list") + b"END\r\n" + value(b"k", b"v") + b"END\r\n"),
    "another config": same(b"CONFIG other 0 5\r\n1\na||\r\nEND\r\n") + CONFIG,
    "none": same(b"END\r\n") + CONFIG,
    "errors": same(b"ERROR\r\nCLIENT_ERROR bad data chunk\r\nSERVER_ERROR object too large for cache\r\n") + CONFIG,
    "forged in values": Stream(b"", b"") + same(b"".join(value(b"k", body) for body in FORGED) + b"END\r\n") + CONFIG,
    "forged in meta values": same(b"".join(b"VA %d k1 O2\r\n%b\r\n" % (len(body), body) for body in FORGED)) + CONFIG,
    "statistics": same(b"STAT pid 1\r\nSTAT version 1.6.18\r\nEND\r\n") + CONFIG,
    "a metadump": same(b"key=a%0D%0AVALUE exp=-1 la=1 cas=2 fetch=no cls=1 size=63\r\nEND\r\n") + CONFIG,
    "a watcher": same(b"OK\r\nts=1.2 gid=1 type=item_get key=a status=not_found clsid=0\r\n") + CONFIG,
    "lines of any kind": same(b"\r\n\n\0\r\nVERSION 1\r\nVA\r\nVALUE\r\nPRE\r\n" + b"x" * 5000 + b"\r\n") + CONFIG,
    "binary": Stream(opaque_packet(0x60, LIST), opaque_packet(0x60, TOLD), 1),
    "binary, quiet and with key": Stream(
        opaque_packet(0x63, LIST, b"cluster"), opaque_packet(0x63, TOLD, b"cluster"), 1
    ),
    "binary, in a pipeline": same(b"".join(opaque_packet(0, body) for body in FORGED))
    + Stream(opaque_packet(0x60, LIST), opaque_packet(0x60, TOLD), 1)
    + same(packet(0x0A, b"opaq", b"", b"")),
    "binary, as an item": same(opaque_packet(0x0D, FORGED[0], b"k"))
    + Stream(opaque_packet(0x0D, LIST, CONFIG_KEY), opaque_packet(0x0D, TOLD, CONFIG_KEY), 1)
    + same(opaque_packet(0x0C, b"not a list", CONFIG_KEY)),
    "binary, not known there": same(b"\x81\x60" + bytes(5) + b"\x81\0\0\0\x0f" + bytes(12) + b"Unknown command"),
}


@pytest.mark.parametrize("is_quick", [False, True])
@pytest.mark.parametrize("stream", [pytest.param(stream, id=name) for name, stream in TABLE.items()])
def test_node_lists_are_rewritten_and_nothing_else(stream: Stream, is_quick: bool) -> None:
    for pieces in ways_to_cut(stream.came):
        feed = Feed(is_quick=is_quick)
        assert feed.pass_on(pieces) == stream.told
        assert feed.is_in_step
        assert feed.witness.replies == [Reply.CONFIG] * stream.lists
        assert feed.witness.hints == []


def test_a_node_without_a_port_is_left_out_and_asked_for() -> None:
    feed = Feed()
    body = b"12\nc.example|10.0.1.99|11211 " + NODES + b" d.example|10.0.1.98|11211\n"
    assert feed.pass_on([config_answer(body)]) == config_answer(TOLD)
    assert feed.witness.hints == [Hint.UNKNOWN_NODE]
    assert feed.pass_on([config_answer(b"12\nc.example|10.0.1.99|11211\n")]) == config_answer(b"0\n\n")
    assert feed.witness.hints == [Hint.UNKNOWN_NODE] * 2
    assert feed.is_in_step


def test_the_book_of_now_counts() -> None:
    feed = Feed()
    assert feed.pass_on([config_answer(LIST)]) == config_answer(TOLD)
    feed.book = replace(BOOK, version=6, ports={("10.0.1.231", 11211): 7009})
    assert feed.pass_on([config_answer(LIST)]) == config_answer(b"18\ncache.example|203.0.113.73|7009\n")


def test_what_is_only_passed_on_is_not_copied() -> None:
    rewriter = MemcachedRewriter(view_of, Recorder())
    pieces: list[Bytes] = [b"STORED\r\n", b"END\r\nSTO", b"RED", b"\r\n", b"VALUE k 0 5000\r\nabc", b"x" * 4000]
    pieces += [memoryview(b"x" * 997 + b"\r\nEND\r\n"), value(b"k", b"v") * 5, value(CONFIG_KEY, b"no list")]
    for piece in pieces:
        assert rewriter.replies(piece) is piece
    fallen = MemcachedRewriter(view_of, Recorder())
    for piece in (b"ITEM k [1 b; 0 s]\r\n", memoryview(b"STORED\r\n"), b"x" * 70_000, config_answer(LIST)):
        assert fallen.replies(piece) is piece


def test_values_may_pass_unseen() -> None:
    rewriter = MemcachedRewriter(view_of, Recorder())
    head = b"VALUE k 0 1000000\r\n"
    assert rewriter.replies(head) is head
    assert rewriter.reply_opaque == 1_000_002
    assert rewriter.is_one_reply(b"END\r\n") is None, "that is the inside of the value"
    rewriter.reply_opaque -= 999_999
    assert rewriter.replies(b"x\r\n" + config_answer(LIST)) == b"x\r\n" + config_answer(TOLD)
    assert rewriter.replies(head) is head
    rewriter.reply_opaque = 0
    assert rewriter.replies(b"END\r\n") == b"END\r\n"
    assert rewriter.is_one_reply(b"END\r\n") is not None


LARGE = b"VALUE k 0 5000\r\n" + b"x" * 5000 + b"\r\n"


@pytest.mark.parametrize(
    ("before", "head", "opaque"),
    [
        (b"", LARGE[:256], len(LARGE)),
        (b"END\r\n", LARGE[:256], len(LARGE)),
        (b"END\r\n", b"STORED\r\n" + LARGE[:256], len(LARGE) + 8),
        (b"END\r\n", b"VA 5000\r\n" + b"x" * 100, 5011),
        (b"", opaque_packet(0, b"x" * 5000)[:256], 5028),
        (LARGE, LARGE[:256], len(LARGE)),
        (b"", b"", 0),
        (b"", b"END\r\n", 0),
        (b"", b"STORED", 0),
        (b"", b"VALUE k 0 50", 0),
        (b"", config_answer(LIST)[:100], 0),
        (b"", value(CONFIG_KEY, LIST)[:100], 0),
        (b"", b"VALUE k 0 x\r\n", 0),
        (b"STO", LARGE[:256], 0),
        (b"VALUE k", LARGE[:256], 0),
        (config_answer(LIST)[:100], LARGE[:256], 0),
    ],
)
def test_large_replies_are_known_by_their_heads(before: bytes, head: bytes, opaque: int) -> None:
    rewriter = MemcachedRewriter(view_of, Recorder())
    rewriter.replies(before)
    assert rewriter.large_reply(head) is (opaque > 0)
    assert rewriter.reply_opaque == opaque
    if opaque:
        assert rewriter.is_one_reply(b"END\r\n") is None, "that is inside of it"


def test_a_large_reply_that_was_seen_coming_may_come_in_any_way() -> None:
    rewriter = MemcachedRewriter(view_of, Recorder())
    assert rewriter.large_reply(LARGE[:256])
    assert rewriter.replies(LARGE[:2000]) == LARGE[:2000]
    assert not rewriter.large_reply(LARGE[2000:2256])
    rewriter.reply_opaque -= 1000
    end = LARGE[3000:] + config_answer(LIST)
    assert rewriter.replies(end) == LARGE[3000:] + config_answer(TOLD)


def test_a_header_is_held_back_and_so_is_a_node_list() -> None:
    rewriter = MemcachedRewriter(view_of, Recorder())
    answer = config_answer(LIST)
    assert rewriter.replies(b"STORED\r\n" + answer[:10]) == b"STORED\r\n"
    assert rewriter.is_one_reply(b"END\r\n") is None
    for at in range(10, len(answer) - 8):
        assert rewriter.replies(answer[at : at + 1]) == b""
    assert rewriter.rest() == answer[:-8], "the node ended in the middle of it"
    assert rewriter.rest() == b""


def test_a_value_s_header_is_held_back_only_until_it_is_whole() -> None:
    rewriter = MemcachedRewriter(view_of, Recorder())
    assert rewriter.replies(b"END\r\nVALUE k 0") == b"END\r\n"
    assert rewriter.replies(b" 5000\r\nxx") == b"VALUE k 0 5000\r\nxx"
    assert rewriter.reply_opaque == 5000


UNSURE = {
    "no header": b"VALUE k 0 x\r\nabc\r\n",
    "a header without an end": b"VALUE " + b"k" * 3000,
    "raw keys": b"ITEM a\r\nCONFIG cluster 0 3\r\n [1 b; 0 s]\r\n",
    "raw prefixes": b"PREFIX a get 1 hit 1 set 1 del 0\r\n",
    "config that is no node list": config_answer(b"words\n"),
}


@pytest.mark.parametrize("is_quick", [False, True])
@pytest.mark.parametrize("unsure", [pytest.param(unsure, id=name) for name, unsure in UNSURE.items()])
def test_on_doubt_all_that_comes_passes_untouched(unsure: bytes, is_quick: bool) -> None:
    stream = config_answer(LIST) + b"STORED\r\n" + unsure + config_answer(LIST)
    expected = config_answer(TOLD) + stream.removeprefix(config_answer(LIST))
    for pieces in ways_to_cut(stream):
        feed = Feed(is_quick=is_quick)
        assert feed.pass_on(pieces) == expected
        assert feed.witness.fallbacks == [Fallback.ANSWER]
        assert feed.rewriter.is_one_reply(b"anything") is not None


def test_binary_that_is_none_passes_untouched() -> None:
    stream = opaque_packet(0x60, LIST) + b"END\r\n" + opaque_packet(0x60, LIST)
    expected = opaque_packet(0x60, TOLD) + b"END\r\n" + opaque_packet(0x60, LIST)
    for pieces in ways_to_cut(stream):
        feed = Feed()
        assert feed.pass_on(pieces) == expected
        assert feed.witness.fallbacks == [Fallback.ANSWER]


@pytest.mark.parametrize(
    "answer", [config_answer, lambda body: opaque_packet(0x60, body), lambda body: value(CONFIG_KEY, body)]
)
def test_a_list_that_is_too_long_passes_untouched(answer: Callable[[bytes], bytes]) -> None:
    feed = Feed()
    long = answer(b"12\n" + NODES + b" " * (MOST_NODE_LIST_BYTES - 1000) + b"\n")
    assert TOLD in feed.pass_on(cut(long, range(0, len(long), 1448)))
    too_long = answer(b"12\n" + NODES + b" " * MOST_NODE_LIST_BYTES + b"\n")
    assert feed.pass_on(cut(too_long, range(0, len(too_long), 1448))) == too_long
    assert feed.witness.replies == [Reply.CONFIG]
    assert feed.witness.fallbacks == [Fallback.TOO_LARGE]


def test_what_is_held_is_bounded() -> None:
    rewriter = MemcachedRewriter(view_of, Recorder())
    stream = b"CONFIG cluster 0 %d\r\n" % (MOST_NODE_LIST_BYTES - 100) + b"x" * (2 * MOST_NODE_LIST_BYTES)
    held = most = 0
    for piece in cut(stream, range(0, len(stream), 4096)):
        held += len(piece) - len(rewriter.replies(piece))
        most = max(most, held)
    assert held == 0
    assert most <= MOST_NODE_LIST_BYTES


# Random streams, cut anywhere.

bodies = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(FORGED),
    st.builds(
        lambda body, times: body * times, st.sampled_from([b"\r\nEND\r\n", b"x", b"VALUE "]), st.integers(0, 600)
    ),
)
keys = st.binary(min_size=1, max_size=12).filter(lambda key: not set(key) & set(b" \n"))
text_lines = st.one_of(
    st.sampled_from(
        [b"STORED", b"END", b"ERROR", b"NOT_FOUND", b"18446744073709551615", b"HD k1", b"EN", b"MN", b"OK"]
    ),
    st.binary(max_size=30).filter(
        lambda line: b"\n" not in line and not line.startswith((b"VALUE ", b"VA ", b"CONFIG ", b"ITEM ", b"PREFIX "))
    ),
).map(lambda line: same(line + b"\r\n"))
lists = st.tuples(
    st.integers(0, 2**40),
    st.lists(
        st.sampled_from(
            [
                (b"a.x.0001.use1.cache.amazonaws.com|10.0.1.230|11211", b"cache.example|203.0.113.73|7001"),
                (b"b.x.0002.use1.cache.amazonaws.com||11211", b"cache.example|203.0.113.73|7002"),
                (b"new.example|10.0.1.232|11212", b"cache.example|203.0.113.73|7003"),
                (b"unknown.example|10.0.9.9|11211", None),
            ]
        ),
        max_size=40,
    ),
)


def list_bodies(listed: tuple[int, list[tuple[bytes, bytes | None]]]) -> tuple[bytes, bytes]:
    version, nodes = listed
    known = [told for _, told in nodes if told is not None]
    came = b"%d\n%b\n" % (version, b" ".join(node for node, _ in nodes))
    return came, b"%d\n%b\n" % (version + BOOK.version if known else 0, b" ".join(known))


def config_stream(listed: tuple[int, list[tuple[bytes, bytes | None]]]) -> Stream:
    came, told = list_bodies(listed)
    return Stream(config_answer(came), config_answer(told), 1)


def item_stream(listed: tuple[int, list[tuple[bytes, bytes | None]]], cas: bytes) -> Stream:
    came, told = list_bodies(listed)
    return Stream(value(CONFIG_KEY, came, cas), value(CONFIG_KEY, told, cas), 1)


def packet_stream(listed: tuple[int, list[tuple[bytes, bytes | None]]], opcode: int, key: bytes) -> Stream:
    came, told = list_bodies(listed)
    return Stream(opaque_packet(opcode, came, key), opaque_packet(opcode, told, key), 1)


cas = st.sampled_from([b"", b" 1", b" 18446744073709551615"])
text_parts = st.one_of(
    text_lines,
    st.builds(lambda key, body, cas: same(value(key, body, cas)), keys, bodies, cas),
    st.builds(lambda body, flags: same(b"VA %d%b\r\n%b\r\n" % (len(body), flags, body)), bodies, cas),
    lists.map(config_stream),
    st.builds(item_stream, lists, cas),
)
binary_parts = st.one_of(
    st.builds(
        lambda opcode, body, key: same(opaque_packet(opcode, body, key)),
        st.integers(0, 255).filter(lambda opcode: opcode not in range(0x60, 0x64)),
        bodies,
        st.binary(max_size=30).filter(lambda key: key != CONFIG_KEY),
    ),
    st.builds(packet_stream, lists, st.integers(0x60, 0x63), st.sampled_from([b"", b"cluster"])),
    st.builds(packet_stream, lists, st.sampled_from([0x0C, 0x0D, 0x23, 0x24]), st.just(CONFIG_KEY)),
)
cuts = st.lists(st.integers(0, 1 << 20), max_size=30)


@given(
    st.lists(text_parts, max_size=12).filter(lambda parts: not parts or parts[0].came[:1] != b"\x81"),
    cuts,
    st.booleans(),
)
def test_any_text_comes_out_as_it_came_but_for_node_lists(parts: list[Stream], at: list[int], is_quick: bool) -> None:
    assert_told(sum(parts, same(b"")), at, is_quick)


@given(st.lists(binary_parts, max_size=12), cuts, st.booleans())
def test_any_binary_comes_out_as_it_came_but_for_node_lists(parts: list[Stream], at: list[int], is_quick: bool) -> None:
    assert_told(sum(parts, same(b"")), at, is_quick)


def assert_told(stream: Stream, at: list[int], is_quick: bool) -> None:
    feed = Feed(is_quick=is_quick)
    assert feed.pass_on(cut(stream.came, at)) == stream.told
    assert feed.is_in_step or not stream.came
    assert len(feed.witness.replies) == stream.lists


@given(st.binary(max_size=300), cuts, st.booleans())
def test_any_bytes_at_all_come_out(stream: bytes, at: list[int], is_quick: bool) -> None:
    assert Feed(is_quick=is_quick).pass_on(cut(stream, at)) == stream


@given(st.lists(st.sampled_from(list(b"VAL UECONFIG0123\r\n|x\x81\x60")), max_size=120).map(bytes), cuts)
def test_what_looks_like_headers_comes_out(stream: bytes, at: list[int]) -> None:
    assert Feed().pass_on(cut(stream, at)) == stream
