from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from natproxy import messages
from natproxy.controller import books as books_module
from natproxy.controller.books import AT_ONCE
from natproxy.controller.prober import Prober
from natproxy.controller.serving import BIND_RETRY_SECONDS, EMPTY_SECONDS, Serving
from natproxy.controller.sockets import Sockets
from natproxy.model import Address, Endpoint, Kind, Limits, Mode, Outcome, Role, Route, RouteKey
from natproxy.plan.addresses import FORGET_SECONDS
from natproxy.plan.guard import Known
from tests.controller.samples import Clock, Recorder, free_ports, knowledge
from tests.plan.samples import host, node, redis, snapshot

A, B = Address("127.0.0.2", 6379), Address("127.0.0.3", 6379)
DRAIN = Limits().drain_seconds
REFUSED, NODE_HANDSHAKE = Outcome.REFUSED, Outcome.NODE_HANDSHAKE


class Doubts(Prober):
    """Asks nobody; remembers who is in doubt."""

    def __init__(self) -> None:
        super().__init__(lambda _address, _answers: None)
        self.watched: dict[Address, float] = {}

    def watch(self, addresses: Iterable[tuple[Address, float]]) -> None:
        self.watched = dict(addresses)


class Stage:
    """A Serving with real sockets, workers that write down what they are told, and one clock for all."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.knowledge = knowledge(directory, clock=self.clock)
        self.sockets = Sockets(["127.0.0.1"])
        self.workers = Recorder()
        self.serving = Serving(self.knowledge, self.sockets, self.workers, clock=self.clock)
        self.doubts = self.serving._prober = Doubts()
        self.ports = free_ports(3)
        self._live: dict[int, dict[Address, int]] = {}

    def route(self, number: int = 0, name: str = "target", kind: Kind = Kind.NODE, **facts: Any) -> Route:
        """A route on the port of that number to ``name``:6379, whose key is named after it."""
        route_key = RouteKey("my-redis", kind, node(name).id if kind is Kind.NODE else None)
        given = {"key": route_key, "target": Endpoint(name, 6379), "mode": Mode.CLUSTER_DISABLED}
        return Route(port=self.ports[number], **{**given, **facts})

    def apply(self, *routes: Route, is_reload: bool = False) -> tuple[int, int, int]:
        return self.serving.apply(routes, is_reload=is_reload)

    def answers(self, name: str, *addresses: Address) -> None:
        """A name resolves."""
        if self.knowledge.take_name(name, tuple(address.ip for address in addresses), ""):
            self.serving.names_changed([name])

    def counts(self, port: int, worker: int = 1, **live: int) -> None:
        """A worker tells what it has open on a port: ``A=2``."""
        by_address = {{"A": A, "B": B}[name]: number for name, number in live.items()}
        self.serving.counted(worker, counted(port, by_address))

    def pass_seconds(self, seconds: float) -> None:
        """Tick once a second, as the daemon does."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + 1.0)
            self.serving.tick()


def counted(port: int, live: dict[Address, int]) -> messages.Counts:
    number = sum(live.values())
    told = tuple((address.ip, address.port, count) for address, count in live.items())
    return messages.Counts(number, (messages.RouteCounts(port, number, 0, {}, 0, 0, (), 0.0, told),) if live else ())


def drained(port: int, address: Address | None, outcome: Outcome, seconds: float = DRAIN) -> messages.End:
    return messages.End(port, address, seconds, outcome)


def cut(port: int, address: Address, outcome: Outcome) -> messages.End:
    return messages.End(port, address, 0.0, outcome)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.sockets.close_all()
    await stage.serving.close()


def reason(stage: Stage) -> str | None:
    """Why the first port's route is out of reach."""
    return stage.serving.out_of_reach.reason(stage.ports[0])


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


# Opening and closing.


async def test_a_route_is_opened_and_told_to_the_workers(stage: Stage) -> None:
    stage.knowledge.take_name("target", (A.ip,), "")
    allow = (ipaddress.ip_network("198.51.100.0/24"),)
    route = stage.route(allow=allow, limit_group="g", max_connections=7, max_connections_per_client=3)
    assert stage.apply(route) == (1, 0, 0)
    assert is_open(route.port)
    ((serve, sockets),) = stage.workers.told
    assert sockets == 1
    assert serve == messages.Serve(
        port=route.port,
        cache="my-redis",
        kind="node",
        node="target/0001",
        addresses=(A,),
        rotates=False,
        allow=("198.51.100.0/24",),
        connect_seconds=3.0,
        idle_seconds=None,
        keepalive_seconds=30.0,
        limit_group="g",
        max_connections=7,
        max_connections_per_client=3,
        sniffs=True,
    )


async def test_what_is_applied_again_is_told_no_more(stage: Stage) -> None:
    stage.apply(stage.route())
    stage.workers.take()
    assert stage.apply(stage.route()) == (0, 0, 0)
    assert stage.workers.take() == []


async def test_a_route_with_an_error_or_without_a_target_is_not_opened(stage: Stage) -> None:
    assert stage.apply(stage.route(0, error="needs TLS"), stage.route(1, target=None)) == (0, 0, 0)
    assert stage.serving.ports() == frozenset()


async def test_a_node_that_is_rebuilt_keeps_its_port_open(stage: Stage) -> None:
    stage.apply(stage.route())
    assert stage.apply(stage.route(target=None)) == (0, 1, 0)
    assert stage.serving.ports() == {stage.ports[0]}


@pytest.mark.parametrize(
    ("is_reload", "outcome"), [(False, Outcome.GONE), (True, Outcome.ROUTE_REMOVED)], ids=["gone", "removed"]
)
async def test_a_route_that_is_wanted_no_more_drains_then_closes(
    stage: Stage, is_reload: bool, outcome: Outcome
) -> None:
    route = stage.route()
    stage.apply(route)
    stage.answers("target", A)
    stage.counts(route.port, A=1)
    stage.workers.take()
    assert stage.apply(is_reload=is_reload) == (0, 0, 1)
    serve, order = stage.workers.take()
    assert isinstance(serve, messages.Serve)
    assert serve.refuse == outcome
    assert order == drained(route.port, None, outcome)
    stage.pass_seconds(DRAIN - 1.0)
    assert is_open(route.port)
    assert stage.workers.take() == []
    stage.pass_seconds(1.0)
    assert stage.workers.take() == [messages.Unserve(route.port, outcome)]
    assert not is_open(route.port)
    assert stage.serving.ports() == frozenset()


async def test_a_draining_port_without_connections_closes_soon(stage: Stage) -> None:
    route = stage.route()
    stage.apply(route)
    stage.counts(route.port, A=1)
    stage.apply()
    stage.pass_seconds(EMPTY_SECONDS + 1.0)
    assert is_open(route.port)
    stage.counts(route.port)
    stage.pass_seconds(1.0)
    assert not is_open(route.port)


async def test_a_route_that_gains_an_error_is_drained_as_changed(stage: Stage) -> None:
    stage.apply(stage.route())
    stage.workers.take()
    stage.apply(stage.route(error="the cache requires TLS"))
    assert stage.workers.take_orders() == [drained(stage.ports[0], None, Outcome.ROUTE_CHANGED)]


async def test_a_draining_port_that_is_wanted_again_serves_on(stage: Stage) -> None:
    route = stage.route()
    stage.apply(route)
    stage.answers("target", A)
    stage.counts(route.port, A=1)
    stage.apply()
    (listening,) = stage.sockets.open(route.port)
    stage.workers.take()
    assert stage.apply(route) == (1, 0, 0)
    serve, order = stage.workers.take()
    assert isinstance(serve, messages.Serve)
    assert serve.refuse is None
    assert order == messages.End(route.port, None, None, Outcome.GONE)
    # and nothing is left of the drain: what drains for its own reason, and returns, is kept
    stage.answers("target", B)
    stage.pass_seconds(5.0)
    assert stage.workers.take_orders() == [drained(route.port, A, Outcome.ADDRESS_CHANGED)]
    stage.answers("target", A)
    assert stage.workers.take_orders() == [messages.End(route.port, A, None, Outcome.ADDRESS_CHANGED)]
    stage.pass_seconds(DRAIN + 1.0)
    assert is_open(route.port)
    assert stage.sockets.open(route.port) == [listening]


async def test_a_port_that_was_closed_early_begins_anew(stage: Stage) -> None:
    port = stage.ports[0]
    stage.apply(stage.route())
    stage.answers("target", A)
    stage.apply()
    stage.pass_seconds(EMPTY_SECONDS + 1.0)
    assert not is_open(port)
    stage.apply(stage.route())
    stage.counts(port, A=1)
    stage.answers("target", B)
    stage.pass_seconds(5.0)
    stage.workers.take()
    stage.answers("target", A)
    assert stage.workers.take_orders() == [messages.End(port, A, None, Outcome.ADDRESS_CHANGED)]


async def test_a_port_that_comes_back_for_another_lets_the_drain_go_on(stage: Stage) -> None:
    stage.apply(stage.route())
    stage.answers("target", A)
    stage.counts(stage.ports[0], A=1)
    stage.apply()
    stage.workers.take()
    stage.apply(stage.route(name="other"))
    assert stage.workers.take_orders() == []
    stage.pass_seconds(DRAIN + 1.0)
    assert is_open(stage.ports[0])


async def test_a_port_that_comes_back_with_another_tls_mode_lets_the_drain_go_on(stage: Stage) -> None:
    stage.apply(stage.route())
    stage.apply()
    stage.workers.take()
    stage.apply(stage.route(client_tls="passthrough"))
    assert stage.workers.take_orders() == []


async def test_a_taken_port_stops_nothing_else_and_is_tried_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    taken, free = stage.route(0), stage.route(1)
    with socket.create_server(("127.0.0.1", taken.port)):
        assert stage.apply(taken, free) == (1, 0, 0)
        assert set(stage.serving.current) == {free.port}
        assert stage.serving.not_open[taken.port].reason.startswith(f"port {taken.port} cannot be opened")
        stage.pass_seconds(3 * BIND_RETRY_SECONDS)
        stage.apply(taken, free)
        assert [record.getMessage() for record in caplog.records] == ["port not opened"]
    stage.apply(taken, free)
    assert set(stage.serving.current) == {free.port}  # not before it is due
    stage.pass_seconds(BIND_RETRY_SECONDS)
    assert set(stage.serving.current) == {taken.port, free.port}
    assert stage.serving.not_open == {}


async def test_a_taken_port_is_opened_for_whom_it_belongs_to_by_then(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", stage.ports[0])):
        stage.apply(stage.route())
    stage.apply(stage.route(name="other"))  # what is new is tried at once
    assert stage.serving.current[stage.ports[0]].key.node == ("other", "0001")


async def test_a_taken_port_that_is_wanted_no_more_is_forgotten(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", stage.ports[0])):
        stage.apply(stage.route())
    stage.apply()
    stage.pass_seconds(BIND_RETRY_SECONDS + 1.0)
    assert stage.serving.ports() == frozenset()


# Changes of a route that stays open.


async def test_limits_change_for_new_connections_only(stage: Stage) -> None:
    stage.apply(stage.route())
    stage.workers.take()
    assert stage.apply(stage.route(limits=Limits(connect_seconds=1.0)), is_reload=True) == (0, 1, 0)
    (serve,) = stage.workers.take()
    assert isinstance(serve, messages.Serve)
    assert serve.connect_seconds == 1.0


async def test_a_port_that_goes_to_another_node_drains_the_connections_to_the_first(stage: Stage) -> None:
    stage.apply(stage.route())
    stage.serving.dial_failed(stage.ports[0], REFUSED, "refused")
    stage.workers.take()
    stage.apply(stage.route(name="other", limits=Limits(drain_seconds=7.0)), is_reload=True)
    assert stage.workers.take_orders() == [drained(stage.ports[0], None, Outcome.ROUTE_CHANGED, 7.0)]
    assert not stage.serving.out_of_reach  # that was another node's


async def test_connections_left_over_from_another_route_are_not_cut_for_the_port_s_new_one(stage: Stage) -> None:
    port = stage.ports[0]
    stage.knowledge.take_name("target", (A.ip,), "")
    stage.knowledge.take_name("master", (B.ip,), "")
    stage.apply(stage.route())
    stage.counts(port, A=1)
    stage.apply(stage.route(name="master", kind=Kind.PRIMARY), is_reload=True)
    assert stage.workers.take_orders() == [drained(port, None, Outcome.ROUTE_CHANGED)]
    stage.counts(port, A=1, B=1)
    stage.pass_seconds(DRAIN - 1.0)
    assert stage.workers.take_orders() == []
    # but the new route's own end when the role moves, also while the old ones drain, and also to the address of the old
    stage.answers("master", A)
    assert stage.workers.take_orders() == [cut(port, B, Outcome.ROLE_MOVED)]
    stage.counts(port, A=2)
    stage.answers("master", B)
    assert stage.workers.take_orders() == [cut(port, A, Outcome.ROLE_MOVED)]


async def test_connections_left_over_on_a_port_that_was_closed_and_reopened_are_not_cut_either(stage: Stage) -> None:
    port = stage.ports[0]
    stage.knowledge.take_name("target", (A.ip,), "")
    stage.knowledge.take_name("master", (B.ip,), "")
    stage.apply(stage.route())
    stage.counts(port, A=1)
    stage.apply(is_reload=True)
    stage.apply(stage.route(name="master", kind=Kind.PRIMARY), is_reload=True)
    assert stage.workers.take_orders() == [drained(port, None, Outcome.ROUTE_REMOVED)]
    stage.pass_seconds(10.0)
    assert stage.workers.take_orders() == []


async def test_a_route_s_drain_is_not_taken_back_because_the_address_is_fine(stage: Stage) -> None:
    port = stage.ports[0]
    stage.apply(stage.route())
    stage.answers("target", A)
    stage.counts(port, A=1)
    stage.apply(stage.route(client_tls="passthrough"), is_reload=True)
    stage.answers("target", B)
    stage.pass_seconds(6.0)
    assert stage.workers.take_orders() == [
        drained(port, None, Outcome.ROUTE_CHANGED),
        drained(port, A, Outcome.ADDRESS_CHANGED),
    ]
    stage.answers("target", A)
    assert stage.workers.take_orders() == []


async def test_a_role_that_moves_while_a_changed_route_drains_cuts_all_the_same(stage: Stage) -> None:
    port = stage.ports[0]
    stage.knowledge.take_name("master", (A.ip,), "")
    stage.apply(stage.route(name="master", kind=Kind.PRIMARY))
    stage.counts(port, A=1)
    stage.apply(stage.route(name="master", kind=Kind.PRIMARY, client_tls="passthrough"), is_reload=True)
    stage.workers.take()
    stage.answers("master", B)
    assert stage.workers.take_orders() == [cut(port, A, Outcome.ROLE_MOVED)]


async def test_a_cache_that_begins_to_take_tls_is_spoken_to_so_from_then_on_and_nobody_is_cut(stage: Stage) -> None:
    stage.knowledge.take_name("target", (A.ip,), "")
    stage.apply(stage.route())
    stage.counts(stage.ports[0], A=1)
    stage.workers.take()
    stage.apply(stage.route(node_tls="on"))
    (serve,) = stage.workers.take()
    assert isinstance(serve, messages.Serve)
    assert (serve.node_tls, serve.names) == (True, ("target",))
    stage.pass_seconds(10.0)
    assert stage.workers.take_orders() == []


async def test_a_reload_that_changes_what_the_node_is_spoken_to_in_drains(stage: Stage) -> None:
    stage.apply(stage.route())
    stage.workers.take()
    stage.apply(stage.route(node_tls="on"), is_reload=True)
    assert stage.workers.take_orders() == [drained(stage.ports[0], None, Outcome.ROUTE_CHANGED)]


@pytest.mark.parametrize("change", [{"certificates": ("dev1",)}, {"allow": ()}, {"node_ca": "/n.crt"}])
async def test_who_may_connect_and_who_is_trusted_is_told_and_drains_nothing(
    stage: Stage, change: dict[str, Any]
) -> None:
    before = stage.route(client_tls="terminate", node_tls="on")
    stage.apply(before)
    stage.workers.take()
    assert stage.apply(replace(before, **change), is_reload=True) == (0, 1, 0)
    (serve,) = stage.workers.take()
    assert isinstance(serve, messages.Serve)


# Names, roles and live connections.


async def test_a_new_address_is_dialled_at_once(stage: Stage) -> None:
    stage.apply(stage.route(), stage.route(1, "other"))
    stage.workers.take()
    stage.answers("target", A)
    (serve,) = stage.workers.take()
    assert isinstance(serve, messages.Serve)
    assert (serve.port, serve.addresses) == (stage.ports[0], (A,))
    assert stage.serving.addresses(stage.ports[0]) == (A,)


async def test_connections_to_an_address_that_left_are_drained_after_five_seconds(stage: Stage) -> None:
    port = stage.ports[0]
    stage.apply(stage.route())
    stage.answers("target", A)
    stage.counts(port, A=2)
    stage.answers("target", B)
    stage.pass_seconds(4.0)
    assert stage.workers.take_orders() == []
    assert stage.doubts.watched == {A: 3.0}
    stage.pass_seconds(1.0)
    assert stage.workers.take_orders() == [drained(port, A, Outcome.ADDRESS_CHANGED)]
    stage.pass_seconds(4.0)
    assert stage.workers.take_orders() == []
    stage.pass_seconds(1.0)  # for those that were still being dialled
    assert stage.workers.take_orders() == [drained(port, A, Outcome.ADDRESS_CHANGED)]
    stage.counts(port)
    stage.pass_seconds(10.0)
    assert stage.workers.take_orders() == []
    assert stage.doubts.watched == {}
    assert stage.serving._orders == {}


async def test_the_drain_is_taken_back_when_the_address_returns(stage: Stage) -> None:
    port = stage.ports[0]
    stage.apply(stage.route())
    stage.answers("target", A)
    stage.counts(port, A=1)
    stage.answers("target", B)
    stage.pass_seconds(6.0)
    stage.workers.take()
    stage.answers("target", A)
    assert stage.workers.take_orders() == [messages.End(port, A, None, Outcome.ADDRESS_CHANGED)]
    stage.pass_seconds(10.0)
    assert stage.workers.take_orders() == []


async def test_an_address_that_left_and_does_not_answer_is_cut_at_once(stage: Stage) -> None:
    port = stage.ports[0]
    stage.apply(stage.route())
    stage.answers("target", A)
    stage.counts(port, A=1)
    stage.answers("target", B)
    stage.pass_seconds(5.0)
    stage.workers.take()
    stage.serving._probed(A, False)
    stage.pass_seconds(1.0)
    assert stage.workers.take_orders() == [cut(port, A, Outcome.ADDRESS_CHANGED)]


async def test_an_address_that_does_not_answer_is_kept_while_it_is_the_name_s(stage: Stage) -> None:
    stage.apply(stage.route())
    stage.answers("target", A)
    stage.counts(stage.ports[0], A=1)
    stage.serving._probed(A, False)
    stage.pass_seconds(60.0)
    assert stage.workers.take_orders() == []
    assert stage.serving._silent == set()


async def test_a_role_that_moved_cuts_at_once_and_again_those_that_were_still_being_dialled(stage: Stage) -> None:
    port = stage.ports[0]
    stage.apply(stage.route(name="master", kind=Kind.PRIMARY))
    stage.answers("master", A)
    stage.counts(port, A=1)
    stage.answers("master", B)
    assert stage.workers.take_orders() == [cut(port, A, Outcome.ROLE_MOVED)]
    stage.pass_seconds(1.0)
    assert stage.workers.take_orders() == [cut(port, A, Outcome.ROLE_MOVED)]
    stage.counts(port, B=1)
    stage.pass_seconds(5.0)
    assert stage.workers.take_orders() == []


async def test_a_reader_s_connection_to_a_promoted_node_is_cut(stage: Stage) -> None:
    port = stage.ports[0]
    nodes = {"a": node("a", role=Role.REPLICA), "b": node("b", role=Role.REPLICA)}
    nodes = {name: replace(one, endpoint=Endpoint(name, 6379)) for name, one in nodes.items()}
    stage.knowledge.known = Known(snapshot(redis(nodes=tuple(nodes.values()))))
    stage.knowledge._rotating = frozenset({"reader"})
    stage.apply(stage.route(name="reader", kind=Kind.READER))
    stage.answers("a", A)
    stage.answers("b", B)
    stage.answers("reader", A, B)
    stage.counts(port, A=1, B=1)
    stage.answers("reader", B)
    stage.pass_seconds(120.0)
    assert stage.workers.take_orders() == []  # it rotates
    promoted = replace(nodes["a"], role=Role.PRIMARY)
    stage.knowledge.known = Known(snapshot(redis(nodes=(promoted, nodes["b"]))))
    stage.pass_seconds(1.0)
    assert stage.workers.take_orders() == [cut(port, A, Outcome.ROLE_MOVED)]


async def test_an_address_of_a_name_that_came_and_went_is_dialled_no_more_after_a_minute(stage: Stage) -> None:
    port = stage.ports[0]
    stage.apply(stage.route())
    for address in (A, B, A):
        stage.clock.now += 10.0
        stage.answers("target", address)
    assert stage.serving.addresses(port) == (A, B)
    stage.pass_seconds(70.0)
    assert stage.serving.addresses(port) == (A,)


async def test_connections_are_counted_over_all_workers_and_forgotten_with_theirs(stage: Stage) -> None:
    port = stage.ports[0]
    stage.apply(stage.route())
    stage.counts(port, worker=1, A=1)
    stage.counts(port, worker=2, A=2, B=1)
    assert stage.serving.connections(port) == 4
    stage.serving.worker_lost(2)
    assert stage.serving.connections(port) == 1


# Dials that fail.


async def test_a_route_that_does_not_answer_is_news_once(stage: Stage) -> None:
    route = stage.route()
    stage.apply(route)
    assert stage.serving.dial_failed(route.port, REFUSED, "refused") == route
    assert stage.serving.dial_failed(route.port, REFUSED, "timed out") is None
    assert reason(stage) == "timed out"
    assert stage.serving.dial_recovered(route.port) == route
    assert stage.serving.dial_recovered(route.port) is None
    assert stage.serving.dial_failed(1, REFUSED, "a port that is not served") is None
    assert not stage.serving.out_of_reach


async def test_a_route_that_does_not_answer_is_asked_until_it_does(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    route = stage.route()
    stage.apply(route)
    stage.answers("target", A)
    stage.serving.dial_failed(route.port, REFUSED, "refused")
    stage.serving.tick()
    assert stage.doubts.watched == {A: 3.0}
    stage.serving._probed(A, False)
    assert reason(stage) == "refused"
    stage.serving._probed(A, True)
    assert not stage.serving.out_of_reach
    assert caplog.records[-1].getMessage() == "node answers again"


async def test_a_node_that_is_not_trusted_is_not_well_again_because_it_takes_connections(stage: Stage) -> None:
    route = stage.route(node_tls="on")
    stage.apply(route)
    stage.answers("target", A)
    stage.serving.dial_failed(route.port, NODE_HANDSHAKE, "expired: the certificate has expired")
    stage.pass_seconds(1.0)
    assert stage.doubts.watched == {}
    stage.serving._probed(A, True)
    assert reason(stage) == "expired: the certificate has expired"
    assert stage.serving.dial_recovered(route.port) == route
    assert reason(stage) is None


async def test_a_handshake_with_any_worker_tells_that_a_node_is_trusted_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    route = stage.route(node_tls="on")
    stage.apply(route)
    stage.serving.dial_failed(route.port, NODE_HANDSHAKE, "expired")
    stage.serving.worker_lost(1)
    counts = messages.RouteCounts(route.port, 1, 1, {}, 0, 0, (), 0.0, (), {}, {"ok": 1})
    stage.serving.counted(2, messages.Counts(1, (counts,)))
    assert reason(stage) is None
    assert caplog.records[-1].getMessage() == "node answers again"


@pytest.mark.parametrize(
    "change", [{"node_ca": "/tls/nodes.crt"}, {"server_name": "node.example"}, {"node_tls": "off"}]
)
async def test_a_node_that_is_not_trusted_may_be_by_other_terms(stage: Stage, change: dict[str, Any]) -> None:
    route = stage.route(node_tls="on")
    stage.apply(route)
    stage.serving.dial_failed(route.port, NODE_HANDSHAKE, "unknown-ca")
    stage.apply(replace(route, limits=Limits(connect_seconds=1.0)))
    assert reason(stage) == "unknown-ca"
    stage.apply(replace(route, **change))
    assert reason(stage) is None


async def test_a_draining_route_is_not_unreachable(stage: Stage) -> None:
    route = stage.route()
    stage.apply(route)
    stage.serving.dial_failed(route.port, REFUSED, "refused")
    stage.apply()
    assert not stage.serving.out_of_reach
    assert stage.serving.dial_failed(route.port, REFUSED, "refused") is None
    stage.pass_seconds(1.0)


async def test_nothing_grows_with_the_days(stage: Stage) -> None:
    """Routes that come, change, fail, drain and go leave nothing behind."""
    for day in range(20):
        name = f"target-{day}"
        stage.apply(stage.route(name=name))
        stage.answers(name, A)
        stage.counts(stage.ports[0], worker=day, A=1)
        stage.serving.dial_failed(stage.ports[0], REFUSED, "refused")
        stage.answers(name, B)
        stage.pass_seconds(10.0)
        stage.serving._probed(A, False)
        stage.apply(stage.route(name=name, client_tls="passthrough"), is_reload=True)
        stage.apply()
        stage.serving.worker_lost(day)
        stage.pass_seconds(DRAIN + 1.0)
    left = {**vars(stage.serving), **vars(stage.serving._tally)}
    for name in ("current", "draining", "not_open", "out_of_reach", "_sent", "_live", "_open", "_orders", "_leftovers"):
        assert not left[name], name
    assert not left["_silent"]


# The books that replies are rewritten by.


def rewriting(stage: Stage, number: int = 0, name: str = "my-redis-001", **facts: Any) -> Route:
    """A route to a node of my-redis as it is known, whose replies are rewritten."""
    given = {"target": Endpoint(host(f"{name}.0001"), 6379), "rewrite": "replication", "book": "my-redis"}
    return stage.route(number, name, **{**given, **facts})


def known_nodes(stage: Stage) -> None:
    stage.knowledge.known = Known(snapshot(redis(clusters=["-001", "-002"])))


def book_ports(message: messages.Down) -> list[int]:
    assert isinstance(message, messages.Book)
    return sorted({port for *_, port in message.ports})


async def test_a_book_is_told_before_the_ports_that_name_it_and_has_them_all(stage: Stage) -> None:
    known_nodes(stage)
    routes = [rewriting(stage), rewriting(stage, 1, "my-redis-002")]
    stage.apply(*routes)
    book, *serves = stage.workers.take()
    assert book_ports(book) == [route.port for route in routes]
    assert [(serve.port, serve.book) for serve in serves if isinstance(serve, messages.Serve)] == [
        (route.port, "my-redis") for route in routes
    ]
    stage.apply(*routes)
    assert stage.workers.take() == []


async def test_a_port_that_is_retargeted_is_in_the_book_before_as_what_it_becomes(stage: Stage) -> None:
    known_nodes(stage)
    stage.apply(rewriting(stage))
    stage.workers.take()
    stage.apply(rewriting(stage, name="my-redis-002"))
    book, serve = stage.workers.take()[:2]
    assert isinstance(book, messages.Book)
    assert book.ports == ((host("my-redis-002.0001"), 6379, stage.ports[0]),)
    assert isinstance(serve, messages.Serve)


async def test_a_port_that_cannot_be_opened_is_in_no_book_until_it_is(stage: Stage) -> None:
    known_nodes(stage)
    with socket.create_server(("127.0.0.1", stage.ports[1])):
        stage.apply(rewriting(stage), rewriting(stage, 1, "my-redis-002"))
        book, _ = stage.workers.take()
        assert book_ports(book) == [stage.ports[0]]
        stage.pass_seconds(BIND_RETRY_SECONDS)
        assert stage.workers.take() == []
    stage.pass_seconds(BIND_RETRY_SECONDS)
    book, serve = stage.workers.take()
    assert book_ports(book) == [*stage.ports[:2]]
    assert isinstance(serve, messages.Serve)


async def test_a_port_that_drains_is_taken_out_of_the_book(stage: Stage) -> None:
    known_nodes(stage)
    stage.apply(rewriting(stage), rewriting(stage, 1, "my-redis-002"))
    stage.workers.take()
    stage.apply(rewriting(stage))
    assert [book_ports(message) for message in stage.workers.take() if isinstance(message, messages.Book)] == [
        [stage.ports[0]]
    ]


async def test_the_book_of_a_cache_that_is_gone_is_emptied_once_its_last_port_is_closed(stage: Stage) -> None:
    known_nodes(stage)
    stage.apply(rewriting(stage))
    stage.workers.take()
    stage.apply()
    assert not any(isinstance(message, messages.Book) for message in stage.workers.take())
    stage.pass_seconds(EMPTY_SECONDS + 2.0)
    told = stage.workers.take()
    assert [type(message) for message in told] == [messages.Unserve, messages.Book]
    assert told[1] == messages.Book("my-redis", (), "", "", 0)


async def test_an_address_that_is_new_is_in_the_book_before_it_is_dialled(stage: Stage) -> None:
    known_nodes(stage)
    name = host("my-redis-001.0001")
    stage.apply(rewriting(stage))
    stage.workers.take()
    stage.answers(name, A)
    book, serve = stage.workers.take()
    assert isinstance(book, messages.Book)
    assert (A.ip, 6379, stage.ports[0]) in book.ports
    assert isinstance(serve, messages.Serve)
    assert serve.addresses == (A,)


async def test_a_port_leads_nowhere_before_the_book_that_is_told_a_moment_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "PAUSE_SECONDS", 3600.0)
    known_nodes(stage)
    route = rewriting(stage)
    for _ in range(AT_ONCE):
        stage.apply(route)
    stage.workers.take()
    stage.answers(host("my-redis-001.0001"), A)
    assert (stage.workers.take(), stage.serving.addresses(route.port)) == ([], ())
    stage.serving.tick()
    book, serve = stage.workers.take()
    assert isinstance(book, messages.Book)
    assert (A.ip, 6379, route.port) in book.ports
    assert isinstance(serve, messages.Serve)
    assert serve.addresses == (A,)
    stage.answers(host("my-redis-001.0001"), B)
    (serve,) = stage.workers.take()
    assert isinstance(serve, messages.Serve), "whoever it was known by goes on being served meanwhile"
    assert serve.addresses == (B,)


async def test_an_address_that_left_is_in_the_book_for_some_minutes_more(stage: Stage) -> None:
    known_nodes(stage)
    name = host("my-redis-001.0001")
    stage.apply(rewriting(stage))
    stage.answers(name, A)
    stage.answers(name, B)
    stage.pass_seconds(1.0)
    stage.workers.take()
    stage.clock.now += FORGET_SECONDS
    stage.pass_seconds(1.0)
    (book,) = (message for message in stage.workers.take() if isinstance(message, messages.Book))
    assert [ip for ip, *_ in book.ports] == [B.ip, name]


async def test_a_role_that_an_engine_told_ends_what_a_reader_has_open_at_the_new_primary(stage: Stage) -> None:
    nodes = (node("my-redis-001"), node("my-redis-002"))
    reader = {Kind.READER: Endpoint("reader", 6379)}
    stage.knowledge.known = Known(snapshot(redis(mode=Mode.CLUSTER_COMPATIBLE, nodes=nodes, endpoints=reader)))
    route = stage.route(kind=Kind.READER, name="reader", mode=Mode.CLUSTER_COMPATIBLE)
    stage.apply(route)
    stage.answers("reader", A)
    stage.answers(host("my-redis-001.0001"), A)
    stage.counts(route.port, A=1)
    stage.answers("reader", B)
    stage.pass_seconds(2.0)
    assert stage.workers.take_orders() == []
    stage.knowledge.take_roles("my-redis", [(A.ip, 6379, Role.PRIMARY)])
    stage.pass_seconds(1.0)
    assert stage.workers.take_orders() == [cut(route.port, A, Outcome.ROLE_MOVED)]
