"""natproxy.controller.portal: what is told to whom, over real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import uvloop

from natproxy.controller.portal import Portal
from natproxy.controller.webmetrics import SideCounts
from natproxy.controller.webtls import WebTls
from natproxy.documents import CacheView, DirectoryDocument, RouteView
from natproxy.errors import NatproxyError
from natproxy.messages import Tls
from natproxy.tls.identity import Identity
from tests.controller.webside import Identities, closed
from tests.standins.certificates import Authority, Issued

ROUTE = RouteView(port=6379, kind="primary", state="open", tls="terminate", target="10.0.0.1:6379")


class Source:
    """Two caches for dev1, and one for the others."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def directory(self, identity: Identity, ip: str) -> DirectoryDocument:
        self.asked.append((identity.name, ip))
        ids = ("my-redis", "legacy.one") if identity.name == "dev1" else ("theirs",)
        caches = tuple(CacheView(id=one, engine="redis", mode="cluster-disabled", routes=(ROUTE,)) for one in ids)
        return DirectoryDocument(
            public_host="cache.example.com", generated="now", caches=caches, certificate=identity.name, expires="then"
        )


class Served:
    """A portal in the test's own loop."""

    def __init__(self, identities: Identities) -> None:
        self.identities = identities
        self.tls: Tls = identities.tls
        self.source = Source()
        self.counts = SideCounts("portal")
        self.portal = Portal(self.source, WebTls(lambda: self.tls), self.counts)
        self.port = self.portal.listen(["127.0.0.1"], 0)
        self.portal.open()

    async def begun(self, shown: Issued | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection on which a first request has been answered."""
        reader, writer = await self.identities.talk(self.port, shown or self.identities.dev)
        writer.write(b"GET /directory HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}\n")
        return reader, writer

    def counted(self) -> dict[str, float]:
        """Return every sample by its only label's value."""
        return {
            value: sample.value
            for family in self.counts.families()
            for sample in family.samples
            for value in sample.labels.values()
        }


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    found = Served(Identities(tmp_path))
    yield found
    await found.portal.stop()


async def test_the_directory_is_the_certificate_s_own(served: Served) -> None:
    answer = await served.identities.ask(served.port)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    document = msgspec.json.decode(answer.body, type=DirectoryDocument)
    assert [cache.id for cache in document.caches] == ["my-redis", "legacy.one"]
    assert (document.certificate, document.expires) == ("dev1", "then")
    assert set(json.loads(answer.body)["caches"][0]["routes"][0]).isdisjoint(
        {"target", "addresses", "reason", "rewrite_note", "connections"}
    )
    dev2 = served.identities.clients.issue("dev2", usage="client")
    other = json.loads((await served.identities.ask(served.port, shown=dev2)).body)
    assert [cache["id"] for cache in other["caches"]] == ["theirs"]
    assert served.source.asked == [("dev1", "127.0.0.1"), ("dev2", "127.0.0.1")]
    assert served.counted() == {"200": 2}


async def test_pages_and_lines_are_of_the_caches_that_may_be_used(served: Served) -> None:
    ask = served.identities.ask
    page = await ask(served.port, "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"my-redis" in page.body
    assert f"natproxy connect cache.example.com:{served.port} --bundle dev1.zip".encode() in page.body
    assert b"my-redis" in (await ask(served.port, "/caches/my-redis")).body
    line = f"natproxy connect cache.example.com:{served.port} --bundle dev1.zip --cache legacy.one"
    assert line.encode() in (await ask(served.port, "/caches/legacy%2Eone")).body
    lines = await ask(served.port, "/snippets/my-redis")
    assert (lines.status, lines.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    one = await ask(served.port, "/snippets/my-redis?client=redis-py")
    assert one.body.startswith(b"from redis import Redis")
    assert one.body in lines.body
    unknown = await ask(served.port, "/snippets/my-redis?client=telepathy")
    assert unknown.status == 404
    assert b"redis-py" in unknown.body
    style = await ask(served.port, "/static/natproxy.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert (await ask(served.port, "/static/none.css")).status == 404


@pytest.mark.parametrize("place", ["/caches/", "/snippets/"])
async def test_what_is_somebody_else_s_looks_like_what_is_not_there(served: Served, place: str) -> None:
    theirs, nobody_s = [await served.identities.ask(served.port, place + name) for name in ("theirs", "nobodys")]
    assert theirs.status == nobody_s.status == 404
    assert theirs.body == nobody_s.body
    assert {**theirs.headers, "date": ""} == {**nobody_s.headers, "date": ""}


@pytest.mark.parametrize(
    "path",
    [
        "/directory/", "//directory", "/directory/../directory", "/%2e%2e/directory", "/caches", "/caches/",
        "/caches//my-redis", "/caches/../directory", "/caches/%2e%2e/my-redis", "/caches/my-redis/",
        "/caches/a%2Fmy-redis", "/caches/my-redis%00", "/static/../directory", "/static/%2e%2e/portal.py",
        "/metrics", "/routes", "/status", "/reload", "/Directory", "/caches/MY-REDIS", "*", "directory",
    ],
)  # fmt: skip
async def test_other_paths_are_not_found(served: Served, path: str) -> None:
    answer = await served.identities.ask(served.port, path)
    assert answer.status in (400, 404)
    assert b"6379" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
async def test_it_only_reads(served: Served, method: str) -> None:
    answer = await served.identities.ask(served.port, method=method)
    assert answer.status in ((405,) if method != "CONNECT" else (400, 404, 405))
    assert b"my-redis" not in answer.body


async def test_head_has_the_headers_alone(served: Served) -> None:
    page, head = [await served.identities.ask(served.port, method=method) for method in ("GET", "HEAD")]
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == page.headers["content-length"]


async def test_every_answer_has_strict_headers(served: Served) -> None:
    for path in (
        "/",
        "/directory",
        "/caches/my-redis",
        "/snippets/my-redis",
        "/static/natproxy.js",
        "/none",
        "/caches/x",
    ):
        headers = (await served.identities.ask(served.port, path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["server"] == "natproxy"
        assert headers["strict-transport-security"] == "max-age=31536000"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"GET /directory HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 10_000 + b"\r\n\r\n",
        b"GET /directory HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(100)) + b"\r\n",
        b"GET /" + b"y" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /directory HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /directory HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /directory HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /directory HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /directory HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    ],
    ids=["garbage", "long-header", "many-headers", "long-path", "smuggled", "two-lengths", "negative", "space", "nul"],
)
async def test_what_is_no_proper_request_is_refused_and_ends_the_connection(
    served: Served, request_bytes: bytes
) -> None:
    answer = await served.identities.exchange(served.port, request_bytes)
    assert answer.status == 400
    assert answer.raw.count(b"HTTP/1.") == 1
    assert b"my-redis" not in answer.raw
    assert served.counted() == {"400": 1}


async def test_a_body_is_no_second_request(served: Served) -> None:
    inner = b"GET /caches/my-redis HTTP/1.1\r\nHost: a\r\n\r\n"
    head = f"GET /none HTTP/1.1\r\nHost: a\r\nContent-Length: {len(inner)}\r\nConnection: close\r\n\r\n"
    answer = await served.identities.exchange(served.port, head.encode() + inner)
    assert (answer.status, answer.raw.count(b"HTTP/1.")) == (404, 1)


async def test_a_revoked_certificate_loses_its_connections_and_gets_no_new_ones(served: Served) -> None:
    dev2 = served.identities.clients.issue("dev2", usage="client")
    talks = {"1": await served.begun(), "2": await served.begun(dev2)}
    served.portal.tick()
    served.tls = served.identities.made((served.identities.dev,))
    served.portal.tick()
    async with asyncio.timeout(20):
        with contextlib.suppress(OSError):
            assert await talks["1"][0].read() == b""
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REVOKED"):
        await served.identities.ask(served.port)
    reader, writer = talks["2"]
    writer.write(b"GET /directory HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    for _, one in talks.values():
        await closed(one)
    assert served.counted()["revoked"] == 2


async def test_between_two_ticks_each_request_is_looked_at(served: Served) -> None:
    reader, writer = await served.begun()
    served.tls = served.identities.made((served.identities.dev,))
    writer.write(b"GET /directory HTTP/1.1\r\nHost: a\r\n\r\n")
    said = await reader.read()
    assert said.startswith(b"HTTP/1.1 403")
    assert b"the certificate of dev1" in said
    assert b"is revoked" in said
    assert served.source.asked == [("dev1", "127.0.0.1")]
    await closed(writer)


async def test_a_ca_that_is_no_longer_trusted_takes_its_clients_along(served: Served) -> None:
    reader, writer = await served.begun()
    served.tls = served.identities.made(ca=Authority("Another CA").pem)
    writer.write(b"GET /directory HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 403")
    await closed(writer)


async def test_nobody_is_let_in_where_there_is_nothing_to_verify_by(served: Served) -> None:
    served.tls = Tls(None, {})
    with pytest.raises((OSError, ssl.SSLError)):
        await served.identities.ask(served.port)
    server = served.identities.tls.server
    assert server is not None
    served.tls = Tls(msgspec.structs.replace(server, client_ca=None, crl=None), {})
    with pytest.raises((OSError, ssl.SSLError)):
        await served.identities.ask(served.port)
    assert served.source.asked == []
    assert served.counted() == {"internal": 2}


def test_who_has_gone_before_the_answer_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uvloop.run(_go_before_the_answer(tmp_path))
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


async def _go_before_the_answer(tmp_path: Path) -> None:
    """Ask, and reset the connection so many rounds of the loop later: some of them meet a request under way."""
    served = Served(Identities(tmp_path))
    for rounds in range(10):
        _, writer = await served.identities.talk(served.port, served.identities.dev)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(b"GET /directory HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(rounds):
            await asyncio.sleep(0)
        writer.transport.abort()
        await closed(writer)
    assert (await served.identities.ask(served.port)).status == 200
    await served.portal.stop()


async def test_requests_are_logged_at_debug_with_the_certificate(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "natproxy")
    await served.identities.ask(served.port, "/caches/theirs")
    (record,) = [one for one in caplog.records if one.getMessage() == "portal answered"]
    assert record.levelno == logging.DEBUG
    assert "dev1" in str(record.__dict__)


async def test_a_taken_port_is_told() -> None:
    portal = Portal(Source(), WebTls(lambda: Tls(None, {})), SideCounts("portal"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            NatproxyError, match=rf"cannot open the portal: port {port} cannot be opened on 127\.0\.0\.1"
        ):
            portal.listen(["127.0.0.1"], port)
    await portal.stop()


async def test_a_certificate_that_ends_ends_its_connections(served: Served) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    brief = served.identities.clients.issue("brief", usage="client", not_after=soon)
    reader, writer = await served.identities.talk(served.port, brief)
    async with asyncio.timeout(30):
        while not reader.at_eof() and reader.exception() is None:
            served.portal.tick()
            await asyncio.sleep(0.05)
    assert served.counted() == {"expired": 1}
    await closed(writer)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_EXPIRED"):
        await served.identities.ask(served.port, shown=brief)
