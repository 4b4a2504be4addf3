from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import pytest
import uvloop

from natproxy.config import load_config
from natproxy.controller import daemon as daemon_module
from natproxy.controller import engine as engine_module
from natproxy.controller import workers as workers_module
from natproxy.controller.desk import Desk
from natproxy.controller.web import Admin
from natproxy.errors import ConfigError, NatproxyError
from tests.controller.host import Host
from tests.controller.source import Source


def failing_worker(*command: str) -> Callable[..., workers_module.Workers]:
    return functools.partial(workers_module.Workers, command=command)


# Startup and stop.


async def test_it_serves_says_so_and_stops_when_told(host: Host) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    node = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = node.sockets[0].getsockname()[1]
    host.write(f"static: [{{name: legacy, port: {host.static}, target: '127.0.0.1:{port}'}}]")
    async with host.running() as (daemon, task):
        reader, writer = await asyncio.open_connection("127.0.0.1", host.static)
        assert await asyncio.wait_for(reader.read(), 10) == b"hello"
        writer.close()
        assert Desk(daemon.engine).readiness() == (True, "ready")
        assert Desk(daemon.engine).health() == (True, "ok")
        assert host.aws.asked.empty()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(task, 20) == 0
    await host.told("STOPPING=1")
    assert host.aws.is_closed
    assert not (host.state_dir / "control.sock").exists()
    assert free(host.static)
    assert free(host.admin)
    node.close()


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def test_a_taken_admin_port_is_told_and_nothing_is_left_behind(host: Host) -> None:
    told = f"cannot open the admin side on 127.0.0.1 port {host.admin}"
    with socket.create_server(("127.0.0.1", host.admin)), pytest.raises(NatproxyError, match=told):
        await host.daemon().run()
    assert host.aws.is_closed
    async with host.running() as (daemon, _):  # and it starts once the port is free
        assert Desk(daemon.engine).health()[0]


async def test_a_second_daemon_on_the_same_state_dir_does_not_start(host: Host) -> None:
    host.state_dir.mkdir()
    first = Admin(Source())
    await first.start_control(host.state_dir / "control.sock")
    with pytest.raises(NatproxyError, match=r"control\.sock"):
        await host.daemon().run()
    assert (host.state_dir / "control.sock").exists()  # the first one's
    assert free(host.admin)
    await first.stop()


async def test_a_state_dir_that_cannot_be_made_is_told(host: Host) -> None:
    host.state_dir.write_text("a file")
    with pytest.raises(NatproxyError, match=f"cannot make the state_dir {host.state_dir}: File exists"):
        await host.daemon().run()


async def test_a_state_file_of_a_newer_version_is_left_alone(host: Host) -> None:
    host.state_dir.mkdir()
    (host.state_dir / "state.json").write_text('{"version": 2}')
    with pytest.raises(NatproxyError, match="version"):
        await host.daemon().run()
    assert (host.state_dir / "state.json").read_text() == '{"version": 2}'


async def test_a_worker_that_cannot_start_is_told_and_nothing_is_left_behind(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "Workers", failing_worker(sys.executable, "-c", "raise SystemExit(9)"))
    with pytest.raises(NatproxyError, match="a worker cannot be started: it ended with status 9"):
        await host.daemon().run()
    assert free(host.admin)
    assert not (host.state_dir / "control.sock").exists()


def test_a_bad_config_is_told_before_anything_is_done(host: Host) -> None:
    host.write("nonsense: 1")
    with pytest.raises(ConfigError, match="nonsense"):
        daemon_module.run(host.config)
    assert not host.state_dir.exists()


def test_a_certificate_that_cannot_be_used_is_told_by_its_key_and_nothing_is_left_behind(host: Host) -> None:
    missing = host.directory / "server.crt"
    host.write(f"tls: {{certificate: {missing}, key: {missing}}}\nstatic: [{{name: a, port: 6490, target: 'a:1'}}]")
    with pytest.raises(ConfigError) as caught:  # not by ``run``, which would make this whole test run nicer
        uvloop.run(daemon_module.Daemon(load_config(host.config)).run())
    assert str(caught.value) == (
        f"{host.config}: tls.certificate: {missing}: it cannot be read: No such file or directory"
    )
    assert free(host.admin)
    assert not (host.state_dir / "control.sock").exists()
    assert host.aws.is_closed


def test_it_runs_on_uvloop(host: Host) -> None:
    async def life() -> int:
        async with host.running() as (_, task):
            os.kill(os.getpid(), signal.SIGINT)
            return await asyncio.wait_for(task, 20)

    assert uvloop.run(life()) == 0


async def test_a_second_signal_ends_it_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async with host.running() as (daemon, task):
        statuses: list[int] = []
        monkeypatch.setattr(os, "_exit", statuses.append)
        daemon._asked_to_stop(signal.SIGTERM)
        daemon._asked_to_stop(signal.SIGTERM)
        assert statuses == [1]
        await asyncio.wait_for(task, 20)


# What must not go unnoticed.


async def test_a_failed_task_ends_it_with_status_1(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("a part broke")

    async with host.running() as (daemon, task):
        daemon._tasks.start("part", fail())
        assert await asyncio.wait_for(task, 20) == 1
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a part broke"


async def test_a_failure_of_the_main_loop_stops_all_and_ends_it_with_status_1(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a tick broke")

    async with host.running() as (daemon, task):
        daemon._tick = fail  # type: ignore[method-assign]
        assert await asyncio.wait_for(task, 20) == 1
        assert daemon.engine.workers.running == 0
    assert "natproxy stops, a task failed" in caplog.text
    assert free(host.admin)
