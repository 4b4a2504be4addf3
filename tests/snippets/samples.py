"""Caches as natproxy shows them, for the lines that are made of them; docs/clients.md has the same ports. Pure."""

from __future__ import annotations

from typing import Any

from natproxy.documents import CacheView, NodeName, RouteView
from natproxy.snippets.scene import Scene, scene_of

HOST, IP = "cache.dev.example.com", "203.0.113.73"
MUTUAL: dict[str, Any] = {"tls": "terminate", "certificate": True}
TLS: dict[str, Any] = {"tls": "terminate"}
CLEAR: dict[str, Any] = {"tls": "off"}
PASSTHROUGH: dict[str, Any] = {"tls": "passthrough", "rewrite": "off"}
WAYS = {"mutual": MUTUAL, "tls": TLS, "clear": CLEAR, "passthrough": PASSTHROUGH}
HOSTILE = (
    "",
    " ",
    "-x",
    "a b",
    "'",
    '"',
    "\\",
    "\\'",
    '\\"',
    "$(touch x)`id`${HOME}",
    "a;b|c&d>e #f",
    "a\nb\r\t\0\x1b[31m\x7f",
    "${a}{b}%s",
    "*/ // --",
    "\\u0022 \\x22 \\u005c",
    "\u00e9\u2028\u202e\ufeff",
    "\U0001f600",
    "</script><b>&amp;",
    "```",
)
"""What a name never is, and what must do no harm all the same."""


def route(port: int | None, kind: str, **others: Any) -> RouteView:
    """Return a route that is open."""
    state = "error" if port is None else "open"
    return RouteView(**{"port": port, "kind": kind, "state": state, "target": f"{kind}.example.com:6379", **others})


def node(port: int | None, number: int, **others: Any) -> RouteView:
    """Return a node's route."""
    target = f"node{number}.example.com:6379"
    return route(port, "node", node=NodeName(f"node{number}", "0001"), **{"target": target, **others})


def cluster(**terms: Any) -> CacheView:
    """Return a cluster of two nodes."""
    terms = {"rewrite": "redis", **terms}
    routes = (node(6379, 1, **terms), node(6380, 2, **terms), route(6385, "configuration", **terms))
    return CacheView(id="my-cluster", engine="redis", mode="cluster-enabled", routes=routes)


def group(**terms: Any) -> CacheView:
    """Return a group without cluster mode."""
    terms = {"rewrite": "redis", **terms}
    nodes = (node(6389, 1, role="replica", **terms), node(6390, 2, role="primary", **terms))
    routes = (*nodes, route(6391, "primary", **terms), route(6392, "reader", **terms))
    return CacheView(id="my-redis", engine="valkey", mode="cluster-disabled", routes=routes)


def alone(**terms: Any) -> CacheView:
    """Return a cache of one node."""
    return CacheView(id="my-alone", engine="redis", mode="standalone", routes=(node(6400, 1, **terms),))


def memcached(**terms: Any) -> CacheView:
    """Return a memcached cluster of three nodes."""
    terms = {"rewrite": "memcached", **terms}
    nodes = (node(port, port - 11210, **terms) for port in (11211, 11212, 11213))
    routes = (*nodes, route(11214, "configuration", **terms))
    return CacheView(id="my-memcached", engine="memcached", mode="memcached", routes=routes)


def static(**terms: Any) -> CacheView:
    """Return a static route."""
    return CacheView(id="legacy", mode="static", routes=(route(6490, "static", **terms),))


CACHES = {"cluster": cluster, "group": group, "alone": alone, "memcached": memcached, "static": static}


def scene(cache: CacheView, host: str = HOST, **others: Any) -> Scene:
    """Return the scene of a cache that has ports."""
    found = scene_of(cache, host, **others)
    assert found is not None
    return found


ALL = {f"{name}-{way}": scene(make(**WAYS[way])) for name, make in CACHES.items() for way in WAYS}
"""Every kind of cache, reached in every way."""
REDIS = {name: found for name, found in ALL.items() if not name.startswith("memcached")}
