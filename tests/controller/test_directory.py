"""natproxy.controller.directory: what a certificate may use, and that nothing else is told."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from natproxy.controller.directory import directory_document, directory_json
from natproxy.documents import CacheView, DirectoryDocument, NodeName, RoutesDocument, RouteView
from natproxy.model import Kind, Mode, Network, Route, RouteKey
from natproxy.tls.identity import Identity

DEV1 = Identity(
    "dev1", frozenset({"dev1", "a.ci.example.com"}), 1, "cn=ca", 0.0, 1_800_000_000.0, frozenset({"a.ci.example.com"})
)
OFFICE: tuple[Network, ...] = (ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8::/32"))
TOLD_OF_ROUTES = {"port", "kind", "node", "role", "zone", "state", "tls", "certificate", "node_tls", "rewrite"}


def route(port: int, cache: str, client_tls: str = "terminate", **more: object) -> Route:
    return Route(port, RouteKey(cache, Kind.PRIMARY), None, Mode.CLUSTER_DISABLED, client_tls=client_tls, **more)  # type: ignore[arg-type]


def view(port: int | None, state: str = "open") -> RouteView:
    return RouteView(
        port=port,
        kind="primary",
        node=NodeName("a-001", "0001"),
        target="secret.internal:6379",
        addresses=("10.0.0.1:6379",),
        state=state,
        reason="10.0.0.1 refused",
        rewrite_note="10.0.0.1",
        connections=7,
    )


def told(*routes: Route, ip: str = "203.0.113.9", more: tuple[CacheView, ...] = ()) -> DirectoryDocument:
    """Return what dev1 is told where these are all routes."""
    ids = dict.fromkeys(one.key.cache for one in routes)
    caches = [
        CacheView(
            id=name, engine="redis", reason="x", routes=tuple(view(one.port) for one in routes if one.key.cache == name)
        )
        for name in ids
    ]
    whole = RoutesDocument(
        public_host="h", public_ip="203.0.113.73", generated="now", notes=("x",), caches=(*caches, *more)
    )
    return directory_document(whole, routes, DEV1, ip)


def ports(document: DirectoryDocument) -> dict[str, list[int | None]]:
    return {cache.id: [one.port for one in cache.routes] for cache in document.caches}


def test_a_route_is_told_to_those_it_names() -> None:
    document = told(
        route(1, "anybody"),
        route(2, "dev1-s", certificates=("dev1",)),
        route(3, "ci", certificates=("x", "*.ci.example.com")),
        route(4, "dev2-s", certificates=("dev2",)),
        route(5, "nobody-s", certificates=()),
    )
    assert ports(document) == {"anybody": [1], "dev1-s": [2], "ci": [3]}


def test_a_cache_is_told_as_far_as_its_routes_are() -> None:
    assert ports(told(route(1, "a"), route(2, "a", certificates=("dev2",)))) == {"a": [1]}


@pytest.mark.parametrize("client_tls", ["off", "passthrough"])
def test_where_no_certificate_is_demanded_the_address_decides(client_tls: str) -> None:
    routes = [route(1, "office", client_tls, allow=OFFICE), route(2, "all", client_tls)]
    assert ports(told(*routes, ip="198.51.100.7")) == {"office": [1], "all": [2]}
    assert ports(told(*routes, ip="2001:db8::7")) == {"office": [1], "all": [2]}
    assert ports(told(*routes, ip="203.0.113.9")) == {"all": [2]}


def test_where_one_is_demanded_it_is_told_wherever_its_owner_is() -> None:
    assert ports(told(route(1, "office", allow=OFFICE))) == {"office": [1]}


def test_what_has_no_port_or_no_route_is_not_told() -> None:
    unplaced = CacheView(id="full", routes=(view(None, "error"),))
    bare = CacheView(id="bare", reason="AWS knows no cache of this id")
    assert ports(told(route(1, "a"), more=(unplaced, bare))) == {"a": [1]}


def test_what_only_the_operator_may_know_is_left_out() -> None:
    document = told(route(1, "a"))
    plain = directory_json(document)
    assert set(plain) == {
        "version",
        "public_host",
        "public_ip",
        "portal_port",
        "generated",
        "caches",
        "certificate",
        "expires",
    }
    assert (plain["certificate"], plain["expires"]) == ("dev1", "2027-01-15T08:00:00Z")
    (cache,) = plain["caches"]
    assert set(cache) == {"id", "engine", "mode", "tls", "routes"}
    assert set(cache["routes"][0]) == TOLD_OF_ROUTES
    for text in (msgspec.json.encode(plain), msgspec.json.encode(document)):
        for secret in (b"10.0.0.1", b"secret", b"refused"):
            assert secret not in text
    assert msgspec.convert(plain, DirectoryDocument) == document
