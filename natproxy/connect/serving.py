"""Makes it so on this computer: opens, changes and closes local ports. I/O: sockets, the worker.

What should be served is the portal's last directory; what runs is kept here, and the difference is carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from natproxy import messages
from natproxy.connect.directory import Directory
from natproxy.connect.listening import Neighbours, TakenError, listen
from natproxy.connect.ports import local_ports
from natproxy.connect.routes import LOOPBACK, Remote, Served, entries, next_version, remotes, serve_message
from natproxy.connect.shown import called, changed, local_route, opened, where
from natproxy.documents import CacheView, LocalRoute
from natproxy.errors import ChannelError
from natproxy.model import Outcome
from natproxy.worker.limits import descriptor_limit

DRAIN_SECONDS = 30.0
"""How long connections to what is gone may live on; natproxy ends them when it is time there."""
_OWN_DESCRIPTORS = 32
"""What this process has open besides ports and connections, about."""
_NO_ROOM = "no port is left for it here, or this process may open no more files (ulimit -n)"

Tell = Callable[[str, str, Sequence[LocalRoute]], None]
"""Takes an event's name, a line, and the routes that it is about."""


class Worker(Protocol):
    """What is told what to serve (worker.inprocess)."""

    def send(self, message: messages.Down, sockets: Sequence[socket.socket] = ()) -> None:
        """Tell it something."""


class Serving:
    """The local ports that run. ``host`` is what natproxy's certificate has to name."""

    def __init__(self, worker: Worker, host: str, tell: Tell, *, offset: int = 0) -> None:
        self._worker = worker
        self._host = host
        self._tell = tell
        self._offset = offset
        self._kept: dict[int, int] = {}
        """natproxy's port -> the local one, for as long as the command runs."""
        self._served: dict[int, Served] = {}
        self._closing: dict[int, tuple[Served, asyncio.TimerHandle]] = {}
        self._sent: dict[int, messages.Serve] = {}
        """By local port."""
        self._books: dict[str, messages.Book] = {}
        self._lines: dict[tuple[object, ...], LocalRoute] = {}
        self._addresses: tuple[str, ...] = ()

    @property
    def routes(self) -> tuple[LocalRoute, ...]:
        """All routes as they are shown, by natproxy's port; those without one come last."""
        return tuple(sorted(self._lines.values(), key=lambda line: (line.port is None, line.port or 0)))

    def route_at(self, local_port: int) -> LocalRoute | None:
        """Return what is served at a local port."""
        return next((line for line in self._lines.values() if line.local_port == local_port), None)

    def apply(self, caches: Iterable[CacheView], directory: Directory) -> None:
        """Carry out the difference to what runs, and tell of it."""
        self._addresses = directory.addresses
        told = remotes(caches)
        wanted = {one.view.port: one for one in told if one.is_servable and one.view.port is not None}
        for port in self._served.keys() - wanted.keys():
            self._close(port)
        with contextlib.ExitStack() as stack:  # the worker gets its own of each socket
            sockets = self._open(wanted.keys() - self._served.keys())
            for sock in sockets.values():
                stack.callback(sock.close)
            before = dict(self._served)
            for port, remote in wanted.items():
                if port in before or port in sockets or port in self._closing:
                    self._served[port] = Served(port, self._kept[port], remote)
            self._send_books(directory)
            for port, served in self._served.items():
                self._serve(served, sockets.get(port), before.get(port))
        self._show(told)

    def _open(self, ports: Iterable[int]) -> Mapping[int, socket.socket]:
        """Listen for what is new; return the sockets by natproxy's port.

        Of the descriptors a third is left to connections: what does not fit is not served.
        """
        room = descriptor_limit() * 2 // 3 - _OWN_DESCRIPTORS - len(self._served) - len(self._closing)
        coming = set(sorted(port for port in ports if port not in self._closing)[: max(0, room)])
        neighbours = Neighbours()
        taken: set[int] = set()
        sockets: dict[int, socket.socket] = {}
        while missing := coming - sockets.keys():
            chosen = local_ports(missing, kept=self._kept, taken=taken, offset=self._offset)
            for port, number in chosen.items():
                if number is None:
                    coming.discard(port)
                    continue
                try:
                    sockets[port] = listen(number, neighbours)
                except TakenError:
                    taken.add(number)
                    self._kept.pop(port, None)
                    break  # the choice of the others may depend on it
                except OSError:  # no descriptor is left: it is tried again
                    coming.discard(port)
                    continue
                self._kept[port] = number
        return sockets

    def _send_books(self, directory: Directory) -> None:
        document = directory.document
        hosts = (document.public_host or "", document.public_ip or "", self._host, *directory.addresses)
        found = entries((*self._served.values(), *(served for served, _ in self._closing.values())), hosts)
        for name, ports in found.items():
            known = self._books.get(name)
            if known is None or known.ports != ports:
                version = next_version(0 if known is None else known.version, time.time())
                book = messages.Book(name, ports, public_host=LOOPBACK, public_ip=LOOPBACK, version=version)
                self._books[name] = book
                self._worker.send(book)

    def _serve(self, served: Served, sock: socket.socket | None, before: Served | None) -> None:
        local_port = served.local_port
        if (closing := self._closing.pop(served.port, None)) is not None:
            before, timer = closing
            timer.cancel()
            self._worker.send(messages.End(local_port, None, None, Outcome.GONE))
        serve = serve_message(served, self._host, self._addresses)
        if sock is not None:
            self._worker.send(msgspec.structs.replace(serve, sockets=1), [sock])
            sock.close()
        elif serve != self._sent.get(local_port):
            self._worker.send(serve)
        self._sent[local_port] = serve
        if before is not None and before.remote.key != served.remote.key:
            self._worker.send(messages.End(local_port, None, DRAIN_SECONDS, Outcome.ROUTE_CHANGED))

    def _close(self, port: int) -> None:
        """Let nobody in any more, and connections end."""
        served = self._served.pop(port)
        refusing = serve_message(served, self._host, self._addresses, refuse=Outcome.GONE)
        self._sent[served.local_port] = refusing
        self._worker.send(refusing)
        self._worker.send(messages.End(served.local_port, None, DRAIN_SECONDS, Outcome.GONE))
        timer = asyncio.get_running_loop().call_later(DRAIN_SECONDS + 1.0, self._closed, port)
        self._closing[port] = served, timer

    def _closed(self, port: int) -> None:
        served, _ = self._closing.pop(port)
        self._sent.pop(served.local_port, None)
        with contextlib.suppress(ChannelError):  # the end of the worker is told elsewhere
            self._worker.send(messages.Unserve(served.local_port, Outcome.GONE))

    def close(self) -> None:
        """Close nothing later; the worker is the caller's to end."""
        for _, timer in self._closing.values():
            timer.cancel()
        self._closing.clear()

    def _show(self, told: Iterable[Remote]) -> None:
        """Tell what is new."""
        lines: dict[tuple[object, ...], LocalRoute] = {}
        for remote in told:
            served = None if remote.view.port is None else self._served.get(remote.view.port)
            why_not = _NO_ROOM if served is None and remote.is_servable else ""
            line = local_route(
                remote, None if served is None else served.local_port, offset=self._offset, why_not=why_not
            )
            lines[(*remote.key, remote.view.port)] = line
        before, self._lines = self._lines, lines
        for key in before.keys() - lines.keys():
            if before[key].local_port is not None:
                gone = before[key]
                self._tell("closing", f"{called(gone)} is gone: {where(gone)} closes", [gone])
        for key, line in lines.items():
            known = before.get(key)
            if known is None or (known.local_port is None and line.local_port is not None):
                self._tell("opened", opened(line), [line])
            elif known.local_port is not None and line.local_port is None:
                self._tell("closing", f"{called(line)}: {where(known)} closes: {line.note}", [line])
            elif line != known and (text := changed(known, line)):
                self._tell("changed", text, [line])
