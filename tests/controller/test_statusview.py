from __future__ import annotations

import pytest

from natproxy.controller.statusview import Standing, certificates, shard_of, status_document
from natproxy.documents import (
    CacheView,
    DiscoveryView,
    EventView,
    NodeName,
    RoutesDocument,
    RouteView,
    Traffic,
)
from natproxy.tls.expiry import Expiry

DAY = 86_400.0
STANDING = Standing(
    version="1.2.3",
    uptime_seconds=12.34,
    is_ready=True,
    readiness="ready",
    troubles=("AWS cannot be asked",),
    discovery=DiscoveryView(state="failing", age_seconds=3.0, interval_seconds=15.0),
    workers_running=1,
    workers_wanted=2,
)


def node(port: int, cluster: str, **fields: object) -> RouteView:
    return RouteView(port=port, kind="node", node=NodeName(cluster, "0001"), state="open", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "cluster", "shard"),
    [
        ("cluster-enabled", "my-redis-0001-001", "0001"),
        ("cluster-compatible", "my-redis-0012-003", "0012"),
        ("cluster-disabled", "my-redis-0001-001", None),
        ("cluster-enabled", "my-redis-001", None),
        ("cluster-enabled", "other-0001-001", None),
        ("cluster-enabled", "my-redis-0001-001-x", None),
    ],
)
def test_a_node_s_name_tells_its_shard_in_cluster_mode(mode: str, cluster: str, shard: str | None) -> None:
    cache = CacheView(id="my-redis", mode=mode)
    assert shard_of(cache, node(1, cluster)) == shard
    assert shard_of(cache, RouteView(port=1, kind="configuration", state="open")) is None


def test_routes_are_put_together_with_what_moves_on_them() -> None:
    routes = (
        node(6379, "c-0002-001", connections=3, reason="x"),
        node(6380, "c-0001-001"),
        node(6381, "c-0001-002"),
        RouteView(port=None, kind="configuration", state="error", reason="no port"),
    )
    caches = (
        CacheView(id="c", engine="redis", mode="cluster-enabled", tls="off", routes=routes),
        CacheView(id="none", reason="AWS knows no cache of this id"),
    )
    event = EventView(id=1, time="t", kind="life", level="info", text="natproxy runs")
    document = status_document(
        STANDING,
        RoutesDocument(generated="now", public_host="h", notes=("a note", "AWS cannot be asked"), caches=caches),
        traffic=lambda port: Traffic(refusals=port or 0),
        total=Traffic(refusals=7),
        expiries=(),
        events=(event,),
        now=0.0,
    )
    cache, empty = document.caches
    assert [(shard.name, [one.port for one in shard.nodes]) for shard in cache.shards] == [
        ("0001", [6380, 6381]),
        ("0002", [6379]),
    ]
    first = cache.shards[1].nodes[0]
    assert (first.connections, first.reason, first.traffic.refusals) == (3, "x", 6379)
    assert [one.traffic.refusals for one in cache.endpoints] == [0]
    assert (empty.reason, empty.shards, empty.endpoints) == ("AWS knows no cache of this id", (), ())
    assert (document.natproxy, document.generated, document.public_host) == ("1.2.3", "now", "h")
    assert (document.troubles, document.notes) == (("AWS cannot be asked",), ("a note",)), "nothing is said twice"
    assert (document.workers_running, document.workers_wanted, document.uptime_seconds) == (1, 2, 12.3)
    assert (document.total.refusals, document.events) == (7, (event,))


def test_certificates_stand_in_the_order_of_their_ends() -> None:
    def one(use: str, days: float, starts: float = 0.0) -> Expiry:
        return Expiry(use, f"CN={use}", "", 100 * DAY + days * DAY, starts)

    given = [one("client_ca", 300), one("crl", 3), one("certificate", -0.5), one("nodes_ca", 400, 200 * DAY)]
    given.append(one("certificate", 29.5))
    found = [(view.use, view.days_left, view.state) for view in certificates(given, 100 * DAY)]
    assert found == [
        ("certificate", -1, "expired"),
        ("crl", 3, "expiring"),
        ("certificate", 29, "expiring"),
        ("client_ca", 300, "valid"),
        ("nodes_ca", 400, "not-yet-valid"),
    ]
    assert certificates(given, 100 * DAY)[1].expires == "1970-04-14T00:00:00Z"
