from __future__ import annotations

import ipaddress
from dataclasses import fields

import msgspec
import pytest

from natproxy.controller.terms import serve_message
from natproxy.messages import Serve
from natproxy.model import Endpoint, Kind, Limits, Mode, Outcome, Route
from tests.plan.samples import book, route

NETWORKS = (ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8::/32"))
LIMITS = Limits(1.0, 2.0, 3.0, 4.0, 5.0)
FULL = route(
    Kind.CONFIGURATION,
    fallback=(Endpoint("n1", 6380),),
    allow=NETWORKS,
    client_tls="terminate",
    certificates=("dev1", "*.ci.example.com"),
    node_tls="on",
    node_ca="/tls/nodes.crt",
    rewrite="memcached",
    book="c",
    limits=LIMITS,
    limit_group="g",
    max_connections=7,
    max_connections_per_client=3,
)
BOOK = book(target=["10.0.1.230"], n1=["10.0.1.231"])


def test_all_of_a_route_is_told() -> None:
    assert serve_message(FULL, BOOK, 0.0, Outcome.GONE) == Serve(
        port=6379,
        cache="c",
        kind="configuration",
        node="",
        addresses=(("10.0.1.230", 6379), ("10.0.1.231", 6380)),
        rotates=True,
        allow=("198.51.100.0/24", "2001:db8::/32"),
        connect_seconds=1.0,
        idle_seconds=3.0,
        keepalive_seconds=4.0,
        refuse="node-gone",
        limit_group="g",
        max_connections=7,
        max_connections_per_client=3,
        client_tls="terminate",
        certificates=("dev1", "*.ci.example.com"),
        node_tls=True,
        node_ca="/tls/nodes.crt",
        names=("target", "n1"),
        handshake_seconds=2.0,
        rewrite="memcached",
        book="c",
        sniffs=False,
    )


def test_a_route_of_defaults() -> None:
    serve = serve_message(route(), BOOK, 0.0)
    assert (serve.node, serve.allow, serve.refuse, serve.certificates) == ("c-001/0001", None, None, None)
    assert (serve.client_tls, serve.node_tls, serve.names, serve.node_ca) == ("off", False, (), "")
    assert (serve.rewrite, serve.book) == ("", "")


def test_a_server_name_is_told_for_each_address() -> None:
    one = route(node_tls="on", server_name="cache.example")
    assert serve_message(one, book(target=["10.0.1.230", "10.0.1.231"]), 0.0).names == ("cache.example",) * 2


@pytest.mark.parametrize("client_tls", ["off", "terminate", "passthrough"])
@pytest.mark.parametrize("node_tls", ["off", "on"])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_client_that_begins_as_tls_does_is_wrong_only_on_a_clear_port_of_a_cache(
    client_tls: str, node_tls: str, kind: Kind
) -> None:
    mode = Mode.STATIC if kind is Kind.STATIC else Mode.CLUSTER_DISABLED
    one = route(kind, mode, client_tls=client_tls, node_tls=node_tls)
    assert serve_message(one, BOOK, 0.0).sniffs is (client_tls == "off" and kind is not Kind.STATIC)


def test_the_message_can_be_sent() -> None:
    serve = serve_message(FULL, BOOK, 0.0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(serve), type=Serve) == serve


def test_every_field_of_a_route_has_been_thought_of() -> None:
    """Who adds one says here whether a worker needs it."""
    not_for_workers = {"key", "target", "mode", "fallback", "server_name", "limits", "rewrite_note", "error"}
    told = {field.name for field in fields(Route)} - not_for_workers
    assert told <= set(Serve.__struct_fields__)
