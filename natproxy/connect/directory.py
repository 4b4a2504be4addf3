"""The portal is asked what a certificate may use. I/O: DNS, TCP, TLS, HTTP; blocks.

By hand and over one connection each: what went wrong has to be told from what else may go wrong, and in TLS 1.3 the
portal's verdict on the certificate comes only with its first answer.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from natproxy.connect.faults import Attempt, not_agreed, not_answered, not_found, not_reached
from natproxy.documents import VERSION, DirectoryDocument
from natproxy.errors import PortalError

PATH = "/directory"
MOST_BYTES = 8 * 1024 * 1024
LAST_PORT = 65535
_LONGEST_HOST = 253
"""Of a name in the DNS. It stands in each entry of each book that the worker is sent."""
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Directory:
    """What the portal answered."""

    document: DirectoryDocument
    addresses: tuple[str, ...]
    """All that the host's name resolves to, the one that answered first."""


class _Version(msgspec.Struct):
    version: int


class _Incoming(io.RawIOBase):
    """What comes over a connection until a deadline, however small the pieces are in which it comes."""

    def __init__(self, sock: ssl.SSLSocket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        """Monotonic time."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # a Buffer that can be written
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


def fetch(attempt: Attempt, context: ssl.SSLContext, seconds: float) -> Directory:
    """Ask the portal; ``seconds`` bounds connecting to one address, TLS, and half of what comes then.

    Raises PortalError.
    """
    addresses = _resolve(attempt)
    sock, answering = _connect(attempt, addresses, seconds)
    document = _decode(attempt, _get(attempt, context, sock, seconds))
    if (flaw := _flaw(document)) is not None:
        message = f"{attempt.place} is not natproxy's portal: it tells of {flaw}"
        raise PortalError(message)
    return Directory(document, (answering, *(ip for ip in addresses if ip != answering)))


def _resolve(attempt: Attempt) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(attempt.host, attempt.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise not_found(attempt, error if isinstance(error, OSError) else OSError(None, str(error))) from error
    return tuple(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))


def _connect(attempt: Attempt, addresses: Iterable[str], seconds: float) -> tuple[socket.socket, str]:
    failure: OSError = OSError("the name resolves to no address")
    for ip in addresses:
        try:
            return socket.create_connection((ip, attempt.port), timeout=seconds), ip
        except OSError as error:
            failure = error
    raise not_reached(attempt, failure) from failure


def _get(attempt: Attempt, context: ssl.SSLContext, plain: socket.socket, seconds: float) -> bytes:
    """Return the body of the directory; closes the socket."""
    with contextlib.ExitStack() as stack:
        stack.callback(plain.close)
        try:
            sock = stack.enter_context(context.wrap_socket(plain, server_hostname=attempt.host))
        except OSError as error:  # ssl.SSLError is one
            raise not_agreed(attempt, error) from error
        try:
            return _talk(attempt, sock, seconds)
        except (OSError, http.client.HTTPException) as error:
            raise not_agreed(attempt, error, is_greeted=True) from error


def _talk(attempt: Attempt, sock: ssl.SSLSocket, seconds: float) -> bytes:
    connection = http.client.HTTPConnection(attempt.host, attempt.port, timeout=seconds)
    connection.sock = sock
    try:
        connection.request("GET", PATH, headers={"Accept": "application/json", "Connection": "close"})
    except (ConnectionError, ssl.SSLEOFError):
        sock.recv(1)  # it was gone before it was asked: there may be an alert that says why
        raise
    with http.client.HTTPResponse(sock, method="GET") as response:
        response.fp.close()  # each of its reads would wait anew
        response.fp = io.BufferedReader(_Incoming(sock, time.monotonic() + 2 * seconds))
        response.begin()
        if response.status != 200:
            raise not_answered(attempt, response.status)
        return _body(attempt, response)


def _body(attempt: Attempt, response: http.client.HTTPResponse) -> bytes:
    body = bytearray()
    while piece := response.read1(_PIECE_BYTES):
        body += piece
        if len(body) > MOST_BYTES:
            message = f"{attempt.place} is not natproxy's portal: it answers more than {MOST_BYTES} bytes"
            raise PortalError(message)
    return bytes(body)


def _flaw(document: DirectoryDocument) -> str | None:
    """Say what in it cannot be true, as no natproxy says it."""
    for host in (document.public_host or "", document.public_ip or ""):
        if len(host) > _LONGEST_HOST:
            return f"a host name of {len(host)} characters"
    ports = (route.port for cache in document.caches for route in cache.routes if route.port is not None)
    if (wrong := next((port for port in ports if not 0 < port <= LAST_PORT), None)) is not None:
        return f"port {wrong}"
    return None


def _decode(attempt: Attempt, body: bytes) -> DirectoryDocument:
    try:
        version = msgspec.json.decode(body, type=_Version).version
        if version > VERSION:
            message = (
                f"natproxy on {attempt.place} answers in version {version}, and this natproxy reads {VERSION}: "
                "use a newer natproxy here"
            )
            raise PortalError(message)
        return msgspec.json.decode(body, type=DirectoryDocument)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        message = f"{attempt.place} is not natproxy's portal: it answers no directory ({error})"
        raise PortalError(message) from error
