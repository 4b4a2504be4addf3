"""Cluster mode: what a cluster client asks first shows it natproxy's ports, and all that follows from it works."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis.cluster import RedisCluster

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT
from tests.scenarios.resptalk import Fault, dial
from tests.scenarios.rewriting import (
    TOPOLOGY,
    Front,
    Side,
    both_protocols,
    direct,
    key_in,
    plain_slots,
    private_words,
    start_front,
    told_slots,
    topology_words,
)
from tests.standins.cloud import Cloud

CLEAR, TLS = "clu", "tlu"
GROUPS: tuple[str, ...] = (CLEAR, TLS)

every_way = pytest.mark.parametrize(
    ("side", "group"),
    [("clear", CLEAR), ("tls", CLEAR), ("clear", TLS), ("tls", TLS)],
    ids=["clear-clear", "tls-clear", "clear-tls", "tls-tls"],
)


@pytest.fixture(scope="module")
def fronts(clusters: Cloud, module_natproxy: Natproxies) -> dict[Side, Front]:
    """Clients speak in the clear with the one, which has one worker; and TLS with the other, which has two."""
    caches = [{"id": group} for group in GROUPS]
    return {
        "clear": start_front(module_natproxy, clusters, "clear", caches=caches),
        "tls": start_front(module_natproxy, clusters, "tls", caches=caches, workers=2),
    }


@pytest.fixture
def front(fronts: dict[Side, Front], side: Side) -> Front:
    return fronts[side]


@every_way
@both_protocols
@pytest.mark.parametrize("name", TOPOLOGY)
def test_topology_names_natproxy_s_ports_and_is_otherwise_what_the_node_says(
    front: Front, group: str, protocol: int, name: str
) -> None:
    telling, plain = TOPOLOGY[name]
    words = topology_words(front.cloud, group, name)
    for member in (f"{group}-0001-001", f"{group}-0002-002"):
        said = direct(front.cloud, member, protocol).ask(*words)
        told = front.dial(front.node_port(member), protocol).ask(*words)
        assert not [word for word in private_words(front.cloud) if word in told.raw]
        assert plain(told.value) == telling(front.shown(group), said.value)
        assert told.raw[:1] == said.raw[:1]


@every_way
@both_protocols
def test_topology_in_a_transaction_and_in_a_pipeline_is_told_in_its_place(
    front: Front, group: str, protocol: int
) -> None:
    talk, untouched = (
        front.dial(front.node_port(f"{group}-0001-001"), protocol),
        direct(front.cloud, f"{group}-0001-001", protocol),
    )
    asked = [("PING",), ("MULTI",), ("CLUSTER", "SLOTS"), ("ECHO", "-MOVED 1 10.0.1.230:6379"), ("CLUSTER", "SHARDS")]
    asked += [("EXEC",), ("CLUSTER", "NODES"), ("PING", "last")]
    for words in asked:
        talk.say(*words)
    told = [talk.hear().value for _ in asked]
    slots, echo, shards = told[5]
    assert [*told[:5], echo, told[7]] == ["PONG", "OK", *3 * ["QUEUED"], "-MOVED 1 10.0.1.230:6379", "last"]
    for name, value in (("SLOTS", slots), ("SHARDS", shards), ("NODES", told[6])):
        telling, plain = TOPOLOGY[name]
        assert plain(value) == telling(front.shown(group), untouched.ask("CLUSTER", name).value)


def test_what_comes_byte_by_byte_is_rewritten_as_well(fronts: dict[Side, Front]) -> None:
    for front in fronts.values():
        talk = front.dial(front.port(f"{CLEAR}:configuration"))
        for byte in b"*2\r\n$7\r\ncLuStEr\r\n$5\r\nslots\r\n":
            talk.talk.say(bytes([byte]))
        assert plain_slots(talk.hear().value) == told_slots(
            front.shown(CLEAR), direct(front.cloud, f"{CLEAR}-0001-001").ask("CLUSTER", "SLOTS").value
        )


@every_way
@both_protocols
def test_role_and_info_name_the_same_ports(front: Front, group: str, protocol: int) -> None:
    primary, replica = (front.node_port(f"{group}-0002-00{number}") for number in (1, 2))
    of_primary, of_replica = front.dial(primary, protocol), front.dial(replica, protocol)
    ((ip, port, _),) = of_primary.ask("ROLE").value[2]
    assert (ip, int(port)) == (front.ip, replica)
    assert of_replica.ask("ROLE").value[1:3] == [front.ip, primary]
    assert f"slave0:ip={front.ip},port={replica}," in of_primary.ask("INFO", "replication").value
    assert f"master_host:{front.ip}\r\nmaster_port:{primary}\r\n" in of_replica.ask("INFO").value


# Redirections.


@every_way
@both_protocols
def test_a_redirection_names_the_port_of_the_node_that_it_leads_to(front: Front, group: str, protocol: int) -> None:
    key, slot = key_in(front.cloud, group, "0002")
    owner = front.node_port(f"{group}-0002-001")
    moved = Fault(f"MOVED {slot} {front.ip}:{owner}")
    talk = front.dial(front.node_port(f"{group}-0001-001"), protocol)
    assert talk.ask("GET", key).value == moved
    assert talk.ask("EVAL", "return 1", "1", key).value == moved
    assert [talk.ask(*words).value for words in (("MULTI",), ("SET", key, "1"))] == ["OK", moved]
    assert str(talk.ask("EXEC").value).startswith(str(Fault("EXECABORT"))[:-2])
    replica = front.dial(front.node_port(f"{group}-0002-002"), protocol)
    assert replica.ask("GET", key).value == moved
    assert front.dial(owner, protocol).ask("GET", key).value is None


@every_way
def test_while_a_slot_moves_the_client_is_sent_to_ask_at_natproxy_s_port_of_the_importing_node(
    front: Front, group: str
) -> None:
    key, slot = key_in(front.cloud, group, "0001")
    cluster, source, target = (
        front.cloud.redis_cluster(group),
        front.cloud.cluster_node(f"{group}-0001-001"),
        front.cloud.cluster_node(f"{group}-0002-001"),
    )
    cluster.open_slots([slot], target)
    try:
        asked = front.dial(front.node_port(f"{group}-0001-001")).ask("GET", key).value
        assert asked == Fault(f"ASK {slot} {front.ip}:{front.node_port(f'{group}-0002-001')}")
        there = front.dial(front.node_port(f"{group}-0002-001"))
        assert there.ask("GET", key).value == Fault(f"MOVED {slot} {front.ip}:{front.node_port(f'{group}-0001-001')}")
        assert [there.ask("ASKING").value, there.ask("GET", key).value] == ["OK", None]
    finally:
        for node in (source, target):
            node.ask("CLUSTER", "SETSLOT", str(slot), "STABLE")


# A client that knows nothing of natproxy.


def client_of(front: Front, group: str, protocol: int) -> RedisCluster:
    tls: dict[str, Any] = {} if front.papers is None else {"ssl": True, "ssl_check_hostname": False, **tls_files(front)}
    return RedisCluster(
        host=front.ip, port=front.port(f"{group}:configuration"), protocol=protocol, socket_timeout=10, **tls
    )


def tls_files(front: Front) -> dict[str, str]:
    assert front.papers is not None
    certificate, key = front.papers.write(front.papers.dev)
    authority = front.papers.directory / "servers.crt"
    authority.write_bytes(front.papers.servers.pem)
    return {"ssl_ca_certs": str(authority), "ssl_certfile": str(certificate), "ssl_keyfile": str(key)}


@every_way
@both_protocols
def test_a_cluster_client_reads_and_writes_all_over_the_cluster(front: Front, group: str, protocol: int) -> None:
    with client_of(front, group, protocol) as client:
        known = {(node.host, node.port) for node in client.get_nodes()}
        assert known == {(front.ip, port) for port in front.ports_by_id(group).values()}
        keys = [f"{{{protocol}-{number}}}" for number in range(60)]
        assert all(client.set(key, key) for key in keys)
        pipeline = client.pipeline()
        for key in keys:
            pipeline.get(key)
        assert pipeline.execute() == [key.encode() for key in keys]
        assert {key.decode() for key in client.scan_iter(match=f"{{{protocol}-*")} == set(keys)
        assert {client.cluster_keyslot(key) for key in keys} & set(range(8192, 16384)), "there are keys in every shard"
        assert client.delete(*keys[:1]) == 1
        assert isinstance(client, redis.RedisCluster)


def test_what_was_rewritten_is_counted_by_its_kind(fronts: dict[Side, Front]) -> None:
    front = fronts["clear"]
    port = front.node_port(f"{CLEAR}-0003-001")

    def counted(reply: str) -> float:
        labels = {"cache": CLEAR, "port": str(port), "reply": reply}
        return front.daemon.metric("natproxy_replies_rewritten_total", **labels)

    before = {kind: counted(kind) for kind in ("cluster-slots", "cluster-shards", "cluster-nodes", "moved")}
    key, _ = key_in(front.cloud, CLEAR, "0001")
    talk = front.dial(port)
    for words in (("CLUSTER", "SLOTS"), ("CLUSTER", "SHARDS"), ("CLUSTER", "NODES"), ("GET", key), ("GET", key)):
        talk.ask(*words)
    for kind, more in (("cluster-slots", 1), ("cluster-shards", 1), ("cluster-nodes", 1), ("moved", 2)):
        front.daemon.wait_for_metric(
            before[kind] + more,
            "natproxy_replies_rewritten_total",
            cache=CLEAR,
            port=str(port),
            reply=kind,
        )


def test_a_node_whose_port_is_open_is_told_of_at_the_first_start_and_at_one_with_nobody_to_ask(
    clusters: Cloud, natproxy: Natproxies
) -> None:
    daemon = natproxy.prepare(clusters, caches=[{"id": CLEAR}]).start()

    def open_ports() -> set[object]:
        return {route.port for route in daemon.routes().values() if route.state == "open" and route.kind == "node"}

    def all_are_told() -> bool:
        ports = open_ports()
        rows = dial(daemon.ip, FIRST_PORT).ask("CLUSTER", "SLOTS").value if FIRST_PORT in ports else []
        told = {node[1] for row in rows for node in row[2:]}
        assert told >= ports, "for a moment, while natproxy hears of the cluster"
        return len(told) == len(clusters.world.group(CLEAR).members)

    while not all_are_told():
        pass
    assert daemon.stop() == 0
    clusters.aws.go_down()
    clusters.dns.fail("*", "silent")
    try:
        daemon.start()
        assert all_are_told()
    finally:
        clusters.dns.heal()
        clusters.aws.go_up()
