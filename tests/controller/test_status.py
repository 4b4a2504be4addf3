from __future__ import annotations

import functools
import json
import tempfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from natproxy.config import Config, load_config
from natproxy.controller.status import RouteStatus, ports_document, routes_document, status_line
from natproxy.documents import PortsDocument, RoutesDocument
from natproxy.model import (
    Address,
    Cache,
    Endpoint,
    Kind,
    Mode,
    Node,
    NodeId,
    NodeTls,
    PortEntry,
    PortMap,
    Role,
    Route,
    RouteKey,
    RouteState,
    Snapshot,
)

NOW = datetime(2025, 1, 31, 12, 0, 0, 999999, UTC)
NODE = NodeId("my-redis-001", "0001")
NODE_KEY = RouteKey("my-redis", Kind.NODE, NODE)
STATIC_KEY = RouteKey("legacy", Kind.STATIC)
MY_REDIS = Cache(
    "my-redis", "redis", Mode.CLUSTER_DISABLED, NodeTls.PREFERRED, (Node(NODE, Endpoint("a.example", 6379)),)
)

CONFIG = """
public_host: 203.0.113.73
clients: {allow: [198.51.100.27/32]}
caches: [{id: my-redis, ports: 6379-6388}, {id: other, ports: 6400-6409}]
static: [{name: legacy, port: 6380, target: "legacy.internal:6379"}]
"""


@functools.cache
def config(text: str = CONFIG.replace("6379-6388", "6389-6398")) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "natproxy.yaml"
        path.write_text(text)
        return load_config(path)


def status(port: int, key: RouteKey, state: RouteState = RouteState.OPEN, reason: str = "") -> RouteStatus:
    mode = Mode.STATIC if key.kind is Kind.STATIC else Mode.CLUSTER_DISABLED
    return RouteStatus(Route(port, key, Endpoint("a.example", 6379), mode), state, reason)


def caches(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {cache["id"]: cache for cache in document["caches"]}


def test_a_route_is_shown_as_the_interface_says() -> None:
    route = Route(6389, NODE_KEY, Endpoint("a.example", 6379), Mode.CLUSTER_DISABLED, client_tls="passthrough")
    addresses = (Address("10.0.1.230", 6379), Address("fd00::1", 6379))
    shown = RouteStatus(route, RouteState.OPEN, "", addresses, 3, Role.PRIMARY, "eu-west-1a")
    document = routes_document(config(), Snapshot((MY_REDIS,), notes=("a note",)), [shown], NOW)
    assert json.loads(json.dumps(document)) == {
        "version": 1,
        "public_host": "203.0.113.73",
        "public_ip": "203.0.113.73",
        "portal_port": None,
        "generated": "2025-01-31T12:00:00Z",
        "notes": ["a note"],
        "caches": [
            {
                "id": "my-redis",
                "engine": "redis",
                "mode": "cluster-disabled",
                "tls": "preferred",
                "reason": None,
                "routes": [
                    {
                        "port": 6389,
                        "kind": "node",
                        "node": {"cluster": "my-redis-001", "id": "0001"},
                        "role": "primary",
                        "zone": "eu-west-1a",
                        "target": "a.example:6379",
                        "addresses": ["10.0.1.230:6379", "[fd00::1]:6379"],
                        "state": "open",
                        "reason": None,
                        "tls": "passthrough",
                        "certificate": False,
                        "node_tls": "off",
                        "rewrite": "off",
                        "rewrite_note": None,
                        "connections": 3,
                    }
                ],
            },
            {
                "id": "other",
                "engine": None,
                "mode": None,
                "tls": None,
                "reason": "AWS knows no cache of this id",
                "routes": [],
            },
        ],
    }


def test_a_certificate_is_demanded_where_tls_ends_here_and_somebody_vouches_for_clients() -> None:
    tls = "tls: {certificate: /c.crt, key: /c.key%s}\n"
    for client_tls, text, is_demanded in (
        ("terminate", tls % ", client_ca: /ca.crt, crl: /crl", True),
        ("terminate", tls % "", False),
        ("passthrough", tls % ", client_ca: /ca.crt, crl: /crl", False),
        ("off", tls % ", client_ca: /ca.crt, crl: /crl", False),
    ):
        route = Route(6389, NODE_KEY, Endpoint("a.example", 6379), Mode.CLUSTER_DISABLED, client_tls=client_tls)
        found = config(CONFIG.replace("6379-6388", "6389-6398") + text)
        document = routes_document(found, Snapshot((MY_REDIS,)), [RouteStatus(route, RouteState.OPEN)], NOW)
        assert caches(document)["my-redis"]["routes"][0]["certificate"] is is_demanded


def test_a_route_shows_what_clients_speak_and_a_cache_what_it_accepts() -> None:
    for client_tls in ("off", "terminate", "passthrough"):
        for told in NodeTls:
            route = Route(6389, NODE_KEY, Endpoint("a.example", 6379), Mode.CLUSTER_DISABLED, client_tls=client_tls)
            cache = Cache("my-redis", "redis", Mode.CLUSTER_DISABLED, told, ())
            shown = routes_document(config(), Snapshot((cache,)), [RouteStatus(route, RouteState.OPEN)], NOW)
            assert (caches(shown)["my-redis"]["tls"], caches(shown)["my-redis"]["routes"][0]["tls"]) == (
                told.value,
                client_tls,
            )


@pytest.mark.parametrize(
    ("how", "shown"),
    [("", "off"), ("cluster", "redis"), ("replication", "redis"), ("memcached", "memcached")],
)
def test_a_route_shows_as_what_its_replies_are_rewritten(how: str, shown: str) -> None:
    for note, told in (("", None), ("why", "why")):
        route = Route(6389, NODE_KEY, None, Mode.CLUSTER_DISABLED, rewrite=how, rewrite_note=note)
        document = routes_document(config(), Snapshot((MY_REDIS,)), [RouteStatus(route, RouteState.OPEN)], NOW)
        (view,) = caches(document)["my-redis"]["routes"]
        assert (view["rewrite"], view["rewrite_note"]) == (shown, told)


def test_the_document_is_what_the_commands_read() -> None:
    document = routes_document(config(), Snapshot((MY_REDIS,)), [status(6389, NODE_KEY)], NOW)
    found = msgspec.json.decode(msgspec.json.encode(document), type=RoutesDocument)
    assert msgspec.to_builtins(found) == document


def test_a_time_of_another_zone_is_shown_in_utc() -> None:
    moment = NOW.astimezone(timezone(timedelta(hours=5)))
    assert routes_document(config(), Snapshot(), [], moment)["generated"] == "2025-01-31T12:00:00Z"


def test_a_static_route_is_a_cache_of_its_own_and_comes_last() -> None:
    statuses = [status(6380, STATIC_KEY), status(6389, NODE_KEY)]
    document = routes_document(config(), Snapshot((MY_REDIS,)), statuses, NOW)
    assert list(caches(document)) == ["my-redis", "other", "legacy"]
    legacy = caches(document)["legacy"]
    assert (legacy["mode"], legacy["engine"], legacy["reason"]) == ("static", None, None)
    assert [(route["port"], route["kind"], route["node"]) for route in legacy["routes"]] == [(6380, "static", None)]


def test_a_static_route_that_the_config_has_no_more_is_shown_while_it_runs() -> None:
    document = routes_document(config(), Snapshot(), [status(7000, RouteKey("old", Kind.STATIC))], NOW)
    assert [route["port"] for route in caches(document)["old"]["routes"]] == [7000]


def test_a_static_route_and_a_cache_of_one_name_stay_apart() -> None:
    statuses = [status(6380, RouteKey("my-redis", Kind.STATIC)), status(6389, NODE_KEY)]
    document = routes_document(config(), Snapshot((MY_REDIS,)), statuses, NOW)
    shown = [(cache["id"], cache["mode"], len(cache["routes"])) for cache in document["caches"]]
    assert shown == [("my-redis", "cluster-disabled", 1), ("other", None, 0), ("my-redis", "static", 1)]


def test_routes_stand_by_port() -> None:
    statuses = [status(6391, RouteKey("my-redis", Kind.READER)), status(6389, NODE_KEY)]
    document = routes_document(config(), Snapshot((MY_REDIS,)), statuses, NOW)
    assert [route["port"] for route in caches(document)["my-redis"]["routes"]] == [6389, 6391]


def test_a_gone_cache_is_shown_while_its_routes_drain() -> None:
    document = routes_document(config(), Snapshot(), [status(9, RouteKey("gone", Kind.PRIMARY))], NOW)
    assert list(caches(document)) == ["gone", "my-redis", "other"]
    assert caches(document)["gone"]["mode"] == "cluster-disabled"
    assert caches(document)["gone"]["tls"] is None


def test_a_route_without_a_port_is_shown_with_its_reason() -> None:
    unplaced = {NODE_KEY: "the range 6389-6398 is full"}
    document = routes_document(config(), Snapshot((MY_REDIS,)), [], NOW, unplaced=unplaced)
    (route,) = caches(document)["my-redis"]["routes"]
    assert (route["port"], route["state"], route["reason"]) == (None, "error", "the range 6389-6398 is full")
    assert route["node"] == {"cluster": "my-redis-001", "id": "0001"}
    assert caches(document)["my-redis"]["reason"] is None


def test_a_reason_tells_why_a_route_is_not_open() -> None:
    shown = [status(6389, NODE_KEY, RouteState.ERROR, "the port is taken")]
    document = routes_document(config(), Snapshot((MY_REDIS,)), shown, NOW)
    (route,) = caches(document)["my-redis"]["routes"]
    assert (route["state"], route["reason"]) == ("error", "the port is taken")


def test_a_cache_without_routes_says_what_it_waits_for() -> None:
    reasons = {
        name: caches(routes_document(config(), snapshot, [], NOW, waiting=waiting))["my-redis"]["reason"]
        for name, snapshot, waiting in (
            ("waiting", Snapshot(), "AWS (denied)"),
            ("unknown", Snapshot(), ""),
            ("new", Snapshot((MY_REDIS,)), ""),
            ("leaving", Snapshot((Cache("my-redis", "", Mode.STANDALONE, NodeTls.OFF, (), is_deleting=True),)), ""),
        )
    }
    assert reasons == {
        "waiting": "waiting for AWS (denied)",
        "unknown": "AWS knows no cache of this id",
        "new": "AWS tells of no node and no endpoint of it yet",
        "leaving": "the cache is being deleted",
    }


def test_tag_entries_promise_no_cache() -> None:
    text = "listen: {ports: 6379-6478, address: 127.0.0.1}\ncaches: [{tags: {Environment: dev}}]"
    assert not routes_document(config(text), Snapshot(), [], NOW)["caches"]


def test_the_port_map_is_shown_with_the_names_that_release_takes() -> None:
    portmap = PortMap(
        (
            PortEntry(NODE_KEY, 6379, 1738324800.5),
            PortEntry(RouteKey("my-redis", Kind.PRIMARY), 6380),
        )
    )
    document = ports_document(portmap, NOW)
    assert json.loads(json.dumps(document)) == {
        "version": 1,
        "generated": "2025-01-31T12:00:00Z",
        "ports": [
            {
                "port": 6379,
                "name": "my-redis-001/0001",
                "cache": "my-redis",
                "kind": "node",
                "node": {"cluster": "my-redis-001", "id": "0001"},
                "gone_since": "2025-01-31T12:00:00Z",
            },
            {
                "port": 6380,
                "name": "my-redis:primary",
                "cache": "my-redis",
                "kind": "primary",
                "node": None,
                "gone_since": None,
            },
        ],
    }
    assert msgspec.convert(document, PortsDocument).ports[0].port == 6379


def test_the_status_line_counts_and_says_what_is_waited_for() -> None:
    good = RouteStatus(status(1, NODE_KEY).route, RouteState.OPEN, connections=37)
    bad = status(2, RouteKey("my-redis", Kind.READER), RouteState.ERROR, "x")
    assert status_line([]) == "0 routes open, 0 connections"
    assert status_line([good]) == "1 route open, 37 connections"
    assert status_line(iter([good, bad]), unplaced=1, waiting="AWS (denied)") == (
        "1 route open, 37 connections; 2 routes not open, see natproxy routes; waiting for AWS (denied)"
    )
