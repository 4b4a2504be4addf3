"""TLS through a whole worker: both legs, who is let in, what is counted, what every order does to it."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import random
import select
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from natproxy import messages
from natproxy.model import HandshakeFailure, Outcome
from natproxy.tls.contexts import server_context
from natproxy.worker import handshake as handshake_module
from natproxy.worker import process
from tests.standins.certificates import Authority, Issued
from tests.worker.hand import SECONDS, Mix, listen, receive, reset, silent_node
from tests.worker.running import (
    Running,
    accept,
    accept_tls,
    connect,
    connect_tls,
    is_closed,
    receive_all,
    receive_exactly,
)
from tests.worker.tlspeer import (
    HOST,
    NODE,
    VERSIONS,
    Cut,
    Peer,
    TlsPeer,
    Version,
    client_side,
    clients,
    node_papers,
    node_side,
    server_tls,
    servers,
)

EACH_VERSION = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
TERMINATE: dict[str, Any] = {"client_tls": "terminate"}
BULK_BYTES = 24 << 20
MODEST_BYTES = 12 << 20


def told(server: messages.ServerTls | None = None, **node_cas: bytes) -> messages.Tls:
    return messages.Tls(server, {"nodes": servers().pem, **node_cas})


def strict(revoked: tuple[Issued, ...] = ()) -> messages.Tls:
    """Demand certificates of clients."""
    return told(server_tls(client_ca=clients().pem, crl=clients().crl(revoked)))


@pytest.fixture
def running(running: Running) -> Iterator[Running]:
    """A worker that knows papers; nothing is left behind in it."""
    running.order(told(server_tls()))
    yield running
    assert running.worker is not None
    worker = running.worker
    running.until(lambda: worker.handshakes.open == 0 and not worker.handshakes._of_client)
    running.until(lambda: worker.census.open == 0)


@pytest.fixture
def dev() -> Issued:
    return clients().issue("dev1", usage="client", dns=["box.ci.example.com"])


def echo_once(client: socket.socket, inside: socket.socket) -> None:
    """Show that the two are joined."""
    client.sendall(b"ping")
    assert receive_exactly(inside, 4) == b"ping"
    inside.sendall(b"pong")
    assert receive_exactly(client, 4) == b"pong"


def meet(peer: TlsPeer, sock: socket.socket) -> TlsPeer:
    """Agree on TLS over a socket."""
    peer.on(sock)
    while not peer.shake():
        select.select([sock], [], [], SECONDS)
    return peer


def begin(peer: TlsPeer, sock: socket.socket) -> None:
    """Say the first word of a handshake."""
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    sock.sendall(peer.outgoing.read())


# Both legs.


def open_mix(running: Running, node: socket.socket, mix: Mix) -> tuple[int, Peer, Peer]:
    """Return the port, the client and the node of a connection."""
    port = running.serve(node, client_tls="terminate" if mix.client else "off", node_tls=mix.node is not None)
    plain = connect(port)
    client: Peer = meet(TlsPeer(client_side(version=mix.client), HOST), plain) if mix.client else plain
    inside = accept(node)
    node_peer: Peer = meet(TlsPeer(node_side(version=mix.node)), inside) if mix.node else inside
    for sock in (plain, inside):
        sock.setblocking(False)
    return port, client, node_peer


class Half:
    """What one side sends and receives."""

    def __init__(self, peer: Peer, seed: int, count: int) -> None:
        self.peer = peer
        self._dice = random.Random(seed)
        self._left = count
        self._waiting = memoryview(b"")
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.has_sent = self.has_end = False

    def move(self, is_slow: bool) -> None:
        """Send and receive what goes."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):
                if not self._waiting and self._left:
                    chunk = self._dice.randbytes(min(self._left, self._dice.randint(1, 1 << 17)))
                    self.sent.update(chunk)
                    self._left -= len(chunk)
                    self._waiting = memoryview(chunk)
                if not self._waiting:
                    break
                self._waiting = self._waiting[self.peer.send(self._waiting) :]
        is_flushed = not isinstance(self.peer, TlsPeer) or self.peer.flush()
        self.has_sent = is_flushed and not self._waiting and not self._left
        if self.has_end or is_slow:
            return
        data = receive(self.peer, 1 << 17)
        if data is not None:
            self.received.update(data)
            self.has_end = not data


@pytest.mark.parametrize(
    "mix",
    [Mix("TLSv1.3"), Mix("TLSv1.2"), Mix(None, "TLSv1.3"), Mix(None, "TLSv1.2"), Mix("TLSv1.3", "TLSv1.3")],
    ids=str,
)
@pytest.mark.parametrize("first", ["client", "node"])
def test_tens_of_megabytes_both_ways_at_once_arrive_whole(
    running: Running, node: socket.socket, mix: Mix, first: str
) -> None:
    port, client, inside = open_mix(running, node, mix)
    one, other = (client, inside) if first == "client" else (inside, client)
    halves = Half(one, 1, BULK_BYTES), Half(other, 2, BULK_BYTES)
    dice = random.Random(3)
    ended = [False, False]
    deadline = time.monotonic() + 5 * SECONDS
    while not (halves[0].has_end and halves[1].has_end):
        assert time.monotonic() < deadline
        for number, half in enumerate(halves):
            half.move(is_slow=dice.random() < 0.5)
            # The second ends once it has all: a goodbye to TLS would end the other direction soon.
            may_end = halves[0].has_sent and halves[1].has_sent if number == 0 else half.has_end
            if may_end and not ended[number]:
                ended[number] = True
                half.peer.shutdown(socket.SHUT_WR)
    assert halves[0].received.hexdigest() == halves[1].sent.hexdigest()
    assert halves[1].received.hexdigest() == halves[0].sent.hexdigest()
    finished = running.finish(port)
    assert finished.outcome == (Outcome.CLIENT_CLOSED if first == "client" else Outcome.NODE_CLOSED)
    assert (finished.client_bytes, finished.node_bytes) == (BULK_BYTES, BULK_BYTES)
    assert (finished.client_tls, finished.node_tls) == (mix.client or "", mix.node or "")
    for peer in (client, inside):
        peer.close()


def test_passed_through_bytes_are_untouched(running: Running, node: socket.socket) -> None:
    """The client's handshake is with the node itself."""
    port = running.serve(node, client_tls="passthrough")
    context = ssl.create_default_context(cadata=servers().pem.decode())
    with connect(port) as plain, accept(node) as inside:
        client, server = TlsPeer(context, NODE).on(plain), TlsPeer(node_side()).on(inside)
        done = [False, False]
        while not all(done):
            done = [client.shake(), server.shake()]
        client.send(b"ping")
        select.select([inside], [], [], SECONDS)
        assert server.recv(4) == b"ping"
    finished = running.finish(port)
    assert (finished.client_tls, finished.node_tls) == ("", "")
    assert running.counts(port).client_handshakes == {}


@contextlib.contextmanager
def s_client(port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("most", ["512", "1024"])
def test_a_client_that_asks_for_short_records_gets_all_its_bytes(
    running: Running, node: socket.socket, most: str
) -> None:
    """RFC 6066, 4: what fits into one record otherwise takes many."""
    port = running.serve(node, **TERMINATE)
    payload = random.Random(5).randbytes(100_000).hex().encode()
    with s_client(port, "-maxfraglen", most, "-quiet") as client, accept(node) as inside:
        inside.sendall(payload)
        assert client.stdout is not None
        assert client.stdout.read(len(payload)) == payload


def test_openssl_s_key_updates_are_answered(running: Running, node: socket.socket) -> None:
    port = running.serve(node, **TERMINATE)
    with s_client(port, "-tls1_3") as client, accept(node) as inside:
        assert client.stdin is not None
        assert client.stdout is not None
        for number in range(10):
            client.stdin.write(b"K\n")
            client.stdin.flush()
            inside.sendall(b"answer %d.\n" % number)
            while client.stdout.readline() != b"answer %d.\n" % number:
                pass
        assert running.counts(port).open == 1


# Clients that are no good.


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (b"PING\r\n", HandshakeFailure.CLEAR_TEXT),
        (b"\0\1\2\3", HandshakeFailure.GARBAGE),
        (b"\x16\x03\x01\x00\x05hello", HandshakeFailure.PROTOCOL),
        (b"", HandshakeFailure.CLOSED),
        (b"\x16\x03", HandshakeFailure.CLOSED),
    ],
)
def test_strangers_are_told_apart_and_no_node_is_dialled_for_them(
    running: Running, node: socket.socket, said: bytes, failure: HandshakeFailure
) -> None:
    port = running.serve(node, **TERMINATE)
    with connect(port) as client:
        client.sendall(said)
        if failure is HandshakeFailure.CLOSED:
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            answer = receive_all(client)
            if failure is HandshakeFailure.CLEAR_TEXT:
                assert answer == b"-ERR this port speaks TLS: connect with TLS\r\n"
    outcome, detail = running.outcome(port)
    assert outcome == Outcome.CLIENT_HANDSHAKE
    assert detail.startswith(f"{failure}: ")
    totals = running.counts(port)
    assert totals.client_handshakes == {failure: 1}
    assert (totals.opened, sum(totals.dials), totals.live) == (1, 0, {})
    node.settimeout(0)
    with pytest.raises(BlockingIOError):
        node.accept()


def test_a_silent_client_is_ended(running: Running, node: socket.socket) -> None:
    port = running.serve(node, **TERMINATE, handshake_seconds=0.2)
    with connect(port) as client:
        assert is_closed(client)
    assert running.outcome(port) == (Outcome.CLIENT_HANDSHAKE, "timeout: the client said nothing in time")


def test_a_client_without_papers_loaded_is_told_so(running: Running, node: socket.socket) -> None:
    running.order(told(None))
    port = running.serve(node, **TERMINATE)
    with connect(port) as client:
        assert is_closed(client)
    assert running.outcome(port) == (Outcome.CLIENT_HANDSHAKE, "internal: no certificate is loaded")


def test_the_excess_over_the_limits_is_closed_at_once_and_counted(
    running: Running, node: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake_module, "MOST_AT_ONCE", 4)
    monkeypatch.setattr(handshake_module, "SHARE_OF_A_CLIENT", 1)
    port = running.serve(node, **TERMINATE)
    with contextlib.ExitStack() as stack:
        for source in ("127.0.0.7", "127.0.0.7", "127.0.0.8", "127.0.0.9"):
            stack.enter_context(connect(port, source=(source, 0)))
        running.until(lambda: running.counts(port).open == 4)
        for source in ("127.0.0.7", "127.0.0.10"):
            with connect(port, source=(source, 0)) as client:
                assert is_closed(client)
        totals = running.until_ended(port, 2)
        assert totals.ended == {Outcome.HANDSHAKE_LIMIT: 2}
        assert running.counts(port).client_handshakes == {HandshakeFailure.LIMIT: 2}
    running.until_ended(port, 6)
    # There is room again, and live connections take none.
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(connect_tls(port))
            echo_once(client, stack.enter_context(accept(node)))


def test_strangers_do_not_use_up_the_limit_of_connections_where_a_certificate_is_demanded(
    running: Running, node: socket.socket, dev: Issued
) -> None:
    running.order(strict())
    port = running.serve(node, **TERMINATE, max_connections=1, max_connections_per_client=1)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connect(port))
        running.until(lambda: running.counts(port).open == 5)
        with connect_tls(port, client_side(dev)) as client, accept(node) as inside:
            echo_once(client, inside)
            with connect_tls(port, client_side(dev)) as another, contextlib.suppress(ssl.SSLEOFError):
                assert not another.recv(1)
        assert running.until_ended(port, 2).ended[Outcome.LIMIT] == 1
    running.until_ended(port, 7)
    with connect_tls(port, client_side(dev)) as client, accept(node) as inside:
        echo_once(client, inside)


def test_many_who_never_speak_do_not_keep_a_request_waiting(running: Running, node: socket.socket) -> None:
    port = running.serve(node, **TERMINATE)
    with connect_tls(port) as client, accept(node) as inside, contextlib.ExitStack() as stack:
        for number in range(200):
            stranger = stack.enter_context(connect(port, source=(f"127.0.1.{number}", 0)))
            stranger.sendall(b"\x16\x03\x01\x02\x00\x01"[: number % 6])
            if not number % 20:
                echo_once(client, inside)
        echo_once(client, inside)


# Clients with certificates.


@EACH_VERSION
def test_a_certificate_is_told_with_its_connection(
    running: Running, node: socket.socket, dev: Issued, version: Version
) -> None:
    running.order(strict())
    port = running.serve(node, **TERMINATE, certificates=("dev1",))
    with connect_tls(port, client_side(dev, version)) as client, accept(node) as inside:
        echo_once(client, inside)
    finished = running.finish(port)
    assert (finished.certificate, int(finished.serial, 16)) == ("dev1", dev.serial)
    assert (finished.client_tls, finished.node_tls) == (version, "")
    assert running.counts(port).client_handshakes == {"ok": 1}


@pytest.mark.parametrize(
    ("who", "failure", "outcome"),
    [
        ("nobody", HandshakeFailure.NO_CERTIFICATE, Outcome.CLIENT_HANDSHAKE),
        ("foreign", HandshakeFailure.UNKNOWN_CA, Outcome.CLIENT_HANDSHAKE),
        ("server", HandshakeFailure.WRONG_USAGE, Outcome.CLIENT_HANDSHAKE),
        ("revoked", HandshakeFailure.REVOKED, Outcome.REVOKED),
        ("other", HandshakeFailure.NOT_ALLOWED, Outcome.CERTIFICATE_NOT_ALLOWED),
    ],
)
@EACH_VERSION
def test_who_has_no_good_certificate_is_not_let_in(  # noqa: PLR0917 (pytest passes them by name)
    running: Running, node: socket.socket, who: str, failure: HandshakeFailure, outcome: Outcome, version: Version
) -> None:
    shown = {
        "nobody": None,
        "foreign": Authority("Foreign").issue("dev1", usage="client"),
        "server": clients().issue("dev1", usage="server"),
        "revoked": clients().issue("dev1", usage="client"),
        "other": clients().issue("dev2", usage="client"),
    }[who]
    revoked = (shown,) if who == "revoked" and shown is not None else ()
    running.order(strict(revoked))
    port = running.serve(node, **TERMINATE, certificates=("dev1", "*.ci.example.com"))
    with (
        contextlib.suppress(ssl.SSLError, ConnectionResetError),
        connect_tls(port, client_side(shown, version)) as client,
    ):
        client.recv(1)  # in TLS 1.3 the verdict comes after the client is done
    finished = running.finish(port)
    assert (finished.outcome, finished.detail.partition(":")[0]) == (outcome, failure)
    assert "_ssl" not in finished.detail
    totals = running.counts(port)
    assert totals.client_handshakes == {failure: 1}
    assert sum(totals.dials) == 0


def test_a_revocation_closes_whom_it_means_at_once_and_no_other(
    running: Running, node: socket.socket, dev: Issued
) -> None:
    other = clients().issue("dev2", usage="client")
    running.order(strict())
    port, clear = running.serve(node, **TERMINATE), running.serve(node)
    with contextlib.ExitStack() as stack:
        pairs = []
        for where, shown in ((port, dev), (port, other), (port, dev), (clear, None)):
            made = connect(where) if shown is None else connect_tls(where, client_side(shown))
            pairs.append((stack.enter_context(made), stack.enter_context(accept(node))))
            echo_once(*pairs[-1])
        running.order(strict((dev,)))
        for number in (0, 2):
            assert is_closed(pairs[number][0])
            assert is_closed(pairs[number][1])
            finished = running.finish(port)
            assert finished.outcome == Outcome.REVOKED
            assert finished.detail == f"the certificate of dev1 (serial {finished.serial}) is revoked"
        for number in (1, 3):
            echo_once(*pairs[number])
        # The server's own certificate is renewed, a CA is added: nobody has to go.
        renewed = servers().issue(HOST, dns=[HOST], ips=["127.0.0.1"])
        both = clients().pem + Authority("More").pem
        running.order(told(messages.ServerTls(renewed.certificate, renewed.key, both, clients().crl([dev]), "1.2")))
        for number in (1, 3):
            echo_once(*pairs[number])


def test_new_names_close_who_has_none_of_them_at_once(running: Running, node: socket.socket, dev: Issued) -> None:
    other = clients().issue("dev2", usage="client")
    running.order(strict())
    port = running.serve(node, **TERMINATE)
    with (
        connect_tls(port, client_side(dev)) as staying,
        accept(node) as staying_inside,
        connect_tls(port, client_side(other)) as leaving,
        accept(node) as leaving_inside,
    ):
        echo_once(staying, staying_inside)
        running.update(port, node, **TERMINATE, certificates=("*.ci.example.com",))
        assert is_closed(leaving)
        assert is_closed(leaving_inside)
        assert running.finish(port).outcome == Outcome.CERTIFICATE_NOT_ALLOWED
        echo_once(staying, staying_inside)
        running.update(port, node, **TERMINATE, certificates=None)
        echo_once(staying, staying_inside)


def test_another_client_ca_closes_its_clients(running: Running, node: socket.socket, dev: Issued) -> None:
    running.order(strict())
    port = running.serve(node, **TERMINATE)
    with connect_tls(port, client_side(dev)) as client, accept(node) as inside:
        echo_once(client, inside)
        other = Authority("Other Clients CA")
        running.order(told(server_tls(client_ca=other.pem)))
        assert is_closed(client)
        assert is_closed(inside)
    assert running.finish(port).outcome == Outcome.CERTIFICATE_NOT_ALLOWED


@EACH_VERSION
def test_a_handshake_under_way_is_judged_by_what_holds_at_its_end(
    running: Running, node: socket.socket, dev: Issued, version: Version
) -> None:
    running.order(strict())
    port = running.serve(node, **TERMINATE)
    with connect(port) as plain:
        peer = TlsPeer(client_side(dev, version), HOST)
        begin(peer, plain)
        peer.on(plain)
        select.select([plain], [], [], SECONDS)  # natproxy's flight is there
        running.order(strict((dev,)))
        with contextlib.suppress(ssl.SSLError, Cut, ConnectionResetError):
            while not peer.shake():
                select.select([plain], [], [], SECONDS)
        finished = running.finish(port)
    assert finished.outcome == Outcome.REVOKED
    assert running.counts(port).client_handshakes == {HandshakeFailure.REVOKED: 1}


def test_no_session_is_given_where_a_certificate_is_demanded_but_by_its_id(
    running: Running, node: socket.socket, dev: Issued
) -> None:
    """TLS 1.2 resumes by an id all the same: then names, dates and the revocation list are looked at again."""
    running.order(strict())
    port = running.serve(node, **TERMINATE)
    context = client_side(dev, "TLSv1.2")
    with connect_tls(port, context) as client, accept(node) as inside:
        echo_once(client, inside)
        session = client.session
        assert session is not None
        assert not session.has_ticket
        inside.shutdown(socket.SHUT_WR)
        client.unwrap()
    with connect_tls(port, context, session=session) as client, accept(node) as inside:
        assert client.session_reused
        echo_once(client, inside)
    for _ in range(2):
        finished = running.finish(port)
        assert finished.certificate == "dev1"
    running.update(port, node, **TERMINATE, certificates=("dev2",))
    with connect_tls(port, context, session=session) as client:
        assert client.session_reused
        with contextlib.suppress(ssl.SSLEOFError, ConnectionResetError):
            assert not client.recv(1)
    assert running.finish(port).outcome == Outcome.CERTIFICATE_NOT_ALLOWED
    running.update(port, node, **TERMINATE)
    running.order(strict((dev,)))
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        connect_tls(port, context, session=session)
    assert running.finish(port).outcome == Outcome.REVOKED


def test_clients_without_certificates_resume_by_ticket(running: Running, node: socket.socket) -> None:
    port = running.serve(node, **TERMINATE)
    context = client_side(version="TLSv1.3")
    running.counts(port)
    before = running.sessions.copy()
    with connect_tls(port, context) as client, accept(node) as inside:
        echo_once(client, inside)
        session = client.session
    with connect_tls(port, context, session=session) as client, accept(node) as inside:
        assert client.session_reused
        echo_once(client, inside)
    running.counts(port)
    found = running.sessions - before
    assert {(side, version, is_resumed) for side, version, _, is_resumed in found} == {
        ("client", "TLSv1.3", False),
        ("client", "TLSv1.3", True),
    }
    assert found.total() == 2


# Nodes.


@EACH_VERSION
def test_sessions_with_a_node_are_resumed(running: Running, node: socket.socket, version: Version) -> None:
    context = node_side(version=version)
    port = running.serve(node, node_tls=True)
    reused = []
    for _ in range(3):
        with connect(port) as client, accept_tls(node, context) as inside:
            echo_once(client, inside)
            reused.append(inside.session_reused)
            running.update(port, node, node_tls=True)
    assert reused == [False, True, True]
    # Other CAs, even if they are the same people's: nothing is resumed.
    running.order(told(server_tls(), nodes=servers().pem + clients().pem))
    with connect(port) as client, accept_tls(node, context) as inside:
        echo_once(client, inside)
        assert not inside.session_reused
    running.counts(port)
    assert {key[:2] for key in running.sessions} >= {("node", version)}


def test_a_session_is_never_resumed_for_another_name_or_address(running: Running) -> None:
    papers = servers().issue(NODE, dns=[NODE, "other.example.com"])
    context = node_side(papers)  # one context: its sessions would be taken by either node
    with listen() as one, listen() as other:
        port = running.serve(one, node_tls=True)

        def reused(node: socket.socket) -> bool:
            with connect(port) as client, accept_tls(node, context) as inside:
                echo_once(client, inside)
                return bool(inside.session_reused)

        assert [reused(one), reused(one)] == [False, True]
        running.update(port, other, node_tls=True)
        assert [reused(other), reused(other)] == [False, True]
        running.update(port, other, node_tls=True, names=("other.example.com",))
        assert [reused(other), reused(other)] == [False, True]
        running.update(port, other, one, node_tls=True)
        assert not reused(other)


@pytest.mark.parametrize(
    ("papers", "failure"),
    [
        ("wrong name", HandshakeFailure.WRONG_NAME),
        ("foreign", HandshakeFailure.UNKNOWN_CA),
        ("client's", HandshakeFailure.WRONG_USAGE),
    ],
)
def test_a_node_whose_certificate_does_not_verify_is_refused_by_name(
    running: Running, node: socket.socket, papers: str, failure: HandshakeFailure
) -> None:
    shown = {
        "wrong name": servers().issue("x", dns=["x.example.com"]),
        "foreign": Authority("Foreign").issue(NODE, dns=[NODE]),
        "client's": servers().issue(NODE, dns=[NODE], usage="client"),
    }[papers]
    port = running.serve(node, node_tls=True)
    with connect(port) as client:
        with contextlib.suppress(ssl.SSLError, ConnectionResetError), accept_tls(node, node_side(shown)) as inside:
            inside.recv(1)
        assert is_closed(client)
    outcome, detail = running.outcome(port)
    assert outcome == Outcome.NODE_HANDSHAKE
    assert detail.startswith(f"{failure}: 127.0.0.1:{node.getsockname()[1]} as {NODE}: ")
    failed = running.expect(messages.DialFailed)
    assert (failed.port, failed.outcome, failed.detail) == (port, Outcome.NODE_HANDSHAKE, detail)
    totals = running.counts(port)
    assert totals.node_handshakes == {failure: 1}
    assert totals.live == {}
    with connect(port) as client, accept_tls(node) as inside:
        echo_once(client, inside)
        assert running.expect(messages.DialRecovered).port == port


@pytest.mark.parametrize("how", ["EOF", "reset", "silence", "clear text"])
def test_a_node_that_does_not_shake_hands_is_told(running: Running, node: socket.socket, how: str) -> None:
    port = running.serve(node, node_tls=True, handshake_seconds=0.3 if how == "silence" else 60.0)
    with connect(port) as client:
        inside = accept(node)
        if how == "EOF":
            inside.close()
        elif how == "reset":
            assert inside.recv(1)  # else the dial itself may find it
            reset(inside)
        elif how == "clear text":
            inside.sendall(b"-ERR wrong number of arguments\r\n")
        assert is_closed(client)
        inside.close()
    outcome, detail = running.outcome(port)
    expected = {"silence": HandshakeFailure.TIMEOUT, "clear text": HandshakeFailure.CLEAR_TEXT}
    assert (outcome, detail.partition(":")[0]) == (
        Outcome.NODE_HANDSHAKE,
        expected.get(how, HandshakeFailure.CLOSED),
    )


# Natproxy's own certificate.


def shown_to_nodes(papers: Issued | None) -> messages.Tls:
    """Have this certificate shown to nodes that ask for one."""
    client = None if papers is None else messages.ClientTls(papers.certificate, papers.key)
    return msgspec.structs.replace(told(), client=client)


def demanding_node(version: Version, *revoked: Issued) -> ssl.SSLContext:
    """Return the context of a node that demands a certificate of developers."""
    own = node_papers()
    ca, crl = clients().pem, clients().crl(revoked)
    context = server_context(messages.ServerTls(own.certificate, own.key, client_ca=ca, crl=crl))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


@EACH_VERSION
def test_a_node_that_asks_is_shown_natproxy_s_certificate(
    running: Running, node: socket.socket, dev: Issued, version: Version
) -> None:
    running.order(shown_to_nodes(dev))
    port = running.serve(node, node_tls=True)
    with connect(port) as client, accept_tls(node, demanding_node(version)) as inside:
        echo_once(client, inside)
        assert inside.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(dev.certificate.decode())
    assert running.finish(port).node_tls == version
    assert dev.key not in repr(shown_to_nodes(dev)).encode()


@EACH_VERSION
@pytest.mark.parametrize(
    ("who", "alert"),
    [
        ("nobody", "certificate required"),
        ("foreign", "unknown ca"),
        ("server", "unsupported certificate"),
        ("expired", "certificate expired"),
        ("revoked", "certificate revoked"),
    ],
)
def test_a_node_that_refuses_natproxy_s_certificate_says_why_however_late(
    running: Running, node: socket.socket, who: str, alert: str, version: Version
) -> None:
    """In TLS 1.3 it says so when the handshake is done on this side, and the client's first request is on its way."""
    long_ago = datetime.now(UTC) - timedelta(days=9)
    shown = {
        "nobody": None,
        "foreign": Authority("Foreign").issue("dev1", usage="client"),
        "server": clients().issue("dev1", usage="server"),
        "expired": clients().issue("dev1", usage="client", not_before=long_ago, not_after=long_ago + timedelta(days=1)),
        "revoked": clients().issue("dev1", usage="client"),
    }[who]
    running.order(shown_to_nodes(shown))
    port = running.serve(node, node_tls=True)
    context = demanding_node(version, *([shown] if who == "revoked" and shown is not None else []))
    for _ in range(2):
        with connect(port) as client:
            client.sendall(b"PING\r\n")
            with pytest.raises(ssl.SSLError):
                accept_tls(node, context)
            assert is_closed(client)
        outcome, detail = running.outcome(port)
        assert outcome == Outcome.NODE_HANDSHAKE
        # TLS 1.2 has no word of its own for who shows nothing.
        told_as = "handshake failure" if who == "nobody" and version == "TLSv1.2" else alert
        address = f"127.0.0.1:{node.getsockname()[1]}"
        assert detail.startswith(f"alert: {address} as {NODE}: it gave up with the alert {told_as}: ")
    failed = running.expect(messages.DialFailed)
    assert (failed.port, failed.outcome) == (port, Outcome.NODE_HANDSHAKE)
    # Not reached, and lost again: the handshake alone says nothing in TLS 1.3.
    assert not any(isinstance(message, messages.DialRecovered) for message in running.said)
    assert running.counts(port).live == {}
    with connect(port) as client, accept_tls(node, node_side(version=version)) as inside:
        echo_once(client, inside)
        assert running.expect(messages.DialRecovered).port == port


@EACH_VERSION
def test_no_session_outlives_the_certificate_it_was_begun_with(
    running: Running, node: socket.socket, dev: Issued, version: Version
) -> None:
    context = node_side(version=version)
    context.load_verify_locations(cadata=clients().pem.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    port = running.serve(node, node_tls=True)
    names = []
    for papers in (None, dev, clients().issue("dev2", usage="client"), None):
        running.order(shown_to_nodes(papers))
        with connect(port) as client, accept_tls(node, context) as inside:
            echo_once(client, inside)
            assert not inside.session_reused
            names.append((inside.getpeercert() or {}).get("serialNumber"))
    assert len(set(names)) == 3
    assert names[0] is names[3] is None


def test_a_node_of_cas_that_are_not_loaded_is_not_spoken_to(running: Running, node: socket.socket) -> None:
    port = running.serve(node, node_tls=True, node_ca="/nowhere")
    with connect(port) as client, accept(node) as inside:
        assert is_closed(client)
        assert is_closed(inside)
    outcome, detail = running.outcome(port)
    assert outcome == Outcome.NODE_HANDSHAKE
    assert "the CAs of /nowhere are not loaded" in detail
    assert running.counts(port).live == {}


@pytest.mark.parametrize("name", ["", ".example.com", "x" * 300])
def test_a_name_that_no_certificate_can_have_ends_the_connection_alone(
    running: Running, node: socket.socket, name: str
) -> None:
    port = running.serve(node, node_tls=True, names=(name,))
    with connect(port) as client, accept(node) as inside:
        with contextlib.suppress(ConnectionResetError):
            receive_all(inside)
        assert is_closed(client)
    assert running.finish(port).outcome in {Outcome.NODE_HANDSHAKE, Outcome.INTERNAL}
    assert running.counts(port).live == {}


@pytest.mark.parametrize("was_tls", [True, False])
def test_a_route_that_changes_while_its_node_is_dialled_leaves_nothing_behind(running: Running, was_tls: bool) -> None:
    """The address that answers is no longer among the route's: its name is that of the dial's beginning."""
    with silent_node() as (old, fillers), listen() as new:
        port = running.serve(old, node_tls=was_tls, connect_seconds=15.0)
        with connect(port) as client:
            running.until(lambda: running.counts(port).open == 1)
            running.update(port, new, node_tls=True, connect_seconds=15.0)
            for filler in fillers:
                filler.close()
            if was_tls:
                inside = None
                while inside is None:  # the fillers', which are gone, come first
                    with contextlib.suppress(ssl.SSLError, OSError):
                        inside = accept_tls(old)
                with inside:
                    echo_once(client, inside)
            else:
                old.settimeout(0.1)
                while not any(finished.port == port for finished in running.finished):
                    with contextlib.suppress(TimeoutError):
                        accept(old).close()
                    running.hear(0.02)
                assert is_closed(client)
        outcome, _ = running.outcome(port)
        assert outcome in ({Outcome.CLIENT_CLOSED, Outcome.NODE_CLOSED} if was_tls else {Outcome.NODE_HANDSHAKE})
        assert running.counts(port).live == {}


# Orders, whatever is under way.


STATES = pytest.mark.parametrize("state", ["client's handshake", "dial", "node's handshake", "relay"])


@contextlib.contextmanager
def connection_in(running: Running, state: str) -> Iterator[tuple[int, socket.socket]]:
    """Yield (port, the client's socket) of a connection that has come so far."""
    with contextlib.ExitStack() as stack:
        if state == "dial":
            node, _ = stack.enter_context(silent_node())
        else:
            node = stack.enter_context(listen())
        port = running.serve(node, **TERMINATE, node_tls=True, connect_seconds=60.0, handshake_seconds=60.0)
        plain = stack.enter_context(connect(port))
        worker = running.worker
        assert worker is not None
        running.until(lambda: port in worker._ports)
        served_port = worker._ports[port]
        if state == "client's handshake":
            begin(TlsPeer(client_side(), HOST), plain)
            running.until(lambda: served_port.connections)
        else:
            meet(TlsPeer(client_side(), HOST), plain)
        plain.settimeout(SECONDS)
        if state == "node's handshake":
            stack.enter_context(accept(node))
        elif state == "relay":
            stack.enter_context(accept_tls(node))
            running.until(lambda: any(one.relay is not None for one in served_port.connections))
        if state in {"dial", "node's handshake"}:
            attribute = "_dial" if state == "dial" else "_node"
            running.until(lambda: any(getattr(one, attribute) is not None for one in served_port.connections))
        yield port, plain


def has_ended(sock: socket.socket) -> bool:
    """Wait until natproxy has closed; what TLS had to say before that does not matter."""
    with contextlib.suppress(ConnectionResetError):
        receive_all(sock)
    return True


@STATES
@pytest.mark.parametrize("order", ["End", "End soon", "Unserve", "allow", "reset"])
def test_every_order_ends_a_connection_in_every_state_and_leaves_nothing_behind(
    running: Running, state: str, order: str
) -> None:
    assert running.worker is not None
    gc.collect()
    before = running.descriptors()
    with connection_in(running, state) as (port, client):
        match order:
            case "End":
                running.order(messages.End(port, None, 0.0, Outcome.GONE.value))
            case "End soon":
                running.order(messages.End(port, None, 0.1, Outcome.GONE.value))
            case "Unserve":
                running.order(messages.Unserve(port, Outcome.GONE.value))
            case "allow":
                served_now = running.worker._ports[port].serve
                address = served_now.addresses[0]
                running.update(port, address, **TERMINATE, node_tls=True, allow=("10.0.0.0/8",))
            case "reset":
                reset(client)
        if order != "reset":
            assert has_ended(client)
        outcome, _ = running.outcome(port)
        expected = {"allow": {Outcome.NOT_ALLOWED}, "reset": {Outcome.CLIENT_RESET, Outcome.CLIENT_HANDSHAKE}}
        assert outcome in expected.get(order, {Outcome.GONE})
    totals = running.counts(port)
    assert (totals.open, totals.live) == (0, {})
    running.until(lambda: running.worker is not None and running.worker.handshakes.open == 0)
    timers = [timer for queue in running.worker.loop._delays.values() for timer in queue if timer.callback is not None]
    assert not [timer for timer in timers if timer.when - running.worker.loop.now > 20.0]
    if order != "Unserve":
        running.order(messages.Unserve(port, Outcome.GONE.value))
    gc.collect()
    running.until(lambda: running.descriptors() <= before + 1)  # the doorbell's


@STATES
def test_a_worker_that_stops_ends_a_connection_in_every_state(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TICK_SECONDS", 0.05)
    with Running() as running:
        running.tell(told(server_tls()))
        with connection_in(running, state) as (port, client):
            running.tell(messages.Stop(0.1))
            assert has_ended(client)
            assert running.outcome(port)[0] == Outcome.STOPPED
            running.expect(messages.Stopped)


def test_an_unforeseen_error_after_the_handshake_ends_its_connection_alone(
    running: Running, node: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert running.worker is not None
    port = running.serve(node, **TERMINATE)

    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    with connect_tls(port) as staying, accept(node) as inside:
        echo_once(staying, inside)
        with monkeypatch.context() as patch:
            patch.setattr(running.worker.credentials, "verdict_of_handshake", fail)
            with contextlib.suppress(ssl.SSLError, ConnectionResetError), connect_tls(port) as client:
                client.recv(1)
            finished = running.finish(port)
        assert "RuntimeError: unforeseen" in finished.detail
        echo_once(staying, inside)


# TLS where none is spoken.


def test_tls_to_a_clear_port_is_recognised_where_that_is_wanted(running: Running, node: socket.socket) -> None:
    port, static = running.serve(node, sniffs=True), running.serve(node)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        connect_tls(port)
    with accept(node) as inside, contextlib.suppress(ConnectionResetError):
        assert receive_all(inside) == b""
    assert running.outcome(port)[0] == Outcome.TLS_ON_CLEAR_PORT
    with connect(static) as client, accept(node) as inside:
        client.sendall(b"\x16\x03\x01")
        assert receive_exactly(inside, 3) == b"\x16\x03\x01"
    with connect(port) as client, accept(node) as inside:
        client.sendall(b"PING\r\n")
        assert receive_exactly(inside, 6) == b"PING\r\n"
        client.sendall(b"\x16\x03\x01")
        assert receive_exactly(inside, 3) == b"\x16\x03\x01"


# Memory, secrets.


def test_memory_stays_bounded_over_tls(node: socket.socket) -> None:
    with Running(is_process=True) as running:
        running.tell(told(server_tls()))
        node.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        port = running.serve(node, **TERMINATE, node_tls=True)
        client = meet(TlsPeer(client_side(), HOST), connect(port))
        inside = meet(TlsPeer(node_side()), accept(node))
        before = running.rss_bytes()
        sent = moved = 0
        payload = bytes(1 << 14)
        while True:  # nobody reads at the node
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += client.send(payload)
            now = running.counts(port).client_bytes
            assert running.rss_bytes() - before < MODEST_BYTES
            if now == moved and now:
                break
            moved = now
        got = 0
        while got < sent:
            client.flush()
            select.select([inside], [], [], SECONDS)
            while data := receive(inside):
                got += len(data)
        assert running.rss_bytes() - before < MODEST_BYTES
        for peer in (client, inside):
            peer.close()


def test_thousands_of_tls_connections_leave_nothing_behind(node: socket.socket) -> None:
    with Running(is_process=True) as running:
        running.tell(strict())
        port = running.serve(node, **TERMINATE)
        papers = clients().issue("dev1", usage="client")
        contexts = [client_side(papers, "TLSv1.2"), client_side(papers, "TLSv1.3"), client_side()]

        def come_and_go(number: int) -> None:
            with contextlib.suppress(ssl.SSLError, OSError), connect_tls(port, contexts[number % 3]) as client:
                if number % 3 < 2:
                    with accept(node) as inside:
                        echo_once(client, inside)
                    if number % 4:
                        client.unwrap()  # the node has closed: it is answered
                else:
                    client.recv(1)

        for number in range(100):
            come_and_go(number)
        running.until_ended(port, 100)
        before = running.descriptors(), running.rss_bytes()
        for number in range(1500):
            come_and_go(number)
            running.hear(0)
        running.until_ended(port, 1600)
        assert running.counts(port).live == {}
        assert running.descriptors() == before[0]
        assert running.rss_bytes() - before[1] < MODEST_BYTES


def test_a_key_is_never_shown() -> None:
    tls = told(server_tls(client_ca=clients().pem))
    for text in (repr(tls), str(tls), f"{tls}", repr(tls.server), repr([tls])):
        assert "PRIVATE" not in text
        assert "server=<ServerTls>" in text or text == "<ServerTls>"
