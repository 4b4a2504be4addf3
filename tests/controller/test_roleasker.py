from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from natproxy.config import Aws, Probe
from natproxy.controller import roleasker as roleasker_module
from natproxy.controller.logins import Logins
from natproxy.controller.roleasker import RoleAsker, Target, Terms, targets_of
from natproxy.controller.shards import Topology
from natproxy.discover.elasticache import ElastiCache
from natproxy.messages import ServerTls
from natproxy.model import Address, Endpoint, Kind, Mode, NodeTls, Role
from natproxy.plan.addresses import Addresses
from natproxy.tls.contexts import server_context
from tests.controller.clusternodes import UNKNOWN_SHARDS, ScriptedNode, running_cluster, scripted, slots_of
from tests.controller.samples import free_ports
from tests.discover.conftest import aws as aws_fixture
from tests.plan.samples import book, config, host, node, redis, snapshot
from tests.standins.aws import AwsServer
from tests.standins.caches import redis_program
from tests.standins.certificates import Authority

aws = aws_fixture
PRIMARY = Role.PRIMARY
CA = Authority("Nodes CA")
WORD = "s3cr3t-w0rd"
GOOD = {"AUTH": b"+OK\r\n", "CLUSTER SHARDS": UNKNOWN_SHARDS, "CLUSTER SLOTS": slots_of("10.0.1.1", 6379)}
TOLD = Topology((("10.0.1.1", 6379, PRIMARY),))
TERMS = Terms(False, "", None, 5.0, 5.0, None)


class Stage:
    """A RoleAsker, and what it tells."""

    def __init__(self, ask_secret: Any = None) -> None:
        self.told: asyncio.Queue[tuple[str, Topology]] = asyncio.Queue()
        self.asker = RoleAsker(
            Logins(ask_secret), lambda cache, topology: self.told.put_nowait((cache, topology)), chance=lambda: 0.5
        )
        self.cas: Mapping[str, bytes] = {}

    async def ask(self, *targets: Target, every: float = 0.0) -> None:
        """Ask what is due, and wait for the end of it."""
        self.asker.watch(targets, self.cas, every)
        while self.asker._tasks._tasks:
            await asyncio.wait(list(self.asker._tasks._tasks))

    def take(self) -> list[tuple[str, Topology]]:
        return [self.told.get_nowait() for _ in range(self.told.qsize())]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    await stage.asker.close()


def target(*nodes: ScriptedNode | Address, **terms: Any) -> Target:
    addresses = [one if isinstance(one, Address) else one.address for one in nodes]
    return Target(
        "c", tuple((address, f"n{n}.example") for n, address in enumerate(addresses)), replace(TERMS, **terms)
    )


def by_file(directory: Path, password: str = WORD) -> Probe:
    path = directory / "probe.txt"
    path.write_text(password + "\n")
    path.chmod(0o600)
    return Probe.model_construct(username=None, password_file=path, secret_arn=None)


def problems(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What was said to be wrong."""
    return [
        (record.levelno, vars(record)["natproxy_fields"]["reason"])
        for record in caplog.records
        if record.getMessage() == "nodes do not tell their roles"
    ]


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "natproxy")


# Who is asked.

TEXT = """
clients: {allow: [198.51.100.27/32]}
timeouts: {connect: 2s, handshake: 4s}
caches:
  - {id: my-redis, ports: 6379-6388}
"""


def cluster(**facts: Any) -> Any:
    nodes = (node("my-redis-001"), node("my-redis-002"))
    return redis(**{"mode": Mode.CLUSTER_ENABLED, "nodes": nodes, "endpoints": {}, **facts})


def found(cache: Any, names: Mapping[str, Addresses], text: str = TEXT) -> list[Target]:
    return list(targets_of(config(text), snapshot(cache), names))


def test_every_node_of_a_cluster_is_one_to_ask_at_all_its_addresses() -> None:
    one, two = host("my-redis-001.0001"), host("my-redis-002.0001")
    (told,) = found(cluster(), book(**{one: ["10.0.1.1", "fd00::1"], two: ["10.0.1.2"]}))
    assert told.cache == "my-redis"
    assert told.nodes == (
        (Address("10.0.1.1", 6379), one),
        (Address("fd00::1", 6379), one),
        (Address("10.0.1.2", 6379), two),
    )
    assert told.terms == Terms(False, "", None, 2.0, 4.0, None)


@pytest.mark.parametrize("mode", list(Mode))
def test_only_clusters_are_asked(mode: Mode) -> None:
    names = book(**{host("my-redis-001.0001"): ["10.0.1.1"]})
    is_asked = mode in {Mode.CLUSTER_ENABLED, Mode.CLUSTER_COMPATIBLE}
    assert bool(found(cluster(mode=mode), names)) == is_asked


def test_who_is_leaving_or_has_no_address_is_not_asked() -> None:
    one = host("my-redis-001.0001")
    assert found(cluster(), {}) == []
    assert found(cluster(is_deleting=True), book(**{one: ["10.0.1.1"]})) == []
    nodes = (node("my-redis-001", is_deleting=True), node("my-redis-002", endpoint=None))
    assert found(cluster(nodes=nodes), book(**{one: ["10.0.1.1"]})) == []


def test_another_endpoint_leads_to_a_node_too() -> None:
    endpoints = {Kind.CONFIGURATION: Endpoint("cfg.example", 6379)}
    (told,) = found(cluster(endpoints=endpoints), book(**{"cfg.example": ["10.0.1.1"]}))
    assert told.nodes == ((Address("10.0.1.1", 6379), "cfg.example"),)


@pytest.mark.parametrize(
    ("tls", "entry", "speaks_tls", "server_name"),
    [
        (NodeTls.OFF, "", False, None),
        (NodeTls.REQUIRED, "", True, None),
        (NodeTls.PREFERRED, "", True, None),
        (NodeTls.REQUIRED, ", nodes: {tls: off}", False, None),
        (NodeTls.OFF, ", nodes: {tls: on, server_name: one.example}", True, "one.example"),
        (NodeTls.REQUIRED, ", clients: {tls: passthrough, allow: 198.51.100.27}", True, None),
    ],
)
def test_nodes_are_spoken_to_as_aws_and_the_config_say(
    tls: NodeTls, entry: str, speaks_tls: bool, server_name: str | None
) -> None:
    text = f"clients: {{allow: [198.51.100.27/32]}}\ncaches: [{{id: my-redis, ports: 6379-6388{entry}}}]\n"
    (told,) = found(cluster(tls=tls), book(**{host("my-redis-001.0001"): ["10.0.1.1"]}), text)
    assert (told.terms.speaks_tls, told.terms.server_name) == (speaks_tls, server_name)


# How it is asked.


@pytest.mark.skipif(redis_program() is None, reason="redis-server is not installed")
async def test_a_real_cluster_tells_its_roles_and_then_others(stage: Stage) -> None:
    with running_cluster() as real:
        nodes = [Address(one.address, one.port) for one in (real.primary, real.replica)]
        for _ in range(2):
            await stage.ask(target(*nodes))
            ((cache, topology),) = stage.take()
            assert cache == "c"
            assert {host: role for host, _, role in topology.roles} == {
                real.primary.address: Role.PRIMARY,
                real.replica.address: Role.REPLICA,
            }
            await asyncio.to_thread(real.fail_over)


async def test_one_node_is_asked_each_time_and_another_where_it_does_not_tell(stage: Stage) -> None:
    async with scripted(GOOD) as first, scripted(GOOD) as second:
        for _ in range(3):
            await stage.ask(target(first, second))
        assert (first.connections, second.connections) == (3, 0)
        first.script["CLUSTER SHARDS"] = b""
        for _ in range(3):
            await stage.ask(target(first, second))
        assert (first.connections, second.connections) == (4, 3)
    assert stage.take() == [("c", TOLD)] * 6


async def test_three_nodes_are_tried_at_most_and_the_next_ones_the_next_time(stage: Stage) -> None:
    silent = [Address("127.0.0.1", port) for port in free_ports(4)]
    async with scripted(GOOD) as good:
        await stage.ask(target(*silent, good))
        assert good.connections == 0
        await stage.ask(target(*silent, good))
        assert good.connections == 1
    assert stage.take() == [("c", TOLD)]


async def test_what_goes_wrong_is_said_once_and_that_it_is_over(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted({}) as one:
        for _ in range(3):
            await stage.ask(target(one))
        why = f"{one.address}: it knows neither CLUSTER SHARDS nor CLUSTER SLOTS"
        assert problems(caplog) == [(logging.INFO, why)]
        one.script.update(GOOD)
        for _ in range(2):
            await stage.ask(target(one))
    assert [record.getMessage() for record in caplog.records].count("nodes tell their roles again") == 1


async def test_a_cache_is_asked_about_as_often_as_it_should_be_and_at_once_where_it_hurries(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roleasker_module, "SPACING_SECONDS", 0.0)
    async with scripted(GOOD) as one:
        for _ in range(3):
            await stage.ask(target(one), every=60.0)
        assert one.connections == 1
        stage.asker.hurry("another")
        stage.asker.hurry("c")
        for _ in range(3):
            await stage.ask(target(one), every=60.0)
        assert one.connections == 2


async def test_who_hurries_while_it_is_asked_gets_another_answer_soon(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roleasker_module, "SPACING_SECONDS", 0.0)
    async with scripted(GOOD | {"CLUSTER SHARDS": None}) as one:
        stage.asker.watch([target(one)], {}, 60.0)
        await one.asked.wait()
        stage.asker.hurry("c")
        stage.asker.watch([target(one)], {}, 60.0)  # one question at a time
        assert one.connections == 1
        one.script.update(GOOD)
        for task in list(stage.asker._tasks._tasks):
            task.cancel()
        await stage.ask(target(one), every=60.0)
        await stage.ask(target(one), every=60.0)
        assert one.connections == 2


async def test_an_answer_about_a_cache_that_is_gone_is_not_told(stage: Stage) -> None:
    async with scripted(GOOD) as one:
        stage.asker.watch([target(one)], {}, 60.0)
        await stage.ask()
        assert one.connections == 1
    assert stage.take() == []


async def test_closing_ends_what_is_under_way(stage: Stage) -> None:
    async with scripted({"CLUSTER SHARDS": None}) as one:
        stage.asker.watch([target(one)], {}, 60.0)
        await one.asked.wait()
        await stage.asker.close()
    assert stage.take() == []


# TLS.


@pytest.fixture
def tls() -> ssl.SSLContext:
    issued = CA.issue("n0.example", dns=["n0.example"])
    return server_context(ServerTls(issued.certificate, issued.key))


async def test_a_node_s_certificate_is_verified_by_the_cas_and_the_name_that_count(
    stage: Stage, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    terms: dict[str, Any] = {"speaks_tls": True, "node_ca": "/ca.crt"}
    async with scripted(GOOD, tls) as one:
        stage.cas = {"/ca.crt": CA.pem}
        await stage.ask(target(one, **terms))
        assert stage.take() == [("c", TOLD)]
        await stage.ask(target(one, **terms, server_name="other.example"))
        assert stage.take() == []
        assert "wrong-name" in problems(caplog)[-1][1]
        stage.cas = {"/ca.crt": Authority().pem}  # the file has changed
        await stage.ask(target(one, **terms))
        assert stage.take() == []
        assert "unknown-ca" in problems(caplog)[-1][1]
        stage.cas = {"/ca.crt": CA.pem}
        await stage.ask(target(one, **terms))
        assert stage.take() == [("c", TOLD)]
        await stage.ask(target(one, speaks_tls=True))  # the system's roots
        assert stage.take() == []


# Logins.

REFUSED = {"AUTH": b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"}
NOAUTH = {"CLUSTER SHARDS": b"-NOAUTH Authentication required.\r\n"}


async def test_without_a_login_it_is_tried_once_and_then_left_alone(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted(GOOD | NOAUTH) as one, scripted(GOOD) as other:
        for _ in range(3):
            await stage.ask(target(one, other))
        assert (one.connections, other.connections) == (1, 0)
    why = "a node refuses to tell (NOAUTH): `probe` in the config can name a login"
    assert problems(caplog) == [(logging.INFO, why)]


async def test_who_refused_is_asked_again_after_some_minutes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(roleasker_module, "REFUSED_SECONDS", 0.0)
    async with scripted(GOOD | NOAUTH) as one:
        for _ in range(2):
            await stage.ask(target(one))
        assert one.connections == 2
    assert len(problems(caplog)) == 1


async def test_who_refused_is_asked_again_once_the_config_names_a_login(stage: Stage, tmp_path: Path) -> None:
    async with scripted(GOOD | NOAUTH) as one:
        await stage.ask(target(one))
        one.script.update(GOOD)
        await stage.ask(target(one))
        assert stage.take() == []
        await stage.ask(target(one, probe=by_file(tmp_path)))
        assert stage.take() == [("c", TOLD)]
        assert one.heard[-3] == ("AUTH", WORD)


async def test_a_wrong_password_is_tried_once_until_its_file_changes(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    probe = by_file(tmp_path)
    async with scripted(GOOD | REFUSED) as one:
        for _ in range(3):
            await stage.ask(target(one, probe=probe))
        assert one.connections == 1
        assert problems(caplog) == [(logging.WARNING, "a node refuses to tell (WRONGPASS)")]
        by_file(tmp_path, "another")
        one.script.update(GOOD)
        await stage.ask(target(one, probe=probe))
    assert [words for words in one.heard if words[0] == "AUTH"] == [("AUTH", WORD), ("AUTH", "another")]
    assert stage.take() == [("c", TOLD)]
    assert WORD not in caplog.text


async def test_a_file_that_others_get_at_is_not_used(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    probe = by_file(tmp_path)
    (tmp_path / "probe.txt").chmod(0o666)
    async with scripted(GOOD) as one:
        for _ in range(2):
            await stage.ask(target(one, probe=probe))
        assert one.connections == 0
        ((level, why),) = problems(caplog)
        assert level == logging.WARNING
        assert why.startswith("there is no way to ask them: ")
        assert "mode 0666 lets every user at it" in why


@asynccontextmanager
async def with_secrets() -> AsyncIterator[Stage]:
    """A stage that asks the Secrets Manager of the stand-in."""
    elasticache = ElastiCache(Aws(), attempts=1)
    stage = Stage(elasticache.secret)
    try:
        yield stage
    finally:
        await stage.asker.close()
        await elasticache.close()


async def test_a_secret_of_secrets_manager_is_the_login_and_is_asked_for_anew_when_it_is_refused(
    aws: AwsServer, caplog: pytest.LogCaptureFixture
) -> None:
    arn = aws.world.set_secret("probe", json.dumps({"username": "probe", "password": WORD}))
    probe = Probe.model_construct(username=None, password_file=None, secret_arn=arn)
    async with with_secrets() as stage, scripted(GOOD) as one:
        for _ in range(3):
            await stage.ask(target(one, probe=probe))
        assert len(aws.calls("GetSecretValue")) == 1
        assert stage.take() == [("c", TOLD)] * 3
        one.script.update(REFUSED)  # it was rotated
        await stage.ask(target(one, probe=probe))
        aws.world.set_secret("probe", "new-word")
        one.script.update(GOOD)
        await stage.ask(target(one, probe=probe))
        assert stage.take() == [("c", TOLD)]
        assert len(aws.calls("GetSecretValue")) == 2
    auths = [words for words in one.heard if words[0] == "AUTH"]
    assert auths == [("AUTH", "probe", WORD)] * 4 + [("AUTH", "new-word")]
    assert WORD not in caplog.text
    assert "new-word" not in caplog.text


async def test_a_secret_that_stays_wrong_is_neither_tried_nor_fetched_all_the_time(aws: AwsServer) -> None:
    arn = aws.world.set_secret("probe", WORD)
    probe = Probe.model_construct(username=None, password_file=None, secret_arn=arn)
    async with with_secrets() as stage, scripted(GOOD | REFUSED) as one:
        for _ in range(5):
            await stage.ask(target(one, probe=probe))
        assert one.connections == 1
        assert len(aws.calls("GetSecretValue")) == 2


async def test_a_secret_that_may_not_be_read_is_said_once(aws: AwsServer, caplog: pytest.LogCaptureFixture) -> None:
    arn = aws.world.set_secret("probe", WORD)
    aws.fault("GetSecretValue", "denied", times=None)
    probe = Probe.model_construct(username=None, password_file=None, secret_arn=arn)
    async with with_secrets() as stage, scripted(GOOD) as one:
        for _ in range(3):
            await stage.ask(target(one, probe=probe))
        assert one.connections == 0
    ((level, why),) = problems(caplog)
    assert level == logging.WARNING
    assert "not authorized to perform: secretsmanager:GetSecretValue" in why
