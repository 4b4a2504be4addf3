"""Peers that speak TLS: one end without a socket, one on a socket that never waits, and papers. I/O: TCP, files."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Literal, Protocol, Self

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from natproxy.messages import ServerTls
from natproxy.tls.contexts import node_context, server_context
from natproxy.worker.handshake import TlsEnd
from tests.standins.certificates import Authority, Issued

HOST = "cache.example.com"
NODE = "node.example.com"
Version = Literal["TLSv1.2", "TLSv1.3"]
VERSIONS: dict[Version, ssl.TLSVersion] = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_SLICE_BYTES = 16 * 1024


class Cut(Exception):  # noqa: N818 (it is an end, not an error)
    """A bare FIN came, without a close_notify."""


class Peer(Protocol):
    """What a test uses of a socket that never waits."""

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:
        """Send some of it, or raise BlockingIOError."""

    def recv(self, most: int, flags: int = 0, /) -> bytes:
        """Return what has come, b"" at the end, or raise BlockingIOError."""

    def shutdown(self, how: int, /) -> None:
        """Say that no more will come."""

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option."""

    def close(self) -> None:
        """Close it, without a word where it speaks TLS."""


# Papers.


@functools.cache
def servers() -> Authority:
    """Return the CA of natproxy's own certificate and of nodes."""
    return Authority("Servers CA")


@functools.cache
def clients() -> Authority:
    """Return the CA of developers."""
    return Authority("Clients CA")


@functools.cache
def server_papers() -> Issued:
    """Return natproxy's certificate."""
    return servers().issue(HOST, dns=[HOST], ips=["127.0.0.1"])


@functools.cache
def node_papers() -> Issued:
    """Return a node's certificate."""
    return servers().issue(NODE, dns=[NODE])


def server_tls(**values: bytes | str | None) -> ServerTls:
    """Return what a worker is told, to be a server."""
    own = server_papers()
    return msgspec.structs.replace(ServerTls(own.certificate, own.key), **values)


def client_side(shown: Issued | None = None, version: Version | None = None, *, weak: bool = False) -> ssl.SSLContext:
    """Return the context of a client, which shows this certificate."""
    context = ssl.create_default_context(cadata=servers().pem.decode())
    return _set(context, shown, version, weak=weak)


def node_side(shown: Issued | None = None, version: Version | None = None) -> ssl.SSLContext:
    """Return the context of a node."""
    return _set(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), shown or node_papers(), version, weak=False)


def _set(context: ssl.SSLContext, shown: Issued | None, version: Version | None, *, weak: bool) -> ssl.SSLContext:
    if weak:
        context.set_ciphers("ALL:@SECLEVEL=0")
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    if shown is not None:
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*shown.write(Path(directory)))
    return context


# Both ends of a connection in one hand.


@functools.cache
def _contexts(version: Version) -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    return (
        server_context(server_tls()),
        client_side(version=version),
        node_context(servers().pem),
        node_side(version=version),
    )


class TlsPeer:
    """A peer's end of a TLS connection; to be used as the socket it has, which never waits."""

    def __init__(self, context: ssl.SSLContext, name: str | None = None, session: ssl.SSLSession | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=name is None, server_hostname=name, session=session
        )
        self.sock: socket.socket | None = None
        self._waiting = b""
        self._opened = b""

    def on(self, sock: socket.socket) -> Self:
        """Speak over this socket from now on."""
        self.sock = sock
        sock.setblocking(False)
        return self

    @property
    def plain(self) -> socket.socket:
        """Its socket, to break the rules with."""
        assert self.sock is not None
        return self.sock

    def shake(self) -> bool:
        """Carry the handshake on; True once it is done. Raises what goes wrong with it."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                try:
                    data = self.plain.recv(1 << 16)
                except BlockingIOError:
                    return False
                if not data:
                    raise Cut from None
                self.incoming.write(data)
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self.flush()
                raise
            else:
                self.flush()
                return True

    def flush(self) -> bool:
        """Send what is sealed; True where all of it went."""
        self._waiting += self.outgoing.read()
        while self._waiting:
            try:
                self._waiting = self._waiting[self.plain.send(self._waiting) :]
            except BlockingIOError:
                return False
        return True

    def seal(self, data: bytes | memoryview) -> bytes:
        """Return the records that hold this, to be sent by hand."""
        self.tls.write(data)
        return self.outgoing.read()

    def goodbye(self) -> bytes:
        """Return the records of a close_notify."""
        came = self.incoming.read()  # unwrap would look at it, and drop it
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.incoming.write(came)
        return self.outgoing.read()

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:
        """Send some of it."""
        assert not flags
        if not self.flush():
            raise BlockingIOError
        count = self.tls.write(data[:_SLICE_BYTES])
        self.flush()
        return count

    def recv(self, most: int, flags: int = 0, /) -> bytes:
        """Return what has come, b"" at a close_notify. Raises Cut at a bare FIN."""
        assert not flags
        while not self._opened:
            try:
                # All of a record: unwrap (goodbye) throws away what was decrypted and not read.
                self._opened = self.tls.read(1 << 18)
            except ssl.SSLWantReadError:
                self.flush()
                came = self.plain.recv(1 << 16)
                if not came:
                    raise Cut from None
                self.incoming.write(came)
            except ssl.SSLZeroReturnError:
                return b""
            else:
                self.flush()
                if not self._opened:
                    return b""
        data, self._opened = self._opened[:most], self._opened[most:]
        return data

    def shutdown(self, how: int, /) -> None:
        """Say close_notify, then FIN."""
        assert self.flush()
        self.plain.sendall(self.goodbye())
        self.plain.shutdown(how)

    def cut(self) -> None:
        """Say FIN without a close_notify."""
        assert self.flush()
        self.plain.shutdown(socket.SHUT_WR)

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option of the socket."""
        self.plain.setsockopt(level, name, value)

    def close(self) -> None:
        """Close the socket without a word."""
        if self.sock is not None:
            self.sock.close()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.plain.fileno()


def tls_pair(side: str, version: Version = "TLSv1.3") -> tuple[TlsEnd, TlsPeer]:
    """Return (natproxy's end, the peer's) of a connection to a client or a node, once they have agreed."""
    server, client, to_node, node = _contexts(version)
    if side == "client":
        end, peer = TlsEnd(server, None, None), TlsPeer(client, HOST)
    else:
        end, peer = TlsEnd(to_node, NODE, None), TlsPeer(node)
    agree(end, peer)
    return end, peer


def agree(end: TlsEnd, peer: TlsPeer) -> None:
    """Have both ends shake hands."""
    waiting: set[TlsEnd | TlsPeer] = {end, peer}
    while waiting:
        for one, other in ((end, peer), (peer, end)):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.tls.do_handshake()
                waiting.discard(one)
            other.incoming.write(one.outgoing.read())
    with contextlib.suppress(ssl.SSLWantReadError):  # the tickets
        peer.tls.read(1)


class Scribe:
    """Writes the records of a TLS 1.3 client by hand, from its key log on: also those that ``ssl`` never sends.

    RFC 8446, 5.2 (records), 7.1 (HKDF-Expand-Label), 7.2 (the next secret), 7.3 (keys).
    """

    def __init__(self, key_log: str) -> None:
        secret = next(line for line in key_log.splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0 "))
        self._secret = bytes.fromhex(secret.split()[2])
        self._hash: hashes.HashAlgorithm = hashes.SHA384() if len(self._secret) == 48 else hashes.SHA256()
        self._key_bytes = 32 if len(self._secret) == 48 else 16
        self._start()

    def _start(self) -> None:
        self._aead = AESGCM(self._expand(b"key", self._key_bytes))
        self._nonce = int.from_bytes(self._expand(b"iv", 12), "big")
        self._number = 0

    def _expand(self, label: bytes, count: int) -> bytes:
        label = b"tls13 " + label
        info = count.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(self._hash, count, info).derive(self._secret)

    def record(self, content: bytes, kind: int = 23) -> bytes:
        """Seal a record: 21 alert, 22 handshake, 23 application data."""
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
        nonce = (self._nonce ^ self._number).to_bytes(12, "big")
        self._number += 1
        return header + self._aead.encrypt(nonce, content + bytes([kind]), header)

    def key_update(self, *, is_request: bool = True) -> bytes:
        """Seal a KeyUpdate (RFC 8446, 4.6.3), and go on with the next key."""
        record = self.record(bytes([24, 0, 0, 1, is_request]), 22)
        self._secret = self._expand(b"traffic upd", self._hash.digest_size)
        self._start()
        return record


def scribbling_pair() -> tuple[TlsEnd, TlsPeer, Scribe]:
    """Return (natproxy's end, the client's, who writes for the client): it reads by itself, and writes by hand."""
    with tempfile.NamedTemporaryFile("r", encoding="ascii") as log:
        context = client_side(version="TLSv1.3")
        context.keylog_filename = log.name
        end, peer = TlsEnd(_contexts("TLSv1.3")[0], None, None), TlsPeer(context, HOST)
        agree(end, peer)
        return end, peer, Scribe(log.read())
