"""A portal as natproxy's is towards the laptop: HTTPS that demands a certificate, and answers one document. I/O: TCP.

with Portal("127.0.0.1", authority) as portal:    # whose certificate is the authority's, as are those it lets in
    portal.document["caches"] = [...]
    portal.port
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

from tests.standins.certificates import Authority, Issued

HOST = "cache.example.com"


class Portal:
    """Answers every request with ``status`` and ``body``, where that is set, else with ``document``."""

    def __init__(
        self,
        ip: str,
        authority: Authority,
        *,
        certificate: Issued | None = None,
        port: int = 0,
        talk: Callable[[ssl.SSLSocket], None] | None = None,
    ) -> None:
        self._talk = talk
        """What is done instead of answering."""
        self._authority = authority
        self._shown = certificate or authority.issue("natproxy", dns=[HOST], ips=[ip])
        self.document: dict[str, Any] = {"version": 1, "generated": "2026-01-01T00:00:00Z", "caches": []}
        self.status = 200
        self.body: bytes | None = None
        self.asked: list[str] = []
        """The paths that were asked for."""
        self.came = 0
        """Connections, also of those that were not let in."""
        self._was_asked = threading.Condition()
        self._context = self._make_context(None)
        self._listening = socket.create_server((ip, port))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="portal", daemon=True)
        self._thread.start()

    def _make_context(self, crl: bytes | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*self._shown.write(Path(directory)))
            if crl is not None:
                (Path(directory) / "crl").write_bytes(crl)
                context.load_verify_locations(Path(directory) / "crl")
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.load_verify_locations(cadata=self._authority.pem.decode())
        return context

    def revoke(self, *issued: Issued) -> None:
        """Let these certificates in no more."""
        self._context = self._make_context(self._authority.crl(issued))

    def wait_until_asked(self, times: int = 1, seconds: float = 20.0) -> None:
        """Block until there have been so many more requests."""
        with self._was_asked:
            wanted = len(self.asked) + times
            assert self._was_asked.wait_for(lambda: len(self.asked) >= wanted, seconds), self.asked

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.came += 1
            threading.Thread(target=self._answer, args=(sock,), name="portal answers", daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        portal = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = portal.body if portal.body is not None else json.dumps(portal.document).encode()
                self.send_response(portal.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                with portal._was_asked:
                    portal.asked.append(self.path)
                    portal._was_asked.notify_all()

            def log_message(self, *_: object) -> None:
                pass

        sock.settimeout(20)
        # Who is not let in is gone.
        with sock, contextlib.suppress(OSError), self._context.wrap_socket(sock, server_side=True) as tls:
            if self._talk is not None:
                self._talk(tls)
            else:
                Answer(tls, tls.getpeername(), None)  # type: ignore[arg-type]

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
