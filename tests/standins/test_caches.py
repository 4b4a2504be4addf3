from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis
from pymemcache.client.base import Client

from tests.standins import caches
from tests.standins.caches import CacheError, CacheServer, is_port_free, start_memcached, start_redis
from tests.standins.certificates import Authority, Issued
from tests.standins.resp import ReplyError, ask

needs_redis = pytest.mark.skipif(caches.redis_program() is None, reason="redis-server is not installed")
either = pytest.mark.parametrize(
    "prefer_real", [pytest.param(True, marks=needs_redis, id="real"), pytest.param(False, id="fake")]
)


@pytest.fixture
def port() -> int:
    """A port that is free on all of 127.3.0.x."""
    with socket.socket() as probe:
        probe.bind(("127.3.0.1", 0))
        return int(probe.getsockname()[1])


def role(server: CacheServer) -> object:
    answer = ask(server.address, server.port, "ROLE")
    return answer[0] if isinstance(answer, list) else answer


@either
def test_a_real_client_talks_to_it(port: int, prefer_real: bool) -> None:
    with start_redis("127.3.0.1", port, prefer_real=prefer_real) as server:
        client = redis.Redis(server.address, server.port)
        assert client.set("a", "1")
        assert client.get("a") == b"1"
        client.close()
        assert server.is_real is prefer_real
    assert is_port_free("127.3.0.1", port)


@either
def test_replicas_have_their_primarys_data(port: int, prefer_real: bool) -> None:
    with (
        start_redis("127.3.0.1", port, prefer_real=prefer_real) as primary,
        start_redis("127.3.0.2", port, prefer_real=prefer_real) as replica,
    ):
        ask(primary.address, port, "SET", "a", "1")
        replica.follow(primary)
        primary.wait_for_replicas(1)
        assert ask(replica.address, port, "GET", "a") == "1"
        primary.kill()
        replica.promote()
        assert ask(replica.address, port, "SET", "a", "2") == "OK"
        with pytest.raises(ConnectionRefusedError):
            ask(primary.address, port, "PING")


@needs_redis
def test_a_real_replica_refuses_writes_until_it_is_promoted(port: int) -> None:
    with start_redis("127.3.0.1", port) as primary, start_redis("127.3.0.2", port) as replica:
        replica.follow(primary)
        primary.wait_for_replicas(1)
        assert (role(primary), role(replica)) == ("master", "slave")
        with pytest.raises(ReplyError, match="READONLY"):
            ask(replica.address, port, "SET", "a", "1")
        replica.promote()
        assert role(replica) == "master"
        with pytest.raises(CacheError, match="0 replicas in step, not 1"):
            primary.wait_for_replicas(1, seconds=0.01)


@pytest.mark.parametrize("prefer_real", [True, False])
def test_memcached_answers_a_real_client(port: int, prefer_real: bool) -> None:
    with start_memcached("127.3.0.1", port, prefer_real=prefer_real) as server:
        client = Client((server.address, port), timeout=5)
        client.set("a", b"1", noreply=False)
        assert client.get("a") == b"1"
        client.close()
    assert is_port_free("127.3.0.1", port)


@needs_redis
def test_nothing_is_left_of_it(port: int) -> None:
    before = set(Path(tempfile.gettempdir()).glob("natproxy-cache-*"))
    server = start_redis("127.3.0.1", port)
    pid = server.pid
    assert pid is not None
    [directory] = set(Path(tempfile.gettempdir()).glob("natproxy-cache-*")) - before
    server.kill()
    server.stop()
    server.stop()
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@needs_redis
def test_one_that_cannot_start_says_why_and_leaves_nothing(port: int) -> None:
    with socket.create_server(("127.3.0.1", port)), pytest.raises(CacheError, match="in use"):
        start_redis("127.3.0.1", port)


def test_without_the_programs_there_are_fake_ones(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with start_redis("127.3.0.1", port) as server, start_memcached("127.3.0.2", port) as other:
        assert (server.is_real, other.is_real) == (False, False)
        assert (server.pid, other.pid) == (None, None)


def test_a_cache_that_nobody_stopped_ends_with_the_interpreter(port: int) -> None:
    code = f"from tests.standins.caches import start_redis; start_redis('127.3.0.1', {port})"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
    assert is_port_free("127.3.0.1", port)


AUTHORITY = Authority()


@pytest.fixture(scope="module")
def certificate() -> Issued:
    return AUTHORITY.issue("node", dns=["node.example"])


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=AUTHORITY.pem.decode())


@needs_redis
def test_a_redis_with_a_certificate_speaks_tls_and_replicates(port: int, certificate: Issued) -> None:
    with (
        start_redis("127.3.0.1", port, certificate=certificate) as primary,
        start_redis("127.3.0.2", port, certificate=certificate) as replica,
    ):
        replica.follow(primary)
        primary.wait_for_replicas(1)
        with (
            socket.create_connection(("127.3.0.1", port), 5) as plain,
            trusting().wrap_socket(plain, server_hostname="node.example") as secured,
        ):
            secured.sendall(b"SET a 1\r\n")
            assert secured.recv(64) == b"+OK\r\n"
        primary.wait_for_replicas(1)
        assert ask("127.3.0.2", replica.clear_port, "GET", "a") == "1"
        with pytest.raises(OSError, match=r"ended in the middle|reset"):
            ask("127.3.0.1", port, "PING")


@pytest.mark.skipif(shutil.which("memcached") is None, reason="memcached is not installed")
def test_a_memcached_with_a_certificate_speaks_tls(port: int, certificate: Issued) -> None:
    with start_memcached("127.3.0.1", port, certificate=certificate) as server:
        client = Client(("127.3.0.1", port), tls_context=NamedContext(), timeout=5)
        assert client.set("a", b"1", noreply=False)
        client.close()
        client = Client(("127.3.0.1", server.clear_port), timeout=5)
        assert client.get("a") == b"1"
        client.close()


def test_what_is_not_real_refuses_to_speak_tls(port: int, certificate: Issued) -> None:
    for start in (start_redis, start_memcached):
        with pytest.raises(CacheError, match="only real caches speak TLS"):
            start("127.3.0.1", port, prefer_real=False, certificate=certificate)


class NamedContext:
    """As pymemcache has it, which verifies the address it dialled; here the name counts."""

    def wrap_socket(self, sock: socket.socket, server_hostname: str) -> ssl.SSLSocket:
        assert server_hostname == "127.3.0.1"
        return trusting().wrap_socket(sock, server_hostname="node.example")
