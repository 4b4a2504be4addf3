"""Ports that answer as a test says: redis, memcached, natproxy, or nothing at all. I/O: TCP, TLS, threads."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.standins.certificates import Issued

Talk = Callable[[socket.socket], None]
PATIENCE_SECONDS = 20.0


def says(line: bytes) -> Talk:
    """Answer whatever comes first with this line, then wait for the end."""

    def talk(sock: socket.socket) -> None:
        if sock.recv(4096):
            sock.sendall(line)
            is_silent(sock)

    return talk


def is_silent(sock: socket.socket) -> None:
    """Say nothing, until the other side is gone."""
    while sock.recv(4096):
        pass


def closes(sock: socket.socket) -> None:
    """End the connection at once."""


def is_memcached(sock: socket.socket) -> None:
    """Answer as memcached does: line by line."""
    with sock.makefile("rb") as lines:
        for line in lines:
            sock.sendall(b"VERSION 1.6.18\r\n" if line == b"version\r\n" else b"ERROR\r\n")


is_redis = says(b"+PONG\r\n")
wants_tls = says(b"-ERR this port speaks TLS: connect with TLS\r\n")
"""As natproxy says it; a TLS handshake after that fails here."""


class Speaker:
    """Listens on a port of its own choice and talks to whoever comes, over TLS where it has a context.

    Over TLS, whoever speaks in the clear is told so as natproxy tells it.
    """

    def __init__(self, talk: Talk, *, context: ssl.SSLContext | None = None, ip: str = "127.0.0.1") -> None:
        self._talk = talk
        self._context = context
        self._listening = socket.create_server((ip, 0))
        self.ip = ip
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name=f"speaker {self.port}")]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), thread

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE_SECONDS)
            self._open.add(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,), name=f"talk {self.port}"))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):  # a handshake that fails is an OSError, too
            if self._context is None:
                self._talk(sock)
                return
            if sock.recv(1, socket.MSG_PEEK)[:1] != b"\x16":
                wants_tls(sock)
                return
            with self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as secure:
                secure.do_handshake()
                self._talk(secure)


def server_context(shown: Issued, *, client_ca: bytes | None = None, crl: bytes | None = None) -> ssl.SSLContext:
    """Return the context that natproxy has for these papers."""
    from natproxy.messages import ServerTls
    from natproxy.tls.contexts import server_context as natproxys

    return natproxys(ServerTls(certificate=shown.certificate, key=shown.key, client_ca=client_ca, crl=crl))
