from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from natproxy.config import Aws, load_config
from natproxy.controller import daemon as daemon_module
from natproxy.controller import workers as workers_module
from natproxy.controller.daemon import Daemon
from natproxy.controller.web import Admin
from natproxy.discover.parse import RawAnswers
from natproxy.errors import ConfigError, DiscoveryError, NatproxyError
from natproxy.model import DiscoveryFailure
from tests.controller.samples import free_ports, free_range
from tests.controller.source import Source
from tests.discover.samples import answers_of
from tests.standins.aws import AwsWorld


class FakeAws:
    """Answers what it is set to; ``None``: not yet."""

    def __init__(self) -> None:
        self.answer: RawAnswers | DiscoveryError | None = None
        self.asked: asyncio.Queue[bool] = asyncio.Queue()
        self.is_closed = False

    async def fetch(self, want_tags: bool) -> RawAnswers:
        self.asked.put_nowait(want_tags)
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, DiscoveryError):
            raise self.answer
        assert self.answer is not None
        return self.answer

    async def close(self) -> None:
        self.is_closed = True


class Host:
    """A place for a daemon: free ports, a directory, and somebody who listens to what it tells systemd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.config = directory / "natproxy.yaml"
        self.range = free_range(4)
        self.admin, self.static, self.nobody = free_ports(3)
        self.aws = FakeAws()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.notify.bind(str(directory / "notify"))
        self.write()

    def write(self, text: str = "") -> None:
        self.config.write_text(
            f"listen: {{address: 127.0.0.1, ports: {self.static}-{self.static}}}\n"
            f"admin: {{port: {self.admin}}}\nstate_dir: {self.state_dir}\n"
            f"resolver: 127.0.0.1:{self.nobody}\n{text}\n"
        )

    def write_caches(self) -> None:
        """Select my-redis, which has two nodes and two endpoints."""
        self.write(f"caches: [{{id: my-redis, ports: {self.range[0]}-{self.range[-1]}}}]")

    def daemon(self) -> Daemon:
        return Daemon(load_config(self.config), {"NOTIFY_SOCKET": str(self.directory / "notify")})

    async def told(self, *words: str) -> str:
        """Wait until systemd has been told all of ``words`` in one message."""
        async with asyncio.timeout(20):
            while True:
                message = (await asyncio.get_running_loop().sock_recv(self.notify, 10_000)).decode()
                if all(word in message for word in words):
                    return message

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Daemon, asyncio.Task[int]]]:
        daemon = self.daemon()
        task = asyncio.get_running_loop().create_task(daemon.run())
        try:
            ready = asyncio.get_running_loop().create_task(self.told("READY=1"))
            await asyncio.wait([ready, task], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                with suppress(asyncio.CancelledError):
                    await ready
                task.result()
            yield daemon, task
        finally:
            daemon._stopping.set()
            with suppress(Exception):
                await task


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host(tmp_path)

    def elasticache(_aws: Aws) -> FakeAws:
        return host.aws

    monkeypatch.setattr(daemon_module, "ElastiCache", elasticache)
    monkeypatch.setattr(daemon_module, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(workers_module, "RESTART_SECONDS", 0.02)
    yield host
    host.notify.close()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("natproxy")
    before = root.handlers[:], root.level, ours.level
    ours.setLevel(logging.INFO)
    yield
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)


def failing_worker(*command: str) -> Callable[..., workers_module.Workers]:
    return functools.partial(workers_module.Workers, command=command)


def world() -> AwsWorld:
    world = AwsWorld()
    world.add_replication_group("my-redis", replicas=1)
    return world


async def tick_until(daemon: Daemon, holds: Callable[[], bool]) -> None:
    """Wait until something holds after one of the main loop's ticks."""
    tick, held = daemon._tick, asyncio.Event()

    def tick_and_look() -> None:
        tick()
        if holds():
            held.set()

    daemon._tick = tick_and_look  # type: ignore[method-assign]
    await asyncio.wait_for(held.wait(), 20)


def shown(daemon: Daemon, line: str) -> str:
    """A metric's value."""
    lines = daemon.metrics()[0].decode().splitlines()
    return next(found.rpartition(" ")[2] for found in lines if found.startswith(line + " "))


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
        assert daemon.readiness() == (True, "ready")
        assert daemon.health() == (True, "ok")
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
        assert daemon.health()[0]


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
    monkeypatch.setattr(daemon_module, "Workers", failing_worker(sys.executable, "-c", "raise SystemExit(9)"))
    with pytest.raises(NatproxyError, match="a worker cannot be started: it ended with status 9"):
        await host.daemon().run()
    assert free(host.admin)
    assert not (host.state_dir / "control.sock").exists()


def test_a_bad_config_is_told_before_anything_is_done(host: Host) -> None:
    host.write("nonsense: 1")
    with pytest.raises(ConfigError, match="nonsense"):
        daemon_module.run(host.config)
    assert not host.state_dir.exists()


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
        assert daemon._workers.running == 0
    assert "natproxy stops, a task failed" in caplog.text
    assert free(host.admin)


async def test_a_worker_that_is_gone_shows_in_health_until_it_is_replaced(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async with host.running() as (daemon, _):
        lost = asyncio.Event()
        workers = daemon._workers
        tell = workers._on_loss

        def on_loss(worker: int, why: str) -> None:
            tell(worker, why)
            assert daemon.health() == (False, "0 of 1 workers run")
            lost.set()

        workers._on_loss = on_loss
        ((number, pid),) = workers.pids().items()
        workers._workers[number].heard_at -= 60.0
        assert daemon.health() == (False, f"worker {number} does not answer")
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(lost.wait(), 20)
        assert "worker is gone and is replaced" in caplog.text
        assert shown(daemon, "natproxy_worker_restarts_total") == "1.0"
        await tick_until(daemon, lambda: daemon.health()[0])


# Discovery.


async def test_it_is_ready_before_aws_has_answered_and_readyz_after(host: Host) -> None:
    host.write_caches()
    async with host.running() as (daemon, _):
        assert daemon.readiness() == (False, "waiting for the first answer of AWS")
        assert await asyncio.wait_for(host.aws.asked.get(), 10) is False
        assert daemon.routes()["caches"][0]["reason"] == "waiting for the first answer of AWS"


async def test_readyz_tells_why_aws_does_not_answer(host: Host) -> None:
    host.write_caches()
    host.aws.answer = DiscoveryError(DiscoveryFailure.DENIED, "not authorized")
    async with host.running() as (daemon, _):
        await host.told("waiting for the first answer of AWS (denied: not authorized)")
        assert daemon.readiness() == (
            False,
            "waiting for the first answer of AWS (denied: not authorized)",
        )
        assert shown(daemon, 'natproxy_discovery_failures_total{reason="denied"}') == "1.0"
        host.aws.answer = answers_of(world())
        daemon._discovery.hurry()
        await host.told("4 routes")
        assert daemon.readiness() == (True, "ready")
        assert shown(daemon, "natproxy_discovery_runs_total") == "2.0"


async def test_a_first_cache_that_a_reload_adds_is_discovered_and_the_last_one_removed_ends_it(host: Host) -> None:
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        host.write_caches()
        os.kill(os.getpid(), signal.SIGHUP)
        await host.told("4 routes")
        host.write()
        assert (await daemon.reload()).ok
        assert daemon._discovering is None
        await host.told("0 routes")
        host.write_caches()
        assert (await daemon.reload()).ok
        await host.told("4 routes")


async def test_a_broken_file_keeps_the_old_state_and_says_why(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        host.write("nonsense: 1")
        verdict = await daemon.reload()
        assert not verdict.ok
        assert "nonsense" in verdict.message
        await host.told("RELOADING=1")
        await host.told("READY=1", "4 routes")
        assert len(daemon._serving.current) == 4
        assert shown(daemon, 'natproxy_config_reloads_total{result="refused"}') == "1.0"


async def test_what_needs_a_restart_is_told(host: Host) -> None:
    async with host.running() as (daemon, _):
        host.config.write_text(host.config.read_text() + "workers: 2\n")
        verdict = await daemon.reload()
        assert verdict.ok
        assert verdict.restart_needed == ("workers",)
        assert daemon.health() == (True, "ok")


async def test_a_role_that_moved_has_the_names_that_follow_roles_asked_for_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_caches()
    account = world()
    host.aws.answer = answers_of(account)
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        hurried: list[str] = []
        monkeypatch.setattr(daemon._names, "hurry", hurried.append)
        account.failover("my-redis")
        daemon._take_answers(answers_of(account))
        (cache,) = daemon._knowledge.snapshot.caches
        assert set(hurried) == {endpoint.host for endpoint in cache.endpoints.values()}
        assert len(cache.endpoints) == 2
        assert shown(daemon, 'natproxy_node_changes_total{change="role-moved"}') == "2.0"


async def test_a_node_name_that_changes_its_address_is_counted(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    line = 'natproxy_node_changes_total{change="address-changed"}'
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        (cache,) = daemon._knowledge.snapshot.caches
        node = cache.nodes[0].endpoint
        assert node is not None
        for name in (node, *cache.endpoints.values()):
            daemon._name_answered(name.host, ("127.0.0.2",), "")
        assert shown(daemon, line) == "0.0"
        for name in (node, *cache.endpoints.values()):
            daemon._name_answered(name.host, ("127.0.0.3",), "")
        daemon._name_answered(node.host, None, "the name does not exist")
        assert shown(daemon, line) == "1.0"


async def test_a_name_that_leads_to_the_instance_metadata_is_not_followed(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        (cache,) = daemon._knowledge.snapshot.caches
        node = cache.nodes[0].endpoint
        assert node is not None
        daemon._name_answered(node.host, ("127.0.0.2",), "")
        daemon._name_answered(node.host, ("169.254.169.254",), "")
        assert daemon._knowledge.book[node.host].current == ("127.0.0.2",)
        why = "it leads to 169.254.169.254, which cannot be the address of a node"
        assert daemon._knowledge.name_failures == {node.host: why}
        daemon._name_answered(node.host, ("127.0.0.3", "169.254.169.254"), "")
        assert daemon._knowledge.book[node.host].current == ("127.0.0.3",)
        assert daemon._knowledge.name_failures == {}


async def test_ports_that_could_not_be_written_down_open_by_themselves_once_they_can(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    host.state_dir.mkdir()
    blocker = host.state_dir / ".state.json.new"
    blocker.mkdir()
    async with host.running() as (daemon, _):
        await host.told("4 routes not open")
        assert daemon._serving.current == {}
        assert float(shown(daemon, "natproxy_state_save_failures_total")) >= 1.0
        blocker.rmdir()
        await tick_until(daemon, lambda: len(daemon._serving.current) == 4)
        assert host.aws.asked.qsize() == 1  # it took no further answer


async def test_a_gone_node_s_port_can_be_released(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        with pytest.raises(NatproxyError, match="no port is kept"):
            daemon.release("my-redis-009")
        host.write()
        await daemon.reload()
        names = [entry["name"] for entry in daemon.ports()["ports"]]
        assert len(names) == 4
        port = daemon.ports()["ports"][0]["port"]
        assert daemon.release(names[0]) == f"port {port} of {names[0]} is free again"
        assert len(daemon.ports()["ports"]) == 3
