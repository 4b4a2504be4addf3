"""What a worker is told of a route: the route, and what is known of its names, as one message. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from natproxy import messages
from natproxy.model import Kind, Outcome, Route
from natproxy.plan.addresses import Addresses, always_rotates, certificate_names, dial_addresses


def serve_message(
    route: Route, book: Mapping[str, Addresses], now: float, refuse: Outcome | None = None
) -> messages.Serve:
    """Return the message; ``refuse``: turn every new connection away with it.

    Redis and memcached never begin as TLS does. What a static route leads to may be anything, so nothing is concluded
    from how a client of it begins.
    """
    node = route.key.node
    return messages.Serve(
        port=route.port,
        cache=route.key.cache,
        kind=route.key.kind,
        node="" if node is None else str(node),
        addresses=dial_addresses(route, book, now),
        rotates=always_rotates(route.key.kind, route.mode),
        allow=None if route.allow is None else tuple(str(network) for network in route.allow),
        connect_seconds=route.limits.connect_seconds,
        idle_seconds=route.limits.idle_seconds,
        keepalive_seconds=route.limits.keepalive_seconds,
        refuse=None if refuse is None else refuse.value,
        limit_group=route.limit_group,
        max_connections=route.max_connections,
        max_connections_per_client=route.max_connections_per_client,
        client_tls=route.client_tls,
        certificates=route.certificates,
        node_tls=route.node_tls == "on",
        node_ca=route.node_ca,
        names=certificate_names(route, book, now),
        handshake_seconds=route.limits.handshake_seconds,
        rewrite=route.rewrite,
        book=route.book,
        sniffs=route.client_tls == "off" and route.key.kind is not Kind.STATIC,
    )
