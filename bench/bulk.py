"""One connection with gigabytes on it, and the node for it. I/O: moves bytes; run as a program.

    python bench/bulk.py serve PORT                    a node: takes or gives as many bytes as it is told
    python bench/bulk.py up|down HOST PORT BYTES       a client; prints JSON

A client says ``up`` or ``down`` and a number, 16 bytes in all. Imports nothing of the bench, to start quickly.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time

CHUNK = 1 << 20
ORDER_BYTES = 16


def take(sock: socket.socket, count: int) -> None:
    """Read ``count`` bytes and drop them."""
    buffer = bytearray(CHUNK)
    while count:
        if not (got := sock.recv_into(buffer, min(count, CHUNK))):
            raise ConnectionError("an early end")
        count -= got


def give(sock: socket.socket, count: int) -> None:
    """Write ``count`` bytes."""
    chunk = memoryview(bytes(CHUNK))
    while count:
        size = min(count, CHUNK)
        sock.sendall(chunk[:size])
        count -= size


def serve(port: int) -> None:
    """Do what clients ask, for ever, on every address: each proxy asks another one of loopback."""
    listener = socket.create_server(("", port))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_answer, args=(client,), daemon=True).start()


def _answer(client: socket.socket) -> None:
    with client:
        order = client.recv(ORDER_BYTES, socket.MSG_WAITALL)
        if len(order) < ORDER_BYTES:
            return
        direction, count = order[:4].strip(), int(order[4:])
        if direction == b"up":
            take(client, count)
            client.sendall(b".")
        else:
            give(client, count)


def move(direction: str, host: str, port: int, count: int) -> float:
    """Return the seconds that so many bytes took, each of them having arrived."""
    with socket.create_connection((host, port), 5) as sock:
        sock.settimeout(30)
        start = time.monotonic()
        sock.sendall(f"{direction:<4}{count:012}".encode())
        if direction == "up":
            give(sock, count)
            take(sock, 1)
        else:
            take(sock, count)
        return time.monotonic() - start


def main(what: str, *arguments: str) -> None:
    """Be the node or the client."""
    if what == "serve":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        serve(int(arguments[0]))
    host, port, count = arguments
    print(json.dumps({"seconds": move(what, host, int(port), int(count)), "bytes": int(count)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
