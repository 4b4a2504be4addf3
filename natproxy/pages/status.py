"""The status page: how all caches, shards and nodes stand, what moves, and what happened of late. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from natproxy.documents import LiveCache, LiveRoute, StatusDocument
from natproxy.pages.rendering import render
from natproxy.pages.words import count

_GOOD = "open"


def status_page(document: StatusDocument) -> str:
    """Return the page. It is whole by itself; the script loads it again and again and takes over what is new."""
    routes = tuple(routes_of(document))
    return render(
        "status.html",
        document=document,
        groups=groups,
        headline=headline(document),
        tone=tone(document),
        open_routes=sum(route.state == _GOOD for route in routes),
        all_routes=len(routes),
        connections=sum(route.connections for route in routes),
    )


def groups(cache: LiveCache) -> tuple[tuple[str | None, tuple[LiveRoute, ...]], ...]:
    """Return the routes of a cache as they stand below one another: its endpoints, then shard by shard, with a name."""
    shards = tuple((shard.name, shard.nodes) for shard in cache.shards)
    return ((None, cache.endpoints), *shards) if cache.endpoints else shards


def routes_of(document: StatusDocument) -> Iterator[LiveRoute]:
    """Yield every route."""
    for cache in document.caches:
        for _, routes in groups(cache):
            yield from routes


def headline(document: StatusDocument) -> str:
    """Return in a few words how natproxy stands."""
    if not document.is_ready:
        return "Not ready"
    if closed := sum(route.state != _GOOD for route in routes_of(document)):
        return f"{count(closed, 'route')} not open"
    if document.troubles or any(cache.reason for cache in document.caches):
        return "Needs attention"
    return "All is well"


def tone(document: StatusDocument) -> str:
    """Return ``good``, ``warning`` or ``bad``: the colour and the mark of the word on readiness."""
    if not document.is_ready:
        return "bad"
    return "warning" if document.troubles else "good"
