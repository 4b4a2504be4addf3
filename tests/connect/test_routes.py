from __future__ import annotations

from typing import Any

import pytest

from natproxy import messages
from natproxy.connect.routes import (
    EPOCH,
    NODE_CA,
    Remote,
    Served,
    chosen,
    entries,
    next_version,
    remotes,
    rewriting,
    serve_message,
)
from natproxy.documents import CacheView, NodeName, RoutesDocument, RouteView
from natproxy.errors import PortalError
from natproxy.wire.book import Book

HOST = "cache.example.com"


def view(port: int | None = 6379, **more: Any) -> RouteView:
    return RouteView(**{"port": port, "kind": "node", "state": "open", "tls": "terminate", **more})


def remote(port: int | None = 6379, *, cache: str = "my-redis", mode: str = "cluster-enabled", **more: Any) -> Remote:
    return Remote(cache, "redis", mode, view(port, **more))


def test_a_route_that_terminates_tls_is_dialled_with_it_and_with_the_bundle_s_ca() -> None:
    node = NodeName("my-redis-001", "0001")
    one = Served(6379, 16379, remote(node=node, rewrite="redis"))
    serve = serve_message(one, HOST, ["203.0.113.73", "2001:db8::1"])
    assert serve == messages.Serve(
        port=16379,
        cache="my-redis",
        kind="node",
        node="my-redis-001/0001",
        addresses=(("203.0.113.73", 6379), ("2001:db8::1", 6379)),
        rotates=False,
        allow=None,
        connect_seconds=5.0,
        idle_seconds=None,
        keepalive_seconds=30.0,
        max_connections=4096,
        max_connections_per_client=4096,
        node_tls=True,
        node_ca=NODE_CA,
        names=(HOST, HOST),
        handshake_seconds=10.0,
        sniffs=True,
        rewrite="cluster",
        book="my-redis",
    )
    assert serve_message(one, HOST, [], refuse="node-gone").refuse == "node-gone"


def test_a_clear_route_stays_clear_and_one_that_passes_tls_through_is_not_looked_into() -> None:
    clear = serve_message(Served(6379, 6379, remote(tls="off")), HOST, ["203.0.113.73"])
    assert (clear.node_tls, clear.node_ca, clear.names, clear.client_tls, clear.sniffs) == (False, "", (), "off", True)
    passed = serve_message(Served(6379, 6379, remote(tls="passthrough")), HOST, ["203.0.113.73"])
    assert (passed.node_tls, passed.client_tls, passed.sniffs, passed.book) == (False, "passthrough", False, "")
    assert not serve_message(Served(6490, 6490, remote(kind="static")), HOST, []).sniffs  # it may be anything


@pytest.mark.parametrize(
    ("rewrite", "mode", "how"),
    [
        ("off", "cluster-enabled", ""),
        ("redis", "cluster-enabled", "cluster"),
        ("redis", "serverless", "cluster"),
        ("redis", "cluster-compatible", "cluster"),
        ("redis", "static", "cluster"),
        ("redis", "", "cluster"),
        ("redis", "cluster-disabled", "replication"),
        ("redis", "standalone", "replication"),
        ("memcached", "memcached", "memcached"),
        ("something new", "memcached", ""),
    ],
)
def test_replies_are_rewritten_as_the_daemon_does(rewrite: str, mode: str, how: str) -> None:
    assert rewriting(remote(mode=mode, rewrite=rewrite)) == how


def test_a_book_has_all_that_natproxy_may_call_itself_and_nothing_of_other_caches() -> None:
    served = [
        Served(6379, 6379, remote(6379, rewrite="redis")),
        Served(6380, 16380, remote(6380, rewrite="redis")),
        Served(6400, 6400, remote(6400, cache="other", rewrite="redis")),
        Served(6401, 6401, remote(6401, cache="unread")),
        Served(6490, 6490, remote(6490, cache="one", kind="static", rewrite="redis")),
        Served(6491, 6492, remote(6491, cache="two", kind="static", rewrite="redis")),
    ]
    found = entries(served, ["Cache.Example.com.", "203.0.113.73", "", "203.0.113.73", "2001:DB8::0001"])
    assert found.keys() == {"my-redis", "other", "static:"}
    spoken = ["2001:db8::1", "203.0.113.73", "cache.example.com"]
    assert found["my-redis"] == tuple((host, *ports) for host in spoken for ports in ((6379, 6379), (6380, 16380)))
    assert {(port, local) for _, port, local in found["static:"]} == {(6490, 6490), (6491, 6492)}
    book = Book({(host, port): local for host, port, local in found["my-redis"]}, "127.0.0.1", "127.0.0.1")
    assert book.ports[HOST, 6380] == 16380


def test_the_caches_that_are_wanted_in_their_order() -> None:
    caches = (CacheView(id="a"), CacheView(id="b"), CacheView(id="c"))
    document = RoutesDocument(generated="", caches=caches)
    assert chosen(document) == caches
    assert chosen(document, ["c", "a", "c"]) == (caches[2], caches[0])
    with pytest.raises(PortalError, match=r"no cache called x, y; there are: a, b, c"):
        chosen(document, ["a", "x", "y"])
    assert chosen(document, ["x", "b"], is_lenient=True) == (caches[1],)
    assert chosen(document, ["x"], is_lenient=True) == ()
    with pytest.raises(PortalError, match="none at all"):
        chosen(RoutesDocument(generated=""), ["x"])


def test_what_natproxy_does_not_listen_for_is_not_servable() -> None:
    cache = CacheView(id="a", engine="redis", mode="standalone", routes=(view(), view(None), view(6380, state="error")))
    assert [one.is_servable for one in remotes([cache])] == [True, False, False]
    assert all(remote(state=state).is_servable for state in ("open", "unreachable", "absent"))


def test_a_port_that_leads_elsewhere_has_another_key() -> None:
    assert remote().key == remote(6380, role="primary", state="unreachable").key
    assert remote().key != remote(kind="primary").key
    assert remote().key != remote(node=NodeName("my-redis-002", "0001")).key
    assert remote().key != remote(cache="other").key


def test_versions_grow_over_runs_and_leave_room_in_32_bits() -> None:
    now = 1_795_000_000
    first = next_version(0, now)
    assert next_version(first, now) == first + 1
    assert next_version(0, now + 60) > first
    in_2036 = EPOCH + 10 * 365 * 86400
    assert in_2036 + next_version(0, in_2036) < 2**31
    assert next_version(0, 0) == 1
