from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from natproxy.controller.overview import route_statuses
from natproxy.controller.serving import Serving
from natproxy.controller.sockets import Sockets
from natproxy.controller.status import RouteStatus
from natproxy.messages import Counts, RouteCounts
from natproxy.model import Address, Cache, Endpoint, Kind, Mode, NodeTls, Outcome, Role, RouteState
from natproxy.plan.guard import Known
from tests.controller.samples import Clock, Recorder, free_ports, knowledge
from tests.plan.samples import host, key, node, redis, snapshot

PRIMARY_NODE = node("my-redis-001", role=Role.PRIMARY, zone="eu-west-1a")
ONE = redis(nodes=(PRIMARY_NODE,), endpoints={})
NODE = host("my-redis-001.0001")


class Stage:
    """One cache on one free port."""

    def __init__(self, directory: Path) -> None:
        (self.port,) = free_ports(1)
        own = "nodes: {tls: off}"
        text = f"clients: {{allow: [0.0.0.0/0]}}\ncaches: [{{id: my-redis, ports: {self.port}-{self.port}, {own}}}]\n"
        self.clock = Clock()
        self.knowledge = knowledge(directory, text, snapshot(ONE), clock=self.clock)
        self.sockets = Sockets(["127.0.0.1"])
        self.serving = Serving(self.knowledge, self.sockets, Recorder(), clock=self.clock)

    def settle(self, *caches: Cache) -> None:
        if caches:
            self.knowledge.known = Known(snapshot(*caches))
        self.serving.apply(self.knowledge.settle().routes, is_reload=False)

    def resolves(self) -> None:
        self.knowledge.take_name(NODE, ("10.0.1.230",), "")
        self.serving.names_changed([NODE])

    def only(self) -> RouteStatus:
        (status,) = route_statuses(self.knowledge, self.serving)
        return status

    def state(self) -> tuple[RouteState, str]:
        status = self.only()
        return status.state, status.reason


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.sockets.close_all()
    await stage.serving.close()


async def test_an_open_route_is_shown_with_all_that_is_known(stage: Stage) -> None:
    stage.settle()
    stage.resolves()
    stage.serving.counted(1, Counts(3, (RouteCounts(stage.port, 3, 3, {}, 0, 0, (), 0.0, ()),)))
    (route,) = stage.knowledge.desired.routes
    assert stage.only() == RouteStatus(
        route, RouteState.OPEN, "", (Address("10.0.1.230", 6379),), 3, Role.PRIMARY, "eu-west-1a"
    )


async def test_a_role_that_aws_does_not_tell_is_what_an_engine_said(stage: Stage) -> None:
    stage.settle(redis(nodes=(replace(PRIMARY_NODE, role=None),), endpoints={}, mode=Mode.CLUSTER_ENABLED))
    assert (stage.only().role, stage.only().zone) == (None, "eu-west-1a")
    stage.knowledge.take_roles("my-redis", [(NODE, 6379, Role.REPLICA)])
    assert (stage.only().role, stage.only().zone) == (Role.REPLICA, "eu-west-1a")


async def test_an_endpoint_has_neither_role_nor_zone(stage: Stage) -> None:
    stage.settle(redis(nodes=(), endpoints={Kind.PRIMARY: Endpoint(host("my-redis-master"), 6379)}))
    (status,) = [one for one in route_statuses(stage.knowledge, stage.serving) if one.route.key.kind is Kind.PRIMARY]
    assert (status.role, status.zone) == (None, None)


async def test_a_name_that_has_not_answered_yet(stage: Stage) -> None:
    stage.settle()
    assert stage.state() == (RouteState.UNREACHABLE, f"{NODE}: not resolved yet")


async def test_a_name_that_does_not_resolve(stage: Stage) -> None:
    stage.settle()
    stage.knowledge.take_name(NODE, None, "the name does not exist")
    assert stage.state() == (RouteState.UNREACHABLE, f"{NODE}: the name does not exist")


async def test_a_name_that_resolves_no_more_is_served_at_its_last_addresses(stage: Stage) -> None:
    stage.settle()
    stage.resolves()
    stage.knowledge.take_name(NODE, None, "the DNS server does not answer")
    assert stage.state() == (RouteState.OPEN, "")


async def test_a_node_that_does_not_answer(stage: Stage) -> None:
    stage.settle()
    stage.resolves()
    stage.serving.dial_failed(stage.port, Outcome.REFUSED, "10.0.1.230:6379 refused the connection")
    assert stage.state() == (RouteState.UNREACHABLE, "10.0.1.230:6379 refused the connection")
    stage.serving.dial_recovered(stage.port)
    assert stage.state() == (RouteState.OPEN, "")


async def test_a_node_whose_certificate_does_not_verify(stage: Stage) -> None:
    stage.settle()
    stage.resolves()
    why = "wrong-name: 10.0.1.230:6379: the certificate is for other.example"
    stage.serving.dial_failed(stage.port, Outcome.NODE_HANDSHAKE, why)
    assert stage.state() == (RouteState.UNREACHABLE, why)


async def test_a_port_that_is_taken(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", stage.port)):
        stage.settle()
    state, reason = stage.state()
    assert state is RouteState.ERROR
    assert reason.startswith(f"port {stage.port} cannot be opened on 127.0.0.1")


async def test_a_node_that_is_being_created(stage: Stage) -> None:
    stage.settle(redis(nodes=(node("my-redis-001", endpoint=None),), endpoints={}))
    assert stage.state() == (RouteState.ABSENT, "AWS gives no address for it yet")


async def test_a_cache_that_needs_what_the_config_forbids(stage: Stage) -> None:
    stage.settle(redis(nodes=(PRIMARY_NODE,), endpoints={}, tls=NodeTls.REQUIRED))
    state, reason = stage.state()
    assert state is RouteState.ERROR
    assert reason.startswith("the cache requires TLS")


async def test_a_port_that_drains(stage: Stage) -> None:
    stage.settle()
    stage.resolves()
    stage.settle(redis(nodes=(), endpoints={}))
    status = stage.only()
    assert (status.route.key, status.route.key.kind) == (key("-001"), Kind.NODE)
    assert (status.state, status.reason) == (
        RouteState.ABSENT,
        "node-gone: its connections may end by themselves, then the port closes",
    )
    assert status.addresses == (Address("10.0.1.230", 6379),)
    stage.clock.now += 60.0
    stage.serving.tick()
    assert route_statuses(stage.knowledge, stage.serving) == []


async def test_a_port_that_drains_and_is_wanted_for_an_error_is_shown_once(stage: Stage) -> None:
    stage.settle()
    stage.settle(redis(nodes=(PRIMARY_NODE,), endpoints={}, tls=NodeTls.REQUIRED))
    assert stage.serving.draining
    assert stage.only().state is RouteState.ERROR
