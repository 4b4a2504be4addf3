"""A DNS server over UDP and TCP that serves a Zone, counts what is asked, and fails on order. I/O: sockets, a thread.

with DnsServer(world.zone) as dns:                       # 127.0.0.1, a port of its choice
    resolver = aiodns.DNSResolver(nameservers=[dns.where])
    dns.fail("my-redis-001.x7f3k.0001.use1.cache.amazonaws.com", "nxdomain")   # until dns.heal()
    dns.wait_for("my-redis-001...", 2)                   # blocks until it was asked for twice
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, cast, get_args

import dnslib

from tests.standins.loop import LoopThread
from tests.standins.zone import ResourceRecord, Zone

DnsFault = Literal["nxdomain", "servfail", "refused", "silent", "empty"]
"""What a name answers instead: an error code, nothing at all (silent), or no records (empty)."""

PLAIN_UDP_BYTES = 512
BIND_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Query:
    """One question that was asked."""

    name: str
    kind: str
    transport: str
    """udp | tcp."""


class DnsServer:
    """Serves a zone on one address and port, the same for UDP and TCP."""

    def __init__(self, zone: Zone, address: str = "127.0.0.1", port: int = 0) -> None:
        self.zone = zone
        self.address = address
        self.port = port
        """0 until the start where none was given."""
        self._thread = LoopThread("dns-standin")
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._streams: set[asyncio.Task[object]] = set()
        self._faults: dict[str, DnsFault] = {}
        self._queries: list[Query] = []
        self._asked = threading.Condition()

    # life

    @property
    def where(self) -> str:
        """``ip:port``, as resolvers take it."""
        return f"{self.address}:{self.port}"

    def start(self) -> None:
        """Listen; a port of its choice is free for both UDP and TCP."""
        self._thread.start()
        try:
            self._thread.call(self._listen())
        except BaseException:
            self._thread.stop()
            raise

    def stop(self) -> None:
        """Close everything."""
        self._thread.call(self._close())
        self._thread.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # faults and what was asked

    def fail(self, name: str, fault: DnsFault) -> None:
        """Let a name (``*``: every name) fail until ``heal``."""
        if fault not in get_args(DnsFault):
            message = f"there is no fault {fault!r}"
            raise ValueError(message)
        with self._asked:
            self._faults[name.rstrip(".").lower()] = fault

    def heal(self, name: str | None = None) -> None:
        """End the fault of a name, or of all."""
        with self._asked:
            if name is None:
                self._faults.clear()
            else:
                self._faults.pop(name.rstrip(".").lower(), None)

    def queries(self, name: str | None = None) -> list[Query]:
        """What was asked so far, oldest first."""
        wanted = None if name is None else name.rstrip(".").lower()
        with self._asked:
            return [query for query in self._queries if wanted in (None, query.name)]

    def wait_for(self, name: str, count: int = 1, seconds: float = 10.0) -> list[Query]:
        """Block until a name was asked for ``count`` times in all; raises TimeoutError."""
        wanted = name.rstrip(".").lower()
        with self._asked:
            if not self._asked.wait_for(lambda: self._count(wanted) >= count, seconds):
                message = f"{name} was asked for {self._count(wanted)} times, not {count}, in {seconds} s"
                raise TimeoutError(message)
        return self.queries(name)

    def wait_for_more(self, name: str, more: int = 1, seconds: float = 10.0) -> list[Query]:
        """Block until a name was asked for ``more`` times from now on; raises TimeoutError."""
        return self.wait_for(name, len(self.queries(name)) + more, seconds)

    async def wait_for_async(self, name: str, count: int = 1, seconds: float = 10.0) -> list[Query]:
        """``wait_for`` for a running loop."""
        return await asyncio.to_thread(self.wait_for, name, count, seconds)

    def _count(self, name: str) -> int:
        return sum(query.name == name for query in self._queries)

    # answering

    def respond(self, packet: bytes, transport: str) -> bytes | None:
        """Answer one message; None = say nothing."""
        try:
            request = dnslib.DNSRecord.parse(packet)
        except dnslib.DNSError:
            return None
        name = str(request.q.qname).rstrip(".").lower()
        kind = str(dnslib.QTYPE[request.q.qtype])
        with self._asked:
            self._queries.append(Query(name, kind, transport))
            self._asked.notify_all()
            fault = self._faults.get(name) or self._faults.get("*")
        if fault == "silent":
            return None
        reply = request.reply(ra=1, aa=1)
        self._fill(reply, name, kind, fault)
        wire = bytes(reply.pack())
        if transport == "udp" and len(wire) > _udp_limit(request):
            reply.header.tc = 1
            reply.rr.clear()
            return bytes(reply.pack())
        return wire

    def _fill(self, reply: dnslib.DNSRecord, name: str, kind: str, fault: DnsFault | None) -> None:
        if fault == "empty":
            return
        if fault is not None:
            reply.header.rcode = getattr(dnslib.RCODE, fault.upper())
            return
        answer = self.zone.answer(name, kind)
        if answer is None:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
            return
        for record in answer:
            reply.add_answer(_rendered(record, self.zone.ttl_seconds))

    # sockets

    async def _listen(self) -> None:
        chosen = self.port
        for attempt in range(BIND_ATTEMPTS):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((self.address, chosen))
                port = probe.getsockname()[1]
            try:
                self._tcp = await asyncio.start_server(self._serve_stream, self.address, port)
            except OSError:  # taken on TCP: another one, where it is ours to choose
                if chosen or attempt == BIND_ATTEMPTS - 1:
                    raise
                continue
            loop = asyncio.get_running_loop()
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(self.address, port)
            )
            self.port = port
            return

    async def _close(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        streams = list(self._streams)
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        await asyncio.sleep(0)  # the transports' own last callbacks

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2))
                reply = self.respond(await reader.readexactly(length), "tcp")
                if reply is not None:
                    writer.write(len(reply).to_bytes(2) + reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._streams.discard(task)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # which it is, but not by its class

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._server.respond(data, "udp")
        if reply is not None and self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.sendto(reply, addr)


def _udp_limit(request: dnslib.DNSRecord) -> int:
    sizes = [int(record.rclass) for record in request.ar if record.rtype == dnslib.QTYPE.OPT]
    return max([PLAIN_UDP_BYTES, *sizes])


def _rendered(record: ResourceRecord, ttl_seconds: int) -> dnslib.RR:
    data = {"A": dnslib.A, "AAAA": dnslib.AAAA, "CNAME": dnslib.CNAME}[record.kind](record.value)
    return dnslib.RR(record.owner, getattr(dnslib.QTYPE, record.kind), rdata=data, ttl=ttl_seconds)
