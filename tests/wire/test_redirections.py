from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.wire.book import Book, View
from natproxy.wire.redirections import TRY_AGAIN, Redirected, redirect
from natproxy.wire.rewriter import Hint, Reply
from tests.wire.samples import B1, C1, HOST, IPS, NAMES, book_without, read_by_redis_py, view

SERVERLESS = "my-cache-x.serverless.use1.cache.amazonaws.com"


@pytest.mark.parametrize(
    ("line", "told", "reply"),
    [
        (f"-MOVED 12182 {IPS[C1]}:6379", f"-MOVED 12182 {HOST}:7003", Reply.MOVED),
        (f"-MOVED 12182 {NAMES[C1]}:6379", f"-MOVED 12182 {HOST}:7003", Reply.MOVED),
        (f"-MOVED 0 {NAMES[C1].upper()}.:6379", f"-MOVED 0 {HOST}:7003", Reply.MOVED),
        (f"-MOVED 16383 ::ffff:{IPS[C1]}:6379", f"-MOVED 16383 {HOST}:7003", Reply.MOVED),
        (f"-ASK 12182 {IPS[B1]}:6379", f"-ASK 12182 {HOST}:7002", Reply.ASK),
        ("-ASK 12182 :6379", f"-ASK 12182 {HOST}:7001", Reply.ASK),
        (f"-REDIRECT {IPS[B1]}:6379", f"-REDIRECT {HOST}:7002", Reply.REDIRECT),
        ("-REDIRECT :6379", f"-REDIRECT {HOST}:7001", Reply.REDIRECT),
    ],
)
def test_a_redirection_leads_to_the_node_s_port(line: str, told: str, reply: Reply) -> None:
    assert redirect(f"{line}\r\n".encode(), view()) == Redirected(f"{told}\r\n".encode(), reply, None)


@pytest.mark.parametrize("host", ["fd00:1::232", "[fd00:1::232]", "FD00:1:0:0::232"])
@pytest.mark.parametrize("public", ["203.0.113.73", "2001:db8::73"])
def test_ipv6_is_read_with_and_without_brackets_and_said_without(host: str, public: str) -> None:
    book = Book({("fd00:1::232", 6379): 7003}, public)
    told = redirect(f"-MOVED 1 {host}:6379\r\n".encode(), View(book, "::1", "fd00:1::230", 6379, speaks_tls=False))
    assert told == Redirected(f"-MOVED 1 {public}:7003\r\n".encode(), Reply.MOVED, None)


@pytest.mark.parametrize(
    "line",
    [
        "-MOVED 12182 10.0.1.99:6379",
        "-MOVED 12182 10.0.1.231:6380",
        "-MOVED 12182 :6380",
        "-MOVED 12182 ?:6380",
        "-ASK 12182 stranger.example:6379",
        "-REDIRECT 10.0.1.99:6379",
        "-MOVED 12182 na\xefve:6379",
    ],
)
def test_a_node_without_a_port_is_to_be_tried_again(line: str) -> None:
    told = redirect(f"{line}\r\n".encode("latin-1"), view())
    assert told == Redirected(TRY_AGAIN, Reply.TRYAGAIN, Hint.UNKNOWN_NODE)


def test_try_again_is_one_line_that_clients_know() -> None:
    assert TRY_AGAIN.count(b"\n") == 1
    assert type(read_by_redis_py(TRY_AGAIN, 2)).__name__ == "TryAgainError"


@pytest.mark.parametrize("host", ["", "?", IPS[C1], NAMES[C1]])
def test_a_node_that_sends_clients_to_itself_is_told_of(host: str) -> None:
    line = f"-MOVED 12182 {host}:6379\r\n".encode()
    told = f"-MOVED 12182 {HOST}:7003\r\n".encode()
    assert redirect(line, view(own=C1)) == Redirected(told, Reply.MOVED, Hint.MOVED_TO_SELF)


def test_only_a_moved_back_to_the_same_port_is_one_to_itself() -> None:
    ask = redirect(f"-ASK 1 {IPS[C1]}:6379\r\n".encode(), view(own=C1))
    assert ask is not None
    assert ask.hint is None
    stranger = redirect(b"-MOVED 1 10.0.1.99:6379\r\n", view(book_without(C1), own=C1))
    assert stranger is not None
    assert stranger.hint is Hint.UNKNOWN_NODE


def test_serverless_caches_have_one_name_and_two_ports() -> None:
    ports = {(host, port): 7000 + port for host in (SERVERLESS, "10.0.1.7", "10.0.2.7") for port in (6379, 6380)}
    reader = View(Book(ports, HOST), "10.0.0.55", "10.0.2.7", 6380, speaks_tls=True)
    told = f"-MOVED 1 {HOST}:13379\r\n".encode()
    assert redirect(f"-MOVED 1 {SERVERLESS}:6379\r\n".encode(), reader) == Redirected(told, Reply.MOVED, None)
    assert redirect(b"-MOVED 1 10.0.1.7:6379\r\n", reader) == Redirected(told, Reply.MOVED, None)
    itself = redirect(f"-MOVED 1 {SERVERLESS}:6380\r\n".encode(), reader)
    assert itself is not None
    assert itself.hint is Hint.MOVED_TO_SELF


@pytest.mark.parametrize(
    "line",
    [
        b"-MOVED 12182 10.0.1.232:6379",
        b"-MOVED 12182 10.0.1.232:6379\n",
        b"-MOVED 12182 10.0.1.232:6379\r\n\r\n",
        b"-MOVED 16384 10.0.1.232:6379\r\n",
        b"-MOVED -1 10.0.1.232:6379\r\n",
        b"-MOVED x 10.0.1.232:6379\r\n",
        b"-MOVED 10.0.1.232:6379\r\n",
        b"-MOVED 12182 10.0.1.232\r\n",
        b"-MOVED 12182 10.0.1.232:\r\n",
        b"-MOVED 12182 10.0.1.232:0\r\n",
        b"-MOVED 12182 10.0.1.232:65536\r\n",
        b"-MOVED 12182 10.0.1.232:637x\r\n",
        b"-MOVED 12182 10.0.1.232:6379 and more\r\n",
        b"-MOVED  12182 10.0.1.232:6379\r\n",
        b"-MOVED 12182 10.0.1 232:6379\r\n",
        b"-moved 12182 10.0.1.232:6379\r\n",
        b"-MOVEDON 12182 10.0.1.232:6379\r\n",
        b"-REDIRECT 12182 10.0.1.232:6379\r\n",
        b"-REDIRECT\r\n",
        b"-ERR MOVED 12182 10.0.1.232:6379\r\n",
        b"+MOVED 12182 10.0.1.232:6379\r\n",
        b"-MOVED \xd9\xa1 10.0.1.232:6379\r\n",
        b"",
    ],
)
def test_what_is_no_redirection_goes_on_untouched(line: bytes) -> None:
    assert redirect(line, view()) is None


@given(
    st.sampled_from((b"MOVED ", b"ASK ", b"REDIRECT ")), st.binary(max_size=40), st.sampled_from((b":6379", b":1", b""))
)
def test_whatever_is_said_leads_nowhere_else(word: bytes, middle: bytes, port: bytes) -> None:
    for line in (b"-%b%b%b\r\n" % (word, middle, port), b"-%b1 %b%b\r\n" % (word, middle, port)):
        told = redirect(line, view())
        if told is not None:
            assert told.line == TRY_AGAIN or told.line.rpartition(b" ")[2] == b"%b:7001\r\n" % HOST.encode()
