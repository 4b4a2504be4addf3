"""What passes a link, put together again: frames become TCP connections, and their bytes TLS records. Pure.

A connection has to be seen from its first packet on: nothing is guessed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

ETHERNET_BYTES = 14
IPV4, IPV6, ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
TCP, ICMPV6, HOP_BY_HOP = 6, 58, 0
FIN, SYN, ACK = 0x01, 0x02, 0x10

HEADER_BYTES = 5
MOST_RECORD_BYTES = (1 << 14) + 2048
"""RFC 5246, 6.2.3; TLS 1.3 has less."""
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
KINDS = {CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA}
HELLOS = {"client": 1, "server": 2}

Address = tuple[str, int]


class NotTlsError(ValueError):
    """Bytes are no TLS, or not all of them are there."""


class Segment(NamedTuple):
    """One TCP packet."""

    source: Address
    target: Address
    sequence: int
    flags: int
    payload: bytes


class Record(NamedTuple):
    """One TLS record, as far as it came."""

    kind: int
    body: bytes


@dataclass
class Stream:
    """One direction of a connection."""

    first: int
    """The sequence number of its first byte."""
    data: bytearray = field(default_factory=bytearray)
    """All bytes from the beginning on, up to the first that is not there."""
    _early: dict[int, bytes] = field(default_factory=dict)

    def add(self, sequence: int, payload: bytes) -> None:
        """Put bytes in their place; what is there already stays."""
        offset = (sequence - self.first + (1 << 31)) % (1 << 32) - (1 << 31)
        if payload:
            self._early[offset] = max(payload, self._early.get(offset, b""), key=len)
        for start in sorted(self._early):
            if start > len(self.data):
                break
            self.data += self._early.pop(start)[len(self.data) - start :]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing before what came last."""
        return not self._early


@dataclass
class Flow:
    """One TCP connection."""

    client: Address
    server: Address
    asked: Stream
    answered: Stream | None = None
    """None until the server has answered."""

    @property
    def streams(self) -> dict[str, Stream]:
        """Whoever says something -> what."""
        return {"client": self.asked} | ({} if self.answered is None else {"server": self.answered})


class Link:
    """All that passes one link."""

    def __init__(self) -> None:
        self.flows: list[Flow] = []
        self.strange: list[bytes] = []
        """Frames that are neither TCP over IPv4 nor what neighbours tell each other."""
        self._open: dict[tuple[Address, Address], Flow] = {}

    def add(self, frame: bytes) -> None:
        """Take one Ethernet frame. Raises NotTlsError for a connection that had begun before."""
        kind, packet = frame[12:ETHERNET_BYTES], frame[ETHERNET_BYTES:]
        if kind == ARP or (kind == IPV6 and packet[6] in {ICMPV6, HOP_BY_HOP}):
            return
        if kind != IPV4 or packet[9] != TCP:
            self.strange.append(frame)
            return
        self._take(segment(packet))

    def _take(self, part: Segment) -> None:
        after = part.sequence + bool(part.flags & SYN)
        if part.flags & SYN and not part.flags & ACK:
            known = self._open.get((part.source, part.target))
            if known is None or known.asked.first != after:
                flow = Flow(part.source, part.target, Stream(after))
                self.flows.append(flow)
                self._open[part.source, part.target] = flow
        elif flow_asked := self._open.get((part.source, part.target)):
            flow_asked.asked.add(after, part.payload)
        elif flow_answered := self._open.get((part.target, part.source)):
            if flow_answered.answered is None and part.flags & SYN:
                flow_answered.answered = Stream(after)
            if flow_answered.answered is not None:  # else it is a refusal
                flow_answered.answered.add(after, part.payload)
        else:
            message = f"{part.source} and {part.target} had begun before"
            raise NotTlsError(message)


def segment(packet: bytes) -> Segment:
    """Read an IPv4 packet with TCP in it; what Ethernet fills it up with is left out."""
    size, inner = int.from_bytes(packet[2:4], "big"), (packet[0] & 15) * 4
    source, target = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    tcp = packet[inner : size or None]  # the kernel writes 0 where the size does not fit
    ports = int.from_bytes(tcp[0:2], "big"), int.from_bytes(tcp[2:4], "big")
    payload = tcp[(tcp[12] >> 4) * 4 :]
    return Segment((source, ports[0]), (target, ports[1]), int.from_bytes(tcp[4:8], "big"), tcp[13], payload)


def tls_records(data: bytes, who: str) -> list[Record]:
    """Return the records of a direction, which begins with ``who``'s hello or an alert; the last may be cut short.

    Raises NotTlsError.
    """
    found: list[Record] = []
    for record in _records(data):
        if not found and not _is_beginning(record, who):
            message = f"the {who} begins with {data[:32]!r}"
            raise NotTlsError(message)
        found.append(record)
    return found


def _records(data: bytes) -> Iterator[Record]:
    at = 0
    while at < len(data):
        header = data[at : at + HEADER_BYTES]
        size = int.from_bytes(header[3:5], "big")
        if header[0] not in KINDS or header[1:2] not in {b"", b"\x03"} or size > MOST_RECORD_BYTES:
            message = f"at byte {at} of {len(data)} is no TLS: {data[at : at + 32]!r}"
            raise NotTlsError(message)
        yield Record(header[0], data[at + HEADER_BYTES : at + HEADER_BYTES + size])
        at += HEADER_BYTES + size


def _is_beginning(record: Record, who: str) -> bool:
    if record.kind == HANDSHAKE:
        return record.body[:1] in {b"", bytes([HELLOS[who]])}
    return record.kind == ALERT and who == "server"


def check_tls_only(flows: Iterable[Flow], secrets: Iterable[bytes]) -> int:
    """Return the bytes of data in TLS. Raises NotTlsError where anything else passes, or one of the secrets."""
    secrets = tuple(secrets)
    count = 0
    for flow in flows:
        for who, stream in flow.streams.items():
            if not stream.is_whole:
                message = f"{flow.client} to {flow.server}: bytes of the {who} are missing"
                raise NotTlsError(message)
            data = bytes(stream.data)
            count += sum(len(one.body) for one in tls_records(data, who) if one.kind == APPLICATION_DATA)
            if seen := [secret for secret in secrets if secret in data]:
                message = f"{flow.client} to {flow.server}: the {who} says {seen} in the clear"
                raise NotTlsError(message)
    return count
