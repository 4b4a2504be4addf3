from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from natproxy import messages
from natproxy.connect import serving as module
from natproxy.connect.directory import Directory
from natproxy.connect.serving import Serving
from natproxy.documents import CacheView, DirectoryDocument, LocalRoute, NodeName, RouteView
from natproxy.errors import ChannelError
from tests.connect.freeports import free_ports

HOST = "cache.example.com"
ADDRESSES = ("203.0.113.73",)


class Listener:
    """A worker that keeps what it is told, and the sockets."""

    def __init__(self) -> None:
        self.heard: list[messages.Down] = []
        self.sockets: dict[int, socket.socket] = {}
        self.is_gone = False
        self.closed = asyncio.Event()

    def send(self, message: messages.Down, sockets: Sequence[socket.socket] = ()) -> None:
        if self.is_gone:
            raise ChannelError("it is gone")
        self.heard.append(message)
        if isinstance(message, messages.Serve):
            assert message.sockets == len(sockets)
            for sock in sockets:
                self.sockets[message.port] = sock.dup()
        if isinstance(message, messages.Unserve):
            self.sockets.pop(message.port).close()
            self.closed.set()

    def took(self, kind: type[Any]) -> list[Any]:
        """Return what came of one kind, and forget all."""
        found = [message for message in self.heard if isinstance(message, kind)]
        self.heard.clear()
        return found

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()


@pytest.fixture
def worker() -> Iterator[Listener]:
    made = Listener()
    with contextlib.closing(made):
        yield made


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
async def serving(worker: Listener, told: list[str]) -> Serving:
    def tell(event: str, line: str, routes: Sequence[LocalRoute]) -> None:
        told.append(f"{event}: {line}")
        assert routes

    return Serving(worker, HOST, tell)


@pytest.fixture
def ports() -> list[int]:
    """Three that are free here, as are those after them."""
    return free_ports(6)[:3]


def view(port: int, node: str = "001", **more: Any) -> RouteView:
    named = {"port": port, "kind": "node", "node": NodeName(node, "0001"), "state": "open", "tls": "terminate"}
    return RouteView(**{**named, "rewrite": "redis", **more})


def apply(serving: Serving, *views: RouteView, addresses: tuple[str, ...] = ADDRESSES, cache: str = "grp") -> None:
    caches = (CacheView(id=cache, engine="redis", mode="cluster-enabled", routes=views),)
    document = DirectoryDocument(public_host=HOST, generated="", caches=caches)
    serving.apply(caches, Directory(document, addresses))


async def test_what_is_there_is_served_with_its_book_before_it(
    serving: Serving, worker: Listener, told: list[str], ports: list[int]
) -> None:
    apply(serving, view(ports[0], "001"), view(ports[1], "002"))
    assert [type(message) for message in worker.heard] == [messages.Book, messages.Serve, messages.Serve]
    (book,) = worker.took(messages.Book)
    assert (HOST, ports[1], ports[1]) in book.ports
    assert (book.public_host, book.public_ip) == ("127.0.0.1", "127.0.0.1")
    assert [route.local_port for route in serving.routes] == ports[:2]
    assert len(told) == 2
    for port in ports[:2]:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert serving.route_at(ports[1]) == serving.routes[1]
    apply(serving, view(ports[0], "001"), view(ports[1], "002"))
    assert worker.heard == []
    assert len(told) == 2


async def test_a_taken_port_is_not_waited_for_and_all_that_is_told_agrees(
    serving: Serving, worker: Listener, ports: list[int]
) -> None:
    with socket.create_server(("127.0.0.1", ports[0])):
        apply(serving, view(ports[0], "001"), view(ports[1], "002"))
    (book,) = worker.took(messages.Book)
    assert (HOST, ports[0], ports[2]) in book.ports
    assert [route.local_port for route in serving.routes] == [ports[2], ports[1]]
    assert worker.sockets.keys() == {ports[1], ports[2]}
    apply(serving, view(ports[0], "001"), view(ports[1], "002"))  # it is free again, and the choice stands
    assert worker.heard == []


async def test_a_new_node_opens_and_the_book_grows(
    serving: Serving, worker: Listener, told: list[str], ports: list[int]
) -> None:
    apply(serving, view(ports[0]))
    (before,) = worker.took(messages.Book)
    apply(serving, view(ports[0]), view(ports[1], "002"))
    (book,) = worker.took(messages.Book)
    assert book.version > before.version
    assert told[-1] == f"opened: grp 002/0001 is at 127.0.0.1:{ports[1]} now"


async def test_what_is_gone_lets_nobody_in_drains_and_closes(
    serving: Serving, worker: Listener, told: list[str], ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_SECONDS", -0.9)
    apply(serving, view(ports[0]), view(ports[1], "002"))
    worker.heard.clear()
    apply(serving, view(ports[0]))
    refusing, end = (message for message in worker.heard if isinstance(message, messages.Serve | messages.End))
    assert (refusing.port, getattr(refusing, "refuse", "")) == (ports[1], "node-gone")
    assert (end.port, getattr(end, "outcome", "")) == (ports[1], "node-gone")
    assert told[-1] == f"closing: grp 002/0001 is gone: 127.0.0.1:{ports[1]} closes"
    async with asyncio.timeout(10):
        await worker.closed.wait()
    assert worker.sockets.keys() == {ports[0]}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[1]), timeout=5)
    apply(serving, view(ports[0]), view(ports[1], "002"))
    assert serving.routes[1].local_port == ports[1]


async def test_what_comes_back_while_it_drains_is_served_as_before(
    serving: Serving, worker: Listener, ports: list[int]
) -> None:
    apply(serving, view(ports[0]), view(ports[1], "002"))
    apply(serving, view(ports[0]))
    worker.heard.clear()
    apply(serving, view(ports[0]), view(ports[1], "002"))
    taken_back, serve = (one for one in worker.heard if isinstance(one, messages.Serve | messages.End))
    assert isinstance(taken_back, messages.End)
    assert taken_back.seconds is None
    assert isinstance(serve, messages.Serve)
    assert (serve.port, serve.refuse, serve.sockets) == (ports[1], None, 0)
    serving.close()


async def test_other_addresses_and_other_terms_are_taken_up(
    serving: Serving, worker: Listener, told: list[str], ports: list[int]
) -> None:
    apply(serving, view(ports[0]))
    worker.heard.clear()
    apply(serving, view(ports[0]), addresses=("203.0.113.99",))
    (serve,) = worker.took(messages.Serve)
    assert serve.addresses == (("203.0.113.99", ports[0]),)
    apply(serving, view(ports[0], tls="off"), addresses=("203.0.113.99",))
    (serve,) = worker.took(messages.Serve)
    assert not serve.node_tls
    assert told[-1].endswith("NOT ENCRYPTED on the Internet from now on")
    apply(serving, view(ports[0], role="primary", tls="off"), addresses=("203.0.113.99",))
    assert told[-1].endswith("is the primary now")


async def test_a_port_that_leads_elsewhere_ends_what_it_led_to(
    serving: Serving, worker: Listener, ports: list[int]
) -> None:
    apply(serving, view(ports[0], "001"))
    worker.heard.clear()
    apply(serving, view(ports[0], "009"))
    (end,) = worker.took(messages.End)
    assert (end.port, end.outcome) == (ports[0], "route-changed")


async def test_what_natproxy_does_not_serve_is_shown_and_not_opened(
    serving: Serving, worker: Listener, told: list[str], ports: list[int]
) -> None:
    apply(serving, view(ports[0]), view(ports[1], "002", state="error"), view(ports[2], "003", state="unreachable"))
    assert [route.local_port for route in serving.routes] == [ports[0], None, ports[2]]
    assert worker.sockets.keys() == {ports[0], ports[2]}
    apply(serving, view(ports[0], state="error"), view(ports[1], "002"), view(ports[2], "003"))
    assert [route.local_port for route in serving.routes] == [None, ports[1], ports[2]]
    assert [line.partition(":")[0] for line in told[3:]] == ["closing", "opened", "changed"]
    serving.close()


async def test_a_worker_that_is_gone_is_the_callers_to_see(
    serving: Serving, worker: Listener, ports: list[int]
) -> None:
    worker.is_gone = True
    with pytest.raises(ChannelError):
        apply(serving, view(ports[0]))


async def test_what_there_are_no_descriptors_for_is_not_opened_and_the_rest_is(
    serving: Serving, worker: Listener, told: list[str], ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "descriptor_limit", lambda: 51)  # room for two
    views = [view(port, f"00{number}") for number, port in enumerate(ports)]
    apply(serving, *views)
    assert [route.local_port for route in serving.routes] == [*ports[:2], None]
    assert "ulimit -n" in told[-1]
    apply(serving, *views[1:])
    apply(serving, *views[1:])
    assert [route.local_port for route in serving.routes] == [ports[1], None]  # the first drains


async def test_what_is_secured_in_an_unknown_way_is_not_sent_in_clear(
    serving: Serving, worker: Listener, told: list[str], ports: list[int]
) -> None:
    apply(serving, view(ports[0], tls="quantum"))
    assert worker.heard == []
    assert "does not know how it is secured" in told[0]
