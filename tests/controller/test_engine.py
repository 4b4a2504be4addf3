from __future__ import annotations

import os
import signal

import pytest

from natproxy.controller.desk import Desk
from natproxy.errors import NatproxyError
from tests.controller.host import Host, shown, tick_until, world
from tests.discover.samples import answers_of


async def test_a_first_cache_that_a_reload_adds_is_discovered_and_the_last_one_removed_ends_it(host: Host) -> None:
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        host.write_caches()
        os.kill(os.getpid(), signal.SIGHUP)
        await host.told("4 routes")
        host.write()
        assert (await Desk(daemon.engine).reload()).ok
        assert daemon.engine._discovering is None
        await host.told("0 routes")
        host.write_caches()
        assert (await Desk(daemon.engine).reload()).ok
        await host.told("4 routes")


async def test_a_broken_file_keeps_the_old_state_and_says_why(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        host.write("nonsense: 1")
        verdict = await Desk(daemon.engine).reload()
        assert not verdict.ok
        assert "nonsense" in verdict.message
        await host.told("RELOADING=1")
        await host.told("READY=1", "4 routes")
        assert len(daemon.engine.serving.current) == 4
        assert shown(daemon, 'natproxy_config_reloads_total{result="refused"}') == "1.0"


async def test_what_needs_a_restart_is_told(host: Host) -> None:
    async with host.running() as (daemon, _):
        host.config.write_text(host.config.read_text() + "workers: 2\n")
        verdict = await Desk(daemon.engine).reload()
        assert verdict.ok
        assert verdict.restart_needed == ("workers",)
        assert Desk(daemon.engine).health() == (True, "ok")


async def test_a_role_that_moved_has_the_names_that_follow_roles_asked_for_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_caches()
    account = world()
    host.aws.answer = answers_of(account)
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        hurried: list[str] = []
        monkeypatch.setattr(daemon.engine.names, "hurry", hurried.append)
        account.failover("my-redis")
        daemon.engine._take_answers(answers_of(account))
        (cache,) = daemon.engine.knowledge.snapshot.caches
        assert set(hurried) == {endpoint.host for endpoint in cache.endpoints.values()}
        assert len(cache.endpoints) == 2
        assert shown(daemon, 'natproxy_node_changes_total{change="role-moved"}') == "2.0"


async def test_a_node_name_that_changes_its_address_is_counted(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    line = 'natproxy_node_changes_total{change="address-changed"}'
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        (cache,) = daemon.engine.knowledge.snapshot.caches
        node = cache.nodes[0].endpoint
        assert node is not None
        for name in (node, *cache.endpoints.values()):
            daemon.engine._name_answered(name.host, ("127.0.0.2",), "")
        assert shown(daemon, line) == "0.0"
        for name in (node, *cache.endpoints.values()):
            daemon.engine._name_answered(name.host, ("127.0.0.3",), "")
        daemon.engine._name_answered(node.host, None, "the name does not exist")
        assert shown(daemon, line) == "1.0"


async def test_a_name_that_leads_to_the_instance_metadata_is_not_followed(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        (cache,) = daemon.engine.knowledge.snapshot.caches
        node = cache.nodes[0].endpoint
        assert node is not None
        daemon.engine._name_answered(node.host, ("127.0.0.2",), "")
        daemon.engine._name_answered(node.host, ("169.254.169.254",), "")
        assert daemon.engine.knowledge.book[node.host].current == ("127.0.0.2",)
        why = "it leads to 169.254.169.254, which cannot be the address of a node"
        assert daemon.engine.knowledge.name_failures == {node.host: why}
        daemon.engine._name_answered(node.host, ("127.0.0.3", "169.254.169.254"), "")
        assert daemon.engine.knowledge.book[node.host].current == ("127.0.0.3",)
        assert daemon.engine.knowledge.name_failures == {}


async def test_ports_that_could_not_be_written_down_open_by_themselves_once_they_can(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    host.state_dir.mkdir()
    blocker = host.state_dir / ".state.json.new"
    blocker.mkdir()
    async with host.running() as (daemon, _):
        await host.told("4 routes not open")
        assert daemon.engine.serving.current == {}
        assert float(shown(daemon, "natproxy_state_save_failures_total")) >= 1.0
        blocker.rmdir()
        await tick_until(daemon, lambda: len(daemon.engine.serving.current) == 4)
        assert host.aws.asked.qsize() == 1  # it took no further answer


async def test_a_gone_node_s_port_can_be_released(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        with pytest.raises(NatproxyError, match="no port is kept"):
            Desk(daemon.engine).release("my-redis-009")
        host.write()
        await Desk(daemon.engine).reload()
        names = [entry["name"] for entry in Desk(daemon.engine).ports()["ports"]]
        assert len(names) == 4
        port = Desk(daemon.engine).ports()["ports"][0]["port"]
        assert Desk(daemon.engine).release(names[0]) == f"port {port} of {names[0]} is free again"
        assert len(Desk(daemon.engine).ports()["ports"]) == 3
