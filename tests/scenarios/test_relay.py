"""Bytes through the real process: every one arrives, ends are passed on as they are, and limits hold."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import ADMIN_PORT, FIRST_PORT, Daemon
from tests.scenarios.peers import PlainNode, Talk, connect
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

PORT, SLOW_PORT, LIMITED_PORT, CLIENT_LIMITED_PORT = range(FIRST_PORT, FIRST_PORT + 4)
MEBIBYTE = 1 << 20
IDLE_CONNECTIONS = 2000


@pytest.fixture(scope="module")
def node() -> Iterator[PlainNode]:
    with PlainNode() as made:
        yield made


@pytest.fixture(scope="module")
def daemon(module_natproxy: Natproxies, node: PlainNode) -> Daemon:
    def static(port: int, **more: Any) -> dict[str, Any]:
        return {"name": f"static-{port}", "port": port, "target": node.target, **more}

    return module_natproxy(
        static=[
            static(PORT),
            static(SLOW_PORT),
            static(LIMITED_PORT, clients={"max_connections": 3}),
            static(CLIENT_LIMITED_PORT, clients={"max_connections_per_client": 2}),
        ]
    )


@pytest.fixture
def link(daemon: Daemon, node: PlainNode) -> tuple[Talk, Talk]:
    """A connection's two ends: the client's and the node's."""
    client = connect(daemon.ip, PORT)
    return client, node.accept()


@pytest.mark.parametrize("first", ["client", "node"])
def test_who_has_sent_its_last_byte_still_hears_all_that_the_other_says(link: tuple[Talk, Talk], first: str) -> None:
    finished, other = link if first == "client" else reversed(link)
    question, answer = random.Random(1).randbytes(3 * MEBIBYTE), random.Random(2).randbytes(5 * MEBIBYTE)
    asking = threading.Thread(target=finished.say_last, args=(question,))
    asking.start()
    assert other.hear_all() == question, "all bytes, then EOF"
    asking.join()
    answering = threading.Thread(target=other.say_last, args=(answer,))
    answering.start()
    assert finished.hear_all() == answer
    answering.join()


@pytest.mark.parametrize("who", ["client", "node"])
def test_a_reset_is_passed_on_as_a_reset(daemon: Daemon, link: tuple[Talk, Talk], who: str) -> None:
    since = len(daemon.log)
    one, other = link if who == "client" else reversed(link)
    one.say(b"half an ans")
    assert other.hear(11) == b"half an ans"
    one.reset()
    assert other.ended() == "reset"
    daemon.wait_for_log("connection ended", since=since, outcome=f"{who}-reset")


@pytest.mark.parametrize("who", ["client", "node"])
def test_one_that_does_not_read_costs_little_memory_and_in_the_end_gets_every_byte(
    daemon: Daemon, node: PlainNode, who: str
) -> None:
    client = connect(daemon.ip, SLOW_PORT)
    reader, writer = (client, node.accept()) if who == "client" else (node.accept(), client)
    before = daemon.resident_bytes()
    data = random.Random(3).randbytes(64 * MEBIBYTE)
    sent = 0
    writer.sock.setblocking(False)

    def is_stuck() -> bool:
        nonlocal sent
        start = sent
        try:
            while sent < len(data):
                sent += writer.sock.send(data[sent : sent + MEBIBYTE])
        except BlockingIOError:
            pass
        return sent == start

    # What the kernel holds grows a while; then nothing goes any more, whenever it is tried.
    eventually(lambda: all(is_stuck() for _ in range(3)), "the writer has to wait")
    assert sent < len(data) / 2
    assert daemon.resident_bytes() - before < 8 * MEBIBYTE
    writer.sock.setblocking(True)
    writing = threading.Thread(target=writer.say_last, args=(data[sent:],))
    writing.start()
    assert hashlib.sha256(reader.hear_all()).digest() == hashlib.sha256(data).digest()
    writing.join()
    assert daemon.resident_bytes() - before < 8 * MEBIBYTE


def test_of_too_many_connections_the_new_ones_are_closed_at_once_and_counted(daemon: Daemon, node: PlainNode) -> None:
    links = [(connect(daemon.ip, LIMITED_PORT), node.accept()) for _ in range(3)]
    with connect(daemon.ip, LIMITED_PORT) as excess:
        assert excess.ended() in ("eof", "reset")
    daemon.wait_for_metric(1, "natproxy_connections_ended_total", port=str(LIMITED_PORT), outcome="limit")
    client, peer = links.pop()
    client.say(b"we who are in stay in")
    assert peer.hear(21) == b"we who are in stay in"
    client.close()
    assert peer.ended() == "eof"
    peer.close()
    daemon.wait_for_metric(2, "natproxy_connections_open", port=str(LIMITED_PORT))
    with connect(daemon.ip, LIMITED_PORT) as again, node.accept() as peer:
        again.say(b"there is room")
        assert peer.hear(13) == b"there is room"


def test_one_client_address_with_too_many_connections_takes_no_room_from_the_others(
    daemon: Daemon, node: PlainNode
) -> None:
    for source in ("127.0.0.2", "127.0.0.3"):
        for _ in range(2):
            connect(daemon.ip, CLIENT_LIMITED_PORT, source=source)
            node.accept()
        with connect(daemon.ip, CLIENT_LIMITED_PORT, source=source) as excess:
            assert excess.ended() in ("eof", "reset")
    port = str(CLIENT_LIMITED_PORT)
    daemon.wait_for_metric(2, "natproxy_connections_ended_total", port=port, outcome="client-limit")
    daemon.wait_for_metric(4, "natproxy_connections_open", port=port)


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_that_a_client_sends_gets_into_the_log(natproxy: Natproxies, node: PlainNode, form: str) -> None:
    evil = b'\r\n{"event":"forged","level":"error"}\r\n2026-01-01T00:00:00.000Z error forged \x1b[2J\x00\xff\n'
    daemon = natproxy.prepare(
        static=[{"name": "a", "port": PORT, "target": node.target}], log={"format": form, "level": "debug"}
    ).start()
    with connect(daemon.ip, PORT) as client, node.accept() as peer:
        client.say(evil)
        assert peer.hear(len(evil)) == evil
        client.finish()
        peer.say(evil)
        peer.finish()
        assert client.hear_all() == evil
        where = client.sock.getsockname()
    with connect(daemon.ip, ADMIN_PORT) as visitor:
        visitor.say(b"GET /forged\x1b[2J HTTP/1.1\r\nHost: localhost\r\nX-Forged: forged\r\n\r\n" + evil)
        assert visitor.hear_all().startswith(b"HTTP/1.")
    daemon.wait_for_metric(1, "natproxy_connections_ended_total", outcome="client-closed")
    assert daemon.stop() == 0
    text = "".join(daemon.strange_lines) if form == "text" else json.dumps(daemon.log.all())
    daemon.strange_lines.clear()
    assert "forged" not in text
    assert "\x1b" not in text
    assert f"{where[0]}:{where[1]}" in text, "the client's address is"


def test_two_thousand_idle_connections_all_stay_alive_and_are_all_counted(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.replication_group("my-redis", replicas=0)
    limits = {"max_connections": 5000, "max_connections_per_client": 5000}
    daemon = natproxy(cloud, caches=[{"id": "my-redis"}], clients=limits)
    port = daemon.wait_for_route("my-redis-001/0001")
    before = daemon.resident_bytes()
    talks = [connect(daemon.ip, port) for _ in range(IDLE_CONNECTIONS)]
    assert all(talk.ping() for talk in talks)
    daemon.wait_for_metric(IDLE_CONNECTIONS, "natproxy_connections_open", node="my-redis-001/0001")
    grown = daemon.resident_bytes() - before
    assert grown < IDLE_CONNECTIONS * 16 * 1024, f"{grown / IDLE_CONNECTIONS / 1024:.1f} KiB for each"
    assert daemon.routes()["my-redis-001/0001"].connections == IDLE_CONNECTIONS
    assert all(talk.ping() for talk in talks)
    for talk in talks:
        talk.close()
    daemon.wait_for_metric(0, "natproxy_connections_open")
    daemon.wait_for_metric(IDLE_CONNECTIONS, "natproxy_connections_ended_total", outcome="client-closed")
    daemon.wait_for_metric(IDLE_CONNECTIONS * 2 * len("PING\r\n"), "natproxy_client_bytes_total", kind="node")


def test_out_of_descriptors_it_turns_new_ones_away_keeps_the_others_and_recovers(
    natproxy: Natproxies, cloud: Cloud
) -> None:
    cloud.standalone("alone")
    daemon = natproxy.prepare(cloud, caches=[{"id": "alone"}], clients={"max_connections_per_client": 4096})
    daemon.prefix = ("prlimit", "--nofile=128:128")
    daemon.start()
    port = daemon.wait_for_route("alone/0001")
    talks = [connect(daemon.ip, port) for _ in range(120)]
    served = [talk for talk in talks if talk.ping()]
    assert 30 < len(served) < 64, "two descriptors for each"
    turned_away = len(talks) - len(served)
    daemon.wait_for_metric(turned_away, "natproxy_connections_ended_total", outcome="no-descriptors")
    assert all(talk.ping() for talk in served)
    assert daemon.get("/healthz")[0] == 200
    daemon.reload()
    for talk in talks:
        talk.close()
    daemon.wait_for_metric(0, "natproxy_connections_open")
    with connect(daemon.ip, port) as talk:
        assert talk.ping()


def test_a_cache_that_requires_tls_says_what_to_do_and_with_passthrough_every_byte_passes(
    echo_cloud: Cloud, natproxy: Natproxies
) -> None:
    echo_cloud.replication_group("my-redis", replicas=0, tls="required")
    daemon = natproxy.prepare(echo_cloud, caches=[{"id": "my-redis", "nodes": {"tls": "off"}}]).start()

    eventually(daemon.routes, "AWS has answered")
    assert "clients: {tls: passthrough}" in str(daemon.routes()["my-redis-001/0001"].reason)
    assert {route.state for route in daemon.routes().values()} == {"error"}
    daemon.config["caches"][0]["clients"] = {"tls": "passthrough"}
    daemon.reload()
    port = daemon.wait_for_route("my-redis-001/0001")
    assert daemon.routes()["my-redis-001/0001"].tls == "passthrough"
    data = random.Random(4).randbytes(MEBIBYTE)
    with connect(daemon.ip, port) as talk:
        saying = threading.Thread(target=talk.say, args=(data,))
        saying.start()
        assert talk.hear(len(data)) == data
        saying.join()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_clients_speak_tls_with_the_node_itself_through_passthrough(
    natproxy: Natproxies, node: PlainNode, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "node.crt", tmp_path / "node.key"
    name = "my-redis-001.my-redis.x7f3k.use1.cache.amazonaws.com"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=node", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    daemon = natproxy(
        static=[{"name": "tls", "port": PORT, "target": node.target}],
        clients={"tls": "passthrough", "allow": ["127.0.0.0/8"]},
    )
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    client_side = ssl.create_default_context(cafile=str(certificate))
    client = connect(daemon.ip, PORT)
    peer = node.accept()
    heard: list[bytes] = []

    def serve() -> None:
        with server_side.wrap_socket(peer.sock, server_side=True) as secured:
            heard.append(secured.recv(64))
            secured.sendall(b"+OK\r\n")

    serving = threading.Thread(target=serve)
    serving.start()
    with client_side.wrap_socket(client.sock, server_hostname=name) as secured:
        secured.sendall(b"SET a b\r\n")
        assert secured.recv(64) == b"+OK\r\n"
    serving.join()
    assert heard == [b"SET a b\r\n"]


def test_a_pipeline_of_ten_thousand_commands_is_answered_in_order(cloud: Cloud, natproxy: Natproxies) -> None:
    cloud.standalone("alone")
    daemon = natproxy(cloud, caches=[{"id": "alone"}])
    values = [random.Random(number).randbytes(number % 300) for number in range(5_000)]
    with redis.Redis(daemon.ip, daemon.wait_for_route("alone/0001"), socket_timeout=20) as client:
        pipeline = client.pipeline(transaction=False)
        for number, value in enumerate(values):
            pipeline.set(f"key-{number}", value)
            pipeline.get(f"key-{number}")
        answers = pipeline.execute()
    assert answers[0::2] == [True] * len(values)
    assert answers[1::2] == values
