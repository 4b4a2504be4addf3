"""natproxy.controller.webtls: who gets through the handshake, and what those are told who do not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import msgspec
import pytest
import uvloop

from natproxy.controller import webtls
from natproxy.controller.webtls import RefusedError, WebTls
from natproxy.errors import TlsError
from natproxy.messages import Tls
from natproxy.model import HandshakeFailure
from tests.controller.webside import HOST, Answer, Identities
from tests.standins.certificates import Authority, Issued

Loop = Callable[[], asyncio.AbstractEventLoop]
both_loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
YESTERDAY, TOMORROW = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))


@dataclass
class Met:
    """What came of one handshake."""

    client: str = ""
    """What the client was told; empty where it was let in."""
    server: HandshakeFailure | None = None
    detail: str = ""
    name: str = ""
    claims: str = ""
    """The name in a certificate that did not let it in: nobody has verified it."""


def listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


def visit(port: int, context: ssl.SSLContext | None) -> str:
    """Be a client that speaks at once; return what it is told instead of an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        try:
            if context is None:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                return plain.makefile("rb").read().decode()
            with context.wrap_socket(plain, server_hostname=HOST) as talk:
                talk.sendall(b"GET / HTTP/1.1\r\n" + b"x" * 20_000)
                return "" if talk.recv(1) == b"!" else "nothing"
        except ssl.SSLError as error:
            return str(error.reason)
        except ConnectionError:
            return "reset"


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"!")


def meet(new_loop: Loop, tls: Tls, context: ssl.SSLContext | None) -> Met:
    async def both() -> Met:
        met, loop, side = Met(), asyncio.get_running_loop(), WebTls(lambda: tls)
        with listening() as listener:
            visiting = loop.run_in_executor(None, visit, listener.getsockname()[1], context)
            sock, _ = await loop.sock_accept(listener)
            try:
                transport = await side.shake(sock, Greeter)
            except RefusedError as error:
                met.server, met.detail = error.failure, str(error)
                met.claims = "" if error.shown is None else error.shown.identity.name
            else:
                met.name = side.identity(transport).name
                transport.close()
            met.client = await visiting
        return met

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(both())


@both_loops
def test_a_good_certificate_is_let_in_and_known(tmp_path: Path, new_loop: Loop) -> None:
    identities = Identities(tmp_path)
    assert meet(new_loop, identities.tls, identities.client(identities.dev)) == Met(name="dev1")


@both_loops
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("kind", "told", "counted"),
    [
        ("expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED", HandshakeFailure.EXPIRED),
        ("early", "SSLV3_ALERT_BAD_CERTIFICATE", HandshakeFailure.NOT_YET_VALID),
        ("revoked", "SSLV3_ALERT_CERTIFICATE_REVOKED", HandshakeFailure.REVOKED),
        ("unknown", "TLSV1_ALERT_UNKNOWN_CA", HandshakeFailure.UNKNOWN_CA),
        ("server's", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE|SSLV3_ALERT_BAD_CERTIFICATE", HandshakeFailure.WRONG_USAGE),
        ("none", "TLSV13_ALERT_CERTIFICATE_REQUIRED|SSLV3_ALERT_HANDSHAKE_FAILURE", HandshakeFailure.NO_CERTIFICATE),
    ],
)
def test_a_client_hears_why_it_is_not_let_in(  # noqa: PLR0917
    tmp_path: Path, new_loop: Loop, version: ssl.TLSVersion, kind: str, told: str, counted: HandshakeFailure
) -> None:
    identities = Identities(tmp_path)
    issue = identities.clients.issue
    revoked = issue("revoked", usage="client")
    shown: dict[str, Issued | None] = {
        "expired": issue("expired", usage="client", not_before=YESTERDAY - timedelta(days=1), not_after=YESTERDAY),
        "early": issue("early", usage="client", not_before=TOMORROW),
        "revoked": revoked,
        "unknown": Authority("Others").issue("dev1", usage="client"),
        "server's": issue("server", usage="server"),
        "none": None,
    }
    met = meet(new_loop, identities.made((revoked,)), identities.client(shown[kind], version=version))
    assert met.client in told.split("|")
    assert met.server is counted
    assert met.detail
    assert met.claims == {"unknown": "dev1", "server's": "server", "none": ""}.get(kind, kind)


@both_loops
def test_who_speaks_in_the_clear_is_found_out(tmp_path: Path, new_loop: Loop) -> None:
    met = meet(new_loop, Identities(tmp_path).tls, None)
    assert met.server is HandshakeFailure.CLEAR_TEXT
    answer = Answer(met.client.encode())
    assert answer.raw.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.body == b"this port speaks HTTPS, and asks for a client certificate\n"
    assert answer.headers == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(answer.body)),
        "connection": "close",
    }


@both_loops
def test_who_says_nothing_is_given_up(tmp_path: Path, new_loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webtls, "HANDSHAKE_SECONDS", 0.05)

    async def wait() -> HandshakeFailure:
        side, loop = WebTls(lambda: Identities(tmp_path).tls), asyncio.get_running_loop()
        with listening() as listener, socket.create_connection(listener.getsockname()) as silent:
            sock, _ = await loop.sock_accept(listener)
            with pytest.raises(RefusedError) as caught:
                await side.shake(sock, Greeter)
            with contextlib.suppress(ConnectionError):
                assert await loop.run_in_executor(None, silent.recv, 1) == b""
        return caught.value.failure

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(wait()) is HandshakeFailure.TIMEOUT


@both_loops
def test_who_goes_away_is_no_error(tmp_path: Path, new_loop: Loop) -> None:
    async def wait() -> HandshakeFailure:
        side, loop = WebTls(lambda: Identities(tmp_path).tls), asyncio.get_running_loop()
        with listening() as listener:
            with socket.create_connection(listener.getsockname()) as gone:
                sock, _ = await loop.sock_accept(listener)
                gone.sendall(b"\x16\x03")
            with pytest.raises(RefusedError) as caught:
                await side.shake(sock, Greeter)
        return caught.value.failure

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(wait()) is HandshakeFailure.CLOSED


def test_a_session_of_a_certificate_that_has_ended_is_not_resumed(tmp_path: Path) -> None:
    """TLS 1.2 resumes by session id, which looks at no certificate: the verdict after the handshake does."""
    identities = Identities(tmp_path)
    context = identities.client(identities.dev, version=ssl.TLSVersion.TLSv1_2)
    sessions: list[ssl.SSLSession] = []

    def visit_again(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            session = sessions[0] if sessions else None
            with context.wrap_socket(plain, server_hostname=HOST, session=session) as talk:
                assert talk.session is not None
                sessions.append(talk.session)
                assert bool(talk.session_reused) is bool(session)
                with contextlib.suppress(OSError):
                    talk.recv(100)

    async def twice() -> list[HandshakeFailure | None]:
        met: list[HandshakeFailure | None] = []
        moments = iter((datetime.now(UTC) + timedelta(days=days)).timestamp() for days in (0, 400))
        side, loop = WebTls(lambda: identities.tls, lambda: next(moments)), asyncio.get_running_loop()
        with listening() as listener:
            for _ in range(2):
                visiting = loop.run_in_executor(None, visit_again, listener.getsockname()[1])
                sock, _peer = await loop.sock_accept(listener)
                try:
                    (await side.shake(sock, Greeter)).close()
                except RefusedError as error:
                    met.append(error.failure)
                else:
                    met.append(None)
                await visiting
        return met

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(twice()) == [None, HandshakeFailure.EXPIRED]


def test_without_a_descriptor_left_the_client_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dup(_: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "dup", dup)
    identities = Identities(tmp_path)
    met = meet(uvloop.new_event_loop, identities.tls, identities.client(identities.dev))
    assert (met.server, met.detail) == (HandshakeFailure.INTERNAL, "Too many open files")


def test_without_anything_to_verify_by_nobody_is_let_in(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    server = identities.tls.server
    assert server is not None
    for tls in (Tls(None, {}), Tls(msgspec.structs.replace(server, client_ca=None, crl=None), {})):
        met = meet(uvloop.new_event_loop, tls, identities.client(identities.dev))
        assert met.server is HandshakeFailure.INTERNAL
        assert met.name == ""


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    server = identities.tls.server
    assert server is not None
    tls = Tls(msgspec.structs.replace(server, key=b"none"), {})
    met = meet(uvloop.new_event_loop, tls, identities.client(identities.dev))
    assert (met.server, met.detail) == (HandshakeFailure.INTERNAL, "there is no private key in it")


def test_a_connection_without_tls_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="no certificate was shown"):
        WebTls(lambda: Identities(tmp_path).tls).identity(asyncio.Transport())
