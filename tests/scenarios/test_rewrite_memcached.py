"""Memcached's auto discovery: node lists with natproxy's ports, by versions that grow whenever clients should look."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import Daemon
from tests.scenarios.peers import Talk, connect
from tests.scenarios.rewriting import Front, Side, start_front
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud
from tests.standins.memcached_front import CONFIG_GET, CONFIG_ITEM, AutoDiscoveringClient, FrontedMemcached, packet
from tests.standins.resp import ask_line

MC, LATE = "mc", "late"
PUBLIC = ("cache.example.com", "203.0.113.73")
STATIC_PORT, OLD_PORT, PLAIN_PORT = 25511, 25512, 25513
ASKED = b"config get cluster\r\n"
LIST = re.compile(rb"(\d+)\n((?:\S+\|\S*\|\d+ ?)*)\n")

both_sides = pytest.mark.parametrize("side", ["clear", "tls"])


class Told(NamedTuple):
    """A node list."""

    version: int
    nodes: list[str]


def parsed(body: bytes) -> Told:
    found = LIST.fullmatch(body)
    assert found is not None, body
    return Told(int(found[1]), found[2].decode().split())


def hear_list(talk: Talk) -> Told:
    """Read the answer to ``config get cluster``, by the length that it tells."""
    header = b""
    while not header.endswith(b"\r\n"):
        header += talk.hear(1)
    assert header.startswith(b"CONFIG cluster 0 "), header
    body = talk.hear(int(header.split()[3]))
    assert talk.hear(7) == b"\r\nEND\r\n"
    return parsed(body)


def list_at(ip: str, port: int) -> Told:
    with connect(ip, port) as talk:
        talk.say(ASKED)
        return hear_list(talk)


@pytest.fixture(scope="module")
def memcacheds() -> Iterator[Cloud]:
    with Cloud() as cloud:
        cloud.memcached(MC, nodes=3)
        yield cloud


@pytest.fixture(scope="module")
def fronts(memcacheds: Cloud, module_natproxy: Natproxies) -> Iterator[dict[Side, Front]]:
    """The one before clear clients also has static ports: to nodes of ``mc``, and to one that is old."""
    first = "{}:{}".format(*memcacheds.where(MC, "0001"))
    with FrontedMemcached("127.3.3.1", memcacheds.memcached_port, is_old=True) as old:
        old.front.tell(3, [("", *memcacheds.where(MC, "0001")), ("b.example", "127.3.3.2", 11211)])
        static = [
            {"name": "static", "port": STATIC_PORT, "target": first, "rewrite": "memcached"},
            {"name": "old", "port": OLD_PORT, "target": f"{old.address}:{old.port}", "rewrite": "memcached"},
            {"name": "plain", "port": PLAIN_PORT, "target": first},
        ]
        caches = [{"id": MC}]
        yield {
            "clear": start_front(module_natproxy, memcacheds, "clear", caches=caches, static=static),
            "tls": start_front(module_natproxy, memcacheds, "tls", caches=caches, workers=2),
        }


@pytest.fixture
def front(fronts: dict[Side, Front], side: Side) -> Front:
    return fronts[side]


@pytest.fixture(autouse=True)
def no_client_outlives_its_test() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        _clients.append(stack)
        yield
        _clients.pop()


_clients: list[contextlib.ExitStack] = []


def discovering(front: Front, cache: str = MC) -> AutoDiscoveringClient:
    options: dict[str, Any] = {"timeout": 10, "connect_timeout": 10, "default_noreply": False}
    if front.context is not None:
        front.context.check_hostname = False
        options["tls_context"] = front.context
    client = AutoDiscoveringClient((front.ip, front.port(f"{cache}:configuration")), **options)
    _clients[-1].callback(client.close)
    return client


# A client that discovers.


@both_sides
def test_a_client_discovers_the_nodes_and_spreads_its_keys_over_all_of_them(front: Front, side: Side) -> None:
    client = discovering(front)
    ports = [front.port(f"{MC}/000{number}") for number in (1, 2, 3)]
    assert set(client.clients) == {f"{front.ip}:{port}" for port in ports}
    keys = [f"{side}-{number}" for number in range(100)]
    assert client.set_many(dict.fromkeys(keys, b"here")) == []
    assert client.get_many(keys) == dict.fromkeys(keys, b"here")
    held = [held_by(front.cloud, f"000{number}", keys) for number in (1, 2, 3)]
    assert all(held)
    assert sum(map(len, held)) == len(keys)


def held_by(cloud: Cloud, node_id: str, keys: list[str]) -> list[str]:
    """Return which keys a node has, asked behind everybody's back."""
    node = cloud.server(MC, node_id)
    return [key for key in keys if ask_line(node.address, node.clear_port, f"get {key}") != "END"]


def test_a_client_follows_nodes_that_come_and_go(natproxy: Natproxies, cloud: Cloud) -> None:
    cloud.memcached(MC, nodes=2)
    front = start_front(natproxy, cloud, caches=[{"id": MC}])
    ports = {front.port(f"{MC}/0001"), front.port(f"{MC}/0002")}
    client = discovering(front)
    versions = [list_at(front.ip, min(ports)).version]

    def polled(expected: set[int]) -> bool:
        assert {int(port) for _, port in client.discover()} == expected
        told = list_at(front.ip, min(ports))
        assert told.version > versions[-1]
        versions.append(told.version)
        return True

    cloud.add_memcached_node(MC)
    ports.add(front.port(f"{MC}/0003"))
    eventually(lambda: polled(ports), "the new node is in the list, by a version that has grown")
    assert client.set_many({f"key-{number}": b"1" for number in range(60)}) == []
    cloud.remove_node(MC, "0002")
    ports.remove(front.daemon.ports()[f"{MC}/0002"] or 0)
    eventually(lambda: polled(ports), "the node is out of the list")
    front.daemon.wait_until_gone(f"{MC}/0002")
    cloud.settle()
    assert client.set_many({f"key-{number}": b"1" for number in range(60)}) == []
    assert {int(port) for _, port in client.discover()} == ports


# The list itself.


@both_sides
def test_every_node_tells_the_same_list_in_text_in_binary_and_with_what_comes_before_and_after(front: Front) -> None:
    expected = [f"{front.ip}|{front.ip}|{front.port(f'{MC}/000{number}')}" for number in (1, 2, 3)]
    versions = set()
    for name in (f"{MC}/0001", f"{MC}/0002", f"{MC}:configuration"):
        talk = front.dial(front.port(name)).talk
        talk.say(b"set a 0 0 20\r\n" + ASKED + b"\r\n" + ASKED + b"get a\r\n" + ASKED + b"version\r\n")
        assert talk.hear(8) == b"STORED\r\n"
        first = hear_list(talk)
        assert talk.hear(41) == b"VALUE a 0 20\r\n" + ASKED + b"\r\nEND\r\n"
        assert hear_list(talk) == first
        assert talk.hear(8) == b"VERSION "
        binary = front.dial(front.port(name)).talk
        binary.say(packet(CONFIG_GET, b"1234", b"", b"", key=b"cluster", magic=0x80) * 2)
        for _ in range(2):
            header = binary.hear(24)
            body = binary.hear(int.from_bytes(header[8:12], "big"))
            assert (header[:2], header[4], header[12:16]) == (bytes((0x81, CONFIG_GET)), 4, b"1234")
            assert parsed(body[4:]) == first
        versions.add(first.version)
        assert first.nodes == expected
    assert len(versions) == 1


@both_sides
def test_a_value_that_looks_like_a_list_is_not_touched(front: Front) -> None:
    ip, port = front.cloud.where(MC, "0001")
    body = f"9\n{front.cloud.world.node_host(MC, '0001')}|{ip}|{port}\n".encode()
    forged = b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(body), body)
    talk = front.dial(front.port(f"{MC}/0002")).talk
    for value in (forged, b"\r\n" + forged, b"x" * 70_000 + b"\r\n" + forged):
        talk.say(b"set forged 0 0 %d\r\n%b\r\nget forged other\r\n" % (len(value), value))
        answer = b"STORED\r\nVALUE forged 0 %d\r\n%b\r\nEND\r\n" % (len(value), value)
        assert talk.hear(len(answer)) == answer
    talk.say(ASKED)
    assert len(hear_list(talk).nodes) == 3


def test_lists_are_counted_and_static_ports_tell_of_each_other(fronts: dict[Side, Front]) -> None:
    front = fronts["clear"]
    counted = front.daemon.metric("natproxy_replies_rewritten_total", reply="config", port=str(STATIC_PORT))
    told = list_at(front.ip, STATIC_PORT)
    assert told.nodes == [f"{front.ip}|{front.ip}|{STATIC_PORT}"], "the other nodes have no static port"
    with connect(front.ip, OLD_PORT) as talk:
        talk.say(b"get %b\r\n" % CONFIG_ITEM.encode())
        header = talk.hear(len(f"VALUE {CONFIG_ITEM} 0 ")) + (size := talk.hear(2))
        body = talk.hear(2 + int(size) + 2)[2:-2]
        assert (header[:5], talk.hear(5)) == (b"VALUE", b"END\r\n")
        assert parsed(body).nodes == [f"{front.ip}|{front.ip}|{STATIC_PORT}"]
    front.daemon.wait_for_metric(counted + 1, "natproxy_replies_rewritten_total", reply="config", port=str(STATIC_PORT))
    first, port = front.cloud.where(MC, "0001")
    assert f"{front.cloud.world.node_host(MC, '0001')}|{first}|{port}" in list_at(front.ip, PLAIN_PORT).nodes


# Versions.


def test_the_version_grows_with_every_change_and_over_every_restart_and_never_shrinks(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.memcached(MC, nodes=2)
    daemon = natproxy(cloud, caches=[{"id": MC, "ports": "25001-25010"}], aws={"refresh": "200ms"})
    daemon.wait_for_route(f"{MC}/0001")
    seen: list[Told] = []

    def ask() -> Told:
        seen.append(list_at(daemon.ip, daemon.ports()[f"{MC}/0001"] or 0))
        return seen[-1]

    def wait_for_change(expected: int) -> None:
        before = told[-1]

        def is_told() -> bool:
            now = ask()
            assert len(now.nodes) == expected
            assert now.nodes != before.nodes
            assert now.version > before.version
            told.append(now)
            return True

        eventually(is_told, f"{expected} nodes are told, others than {before}")

    eventually(lambda: len(ask().nodes) == 2, "all nodes are told")
    told = [seen[-1]]
    cloud.add_memcached_node(MC)
    wait_for_change(3)
    daemon.config.update(public_host=PUBLIC[0], public_ip=PUBLIC[1])
    daemon.reload()
    wait_for_change(3)
    assert told[-1].nodes[0].startswith("|".join(PUBLIC))
    cloud.remove_node(MC, "0003")
    wait_for_change(2)
    daemon.wait_until_gone(f"{MC}/0003")
    cloud.settle()
    assert daemon.cli("ports", "release", f"{MC}/0003").returncode == 0
    daemon.config["caches"][0]["ports"] = "25021-25030"
    daemon.reload()
    wait_for_change(2)
    for end in (daemon.stop, daemon.kill, daemon.kill):
        end()
        daemon.start()
        daemon.wait_for_route(f"{MC}/0001")
        assert ask().nodes == told[-1].nodes
    cloud.add_memcached_node(MC)
    wait_for_change(3)
    assert [one.version for one in seen] == sorted(one.version for one in seen)
    assert len({one.version for one in seen}) == len({(one.version, *one.nodes) for one in seen}), "each names one list"


def whole(daemon: Daemon, port: int, nodes: int) -> Told:
    told = list_at(daemon.ip, port)
    assert len(told.nodes) == nodes
    return told


def test_a_node_that_aws_has_not_told_of_is_left_out_until_discovery_which_is_woken_knows_it(
    cloud: Cloud, natproxy: Natproxies
) -> None:
    cloud.memcached(LATE, nodes=1)
    daemon = natproxy(cloud, caches=[{"id": LATE}], aws={"refresh": "1h"})
    port = daemon.wait_for_route(f"{LATE}/0001")
    before = whole(daemon, port, 1)
    cloud.add_memcached_node(LATE)
    assert whole(daemon, port, 1).nodes == before.nodes
    eventually(lambda: len(list_at(daemon.ip, port).nodes) == 2, "the node has a port")
    assert daemon.metric("natproxy_rewrite_hints_total", hint="unknown-node") >= 1
    assert list_at(daemon.ip, port).version > before.version
