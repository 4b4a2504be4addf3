"""Bytes through the real process: limits hold, and the log keeps clean. That bytes arrive is proved in test_proof_*."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import ADMIN_PORT, FIRST_PORT, Daemon
from tests.scenarios.peers import PlainNode, connect
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

PORT, LIMITED_PORT, CLIENT_LIMITED_PORT = range(FIRST_PORT, FIRST_PORT + 3)
MEBIBYTE = 1 << 20


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
            static(LIMITED_PORT, clients={"max_connections": 3}),
            static(CLIENT_LIMITED_PORT, clients={"max_connections_per_client": 2}),
        ]
    )


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


def test_out_of_descriptors_it_turns_new_ones_away_keeps_the_others_and_recovers(
    natproxy: Natproxies, cloud: Cloud
) -> None:
    cloud.standalone("alone")
    daemon = natproxy.prepare(cloud, caches=[{"id": "alone"}], clients={"max_connections_per_client": 4096})
    daemon.prefix = ("prlimit", "--nofile=160:160")
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
