from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from natproxy.model import (
    Cache,
    Endpoint,
    Kind,
    Limits,
    Mode,
    NodeId,
    NodeTls,
    PortMap,
    Role,
    Route,
    RouteKey,
    Snapshot,
)
from natproxy.plan.changes import ends_connections, plan_changes
from natproxy.plan.ports import assign_ports
from natproxy.plan.routes import (
    NO_PORT_YET,
    PASSTHROUGH_NOTE,
    TLS_REQUIRED,
    Desired,
    Unplaced,
    desired_routes,
    hosts_to_watch,
    node_roles,
)
from tests.plan.samples import GUIDE, config, host, key, memcached, node, redis, route, serverless, snapshot

ALLOW = "clients: {allow: [198.51.100.27/32]}\n"
LAPTOP = (ipaddress.ip_network("198.51.100.27/32"),)


def desired(text: str, *caches: Cache, before: PortMap | None = None) -> Desired:
    one = snapshot(*caches)
    found = assign_ports(before or PortMap(), one, config(text), 100.0)
    return desired_routes(config(text), one, found.portmap, found.errors)


def by_port(found: Desired) -> dict[int, Route]:
    assert not found.unplaced
    assert [one.port for one in found.routes] == sorted({one.port for one in found.routes})
    return {one.port: one for one in found.routes}


def test_the_guides_nodes_then_endpoints() -> None:
    routes = by_port(desired(GUIDE, redis()))
    assert {port: str(one.target) for port, one in routes.items()} == {
        6379: host("my-redis-001.0001") + ":6379",
        6380: host("my-redis-002.0001") + ":6379",
        6381: host("my-redis-003.0001") + ":6379",
        6382: host("my-redis-master") + ":6379",
        6383: host("my-redis-ro") + ":6379",
    }
    assert routes[6380] == Route(
        port=6380,
        key=RouteKey("my-redis", Kind.NODE, NodeId("my-redis-002", "0001")),
        target=Endpoint(host("my-redis-002.0001"), 6379),
        mode=Mode.CLUSTER_DISABLED,
        allow=LAPTOP,
        rewrite="replication",
        book="my-redis",
    )


def test_only_a_configuration_endpoint_falls_back_and_does_so_to_every_node() -> None:
    text = ALLOW + "caches: [{id: my-memcached, ports: 11211-11240}]"
    nodes = (
        node("my-memcached", "0010"),
        node("my-memcached", "0002"),
        node("my-memcached", "0003", is_deleting=True),
        node("my-memcached", "0004", endpoint=None),
    )
    routes = by_port(desired(text, memcached(nodes=nodes)))
    fallbacks = {one.key.kind: one.fallback for one in routes.values() if one.fallback}
    assert fallbacks == {
        Kind.CONFIGURATION: (
            Endpoint(host("my-memcached.0002"), 6379),
            Endpoint(host("my-memcached.0010"), 6379),
        )
    }


def test_a_configuration_endpoint_falls_back_to_nodes_that_have_no_routes_too() -> None:
    text = ALLOW + "caches: [{id: my-memcached, ports: 11211-11240, endpoints: [configuration]}]"
    routes = by_port(desired(text, memcached()))
    assert len(routes) == 1
    assert len(routes[11211].fallback) == 3


def test_a_node_that_is_being_created_has_a_route_to_nowhere_yet() -> None:
    nodes = (node("my-redis-001"), node("my-redis-002", endpoint=None))
    assert by_port(desired(GUIDE, redis(nodes=nodes)))[6380].target is None


def test_nodes_and_caches_that_are_being_deleted_are_left_out_so_that_they_close() -> None:
    running = by_port(desired(GUIDE, redis()))
    portmap = assign_ports(PortMap(), snapshot(redis()), config(), 0.0).portmap
    nodes = tuple(replace(one, is_deleting=one.id.cluster == "my-redis-002") for one in redis().nodes)
    plan = plan_changes(running, desired(GUIDE, redis(nodes=nodes), before=portmap).routes)
    assert ([one.port for one in plan.close], plan.open, plan.retarget) == ([6380], (), ())
    plan = plan_changes(running, desired(GUIDE, redis(is_deleting=True), before=portmap).routes)
    assert [one.port for one in plan.close] == [6379, 6380, 6381, 6382, 6383]


def test_static_routes() -> None:
    text = ALLOW + "static: [{name: legacy, port: 6490, target: 'legacy.internal:6379'}]"
    assert by_port(desired(text)) == {
        6490: Route(
            port=6490,
            key=RouteKey("legacy", Kind.STATIC),
            target=Endpoint("legacy.internal", 6379),
            mode=Mode.STATIC,
            allow=LAPTOP,
        )
    }


EFFECTIVE = """
clients: {allow: [198.51.100.27/32], max_connections: 1000}
timeouts: {connect: 1s, idle: 2m, keepalive: 20s, drain: 10s}
caches:
  - {id: a, ports: 1001-1009}
  - id: b
    ports: 2001-2009
    clients: {allow: [10.0.0.0/8], max_connections_per_client: 7}
    timeouts: {drain: 1s, handshake: 9s}
  - {tags: {Team: x, Environment: dev}, ports: 3001-3009, clients: {max_connections: 5}}
static:
  - {name: s, port: 4001, target: "s.internal:1", timeouts: {idle: 9s}}
  - {name: t, port: 4002, target: "t.internal:1", clients: {max_connections: 3}}
"""


PRIVATE = (ipaddress.ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (1001, (Limits(1.0, 5.0, 120.0, 20.0, 10.0), LAPTOP, "", 1000, 512)),
        (2001, (Limits(1.0, 9.0, 120.0, 20.0, 1.0), PRIVATE, "b", 1000, 7)),
        (3001, (Limits(1.0, 5.0, 120.0, 20.0, 10.0), LAPTOP, "Environment=dev,Team=x", 5, 512)),
        (4001, (Limits(1.0, 5.0, 9.0, 20.0, 10.0), LAPTOP, "", 1000, 512)),
        (4002, (Limits(1.0, 5.0, 120.0, 20.0, 10.0), LAPTOP, "t", 3, 512)),
    ],
)
def test_an_entrys_own_values_count_before_the_global_ones(port: int, expected: tuple[object, ...]) -> None:
    caches = [redis(name, ["-001"], endpoints={}, entry=entry) for entry, name in enumerate("abc")]
    one = by_port(desired(EFFECTIVE, *caches))[port]
    assert (
        one.limits,
        one.allow,
        one.limit_group,
        one.max_connections,
        one.max_connections_per_client,
    ) == expected


TLS_FILES = "tls: {certificate: /tls/server.crt, key: /tls/server.key}\n"
CLIENT_CA = "tls: {certificate: /tls/server.crt, key: /tls/server.key, client_ca: /tls/clients.crt}\n"
ON, OFF, ERROR = ("on", None), ("off", None), ("off", TLS_REQUIRED)


@pytest.mark.parametrize("clients", ["off", "terminate", "passthrough"])
@pytest.mark.parametrize(
    ("told", "nodes", "expected"),
    [
        (NodeTls.OFF, "auto", OFF),
        (NodeTls.OFF, "on", ON),
        (NodeTls.OFF, "off", OFF),
        (NodeTls.PREFERRED, "auto", ON),
        (NodeTls.PREFERRED, "on", ON),
        (NodeTls.PREFERRED, "off", OFF),
        (NodeTls.REQUIRED, "auto", ON),
        (NodeTls.REQUIRED, "on", ON),
        (NodeTls.REQUIRED, "off", ERROR),
    ],
)
def test_what_each_side_speaks(clients: str, told: NodeTls, nodes: str, expected: tuple[str, str | None]) -> None:
    """What AWS says, nodes.tls and clients.tls, in every combination. What passes through natproxy leaves alone."""
    own = f"clients: {{tls: {clients}}}" + ("" if clients == "passthrough" else f", nodes: {{tls: {nodes}}}")
    common = f"nodes: {{tls: {nodes}}}\n" if clients == "passthrough" else ""
    text = ALLOW + TLS_FILES + common + f"caches: [{{id: my-redis, ports: 6379-6388, {own}}}]"
    routes = by_port(desired(text, redis(tls=told))).values()
    assert len(routes) == 5
    for one in routes:
        assert (one.client_tls, one.node_tls, one.error) == (clients, *(OFF if clients == "passthrough" else expected))


@pytest.mark.parametrize(
    ("clients", "nodes", "expected"),
    [
        (clients, nodes, ("on" if nodes == "on" and clients != "passthrough" else "off"))
        for clients in ("off", "terminate", "passthrough")
        for nodes in ("auto", "on", "off")
    ],
)
def test_what_each_side_of_a_static_route_speaks(clients: str, nodes: str, expected: str) -> None:
    text = (
        ALLOW + TLS_FILES + f"nodes: {{tls: {nodes}}}\n"
        f"static: [{{name: s, port: 6490, target: 's.internal:1', clients: {{tls: {clients}}}}}]"
    )
    one = by_port(desired(text))[6490]
    assert (one.client_tls, one.node_tls, one.error) == (clients, expected, None)


def test_the_reason_names_the_ways_out() -> None:
    assert "leave nodes.tls out" in TLS_REQUIRED
    assert "clients: {tls: passthrough}" in TLS_REQUIRED


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("", ("off", "", None)),
        ("nodes: {ca: /tls/nodes.crt, server_name: n.example}", ("off", "", None)),
        ("nodes: {tls: on}", ("on", "", None)),
        ("nodes: {tls: on, ca: /tls/nodes.crt}", ("on", "/tls/nodes.crt", None)),
        ("nodes: {tls: on, server_name: n.example}", ("on", "", "n.example")),
    ],
)
def test_who_vouches_for_a_node_matters_only_where_tls_is_spoken_to_it(
    own: str, expected: tuple[str, str, str | None]
) -> None:
    for scope in ("", "nothing of its own"):
        mine = f", {own}" if own and not scope else ""
        text = ALLOW + (f"{own}\n" if scope else "")
        text += f"caches: [{{id: my-redis, ports: 6379-6388{mine}}}]\n"
        text += f"static: [{{name: s, port: 6490, target: 's.internal:1'{mine}}}]"
        for one in by_port(desired(text, redis())).values():
            assert (one.node_tls, one.node_ca, one.server_name) == expected


class TestClientCertificates:
    def test_any_that_the_ca_vouches_for_and_then_from_everywhere(self) -> None:
        one = by_port(desired(CLIENT_CA + "caches: [{id: my-redis, ports: 6379-6388}]", redis()))[6379]
        assert (one.client_tls, one.certificates, one.allow) == ("terminate", None, None)

    def test_only_those_named_and_from_where_it_is_written(self) -> None:
        clients = "clients: {allow: [198.51.100.27/32], certificates: [dev1, '*.ci.example.com']}\n"
        one = by_port(desired(CLIENT_CA + clients + "caches: [{id: my-redis, ports: 6379-6388}]", redis()))[6379]
        assert (one.certificates, one.allow) == (("dev1", "*.ci.example.com"), LAPTOP)

    def test_each_entry_has_its_own(self) -> None:
        text = CLIENT_CA + (
            "clients: {certificates: dev1}\n"
            "caches:\n"
            "  - {id: my-redis, ports: 6379-6388, clients: {certificates: [dev2]}}\n"
            "  - {id: other, ports: 6389-6398}\n"
        )
        routes = by_port(desired(text, redis(), redis("other", entry=1)))
        assert (routes[6379].certificates, routes[6389].certificates) == (("dev2",), ("dev1",))


def test_serverless_requires_tls() -> None:
    text = ALLOW + "caches: [{id: my-serverless, ports: 6379-6380}]"
    routes = by_port(desired(text, serverless()))
    assert {one.key.kind: (port, one.target, one.fallback, one.node_tls) for port, one in routes.items()} == {
        Kind.PRIMARY: (6379, Endpoint(host("my-serverless.serverless"), 6379), (), "on"),
        Kind.READER: (6380, Endpoint(host("my-serverless.serverless"), 6380), (), "on"),
    }


CLUSTER, REPLICATION, MEMCACHED, NOTHING = "cluster", "replication", "memcached", ""
NOT_REDIS = "the config says rewrite: redis, and this is a memcached cache: taken as rewrite: auto"
NOT_MEMCACHED = "the config says rewrite: memcached, and this is a Redis or Valkey cache: taken as rewrite: auto"


class TestRewriting:
    @pytest.mark.parametrize(
        ("mode", "engine", "auto", "redis", "memcached"),
        [
            (Mode.CLUSTER_ENABLED, "redis", CLUSTER, (CLUSTER, ""), (CLUSTER, NOT_MEMCACHED)),
            (Mode.CLUSTER_COMPATIBLE, "valkey", CLUSTER, (CLUSTER, ""), (CLUSTER, NOT_MEMCACHED)),
            (Mode.SERVERLESS, "valkey", CLUSTER, (CLUSTER, ""), (CLUSTER, NOT_MEMCACHED)),
            (Mode.CLUSTER_DISABLED, "redis", REPLICATION, (REPLICATION, ""), (REPLICATION, NOT_MEMCACHED)),
            (Mode.STANDALONE, "redis", NOTHING, (REPLICATION, ""), (NOTHING, NOT_MEMCACHED)),
            (Mode.MEMCACHED, "memcached", MEMCACHED, (MEMCACHED, NOT_REDIS), (MEMCACHED, "")),
            (Mode.MEMCACHED, "", MEMCACHED, (MEMCACHED, NOT_REDIS), (MEMCACHED, "")),
            (Mode.SERVERLESS, "memcached", MEMCACHED, (MEMCACHED, NOT_REDIS), (MEMCACHED, "")),
            (Mode.SERVERLESS, "", CLUSTER, (CLUSTER, ""), (CLUSTER, NOT_MEMCACHED)),
        ],
    )
    def test_a_cache_is_rewritten_as_what_it_is(
        self, mode: Mode, engine: str, auto: str, redis: tuple[str, str], memcached: tuple[str, str]
    ) -> None:
        cache = serverless("my-redis", mode=mode, engine=engine, tls=NodeTls.OFF)
        expected = {"auto": (auto, ""), "off": ("", ""), "redis": redis, "memcached": memcached}
        for written, (how, note) in expected.items():
            for one in self.of(f"rewrite: {written}", cache):
                assert (one.rewrite, one.rewrite_note, one.book) == (how, note, "my-redis" if how else "")
            for one in self.of(f"clients: {{tls: passthrough}}, rewrite: {written}", cache):
                assert (one.rewrite, one.book) == ("", "")
                assert one.rewrite_note == (PASSTHROUGH_NOTE if how else note)

    def of(self, own: str, cache: Cache) -> list[Route]:
        found = list(by_port(desired(ALLOW + f"caches: [{{id: my-redis, ports: 1-9, {own}}}]", cache)).values())
        assert found
        return found

    def test_every_mode_of_a_cache_has_been_thought_of(self) -> None:
        for mode in set(Mode) - {Mode.STATIC}:
            assert self.of("rewrite: auto", redis(mode=mode))

    def test_every_route_of_a_cache_uses_its_one_book(self) -> None:
        routes = by_port(desired(GUIDE, redis())).values()
        assert {one.key.kind for one in routes} == {Kind.NODE, Kind.PRIMARY, Kind.READER}
        assert {(one.rewrite, one.book) for one in routes} == {("replication", "my-redis")}

    @pytest.mark.parametrize(
        ("own", "expected"),
        [
            ("", ("", "", "")),
            ("rewrite: auto", ("", "", "")),
            ("rewrite: off", ("", "", "")),
            ("rewrite: redis", ("cluster", "", "static:redis")),
            ("rewrite: memcached", ("memcached", "", "static:memcached")),
            ("rewrite: redis, clients: {tls: terminate}", ("cluster", "", "static:redis")),
            ("rewrite: redis, clients: {tls: passthrough}", ("", PASSTHROUGH_NOTE, "")),
            ("clients: {tls: passthrough}", ("", "", "")),
        ],
    )
    def test_a_static_target_is_what_the_config_says(self, own: str, expected: tuple[str, str, str]) -> None:
        text = ALLOW + TLS_FILES + f"static: [{{name: s, port: 6490, target: 's.internal:1', {own}}}]"
        one = by_port(desired(text))[6490]
        assert (one.rewrite, one.rewrite_note, one.book) == expected

    def test_a_reload_of_another_wish_changes_the_route_and_ends_no_connection(self) -> None:
        before = by_port(desired(GUIDE, redis()))
        after = desired(GUIDE + "rewrite: off", redis()).routes
        plan = plan_changes(before, after)
        assert [one.port for one in plan.retarget] == [6379, 6380, 6381, 6382, 6383]
        assert not any(ends_connections(before[one.port], one, is_reload=True) for one in plan.retarget)


def test_what_found_no_port_is_told_apart_and_stops_nothing_else() -> None:
    found = desired(ALLOW + "caches: [{id: my-redis, ports: 6379-6381}]", redis())
    assert [one.port for one in found.routes] == [6379, 6380, 6381]
    assert found.unplaced == (
        Unplaced(key("primary"), "no port is left for it in 6379-6381"),
        Unplaced(key("reader"), "no port is left for it in 6379-6381"),
    )


def test_a_key_whose_number_is_only_kept_for_it_is_not_served_there() -> None:
    before = assign_ports(PortMap(), snapshot(redis(endpoints={})), config(), 0.0).portmap
    found = desired(ALLOW + "caches: [{id: my-redis, ports: 6379-6380}]", redis(endpoints={}), before=before)
    assert [one.port for one in found.routes] == [6379, 6380]
    assert [one.key for one in found.unplaced] == [key("-003")]


def test_a_static_route_has_its_port_before_all_others() -> None:
    before = assign_ports(PortMap(), snapshot(redis(endpoints={})), config(), 0.0).portmap
    text = GUIDE.replace("6379-6388", "6380-6388") + "static: [{name: s, port: 6379, target: 's.internal:1'}]"
    routes = by_port(desired(text, redis(endpoints={}), before=before))
    assert routes[6379].key.kind is Kind.STATIC
    assert {str(one.key) for one in routes.values()} == {"s:static", *(f"my-redis-00{n}/0001" for n in (1, 2, 3))}


def test_before_any_port_is_assigned_nothing_is_served() -> None:
    found = desired_routes(config(), snapshot(redis(endpoints={})), PortMap(), {})
    assert found.routes == ()
    assert {one.reason for one in found.unplaced} == {NO_PORT_YET}


def test_the_order_of_an_answer_means_nothing() -> None:
    cache = memcached("my-redis", count=12)
    text = ALLOW + "caches: [{id: my-redis, ports: 6379-6399}]"
    assert desired(text, replace(cache, nodes=cache.nodes[::-1])) == desired(text, cache)


class TestHosts:
    def test_all_that_may_be_dialled(self) -> None:
        routes = [
            route(),
            route(Kind.CONFIGURATION, target=Endpoint("cfg", 1), fallback=(Endpoint("n1", 1),)),
            route(target=None),
        ]
        assert hosts_to_watch(routes, Snapshot()) == {"target", "cfg", "n1"}

    def test_the_nodes_behind_a_reader_tell_which_address_was_promoted(self) -> None:
        text = ALLOW + "caches: [{id: my-redis, ports: 6379-6388, endpoints: [reader]}]"
        nodes = (*redis(clusters=["-001", "-002"]).nodes, node("my-redis-003", endpoint=None, role=Role.REPLICA))
        cache = redis(nodes=nodes)
        assert hosts_to_watch(desired(text, cache).routes, snapshot(cache)) == {
            host("my-redis-ro"),
            host("my-redis-001.0001"),
            host("my-redis-002.0001"),
        }

    def test_no_names_are_asked_for_that_nobody_needs(self) -> None:
        text = ALLOW + "caches: [{id: my-redis, ports: 6379-6388, endpoints: [primary]}]"
        assert hosts_to_watch(desired(text, redis()).routes, snapshot(redis())) == {host("my-redis-master")}


def test_node_roles() -> None:
    nodes = (node("a", role=Role.PRIMARY), node("b", role=Role.REPLICA), node("c"))
    assert node_roles(redis(nodes=nodes)) == {
        NodeId("a", "0001"): Role.PRIMARY,
        NodeId("b", "0001"): Role.REPLICA,
    }


def test_a_crash_between_saving_the_map_and_opening_ports_reshuffles_nothing() -> None:
    """The saved map and snapshot alone lead to the very routes that were about to be opened."""
    one = snapshot(redis(clusters=["-001", "-003"]))
    saved = assign_ports(PortMap(), one, config(), 0.0).portmap
    grown = snapshot(redis())
    about_to_run = assign_ports(saved, grown, config(), 10.0)
    wanted = desired_routes(config(), grown, about_to_run.portmap, {})
    again = assign_ports(about_to_run.portmap, grown, config(), 20.0)
    assert desired_routes(config(), grown, again.portmap, again.errors) == wanted
    assert plan_changes({one.port: one for one in wanted.routes[:2]}, wanted.routes).open == wanted.routes[2:]
