"""Many connections that rest. I/O: opens them, in processes of their own; run as a program.

    python bench/idle.py HOST PORT COUNT [CA NAME]

Opens so many connections, over TLS where a CA is named, asks each for a PING, prints a line, and holds them until its
stdin ends. A line on stdin with a number has each asked for a value of so many bytes. Imports nothing of the bench, to
start quickly.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PING, PONG = b"PING\r\n", b"+PONG\r\n"
GET = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:__rand_int__\r\n"
"""Of the key that redis-benchmark asks for."""
AT_ONCE = 64
"""Connections that are opened and asked together: the proxy then has work while this process waits."""


@contextlib.contextmanager
def held(
    host: str, port: int, count: int, *more: str, processes: int = 2, prefix: Sequence[str] = ()
) -> Iterator[Callable[[int], None]]:
    """Hold so many connections open; the block begins once all have had their answer.

    Yields what has each of them get a value of so many bytes.
    """
    running: list[subprocess.Popen[str]] = []
    try:
        for number in range(processes):
            share = str(count // processes + (number < count % processes))
            argv = [*prefix, sys.executable, "-I", "-S", str(Path(__file__)), host, str(port), share, *more]
            running.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        _await(running, "open")
        yield lambda size: _get(running, size)
    finally:
        for process in running:
            process.communicate()


def _await(running: Sequence[subprocess.Popen[str]], word: str) -> None:
    for process in running:
        if process.stdout is None or process.stdout.readline() != f"{word}\n":
            raise RuntimeError(f"not all connections say that they are {word}")


def _get(running: Sequence[subprocess.Popen[str]], size: int) -> None:
    for process in running:
        if process.stdin is not None:
            process.stdin.write(f"{size}\n")
            process.stdin.flush()
    _await(running, "answered")


def receive(sock: socket.socket, count: int) -> None:
    """Read so many bytes and drop them."""
    while count:
        if not (got := sock.recv(min(count, 1 << 16))):
            raise ConnectionError("the proxy closed the connection")
        count -= len(got)


def open_all(host: str, port: int, count: int, context: ssl.SSLContext | None, name: str) -> list[socket.socket]:
    """Return connections that each have had an answer."""
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        few = [socket.create_connection((host, port), 20) for _ in range(min(AT_ONCE, count - len(sockets)))]
        if context is not None:
            few = [context.wrap_socket(sock, server_hostname=name) for sock in few]
        for sock in few:
            sock.sendall(PING)
        for sock in few:
            if sock.recv(len(PONG)) != PONG:
                raise ConnectionError("the proxy closed the connection")
        sockets += few
    return sockets


def main(host: str, port: str, count: str, ca: str = "", name: str = "") -> None:
    """Open, tell, hold."""
    context = ssl.create_default_context(cafile=ca) if ca else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the certificate is the bench's own
    sockets = open_all(host, int(port), int(count), context, name)
    print("open", flush=True)
    for line in sys.stdin:
        size = int(line)
        for sock in sockets:
            sock.sendall(GET)
            receive(sock, len(b"$%d\r\n\r\n" % size) + size)
        print("answered", flush=True)
    for sock in sockets:
        sock.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
