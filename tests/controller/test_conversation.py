from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.controller import conversation as conversation_module
from natproxy.controller.conversation import NotToldError, RefusedError, Where, ask_topology
from natproxy.controller.logins import Login
from natproxy.model import Address, Role
from natproxy.tls.contexts import node_context
from tests.controller.clusternodes import UNKNOWN_SHARDS, Cluster, running_cluster, scripted, slots_of
from tests.controller.samples import free_ports
from tests.standins.caches import redis_program
from tests.standins.certificates import Authority

PRIMARY, REPLICA = Role.PRIMARY, Role.REPLICA
CA = Authority("Nodes CA")
HOST = "my-redis.x7f3k.use1.cache.amazonaws.com"
WORD = "s3cr3t-w0rd"
NOTHING = b"*0\r\n"
needs_redis = pytest.mark.skipif(redis_program() is None, reason="redis-server is not installed")


def where(address: Address, tls: ssl.SSLContext | None = None, server_name: str = "") -> Where:
    return Where(address, tls, server_name, 5.0, 5.0)


async def refusal(address: Address, login: Login | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        await ask_topology(where(address), login)
    return str(caught.value)


async def trouble(where: Where, login: Login | None = None) -> str:
    with pytest.raises(NotToldError) as caught:
        await ask_topology(where, login)
    assert not isinstance(caught.value, RefusedError)
    return str(caught.value)


# Real nodes.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@needs_redis
async def test_every_node_of_a_real_cluster_tells_all_roles(cluster: Cluster) -> None:
    for node in (cluster.primary, cluster.replica):
        topology = await ask_topology(where(Address(node.address, node.port)), None)
        assert set(topology.roles) == {
            (cluster.primary.address, cluster.primary.port, PRIMARY),
            (cluster.replica.address, cluster.replica.port, REPLICA),
        }
        assert {health for *_, health in topology.health} == {"online"}


@needs_redis
async def test_a_real_node_wants_the_right_password_and_the_right_user(cluster: Cluster) -> None:
    address = Address(cluster.primary.address, cluster.primary.port)
    cluster.demand(WORD)
    try:
        assert await refusal(address) == "NOAUTH"
        assert await refusal(address, Login(None, "wrong")) == "WRONGPASS"
        assert await refusal(address, Login("nobody", WORD)) == "WRONGPASS"
        for login in (Login(None, WORD), Login("default", WORD)):
            assert (await ask_topology(where(address), login)).roles
        cluster.primary.ask_all(
            [("AUTH", WORD), ("ACL", "SETUSER", "probe", "on", f">{WORD}", "-@all", "+cluster|shards")]
        )
        assert (await ask_topology(where(address), Login("probe", WORD))).roles
        cluster.primary.ask_all([("AUTH", WORD), ("ACL", "SETUSER", "probe", "-cluster|shards", "+get")])
        assert await refusal(address, Login("probe", WORD)) == "NOPERM"
    finally:
        for node in (cluster.primary, cluster.replica):
            node.ask_all([("AUTH", WORD), ("CONFIG", "SET", "requirepass", ""), ("CONFIG", "SET", "masterauth", "")])


@needs_redis
async def test_a_real_node_without_a_password_is_asked_all_the_same(cluster: Cluster) -> None:
    address = Address(cluster.primary.address, cluster.primary.port)
    assert (await ask_topology(where(address), Login(None, WORD))).roles
    assert (await ask_topology(where(address), Login("default", WORD))).roles


@needs_redis
async def test_real_nodes_that_speak_tls_are_verified_and_tell_by_their_names(tmp_path: Path) -> None:
    with running_cluster(CA, HOST) as cluster:
        address = Address(cluster.primary.address, cluster.primary.port)
        context = node_context(CA.pem)
        topology = await ask_topology(where(address, context, f"10.{HOST}"), None)
        assert (f"10.{HOST}", cluster.primary.port, PRIMARY) in topology.roles
        assert (f"11.{HOST}", cluster.replica.port, REPLICA) in topology.roles
        told = await trouble(where(address, context, "other.example.com"))
        assert told.startswith("TLS handshake fails: wrong-name: ")
        told = await trouble(where(address, node_context(Authority().pem), f"10.{HOST}"))
        assert told.startswith("TLS handshake fails: unknown-ca: ")
        assert await trouble(where(address)) != ""  # clear text to a TLS port


# What is said, and no more.


async def test_a_node_without_shards_is_asked_for_slots() -> None:
    script = {"CLUSTER SHARDS": UNKNOWN_SHARDS, "CLUSTER SLOTS": slots_of("10.0.1.1", 6379, ("10.0.1.2", 6379))}
    async with scripted(script) as node:
        topology = await ask_topology(where(node.address), None)
    assert topology.roles == (("10.0.1.1", 6379, PRIMARY), ("10.0.1.2", 6379, REPLICA))
    assert node.heard == [("CLUSTER", "SHARDS"), ("CLUSTER", "SLOTS")]


async def test_nothing_but_a_login_and_the_topology_is_asked() -> None:
    async with scripted({"AUTH": b"+OK\r\n", "CLUSTER SHARDS": NOTHING}) as node:
        await ask_topology(where(node.address), Login("probe", WORD))
        await ask_topology(where(node.address), Login(None, WORD))
        await ask_topology(where(node.address), None)
    shards = ("CLUSTER", "SHARDS")
    assert node.heard == [("AUTH", "probe", WORD), shards, ("AUTH", WORD), shards, shards]


async def test_the_question_is_not_put_to_whom_refuses_the_login() -> None:
    async with scripted({"AUTH": b"-WRONGPASS invalid username-password pair\r\n"}) as node:
        assert await refusal(node.address, Login(None, WORD)) == "WRONGPASS"
    assert [words[0] for words in node.heard] == ["AUTH"]


@pytest.mark.parametrize("code", ["NOAUTH", "WRONGPASS", "NOPERM"])
async def test_refusals_are_known_by_their_code(code: str) -> None:
    async with scripted({"CLUSTER SHARDS": f"-{code} because\r\n".encode()}) as node:
        assert await refusal(node.address) == code


async def test_an_answer_to_auth_that_repeats_the_password_is_not_repeated() -> None:
    told = b"-ERR unknown command 'AUTH', with args beginning with: 's3cr3t-w0rd'\r\n"
    async with scripted({"AUTH": told, "CLUSTER SHARDS": told, "CLUSTER SLOTS": told}) as node:
        assert await trouble(where(node.address), Login(None, WORD)) == (
            "it knows neither CLUSTER SHARDS nor CLUSTER SLOTS"
        )


async def test_a_node_that_is_in_no_cluster_says_so() -> None:
    refused = b"-ERR This instance has cluster support disabled\r\n"
    async with scripted({"CLUSTER SHARDS": refused, "CLUSTER SLOTS": refused}) as node:
        assert await trouble(where(node.address)) == "it knows neither CLUSTER SHARDS nor CLUSTER SLOTS"


# Nodes that do not answer, or not so.


async def test_a_long_answer_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_module, "_CHUNK_BYTES", 7)
    replicas = [(f"10.0.2.{number}", 6379) for number in range(200)]
    answer = slots_of("10.0.1.1", 6379, *replicas)
    async with scripted({"CLUSTER SHARDS": UNKNOWN_SHARDS, "CLUSTER SLOTS": answer}) as node:
        assert len((await ask_topology(where(node.address), None)).roles) == 201


async def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_module, "MOST_ANSWER_BYTES", 10_000)
    async with scripted({"CLUSTER SHARDS": b"$20000\r\n" + b"x" * 20_002}) as node:
        assert await trouble(where(node.address)) == "its answer is longer than 10000 bytes"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "it closes the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak as Redis does"),
        (b"+OK\r\n", "what it answers to CLUSTER SHARDS is not understood"),
        (b"*1\r\n$4\r\ntext\r\n", "what it answers to CLUSTER SHARDS is not understood"),
    ],
)
async def test_who_does_not_answer_as_a_node_is_said_so(answer: bytes, why: str) -> None:
    async with scripted({"CLUSTER SHARDS": answer}) as node:
        assert await trouble(where(node.address)) == why


async def test_who_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_module, "ANSWER_SECONDS", 0.05)
    async with scripted({"CLUSTER SHARDS": None}) as node:
        assert await trouble(where(node.address)) == "it does not answer in time"
    (nobody,) = free_ports(1)
    assert "onnect" in await trouble(where(Address("127.0.0.1", nobody)))


async def test_the_connection_is_closed_in_the_end() -> None:
    ended = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"SHARDS\r\n")
        writer.write(NOTHING)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        ended.set()
        writer.transport.abort()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    await ask_topology(where(Address(*server.sockets[0].getsockname()[:2])), None)
    await asyncio.wait_for(ended.wait(), 10)
    server.close()
