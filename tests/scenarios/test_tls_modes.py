"""Every way to speak with clients, with every way to speak with nodes, through the programs that people use."""

from __future__ import annotations

import random
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import redis
from pymemcache.client.base import Client

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.peers import connect
from tests.scenarios.tlspeers import HOST, Papers, prepare_tls, secure
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud

Mode = Literal["off", "terminate", "terminate with client_ca", "passthrough"]
Engine = Literal["redis", "memcached"]
MODES: tuple[Mode, ...] = ("off", "terminate", "terminate with client_ca", "passthrough")
CACHES = ("clear-redis", "tls-redis", "clear-memcached", "tls-memcached")
CLEAR_PORTS = dict(zip(CACHES, range(FIRST_PORT + 50, FIRST_PORT + 54), strict=True))
UNTOUCHED_PORTS = dict(zip(CACHES, range(FIRST_PORT + 54, FIRST_PORT + 58), strict=True))

every_combination = pytest.mark.parametrize(
    ("mode", "node"), [(mode, node) for mode in MODES for node in ("clear", "tls")]
)
pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("redis-server", "redis-cli", "memcached", "openssl")),
    reason="redis-server, redis-cli, memcached or openssl is not installed",
)


@dataclass(frozen=True)
class Door:
    """One port, and what a client has to know to come in by it."""

    daemon: Daemon
    papers: Papers
    port: int
    mode: Mode
    cache: str
    authority: bytes
    """Who vouches for the one that the client speaks TLS with."""
    name: str
    """What that one's certificate names."""

    @property
    def is_clear(self) -> bool:
        """Whether clients speak no TLS here."""
        return self.mode == "off" or (self.mode == "passthrough" and self.cache.startswith("clear"))

    @property
    def files(self) -> tuple[str, str, str]:
        """The files of the authority, and of a client's certificate and key."""
        path = self.papers.directory / f"authority-{self.port}.crt"
        path.write_bytes(self.authority)
        certificate, key = self.papers.dev.write(self.papers.directory, "dev1")
        return str(path), str(certificate), str(key)

    def context(self) -> ssl.SSLContext:
        """Return a client's context."""
        authority, certificate, key = self.files
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
        return context

    def last_words(self, client: str) -> dict[str, Any]:
        """Return the log line of the connection from there."""
        return self.daemon.wait_for_log("connection ended", port=self.port, client=client)


@dataclass(frozen=True)
class House:
    """Both daemons: the one with client_ca has every mode but one."""

    cloud: Cloud
    strict: tuple[Daemon, Papers]
    easy: tuple[Daemon, Papers]

    def door(self, mode: Mode, node: str, engine: Engine) -> Door:
        cache = f"{node}-{engine}"
        daemon, papers = self.easy if mode == "terminate" else self.strict
        if mode in ("off", "passthrough"):
            port = (CLEAR_PORTS if mode == "off" else UNTOUCHED_PORTS)[cache]
        else:
            port = daemon.wait_for_route(f"{cache}/0001")
        if mode == "passthrough":
            return Door(daemon, papers, port, mode, cache, self.cloud.authority.pem, self.cloud.world.node_host(cache))
        return Door(daemon, papers, port, mode, cache, papers.servers.pem, HOST)


@pytest.fixture(scope="module")
def house(module_natproxy: Natproxies) -> Iterator[House]:
    with Cloud() as cloud:
        cloud.standalone("clear-redis")
        cloud.standalone("tls-redis", tls="required")
        cloud.memcached("clear-memcached", nodes=1)
        cloud.memcached("tls-memcached", nodes=1, tls="required")
        entries = [{"id": cache, "endpoints": ["nodes"]} for cache in CACHES]
        made = []
        for client_ca in (True, False):
            daemon, papers = prepare_tls(module_natproxy, cloud, client_ca=client_ca, caches=entries)
            authority = papers.directory / "amazon.crt"
            authority.write_bytes(cloud.authority.pem)
            daemon.config["nodes"] = {"ca": str(authority)}
            made.append((daemon, papers))
        made[0][0].config["static"] = [static for cache in CACHES for static in statics(cloud, cache)]
        for daemon, _ in made:
            daemon.start()
            eventually(lambda daemon=daemon: daemon.get("/readyz")[0] == 200, "AWS has answered")  # type: ignore[misc]
        yield House(cloud, *made)


def statics(cloud: Cloud, cache: str) -> Iterator[dict[str, Any]]:
    port = cloud.memcached_port if "memcached" in cache else cloud.port
    target = f"{cloud.world.node_host(cache)}:{port}"
    node_tls = "on" if cache.startswith("tls") else "off"
    yield {
        "name": f"off-{cache}",
        "port": CLEAR_PORTS[cache],
        "target": target,
        "clients": {"tls": "off"},
        "nodes": {"tls": node_tls},
    }
    yield {
        "name": f"passthrough-{cache}",
        "port": UNTOUCHED_PORTS[cache],
        "target": target,
        "clients": {"tls": "passthrough"},
    }


@every_combination
def test_redis_py(house: House, mode: Mode, node: str) -> None:
    door = house.door(mode, node, "redis")
    authority, certificate, key = door.files
    options: dict[str, Any] = {}
    if not door.is_clear:
        options = {"ssl": True, "ssl_ca_certs": authority, "ssl_certfile": certificate, "ssl_keyfile": key}
        options["ssl_check_hostname"] = mode != "passthrough"  # it dials natproxy, and meets the node
    value = random.Random(1).randbytes(100_000)
    with redis.Redis(door.daemon.ip, door.port, socket_timeout=20, **options) as client:
        assert client.set("redis-py", value)
        assert client.get("redis-py") == value
        assert client.client_info()["addr"]


@every_combination
def test_redis_cli(house: House, mode: Mode, node: str) -> None:
    door = house.door(mode, node, "redis")
    authority, certificate, key = door.files
    argv = ["redis-cli", "-h", door.daemon.ip, "-p", str(door.port)]
    if not door.is_clear:
        argv += ["--tls", "--sni", door.name, "--cacert", authority, "--cert", certificate, "--key", key]
    done = subprocess.run([*argv, "ECHO", "hello"], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "hello\n", done.stderr


@every_combination
def test_openssl(house: House, mode: Mode, node: str) -> None:
    door = house.door(mode, node, "redis")
    if door.is_clear:
        with connect(door.daemon.ip, door.port) as talk:
            talk.say(b"PING\r\nQUIT\r\n")
            assert talk.hear_all() == b"+PONG\r\n+OK\r\n"
            return
    authority, certificate, key = door.files
    argv = ["openssl", "s_client", "-connect", f"{door.daemon.ip}:{door.port}", "-quiet", "-verify_return_error"]
    argv += ["-CAfile", authority, "-servername", door.name, "-verify_hostname", door.name]
    argv += ["-cert", certificate, "-key", key]
    done = subprocess.run(argv, input=b"PING\r\nQUIT\r\n", capture_output=True, timeout=30, check=False)
    assert done.stdout == b"+PONG\r\n+OK\r\n", done.stderr


class DialledByAddress:
    """A context for clients that verify what they dialled, where that is not the name of whom they meet."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._context = context
        self._name = name

    def wrap_socket(self, sock: Any, server_hostname: str) -> ssl.SSLSocket:
        assert server_hostname
        return self._context.wrap_socket(sock, server_hostname=self._name)


@every_combination
def test_pymemcache(house: House, mode: Mode, node: str) -> None:
    door = house.door(mode, node, "memcached")
    context = None if door.is_clear else DialledByAddress(door.context(), door.name)
    client = Client((door.daemon.ip, door.port), tls_context=context, timeout=20, default_noreply=False)
    value = random.Random(2).randbytes(100_000)
    assert client.set("pymemcache", value)
    assert client.get("pymemcache") == value
    client.close()


@every_combination
def test_the_log_tells_what_was_spoken_on_both_legs_and_who_came(house: House, mode: Mode, node: str) -> None:
    door = house.door(mode, node, "redis")
    if door.is_clear:
        talk = connect(door.daemon.ip, door.port)
    else:
        talk = secure(door.daemon.ip, door.port, door.context(), name=door.name)
    with talk:
        assert talk.ping()
        client = "{}:{}".format(*talk.sock.getsockname()[:2])
    line = door.last_words(client)
    is_terminated = mode.startswith("terminate")
    speaks_tls_to_node = node == "tls" and mode != "passthrough"
    assert line.get("client_tls") == ("TLSv1.3" if is_terminated else None)
    assert line.get("node_tls") == ("TLSv1.3" if speaks_tls_to_node else None)
    is_known = mode == "terminate with client_ca"
    assert line.get("certificate") == ("dev1" if is_known else None)
    assert line.get("serial") == (serial_text(door.papers.dev.serial) if is_known else None)


def serial_text(serial: int) -> str:
    """As ``openssl x509 -serial`` prints it."""
    text = f"{serial:X}"
    return text.zfill(len(text) + len(text) % 2)


def test_versions_and_suites_of_both_sides_are_counted(house: House) -> None:
    door = house.door("terminate", "tls", "redis")
    for version, suites in ((ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256"), (ssl.TLSVersion.TLSv1_3, None)):
        context = door.context()
        context.minimum_version = context.maximum_version = version
        if suites is not None:
            context.set_ciphers(suites)
        with secure(door.daemon.ip, door.port, context) as talk:
            assert talk.ping()
    metric = "natproxy_tls_sessions_total"
    old = {"side": "client", "version": "TLSv1.2", "cipher": "ECDHE-ECDSA-AES128-GCM-SHA256"}
    eventually(lambda: door.daemon.metric(metric, **old) >= 1, "the old version is counted")
    eventually(lambda: door.daemon.metric(metric, side="client", version="TLSv1.3") >= 1, "and the new one")
    node = {"side": "node", "version": "TLSv1.3", "resumed": "true"}
    eventually(lambda: door.daemon.metric(metric, **node) >= 1, "and what a real node speaks, who knows us again")
    shaken = {"side": "client", "result": "ok", "port": str(door.port), "cache": door.cache}
    assert door.daemon.metric("natproxy_handshakes_total", **shaken) >= 2


def test_every_loaded_certificate_and_list_tells_when_it_ends(house: House) -> None:
    daemon, papers = house.strict
    expiry = "natproxy_certificate_expiry_timestamp_seconds"
    for use in ("certificate", "client_ca", "nodes_ca"):
        assert daemon.metric(expiry, use=use) > 1e9, use
    assert daemon.metric(expiry, use="certificate", serial=serial_text(papers.server.serial)) > 1e9
    assert daemon.metric("natproxy_crl_next_update_timestamp_seconds") > 1e9
    assert daemon.metric("natproxy_tls_files_good") == 1


def test_a_cache_that_takes_up_tls_is_followed_and_its_old_connections_are_drained(
    natproxy: Natproxies, cloud: Cloud
) -> None:
    cloud.standalone("alone")
    daemon, papers = prepare_tls(natproxy, cloud, caches=[{"id": "alone", "clients": {"tls": "off"}}])
    papers.node_ca.write_bytes(cloud.authority.pem)
    daemon.config["nodes"] = {"ca": str(papers.node_ca)}
    daemon.start()
    port = daemon.wait_for_route("alone/0001")
    with connect(daemon.ip, port) as talk:
        assert talk.ping()
    cloud.tls_migration("alone", "preferred")

    def speaks_tls() -> bool:
        with connect(daemon.ip, port) as talk:
            return talk.ping()

    eventually(speaks_tls, "the same port leads to the node's TLS")
    assert daemon.metric("natproxy_handshakes_total", side="node", result="ok") >= 0
    eventually(lambda: daemon.metric("natproxy_handshakes_total", side="node", result="ok") >= 1, "it is counted")
