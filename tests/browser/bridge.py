"""A way into the portal for a browser that has no certificate: TCP in, mutual TLS out. I/O: threads, TCP, TLS.

It passes bytes on and knows no HTTP, so that the browser sees what the portal says, header by header.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

MOST_BYTES = 1 << 16
PATIENCE_SECONDS = 0.2
"""How long a closed bridge may take to be noticed."""


class Bridge:
    """Listens on ``ip``; each connection becomes one to ``to``, as the one whose certificate ``context`` shows."""

    def __init__(self, ip: str, to: tuple[str, int], context: ssl.SSLContext, name: str) -> None:
        self._to, self._context, self._name = to, context, name
        self._listener = socket.create_server((ip, 0))
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="bridge")]
        self._threads[0].start()
        self.port: int = self._listener.getsockname()[1]

    def close(self) -> None:
        """End it, and all of its connections."""
        self._is_over.set()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        self._listener.settimeout(PATIENCE_SECONDS)
        while not self._is_over.is_set():
            with contextlib.suppress(TimeoutError):
                browser, _ = self._listener.accept()
                thread = threading.Thread(target=self._carry, args=(browser,), name="bridged")
                thread.start()
                self._threads.append(thread)

    def _carry(self, browser: socket.socket) -> None:
        with browser, contextlib.suppress(OSError):
            plain = socket.create_connection(self._to)
            with self._context.wrap_socket(plain, server_hostname=self._name) as portal:
                while not self._is_over.is_set() and _pass_on(browser, portal):
                    pass


def _pass_on(browser: socket.socket, portal: ssl.SSLSocket) -> bool:
    """Pass on what is there; return whether there may be more."""
    ready = [portal] if portal.pending() else select.select([browser, portal], [], [], PATIENCE_SECONDS)[0]
    for source in ready:
        data = source.recv(MOST_BYTES)
        if not data:
            return False
        (browser if source is portal else portal).sendall(data)
    return True


@contextmanager
def bridge(ip: str, to: tuple[str, int], context: ssl.SSLContext, name: str) -> Iterator[str]:
    """Open a bridge; return the URL of what is on its other side."""
    made = Bridge(ip, to, context, name)
    try:
        yield f"http://{ip}:{made.port}"
    finally:
        made.close()
