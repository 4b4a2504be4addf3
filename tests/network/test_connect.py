"""``natproxy connect`` on the guide's laptop: every client on plain localhost, nothing but TLS on the way.

After each test, all that has crossed the laptop's only link since the very beginning is looked at.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pymemcache.client.base import Client

from tests.clients.journey import TAGS
from tests.clients.programs import GLIDE_PYTHON, PROGRAMS
from tests.network.cluster import ADDRESSES
from tests.network.flows import check_tls_only
from tests.network.guide import LAPTOP, LAPTOP_IP, MEMCACHED_PORT, NODES, PUBLIC_IP, REDIS_PORT, why_not_here
from tests.network.laptop import (
    CLUSTER_PORTS,
    CLUSTER_SEED_PORT,
    CONFIGURATION_PORT,
    MEMCACHED_IPS,
    MEMCACHED_PORTS,
    OTHER_OFFSET,
    REDIS_IP,
    ROOT,
    Laptop,
    connect_argv,
)
from tests.network.voyage import LiveClient
from tests.scenarios.waiting import PATIENCE_SECONDS, eventually
from tests.standins.resp import ask

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

LOCALHOST = "127.0.0.1"
MARK = "in-the-clear"
"""Begins each key, value and channel of these tests."""
PING = b"*1\r\n$4\r\nPING\r\n"
SECRETS = (MARK.encode(), PING, b"CLUSTER", b"cluster_state", b"config get", *(ip.encode() for ip in ADDRESSES))
"""Eight bytes or so: what is shorter may come about by chance."""
MOST_SECONDS_WITHOUT_SUCCESS = 8.0

CLUSTER_PROGRAM = f"""
import redis
from redis.crc import key_slot
keys, number = {{}}, 0
while len(keys) < 16384:
    key = "{MARK}:%d" % number
    keys.setdefault(key_slot(key.encode()), key)
    number += 1
with redis.RedisCluster("{LOCALHOST}", {CLUSTER_SEED_PORT}, decode_responses=True) as client:
    print(*sorted(node.name for node in client.get_nodes()))
    for asked in ("set", "get"):
        told = []
        for start in range(0, 16384, 2048):
            with client.pipeline() as batch:
                for slot in range(start, start + 2048):
                    words = (keys[slot],) if asked == "get" else (keys[slot], "{MARK}%d" % slot)
                    getattr(batch, asked)(*words)
                told += batch.execute()
        print(told == (["{MARK}%d" % slot for slot in range(16384)] if asked == "get" else [True] * 16384))
"""
MEMCACHED_CLIENTS = {
    "pymemcache": (
        sys.executable,
        f"""
from pymemcache.client.hash import HashClient
client = HashClient([(HOST, port) for port in {MEMCACHED_PORTS}], timeout=10, default_noreply=False)
for name in NAMES:
    client.set(name, name)
print([client.get(name).decode() for name in NAMES] == NAMES)
client.close()
""",
    ),
    "pymemcache, discovering": (
        sys.executable,
        """
from tests.standins.memcached_front import AutoDiscoveringClient
client = AutoDiscoveringClient((HOST, PORT), timeout=10, default_noreply=False)
for name in NAMES:
    client.set(name, name)
print([client.get(name).decode() for name in NAMES] == NAMES)
client.close()
""",
    ),
    "django-elastipymemcache": (
        str(GLIDE_PYTHON),
        """
from django.conf import settings
options = {"discovery_interval": 60, "timeout": 10, "connect_timeout": 10}
backend = {"BACKEND": "django_elastipymemcache.backend.ElastiPymemcache", "LOCATION": f"{HOST}:{PORT}"}
backend |= {"OPTIONS": options, "KEY_FUNCTION": lambda key, prefix, version: key}
settings.configure(CACHES={"default": backend})
from django.core.cache import cache
for name in NAMES:
    cache.set(name, name)
print([cache.get(name) for name in NAMES] == NAMES)
""",
    ),
    "emcache": (
        str(GLIDE_PYTHON),
        """
import asyncio, emcache
async def main():
    client = await emcache.create_client([emcache.MemcachedHostAddress(HOST, PORT)], autodiscovery=True, timeout=10,
                                         connection_timeout=10, autodiscovery_timeout=10)
    for name in NAMES:
        await client.set(name.encode(), name.encode())
    print([(await client.get(name.encode())).value.decode() for name in NAMES] == NAMES)
    await client.close()
asyncio.run(main())
""",
    ),
}
"""The interpreter that has each, and its program. But for the first they are given one port, and discover the rest."""


@pytest.fixture(scope="module")
def laptop() -> Iterator[Laptop]:
    if (reason := why_not_here()) is not None:
        pytest.skip(reason)
    with Laptop() as made:
        yield made


@pytest.fixture(autouse=True)
def tls_only(laptop: Laptop) -> Iterator[None]:
    """What each test does shows as TLS on the link, and as nothing else."""
    before = check_tls_only(laptop.capture.look().flows, SECRETS)
    yield
    link = laptop.capture.look()
    assert check_tls_only(link.flows, SECRETS) > before
    assert link.strange == []
    assert {flow.client[0] for flow in link.flows} == {LAPTOP_IP}
    assert {flow.server[0] for flow in link.flows} == {PUBLIC_IP}


def run(laptop: Laptop, *argv: str) -> str:
    """Run a program on the laptop."""
    return laptop.network.run(LAPTOP, argv).stdout


def held(laptop: Laptop, names: Sequence[str]) -> list[int]:
    """Return how many of these each memcached has; it is asked itself."""

    def count(ip: str) -> int:
        with contextlib.closing(Client((ip, MEMCACHED_PORT), timeout=10)) as client:
            return len(client.get_many(names))

    return [laptop.network.inside(NODES, functools.partial(count, ip)) for ip in MEMCACHED_IPS]


def test_redis_cli_without_flags(laptop: Laptop) -> None:
    assert run(laptop, "redis-cli", "PING") == "PONG\n"
    assert run(laptop, "redis-cli", "SET", MARK, f"{MARK}!") == "OK\n"
    assert laptop.network.inside(NODES, lambda: ask(REDIS_IP, REDIS_PORT, "GET", MARK)) == f"{MARK}!"


def test_a_cluster_client_knows_localhost_only_and_has_all_slots(laptop: Laptop) -> None:
    nodes, are_set, are_got = run(laptop, sys.executable, "-c", CLUSTER_PROGRAM).splitlines()
    assert nodes.split() == [f"{LOCALHOST}:{port}" for port in CLUSTER_PORTS]
    assert (are_set, are_got) == ("True", "True")


@pytest.mark.parametrize("client", MEMCACHED_CLIENTS)
def test_memcached_clients_spread_their_keys_over_all_nodes_without_tls(laptop: Laptop, client: str) -> None:
    python, program = MEMCACHED_CLIENTS[client]
    if not Path(python).exists():
        pytest.skip(f"not installed: {client} (`make clients` does that)")
    names = [f"{MARK}:{client.replace(', ', '-')}:{number}" for number in range(60)]
    given = f"HOST, PORT, NAMES = {LOCALHOST!r}, {CONFIGURATION_PORT}, {names!r}\n"
    assert run(laptop, python, "-c", given + program) == "True\n"
    counts = held(laptop, names)
    assert sum(counts) == len(names)
    assert min(counts) > 5


def test_a_revoked_certificate_is_cut_off_at_once_and_its_owner_is_told(laptop: Laptop) -> None:
    why = "the certificate of dev2 has been revoked: ask the operator for a new bundle"
    with laptop.another("dev2") as other, contextlib.ExitStack() as stack:
        mine, theirs = (
            stack.enter_context(laptop.network.connect(LAPTOP, LOCALHOST, port, seconds=PATIENCE_SECONDS))
            for port in (REDIS_PORT, REDIS_PORT + OTHER_OFFSET)
        )
        assert pong(mine) == pong(theirs) == b"+PONG\r\n"
        laptop.operator.revoke("dev2")
        assert end_of(theirs) == b""
        anew = laptop.network.connect(LAPTOP, LOCALHOST, REDIS_PORT + OTHER_OFFSET, seconds=PATIENCE_SECONDS)
        with anew:  # as every client does
            assert end_of(anew) == b""
        other.wait_until_said(why)
        again = connect_argv(laptop.bundles["dev2"])
        done = laptop.network.run(LAPTOP, again, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.strip() == f"natproxy: {why}"
        assert pong(mine) == b"+PONG\r\n"
    assert "revoked" not in laptop.connect.said


def pong(sock: socket.socket) -> bytes:
    """Say PING."""
    sock.sendall(PING)
    return sock.recv(100)


def end_of(sock: socket.socket) -> bytes:
    """Return what comes until the connection ends, however it does."""
    with contextlib.suppress(ConnectionResetError):
        return sock.recv(100)
    return b""


def test_a_dead_primary_costs_a_connected_client_no_write(laptop: Laptop) -> None:
    name = f"{MARK}-journey"
    argv = PROGRAMS["redis-py"].argv(LOCALHOST, CLUSTER_SEED_PORT, name, live=True)
    client = LiveClient(name, laptop.network.spawn(LAPTOP, argv, cwd=ROOT))
    wait_for_rounds(client)
    begin, primary = time.time(), laptop.guide.cluster.shards[2][0]
    laptop.guide.fail_over(2, kill=True)
    assert not primary.is_running
    wait_for_rounds(client)
    end = time.time()
    wait_for_rounds(client)
    client.process.signal(signal.SIGTERM)
    assert client.process.wait(30.0) == 0, client.output
    (summary,) = client.said("summary")
    assert summary["lost"] == []
    assert summary["acknowledged"] > 4 * TAGS
    assert [one for one in summary["errors"] if not begin <= one[0] <= end] == []
    assert summary["longest_gap"] < MOST_SECONDS_WITHOUT_SUCCESS
    assert laptop.connect.process.is_running


def wait_for_rounds(client: LiveClient) -> None:
    """Wait until it has begun and ended a round over all its keys."""
    since = time.time()
    eventually(lambda: client.has_gone_round(since), "it goes round", 40.0)
    assert client.process.is_running, client.output
