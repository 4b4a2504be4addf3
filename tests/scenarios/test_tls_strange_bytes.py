"""Thousands of random and mutated first bytes on every kind of port, after which others are still served."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import Talk, connect
from tests.scenarios.tlspeers import HOST, VERSIONS, Papers, prepare_tls, secure
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

KINDS = ("terminate", "clear cache", "clear static", "passthrough", "to a TLS node")
EXAMPLES = 700
"""For each kind of port."""
MOST_GROWTH_BYTES = 24 << 20


def hello(version: ssl.TLSVersion, name: str) -> bytes:
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


HELLOS = [hello(version, name) for version in VERSIONS.values() for name in (HOST, "x" * 60 + ".example")]
SEEDS = [
    *HELLOS,
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"PING\r\n",
    b"set a 0 0 1\r\nb\r\n",
    b"\x80\x00\x00\x01" + bytes(20),
    b"GET / HTTP/1.1\r\n\r\n",
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One of the seeds with bytes changed, dropped, doubled, put in, or cut off."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("change", "drop", "double", "put", "cut"))):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "drop":
                del data[at : at + draw(st.integers(1, 8))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "put":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case _:
                del data[at:]
    return bytes(data)


record = st.builds(
    lambda kind, version, length, body: bytes([kind, 3, version]) + length.to_bytes(2, "big") + body,
    st.integers(20, 24),
    st.integers(0, 5),
    st.integers(0, 65535),
    st.binary(max_size=200),
)
first_bytes = st.one_of(st.binary(max_size=400), mutated(), st.lists(record, min_size=1, max_size=3).map(b"".join))


@dataclass(frozen=True)
class House:
    """One daemon with a port of every kind; all nodes echo."""

    daemon: Daemon
    papers: Papers
    ports: dict[str, int]

    def serves(self, kind: str) -> bool:
        """Whether a client that does as it should is served there."""
        if kind == "to a TLS node":
            return True  # nobody speaks TLS there: every client ends, and that is all
        if kind == "terminate":
            with secure(self.daemon.ip, self.ports[kind], self.papers.client(self.papers.dev)) as talk:
                return talk.echoes()
        with connect(self.daemon.ip, self.ports[kind]) as talk:
            return talk.echoes()

    def descriptors(self) -> int:
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.daemon.workers())

    def has_none_open(self) -> bool:
        return self.daemon.metric("natproxy_connections_open") == 0


@pytest.fixture(scope="module")
def house(module_natproxy: Natproxies) -> Iterator[House]:
    with Cloud(backing="echo") as cloud:
        cloud.standalone("alone")
        daemon, papers = prepare_tls(
            module_natproxy, cloud, caches=[{"id": "alone", "clients": {"tls": "off"}}], timeouts={"handshake": "2s"}
        )
        target = "{}:{}".format(*cloud.where("alone"))
        ports = dict(
            zip(("terminate", "clear static", "passthrough", "to a TLS node"), range(25051, 25055), strict=True)
        )
        modes = {"terminate": "terminate", "passthrough": "passthrough"}
        daemon.config["static"] = [
            {
                "name": kind.replace(" ", "-"),
                "port": port,
                "target": target,
                "clients": {"tls": modes.get(kind, "off")},
                **({"nodes": papers.tls_node()} if kind == "to a TLS node" else {}),
            }
            for kind, port in ports.items()
        ]
        daemon.start()
        ports["clear cache"] = daemon.wait_for_route("alone/0001")
        yield House(daemon, papers, ports)


def throw(talk: Talk, data: bytes) -> None:
    """Send it, say that this was all, and hear what there is to hear."""
    with talk, contextlib.suppress(OSError):  # it may be over at any time
        talk.say(data)
        talk.finish()
        talk.hear_all()


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_comes_first_others_are_served_and_nothing_is_left_over(house: House, kind: str) -> None:
    assert house.serves(kind)
    for seed in SEEDS:
        throw(connect(house.daemon.ip, house.ports[kind]), seed)
    eventually(house.has_none_open, "all is quiet")
    descriptors, memory = house.descriptors(), house.daemon.resident_bytes()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @example(b"")
    @example(b"\x16")
    @example(b"\x16\x03\x01\xff\xff")
    @example(b"\x16\x03\x01\x00\x00" * 500)
    @example(HELLOS[0] * 3)
    @example(HELLOS[0][:-1])
    @given(first_bytes)
    def throw_any(data: bytes) -> None:
        throw(connect(house.daemon.ip, house.ports[kind]), data)

    throw_any()
    assert house.serves(kind)
    eventually(house.has_none_open, "all is quiet again")
    eventually(lambda: house.descriptors() <= descriptors, "the descriptors are back")
    assert house.daemon.resident_bytes() - memory < MOST_GROWTH_BYTES
    assert house.daemon.metric("natproxy_handshakes_total", reason="internal") == 0
    assert house.daemon.metric("natproxy_connections_ended_total", outcome="internal") == 0
    assert house.daemon.metric("natproxy_worker_restarts_total") == 0
