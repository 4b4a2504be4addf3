"""Serverless: one host name with many addresses and two ports, each of which has its own of natproxy's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.cluster import RedisCluster

from tests.scenarios.conftest import Natproxies
from tests.scenarios.resptalk import fields_of
from tests.scenarios.rewriting import (
    Front,
    Side,
    both_protocols,
    plain_nodes,
    start_front,
)
from tests.scenarios.waiting import eventually
from tests.standins.cloud import Cloud
from tests.standins.small_serverless import IDS

NAME = "less"

both_sides = pytest.mark.parametrize("side", ["clear", "tls"])


@pytest.fixture(scope="module")
def fronts(module_natproxy: Natproxies) -> Iterator[dict[Side, Front]]:
    with Cloud() as cloud:
        cloud.serverless(NAME, speaks_tls=True)
        caches = [{"id": NAME}]
        yield {
            "clear": start_front(module_natproxy, cloud, "clear", caches=caches),
            "tls": start_front(module_natproxy, cloud, "tls", caches=caches, workers=2),
        }


@pytest.fixture
def front(fronts: dict[Side, Front], side: Side) -> Front:
    return fronts[side]


def ports(front: Front) -> tuple[int, int]:
    return front.port(f"{NAME}:primary"), front.port(f"{NAME}:reader")


@both_sides
@both_protocols
@pytest.mark.parametrize("kind", ["primary", "reader"])
def test_each_of_its_two_ports_is_told_as_natproxy_s_port_for_it(front: Front, protocol: int, kind: str) -> None:
    told = dict(zip(IDS, ports(front), strict=True))
    talk = front.dial(front.port(f"{NAME}:{kind}"), protocol)
    ((first, last, *nodes),) = talk.ask("CLUSTER", "SLOTS").value
    assert (first, last) == (0, 16383)
    assert [node[:3] for node in nodes] == [[front.ip, port, node_id] for node_id, port in told.items()]
    (shard,) = map(fields_of, talk.ask("CLUSTER", "SHARDS").value)
    shown = [fields_of(node) for node in shard["nodes"]]
    port_field = "port" if front.papers is None else "tls-port"
    assert [(node["endpoint"], node["ip"], node[port_field]) for node in shown] == [
        (front.ip, front.ip, port) for port in told.values()
    ]
    assert not {"port", "tls-port"} - {port_field} & shown[0].keys()
    rows = plain_nodes(talk.ask("CLUSTER", "NODES").value)
    assert {node_id: row[0] for node_id, row in rows.items()} == {
        node_id: f"{front.ip}:{port}@1122" for node_id, port in told.items()
    }
    assert talk.ask("CLUSTER", "MYID").value == IDS[kind == "reader"]


@both_protocols
def test_a_cluster_client_takes_the_two_ports_for_two_nodes(fronts: dict[Side, Front], protocol: int) -> None:
    front = fronts["clear"]
    primary, reader = ports(front)
    with RedisCluster(host=front.ip, port=primary, protocol=protocol, socket_timeout=10) as client:
        assert {node.port for node in client.nodes_manager.nodes_cache.values()} == {primary, reader}
        assert client.set("a", "1")
        assert client.get("a") == b"1"
    front.daemon.wait_for_log("connection ended", port=primary, outcome="client-closed")


def test_it_is_so_whichever_of_its_addresses_was_dialled(fronts: dict[Side, Front]) -> None:
    front = fronts["clear"]
    primary, reader = ports(front)
    addresses = front.cloud.world.serverless_cache(NAME).addresses
    logged = len(front.daemon.log)

    def all_were_dialled() -> bool:
        talk = front.dial(primary)
        ((_, _, *nodes),) = talk.ask("CLUSTER", "SLOTS").value
        assert [node[:2] for node in nodes] == [[front.ip, primary], [front.ip, reader]]
        talk.talk.close()
        ended = front.daemon.logged("connection ended", since=logged, port=primary)
        return {line["address"].partition(":")[0] for line in ended} >= {*addresses[:2]}

    eventually(all_were_dialled, "two addresses were dialled")
