"""Both ends of a TLS connection in a test's hand, and the papers they show. I/O: TCP, TLS, files."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import PlainNode, Talk, connect
from tests.scenarios.waiting import PATIENCE_SECONDS
from tests.standins.certificates import Authority, Issued
from tests.standins.cloud import Cloud

HOST = "cache.example.com"
"""What clients call natproxy, beside its address."""
NODE_HOST = "node.example.com"
Version = Literal["TLSv1.2", "TLSv1.3"]
VERSIONS: dict[Version, ssl.TLSVersion] = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
SLICE_BYTES = 1 << 16

T = TypeVar("T")


class Papers:
    """The authorities of one daemon's world, and the files in which it finds them and its own certificate."""

    def __init__(self, directory: Path, ip: str) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.ip = ip
        self.servers = Authority("Servers CA")
        self.clients = Authority("Clients CA")
        self.nodes = Authority("Nodes CA")
        self.server = self.new_server()
        self.server.write(directory)
        self.client_ca, self.crl, self.node_ca = (
            directory / name for name in ("clients.crt", "clients.crl", "nodes.crt")
        )
        self.client_ca.write_bytes(self.clients.pem)
        self.crl.write_bytes(self.clients.crl())
        self.node_ca.write_bytes(self.nodes.pem)
        self.dev = self.clients.issue("dev1", usage="client")
        self.node = self.nodes.issue("node", dns=[NODE_HOST])
        self.other_keys: list[bytes] = []
        """Keys that a test has put where the daemon reads its own."""
        self._stems = itertools.count()

    def new_server(self) -> Issued:
        """Issue one more certificate for the daemon."""
        return self.servers.issue("natproxy", dns=[HOST], ips=[self.ip])

    def section(self, *, client_ca: bool = True, crl: bool = True) -> dict[str, Any]:
        """Return the config's ``tls``."""
        paths = {"certificate": self.directory / "server.crt", "key": self.directory / "server.key"}
        if client_ca:
            paths["client_ca"] = self.client_ca
            if crl:
                paths["crl"] = self.crl
        return {key: str(path) for key, path in paths.items()}

    def tls_node(self, **more: Any) -> dict[str, Any]:
        """Return the config's ``nodes`` for one that speaks TLS."""
        return {"tls": "on", "ca": str(self.node_ca), "server_name": NODE_HOST, **more}

    def write(self, issued: Issued) -> tuple[Path, Path]:
        """Write a certificate and its key to files that nothing else uses."""
        return issued.write(self.directory, f"written-{next(self._stems)}")

    def client(self, shown: Issued | None = None, *, version: Version | None = None) -> ssl.SSLContext:
        """Return a client's context, which trusts the daemon's CA and shows this certificate, however bad."""
        context = ssl.create_default_context(cadata=self.servers.pem.decode())
        return self._set(context, shown, version)

    def node_client(self) -> ssl.SSLContext:
        """Return the context of a client that speaks with the node itself."""
        return ssl.create_default_context(cadata=self.nodes.pem.decode())

    def node_side(self, shown: Issued | None = None, *, version: Version | None = None) -> ssl.SSLContext:
        """Return a node's context, which shows this certificate, however bad."""
        return self._set(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), shown or self.node, version)

    def _set(self, context: ssl.SSLContext, shown: Issued | None, version: Version | None) -> ssl.SSLContext:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else what is weak could not be shown
        if version is not None:
            context.minimum_version = context.maximum_version = VERSIONS[version]
        if shown is not None:
            context.load_cert_chain(*self.write(shown))
        return context


def secure(
    ip: str,
    port: int,
    context: ssl.SSLContext,
    *,
    name: str = HOST,
    source: str | None = None,
    session: ssl.SSLSession | None = None,
) -> TlsTalk:
    """Open a connection and agree upon TLS; raises what goes wrong with that."""
    plain = connect(ip, port, source=source)
    try:
        return TlsTalk(plain.sock, context, name=name, session=session)
    except BaseException:
        plain.close()
        raise


class TlsTalk(Talk):
    """One end of a TLS connection, each of whose ends can be had by itself; two threads may use it."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=name is None, server_hostname=name, session=session
        )
        self._lock = threading.Lock()
        """OpenSSL takes one caller at a time."""
        self._sending = threading.Lock()
        self._early = bytearray()
        """Heard before the goodbye was said, and not asked for yet."""
        self._until_done(self.tls.do_handshake)

    def _until_done(self, act: Callable[[], T]) -> T:
        while True:
            try:
                with self._lock:
                    done = act()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # the alert
                raise
            else:
                self._flush()
                return done
            data = self.sock.recv(SLICE_BYTES)
            with self._lock:
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()

    def _flush(self) -> None:
        with self._lock:
            if not self._outgoing.pending:
                return  # without a wait: another thread may be sending for long
        with self._sending:
            with self._lock:
                data = self._outgoing.read()
            if data:  # or another thread has sent it meanwhile
                self.sock.sendall(data)

    def say(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            with self._sending:
                self.sock.sendall(self.seal(view[start : start + SLICE_BYTES]))

    def seal(self, data: bytes | memoryview) -> bytes:
        """Return what has to be sent over ``sock`` to say this next."""
        with self._lock:
            self.tls.write(data)
            return self._outgoing.read()

    def receive(self, count: int) -> bytes:
        """Receive what is there; b"" at close_notify, SSLEOFError at a FIN without one."""
        try:
            return self._until_done(lambda: self._take_early(count) or self.tls.read(count))
        except ssl.SSLZeroReturnError:
            return b""

    def _take_early(self, count: int) -> bytes:
        early = bytes(self._early[:count])
        del self._early[:count]
        return early

    def finish(self) -> None:
        """Say close_notify and FIN, but go on listening."""
        self.say_goodbye()
        with self._sending:  # who listens may have found the goodbye first, and be about to send it
            self.sock.shutdown(socket.SHUT_WR)

    def say_goodbye(self) -> None:
        """Say close_notify, but no FIN."""
        with self._lock:
            # It looks for the other's goodbye at once, and throws away what comes before.
            with contextlib.suppress(ssl.SSLError):
                while early := self.tls.read(SLICE_BYTES):
                    self._early += early
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
        self._flush()

    def finish_bare(self) -> None:
        """Say FIN without close_notify, as many clients do."""
        self.sock.shutdown(socket.SHUT_WR)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait for the end and say which: ``eof`` (close_notify), ``cut`` (FIN alone), ``reset`` or an alert's name."""
        try:
            return super().ended(seconds)
        except ssl.SSLEOFError:
            return "cut"
        except ssl.SSLError as error:
            return alert_of(error)


class TlsNode(PlainNode):
    """A node that speaks TLS: the test accepts, and talks. ``context`` may be changed for the next connections."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.context = context

    def accept(self) -> TlsTalk:
        """Take the next connection and agree upon TLS; raises what goes wrong with that."""
        plain = super().accept()
        try:
            return TlsTalk(plain.sock, self.context)
        except BaseException:
            plain.close()
            raise


def alert_of(error: ssl.SSLError) -> str:
    """Return what OpenSSL calls an alert that came, without its prefix: ``CERTIFICATE_EXPIRED``."""
    return (error.reason or str(error)).rpartition("ALERT_")[2]


def prepare_tls(
    natproxies: Natproxies, cloud: Cloud | None = None, *, client_ca: bool = True, **config: Any
) -> tuple[Daemon, Papers]:
    """Return a daemon that is not started yet and speaks TLS, and its papers; ``config`` as for other daemons."""
    daemon = natproxies.prepare(cloud, **config)
    papers = Papers(daemon.path.parent / "tls", daemon.ip)
    daemon.config["tls"] = papers.section(client_ca=client_ca)
    return daemon, papers
