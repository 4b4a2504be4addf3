"""Tries natproxy's ports as a client does. I/O: DNS, TCP and TLS, by blocking sockets, on any platform."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from natproxy.doctor.certificates import Shown, read_certificate
from natproxy.doctor.handed import Papers, Port
from natproxy.doctor.outcomes import Outcome, outcome_of
from natproxy.doctor.speech import Answer, Said, TlsTalk, ask_clear, look_at_certificate, talk_tls
from natproxy.model import Address, HandshakeFailure

AT_ONCE = 32
MOST_ADDRESSES = 4
LONGER_SECONDS = 2.0
"""An answer may take so much longer than a connection: natproxy dials a silent node for 3 s before it gives up."""
SPEAKS_CLEAR = frozenset((Said.REDIS, Said.MEMCACHED, Said.OTHER))
_NO_CERTIFICATE_SEEN = frozenset((HandshakeFailure.CLEAR_TEXT, HandshakeFailure.TIMEOUT, HandshakeFailure.CLOSED))


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one port of one address."""

    address: Address
    port: Port
    outcome: Outcome
    detail: str = ""
    clear: Answer | None = None
    """To a PING in the clear; None where no connection came about."""
    tls: TlsTalk | None = None
    """None where the port speaks in the clear."""
    shown: Shown | None = None
    """natproxy's certificate (or the node's, where TLS passes through), verified or not."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the host's name resolves here, and from where packets to it would leave."""

    addresses: tuple[str, ...] = ()
    reason: str = ""
    """Why there are none."""
    sources: tuple[tuple[str, str], ...] = ()
    """(address, the own address that packets to it leave from), for those that there is a route to."""


def find_way(host: str) -> Way:
    """Resolve the host as this system does, and look where the routes to it begin. Nothing is sent."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Way(reason=getattr(error, "strerror", None) or str(error))
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:MOST_ADDRESSES]
    sources = ((address, _source(address)) for address in addresses)
    return Way(addresses, sources=tuple((address, source) for address, source in sources if source is not None))


def try_all(
    addresses: Iterable[str], ports: Iterable[Port], papers: Papers, server_name: str, seconds: float
) -> list[Tried]:
    """Try every port of every address, several at a time. Raises DoctorError where the papers cannot be used."""
    papers.context()
    places = [(Address(ip, port.number), port) for ip in addresses for port in ports]

    def one(place: tuple[Address, Port]) -> Tried:
        return try_port(*place, papers, server_name, seconds)

    with ThreadPoolExecutor(AT_ONCE, "doctor") as pool:
        return list(pool.map(one, places))


def try_port(address: Address, port: Port, papers: Papers, server_name: str, seconds: float) -> Tried:
    """Ask in the clear first: it tells at once whether TLS is wanted; natproxy says so in a line of text."""
    try:
        clear = ask_clear(address, seconds, seconds + LONGER_SECONDS)
    except OSError as error:
        outcome = outcome_of(error)
        detail = f"no answer within {seconds:g} s" if outcome == "timeout" else error.strerror or str(error)
        return Tried(address, port, outcome, detail)
    if clear.said in SPEAKS_CLEAR:
        return Tried(address, port, "open", clear=clear)
    talk = _talk(lambda: talk_tls(address, papers.context(), server_name, seconds))
    der = talk.certificate
    if der is None and talk.failure not in _NO_CERTIFICATE_SEEN:
        der = look_at_certificate(address, papers.context(), server_name, seconds)
    shown = None if der is None else read_certificate(der)
    return Tried(address, port, "open", clear=clear, tls=talk, shown=shown)


def _talk(talk: Callable[[], TlsTalk]) -> TlsTalk:
    try:
        return talk()
    except OSError as error:  # it took a connection a moment ago
        return TlsTalk(HandshakeFailure.CLOSED, error.strerror or str(error))


def _source(address: str) -> str | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))  # of a datagram socket this asks the routes, and sends nothing
            return str(sock.getsockname()[0])
    except OSError:
        return None
