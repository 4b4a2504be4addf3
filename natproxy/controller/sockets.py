"""The listening sockets: each bound exactly once, by this process alone, and kept by systemd. I/O: binds TCP ports.

Theory. systemd keeps a copy of every listening socket (FDSTORE of sd_notify(3)), so that the socket outlives a restart,
and a crash: who connects meanwhile waits in its queue, and is served by whoever takes the socket over. Hence:

- A start adopts what it is given where that is what it would have bound; all else is closed, here and at systemd's, for
  as long as anybody holds it the port cannot be bound anew.
- A port that closes is given up at systemd's, too. A stop gives nothing up.
- Nobody ever calls shutdown(2) on a listening socket: that ends it for all who hold a copy.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Iterable

from natproxy.controller.keeping import Keeping
from natproxy.controller.logs import event
from natproxy.errors import NatproxyError

_log = logging.getLogger(__name__)

BACKLOG = 4096
"""As much as the kernel allows (net.core.somaxconn cuts it)."""


class BindError(NatproxyError):
    """A port cannot be opened; the text says which and why."""


class _NotOursError(Exception):
    """A descriptor is not what natproxy would have bound; the text says why."""


class Sockets:
    """Opens ports on all of ``addresses`` and keeps them until they are closed here.

    SO_REUSEPORT is not set: with it any process of the same user could join a port unseen. ``keeping`` None: nobody
    keeps a copy.
    """

    def __init__(self, addresses: Iterable[str], keeping: Keeping | None = None) -> None:
        self._addresses = tuple(addresses)
        self._keeping = keeping
        self._open: dict[int, list[socket.socket]] = {}
        self._adopted: dict[tuple[str, int], socket.socket] = {}
        """(address, port) -> what an earlier life has bound, and nobody has asked for yet."""

    # What an earlier life has left.

    def adopt(self, descriptors: Iterable[tuple[int, str]]) -> None:
        """Take over listening sockets of an earlier life, for ``open``; close all that is something else.

        ``descriptors`` are systemd's, each with the name it is kept under, and belong to this object from now on.
        """
        strange: set[str] = set()
        for fd, name in descriptors:
            try:
                address, sock = self._adopt(fd)
            except _NotOursError as why:
                event(_log, logging.WARNING, "kept descriptor is not taken over", name=name, why=str(why))
                strange.add(name)
                continue
            port = sock.getsockname()[1]
            self._adopted[address, port] = sock
            if name != kept_name(address, port):
                strange.add(name)
        if self._keeping is None:
            return
        for name in sorted(filter(None, strange)):
            self._keeping.release(name)
        for (address, port), sock in self._adopted.items():
            if strange:  # what had a strange name, or one that something strange had as well
                self._keeping.keep(kept_name(address, port), sock)
        if self._adopted:
            event(_log, logging.INFO, "kept sockets are taken over", sockets=len(self._adopted))

    def _adopt(self, fd: int) -> tuple[str, socket.socket]:
        """Return the address of ``listen.address`` that a descriptor listens on, and its socket; or close it."""
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise _NotOursError("is not a socket" if _close_descriptor(fd) else "is not open") from error
        try:
            address = self._address_of(sock)
            os.set_inheritable(fd, False)
            sock.setblocking(False)
            _set_up(sock)
            sock.listen(BACKLOG)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise _NotOursError(error.strerror or str(error)) from error
            raise
        return address, sock

    def _address_of(self, sock: socket.socket) -> str:
        is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.proto == socket.IPPROTO_TCP
        if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise _NotOursError("is not a listening TCP socket")
        ip, port = sock.getsockname()[:2]
        for address in self._addresses:
            if _family(address) != sock.family or ipaddress.ip_address(address) != ipaddress.ip_address(ip):
                continue
            if sock.family == socket.AF_INET6 and self._is_v6_only(address) != bool(
                sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            ):
                raise _NotOursError(f"serves IPv4 on {ip} port {port} where it should not, or does not where it should")
            if (address, port) in self._adopted:
                raise _NotOursError(f"is another copy of port {port} on {ip}")
            return address
        raise _NotOursError(f"listens on {ip} port {port}, which is not one of listen.address")

    def close_unclaimed(self) -> None:
        """Close what was adopted and nobody has asked for."""
        for (address, port), sock in self._adopted.items():
            event(_log, logging.INFO, "kept socket is closed, no route wants it", port=port, address=address)
            sock.close()
            if self._keeping is not None:
                self._keeping.release(kept_name(address, port))
        self._adopted.clear()

    # What is open.

    def open(self, port: int) -> list[socket.socket]:
        """Return the port's listening sockets, bound now or before; all or none. Raises BindError."""
        known = self._open.get(port)
        if known is not None:
            return known
        sockets: dict[str, socket.socket] = {}
        bound: list[socket.socket] = []
        try:
            for address in self._addresses:
                sock = self._adopted.get((address, port))
                if sock is None:
                    sock = self._bind(address, port)
                    bound.append(sock)
                sockets[address] = sock
        except OSError as error:
            for sock in bound:
                sock.close()
            message = f"port {port} cannot be opened on {address}: {error.strerror or error}"
            raise BindError(message) from error
        for address, sock in sockets.items():
            if self._adopted.pop((address, port), None) is None and self._keeping is not None:
                self._keeping.keep(kept_name(address, port), sock)
        self._open[port] = list(sockets.values())
        return self._open[port]

    def _bind(self, address: str, port: int) -> socket.socket:
        if self._keeping is not None:
            self._keeping.settle()
        sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Against TIME_WAIT of an earlier life; it lets nobody else listen.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(self._is_v6_only(address)))
            sock.bind((address, port))
            _set_up(sock)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock

    def _is_v6_only(self, address: str) -> bool:
        """Say whether an IPv6 address is for IPv6 alone: "::" serves IPv4 too, unless IPv4 has a socket of its own."""
        return address != "::" or any(":" not in other for other in self._addresses)

    def close(self, port: int) -> None:
        """Close the port here. It is free once every worker has closed its copies too."""
        for address, sock in zip(self._addresses, self._open.pop(port, ()), strict=False):
            sock.close()
            if self._keeping is not None:
                self._keeping.release(kept_name(address, port))

    def tick(self) -> None:
        """Do what time asks for; to be called about once a second."""
        if self._keeping is not None:
            self._keeping.flush()

    def close_all(self) -> None:
        """Close every port here; what is kept stays with systemd for the next start."""
        for sock in (*self._adopted.values(), *(sock for sockets in self._open.values() for sock in sockets)):
            sock.close()
        self._adopted.clear()
        self._open.clear()


def kept_name(address: str, port: int) -> str:
    """Return the name that a socket is kept under: no colons, and short, for all names share one variable."""
    return f"{port}-{address.replace(':', '_')}"


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _set_up(sock: socket.socket) -> None:
    # Whoever connects before a worker serves this port has it from here: bytes go at once, urgent ones in line.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def _close_descriptor(fd: int) -> bool:
    """Close a descriptor; return False where it was not open."""
    try:
        os.close(fd)
    except OSError:
        return False
    return True
