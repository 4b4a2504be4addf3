from __future__ import annotations

import dataclasses

import pytest

from natproxy.importing.places import Places
from natproxy.model import Address, Cache, Kind, Node
from tests.importing.samples import account, address, places


@pytest.mark.parametrize("name", ["redis-002/0001", "memo/0003", "enabled-0002-001/0001", "standalone/0001"])
def test_a_node_is_found_by_its_address_and_port(name: str) -> None:
    found = places(account()).find(address(name, account()))
    assert str(found.key) == name
    assert found.endpoint is not None
    assert account().addresses[found.endpoint.host] == (found.address.ip,)
    assert found.why == ""


def test_what_has_the_address_of_a_node_is_taken_for_the_node_not_for_an_endpoint() -> None:
    primary = address("redis:primary", account())
    found = places(account()).find(primary)
    assert found.key is not None
    assert found.key.kind is Kind.NODE


def test_a_serverless_cache_is_found_by_any_of_its_addresses_and_its_two_ports() -> None:
    first = address("serverless:primary", account())
    others = account().addresses[next(host for host, ips in account().addresses.items() if first.ip in ips)]
    assert len(others) == 2
    for ip in others:
        assert str(places(account()).find(Address(ip, 6379)).key) == "serverless:primary"
        assert str(places(account()).find(Address(ip, 6380)).key) == "serverless:reader"


def test_an_endpoint_is_found_where_its_nodes_names_lead_nowhere() -> None:
    nodes = {node.endpoint.host for cache in account().snapshot.caches for node in cache.nodes if node.endpoint}
    known = {host: ips for host, ips in account().addresses.items() if host not in nodes}
    found = Places(account().snapshot, known).find(address("redis:primary", account()))
    assert str(found.key) == "redis:primary"


def test_an_address_of_nobody_is_said_to_be_so() -> None:
    found = places(account()).find(Address("10.9.9.9", 6379))
    assert (found.key, found.endpoint) == (None, None)
    assert found.why == "no node that AWS tells of has this address"
    assert Places(account().snapshot, {}, nobody="nobody asked").find(Address("10.9.9.9", 1)).why == "nobody asked"


def test_a_node_s_other_port_is_said_to_be_another_one() -> None:
    node = address("redis-001/0001", account())
    found = places(account()).find(node._replace(port=6380))
    assert found.key is None
    assert found.why == "nobody that AWS tells of listens on this port: redis-001/0001 listens there on port 6379"


def test_an_address_that_two_nodes_have_is_nobody_s() -> None:
    known = dict.fromkeys(account().addresses, ("10.0.0.1",))
    found = Places(account().snapshot, known).find(Address("10.0.0.1", 11211))
    assert found.key is None
    assert found.why == "more than one has this address: memo/0001, memo/0002, memo/0003"


def test_a_node_that_aws_is_deleting_is_not_matched() -> None:
    def leaving(node: Node) -> Node:
        return dataclasses.replace(node, is_deleting=str(node.id) == "redis-003/0001")

    def changed(cache: Cache) -> Cache:
        return dataclasses.replace(cache, nodes=tuple(map(leaving, cache.nodes)))

    snapshot = dataclasses.replace(account().snapshot, caches=tuple(map(changed, account().snapshot.caches)))
    nodes_only = {host: ips for host, ips in account().addresses.items() if "-ro" not in host and "master" not in host}
    found = Places(snapshot, nodes_only).find(address("redis-003/0001", account()))
    assert found.key is None
    assert found.why == "AWS is deleting redis-003/0001, which has this address"
