"""Those who reach a TLS port and do not do as they should: ended soon, counted under their reason, in nobody's way."""

from __future__ import annotations

import random
import ssl
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.peers import PlainNode, Talk, connect
from tests.scenarios.tlspeers import HOST, Papers, TlsNode, TlsTalk, prepare_tls, secure
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

TLS_PORT, NODE_PORT, CLEAR_PORT = range(FIRST_PORT, FIRST_PORT + 3)
ANSWER = b"-ERR this port speaks TLS: connect with TLS\r\n"
MOST_OF_A_CLIENT = 205
FLOOD = MOST_OF_A_CLIENT + 50
FRIEND, FLOODER, CROWD = "127.0.0.2", "127.0.0.3", "127.0.3.{}"


@pytest.fixture(scope="module")
def mute() -> Iterator[PlainNode]:
    """A node that takes connections and says nothing."""
    with PlainNode() as node:
        yield node


@pytest.fixture(scope="module")
def home(module_natproxy: Natproxies, echo: str, mute: PlainNode) -> tuple[Daemon, Papers]:
    daemon, papers = prepare_tls(module_natproxy, timeouts={"handshake": "700ms"})
    daemon.config["static"] = [
        {"name": "tls", "port": TLS_PORT, "target": echo},
        {
            "name": "mute",
            "port": NODE_PORT,
            "target": mute.target,
            "clients": {"tls": "off"},
            "nodes": papers.tls_node(),
        },
        {"name": "clear", "port": CLEAR_PORT, "target": echo, "clients": {"tls": "off"}},
    ]
    return daemon.start(), papers


@pytest.fixture
def daemon(home: tuple[Daemon, Papers]) -> Daemon:
    return home[0]


def context_of(home: tuple[Daemon, Papers]) -> ssl.SSLContext:
    return home[1].client(home[1].dev)


def failed(daemon: Daemon, reason: str, side: str = "client") -> float:
    return daemon.metric("natproxy_handshakes_total", side=side, result="failed", reason=reason)


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_clients_that_say_too_little_end_at_the_deadline(daemon: Daemon) -> None:
    before, since = failed(daemon, "timeout"), len(daemon.log)
    talks = [connect(daemon.ip, TLS_PORT) for _ in range(3)]
    for talk, said in zip(talks, (b"", b"\x16\x03", client_hello()[:100]), strict=True):
        talk.say(said)
    for talk in talks:
        assert talk.ended() in ("eof", "reset")
        line = daemon.wait_for_log("connection ended", since=since, **talk.logged_as)
        assert (line["outcome"], line["detail"].partition(":")[0]) == ("client-handshake", "timeout")
    eventually(lambda: failed(daemon, "timeout") == before + len(talks), "they are counted")


def test_a_client_that_goes_away_is_counted_as_that(daemon: Daemon) -> None:
    before = failed(daemon, "closed")
    for said in (b"", client_hello()):
        for leave in (Talk.close, Talk.finish, Talk.reset):
            talk = connect(daemon.ip, TLS_PORT)
            talk.say(said)
            if said:
                talk.sock.recv(1)
            leave(talk)
            talk.close()
    eventually(lambda: failed(daemon, "closed") == before + 6, "all are counted")


def test_a_node_that_says_nothing_is_given_up_at_the_deadline_and_its_client_told(
    daemon: Daemon, mute: PlainNode
) -> None:
    with connect(daemon.ip, NODE_PORT) as talk, mute.accept() as peer:
        talk.say(b"hello")
        assert talk.ended() in ("eof", "reset")
        assert peer.ended() in ("eof", "reset")
    line = daemon.wait_for_log("connection ended", port=NODE_PORT, outcome="node-handshake")
    assert line["detail"].startswith("timeout")
    eventually(lambda: failed(daemon, "timeout", "node") == 1, "it is counted")


def test_a_node_that_speaks_no_tls_is_given_up_at_once(daemon: Daemon, mute: PlainNode) -> None:
    since = len(daemon.log)
    with connect(daemon.ip, NODE_PORT) as talk, mute.accept() as peer:
        peer.say(b"-ERR Protocol error: unbalanced quotes in request\r\n")
        assert talk.ended() in ("eof", "reset")
    line = daemon.wait_for_log("connection ended", since=since, port=NODE_PORT, outcome="node-handshake")
    assert "timeout" not in line["detail"]
    assert "_ssl.c" not in line["detail"]


CLEAR_TEXT = {
    "inline": b"PING\r\n",
    "RESP": b"*1\r\n$4\r\nPING\r\n",
    "memcached": b"get a\r\n",
    "HTTP": b"GET / HTTP/1.1\r\nHost: cache\r\n\r\n",
    "PROXY": b"PROXY TCP4 198.51.100.27 203.0.113.73 50000 6379\r\n",
    "much": b"*1\r\n$" + b"4" * 20_000,
}
NO_TEXT = {
    "memcached's binary protocol": (b"\x80\x0b" + bytes(22), "clear-text"),
    "zeros": (bytes(64), "garbage"),
    "ones": (b"\xff" * 300, "garbage"),
    "a broken hello": (b"\x16\x03\x01" + b"\xff" * 600, "protocol"),
    "an alert": (b"\x15\x03\x01\x00\x02\x02\x28", "garbage"),
}


def answer_to(daemon: Daemon, said: bytes, reason: str) -> bytes:
    """Return what a client hears that says this; the log gives the reason."""
    since = len(daemon.log)
    with connect(daemon.ip, TLS_PORT) as talk:
        talk.say(said)
        heard = talk.hear_all_or_reset()
    line = daemon.wait_for_log("connection ended", since=since, **talk.logged_as)
    assert line["outcome"] == "client-handshake"
    assert line["detail"].startswith(f"{reason}: "), line
    return heard


def test_clear_text_gets_one_line_that_says_what_to_do(daemon: Daemon) -> None:
    before = failed(daemon, "clear-text")
    for what, said in CLEAR_TEXT.items():
        assert answer_to(daemon, said, "clear-text") == ANSWER, what
    eventually(lambda: failed(daemon, "clear-text") == before + len(CLEAR_TEXT), "all are counted")


def test_what_is_neither_tls_nor_text_is_closed_and_counted(daemon: Daemon) -> None:
    before = Counter({reason: int(failed(daemon, reason)) for _, reason in NO_TEXT.values()})
    for what, (said, reason) in NO_TEXT.items():
        answer = answer_to(daemon, said, reason)
        assert reason == "clear-text" or b"ERR" not in answer, what
    expected = before + Counter(reason for _, reason in NO_TEXT.values())
    eventually(lambda: {reason: failed(daemon, reason) for reason in expected} == expected, "all are counted")


def test_a_flood_of_silent_clients_takes_nothing_from_the_others(home: tuple[Daemon, Papers]) -> None:
    daemon, _ = home
    limits, timeouts = failed(daemon, "limit"), failed(daemon, "timeout")
    with secure(daemon.ip, TLS_PORT, context_of(home), source=FRIEND) as friend:
        assert friend.echoes()
        flood = [connect(daemon.ip, TLS_PORT, source=FLOODER) for _ in range(FLOOD)]
        assert friend.echoes()
        with secure(daemon.ip, TLS_PORT, context_of(home), source=FRIEND) as other:
            assert other.echoes(), "there is room for others"
        assert {talk.ended() for talk in flood} <= {"eof", "reset"}
        assert friend.echoes()
    too_many = FLOOD - MOST_OF_A_CLIENT
    eventually(lambda: failed(daemon, "limit") - limits >= 1, "those beyond the limit are counted")
    eventually(
        lambda: (failed(daemon, "limit") - limits) + (failed(daemon, "timeout") - timeouts) == FLOOD,
        "so are all others",
    )
    assert failed(daemon, "limit") - limits <= too_many
    assert daemon.metric("natproxy_connections_ended_total", outcome="handshake-limit") == failed(daemon, "limit")


def test_a_flood_from_everywhere_is_bounded_too_and_the_relay_goes_on(home: tuple[Daemon, Papers]) -> None:
    daemon, _ = home
    hello = client_hello()
    with secure(daemon.ip, TLS_PORT, context_of(home), source=FRIEND) as friend:
        crowd = []
        for number in range(1100):
            talk = connect(daemon.ip, TLS_PORT, source=CROWD.format(number % 250 + 1))
            crowd.append(talk)
            if number % 2:
                talk.say(hello)
            if number % 50 == 0:
                assert friend.echoes()
        assert friend.echoes(random.Random(1).randbytes(1 << 20))
        for talk in crowd:
            talk.close()
        assert friend.echoes()
        daemon.wait_for_metric(1, "natproxy_connections_open")
    with secure(daemon.ip, TLS_PORT, context_of(home)) as other:
        assert other.echoes()
    daemon.wait_for_metric(0, "natproxy_connections_open")


def test_a_handshake_in_the_clear_after_the_handshake_ends_the_connection(home: tuple[Daemon, Papers]) -> None:
    daemon, papers = home
    since = len(daemon.log)
    with secure(daemon.ip, TLS_PORT, papers.client(papers.dev, version="TLSv1.2")) as talk:
        assert talk.echoes()
        talk.sock.sendall(b"\x16\x03\x03" + struct.pack(">H", 100) + bytes(100))
        assert talk.ended() != "eof"
    daemon.wait_for_log("connection ended", since=since, port=TLS_PORT, outcome="client-tls-error")


def test_renegotiation_is_refused(home: tuple[Daemon, Papers]) -> None:
    daemon, papers = home
    certificate, key = papers.write(papers.dev)
    argv = ["openssl", "s_client", "-connect", f"{daemon.ip}:{TLS_PORT}", "-tls1_2"]
    argv += ["-cert", str(certificate), "-key", str(key)]
    done = subprocess.run(argv, input=b"R\n", capture_output=True, timeout=30, check=False)  # R: renegotiate
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in done.stderr


def test_tls_on_a_clear_cache_port_is_recognised_and_said(natproxy: Natproxies, echo_cloud: Cloud, echo: str) -> None:
    echo_cloud.standalone("alone")
    echo_cloud.memcached("mc", nodes=1)
    daemon = natproxy(echo_cloud, caches=[{"id": "alone"}, {"id": "mc"}])
    for name in ("alone/0001", "mc/0001"):
        port = daemon.wait_for_route(name)
        plain = connect(daemon.ip, port)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            TlsTalk(plain.sock, ssl.create_default_context(), name=HOST)
        line = daemon.wait_for_log("connection ended", port=port)
        assert line["outcome"] == "tls-on-clear-port"
        with connect(daemon.ip, port) as talk:
            assert talk.echoes()
    daemon.wait_for_metric(2, "natproxy_connections_ended_total", outcome="tls-on-clear-port")


@pytest.mark.parametrize("first", [b"\x16", b"\x16\x03", b"\x16\x03\x09\x00"], ids=["one", "two", "no version"])
def test_what_only_begins_like_tls_passes_on_a_clear_cache_port(module_echo: tuple[Daemon, int], first: bytes) -> None:
    daemon, port = module_echo
    with connect(daemon.ip, port) as talk:
        talk.say(first)
        talk.finish()
        assert talk.hear_all() == first


@pytest.fixture(scope="module")
def module_echo(module_natproxy: Natproxies) -> Iterator[tuple[Daemon, int]]:
    with Cloud(backing="echo") as cloud:
        cloud.standalone("alone")
        daemon = module_natproxy(cloud, caches=[{"id": "alone"}])
        yield daemon, daemon.wait_for_route("alone/0001")


def test_tls_on_a_clear_static_port_passes_untouched(home: tuple[Daemon, Papers], daemon: Daemon) -> None:
    hello = client_hello()
    with connect(daemon.ip, CLEAR_PORT) as talk:
        talk.say(hello)
        assert talk.hear(len(hello)) == hello


def test_clients_and_a_node_of_different_versions_meet(natproxy: Natproxies) -> None:
    daemon, papers = prepare_tls(natproxy)
    with TlsNode(papers.node_side(version="TLSv1.2")) as node:
        daemon.config["static"] = [{"name": "a", "port": TLS_PORT, "target": node.target, "nodes": papers.tls_node()}]
        daemon.start()
        with secure(daemon.ip, TLS_PORT, papers.client(papers.dev, version="TLSv1.3")) as talk, node.accept() as peer:
            talk.say(b"hello")
            assert peer.hear(5) == b"hello"
            versions: tuple[Any, Any] = talk.tls.version(), peer.tls.version()
        assert versions == ("TLSv1.3", "TLSv1.2")
        line = daemon.wait_for_log("connection ended", port=TLS_PORT)
        assert (line["client_tls"], line["node_tls"]) == versions
