from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.cluster import RedisCluster

from tests.standins.caches import is_port_free
from tests.standins.resp import ask, ask_line
from tests.standins.small_serverless import IDS, Data, SmallServerless

ADDRESS, PORTS = "127.3.2.1", (26379, 26380)


@pytest.fixture
def cache() -> Iterator[Data]:
    data = Data(ADDRESS, *PORTS)
    with SmallServerless(ADDRESS, PORTS[0], data), SmallServerless(ADDRESS, PORTS[1], data):
        yield data
    assert all(is_port_free(ADDRESS, port) for port in PORTS)


def test_both_ports_have_the_same_data_and_tell_of_each_other(cache: Data) -> None:
    assert ask(ADDRESS, PORTS[0], "SET", "a", "1") == "OK"
    assert (ask(ADDRESS, PORTS[1], "GET", "a"), ask(ADDRESS, PORTS[1], "GET", "b")) == ("1", None)
    assert ask(ADDRESS, PORTS[0], "CLUSTER", "SLOTS") == [
        [0, 16383, [ADDRESS, PORTS[0], IDS[0], []], [ADDRESS, PORTS[1], IDS[1], []]]
    ]
    shards = str(ask(ADDRESS, PORTS[0], "CLUSTER", "SHARDS"))
    assert all(f"'id', '{node_id}', 'tls-port', {port}," in shards for node_id, port in zip(IDS, PORTS, strict=True))
    rows = str(ask(ADDRESS, PORTS[1], "CLUSTER", "NODES")).splitlines()
    assert [row.split()[1:3] for row in rows] == [
        [f"{ADDRESS}:{PORTS[0]}@1122", "master"],
        [f"{ADDRESS}:{PORTS[1]}@1122", "myself,slave"],
    ]
    assert ask_line(ADDRESS, PORTS[0], "PING") == "+PONG"


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_cluster_client_takes_it_for_a_cluster(cache: Data, protocol: int) -> None:
    with RedisCluster(host=ADDRESS, port=PORTS[0], protocol=protocol) as client:
        assert client.set("a", "1")
        assert (client.get("a"), client.delete("a")) == (b"1", 1)
        assert {node.port for node in client.get_nodes()} == set(PORTS)
