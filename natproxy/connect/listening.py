"""Ports on loopback, each to itself. I/O: sockets.

127.0.0.1 alone: what rewritten replies name, and what nobody else on the network can reach. Where somebody answers
already, the port counts as taken even if the system would let it be bound: BSD and macOS allow that beside a listener
on all addresses, and ``localhost`` may lead clients to a local Redis on ::1 first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from natproxy.connect.routes import LOOPBACK
from natproxy.errors import NatproxyError

BACKLOG = 512
_ASK_SECONDS = 0.2
_TAKEN = frozenset((errno.EADDRINUSE, errno.EACCES, errno.EPERM))


class TakenError(NatproxyError):
    """A port cannot be had on this computer."""


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1. Raises TakenError; OSError where no port at all can be had."""
    if _answers(socket.AF_INET, LOOPBACK, port) or _answers(socket.AF_INET6, "::1", port):
        message = f"somebody listens on port {port} here"
        raise TakenError(message)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted has it from here
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        try:
            sock.bind((LOOPBACK, port))
            sock.listen(BACKLOG)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            message = f"port {port} cannot be had here: {os.strerror(error.errno)}"
            raise TakenError(message) from error
        sock.setblocking(False)
        stack.pop_all()
        return sock


def _answers(family: int, host: str, port: int) -> bool:
    """Say whether somebody listens there; who does not say no in time does."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(_ASK_SECONDS)
            sock.connect((host, port))
            own: tuple[str, int] = sock.getsockname()[:2]
            return own != (host, port)  # a port may happen to connect to itself
    except TimeoutError:
        return True
    except OSError:
        return False
