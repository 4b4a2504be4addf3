from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import socket

import pytest

from natproxy import messages
from natproxy.controller import engine as engine_module
from natproxy.controller.daemon import Daemon
from natproxy.controller.desk import Desk
from natproxy.controller.workers import Workers
from natproxy.discover.names import Names, OnAnswer
from natproxy.errors import ConfigError, NatproxyError
from natproxy.model import Kind, Outcome, Role
from tests.controller.clusternodes import UNKNOWN_SHARDS, scripted, slots_of
from tests.controller.host import Host, shown, tick_until, world
from tests.controller.samples import free_ports
from tests.discover.samples import answers_of
from tests.standins.aws import AwsWorld
from tests.standins.certificates import Authority, Issued
from tests.standins.dns import DnsServer

CA = Authority()


class Overheard(Workers):
    """Workers, and what they were told of TLS, books and ports, in that order."""

    told: list[messages.Tls | messages.Book | messages.Serve]

    def set_tls(self, tls: messages.Tls) -> None:
        self.__dict__.setdefault("told", []).append(tls)
        super().set_tls(tls)

    def set_book(self, book: messages.Book) -> None:
        self.told.append(book)
        super().set_book(book)

    def serve(self, serve: messages.Serve, sockets: Sequence[socket]) -> None:
        self.told.append(serve)
        super().serve(serve, sockets)

    def take(self) -> list[messages.Tls | messages.Book | messages.Serve]:
        """Return what they were told since the last time."""
        told, self.told = self.told, []
        return told


@pytest.fixture
def overheard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "Workers", Overheard)


def told(engine: engine_module.Engine) -> list[messages.Tls | messages.Book | messages.Serve]:
    assert isinstance(engine.workers, Overheard)
    return engine.workers.take()


def write_tls(host: Host, issued: Issued, more: str = "", *, options: str = "") -> Path:
    """Terminate TLS on the static port; return the directory of the files."""
    certificate, key = issued.write(host.directory)
    host.write(
        f"tls: {{certificate: {certificate}, key: {key}{options}}}\n"
        f"static: [{{name: legacy, port: {host.static}, target: '127.0.0.1:{host.nobody}'}}]\n{more}"
    )
    return host.directory


async def shown_serial(host: Host) -> int:
    """The serial number of the certificate that a client of the static port sees now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=CA.pem.decode())
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", host.static, ssl=context, server_hostname="cache.example.com"
    )
    certificate = writer.get_extra_info("peercert")
    writer.close()
    with contextlib.suppress(ConnectionError):  # nobody is behind the port
        await reader.read()
    return int(certificate["serialNumber"], 16)


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
        await tick_until(daemon, lambda: len(daemon.engine.serving.current) == 4)
        host.write("nonsense: 1")
        verdict = await Desk(daemon.engine).reload()
        assert not verdict.ok
        assert "nonsense" in verdict.message
        await host.told("RELOADING=1")
        await host.told("READY=1", "4 routes")
        assert len(daemon.engine.serving.current) == 4
        assert shown(daemon, 'natproxy_config_reloads_total{result="refused"}') == "1.0"


async def test_a_reload_that_comes_after_the_stop_began_is_refused(host: Host) -> None:
    async with host.running() as (daemon, task):
        daemon._stopping.set()
        assert await task == 0
        host.write(f"static: [{{name: legacy, port: {host.static}, target: '127.0.0.1:{host.nobody}'}}]")
        verdict = await Desk(daemon.engine).reload()
        assert (verdict.ok, verdict.message) == (False, "natproxy is stopping")
        assert not daemon.engine.serving.current


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


@pytest.fixture
def deaf(host: Host) -> Iterator[None]:
    """Have two nodes and two endpoints, of none of which the name ever resolves."""
    account = world()
    host.aws.answer = answers_of(account)
    with DnsServer(account.zone) as server:
        server.fail("*", "silent")
        host.nobody = server.port
        host.write_caches()
        yield


@pytest.mark.usefixtures("deaf")
async def test_new_ports_open_with_their_names_answers_and_many_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        engine, settled = daemon.engine, 0
        settle = engine._settle

        def counted(**options: bool) -> tuple[int, int, int]:
            nonlocal settled
            settled += 1
            return settle(**options)

        monkeypatch.setattr(engine, "_settle", counted)
        first, *others, last = sorted(engine._awaited_names)
        engine._name_answered(first, ("127.0.0.2",), "")
        await tick_until(daemon, lambda: len(engine.serving.current) == 1)
        assert settled == 1
        for name in others:
            engine._name_answered(name, ("127.0.0.2",), "")
        assert settled == 1
        engine._name_answered(last, None, "the name does not exist")
        assert settled == 2
        assert len(engine.serving.current) == 4
        assert engine._opening is None


@pytest.mark.usefixtures("deaf")
async def test_a_name_that_answers_after_the_stop_began_opens_no_port(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        first, *others = daemon.engine._awaited_names
        assert len(others) == 3
        daemon.engine._name_answered(first, ("127.0.0.2",), "")
    assert daemon.engine._opening is not None
    assert daemon.engine._opening.cancelled()
    settled: list[bool] = []
    monkeypatch.setattr(daemon.engine, "_settle", lambda **_: settled.append(True))
    for name in others:
        daemon.engine._name_answered(name, ("127.0.0.2",), "")
    assert settled == []


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


# Certificates and the like.


@pytest.mark.usefixtures("overheard")
async def test_bad_files_keep_it_from_starting_before_a_worker_runs(host: Host) -> None:
    write_tls(host, CA.issue("cache", dns=["cache.example.com"]))
    (host.directory / "server.key").chmod(0o644)
    daemon = host.daemon()
    with pytest.raises(
        ConfigError, match=r"natproxy\.yaml: tls\.key: .*server\.key: .* mode 0644 lets every user at it"
    ):
        await daemon.run()
    assert daemon.engine.workers.running == 0
    assert "told" not in vars(daemon.engine.workers)


@pytest.mark.usefixtures("overheard")
async def test_workers_have_the_certificates_before_any_port(host: Host) -> None:
    issued = CA.issue("cache", dns=["cache.example.com"])
    write_tls(host, issued)
    async with host.running() as (daemon, _):
        first, second = told(daemon.engine)[:2]
        assert isinstance(first, messages.Tls)
        assert first.server is not None
        assert first.server.certificate == issued.certificate
        assert isinstance(second, messages.Serve)
        assert (second.port, second.client_tls) == (host.static, "terminate")


async def test_a_certificate_that_changes_on_disk_is_shown_to_new_clients(host: Host) -> None:
    first, second = (CA.issue("cache", dns=["cache.example.com"]) for _ in range(2))
    write_tls(host, first)
    async with host.running() as (daemon, _):
        assert await shown_serial(host) == first.serial
        second.write(host.directory)
        await tick_until(daemon, lambda: shown(daemon, 'natproxy_tls_file_loads_total{result="accepted"}') == "2.0")
        async with asyncio.timeout(20):
            while await shown_serial(host) != second.serial:  # the worker may be told a moment later
                pass


async def test_a_certificate_that_becomes_bad_stays_in_use_and_that_shows(host: Host) -> None:
    issued = CA.issue("cache", dns=["cache.example.com"])
    write_tls(host, issued)
    async with host.running() as (daemon, _):
        desk = Desk(daemon.engine)
        assert desk.readiness() == (True, "ready")
        (host.directory / "server.crt").write_bytes(b"")
        await tick_until(daemon, lambda: shown(daemon, "natproxy_tls_files_good") == "0.0")
        assert await shown_serial(host) == issued.serial
        why = f"tls.certificate: {host.directory}/server.crt: there is no certificate in it (PEM, BEGIN CERTIFICATE)"
        assert desk.readiness() == (True, f"ready; TLS files are bad, the old ones stay in use ({why})")
        assert list(desk.routes()["notes"]) == [f"TLS files are bad, the old ones stay in use ({why})"]


async def test_a_reload_with_bad_files_is_refused_as_a_whole(host: Host) -> None:
    issued = CA.issue("cache", dns=["cache.example.com"])
    write_tls(host, issued)
    async with host.running() as (daemon, _):
        write_tls(host, issued, f"nodes: {{ca: {host.directory}/nodes.crt}}\nlog: {{level: error}}")
        verdict = await Desk(daemon.engine).reload()
        assert not verdict.ok
        assert verdict.message == (
            f"{host.config}: nodes.ca: {host.directory}/nodes.crt: it cannot be read: No such file or directory"
        )
        assert str(daemon.engine.config.log.level) == "info"
        (host.directory / "nodes.crt").write_bytes(CA.pem)
        assert (await Desk(daemon.engine).reload()).ok
        assert str(daemon.engine.config.log.level) == "error"
        assert daemon.engine.credentials.tls.node_cas == {f"{host.directory}/nodes.crt": CA.pem}


@pytest.mark.usefixtures("overheard")
async def test_a_reload_that_asks_for_no_certificates_any_more_tells_the_ports_first_who_may_connect(
    host: Host,
) -> None:
    issued = CA.issue("cache", dns=["cache.example.com"])
    (host.directory / "clients.crt").write_bytes(CA.pem)
    asking = f", client_ca: {host.directory}/clients.crt"
    write_tls(host, issued, options=asking)
    async with host.running() as (daemon, _):
        told(daemon.engine)
        write_tls(host, issued, "clients: {allow: [192.0.2.1]}")
        assert (await Desk(daemon.engine).reload()).ok
        before, serve, after = told(daemon.engine)
        assert isinstance(before, messages.Tls)
        assert isinstance(serve, messages.Serve)
        assert isinstance(after, messages.Tls)
        assert (before.server and before.server.client_ca, serve.allow) == (CA.pem, ("192.0.2.1/32",))
        assert after.server is not None
        assert after.server.client_ca is None
        write_tls(host, issued, options=asking)
        assert (await Desk(daemon.engine).reload()).ok
        before, serve, after = told(daemon.engine)
        assert isinstance(before, messages.Tls)
        assert isinstance(serve, messages.Serve)
        assert (before.server and before.server.client_ca, serve.allow) == (CA.pem, None)
        assert after == before


async def test_a_node_that_is_not_trusted_is_not_said_to_be_silent(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.write(f"static: [{{name: legacy, port: {host.static}, target: '127.0.0.1:{host.nobody}'}}]")
    async with host.running() as (daemon, _):
        caplog.set_level(logging.WARNING, "natproxy")
        for outcome, detail in ((Outcome.REFUSED, "refused"), (Outcome.NODE_HANDSHAKE, "unknown-ca: not trusted")):
            daemon.engine._heard(1, messages.DialFailed(host.static, outcome.value, detail))
        found = [(record.getMessage(), vars(record)["natproxy_fields"].get("detail")) for record in caplog.records]
        assert [told for told in found if told[1] is not None] == [
            ("node does not answer", "refused"),
            ("TLS handshake with node fails", "unknown-ca: not trusted"),
        ]


# What nodes themselves say.


@pytest.fixture
def dns(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[AwsWorld], None]]:
    """Have names resolved as a world says, and nobody ask again unless there is hurry."""

    def names(resolver: tuple[str, ...] | None, on_answer: OnAnswer) -> Names:
        return Names(resolver, on_answer, interval=3600.0)

    monkeypatch.setattr(engine_module, "Names", names)
    with contextlib.ExitStack() as stack:

        def serve(account: AwsWorld) -> None:
            host.aws.answer = answers_of(account)
            host.nobody = stack.enter_context(DnsServer(account.zone)).port
            host.write_caches()

        yield serve


def port_of(daemon: Daemon, kind: Kind) -> int:
    return next(route.port for route in daemon.engine.serving.current.values() if route.key.kind is kind)


async def test_a_read_only_error_has_dns_asked_at_once_and_ends_connections_to_the_old_primary(
    host: Host, dns: Callable[[AwsWorld], None]
) -> None:
    (number,) = free_ports(1)
    account = AwsWorld(addresses=["127.0.0.61", "127.0.0.62"])
    account.add_replication_group("my-redis", replicas=1, port=number)
    dns(account)
    nodes = [await asyncio.start_server(say_where, address, number) for address in ("127.0.0.61", "127.0.0.62")]
    async with host.running() as (daemon, _), asyncio.timeout(30):
        await tick_until(daemon, lambda: len(daemon.engine.serving.current) == 4)
        port = port_of(daemon, Kind.PRIMARY)
        await tick_until(daemon, lambda: bool(daemon.engine.serving.addresses(port)))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ping(reader, writer) == b"+127.0.0.61\r\n"
        account.failover("my-redis")  # AWS has not told of it yet
        loop = asyncio.get_running_loop()
        hinted_at = loop.time()
        daemon.engine._heard(1, messages.Hint(port, "read-only"))
        assert await reader.read() == b""
        assert loop.time() - hinted_at < 3.0
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ping(reader, writer) == b"+127.0.0.62\r\n"
        writer.close()
        assert shown(daemon, 'natproxy_rewrite_hints_total{hint="read-only"}') == "1.0"
    for node in nodes:
        node.close()


async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"*1\r\n$4\r\nPING\r\n")
    return await reader.readline()


async def say_where(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a node that answers its own address."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while await reader.readuntil(b"PING\r\n"):
            writer.write(b"+%b\r\n" % writer.get_extra_info("sockname")[0].encode())
    writer.close()


async def test_a_hint_has_aws_and_the_nodes_asked_and_one_about_no_port_nobody(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await tick_until(daemon, lambda: len(daemon.engine.serving.current) == 4)
        asked: list[str] = []
        monkeypatch.setattr(daemon.engine.discovery, "hint", lambda: asked.append("AWS"))
        monkeypatch.setattr(daemon.engine._role_asker, "hurry", asked.append)
        daemon.engine._heard(1, messages.Hint(host.nobody, "unknown-node"))
        assert asked == []
        daemon.engine._heard(1, messages.Hint(port_of(daemon, Kind.NODE), "unknown-node"))
        assert asked == ["AWS", "my-redis"]


async def test_roles_that_pass_by_are_shown_and_one_that_moves_is_followed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_caches()
    account = AwsWorld()
    account.add_replication_group("my-redis", mode="cluster-compatible", replicas=1)
    host.aws.answer = answers_of(account)
    async with host.running() as (daemon, _):
        engine = daemon.engine
        await tick_until(daemon, lambda: len(engine.serving.current) == 4)
        hurried: list[str] = []
        monkeypatch.setattr(engine.names, "hurry", hurried.append)
        (cache,) = engine.knowledge.snapshot.caches
        hosts = [node.endpoint.host for node in cache.nodes if node.endpoint is not None]

        def learn(*roles: str) -> dict[str, str]:
            told = tuple((name, 6379, role) for name, role in zip(hosts, roles, strict=True))
            engine._heard(1, messages.Learnt("my-redis", told))
            return {str(status.route.key): str(status.role) for status in engine.statuses() if status.route.key.node}

        first, second = (str(node.id) for node in cache.nodes)
        assert learn("primary", "replica") == {first: "primary", second: "replica"}
        assert hurried == []
        assert learn("replica", "primary") == {first: "replica", second: "primary"}
        assert set(hurried) == {cache.endpoints[Kind.PRIMARY].host, cache.endpoints[Kind.READER].host}
        assert shown(daemon, 'natproxy_node_changes_total{change="role-moved"}') == "2.0"


async def test_a_node_in_cluster_mode_is_asked_for_roles(host: Host, dns: Callable[[AwsWorld], None]) -> None:
    script: dict[str, bytes | None] = {"CLUSTER SHARDS": UNKNOWN_SHARDS}
    async with scripted(script) as node:
        account = AwsWorld(addresses=[node.address.ip])
        account.add_replication_group("my-redis", mode="cluster-enabled", replicas=0, port=node.address.port)
        node.script["CLUSTER SLOTS"] = slots_of(*node.address)
        dns(account)
        async with host.running() as (daemon, _):
            statuses = daemon.engine.statuses
            await tick_until(daemon, lambda: any(status.role is Role.PRIMARY for status in statuses()))
            page = Desk(daemon.engine).metrics()[0].decode()
            assert 'natproxy_node_info{cache="my-redis",kind="node",node="my-redis-0001-001/0001"' in page
            assert 'role="primary"' in page
    assert {words[0] for words in node.heard} == {"CLUSTER"}


@pytest.mark.usefixtures("overheard")
async def test_workers_have_the_book_before_any_port_that_names_it(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await tick_until(daemon, lambda: len(daemon.engine.serving.current) == 4)
        books: dict[str, set[int]] = {}
        ports: set[int] = set()
        for message in told(daemon.engine):
            if isinstance(message, messages.Book):
                books[message.name] = {port for *_, port in message.ports}
            elif isinstance(message, messages.Serve) and message.kind == "node":
                assert message.port in books[message.book]
                ports.add(message.port)
        assert len(ports) == 2


@pytest.mark.usefixtures("overheard")
async def test_a_reload_of_what_clients_dial_is_a_new_book(host: Host) -> None:
    host.write_caches()
    host.aws.answer = answers_of(world())
    async with host.running() as (daemon, _):
        await host.told("4 routes")
        told(daemon.engine)
        host.config.write_text(host.config.read_text() + "public_host: cache.dev.example.com\n")
        assert (await Desk(daemon.engine).reload()).ok
        (book,) = (message for message in told(daemon.engine) if isinstance(message, messages.Book))
        assert (book.name, book.public_host) == ("my-redis", "cache.dev.example.com")
