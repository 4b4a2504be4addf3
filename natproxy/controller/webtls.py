"""TLS for the daemon's own HTTP sides: the handshake, and whose certificate was shown. I/O: by the running loop.

uvloop and asyncio drop what OpenSSL has to say about a handshake that failed, so that a client is never told that its
certificate has expired. Here the alert is sent, by a second descriptor of the same socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from natproxy.controller.httpserver import Answer, text_answer
from natproxy.errors import TlsError
from natproxy.messages import Tls
from natproxy.model import HandshakeFailure
from natproxy.tls.failures import why
from natproxy.tls.identity import Identity
from natproxy.worker.credentials import Credentials, Shown, Verdict

HANDSHAKE_SECONDS = 5.0
LAST_WORD_SECONDS = 1.0
"""What a client gets to hear why its handshake failed, or to say goodbye."""
_READ_BYTES = 16 * 1024
IN_THE_CLEAR = "this port speaks HTTPS, and asks for a client certificate"
_CLEAR_ANSWER = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(IN_THE_CLEAR) + 1}\r\nConnection: close\r\n\r\n{IN_THE_CLEAR}\n"
).encode()
"""What OpenSSL takes for an HTTP request is told so, in HTTP: no client of HTTP understands an alert."""
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class RefusedError(Exception):
    """A client was not let in: why, as a metric label, and a line on it, and the certificate if it showed one."""

    def __init__(self, failure: HandshakeFailure, detail: str, shown: Shown | None = None) -> None:
        super().__init__(detail)
        self.failure = failure
        self.shown = shown


class _AlertError(ssl.SSLError):
    """A handshake has failed; the cause is what ``ssl`` raised."""

    alert = b""
    """What the client is to be told, encrypted where it has to be."""
    end: ssl.SSLObject
    """Of which the handshake was."""


class _TellingObject(ssl.SSLObject):
    """Raises ``_AlertError`` where its handshake fails."""

    _to_client: ssl.MemoryBIO

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **more: Any) -> Self:
        made: Self = super()._create(incoming, outgoing, *args, **more)  # type: ignore[misc]
        made._to_client = outgoing
        return made

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            failed = _AlertError(*error.args)
            failed.alert = self._to_client.read()
            failed.end = self
            raise failed from error


class WebTls:
    """Handshakes by the credentials that ``tls`` tells of, with a certificate of each client's. ``now``: Unix time."""

    def __init__(self, tls: Callable[[], Tls], now: Callable[[], float] = time.time) -> None:
        self._tls = tls
        self._taken: Tls | None = None
        self._credentials = Credentials(now)

    def _refresh(self) -> Credentials:
        """Go by what is in use now. Raises RefusedError where that is nothing that clients are verified by."""
        tls = self._tls()
        if tls is not self._taken:
            try:
                self._credentials.take(tls)
            except TlsError as error:
                raise RefusedError(HandshakeFailure.INTERNAL, str(error)) from error
            self._taken = tls
        if not self._credentials.demands_certificate:
            raise RefusedError(HandshakeFailure.INTERNAL, "no certificates are in use that clients are verified by")
        return self._credentials

    async def shake(self, sock: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        """Hand an accepted socket over to ``protocol`` once both sides have agreed. Raises RefusedError.

        The socket belongs to this function from now on.
        """
        try:
            spare = sock.dup()
        except OSError as error:
            sock.close()
            raise _refusal(error) from error
        with spare:
            try:
                transport = await self._wrapped(sock, protocol)
            except (OSError, RefusedError) as error:
                sock.close()
                refusal = _refusal(error)
                if isinstance(error, _AlertError):
                    refusal.shown = self._shown_in_vain(error.end)
                    is_in_the_clear = refusal.failure is HandshakeFailure.CLEAR_TEXT
                    await _say_last_word(spare, _CLEAR_ANSWER if is_in_the_clear else error.alert)
                raise refusal from error
            except BaseException:
                sock.close()
                raise
        if (verdict := self.verdict(transport)) is not None:
            shown = self.shown(transport)
            transport.abort()
            raise RefusedError(*verdict, shown)
        return transport

    async def _wrapped(self, sock: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        context = self._refresh().server()
        if context is None:
            raise RefusedError(HandshakeFailure.INTERNAL, "no certificate is in use")
        context.sslobject_class = _TellingObject
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(
            protocol,
            sock,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=LAST_WORD_SECONDS,
        )
        return transport

    def verdict(self, transport: asyncio.BaseTransport) -> Verdict | None:
        """Say why whoever is at the other end is not let in now; None = it is."""
        try:
            return self._refresh().verdict_of_handshake(self._certificate(transport), None)
        except RefusedError as error:
            return error.failure, str(error)
        except TlsError as error:
            return HandshakeFailure.BAD_CERTIFICATE, str(error)

    def identity(self, transport: asyncio.BaseTransport) -> Identity:
        """Return whose certificate was shown. Raises TlsError where there is none."""
        if (shown := self._certificate(transport)) is None:
            raise TlsError("no certificate was shown")
        return shown.identity

    def shown(self, transport: asyncio.BaseTransport) -> Shown | None:
        """Return the certificate that was shown; None where there is none, or none that can be read."""
        try:
            return self._certificate(transport)
        except TlsError:
            return None

    def _certificate(self, transport: asyncio.BaseTransport) -> Shown | None:
        end = transport.get_extra_info("ssl_object")
        return None if end is None else self._credentials.shown(end)

    def _shown_in_vain(self, end: ssl.SSLObject) -> Shown | None:
        try:
            return self._credentials.shown_in_vain(end)
        except TlsError:
            return None


def _refusal(error: OSError | RefusedError) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, ssl.SSLError):
        cause = error.__cause__
        return RefusedError(*why(cause if isinstance(cause, ssl.SSLError) else error, is_server=True))
    if isinstance(error, (TimeoutError, ConnectionAbortedError)):
        return RefusedError(HandshakeFailure.TIMEOUT, "the handshake was not done in time")
    if error.errno in _NO_ROOM:
        return RefusedError(HandshakeFailure.INTERNAL, error.strerror or str(error))
    return RefusedError(HandshakeFailure.CLOSED, error.strerror or str(error))


def verified(tls: WebTls, answer: Answer) -> Answer:
    """Return what answers only to those who are let in at this very moment: a connection may outlive its right."""

    async def verify(request: web.BaseRequest) -> web.Response:
        transport = request.transport
        verdict = None if transport is None else tls.verdict(transport)
        if transport is not None and verdict is None:
            return await answer(request)
        response = text_answer(403, verdict[1] if verdict is not None else "the connection is gone")
        response.force_close()
        return response

    return verify


async def _say_last_word(sock: socket.socket, word: bytes) -> None:
    """Send why, and read what is still under way: an unread byte would make the kernel take the alert back."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(LAST_WORD_SECONDS):
            await loop.sock_sendall(sock, word)
            sock.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(sock, _READ_BYTES):
                pass
