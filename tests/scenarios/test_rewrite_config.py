"""What the config says of rewriting: what clients are told to dial, where nothing is rewritten, and static clusters."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from redis.cluster import RedisCluster

from natproxy.wire.redirections import TRY_AGAIN
from tests.scenarios.conftest import Natproxies
from tests.scenarios.resptalk import Fault, RespTalk
from tests.scenarios.rewriting import (
    TOPOLOGY,
    Front,
    both_protocols,
    direct,
    key_in,
    private_words,
    start_front,
    topology_words,
)
from tests.scenarios.tlspeers import HOST, secure
from tests.standins.cloud import Cloud

CLEAR, TLS = "clu", "tlu"
PUBLIC_IP = "203.0.113.73"
STATIC_PORTS = {"clu-0001-001": 25501, "clu-0002-001": 25502, "clu-0003-001": 25503}
PLAIN_PORT, UNREADABLE_PORT = 25504, 25505
VOLATILE = (
    (re.compile(rb"(replication-offset\r\n:|master_repl_offset:|repl_offset:|offset=)\d+"), rb"\1"),
    (re.compile(rb"lag=\d+| \d+ \d{13} |_seconds_ago:\d+"), b""),
    (re.compile(rb"(\$\d+\r\n\d+\r\n)\$\d+\r\n\d+\r\n|(\$6\r\nmaster\r\n):\d+"), rb"\1\2"),
)
"""What a node answers otherwise each time."""


@pytest.fixture(scope="module")
def named(clusters: Cloud, module_natproxy: Natproxies) -> Front:
    """Clients are told a name."""
    return start_front(module_natproxy, clusters, caches=[{"id": CLEAR}, {"id": TLS}], workers=2, public_host=HOST)


@pytest.fixture(scope="module")
def untouched(clusters: Cloud, module_natproxy: Natproxies) -> Front:
    """Nothing of the caches is rewritten; of some static ports it is."""
    targets = {member: "{}:{}".format(*clusters.where(member)) for member in STATIC_PORTS}
    static = [
        {"name": f"static-{port}", "port": port, "target": targets[member], "rewrite": "redis"}
        for member, port in STATIC_PORTS.items()
    ]
    static.append({"name": "plain", "port": PLAIN_PORT, "target": targets["clu-0001-001"]})
    static.append(
        {
            "name": "unreadable",
            "port": UNREADABLE_PORT,
            "target": targets["clu-0001-001"],
            "rewrite": "redis",
            "clients": {"tls": "passthrough"},
        }
    )
    caches = [{"id": CLEAR, "rewrite": "off"}, {"id": TLS, "clients": {"tls": "passthrough"}}]
    return start_front(module_natproxy, clusters, caches=caches, static=static)


@pytest.fixture
def renamed(named: Front) -> Iterator[Front]:
    """The same; in the end it has its own name again."""
    yield named
    named.daemon.config["public_host"] = HOST
    named.daemon.config.pop("public_ip", None)
    named.daemon.reload()


# What clients are told to dial.


@both_protocols
@pytest.mark.parametrize("group", [CLEAR, TLS])
@pytest.mark.parametrize("name", TOPOLOGY)
def test_a_public_name_is_told_in_every_place(named: Front, group: str, protocol: int, name: str) -> None:
    telling, plain = TOPOLOGY[name]
    words = topology_words(named.cloud, group, name)
    member = f"{group}-0001-001"
    told = named.dial(named.node_port(member), protocol).ask(*words)
    said = direct(named.cloud, member, protocol).ask(*words)
    assert plain(told.value) == telling(named.shown(group, HOST), said.value)
    assert not [word for word in (*private_words(named.cloud), named.ip.encode()) if word in told.raw]


def test_a_client_that_resolves_the_name_works(named: Front) -> None:
    client = RedisCluster(
        host=named.ip,
        port=named.port(f"{CLEAR}:configuration"),
        address_remap=lambda where: (named.ip if where[0] == HOST else where[0], where[1]),
        socket_timeout=10,
    )
    with client:
        assert {node.port for node in client.nodes_manager.nodes_cache.values()} == set(
            named.ports_by_id(CLEAR).values()
        )
        assert all(client.set(f"named-{number}", number) for number in range(30))
        assert client.delete("named-1") == 1


def test_what_a_reload_says_of_the_public_address_is_told_on_live_connections(renamed: Front) -> None:
    talks = [renamed.dial(renamed.node_port(f"{group}-0001-001"), 3) for group in (CLEAR, TLS)]
    key, slot = key_in(renamed.cloud, CLEAR, "0002")
    owner = renamed.node_port(f"{CLEAR}-0002-001")

    def told(*, host: str, ip: str = "") -> None:
        for group, talk in zip((CLEAR, TLS), talks, strict=True):
            said = direct(renamed.cloud, f"{group}-0001-001", 3)
            for name in ("SLOTS", "SHARDS", "NODES"):
                telling, plain = TOPOLOGY[name]
                shown = renamed.shown(group, host, ip)
                assert plain(talk.ask("CLUSTER", name).value) == telling(shown, said.ask("CLUSTER", name).value)
        assert talks[0].ask("GET", key).value == Fault(f"MOVED {slot} {host or renamed.ip}:{owner}")

    told(host=HOST)
    renamed.daemon.config.update(public_host="other.example.com", public_ip=PUBLIC_IP)
    renamed.daemon.reload()
    told(host="other.example.com", ip=PUBLIC_IP)
    del renamed.daemon.config["public_host"], renamed.daemon.config["public_ip"]
    renamed.daemon.reload()
    told(host="")
    renamed.daemon.config["public_host"] = PUBLIC_IP
    renamed.daemon.reload()
    assert talks[0].ask("GET", key).value == Fault(f"MOVED {slot} {PUBLIC_IP}:{owner}")


def test_rewriting_that_a_reload_switches_off_and_on_is_so_for_new_connections(renamed: Front) -> None:
    port = renamed.node_port(f"{CLEAR}-0001-001")
    key, _ = key_in(renamed.cloud, CLEAR, "0002")
    public = renamed.dial(port).ask("GET", key).value
    private = direct(renamed.cloud, f"{CLEAR}-0001-001").ask("GET", key).value
    live = renamed.dial(port)
    assert live.ask("GET", key).value == public
    for rewrite, answer in (("off", private), ("auto", public)):
        renamed.daemon.config["caches"][0]["rewrite"] = rewrite
        renamed.daemon.reload()
        assert renamed.dial(port).ask("GET", key).value == answer
        assert live.ask("PING").value == "PONG"
    assert live.ask("GET", key).value == public


# Where nothing is rewritten.


def asked_of_all(cloud: Cloud, talk: RespTalk) -> list[bytes]:
    """Return what is answered to whatever would be rewritten elsewhere."""
    key, _ = key_in(cloud, CLEAR, "0002")
    asked = [topology_words(cloud, CLEAR, name) for name in TOPOLOGY]
    asked += [("ROLE",), ("INFO", "replication"), ("GET", key)]
    return [steady(talk.ask(*words).raw) for words in asked]


def steady(raw: bytes) -> bytes:
    """Return it without how far nodes have come, and when they were last heard of."""
    for pattern, instead in VOLATILE:
        raw = pattern.sub(instead, raw)
    return raw


@both_protocols
def test_with_rewrite_off_every_byte_is_the_node_s_own(untouched: Front, protocol: int) -> None:
    cloud, member = untouched.cloud, f"{CLEAR}-0001-001"
    said = asked_of_all(cloud, direct(cloud, member, protocol))
    for port in (untouched.node_port(member), PLAIN_PORT):
        assert asked_of_all(cloud, untouched.dial(port, protocol)) == said
    assert any(cloud.where(member)[0].encode() in answer for answer in said), "there was something to rewrite"


def test_passthrough_is_not_touched_and_that_is_said(untouched: Front) -> None:
    cloud, daemon, member = untouched.cloud, untouched.daemon, f"{TLS}-0001-001"
    said = direct(cloud, member)
    context = said.talk.tls.context  # type: ignore[attr-defined]
    told = RespTalk(secure(daemon.ip, untouched.node_port(member), context, name=cloud.world.node_host(member)))
    assert told.ask("CLUSTER", "SLOTS").raw == said.ask("CLUSTER", "SLOTS").raw
    route = daemon.routes()[f"{member}/0001"]
    assert (route.rewrite, route.tls) == ("off", "passthrough")
    assert "a passthrough port cannot rewrite" in str(route.rewrite_note)
    printed = daemon.cli("routes").stdout
    assert f"{TLS}: {route.rewrite_note}" in printed
    assert f"unreadable: {route.rewrite_note}" in printed
    checked = daemon.cli("check")
    assert checked.returncode == 0
    warned = [line for line in (checked.stdout + checked.stderr).splitlines() if "nothing is rewritten" in line]
    assert [where in line for where, line in zip(("caches[1]", "static[4]"), warned, strict=True)] == [True, True]


# Static ports.


@both_protocols
def test_static_ports_with_the_same_word_are_one_cluster(untouched: Front, protocol: int) -> None:
    cloud, member = untouched.cloud, f"{CLEAR}-0001-001"
    talk = untouched.dial(STATIC_PORTS[member], protocol)
    listed = {(node[0], node[1]) for row in talk.ask("CLUSTER", "SLOTS").value for node in row[2:]}
    assert listed == {(untouched.ip, port) for port in STATIC_PORTS.values()}, "the replicas have no port"
    key, slot = key_in(cloud, CLEAR, "0003")
    assert talk.ask("GET", key).value == Fault(f"MOVED {slot} {untouched.ip}:{STATIC_PORTS[f'{CLEAR}-0003-001']}")
    assert {route.rewrite for route in untouched.daemon.routes().values()} == {"off", "redis"}
    replica = cloud.where(f"{CLEAR}-0002-002")
    forged = talk.ask("EVAL", f"return redis.error_reply('ASK 1 {replica[0]}:{replica[1]}')", "0").value
    assert forged == Fault(TRY_AGAIN.decode()[1:-2])


def test_a_cluster_client_works_through_static_ports(untouched: Front) -> None:
    with RedisCluster(host=untouched.ip, port=min(STATIC_PORTS.values()), socket_timeout=10) as client:
        assert all(client.set(f"static-{number}", number) for number in range(30))
        assert [client.get(f"static-{number}") for number in range(30)] == [b"%d" % number for number in range(30)]
