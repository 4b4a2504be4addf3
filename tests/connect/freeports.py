"""Ports in a row that nobody uses, below those that systems give out by themselves. I/O: binds sockets."""

from __future__ import annotations

import contextlib
import random
import socket


def free_ports(count: int) -> list[int]:
    """Return so many, one after another."""
    while True:
        first = random.randrange(15_000, 24_000)
        ports = list(range(first, first + count))
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in ports:
                stack.enter_context(socket.create_server(("0.0.0.0", port)))
            return ports
