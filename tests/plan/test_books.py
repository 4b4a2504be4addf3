from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Cache, Endpoint, Kind, Mode, NodeTls, PortMap, Role, Route
from natproxy.plan.addresses import FORGET_SECONDS, Addresses, observe
from natproxy.plan.books import BookEntries, books
from natproxy.plan.ports import assign_ports
from natproxy.plan.routes import desired_routes
from natproxy.wire.book import plain_host
from tests.plan.samples import GUIDE, answered, config, host, memcached, node, redis, serverless, snapshot

ALLOW = "clients: {allow: [198.51.100.27/32]}\n"
NOW = 1000.0
N1, N2, N3 = (host(f"my-redis-00{number}.0001") for number in (1, 2, 3))
PRIMARY, READER = host("my-redis-master"), host("my-redis-ro")
GUIDE_ADDRESSES = {N1: ["10.0.1.230"], N2: ["10.0.1.231"], N3: ["10.0.1.232"]}

Told = Mapping[str, Iterable[str] | Addresses]
"""Host name -> its addresses now, or its whole history."""

SHARED: Told = {name: ["10.0.1.230"] for name in (N1, N2, N3)}
ROLES: Told = {**GUIDE_ADDRESSES, PRIMARY: ["10.0.1.230"], READER: ["10.0.1.231"]}


def routes_of(text: str, *caches: Cache) -> tuple[Route, ...]:
    one = snapshot(*caches)
    found = assign_ports(PortMap(), one, config(text), 100.0)
    return desired_routes(config(text), one, found.portmap, found.errors).routes


def written(text: str, *caches: Cache, told: Told, routes: Iterable[Route] | None = None) -> dict[str, BookEntries]:
    served = routes_of(text, *caches) if routes is None else routes
    known = {name: ips if isinstance(ips, Addresses) else answered(*ips) for name, ips in told.items()}
    return books(config(text), snapshot(*caches), served, known, NOW)


def only(found: Mapping[str, BookEntries]) -> dict[str, int]:
    """``host:port`` -> natproxy's port, of the one book there is."""
    (entries,) = found.values()
    assert list(entries.ports) == sorted(entries.ports)
    ports = {str(Endpoint(name, number)): port for name, number, port in entries.ports}
    assert len(ports) == len(entries.ports)
    return ports


def history(*answers: tuple[float, Iterable[str]]) -> Addresses:
    """What a name is known by after these answers, each so many seconds ago."""
    known: Addresses | None = None
    for ago, ips in answers:
        known = observe(known, ips, NOW - ago, always_rotates=False)
    assert known is not None
    return known


def cluster(*numbers: str, **facts: Any) -> Cache:
    """A cluster-mode group with a node of each number; AWS tells no roles."""
    nodes = tuple(node(f"my-redis-{number}") for number in numbers)
    endpoints = {Kind.CONFIGURATION: Endpoint(host("my-redis.clustercfg"), 6379)}
    return redis(**{"mode": Mode.CLUSTER_ENABLED, "nodes": nodes, "endpoints": endpoints, **facts})


class TestNodes:
    def test_a_node_is_known_by_its_name_and_all_its_addresses(self) -> None:
        told = {
            host("my-redis-0001-001.0001"): ["10.0.1.230"],
            host("my-redis-0001-002.0001"): ["10.0.1.231", "10.0.1.232"],
            host("my-redis.clustercfg"): ["10.0.1.230", "10.0.1.231"],
        }
        found = written(GUIDE, cluster("0001-001", "0001-002"), told=told)
        assert list(found) == ["my-redis"]
        assert only(found) == {
            host("my-redis-0001-001.0001") + ":6379": 6379,
            "10.0.1.230:6379": 6379,
            host("my-redis-0001-002.0001") + ":6379": 6380,
            "10.0.1.231:6379": 6380,
            "10.0.1.232:6379": 6380,
        }

    def test_a_name_that_has_not_resolved_yet_is_in_the_book_by_itself(self) -> None:
        found = only(written(GUIDE, cluster("0001-001"), told={}))
        assert found == {host("my-redis-0001-001.0001") + ":6379": 6379}

    def test_memcached_has_its_nodes_in_its_book(self) -> None:
        text = ALLOW + "caches: [{id: my-memcached, ports: 11211-11220}]"
        told = {
            host("my-memcached.0001"): ["10.0.1.230"],
            host("my-memcached.0002"): ["10.0.1.231"],
            host("my-memcached.cfg"): ["10.0.1.230"],
        }
        assert only(written(text, memcached(count=2), told=told)) == {
            host("my-memcached.0001") + ":6379": 11211,
            "10.0.1.230:6379": 11211,
            host("my-memcached.0002") + ":6379": 11212,
            "10.0.1.231:6379": 11212,
        }

    def test_primary_and_reader_are_known_by_their_names_while_addresses_are_their_nodes(self) -> None:
        told = {**GUIDE_ADDRESSES, PRIMARY: ["10.0.1.230"], READER: ["10.0.1.231"]}
        assert only(written(GUIDE, redis(), told=told)) == {
            f"{N1}:6379": 6379,
            "10.0.1.230:6379": 6379,
            f"{N2}:6379": 6380,
            "10.0.1.231:6379": 6380,
            f"{N3}:6379": 6381,
            "10.0.1.232:6379": 6381,
            f"{PRIMARY}:6379": 6382,
            f"{READER}:6379": 6383,
        }

    def test_what_has_no_port_is_in_no_book(self) -> None:
        """A node that is being created, one whose port is taken, and one that found no port in the range."""
        text = GUIDE.replace("6379-6388", "6379-6381")
        cache = redis(nodes=(*redis().nodes, node("my-redis-004", endpoint=None), node("my-redis-005")), endpoints={})
        told = {**GUIDE_ADDRESSES, host("my-redis-005.0001"): ["10.0.1.234"]}
        served = [route for route in routes_of(text, cache) if route.port != 6380]
        found = only(written(text, cache, told=told, routes=served))
        assert set(found.values()) == {6379, 6381}
        assert set(found) == {f"{N1}:6379", "10.0.1.230:6379", f"{N3}:6379", "10.0.1.232:6379"}

    def test_a_route_with_an_error_names_its_book_and_is_not_in_it(self) -> None:
        text = GUIDE.replace("6388}", "6388, nodes: {tls: off}}")
        found = written(text, redis(tls=NodeTls.REQUIRED), told=GUIDE_ADDRESSES)
        assert found == {"my-redis": BookEntries(())}

    def test_a_cache_that_is_gone_leaves_an_empty_book(self) -> None:
        served = routes_of(GUIDE, redis())
        assert written(GUIDE, told=GUIDE_ADDRESSES, routes=served) == {"my-redis": BookEntries(())}

    def test_what_is_not_rewritten_has_no_book(self) -> None:
        assert written(GUIDE + "rewrite: off", redis(), told=GUIDE_ADDRESSES) == {}
        assert written(GUIDE, redis(mode=Mode.STANDALONE), told=GUIDE_ADDRESSES) == {}

    def test_a_cache_s_nodes_are_in_its_own_book_alone(self) -> None:
        text = ALLOW + "caches: [{id: my-redis, ports: 6379-6388}, {id: other, ports: 6400-6409}]"
        caches = cluster("001"), cluster("001", entry=1)
        other = replace(caches[1], id="other", nodes=(node("other-001"),))
        found = written(text, caches[0], other, told={N1: ["10.0.1.230"], host("other-001.0001"): ["10.0.1.230"]})
        assert {name: {port for *_, port in entries.ports} for name, entries in found.items()} == {
            "my-redis": {6379},
            "other": {6400},
        }

    @pytest.mark.parametrize(
        ("told", "spelt"),
        [
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("::ffff:10.0.1.230", "10.0.1.230"),
            ("fd00:0000::00a1", "fd00::a1"),
        ],
    )
    def test_addresses_are_spelt_as_rewriters_look_them_up(self, told: str, spelt: str) -> None:
        found = written(GUIDE, cluster("001"), told={N1: [told]})
        assert (spelt, 6379, 6379) in found["my-redis"].ports
        assert plain_host(told) == spelt

    def test_names_are_spelt_as_rewriters_look_them_up(self) -> None:
        shouting = node("my-redis-001", endpoint=Endpoint("My-Redis-001.EUW1.Cache.AmazonAWS.com.", 6379))
        found = written(GUIDE, cluster(nodes=(shouting,)), told={})
        assert found["my-redis"].ports == (("my-redis-001.euw1.cache.amazonaws.com", 6379, 6379),)
        endpoints = {Kind.PRIMARY: Endpoint("Master.My-Redis.", 6379)}
        found = written(GUIDE, redis(nodes=(node("my-redis-001"),), endpoints=endpoints), told={})
        assert ("master.my-redis", 6379, 6380) in found["my-redis"].ports

    def test_addresses_that_were_left_are_spelt_so_too(self) -> None:
        moved = history((300, ["FD00:0::1"]), (100, ["fd00::2"]))
        assert ("fd00::1", 6379, 6379) in written(GUIDE, cluster("001"), told={N1: moved})["my-redis"].ports


class TestTwoAtOneAddress:
    """During a resize AWS may show two node ids on one host:port."""

    @pytest.mark.parametrize(
        ("deleting", "winner"), [((), 6379), ((1,), 6380), ((1, 2), 6381), ((1, 2, 3), 6379), ((2,), 6379)]
    )
    def test_one_that_stays_counts_then_the_smallest_id(self, deleting: tuple[int, ...], winner: int) -> None:
        """The ports of those that are being deleted are served until they have drained."""
        served = routes_of(GUIDE, cluster("001", "002", "003"))
        nodes = tuple(
            replace(one, is_deleting=number in deleting)
            for number, one in enumerate(cluster("001", "002", "003").nodes, 1)
        )
        for order in (nodes, nodes[::-1]):
            found = only(written(GUIDE, cluster(nodes=order), told=SHARED, routes=served))
            assert found["10.0.1.230:6379"] == winner
            assert [found[f"{name}:6379"] for name in (N1, N2, N3)] == [6379, 6380, 6381]

    def test_ids_are_compared_as_they_are_counted(self) -> None:
        cache = cluster("10", "9")
        found = only(
            written(GUIDE, cache, told={one.endpoint.host: ["10.0.1.230"] for one in cache.nodes if one.endpoint})
        )
        assert found["10.0.1.230:6379"] == found[host("my-redis-9.0001") + ":6379"] == 6379

    def test_two_ids_may_share_their_host_name_too(self) -> None:
        nodes = tuple(replace(one, endpoint=Endpoint(N1, 6379)) for one in cluster("001", "002").nodes)
        found = only(written(GUIDE, cluster(nodes=nodes), told={N1: ["10.0.1.230"]}))
        assert found == {f"{N1}:6379": 6379, "10.0.1.230:6379": 6379}

    def test_one_without_a_port_stands_back(self) -> None:
        cache = cluster("001", "002")
        served = [route for route in routes_of(GUIDE, cache) if route.port != 6379]
        assert only(written(GUIDE, cache, told=SHARED, routes=served)) == {
            f"{N2}:6379": 6380,
            "10.0.1.230:6379": 6380,
        }


class TestAddressesThatWereLeft:
    MOVED = history((300, ["10.0.1.230"]), (200, ["10.0.1.240"]))

    def test_they_lead_to_where_the_node_is_now(self) -> None:
        found = only(written(GUIDE, cluster("001"), told={N1: self.MOVED}))
        assert found == {f"{N1}:6379": 6379, "10.0.1.240:6379": 6379, "10.0.1.230:6379": 6379}

    def test_they_are_forgotten_after_some_minutes(self) -> None:
        long_ago = history((FORGET_SECONDS + 300, ["10.0.1.230"]), (FORGET_SECONDS + 1, ["10.0.1.240"]))
        assert "10.0.1.230:6379" not in only(written(GUIDE, cluster("001"), told={N1: long_ago}))

    def test_they_are_the_node_s_that_has_them_now(self) -> None:
        found = only(written(GUIDE, cluster("001", "002"), told={N1: self.MOVED, N2: ["10.0.1.230"]}))
        assert (found["10.0.1.230:6379"], found["10.0.1.240:6379"]) == (6380, 6379)

    def test_they_are_nobody_s_where_the_node_that_has_them_now_has_no_port(self) -> None:
        cache = cluster("001", "002")
        served = [route for route in routes_of(GUIDE, cache) if route.port != 6380]
        found = only(written(GUIDE, cache, told={N1: self.MOVED, N2: ["10.0.1.230"]}, routes=served))
        assert "10.0.1.230:6379" not in found

    def test_of_two_that_left_the_last_one_counts(self) -> None:
        later = history((180, ["10.0.1.230"]), (100, ["10.0.1.250"]))
        for names in ((N1, N2), (N2, N1)):
            told = dict(zip(names, (self.MOVED, later), strict=True))
            found = only(written(GUIDE, cluster("001", "002"), told=told))
            assert found["10.0.1.230:6379"] == (6380 if names[1] == N2 else 6379)

    def test_a_name_that_comes_and_goes_keeps_both_addresses(self) -> None:
        lagging = history((30, ["10.0.1.230"]), (20, ["10.0.1.240"]), (10, ["10.0.1.230"]), (5, ["10.0.1.240"]))
        found = only(written(GUIDE, cluster("001"), told={N1: lagging}))
        assert (found["10.0.1.230:6379"], found["10.0.1.240:6379"]) == (6379, 6379)


class TestWithoutPortsForNodes:
    """In a group of one shard ``primary`` and ``reader`` stand for its nodes, as far as they can."""

    TEXT = ALLOW + "caches: [{id: my-redis, ports: 6379-6388, endpoints: [primary, reader]}]"

    @pytest.mark.parametrize("mode", [Mode.CLUSTER_DISABLED, Mode.CLUSTER_COMPATIBLE])
    def test_each_node_is_reached_by_its_role(self, mode: Mode) -> None:
        """That of a replica which the reader's name has not led to lately is what AWS says."""
        assert only(written(self.TEXT, redis(mode=mode), told=ROLES)) == {
            f"{PRIMARY}:6379": 6379,
            "10.0.1.230:6379": 6379,
            f"{N1}:6379": 6379,
            f"{READER}:6379": 6380,
            "10.0.1.231:6379": 6380,
            f"{N2}:6379": 6380,
            "10.0.1.232:6379": 6380,
            f"{N3}:6379": 6380,
        }

    def test_the_primary_s_name_is_enough(self) -> None:
        text = self.TEXT.replace(", reader", "")
        found = only(written(text, redis(), told={PRIMARY: ["10.0.1.230"]}))
        assert found == {f"{PRIMARY}:6379": 6379, "10.0.1.230:6379": 6379, f"{N1}:6379": 6379}

    def test_names_know_of_a_failover_before_aws_tells_it(self) -> None:
        moved = history((300, ["10.0.1.230"]), (5, ["10.0.1.231"]))
        rotated = history((300, ["10.0.1.231"]), (5, ["10.0.1.230"]))
        found = only(written(self.TEXT, redis(), told={**GUIDE_ADDRESSES, PRIMARY: moved, READER: rotated}))
        assert (found["10.0.1.231:6379"], found["10.0.1.230:6379"]) == (6379, 6380)

    def test_an_address_that_left_primary_is_not_the_primary_s(self) -> None:
        nodes = tuple(replace(one, role=None) for one in redis().nodes)
        moved = history((300, ["10.0.1.230"]), (5, ["10.0.1.231"]))
        found = only(written(self.TEXT, redis(nodes=nodes), told={PRIMARY: moved}))
        assert found == {f"{PRIMARY}:6379": 6379, "10.0.1.231:6379": 6379, f"{READER}:6379": 6380}

    def test_the_reader_s_name_rotates(self) -> None:
        rotated = history((30, ["10.0.1.231"]), (20, ["10.0.1.232"]), (10, ["10.0.1.231"]))
        found = only(written(self.TEXT, redis(), told={PRIMARY: ["10.0.1.230"], READER: rotated}))
        assert (found["10.0.1.231:6379"], found["10.0.1.232:6379"]) == (6380, 6380)

    def test_a_reader_without_replicas_leads_to_the_primary(self) -> None:
        told = {PRIMARY: ["10.0.1.230"], READER: ["10.0.1.230"]}
        assert only(written(self.TEXT, redis(), told=told))["10.0.1.230:6379"] == 6379

    def test_a_promoted_replica_is_the_reader_s_no_more(self) -> None:
        text = self.TEXT.replace("primary, ", "")
        rotated = history((300, ["10.0.1.230"]), (5, ["10.0.1.231"]))
        found = only(written(text, redis(), told={**GUIDE_ADDRESSES, READER: rotated}))
        assert "10.0.1.230:6379" not in found
        assert f"{N1}:6379" not in found
        assert found["10.0.1.231:6379"] == found["10.0.1.232:6379"] == found[f"{N3}:6379"] == 6379

    def test_where_nodes_should_have_ports_no_other_port_stands_for_them(self) -> None:
        served = [route for route in routes_of(GUIDE, redis()) if route.key.kind is not Kind.NODE]
        found = only(written(GUIDE, redis(), told=ROLES, routes=served))
        assert found == {f"{PRIMARY}:6379": 6382, f"{READER}:6379": 6383}
        unresolved = {PRIMARY: ["10.0.1.230"], READER: ["10.0.1.231"]}
        assert only(written(GUIDE, redis(), told=unresolved, routes=served)) == found

    def test_an_address_that_a_replica_left_leads_to_replicas(self) -> None:
        moved = history((300, ["10.0.1.239"]), (200, ["10.0.1.232"]))
        assert only(written(self.TEXT, redis(), told={**ROLES, N3: moved}))["10.0.1.239:6379"] == 6380

    def test_a_configuration_endpoint_stands_for_no_node(self) -> None:
        text = self.TEXT.replace("primary, reader", "configuration")
        told = {host("my-redis-001.0001"): ["10.0.1.230"], host("my-redis.clustercfg"): ["10.0.1.230"]}
        assert written(text, cluster("001"), told=told) == {"my-redis": BookEntries(())}

    def test_a_standalone_cache_for_which_it_was_written(self) -> None:
        text = ALLOW + "caches: [{id: my-redis, ports: 6379-6388, rewrite: redis}]"
        cache = redis(mode=Mode.STANDALONE, nodes=(node("my-redis"),), endpoints={})
        name = host("my-redis.0001")
        assert only(written(text, cache, told={name: ["10.0.1.230"]})) == {
            f"{name}:6379": 6379,
            "10.0.1.230:6379": 6379,
        }


class TestServerless:
    TEXT = ALLOW + "caches: [{id: my-serverless, ports: 6400-6409}]"
    NAME = host("my-serverless.serverless")

    def test_one_name_leads_to_two_ports_by_its_own(self) -> None:
        assert only(written(self.TEXT, serverless(), told={self.NAME: ["10.0.1.1", "10.0.1.2"]})) == {
            f"{self.NAME}:6379": 6400,
            "10.0.1.1:6379": 6400,
            "10.0.1.2:6379": 6400,
            f"{self.NAME}:6380": 6401,
            "10.0.1.1:6380": 6401,
            "10.0.1.2:6380": 6401,
        }

    def test_a_reader_without_a_port_is_in_no_book(self) -> None:
        text = self.TEXT.replace("6409}", "6409, endpoints: primary}")
        found = only(written(text, serverless(), told={self.NAME: ["10.0.1.1"]}))
        assert found == {f"{self.NAME}:6379": 6400, "10.0.1.1:6379": 6400}

    def test_the_name_rotates(self) -> None:
        rotated = history((90, ["10.0.1.1"]), (40, ["10.0.1.2"]), (10, ["10.0.1.3"]))
        found = only(written(self.TEXT, serverless(), told={self.NAME: rotated}))
        for number in (1, 2, 3):
            assert (found[f"10.0.1.{number}:6379"], found[f"10.0.1.{number}:6380"]) == (6400, 6401)


class TestStatic:
    TEXT = (
        ALLOW + "rewrite: redis\nstatic:\n"
        "- {name: a, port: 6490, target: 'a.internal:6379'}\n"
        "- {name: b, port: 6491, target: '10.0.1.231:6380'}\n"
        "- {name: c, port: 6492, target: 'a.internal:6379'}\n"
        "- {name: d, port: 6493, target: 'd.internal:6379', rewrite: off}\n"
        "- {name: e, port: 6494, target: 'e.internal:6379', clients: {tls: passthrough}}\n"
        "- {name: f, port: 6495, target: 'f.internal:11211', rewrite: memcached}\n"
    )

    def test_all_that_are_rewritten_alike_have_one_book_and_the_lowest_port_counts(self) -> None:
        told: Told = {
            "a.internal": history((300, ["10.0.1.229"]), (100, ["10.0.1.230"])),
            "10.0.1.231": ["10.0.1.231"],
            "d.internal": ["10.0.1.232"],
            "e.internal": ["10.0.1.233"],
            "f.internal": ["10.0.1.234"],
        }
        expected = {
            "static:redis": BookEntries(
                (
                    ("10.0.1.229", 6379, 6490),
                    ("10.0.1.230", 6379, 6490),
                    ("10.0.1.231", 6380, 6491),
                    ("a.internal", 6379, 6490),
                )
            ),
            "static:memcached": BookEntries((("10.0.1.234", 11211, 6495), ("f.internal", 11211, 6495))),
        }
        for served in (routes_of(self.TEXT), routes_of(self.TEXT)[::-1]):
            assert written(self.TEXT, told=told, routes=served) == expected


def test_a_large_cluster_has_every_node_by_its_name_and_both_its_addresses() -> None:
    cache = cluster(*(f"{shard:04}-{member:03}" for shard in range(1, 126) for member in range(1, 5)))
    assert len(cache.nodes) == 500
    text = ALLOW + "caches: [{id: my-redis, ports: 7000-7999}]"
    names = [one.endpoint.host for one in cache.nodes if one.endpoint is not None]
    known = {
        name: history((300, [f"10.1.{number // 250}.{number % 250}"]), (100, [f"10.2.{number // 250}.{number % 250}"]))
        for number, name in enumerate(names)
    }
    served = routes_of(text, cache)
    found = books(config(text), snapshot(cache), served, known, NOW)
    assert len(found["my-redis"].ports) == 1500


_IPS = st.sampled_from([f"10.0.1.{number}" for number in range(4)] + ["fd00::1"])
_HISTORIES = st.lists(st.tuples(st.floats(0, 1000), st.frozensets(_IPS, min_size=1, max_size=3)), max_size=4)


@given(
    st.lists(
        st.tuples(_HISTORIES, st.booleans(), st.booleans(), st.sampled_from([None, *Role])), min_size=1, max_size=5
    ),
    st.sampled_from([Mode.CLUSTER_ENABLED, Mode.CLUSTER_DISABLED, Mode.MEMCACHED]),
)
def test_whatever_is_known_a_book_holds_only_its_own(
    nodes: list[tuple[list[tuple[float, frozenset[str]]], bool, bool, Role | None]], mode: Mode
) -> None:
    """Every port is one that is served; who has an address now, and alone, is who it leads to; order means nothing."""
    known = {}
    cache = redis(mode=mode, nodes=tuple(node(f"my-redis-{number}") for number in range(len(nodes))), endpoints={})
    served = routes_of(GUIDE, cache)
    changed = []
    for one, (answers, is_deleting, _, role) in zip(cache.nodes, nodes, strict=True):
        assert one.endpoint is not None
        if answers:
            known[one.endpoint.host] = history(*sorted(answers, key=lambda answer: -answer[0]))
        changed.append(replace(one, is_deleting=is_deleting, role=role))
    opened = [route for route, (_, _, is_open, _) in zip(served, nodes, strict=True) if is_open]
    cache = replace(cache, nodes=tuple(changed))
    found = written(GUIDE, cache, told=known, routes=opened)
    assert found == written(GUIDE, replace(cache, nodes=cache.nodes[::-1]), told=known, routes=opened[::-1])
    if not opened:
        assert found == {}
        return
    ports = {(name, number): port for name, number, port in found["my-redis"].ports}
    assert set(ports.values()) == {route.port for route in opened}
    holders: dict[str, set[int | None]] = {}
    open_ports = {route.key.node: route.port for route in opened}
    for one in cache.nodes:
        assert one.endpoint is not None
        for ip in known[one.endpoint.host].current if one.endpoint.host in known else ():
            holders.setdefault(ip, set()).add(open_ports.get(one.id))
    for ip, those in holders.items():
        assert ports.get((ip, 6379)) in (those - {None} or {None})
