from __future__ import annotations

from typing import Any

import msgspec
import pytest

from natproxy.documents import CacheView
from natproxy.snippets.scene import BUNDLE, LOOPBACK, NO_NAME, Files, Layout, Tls, scene_of
from tests.snippets.samples import (
    CLEAR,
    HOST,
    MUTUAL,
    PASSTHROUGH,
    TLS,
    alone,
    cluster,
    group,
    memcached,
    node,
    route,
    scene,
    static,
)


def without(cache: CacheView, *kinds: str) -> CacheView:
    return msgspec.structs.replace(cache, routes=tuple(each for each in cache.routes if each.kind not in kinds))


def serverless(engine: str, rewrite: str) -> CacheView:
    routes = (route(6379, "primary", rewrite=rewrite), route(6380, "reader", rewrite=rewrite))
    return CacheView(id="less", engine=engine, mode="serverless", routes=routes)


unknown = CacheView(id="x", routes=(route(1, "configuration", rewrite="redis"),))
stray = CacheView(id="x", routes=(node(7, 1),))
compatible = msgspec.structs.replace(cluster(), mode="cluster-compatible")
compatible_group = msgspec.structs.replace(group(), mode="cluster-compatible")


@pytest.mark.parametrize(
    ("cache", "layout", "ports"),
    [
        (cluster(), Layout.CLUSTER, [6385]),
        (without(cluster(), "configuration"), Layout.CLUSTER, [6379]),
        (cluster(rewrite="off"), Layout.SINGLE, [6379]),
        (cluster(**PASSTHROUGH), Layout.SINGLE, [6379]),
        (compatible, Layout.CLUSTER, [6385]),
        (compatible_group, Layout.GROUP, [6391, 6392]),
        (serverless("valkey", "redis"), Layout.CLUSTER, [6379]),
        (serverless("memcached", "memcached"), Layout.MEMCACHED, [6379]),
        (unknown, Layout.CLUSTER, [1]),
        (group(), Layout.GROUP, [6391, 6392]),
        (group(rewrite="off"), Layout.GROUP, [6391, 6392]),
        (group(**PASSTHROUGH), Layout.SINGLE, [6391]),
        (without(group(), "reader"), Layout.SINGLE, [6391]),
        (without(group(), "primary"), Layout.SINGLE, [6390]),
        (without(group(), "primary", "reader"), Layout.SINGLE, [6390]),
        (alone(), Layout.SINGLE, [6400]),
        (memcached(), Layout.MEMCACHED, [11211, 11212, 11213]),
        (memcached(rewrite="off"), Layout.MEMCACHED, [11211, 11212, 11213]),
        (without(memcached(), "node"), Layout.MEMCACHED, [11214]),
        (static(), Layout.UNKNOWN, [6490]),
        (static(rewrite="redis"), Layout.SINGLE, [6490]),
        (static(rewrite="memcached"), Layout.MEMCACHED, [6490]),
        (stray, Layout.UNKNOWN, [7]),
    ],
)
def test_which_ports_a_client_is_told_and_of_what_kind_it_is(
    cache: CacheView, layout: Layout, ports: list[int]
) -> None:
    found = scene(cache)
    assert (found.layout, [port.number for port in found.ports]) == (layout, ports)
    assert found.first.number == ports[0]


@pytest.mark.parametrize(
    ("cache", "port"),
    [
        (memcached(), 11214),
        (memcached(rewrite="off"), None),
        (without(memcached(), "configuration"), None),
        (static(rewrite="memcached"), 6490),
        (serverless("memcached", "memcached"), None),
        (cluster(), None),
    ],
)
def test_auto_discovery_is_where_it_is_rewritten(cache: CacheView, port: int | None) -> None:
    found = scene(cache).discovery
    assert (found and found.number) == port


@pytest.mark.parametrize(
    ("terms", "tls"),
    [
        (MUTUAL, Tls("ca.crt", "client.crt", "client.key")),
        (TLS, Tls("ca.crt")),
        (CLEAR, None),
        (PASSTHROUGH, Tls()),
    ],
)
def test_what_clients_check_with_and_show(terms: dict[str, Any], tls: Tls | None) -> None:
    assert scene(alone(**terms)).tls == tls


def test_the_files_may_be_elsewhere() -> None:
    files = Files("a", "b", "c")
    assert scene(alone(**MUTUAL), files=files).tls == Tls("a", "b", "c")
    assert Files() == BUNDLE


@pytest.mark.parametrize("terms", [MUTUAL, TLS, CLEAR])
def test_behind_connect_all_is_clear_and_near(terms: dict[str, Any]) -> None:
    found = scene(group(**terms), is_local=True)
    assert (found.host, found.tls, found.dialled(found.first)) == (LOOPBACK, None, LOOPBACK)


def test_under_passthrough_the_node_s_own_name_counts() -> None:
    for is_local, host in ((False, HOST), (True, LOOPBACK)):
        found = scene(group(**PASSTHROUGH), is_local=is_local)
        assert (found.host, found.tls) == (host, Tls())
        assert found.first.name == found.dialled(found.first) == "primary.example.com"
    assert scene(alone(**PASSTHROUGH, target="[fd00::1]:6379")).first.name == "fd00::1"
    assert scene(alone(**PASSTHROUGH, target=None)).first.name == NO_NAME
    assert scene(alone(**TLS)).first.name is None


def test_what_has_no_port_has_no_scene() -> None:
    assert scene_of(CacheView(id="x"), HOST) is None
    assert scene_of(CacheView(id="x", engine="redis", routes=(node(None, 1),)), HOST) is None
    some = CacheView(id="x", engine="redis", mode="cluster-disabled", routes=(node(None, 1), node(5, 2)))
    assert scene(some).first.number == 5
