"""What a connection that rests holds in a proxy's memory. I/O: opens many connections."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from bench.daemon import resident_bytes
from bench.tlsconfigs import HOST

CONNECTIONS = 1000
BURST_BYTES = 256 * 1024
GET = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:__rand_int__\r\n"
SETTLE_SECONDS = 0.5


def measure(port: int, pid: int, ca: Path, store: Callable[[bytes], None]) -> dict[str, float]:
    """Return the bytes that one of many connections holds: after its first answer, and after a large one."""
    store(b"x" * BURST_BYTES)
    context = ssl.create_default_context(cafile=str(ca))
    before = resident_bytes(pid)
    sockets: list[ssl.SSLSocket] = []
    held: dict[str, float] = {}
    try:
        for _ in range(CONNECTIONS):
            sockets.append(context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=HOST))
            _ask(sockets[-1], b"PING\r\n", len(b"+PONG\r\n"))
        time.sleep(SETTLE_SECONDS)
        held["idle"] = (resident_bytes(pid) - before) / CONNECTIONS
        for sock in sockets:
            _ask(sock, GET, len(b"$%d\r\n\r\n" % BURST_BYTES) + BURST_BYTES)
        time.sleep(SETTLE_SECONDS)
        held["after_burst"] = (resident_bytes(pid) - before) / CONNECTIONS
    finally:
        for sock in sockets:
            sock.close()
    return held


def _ask(sock: ssl.SSLSocket, question: bytes, count: int) -> None:
    sock.sendall(question)
    while count > 0:
        if not (chunk := sock.recv(count)):
            raise RuntimeError("the proxy closed the connection")
        count -= len(chunk)
