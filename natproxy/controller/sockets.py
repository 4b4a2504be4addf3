"""The listening sockets: each bound exactly once, by this process alone, and kept by systemd. I/O: binds TCP ports.

Theory. systemd keeps a copy of every listening socket (FDSTORE of sd_notify(3)), so that the socket outlives a restart,
and a crash: who connects meanwhile waits in its queue, and is served by whoever takes the socket over. Hence:

- A start adopts what it is given where that is what it would have bound; all else is closed, here and at systemd's, for
  as long as anybody holds it the port cannot be bound anew.
- A port that closes is given up at systemd's, too. A stop gives nothing up.
- Whoever waits in a queue has connected to what the port led to then. The name that a socket is kept under tells that;
  where the port leads elsewhere by now they are turned away, and the port is bound anew.
- Nobody ever calls shutdown(2) on a listening socket: that ends it for all who hold a copy.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from natproxy.controller.keeping import Keeping
from natproxy.controller.logs import event
from natproxy.errors import NatproxyError

_log = logging.getLogger(__name__)

BACKLOG = 4096
"""As much as the kernel allows (net.core.somaxconn cuts it)."""
_BIND_PAUSE_SECONDS = 0.01


class BindError(NatproxyError):
    """A port cannot be opened; the text says which and why."""


class _NotOursError(Exception):
    """A descriptor is not what natproxy would have bound; the text says why."""


@dataclass(frozen=True, slots=True)
class _Adopted:
    """A socket that an earlier life has bound, and what it is kept under."""

    sock: socket.socket
    name: str


class Sockets:
    """Opens ports on all of ``addresses`` and keeps them until they are closed here.

    SO_REUSEPORT is not set: with it any process of the same user could join a port unseen. ``keeping`` None: nobody
    keeps a copy.
    """

    def __init__(self, addresses: Iterable[str], keeping: Keeping | None = None) -> None:
        self._addresses = tuple(addresses)
        self._keeping = keeping
        self._open: dict[int, list[socket.socket]] = {}
        self._destinations: dict[int, str] = {}
        """Open port -> what whoever connects to it relies on reaching."""
        self._adopted: dict[tuple[str, int], _Adopted] = {}
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
            if _is_name_of(name, address, port):
                self._adopted[address, port] = _Adopted(sock, name)
            else:
                strange.add(name)
                self._adopted[address, port] = _Adopted(sock, kept_name(address, port))
        self._give_up_strange(strange)
        if self._adopted:
            event(_log, logging.INFO, "kept sockets are taken over", sockets=len(self._adopted))

    def _give_up_strange(self, names: set[str]) -> None:
        """Have nothing kept under these names; a good socket that had one, too, is kept anew."""
        for name in sorted(filter(None, names)):
            self._release(name)
        for adopted in self._adopted.values() if names else ():
            self._keep(adopted.name, adopted.sock)

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
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            raise _NotOursError("lets other processes listen beside it (SO_REUSEPORT)")
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
        for address, port in tuple(self._adopted):
            self._turn_away(address, port, "kept socket is closed, no route wants it")

    def _turn_away(self, address: str, port: int, why: str) -> None:
        """Close an adopted socket, here and at systemd's; whoever waits in its queue is refused."""
        event(_log, logging.INFO, why, port=port, address=address)
        adopted = self._adopted.pop((address, port))
        adopted.sock.close()
        self._release(adopted.name)

    # What is open.

    def open(self, port: int, destination: str = "") -> list[socket.socket]:
        """Return the port's listening sockets, bound now or before; all or none. Raises BindError.

        ``destination`` says, over restarts, what whoever connects relies on reaching.
        """
        if (known := self._open.get(port)) is None:
            known = self._open[port] = self._adopt_or_bind(port, destination)
        elif destination != self._destinations[port]:
            for address, sock in zip(self._addresses, known, strict=True):
                self._release(kept_name(address, port, self._destinations[port]))
                self._keep(kept_name(address, port, destination), sock)
        self._destinations[port] = destination
        return known

    def _adopt_or_bind(self, port: int, destination: str) -> list[socket.socket]:
        names = {address: kept_name(address, port, destination) for address in self._addresses}
        for address, name in names.items():
            adopted = self._adopted.get((address, port))
            if adopted is not None and adopted.name not in (name, kept_name(address, port)):
                self._turn_away(address, port, "kept socket is closed, its port leads elsewhere now")
        bound = self._bind_missing(port)
        sockets = []
        for address, name in names.items():
            adopted = self._adopted.pop((address, port), None)
            sock = bound[address] if adopted is None else adopted.sock
            if adopted is not None and adopted.name != name:
                self._release(adopted.name)
            if adopted is None or adopted.name != name:
                self._keep(name, sock)
            sockets.append(sock)
        return sockets

    def _bind_missing(self, port: int) -> dict[str, socket.socket]:
        """Bind the port on every address that has no adopted socket for it; all or none. Raises BindError."""
        bound: dict[str, socket.socket] = {}
        for address in self._addresses:
            if (address, port) in self._adopted:
                continue
            try:
                bound[address] = self._bind(address, port)
            except OSError as error:
                for sock in bound.values():
                    sock.close()
                message = f"port {port} cannot be opened on {address}: {error.strerror or error}"
                raise BindError(message) from error
        return bound

    def _bind(self, address: str, port: int) -> socket.socket:
        if self._keeping is not None:
            self._keeping.settle()
        sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Against TIME_WAIT of an earlier life; it lets nobody else listen.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(self._is_v6_only(address)))
            self._bind_to(sock, address, port)
            _set_up(sock)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock

    def _bind_to(self, sock: socket.socket, address: str, port: int) -> None:
        while True:
            try:
                sock.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or self._keeping is None or not self._keeping.is_letting_go():
                    raise
                time.sleep(_BIND_PAUSE_SECONDS)
            else:
                return

    def _is_v6_only(self, address: str) -> bool:
        """Say whether an IPv6 address is for IPv6 alone: "::" serves IPv4 too, unless IPv4 has a socket of its own."""
        return address != "::" or any(":" not in other for other in self._addresses)

    def close(self, port: int) -> None:
        """Close the port here. It is free once every worker has closed its copies too."""
        destination = self._destinations.pop(port, "")
        for address, sock in zip(self._addresses, self._open.pop(port, ()), strict=False):
            sock.close()
            self._release(kept_name(address, port, destination))

    def _keep(self, name: str, sock: socket.socket) -> None:
        if self._keeping is not None:
            self._keeping.keep(name, sock)

    def _release(self, name: str) -> None:
        if self._keeping is not None:
            self._keeping.release(name)

    def tick(self) -> None:
        """Do what time asks for; to be called about once a second."""
        if self._keeping is not None:
            self._keeping.flush()

    def close_all(self) -> None:
        """Close every port here; what is kept stays with systemd for the next start."""
        adopted = (adopted.sock for adopted in self._adopted.values())
        for sock in (*adopted, *(sock for sockets in self._open.values() for sock in sockets)):
            sock.close()
        self._adopted.clear()
        self._open.clear()
        self._destinations.clear()


def kept_name(address: str, port: int, destination: str = "") -> str:
    """Return the name that a socket is kept under: no colons, and short, for all names share one variable."""
    name = f"{port}-{address.replace(':', '_')}"
    return f"{name}-{hashlib.blake2b(destination.encode(), digest_size=4).hexdigest()}" if destination else name


def _is_name_of(name: str, address: str, port: int) -> bool:
    plain = kept_name(address, port)
    return name == plain or name.startswith(f"{plain}-")


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
