from __future__ import annotations

import socket
import threading

import pytest

from tests.standins.resp import ReplyError, ask, ask_line


def answering(reply: bytes) -> tuple[threading.Thread, int]:
    """Answer one connection with ``reply``, and end it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, listener.getsockname()[1]


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (b"+OK\r\n", "OK"),
        (b":17\r\n", 17),
        (b"$5\r\na\r\nbc\r\n", "a\r\nbc"),
        (b"$-1\r\n", None),
        (b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", ["master", 0, []]),
    ],
)
def test_replies_get_their_types(reply: bytes, value: object) -> None:
    thread, port = answering(reply)
    assert ask("127.0.0.1", port, "ROLE") == value
    thread.join(10)


@pytest.mark.parametrize(("reply", "error"), [(b"-ERR no\r\n", ReplyError), (b"?\r\n", ReplyError), (b"+O", OSError)])
def test_errors_and_half_replies_are_raised(reply: bytes, error: type[Exception]) -> None:
    thread, port = answering(reply)
    with pytest.raises(error):
        ask("127.0.0.1", port, "PING")
    thread.join(10)


def test_a_line_is_answered_as_it_stands() -> None:
    thread, port = answering(b"VERSION 1.6\r\nmore\r\n")
    assert ask_line("127.0.0.1", port, "version") == "VERSION 1.6"
    thread.join(10)
