"""Certificates of both sides, and a client that shows one to a side of the daemon's. I/O: TCP, TLS, files."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from natproxy.messages import ServerTls, Tls
from tests.standins.certificates import Authority, Issued

HOST = "cache.example.com"


class Answer:
    """One HTTP answer, taken apart."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


class Identities:
    """The CA of servers and that of clients, and what the daemon goes by."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._servers, self.clients = Authority("Servers CA"), Authority("Clients CA")
        self._own = self._servers.issue("natproxy", dns=[HOST])
        self.dev = self.clients.issue("dev1", usage="client")
        self.tls = self.made()

    def made(self, revoked: tuple[Issued, ...] = (), *, ca: bytes | None = None) -> Tls:
        """Return what the daemon would go by."""
        crl = self.clients.crl(revoked) if ca is None else None
        return Tls(ServerTls(self._own.certificate, self._own.key, ca or self.clients.pem, crl), {})

    def client(self, shown: Issued | None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return a client's context that shows this certificate, however bad."""
        context = ssl.create_default_context(cadata=self._servers.pem.decode())
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if shown is not None:
            context.load_cert_chain(*shown.write(self._directory, f"client-{shown.serial}"))
        return context

    async def talk(
        self, port: int, shown: Issued | None, *, version: ssl.TLSVersion | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and agree upon TLS."""
        context = self.client(shown, version=version)
        return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)

    async def ask(
        self, port: int, path: str = "/directory", shown: Issued | None = None, *, method: str = "GET", more: str = ""
    ) -> Answer:
        """Ask for a page, as dev1 unless told otherwise."""
        request = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}Connection: close\r\n\r\n".encode()
        return await self.exchange(port, request, shown)

    async def exchange(self, port: int, request: bytes, shown: Issued | None = None) -> Answer:
        """Send these bytes, and take what comes for one answer."""
        reader, writer = await self.talk(port, shown or self.dev)
        try:
            writer.write(request)
            async with asyncio.timeout(20):
                return Answer(await reader.read())
        finally:
            writer.close()
            await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Wait for a connection's end, whichever it is."""
    writer.close()
    with contextlib.suppress(OSError):
        async with asyncio.timeout(20):
            await writer.wait_closed()
