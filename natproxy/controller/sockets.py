"""The listening sockets: each bound exactly once, by this process alone. I/O: binds TCP ports."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from natproxy.errors import NatproxyError

BACKLOG = 4096
"""As much as the kernel allows (net.core.somaxconn cuts it)."""


class BindError(NatproxyError):
    """A port cannot be opened; the text says which and why."""


class Sockets:
    """Opens ports on all of ``addresses`` and keeps them until they are closed here.

    SO_REUSEPORT is not set: with it any process of the same user could join a port unseen.
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        self._addresses = tuple(addresses)
        self._open: dict[int, list[socket.socket]] = {}

    def open(self, port: int) -> list[socket.socket]:
        """Return the port's listening sockets, bound now or before; all or none. Raises BindError."""
        known = self._open.get(port)
        if known is not None:
            return known
        sockets: list[socket.socket] = []
        try:
            for address in self._addresses:
                sockets.append(self._bind(address, port))
        except OSError as error:
            for sock in sockets:
                sock.close()
            message = f"port {port} cannot be opened on {address}: {error.strerror or error}"
            raise BindError(message) from error
        self._open[port] = sockets
        return sockets

    def _bind(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Against TIME_WAIT of an earlier life; it lets nobody else listen.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # "::" serves IPv4 too, unless IPv4 has a socket of its own.
                has_ipv4 = any(":" not in other for other in self._addresses)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(has_ipv4 or address != "::"))
            sock.bind((address, port))
            # Whoever connects before a worker serves this port has it from here: bytes go at once, urgent ones in line.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self, port: int) -> None:
        """Close the port here. It is free once every worker has closed its copies too."""
        for sock in self._open.pop(port, ()):
            sock.close()

    def close_all(self) -> None:
        """Close every port here."""
        for port in list(self._open):
            self.close(port)
