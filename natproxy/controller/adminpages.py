"""What the admin side answers beside metrics and verdicts: the pages, their files, and the status as JSON. I/O: none.

A page costs some milliseconds of the controller, and every visitor's browser asks again and again: what was made less
than a second ago is answered once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from aiohttp import web

from natproxy.controller.httpserver import HEADERS, Answer, json_answer
from natproxy.documents import RoutesDocument, StatusDocument
from natproxy.pages.assets import STATIC, StaticFile
from natproxy.pages.cache import cache_page
from natproxy.pages.problem import problem_page
from natproxy.pages.rendering import HEADERS as PAGE_HEADERS
from natproxy.pages.status import status_page
from natproxy.snippets import connect_snippets, snippets

FRESH_SECONDS = 0.9
IN_A_THREAD_BYTES = 32 * 1024
"""A larger page is compressed beside the loop."""


class PageSource(Protocol):
    """What the pages show."""

    def status(self) -> StatusDocument:
        """Return how everything stands."""
        ...

    def routes(self) -> dict[str, Any]:
        """Return ``status.routes_document``."""
        ...


class AdminPages:
    """The pages over one source. ``clock`` is monotonic, in seconds."""

    def __init__(self, source: PageSource, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._document: tuple[float, StatusDocument] | None = None
        self._page: tuple[StatusDocument, str] | None = None

    def table(self) -> dict[str, Mapping[str, Answer]]:
        """Return path -> method -> what answers; ``/caches/`` stands for all right below it."""
        return {
            "/": {"GET": self._index},
            "/status": {"GET": self._status},
            "/caches/": {"GET": self._cache},
            **static_table(),
        }

    def _fresh(self) -> StatusDocument:
        now = self._clock()
        if self._document is None or now - self._document[0] >= FRESH_SECONDS:
            self._document = (now, self._source.status())
        return self._document[1]

    async def _status(self, _: web.BaseRequest) -> web.Response:
        return json_answer(200, self._fresh())

    async def _index(self, _: web.BaseRequest) -> web.Response:
        document = self._fresh()
        if self._page is None or self._page[0] is not document:
            self._page = (document, status_page(document))
        return page_answer(200, self._page[1])

    async def _cache(self, request: web.BaseRequest) -> web.Response:
        cache_id = request.path.removeprefix("/caches/")
        document = msgspec.convert(self._source.routes(), RoutesDocument)
        cache = next((cache for cache in document.caches if cache.id == cache_id), None)
        if cache is None:
            text = "No cache and no static route of this name is known now. The first page lists those that are."
            return page_answer(404, problem_page(404, "There is no such cache", text, is_portal=False))
        host, ip = document.public_host, document.public_ip
        page = cache_page(
            cache,
            snippets(cache, public_host=host, public_ip=ip),
            is_portal=False,
            public_host=host,
            local_lines=connect_snippets(cache, public_host=host, public_ip=ip, portal_port=document.portal_port),
        )
        return page_answer(200, page)


def page_answer(status: int, page: str) -> web.Response:
    """Return a page with the headers that belong to it, compressed for who takes that: it is loaded again and again."""
    response = web.Response(
        status=status,
        body=page.encode(),
        headers={**HEADERS, **PAGE_HEADERS, "Vary": "Accept-Encoding"},
        zlib_executor_size=IN_A_THREAD_BYTES,
    )
    response.enable_compression()
    return response


def static_table() -> dict[str, Mapping[str, Answer]]:
    """Return what answers for the files that pages load."""
    return {path: {"GET": _static(file)} for path, file in STATIC.items()}


def _static(file: StaticFile) -> Answer:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=file.body, headers={**HEADERS, "Content-Type": file.content_type})

    return answer
