from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from natproxy.connect import renewal, schedule
from natproxy.connect import session as module
from natproxy.connect.papers import read_papers
from natproxy.connect.routes import MOST_ROUTES
from natproxy.connect.session import OffsetError, Session, run
from natproxy.documents import ConnectEvent
from natproxy.errors import BundleError, PortalError, PortalUnreachableError
from natproxy.tls.identity import identify
from tests.connect.bundles import bundle_of
from tests.standins.certificates import Authority, Issued
from tests.standins.portal import Portal

IP = "127.0.0.1"
OFFSET = 700


class Node:
    """What natproxy is on one of its ports: says, encrypted and to those with a certificate, what it is told."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*authority.issue("natproxy", ips=[IP]).write(directory, "node"))
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(cadata=authority.pem.decode())
        self.names: list[str] = []
        """Of those who came."""
        self.is_broken = False
        """It answers, and says then what is no TLS."""
        self.is_resetting = False
        self._listening = socket.create_server((IP, 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, name="node", daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listening.accept()[0]
                threading.Thread(target=self._echo, args=(sock,), name="node echoes", daemon=True).start()

    def _echo(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError), self.context.wrap_socket(sock, server_side=True) as tls:
            self.names.append(identify(tls.getpeercert(binary_form=True) or b"").name)
            while data := tls.recv(1000):
                tls.sendall(data)
                if self.is_resetting:
                    tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if self.is_broken:
                    os.write(tls.fileno(), b"no record of TLS")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def dev(ca: Authority) -> Issued:
    return ca.issue("dev1", usage="client")


@pytest.fixture
def node(ca: Authority, tmp_path: Path) -> Iterator[Node]:
    with contextlib.closing(Node(ca, tmp_path)) as made:
        yield made


@pytest.fixture
def portal(ca: Authority, node: Node) -> Iterator[Portal]:
    with Portal(IP, ca) as made:
        made.document["caches"] = [cache("legacy", node.port)]
        yield made


@pytest.fixture
def bundle(tmp_path: Path, ca: Authority, dev: Issued, portal: Portal) -> Path:
    return bundle_of(tmp_path / "dev1.zip", ca, dev, host=IP, port=portal.port)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("REFRESH", 0.1), ("LOST", 0.1), ("REFUSED", 3600.0)):
        monkeypatch.setattr(schedule, f"{name}_SECONDS", seconds)
    for name, seconds in (("SOONEST", 0.05), ("LOOK", 0.05), ("STOP", 0.1)):
        monkeypatch.setattr(module, f"{name}_SECONDS", seconds)


def cache(name: str, port: int, **more: object) -> dict[str, object]:
    route = {"port": port, "kind": "static", "state": "open", "tls": "terminate", **more}
    return {"id": name, "mode": "static", "routes": [route]}


class Told:
    """What a session tells."""

    def __init__(self) -> None:
        self.events: list[ConnectEvent] = []

    def __call__(self, event: ConnectEvent) -> None:
        self.events.append(event)

    async def until(self, event: str, text: str = "") -> ConnectEvent:
        """Wait for an event of that name with that text; forget it and all before it."""
        async with asyncio.timeout(20):
            while True:
                for number, one in enumerate(self.events):
                    if one.event == event and text in one.message:
                        del self.events[: number + 1]
                        return one
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(bundle: Path, portal: Portal, *caches: str) -> AsyncIterator[Told]:
    told = Told()
    papers = read_papers(bundle, time.time())
    session = Session(papers, IP, portal.port, told, caches=caches, offset=OFFSET)
    work = asyncio.get_running_loop().create_task(session.run(), name="session")
    yield told
    os.kill(os.getpid(), signal.SIGTERM)
    await work
    assert told.events[-1].event == "ended"


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def echoed(port: int | None, data: bytes = b"hello") -> bytes:
    reader, writer = await asyncio.open_connection(IP, port)
    with contextlib.closing(writer):
        writer.write(data)
        return await reader.read(100)


async def ended_by_node(port: int | None) -> None:
    reader, writer = await asyncio.open_connection(IP, port)
    with contextlib.closing(writer), contextlib.suppress(OSError):
        writer.write(b"hello")
        await reader.read()


async def test_what_the_portal_tells_of_is_served_and_followed(bundle: Path, portal: Portal, node: Node) -> None:
    async with running(bundle, portal) as told:
        serving = await told.until("serving", "1 port of 1 cache behind 127.0.0.1, as dev1")
        assert await echoed(serving.routes[0].local_port) == b"hello"
        assert node.names == ["dev1"]
        portal.document["caches"] = [cache("legacy", node.port), cache("more", node.port - 1, tls="off")]
        added = await told.until("opened", "more is at")
        assert added.routes[0].local_port is not None
        assert "NOT ENCRYPTED" in added.message
        portal.document["caches"] = [cache("legacy", node.port)]
        await told.until("closing", "more is gone")


async def test_a_portal_that_is_lost_is_told_once_and_what_is_served_is_served_on(
    bundle: Path, portal: Portal, ca: Authority
) -> None:
    async with running(bundle, portal) as told:
        port = (await told.until("serving")).routes[0].local_port
        portal.close()
        await told.until("trouble", "nobody listens on")
        assert await echoed(port) == b"hello"
        with Portal(IP, ca, port=portal.port) as again:
            again.document = portal.document
            await told.until("healed", "answers again")
            await asyncio.to_thread(again.wait_until_asked)
        assert [event.event for event in told.events if event.event != "trouble"] == []


async def test_a_revoked_certificate_is_named_and_another_bundle_is_taken_up(
    bundle: Path, portal: Portal, node: Node, ca: Authority, dev: Issued
) -> None:
    async with running(bundle, portal) as told:
        port = (await told.until("serving")).routes[0].local_port
        portal.revoke(dev)
        await told.until("trouble", "the certificate of dev1 has been revoked")
        write(bundle, b"half of it")
        await told.until("trouble", "the bundle has changed and is not taken up")
        bundle_of(bundle, ca, ca.issue("dev1-anew", usage="client"), host=IP, port=portal.port)
        await told.until("renewed", "dev1-anew")
        await told.until("healed")
        assert await echoed(port) == b"hello"
        assert node.names == ["dev1-anew"]


async def test_a_cache_that_was_asked_for_may_go_and_come_back(bundle: Path, portal: Portal, node: Node) -> None:
    portal.document["caches"] = [cache("legacy", node.port), cache("more", node.port - 1)]
    async with running(bundle, portal, "legacy") as told:
        serving = await told.until("serving")
        assert [route.cache for route in serving.routes] == ["legacy"]
        portal.document["caches"] = [cache("more", node.port - 1)]
        await told.until("closing", "legacy is gone")
        portal.document["caches"] = [cache("legacy", node.port)]
        again = await told.until("opened", "legacy is at")
        assert again.routes[0].local_port == serving.routes[0].local_port
        assert await echoed(again.routes[0].local_port) == b"hello"
        assert told.events == []


async def test_a_certificate_that_ends_soon_is_told_of(bundle: Path, portal: Portal, ca: Authority) -> None:
    soon = datetime.now(UTC) + timedelta(days=6)
    bundle_of(bundle, ca, ca.issue("dev1", usage="client", not_after=soon), host=IP, port=portal.port)
    async with running(bundle, portal) as told:
        await told.until("serving")
        await told.until("expiring", f"the certificate of dev1 ends on {soon:%Y-%m-%d}")


async def test_a_port_that_cannot_be_dialled_is_named_once_the_portal_is_known_to_be_well(
    bundle: Path, portal: Portal, node: Node
) -> None:
    async with running(bundle, portal) as told:
        port = (await told.until("serving")).routes[0].local_port
        node.close()
        with contextlib.suppress(OSError):
            await echoed(port)
        trouble = await told.until("trouble", "natproxy does not listen there")
        assert f"127.0.0.1:{port} (legacy)" in trouble.message
        await asyncio.to_thread(portal.wait_until_asked)
        assert [event for event in told.events if event.event == "trouble"] == []


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda portal: portal.document.update(caches=[]), PortalError, "dev1 may use no cache now"),
        (lambda portal: portal.document.update(version=2), PortalError, "version 2"),
        (lambda portal: portal.close(), PortalUnreachableError, "nobody listens"),
    ],
    ids=["none", "newer", "closed"],
)
async def test_a_run_that_cannot_begin_says_why(
    bundle: Path, portal: Portal, change: Callable[[Portal], None], error: type[PortalError], match: str
) -> None:
    change(portal)
    told = Told()
    with pytest.raises(error, match=match):
        await Session(read_papers(bundle, time.time()), IP, portal.port, told).run()
    assert told.events == []


async def test_an_offset_that_leads_to_no_port_is_named(bundle: Path, portal: Portal, node: Node) -> None:
    with pytest.raises(OffsetError, match=rf"takes port {node.port} to {node.port + 65000}"):
        await Session(read_papers(bundle, time.time()), IP, portal.port, Told(), offset=65000).run()


async def test_who_does_not_listen_any_more_ends_the_run(bundle: Path, portal: Portal) -> None:
    def tell(_: ConnectEvent) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await Session(read_papers(bundle, time.time()), IP, portal.port, tell, offset=OFFSET).run()


def test_what_is_not_given_is_the_bundle_s(
    bundle: Path, portal: Portal, tmp_path: Path, ca: Authority, dev: Issued
) -> None:
    events: list[ConnectEvent] = []

    def tell(event: ConnectEvent) -> None:
        events.append(event)
        if event.event == "serving":
            os.kill(os.getpid(), signal.SIGINT)

    run(bundle, None, None, tell, offset=OFFSET)
    assert [event.event for event in events] == ["serving", "ended"]
    nameless = bundle_of(tmp_path / "nameless.zip", ca, dev, manifest_json=b"{}")
    with pytest.raises(BundleError, match="does not say what to dial"):
        run(nameless, None, None, tell)


async def test_a_portal_that_tells_of_too_many_routes_later_changes_nothing(
    bundle: Path, portal: Portal, node: Node
) -> None:
    async with running(bundle, portal) as told:
        port = (await told.until("serving")).routes[0].local_port
        caches = portal.document["caches"]
        portal.document["caches"] = [cache("c", 2000 + number) for number in range(MOST_ROUTES + 1)]
        await told.until("trouble", f"natproxy tells of {MOST_ROUTES + 1} routes")
        assert await echoed(port) == b"hello"
        portal.document["caches"] = caches
        await told.until("healed")
        assert told.events == []


async def test_a_certificate_whose_end_comes_near_while_it_runs_is_told_of_once(
    bundle: Path, portal: Portal, dev: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(bundle, portal) as told:
        await told.until("serving")
        monkeypatch.setattr(renewal, "SOON_SECONDS", 400 * 86400)
        await told.until("expiring", "the certificate of dev1 ends on")
        await asyncio.to_thread(portal.wait_until_asked, 2)
        assert told.events == []


def test_a_signal_ends_it_also_while_nobody_reads_what_is_told(
    bundle: Path, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.1)
    before = signal.getsignal(signal.SIGINT)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as pipe:
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(writing, False)
            while pipe.write(bytes(65536)):
                pass
        os.set_blocking(writing, True)

        def tell(_: ConnectEvent) -> None:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            pipe.write(b"more than it takes")

        with pytest.raises(BrokenPipeError):
            run(bundle, None, None, tell, offset=OFFSET)
    assert signal.getsignal(signal.SIGINT) is before


async def test_what_went_wrong_after_the_handshake_is_over_when_a_connection_goes_well_or_with_a_new_bundle(
    bundle: Path, portal: Portal, node: Node, ca: Authority
) -> None:
    async with running(bundle, portal) as told:
        port = (await told.until("serving")).routes[0].local_port
        for is_renewed in (False, True):
            node.is_broken = True
            await ended_by_node(port)
            await told.until("trouble", f"127.0.0.1:{port} (legacy) cannot be reached")
            node.is_broken = False
            if is_renewed:
                bundle_of(bundle, ca, ca.issue("dev1", usage="client"), host=IP, port=portal.port)
                await told.until("healed", f"127.0.0.1:{port} (legacy) is shown the new bundle's certificate")
            assert await echoed(port) == b"hello"
            if not is_renewed:
                await told.until("healed", f"127.0.0.1:{port} (legacy) answers again")


async def test_who_is_refused_does_not_ask_for_each_client_that_tries_on(
    bundle: Path, portal: Portal, node: Node, ca: Authority, dev: Issued
) -> None:
    async with running(bundle, portal) as told:
        port = (await told.until("serving")).routes[0].local_port
        portal.revoke(dev)
        await told.until("trouble", "the certificate of dev1 has been revoked")
        came = portal.came
        node.is_resetting = True
        for _ in range(30):
            await ended_by_node(port)
        assert portal.came == came
        bundle_of(bundle, ca, ca.issue("dev1-anew", usage="client"), host=IP, port=portal.port)
        await told.until("healed", "answers again")
