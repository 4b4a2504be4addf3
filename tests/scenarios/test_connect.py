"""``natproxy connect``: plain clients on localhost, mutual TLS to the real daemon; what is wrong is said."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pymemcache.client.base import Client as Memcached
from redis.cluster import RedisCluster

from tests.connect.bundles import bundle_of
from tests.scenarios.conftest import Natproxies
from tests.scenarios.connected import Connected
from tests.scenarios.rewriting import Front, private_words, start_front
from tests.scenarios.test_rewrite_memcached import list_at
from tests.scenarios.tlspeers import HOST
from tests.scenarios.waiting import eventually
from tests.standins.certificates import Authority, Issued
from tests.standins.cloud import Cloud
from tests.standins.echo import EchoNodes

PORTAL_PORT = 26378
STATIC_PORT = 25490


def bundle(front: Front, issued: Issued | None = None, name: str = "dev1") -> Path:
    """Write what the developer was handed."""
    assert front.papers is not None
    path = front.papers.directory / f"{name}.zip"
    return bundle_of(path, front.papers.servers, issued or front.papers.dev, port=PORTAL_PORT)


@contextlib.contextmanager
def connected(front: Front, *words: str, path: Path | None = None) -> Iterator[Connected]:
    with Connected(front.ip, path or bundle(front), *words) as run:
        yield run
        if run.process.poll() is None:
            assert run.stop() == 0
        assert run.strange_lines == []


def prepare(natproxy: Natproxies, cloud: Cloud, *caches: str, **config: object) -> Front:
    """Start a daemon with a portal."""
    ids = [{"id": cache} for cache in caches]
    return start_front(natproxy, cloud, "tls", caches=ids, portal={"port": PORTAL_PORT}, public_host=HOST, **config)


def redis_cli(*words: str) -> str:
    return subprocess.run(["redis-cli", *words], capture_output=True, text=True, timeout=30, check=False).stdout


def answers(client: redis.Redis) -> bool:
    """Whether it still gets through, over its old connection or a new one."""
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def in_use(port: int) -> socket.socket:
    """Listen on a local port, as a Redis of the developer's own may."""
    return socket.create_server(("127.0.0.1", port))


def test_plain_clients_of_every_sort_reach_a_cluster_on_localhost_where_a_port_is_taken(
    natproxy: Natproxies, cloud: Cloud
) -> None:
    cloud.replication_group("clu", mode="cluster-enabled", shards=2, replicas=1)
    cloud.memcached("mc", nodes=2)
    front = prepare(natproxy, cloud, "clu", "mc")
    taken = front.node_port("clu-0001-001")
    with in_use(taken), connected(front) as run:
        serving = run.wait_for("serving")
        assert "as dev1" in serving.message
        local = run.port("clu-0001-001/0001")
        assert local != taken
        assert f"{taken} is taken here" in (run.routes()["clu-0001-001/0001"].note or "")
        slots = redis_cli("-p", str(local), "CLUSTER", "SLOTS")
        assert "127.0.0.1" in slots
        assert not [word for word in private_words(cloud) if word.decode() in slots]
        with RedisCluster(host="127.0.0.1", port=run.port("clu:configuration")) as client:
            for number in range(50):
                client.set(f"key-{number}", number)
            assert [client.get(f"key-{number}") for number in range(50)] == [b"%d" % number for number in range(50)]
            ports = {node.port for node in client.get_nodes()}
        assert ports == {run.port(name) for name in run.routes() if name.startswith("clu-")}
        told = list_at("127.0.0.1", run.port("mc:configuration"))
        nodes = [run.port(f"mc/{number}") for number in ("0001", "0002")]
        assert told.nodes == [f"127.0.0.1|127.0.0.1|{port}" for port in nodes]
        assert told.version < 2**31
        with contextlib.closing(Memcached(("127.0.0.1", nodes[1]), timeout=10)) as memcached:
            memcached.set("greeting", b"hello")
            assert memcached.get("greeting") == b"hello"


def test_a_group_s_new_node_and_failover_are_followed_and_its_replies_name_local_ports(
    natproxy: Natproxies, cloud: Cloud
) -> None:
    cloud.replication_group("grp", replicas=1)
    cloud.replication_group("other")
    front = prepare(natproxy, cloud, "grp", "other")
    with connected(front, "--cache", "grp", "--port-offset", "1500") as run:
        assert {route.cache for route in run.routes().values()} == {"grp"}
        assert run.port("grp:primary") == front.port("grp:primary") + 1500
        with contextlib.closing(redis.Redis(port=run.port("grp:primary"), decode_responses=True)) as client:
            client.set("before", "1")
            cloud.add_replica("grp")
            cloud.settle()
            run.wait_for("opened", "grp-003/0001", seconds=40)
            added = run.port("grp-003/0001")
            with contextlib.closing(redis.Redis(port=added, decode_responses=True)) as replica:
                eventually(lambda: replica.get("before") == "1", "the new replica has it")
                info = replica.info("replication")
                assert (info["master_host"], info["master_port"]) == ("127.0.0.1", run.port("grp-001/0001"))
            cloud.failover("grp", to="grp-002")
            eventually(lambda: client.set("after", "2"), "writes go to the new primary", 40)
        run.wait_for("changed", "grp-002/0001", seconds=40)
        assert run.stop(signal.SIGINT) == 0


def test_a_revoked_certificate_is_named_and_a_new_bundle_is_taken_up(natproxy: Natproxies, cloud: Cloud) -> None:
    cloud.replication_group("grp", replicas=0)
    front = prepare(natproxy, cloud, "grp")
    papers = front.papers
    assert papers is not None
    path = bundle(front)
    with connected(front, path=path) as run:
        port = run.port("grp:primary")
        with contextlib.closing(redis.Redis(port=port)) as client:
            assert client.ping()
            papers.crl.write_bytes(papers.clients.crl([papers.dev]))
            front.daemon.reload()
            eventually(lambda: not answers(client), "it is cut off")
            run.wait_for("trouble", "the certificate of dev1 has been revoked: ask the operator for a new bundle")
            with Connected(front.ip, path) as late:
                assert late.process.wait(20) == 1
                late._thread.join(20)
                assert "has been revoked" in "".join(late.strange_lines)
            bundle(front, papers.clients.issue("dev1", usage="client"))  # in the same place
            run.wait_for("renewed", "dev1")
            run.wait_for("healed")
            assert eventually(lambda: answers(client), "it is let in again")


def test_a_daemon_that_restarts_is_waited_for(natproxy: Natproxies, cloud: Cloud) -> None:
    cloud.replication_group("grp", replicas=0)
    front = prepare(natproxy, cloud, "grp")
    with connected(front) as run:
        port = run.port("grp:primary")
        front.daemon.stop()

        def is_told() -> bool:
            with contextlib.closing(redis.Redis(port=port)) as client:
                assert not answers(client)
            return any("nobody listens on" in event.message for event in run.events.all())

        assert eventually(is_told, "it is told")
        assert [event.event for event in run.events.all()] == ["serving", "trouble"]
        front.daemon.start()
        run.wait_for("healed", "answers again")
        with contextlib.closing(redis.Redis(port=port)) as client:
            assert eventually(client.ping, "the cache answers")


def test_what_natproxy_does_not_encrypt_is_said_and_passthrough_is_the_client_s_own_tls(
    natproxy: Natproxies, cloud: Cloud
) -> None:
    nodes = EchoNodes()
    nodes.start()
    nodes.open("127.0.0.1", 0)
    echo = "{}:{}".format(*nodes.where()[0])
    anybody = ["127.0.0.0/8"]
    static = [
        {"name": "clear", "port": STATIC_PORT, "target": echo, "clients": {"tls": "off", "allow": anybody}},
        {
            "name": "through",
            "port": STATIC_PORT + 1,
            "target": echo,
            "clients": {"tls": "passthrough", "allow": anybody},
        },
        {"name": "hidden", "port": STATIC_PORT + 2, "target": echo, "clients": {"certificates": ["dev2"]}},
        {"name": "secure", "port": STATIC_PORT + 3, "target": echo},
    ]
    with contextlib.ExitStack() as stack:
        stack.callback(nodes.stop)
        front = prepare(natproxy, cloud, static=static)
        run = stack.enter_context(connected(front))
        routes = run.routes()
        assert {name: route.security for name, route in routes.items()} == {
            "clear": "off",
            "through": "passthrough",
            "secure": "tls",
        }
        assert routes["clear"].note == "NOT ENCRYPTED on the Internet"
        for name in routes:
            with socket.create_connection(("127.0.0.1", run.port(name)), timeout=10) as sock:
                sock.sendall(name.encode())
                assert sock.recv(100) == name.encode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_portal_does_not_answer_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    authority = Authority()
    path = bundle_of(tmp_path / "dev1.zip", authority, authority.issue("dev1", usage="client"))
    with socket.create_server(("127.0.0.1", 0)) as silent, Connected(_spot(silent), path) as run:
        with silent.accept()[0] as asked:
            asked.recv(1)  # its hello
            assert run.stop(number) == 0
        assert run.strange_lines == []


def _spot(listening: socket.socket) -> str:
    return "{}:{}".format(*listening.getsockname())
