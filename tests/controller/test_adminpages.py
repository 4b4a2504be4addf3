from __future__ import annotations

import asyncio
import gzip
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from natproxy.controller.adminpages import FRESH_SECONDS, IN_A_THREAD_BYTES, AdminPages, page_answer
from natproxy.controller.httpserver import HttpServer
from natproxy.documents import StatusDocument
from natproxy.pages.problem import problem_page
from natproxy.pages.rendering import POLICY
from tests.controller.samples import Clock
from tests.pages.samples import cache_view, read, routes_document, status


class Source:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def status(self) -> StatusDocument:
        self.asked += 1
        return status(uptime_seconds=float(self.asked))

    def routes(self) -> dict[str, Any]:
        caches = (cache_view(), cache_view(id="a<b & c"))
        plain: dict[str, Any] = msgspec.to_builtins(routes_document(caches=caches, portal_port=7000))
        return plain


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def pages(source: Source, clock: Clock) -> AdminPages:
    return AdminPages(source, clock=clock)


async def get(pages: AdminPages, path: str) -> web.Response:
    table = pages.table()
    found = table.get(path) or table[path[: path.rindex("/") + 1]]
    return await found["GET"](make_mocked_request("GET", path))


def body(response: web.Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


async def test_the_status_is_a_page_and_a_document(pages: AdminPages) -> None:
    page = await get(pages, "/")
    assert (page.status, page.content_type, page.headers["Content-Security-Policy"]) == (200, "text/html", POLICY)
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert read(body(page)).one("h1").text == "3 routes not open"
    document = await get(pages, "/status")
    assert document.content_type == "application/json"
    assert msgspec.json.decode(body(document), type=StatusDocument) == status(uptime_seconds=1.0)


async def test_many_who_look_cost_no_more_than_one(pages: AdminPages, source: Source, clock: Clock) -> None:
    answers = await asyncio.gather(*(get(pages, path) for path in ["/", "/status"] * 10))
    assert source.asked == 1
    assert len({body(answer) for answer in answers}) == 2
    clock.now += 2 * FRESH_SECONDS
    assert msgspec.json.decode(body(await get(pages, "/status")), type=StatusDocument).uptime_seconds == 2.0
    assert body(await get(pages, "/")) != body(answers[0])
    assert source.asked == 2


async def test_each_cache_has_a_page(pages: AdminPages) -> None:
    page = await get(pages, "/caches/orders")
    assert page.status == 200
    tree = read(body(page))
    assert tree.one("h1").text == "orders"
    assert "redis-cli" in {one.attributes.get("data-client") for one in tree.find("details")}
    assert "cache.dev.example.com" in tree.one("code", id="snippet-1").raw
    line = "natproxy connect cache.dev.example.com:7000 --bundle dev1.zip --cache orders\n"
    assert tree.one("code", id="local-1").raw == line


@pytest.mark.parametrize("name", ["none-such", "", "<script>", "orders/status"])
async def test_what_is_no_cache_is_not_found(pages: AdminPages, name: str) -> None:
    page = await pages.table()["/caches/"]["GET"](make_mocked_request("GET", f"/caches/{name}"))
    assert page.status == 404
    assert page.headers["Content-Security-Policy"] == POLICY
    assert read(body(page)).one("h1").text == "There is no such cache"
    assert name not in body(page) or not name


@pytest.mark.parametrize("cache_id", ["orders", "x" * 3 * IN_A_THREAD_BYTES])
async def test_a_page_is_compressed_for_who_takes_that(cache_id: str) -> None:
    page = problem_page(404, "Not here", cache_id, is_portal=False)

    async def answer(_: web.BaseRequest) -> web.Response:
        return page_answer(404, page)

    server = await asyncio.get_running_loop().create_server(HttpServer(answer), "127.0.0.1", 0)
    async with server, aiohttp.ClientSession(auto_decompress=False) as session:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with session.get(url, headers={"Accept-Encoding": "identity"}) as plain:
            assert (await plain.read()).decode() == page
            assert "Content-Encoding" not in plain.headers
        async with session.get(url, headers={"Accept-Encoding": "gzip"}) as packed:
            assert gzip.decompress(await packed.read()).decode() == page
            assert packed.headers["Content-Encoding"] == "gzip"
            assert packed.headers["Vary"] == "Accept-Encoding"


async def test_all_that_a_page_loads_is_there(pages: AdminPages) -> None:
    tree = read(body(await get(pages, "/")))
    wanted = {one.attributes[name] for one in tree.all() for name in ("src",) if name in one.attributes}
    wanted |= {one.attributes["href"] for one in tree.find("link")}
    assert wanted == {"/static/natproxy.css", "/static/natproxy.js", "/static/icon.svg"}
    for path in wanted:
        answer = await get(pages, path)
        assert (answer.status, bool(body(answer))) == (200, True)
        assert answer.headers["Content-Type"].partition(";")[0] in ("text/css", "text/javascript", "image/svg+xml")
