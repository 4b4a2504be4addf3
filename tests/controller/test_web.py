from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop

from natproxy.controller import httpserver
from natproxy.controller.httpserver import MAX_BODY_BYTES, MAX_CONNECTIONS
from natproxy.controller.web import Admin
from natproxy.controller.webmetrics import SideCounts
from natproxy.controller.webtls import WebTls
from natproxy.documents import ReloadVerdict
from natproxy.errors import NatproxyError, ReleaseError, StateError
from tests.controller.source import PORTS, ROUTES, Source
from tests.controller.webside import Answer, Identities, closed


class Served:
    """An Admin with both its servers, and a plain client for each."""

    def __init__(self, source: Source, path: Path) -> None:
        self.source = source
        self.path = path
        self.admin = Admin(source)
        self.port = 0

    async def start(self) -> None:
        self.port = await self.admin.start("127.0.0.1", 0)
        await self.admin.start_control(self.path)

    async def tcp(self, request: str, headers: str = "Host: localhost\r\n") -> Answer:
        """Send one request line with ``headers`` to the TCP side."""
        return await self.raw(f"{request} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())

    async def raw(self, request: bytes) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        return await self._exchange(reader, writer, request)

    async def control(self, request: str, body: bytes = b"") -> Answer:
        """Send one request to the control socket."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        head = f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        return await self._exchange(reader, writer, head.encode() + body)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Answer:
        writer.write(request)
        try:
            async with asyncio.timeout(20):
                return Answer(await reader.read())
        finally:
            writer.close()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    found = Served(Source(), tmp_path / "control.sock")
    await found.start()
    yield found
    await found.admin.stop()


async def test_the_read_only_pages(served: Served) -> None:
    metrics = await served.tcp("GET /metrics")
    assert (metrics.status, metrics.body) == (200, b"natproxy_workers 1\n")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    routes = await served.tcp("GET /routes")
    assert routes.status == 200
    assert routes.headers["content-type"] == "application/json"
    assert json.loads(routes.body) == ROUTES
    assert (await served.tcp("GET /healthz")).body == b"the controller and 1 of 1 workers answer\n"
    assert (await served.tcp("GET /readyz?verbose=1")).status == 200


async def test_what_is_not_well_is_503_and_says_why(served: Served) -> None:
    served.source.is_good = False
    assert (await served.tcp("GET /healthz")).status == 503
    ready = await served.tcp("GET /readyz")
    assert (ready.status, ready.body) == (503, b"waiting for AWS (denied)\n")


async def test_head_has_the_headers_alone(served: Served) -> None:
    page, head = await served.tcp("GET /routes"), await served.tcp("HEAD /routes")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == page.headers["content-length"] == str(len(page.body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_the_tcp_side_only_reads(served: Served, method: str) -> None:
    answer = await served.tcp(f"{method} /routes")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("request_line", ["POST /reload", "GET /reload", "GET /ports", "POST /ports/release"])
async def test_the_tcp_side_has_none_of_the_control_pages(served: Served, request_line: str) -> None:
    answer = await served.tcp(request_line)
    assert answer.status == 404
    assert answer.body.startswith(b"not found; there is / /caches/ /healthz /metrics /readyz /routes /static/icon.svg ")
    assert served.source.reloads == 0


@pytest.mark.parametrize("path", ["/routes/", "/Routes", "//routes", "/../routes", "/%2e/routes", "/metrics/x"])
async def test_other_paths_are_not_found(served: Served, path: str) -> None:
    assert (await served.tcp(f"GET {path}")).status == 404


async def test_no_answer_tells_what_serves_it(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.source.failure = RuntimeError("secret")
    answers = [
        await served.tcp("GET /metrics"),
        await served.tcp("GET /missing"),
        await served.tcp("POST /metrics"),
        await served.tcp("GET /routes"),
        await served.tcp("GET /metrics", "Host: evil.example\r\n"),
        await served.raw(b"garbage\r\n\r\n"),
        await served.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 10_000 + b"\r\n\r\n"),
        await served.raw(b"GET /" + b"y" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        await served.control("POST /ports/release", b"x" * (MAX_BODY_BYTES + 1)),
    ]
    assert [answer.status for answer in answers] == [200, 404, 405, 500, 403, 400, 400, 400, 413]
    for answer in answers:
        assert answer.headers["server"] == "natproxy"
        assert b"aiohttp" not in answer.raw.lower()
        assert b"python" not in answer.raw.lower()
        assert b"secret" not in answer.raw
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" not in answer.headers
    assert answers[3].body == b"internal error\n"
    assert [record.levelno for record in caplog.records if "GET /routes" in record.getMessage()] == [logging.ERROR]
    assert len(caplog.records) == 1


async def test_the_pages_are_served_on_tcp_alone(served: Served) -> None:
    page = await served.tcp("GET /")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await served.tcp("GET /status")).headers["content-type"] == "application/json"
    assert (await served.control("GET /status")).status == 404


async def test_a_network_that_is_not_allowed_is_not_answered_and_counted(tmp_path: Path) -> None:
    counts = SideCounts("admin")
    admin = Admin(Source(), counts)
    port = await admin.start("127.0.0.1", 0, allow=[ipaddress.ip_network("127.0.0.2/32")])
    for source, said in (("127.0.0.1", b""), ("127.0.0.2", b"HTTP/1.1 200 OK")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert (await reader.read())[:15] == said
        writer.close()
    await admin.stop()
    assert [sample.value for family in counts.families() for sample in family.samples] == [1, 1]


async def test_over_tls_a_certificate_is_demanded_and_the_host_may_be_any(tmp_path: Path) -> None:
    identities = Identities(tmp_path)
    admin = Admin(Source())
    port = await admin.start("127.0.0.1", 0, tls=WebTls(lambda: identities.tls))
    admin.open_tls()
    assert (await identities.ask(port, "/metrics", more="Host: any.example\r\n")).status == 400
    assert (await identities.ask(port, "/metrics")).body == b"natproxy_workers 1\n"
    reader, writer = await identities.talk(port, None)
    with pytest.raises(ssl.SSLError):
        await reader.read()
    await closed(writer)
    plain, talk = await asyncio.open_connection("127.0.0.1", port)
    talk.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert b"natproxy" not in await plain.read()
    talk.close()
    admin.tick()
    await admin.stop()


async def test_a_page_of_another_site_is_refused_on_tcp_only(served: Served) -> None:
    answer = await served.tcp("GET /routes", "Host: rebound.example:9479\r\n")
    assert (answer.status, b"my-redis" in answer.body) == (403, False)
    assert (await served.tcp("GET /missing", "Host: rebound.example\r\n")).status == 403
    assert (await served.raw(b"GET /healthz HTTP/1.0\r\n\r\n")).status == 200
    reader, writer = await asyncio.open_unix_connection(served.path)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: anything.example\r\nConnection: close\r\n\r\n")
    assert Answer(await reader.read()).status == 200
    writer.close()


async def test_the_control_socket_shows_all(served: Served) -> None:
    assert json.loads((await served.control("GET /ports")).body) == PORTS
    assert json.loads((await served.control("GET /routes")).body) == ROUTES
    for path in ("/metrics", "/healthz", "/readyz"):
        assert (await served.control(f"GET {path}")).status == 200


async def test_a_reload_gives_its_verdict(served: Served) -> None:
    served.source.verdict = ReloadVerdict(False, "natproxy.yaml:3: x", ("workers",))
    answer = await served.control("POST /reload")
    assert answer.status == 200
    assert json.loads(answer.body) == {"ok": False, "message": "natproxy.yaml:3: x", "restart_needed": ["workers"]}
    assert served.source.reloads == 1
    reading = await served.control("GET /reload")
    assert (reading.status, reading.headers["allow"]) == (405, "POST")
    assert (await served.control("HEAD /reload")).status == 405
    assert served.source.reloads == 1


async def test_a_port_is_released(served: Served) -> None:
    answer = await served.control("POST /ports/release", b'{"name": "my-redis-003/0001"}')
    assert (answer.status, json.loads(answer.body)) == (200, {"message": "port 6381 of my-redis-003/0001 is free"})
    assert served.source.released == ["my-redis-003/0001"]


@pytest.mark.parametrize(
    ("error", "status"), [(ReleaseError("its node still exists"), 409), (StateError("disk full"), 507)]
)
async def test_a_port_that_cannot_be_released_says_why(served: Served, error: NatproxyError, status: int) -> None:
    served.source.release_error = error
    answer = await served.control("POST /ports/release", b'{"name": "x"}')
    assert (answer.status, json.loads(answer.body)) == (status, {"error": str(error)})


@pytest.mark.parametrize("body", [b"", b"x", b"{}", b'{"name": 1}', b'"x"', b"\xff"])
async def test_a_body_that_names_nothing_is_refused(served: Served, body: bytes) -> None:
    answer = await served.control("POST /ports/release", body)
    assert answer.status == 400
    assert "error" in json.loads(answer.body)
    assert served.source.released == []


async def test_a_body_has_a_size(served: Served) -> None:
    name = "x" * (MAX_BODY_BYTES - len('{"name":""}'))
    assert (await served.control("POST /ports/release", json.dumps({"name": name}).encode())).status == 413
    body = f'{{"name":"{name}"}}'.encode()
    assert (await served.control("POST /ports/release", body)).status == 200
    assert served.source.released == [name]


async def test_a_body_that_does_not_come_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "BODY_SECONDS", 0.05)
    reader, writer = await asyncio.open_unix_connection(served.path)
    writer.write(b"POST /ports/release HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(20):
        assert Answer(await reader.readuntil(b"in time")).status == 408
    writer.close()


async def test_a_connection_without_a_request_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "IDLE_SECONDS", 0.05)
    served = Served(Source(), tmp_path / "control.sock")
    await served.start()
    for sent in (b"", b"GET /healthz HTTP/1.1\r\nHo"):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
    await served.admin.stop()


async def test_whoever_holds_connections_open_keeps_nobody_from_asking(served: Served) -> None:
    many = 3 * MAX_CONNECTIONS
    held = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", served.port) for _ in range(many)))
    assert (await served.tcp("GET /healthz")).status == 200
    ends = [asyncio.get_running_loop().create_task(reader.read()) for reader, _ in held]
    async with asyncio.timeout(20):
        while sum(end.done() for end in ends) < many - MAX_CONNECTIONS:
            await asyncio.wait([end for end in ends if not end.done()], return_when=asyncio.FIRST_COMPLETED)
    assert (await served.tcp("GET /healthz")).status == 200
    assert not all(end.done() for end in ends)
    for _, writer in held:
        writer.close()
    await asyncio.wait(ends)
    assert all(isinstance(end.exception(), ConnectionError | None) for end in ends)


async def test_a_connection_may_ask_again(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    for _ in range(2):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"answer\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_address_in_use_is_an_error_that_names_it(served: Served) -> None:
    with pytest.raises(
        NatproxyError, match=rf"cannot open the admin side on 127\.0\.0\.1 port {served.port}: .*in use"
    ):
        await Admin(Source()).start("127.0.0.1", served.port)


async def test_an_address_of_another_host_is_an_error_that_names_it() -> None:
    with pytest.raises(NatproxyError, match=r"cannot open the admin side on 192\.0\.2\.1 port 9479: "):
        await Admin(Source()).start("192.0.2.1", 9479)


async def test_ipv6_is_served(served: Served) -> None:
    port = await served.admin.start("::1", 0)
    reader, writer = await asyncio.open_connection("::1", port)
    writer.write(f"GET /healthz HTTP/1.1\r\nHost: [::1]:{port}\r\nConnection: close\r\n\r\n".encode())
    assert Answer(await reader.read()).status == 200
    writer.close()


async def test_a_second_daemon_is_told_of_the_first(served: Served) -> None:
    with pytest.raises(NatproxyError, match="another natproxy runs with this state_dir"):
        await Admin(Source()).start_control(served.path)
    assert (await served.control("GET /ports")).status == 200


async def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    served = Served(Source(), tmp_path / "control.sock")
    await served.start()
    idle, idle_writer = await asyncio.open_connection("127.0.0.1", served.port)
    idle_writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await idle.readuntil(b"answer\n")
    began = time.monotonic()
    await served.admin.stop(timeout_seconds=0.2)
    assert time.monotonic() - began < 10
    assert await idle.read() == b""
    idle_writer.close()
    assert not served.path.exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", served.port), timeout=5)
    await served.admin.stop()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_serves_and_stops_on_either_loop(tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def life(stack: AsyncExitStack) -> None:
        first, second = (Served(Source(), tmp_path / "control.sock") for _ in range(2))
        stack.push_async_callback(first.admin.stop)
        stack.push_async_callback(second.admin.stop)
        await first.start()
        assert (await first.tcp("GET /routes")).status == 200
        assert (await first.control("GET /ports")).status == 200
        assert (await first.control("POST /ports/release", b'{"name": "x"}')).status == 200
        assert (await first.raw(b"garbage\r\n\r\n")).headers["server"] == "natproxy"
        with pytest.raises(NatproxyError, match="in use"):
            await second.admin.start("127.0.0.1", first.port)
        with pytest.raises(NatproxyError, match="another natproxy"):
            await second.admin.start_control(first.path)
        first.path.unlink()
        await second.start()
        await first.admin.stop()
        assert (await second.control("GET /ports")).status == 200
        await second.admin.stop()
        assert not second.path.exists()

    async def whole_life() -> None:
        async with AsyncExitStack() as stack:
            await life(stack)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(whole_life())
