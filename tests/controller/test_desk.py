from __future__ import annotations

import asyncio
import os
import signal

import pytest

from natproxy.controller.desk import Desk
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure
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


# Discovery.


async def test_it_is_ready_before_aws_has_answered_and_readyz_after(host: Host) -> None:
    host.write_caches()
    async with host.running() as (daemon, _):
        assert Desk(daemon.engine).readiness() == (False, "waiting for the first answer of AWS")
        assert await asyncio.wait_for(host.aws.asked.get(), 10) is False
        assert Desk(daemon.engine).routes()["caches"][0]["reason"] == "waiting for the first answer of AWS"


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
