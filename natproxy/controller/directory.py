"""What a developer is told by the portal: the routes that his certificate may use, and nothing of any other. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from natproxy.documents import CacheView, DirectoryDocument, RoutesDocument
from natproxy.model import Route
from natproxy.tls.identity import Identity, is_named

_NOT_TOLD = ("notes",)
_NOT_TOLD_OF_CACHES = ("reason",)
_NOT_TOLD_OF_ROUTES = ("target", "addresses", "reason", "rewrite_note", "connections")


def directory_document(
    whole: RoutesDocument, routes: Iterable[Route], identity: Identity, ip: str
) -> DirectoryDocument:
    """Return those of the operator's document that ``identity`` may use from ``ip``, without what only he may know.

    ``routes`` are all that have a port. A route that demands a certificate is told to those it names, wherever they
    are; one that demands none, to whoever it lets in from there. A cache of which nothing is left is left out too.
    """
    ports = frozenset(route.port for route in routes if _may_use(route, identity, ip))
    caches = (_told(cache, ports) for cache in whole.caches)
    return DirectoryDocument(
        version=whole.version,
        public_host=whole.public_host,
        public_ip=whole.public_ip,
        portal_port=whole.portal_port,
        generated=whole.generated,
        caches=tuple(cache for cache in caches if cache.routes),
        certificate=identity.name,
        expires=datetime.fromtimestamp(identity.not_after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def directory_json(document: DirectoryDocument) -> dict[str, Any]:
    """Return the document as plain data, without the keys that are not told."""
    plain: dict[str, Any] = msgspec.to_builtins(document)
    _leave_out(plain, _NOT_TOLD)
    for cache in plain["caches"]:
        _leave_out(cache, _NOT_TOLD_OF_CACHES)
        for route in cache["routes"]:
            _leave_out(route, _NOT_TOLD_OF_ROUTES)
    return plain


def _may_use(route: Route, identity: Identity, ip: str) -> bool:
    if route.client_tls == "terminate":
        return is_named(identity, route.certificates)
    return route.allow is None or any(ipaddress.ip_address(ip) in network for network in route.allow)


def _told(cache: CacheView, ports: frozenset[int]) -> CacheView:
    routes = tuple(
        msgspec.structs.replace(route, target=None, addresses=(), reason=None, rewrite_note=None, connections=0)
        for route in cache.routes
        if route.port in ports
    )
    return msgspec.structs.replace(cache, reason=None, routes=routes)


def _leave_out(plain: dict[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        del plain[key]
