"""Questions to a cache, on a connection of their own. I/O: TCP, Unix sockets.

An ``address`` that begins with ``/`` is a Unix socket's path; the port then says nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import BinaryIO, cast

QUESTION_SECONDS = 5.0

Reply = str | int | None | list["Reply"]


class ReplyError(Exception):
    """The cache answered with an error."""


def ask(address: str, port: int, *words: str, seconds: float = QUESTION_SECONDS) -> Reply:
    """Send a Redis command and return its reply; raises ReplyError for ``-ERR ...``, OSError where nothing answers."""
    return converse(address, port, [words], seconds)[0]


def converse(
    address: str, port: int, commands: Sequence[Sequence[str]], seconds: float = QUESTION_SECONDS
) -> list[Reply]:
    """Send several commands on one connection and return their replies; raises as ``ask`` does."""
    with connect(address, port, seconds) as connection:
        connection.sendall("".join(_command(words) for words in commands).encode())
        with connection.makefile("rb") as stream:
            return [_read(cast("BinaryIO", stream)) for _ in commands]


def ask_line(address: str, port: int, line: str, seconds: float = QUESTION_SECONDS) -> str:
    """Send one line and return the first line of the answer, as it stands."""
    with connect(address, port, seconds) as connection:
        connection.sendall(line.encode() + b"\r\n")
        with connection.makefile("rb") as stream:
            return stream.readline().decode().rstrip("\r\n")


def connect(address: str, port: int, seconds: float = QUESTION_SECONDS) -> socket.socket:
    """Open a connection; ``seconds`` stays its timeout."""
    if not address.startswith("/"):
        return socket.create_connection((address, port), seconds)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(seconds)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _command(words: Sequence[str]) -> str:
    return f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)


def _read(stream: BinaryIO) -> Reply:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionAbortedError("the connection ended in the middle of a reply")
    mark, rest = line[:1], line[1:-2].decode()
    match mark:
        case b"+":
            return rest
        case b"-":
            raise ReplyError(rest)
        case b":":
            return int(rest)
        case b"$":
            return None if rest == "-1" else stream.read(int(rest) + 2)[:-2].decode()
        case b"*":
            return [_read(stream) for _ in range(int(rest))]
        case _:
            raise ReplyError(f"no reply that is understood here: {line!r}")
