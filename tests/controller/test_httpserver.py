"""natproxy.controller.httpserver: which path is answered by what; the rest is seen in test_web and test_portal."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from natproxy.controller.httpserver import (
    HEADERS,
    Answer,
    HttpServer,
    guarded,
    is_safe_host,
    json_answer,
    table_answer,
    text_answer,
)


def named(name: str) -> Answer:
    async def answer(_: web.BaseRequest) -> web.Response:
        return text_answer(200, name)

    return answer


ANSWER = table_answer(
    {
        "/": {"GET": named("first")},
        "/one": {"GET": named("one"), "POST": named("posted")},
        "/caches/": {"GET": named("cache")},
    }
)


async def said(path: str, method: str = "GET", answer: Answer = ANSWER) -> tuple[int, str]:
    response = await answer(make_mocked_request(method, path))
    return response.status, str(response.text).strip()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "first"),
        ("/?a=b", "first"),
        ("/one", "one"),
        ("/one?/caches/x", "one"),
        ("/caches/x", "cache"),
        ("/caches/x?client=y", "cache"),
        ("/caches/..", "cache"),
    ],
)
async def test_what_is_in_the_table_is_answered(path: str, found: str) -> None:
    assert await said(path) == (200, found)


@pytest.mark.parametrize(
    "path", ["//", "/one/", "/one/x", "/two", "/caches", "/caches/", "/caches/x/", "/caches/x/y", "/caches//", "//one"]
)
async def test_all_else_is_not_found(path: str) -> None:
    assert await said(path) == (404, "not found; there is / /caches/ /one")


async def test_what_there_is_can_be_kept_to_oneself() -> None:
    assert await said("/two", answer=table_answer({}, "no")) == (404, "no")


async def test_methods_are_told() -> None:
    assert await said("/one", "POST") == (200, "posted")
    assert await said("/one", "HEAD") == (200, "one")
    assert await said("/one", "PUT") == (405, "method not allowed; use GET, HEAD, POST")


def test_every_answer_is_kept_by_nobody_and_framed_by_nobody() -> None:
    for answer in (text_answer(404, "x"), json_answer(200, {})):
        assert HEADERS.items() <= dict(answer.headers).items()
    assert HEADERS["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in HEADERS["Content-Security-Policy"]


async def test_another_site_s_name_is_not_answered() -> None:
    answer = guarded(named("x"))
    assert (await answer(make_mocked_request("GET", "/", headers={"Host": "evil.example"}))).status == 403
    assert (await answer(make_mocked_request("GET", "/", headers={"Host": "localhost:9479"}))).status == 200


@pytest.mark.parametrize(
    ("host", "is_safe"),
    [
        (None, True),
        ("localhost", True),
        ("LocalHost:9479", True),
        ("localhost.", True),
        ("127.0.0.1", True),
        ("127.0.0.1:9479", True),
        ("[::1]", True),
        ("[::1]:9479", True),
        ("10.0.0.55:1", True),
        ("evil.example", False),
        ("evil.example:9479", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1.nip.io:9479", False),
        ("localhost:80:80", False),
        ("127.0.0.1:x", False),
        ("::1", False),
        ("[::1", False),
        ("[evil.example]", False),
        ("user@localhost", False),
        ("2130706433", False),
        ("", False),
    ],
)
def test_only_addresses_and_localhost_are_safe_hosts(host: str | None, is_safe: bool) -> None:
    assert is_safe_host(host) is is_safe


async def test_many_who_ask_at_once_do_not_hold_the_loop() -> None:
    loop, rounds = asyncio.get_running_loop(), 0
    begun: list[int] = []

    def come_round() -> None:
        nonlocal rounds
        rounds += 1
        if len(begun) < 40:
            loop.call_soon(come_round)

    async def answer(_: web.BaseRequest) -> web.Response:
        begun.append(rounds)
        return text_answer(200, "hello")

    http = HttpServer(answer)
    server = await loop.create_server(http, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
    loop.call_soon(come_round)
    for _, writer in pairs:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)  # sent at once: the loop finds them all together
    for reader, writer in pairs:
        for _ in range(2):
            assert (await reader.readuntil(b"hello\n")).startswith(b"HTTP/1.1 200")
        writer.close()
    server.close()
    await http.shutdown(1.0)
    assert len(begun) == len(set(begun)) == 2 * len(pairs)
