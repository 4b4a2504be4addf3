"""The portal: developers see which caches they may use, and how, over mutual TLS. I/O: listens, talks to HTTP clients.

It only reads, and answers by the certificate that was shown: what that may not use looks just as what does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from aiohttp import web

from natproxy.controller.adminpages import page_answer, static_table
from natproxy.controller.directory import directory_json
from natproxy.controller.door import Door
from natproxy.controller.httpserver import OVER_TLS, Answer, HttpServer, Table, json_answer, table_answer, text_answer
from natproxy.controller.logs import event
from natproxy.controller.sockets import BindError, Sockets
from natproxy.controller.webmetrics import SideCounts
from natproxy.controller.webtls import WebTls, verified
from natproxy.documents import CacheView, DirectoryDocument
from natproxy.errors import NatproxyError
from natproxy.model import Network
from natproxy.pages.cache import cache_page
from natproxy.pages.portal import portal_page
from natproxy.pages.problem import problem_page
from natproxy.snippets import as_text, bundle_of, connect_snippets, snippets
from natproxy.tls.identity import Identity
from natproxy.worker.access import plain_ip

_log = logging.getLogger(__name__)

NOT_FOUND = "not found"
MAX_CONNECTIONS = 256
"""At once, of those who have shown a good certificate."""

Show = Callable[[DirectoryDocument, web.BaseRequest], web.Response]


class PortalSource(Protocol):
    """What the portal shows."""

    def directory(self, identity: Identity, ip: str) -> DirectoryDocument:
        """Return what may be told to the owner of a certificate who asks from ``ip``."""
        ...


class Portal:
    """``listen``, then ``open`` once certificates are in use, then ``stop``."""

    def __init__(self, source: PortalSource, tls: WebTls, counts: SideCounts) -> None:
        self._source = source
        self._tls = tls
        self._counts = counts
        self._port = 0
        self._door: Door | None = None

    def listen(self, addresses: Iterable[str], port: int, allow: Iterable[Network] | None = None) -> int:
        """Take the port on all of ``addresses``; return it (0 leaves it to the system). Raises NatproxyError.

        ``allow`` None: everyone may try.
        """
        try:
            listeners = Sockets(addresses).open(port)
        except BindError as error:
            raise NatproxyError(f"cannot open the portal: {error}") from error
        answer = verified(self._tls, table_answer(self._table(), NOT_FOUND))
        http = HttpServer(answer, most_connections=MAX_CONNECTIONS, tell=self._counts.record_request, headers=OVER_TLS)
        self._door = Door("portal", listeners, http, counts=self._counts, allow=allow, tls=self._tls)
        self._port = self._door.port
        return self._port

    def open(self) -> None:
        """Begin to answer; until then whoever connects waits."""
        if self._door is not None:
            self._door.open()

    def tick(self) -> None:
        """End the connections of those who are not let in any more; to be called about once a second."""
        if self._door is not None:
            self._door.tick()

    async def stop(self, timeout_seconds: float = 1.0) -> None:
        """Stop listening; let requests that are being answered end for ``timeout_seconds``."""
        if self._door is not None:
            await self._door.close(timeout_seconds)
            self._door = None

    def _table(self) -> Table:
        return {
            "/": {"GET": self._shown(self._index)},
            "/directory": {"GET": self._shown(_directory)},
            "/caches/": {"GET": self._shown(self._cache)},
            "/snippets/": {"GET": self._shown(_snippets)},
            **static_table(),
        }

    def _shown(self, show: Show) -> Answer:
        async def answer(request: web.BaseRequest) -> web.Response:
            transport = request.transport
            peer = None if transport is None else transport.get_extra_info("peername")
            if transport is None or peer is None:  # uvloop's forgets it once the client has gone
                return text_answer(403, "the connection is gone")
            identity = self._tls.identity(transport)
            document = self._source.directory(identity, plain_ip(peer[0]))
            response = show(document, request)
            event(
                _log,
                logging.DEBUG,
                "portal answered",
                certificate=identity.name,
                path=request.path,
                status=response.status,
            )
            return response

        return answer

    def _index(self, document: DirectoryDocument, _: web.BaseRequest) -> web.Response:
        page = portal_page(document, certificate=document.certificate, expires=document.expires, portal_port=self._port)
        return page_answer(200, page)

    def _cache(self, document: DirectoryDocument, request: web.BaseRequest) -> web.Response:
        if (cache := _asked_for(document, request)) is None:
            text = "There is no such cache, or your certificate may not use it. The first page lists those that it may."
            return page_answer(404, problem_page(404, "Not found", text, is_portal=True))
        host, ip = document.public_host, document.public_ip
        page = cache_page(
            cache,
            snippets(cache, public_host=host, public_ip=ip),
            is_portal=True,
            public_host=host,
            local_lines=connect_snippets(
                cache,
                public_host=host,
                public_ip=ip,
                portal_port=self._port,
                bundle=bundle_of(document.certificate),
            ),
        )
        return page_answer(200, page)


def _directory(document: DirectoryDocument, _: web.BaseRequest) -> web.Response:
    return json_answer(200, directory_json(document))


def _snippets(document: DirectoryDocument, request: web.BaseRequest) -> web.Response:
    if (cache := _asked_for(document, request)) is None:
        return text_answer(404, NOT_FOUND)
    found = snippets(cache, public_host=document.public_host, public_ip=document.public_ip)
    client = request.query.get("client")
    if client is None:
        return _plain(as_text(found))
    text = next((one.text for one in found.snippets if one.client == client), None)
    if text is None:
        clients = " ".join(one.client for one in found.snippets)
        return text_answer(404, f"there are no lines for this client; there are some for: {clients}")
    return _plain(text)


def _asked_for(document: DirectoryDocument, request: web.BaseRequest) -> CacheView | None:
    """Return the cache that the path ends in; None where there is none that the certificate may use."""
    name = request.path.rpartition("/")[2]
    return next((cache for cache in document.caches if cache.id == name), None)


def _plain(text: str) -> web.Response:
    return text_answer(200, text.removesuffix("\n"))
