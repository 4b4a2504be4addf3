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
import time

from natproxy.connect.routes import LOOPBACK
from natproxy.errors import NatproxyError

BACKLOG = 512
_ASK_SECONDS = 0.2
_ALL_SECONDS = 1.0
_HOSTS = {socket.AF_INET: LOOPBACK, socket.AF_INET6: "::1"}
_TAKEN = frozenset((errno.EADDRINUSE, errno.EACCES, errno.EPERM))


class TakenError(NatproxyError):
    """A port cannot be had on this computer."""


class Neighbours:
    """Who else listens on this computer, asked port by port; ``seconds`` bound the whole of it.

    On loopback a port answers at once that nobody is there. Where a local firewall drops the question, there is no
    answer from any: then, and when the time is up, nobody is asked any more, and the system alone decides on a port.
    """

    def __init__(self, seconds: float = _ALL_SECONDS) -> None:
        self._left = seconds
        self._asked = dict(_HOSTS)

    def listen_on(self, port: int) -> bool:
        """Say whether somebody listens there; who says neither yes nor no does, if others would say no."""
        return any(self._listens(family, port) for family in tuple(self._asked))

    def _listens(self, family: socket.AddressFamily, port: int) -> bool:
        if (answer := self._ask(family, port)) is None and self._drops(family):
            del self._asked[family]
            return False
        return answer is not False

    def _drops(self, family: socket.AddressFamily) -> bool:
        """Say whether not even a port that certainly nobody listens on says no."""
        try:
            with socket.socket(family, socket.SOCK_STREAM) as nobodys:
                nobodys.bind((_HOSTS[family], 0))
                return self._ask(family, nobodys.getsockname()[1]) is None
        except OSError:
            return True

    def _ask(self, family: socket.AddressFamily, port: int) -> bool | None:
        """Return None for who does not answer in time."""
        seconds = min(_ASK_SECONDS, self._left)
        if seconds <= 0:
            return None
        began = time.monotonic()
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(seconds)
                sock.connect((_HOSTS[family], port))
                own: tuple[str, int] = sock.getsockname()[:2]
                return own != (_HOSTS[family], port)  # a port may happen to connect to itself
        except TimeoutError:
            self._left -= time.monotonic() - began
            return None
        except OSError:
            return False


def listen(port: int, neighbours: Neighbours | None = None) -> socket.socket:
    """Return a socket that listens on 127.0.0.1. Raises TakenError; OSError where no port at all can be had.

    Whoever listens on many ports has one ``neighbours`` for all.
    """
    if (neighbours or Neighbours()).listen_on(port):
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
