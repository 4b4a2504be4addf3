"""What a port speaks: asked in the clear, or over TLS. I/O: TCP and TLS, by blocking sockets, on any platform."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from enum import StrEnum

from natproxy.model import Address, HandshakeFailure
from natproxy.tls.failures import why

PING = b"*1\r\n$4\r\nPING\r\n"
"""A Redis command. Memcached takes it for three lines that it does not know, and says so."""
VERSION = b"version\r\n"
SPEAKS_TLS = b"-ERR this port speaks TLS"
"""How natproxy answers whoever speaks in the clear to a port with TLS (worker.handshake)."""
AT_ONCE_SECONDS = 1.0
"""Who is not let in is turned away sooner; a node that does not answer takes longer (timeouts.connect)."""
LATE_SECONDS = 0.1
"""How long a server may think about our certificate, besides two round trips."""
_ALERT = b"\x15\x03"
_MOST_BYTES = 4096
_SHOWN_CHARACTERS = 120


class Said(StrEnum):
    """What came back."""

    REDIS = "redis"
    """PONG, or an error as only Redis or Valkey words them: it is alive."""
    MEMCACHED = "memcached"
    NATPROXY_TLS = "natproxy-tls"
    """natproxy's own line: this port speaks TLS."""
    TLS = "tls"
    """A TLS alert: it does not speak in the clear."""
    OTHER = "other"
    CLOSED = "closed"
    """The connection ended, or was reset, without a word."""
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a port said to a PING."""

    said: Said
    line: str = ""
    """Its first line, cut to a length that can be shown; of memcached its version."""
    is_late: bool = False
    """The connection did not end at once (``CLOSED`` only): somebody has tried something meanwhile."""


@dataclass(frozen=True, slots=True)
class TlsTalk:
    """What became of a TLS handshake, and of the PING after it."""

    failure: HandshakeFailure | None = None
    detail: str = ""
    version: str = ""
    """``TLSv1.3``; empty where the handshake failed."""
    certificate: bytes | None = None
    """The peer's, DER."""
    answer: Answer | None = None
    """None where the handshake failed, or nothing was asked."""


def ask_clear(place: Address, seconds: float, answer_seconds: float | None = None) -> Answer:
    """Connect, say PING and hear what comes. Raises OSError where no connection comes about."""
    with socket.create_connection(place, timeout=seconds) as sock:
        return ask(sock, seconds if answer_seconds is None else answer_seconds)


def ask(sock: socket.socket, seconds: float) -> Answer:
    """Say PING and hear what comes. Raises ssl.SSLError: a TLS peer's verdict may come this late."""
    began = time.monotonic()
    lines = _Lines(sock, seconds)
    line = lines.after(PING)
    if line is None:
        return Answer(Said.SILENT)
    if not line:
        return Answer(Said.CLOSED, is_late=time.monotonic() - began >= AT_ONCE_SECONDS)
    if line.startswith(_ALERT):
        return Answer(Said.TLS)
    if line.startswith(SPEAKS_TLS):
        return Answer(Said.NATPROXY_TLS)
    if line.startswith(b"ERROR"):
        return Answer(Said.MEMCACHED, _memcached_version(lines))
    return Answer(Said.REDIS if line.startswith((b"+PONG", b"-")) else Said.OTHER, _shown(line))


def talk_tls(
    place: Address, context: ssl.SSLContext, server_name: str, seconds: float, *, is_asked: bool = True
) -> TlsTalk:
    """Connect, agree upon TLS, and where ``is_asked`` say PING. Raises OSError where no connection comes about."""
    began = time.monotonic()
    with socket.create_connection(place, timeout=seconds) as plain:
        patience = LATE_SECONDS + 2 * (time.monotonic() - began)
        try:
            sock = context.wrap_socket(plain, server_hostname=server_name)
        except ssl.SSLError as error:
            return TlsTalk(*why(error, is_server=False))
        except TimeoutError:
            return TlsTalk(HandshakeFailure.TIMEOUT, f"no answer to a TLS handshake within {seconds:g} s")
        except OSError:
            return TlsTalk(HandshakeFailure.CLOSED, "it closed the connection in the middle of the handshake")
        with sock:
            version, certificate = sock.version() or "", sock.getpeercert(binary_form=True)
            if not is_asked:
                return TlsTalk(version=version, certificate=certificate)
            try:
                if version == "TLSv1.3":
                    _hear_verdict(sock, patience)
                return TlsTalk(version=version, certificate=certificate, answer=ask(sock, seconds))
            except ssl.SSLError as error:
                return TlsTalk(*why(error, is_server=False), version=version, certificate=certificate)


def look_at_certificate(place: Address, context: ssl.SSLContext, server_name: str, seconds: float) -> bytes | None:
    """Return the certificate (DER) of a peer whom nobody vouches for; None where it cannot be had.

    Nothing is said to it. ``context`` is changed: it verifies nothing any more.
    """
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(OSError):
        return talk_tls(place, context, server_name, seconds, is_asked=False).certificate
    return None


def _hear_verdict(sock: ssl.SSLSocket, seconds: float) -> None:
    """Wait for the alert of a TLS 1.3 server that minds our certificate, or has none of us. Raises ssl.SSLError.

    It comes a round trip after our own last word. A PING under way by then would be answered with a reset, which often
    swallows the alert.
    """
    sock.settimeout(seconds)
    with contextlib.suppress(TimeoutError, ssl.SSLEOFError, ConnectionError):
        sock.recv(1)  # neither Redis nor memcached speaks first


class _Lines:
    """The lines that a peer says, all of them within ``seconds``."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self._deadline = time.monotonic() + seconds
        self._heard = b""

    def after(self, words: bytes = b"") -> bytes | None:
        """Say something, and return the next line: b"" at the end of the connection, None where none came in time.

        The bytes of a TLS alert count as a line. Raises ssl.SSLError.
        """
        try:
            if words:
                self._sock.sendall(words)
            return self._next()
        except TimeoutError:
            return None
        except ssl.SSLEOFError:
            return b""
        except ssl.SSLError:
            raise
        except OSError:
            return b""

    def _next(self) -> bytes:
        while b"\n" not in self._heard and not self._heard.startswith(_ALERT) and len(self._heard) < _MOST_BYTES:
            self._sock.settimeout(max(0.001, self._deadline - time.monotonic()))
            data = self._sock.recv(_MOST_BYTES)
            if not data:
                break
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line


def _memcached_version(lines: _Lines) -> str:
    line = lines.after(VERSION)
    while line and line.startswith(b"ERROR"):  # PING has three lines
        line = lines.after()
    return _shown(line or b"")


def _shown(line: bytes) -> str:
    text = line[:_SHOWN_CHARACTERS].decode("utf-8", errors="replace").strip()
    return "".join(character if character.isprintable() else "?" for character in text)
