from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest

from natproxy import __version__
from natproxy.controller import desk as desk_module
from natproxy.controller.desk import Desk
from natproxy.controller.logs import event
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure
from natproxy.tls.identity import Identity
from tests.controller.host import Host, shown, tick_until, world
from tests.discover.samples import answers_of


async def test_a_worker_that_is_gone_shows_in_health_until_it_is_replaced(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async with host.running() as (daemon, _):
        lost = asyncio.Event()
        workers = daemon.engine.workers
        tell = workers._on_loss

        def on_loss(worker: int, why: str) -> None:
            tell(worker, why)
            assert Desk(daemon.engine).health() == (False, "0 of 1 workers run")
            lost.set()

        workers._on_loss = on_loss
        ((number, pid),) = workers.pids().items()
        workers._workers[number].heard_at -= 60.0
        assert Desk(daemon.engine).health() == (False, f"worker {number} does not answer")
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(lost.wait(), 20)
        assert "worker is gone and is replaced" in caplog.text
        assert shown(daemon, "natproxy_worker_restarts_total") == "1.0"
        await tick_until(daemon, lambda: Desk(daemon.engine).health()[0])


async def test_the_status_tells_how_the_daemon_stands(host: Host) -> None:
    host.write_caches()
    host.aws.answer = DiscoveryError(DiscoveryFailure.DENIED, "not authorized")
    async with host.running() as (daemon, _):
        await host.told("denied: not authorized")
        assert Desk(daemon.engine).status().discovery.state == "failing"
        host.aws.answer = answers_of(world())
        daemon.engine.discovery.hurry()
        await host.told("4 routes")
        found = Desk(daemon.engine).status()
        assert (found.is_ready, found.discovery.state, found.troubles) == (True, "ok", ())
        assert found.discovery.age_seconds is not None
        assert 0 <= found.discovery.age_seconds <= found.uptime_seconds
        assert (found.workers_running, found.workers_wanted, found.natproxy) == (1, 1, __version__)
        (cache,) = found.caches
        assert [len(shard.nodes) for shard in cache.shards] == [2]
        assert {route.kind for route in cache.endpoints} == {"primary", "reader"}


async def test_what_is_heard_ends_with_the_daemon(host: Host) -> None:
    async with host.running() as (daemon, _):
        assert Desk(daemon.engine).status().discovery.state == "off"
    before = Desk(daemon.engine).status().events
    event(logging.getLogger("natproxy"), logging.ERROR, "worker hangs and is killed", worker=1)
    assert Desk(daemon.engine).status().events == before


# Discovery.


async def test_it_is_ready_before_aws_has_answered_and_readyz_after(host: Host) -> None:
    host.write_caches()
    async with host.running() as (daemon, _):
        assert Desk(daemon.engine).readiness() == (False, "waiting for the first answer of AWS")
        assert await asyncio.wait_for(host.aws.asked.get(), 10) is False
        assert Desk(daemon.engine).routes()["caches"][0]["reason"] == "waiting for the first answer of AWS"
        waiting = Desk(daemon.engine).status()
        assert (waiting.is_ready, waiting.readiness) == (False, "waiting for the first answer of AWS")
        assert (waiting.discovery.state, waiting.discovery.age_seconds) == ("waiting", None)
        assert [event.text for event in waiting.events] == [f"natproxy {__version__} runs"]


async def test_readyz_tells_why_aws_does_not_answer(host: Host) -> None:
    host.write_caches()
    host.aws.answer = DiscoveryError(DiscoveryFailure.DENIED, "not authorized")
    async with host.running() as (daemon, _):
        await host.told("waiting for the first answer of AWS (denied: not authorized)")
        assert Desk(daemon.engine).readiness() == (
            False,
            "waiting for the first answer of AWS (denied: not authorized)",
        )
        assert shown(daemon, 'natproxy_discovery_failures_total{reason="denied"}') == "1.0"
        host.aws.answer = answers_of(world())
        daemon.engine.discovery.hurry()
        await host.told("4 routes")
        assert Desk(daemon.engine).readiness() == (True, "ready")
        assert shown(daemon, "natproxy_discovery_runs_total") == "2.0"


async def test_the_directory_is_made_once_for_many_and_follows_a_reload_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = Identity("dev1", frozenset({"dev1"}), 1, "cn=ca", 0.0, 1_800_000_000.0)
    monkeypatch.setattr(desk_module, "FRESH_SECONDS", 3600.0)
    text = f"static: [{{name: legacy, port: {host.static}, target: '127.0.0.1:1', clients: {{allow: %s}}}}]"
    host.write(text % "127.0.0.1")
    async with host.running() as (daemon, _):
        desk = Desk(daemon.engine)
        first = desk.directory(who, "127.0.0.1")
        assert [(cache.id, cache.routes[0].port) for cache in first.caches] == [("legacy", host.static)]
        assert desk.directory(who, "127.0.0.2").caches == ()
        assert desk.directory(who, "127.0.0.1").generated is first.generated
        host.write(text % "127.0.0.2")
        assert (await desk.reload()).ok
        assert desk.directory(who, "127.0.0.1").caches == ()
        assert len(desk.directory(who, "127.0.0.2").caches) == 1
