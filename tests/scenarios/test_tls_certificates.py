"""Who is let in, and which node is believed: every kind of certificate, in both versions of TLS.

All rows are played first, each on a port of its own, and judged then: the counts come once a second, and so does leave
to log a few more who are refused.
"""

from __future__ import annotations

import contextlib
import itertools
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT
from tests.scenarios.peers import closing_all, connect
from tests.scenarios.tlspeers import HOST, NODE_HOST, VERSIONS, TlsNode, TlsTalk, Version, alert_of, prepare_tls
from tests.standins.certificates import Authority, Issued, self_signed
from tests.standins.echo import EchoNodes

FIRST_CLIENT_PORT, FIRST_NODE_PORT, OTHERS_PORT = FIRST_PORT, FIRST_PORT + 40, FIRST_PORT + 80
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
SERVED = "served"
LOGGED_IN_A_SECOND = 10
"""Of those who are refused, for each outcome."""


class World:
    """One daemon with a port for every kind of row; clients of ``unlisted`` are vouched for, but nobody lists them."""

    def __init__(self, natproxies: Natproxies, echo: str) -> None:
        self.daemon, self.papers = prepare_tls(natproxies)
        self.unlisted = Authority("CA without a list")
        self.stranger = Authority("Another CA")
        self.namesake = Authority("Clients CA")
        self.revoked = self.papers.clients.issue("dev9", usage="client")
        self.papers.client_ca.write_bytes(self.papers.clients.pem + self.unlisted.pem)
        self.papers.crl.write_bytes(self.papers.clients.crl([self.revoked]))
        self.node = TlsNode(self.papers.node_side())
        names = ["dev1", "*.ci.example.com", "spiffe://example.com/deploy"]
        static: list[dict[str, Any]] = [
            {"name": f"client-{number}", "port": FIRST_CLIENT_PORT + number, "target": echo}
            | ({"clients": {"certificates": names}} if row.is_listed else {})
            for number, row in enumerate(CLIENTS)
        ]
        static += [
            {
                "name": f"node-{number}",
                "port": FIRST_NODE_PORT + number,
                "target": self.node.target,
                "clients": {"tls": "off"},
                "nodes": self.papers.tls_node(),
            }
            for number, _ in enumerate(NODES)
        ]
        self.daemon.config["static"] = [*static, {"name": "others", "port": OTHERS_PORT, "target": echo}]
        self.daemon.start()


@pytest.fixture(scope="module")
def world(module_natproxy: Natproxies) -> Iterator[World]:
    nodes = EchoNodes()
    nodes.start()
    nodes.open("127.0.0.1", 0)
    made = World(module_natproxy, "{}:{}".format(*nodes.where()[0]))
    with made.node:
        yield made
    nodes.stop()


@dataclass(frozen=True)
class Row:
    """What is shown, and what must come of it."""

    what: str
    shows: Callable[[World], Issued | None]
    reason: str = ""
    """A HandshakeFailure; empty where it is good."""
    said: str = ""
    """What the log's line has to hold."""
    alerts: tuple[str, ...] = ()
    """What the other side may be told; empty where it does not matter."""
    is_listed: bool = False
    """Only some names are let in."""

    def __str__(self) -> str:
        return self.what

    def outcome(self, side: str) -> str:
        """How the log calls the end of one that is refused."""
        if self.reason in {"revoked", "not-allowed"}:
            return f"certificate-{self.reason}"
        return f"{side}-handshake"


def client(name: str = "dev1", **more: Any) -> Callable[[World], Issued]:
    more.setdefault("usage", "client")
    return lambda world: world.papers.clients.issue(name, **more)


def node(*names: str, **more: Any) -> Callable[[World], Issued]:
    return lambda world: world.papers.nodes.issue("node", dns=names or (NODE_HOST,), **more)


CLIENTS = (
    Row("good", client()),
    Row("good, of RSA", client(key="rsa2048")),
    Row("good for clients and servers", client(usage="both")),
    Row("good for anything", client(usage="none")),
    Row("listed by CN", client(), is_listed=True),
    Row("listed by DNS name", client("runner", dns=["r7.CI.example.com"]), is_listed=True),
    Row("listed by URI", client("deploy", uris=["spiffe://example.com/deploy"]), is_listed=True),
    Row("expired", client(not_after=NOW - DAY), "expired", "expired", ("CERTIFICATE_EXPIRED",)),
    Row("not yet valid", client(not_before=NOW + DAY), "not-yet-valid", "not yet valid"),
    Row("of another CA", lambda world: world.stranger.issue("dev1", usage="client"), "unknown-ca", "", ("UNKNOWN_CA",)),
    Row("of a CA that has the same name", lambda world: world.namesake.issue("dev1", usage="client"), "unknown-ca"),
    Row("self-signed", lambda _: self_signed("dev1"), "unknown-ca"),
    Row("revoked", lambda world: world.revoked, "revoked", "revoked", ("CERTIFICATE_REVOKED",)),
    Row("of a CA without a list", lambda world: world.unlisted.issue("dev1", usage="client"), "crl-missing"),
    Row("none", lambda _: None, "no-certificate", "", ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")),
    Row("a server's", client(usage="server"), "wrong-usage"),
    Row("a signer's", client(usage="codesigning"), "wrong-usage"),
    Row("of a key too short", client(key="rsa1024"), "weak"),
    Row("signed with SHA-1", client(hash="sha1"), "weak"),
    Row("of a name not listed", client("dev2"), "not-allowed", "dev2", is_listed=True),
    Row("of a name below", client("r", dns=["a.b.ci.example.com"]), "not-allowed", is_listed=True),
    Row("of the name above", client("r", dns=["ci.example.com"]), "not-allowed", is_listed=True),
    Row("of a name in another case", client("DEV1"), "not-allowed", is_listed=True),
    Row("listed, but expired", client(not_after=NOW - DAY), "expired", is_listed=True),
)
NODES = (
    Row("good", node()),
    Row("good, with a wildcard", node("*.example.com")),
    Row("good, of RSA", node(key="rsa2048")),
    Row("good for anything", node(usage="none")),
    Row(
        "good, by way of another CA", lambda w: Authority("Between", parent=w.papers.nodes).issue("n", dns=[NODE_HOST])
    ),
    Row("expired", node(not_after=NOW - DAY), "expired", "expired"),
    Row("not yet valid", node(not_before=NOW + DAY), "not-yet-valid", "not yet valid"),
    Row("of another name", node("other.example.com"), "wrong-name", NODE_HOST),
    Row("of a name below", node("*.node.example.com"), "wrong-name", NODE_HOST),
    Row("of its address alone", lambda w: w.papers.nodes.issue("n", ips=[w.node.ip]), "wrong-name", NODE_HOST),
    Row("of another CA", lambda world: world.stranger.issue("node", dns=[NODE_HOST]), "unknown-ca"),
    Row("of the clients' CA", lambda world: world.papers.clients.issue("node", dns=[NODE_HOST]), "unknown-ca"),
    Row("self-signed", lambda _: self_signed(NODE_HOST), "unknown-ca"),
    Row("a client's", node(usage="client"), "wrong-usage"),
    Row("a signer's", node(usage="codesigning"), "wrong-usage"),
    Row("of a key too short", node(key="rsa1024"), "weak"),
    Row("signed with SHA-1", node(hash="sha1"), "weak"),
)


@dataclass(frozen=True)
class Played:
    """What came of one row."""

    port: int
    came: str
    """``served``, how the connection ended, or what alert there was."""
    client: str
    """The client's address, as the log has it."""


Record = dict[tuple[str, Version], Played]


def play_client(world: World, row: Row, version: Version) -> Played:
    context = world.papers.client(row.shows(world), version=version)
    port = FIRST_CLIENT_PORT + CLIENTS.index(row)
    plain = connect(world.daemon.ip, port)
    address = "{}:{}".format(*plain.sock.getsockname()[:2])
    try:
        talk = TlsTalk(plain.sock, context, name=HOST)
        # Whoever is refused is told so when it listens; what it said first could turn that into a reset.
        came = talk.ended() if row.reason else SERVED if talk.echoes() else "not served"
    except ssl.SSLError as error:
        came = alert_of(error)
    except ConnectionError:
        came = "reset"
    plain.close()
    return Played(port, came, address)


def play_node(world: World, row: Row, version: Version) -> Played:
    world.node.context = world.papers.node_side(row.shows(world), version=version)
    port = FIRST_NODE_PORT + NODES.index(row)
    with connect(world.daemon.ip, port) as talk:
        address = "{}:{}".format(*talk.sock.getsockname()[:2])
        try:
            with world.node.accept() as peer:
                talk.say(b"hello")
                came = SERVED if peer.hear(5) == b"hello" else peer.ended()
        except (ssl.SSLError, ConnectionError):
            came = talk.ended()
    return Played(port, came, address)


def play(world: World, side: str, rows: tuple[Row, ...], act: Callable[[World, Row, Version], Played]) -> Record:
    record: Record = {}
    refused: Counter[str] = Counter()
    with closing_all():
        for row, version in itertools.product(rows, VERSIONS):
            record[row.what, version] = act(world, row, version)
            outcome = row.outcome(side)
            refused[outcome] += bool(row.reason)
            if refused[outcome] == LOGGED_IN_A_SECOND:
                wait_for_counts(world, side, len(record))
                refused.clear()
        wait_for_counts(world, side, len(record))
    return record


def wait_for_counts(world: World, side: str, number: int) -> None:
    with contextlib.suppress(AssertionError):  # they are judged by a test of their own
        world.daemon.wait_for_metric(number, "natproxy_handshakes_total", side=side)


@pytest.fixture(scope="module")
def clients(world: World) -> Record:
    return play(world, "client", CLIENTS, play_client)


@pytest.fixture(scope="module")
def nodes(world: World) -> Record:
    return play(world, "node", NODES, play_node)


both_versions = pytest.mark.parametrize("version", VERSIONS)


@both_versions
@pytest.mark.parametrize("row", CLIENTS, ids=str)
def test_a_clients_certificate(world: World, clients: Record, row: Row, version: Version) -> None:
    played = clients[row.what, version]
    line = world.daemon.wait_for_log("connection ended", port=played.port, client=played.client)
    if not row.reason:
        assert played.came == SERVED, line
        assert line["client_tls"] == version
        assert line["certificate"]
        return
    assert played.came != SERVED
    assert line["outcome"] == row.outcome("client")
    assert line["detail"].startswith(f"{row.reason}: "), line
    assert row.said in line["detail"]
    assert not row.alerts or played.came in row.alerts
    assert "node_tls" not in line
    assert line.get("address") is None, "no node is dialled for one who is not let in"


@both_versions
@pytest.mark.parametrize("row", NODES, ids=str)
def test_a_nodes_certificate(world: World, nodes: Record, row: Row, version: Version) -> None:
    played = nodes[row.what, version]
    line = world.daemon.wait_for_log("connection ended", port=played.port, client=played.client)
    if not row.reason:
        assert played.came == SERVED, line
        assert line["node_tls"] == version
        return
    assert played.came in ("eof", "reset")
    assert line["outcome"] == row.outcome("node")
    assert line["detail"].startswith(f"{row.reason}: "), line
    assert row.said in line["detail"]
    assert NODE_HOST in line["detail"], "the name that was expected"
    assert "_ssl.c" not in line["detail"]


@pytest.mark.parametrize("side", ["client", "node"])
def test_each_is_counted_under_its_reason(world: World, side: str, request: pytest.FixtureRequest) -> None:
    record: Record = request.getfixturevalue(f"{side}s")
    rows = CLIENTS if side == "client" else NODES
    status, text = world.daemon.get("/metrics")
    assert status == 200
    counted = {
        (int(sample.labels["port"]), sample.labels["result"], sample.labels["reason"]): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "natproxy_handshakes_total" and sample.labels["side"] == side and sample.value
    }
    ports = {what: played.port for (what, _), played in record.items()}
    assert counted == {(ports[row.what], "failed" if row.reason else "ok", row.reason): len(VERSIONS) for row in rows}


def s_client(world: World, *options: str) -> subprocess.CompletedProcess[bytes]:
    argv = ["openssl", "s_client", "-connect", f"{world.daemon.ip}:{OTHERS_PORT}", *options]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)


@pytest.mark.usefixtures("clients")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"), "version"),
        (("-tls1_2", "-cipher", "AES128-SHA256"), "cipher"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"), "cipher"),
    ],
)
def test_what_is_old_is_not_spoken(world: World, options: tuple[str, ...], reason: str) -> None:
    since = len(world.daemon.log)
    assert s_client(world, *options).returncode
    line = world.daemon.wait_for_log("connection ended", since=since, outcome="client-handshake")
    assert line["detail"].startswith(f"{reason}: "), line


@pytest.mark.usefixtures("nodes")
def test_the_node_hears_its_name_and_no_old_version_is_spoken_to_it(world: World) -> None:
    names: list[str | None] = []
    context = world.papers.node_side()
    context.sni_callback = lambda _, name, __: names.append(name)
    world.node.context = context
    with connect(world.daemon.ip, FIRST_NODE_PORT) as talk, world.node.accept() as peer:
        talk.say(b"hello")
        assert peer.hear(5) == b"hello"
    assert names == [NODE_HOST]


@pytest.mark.usefixtures("clients")
def test_a_client_that_does_not_trust_us_is_counted_as_that(world: World) -> None:
    since = len(world.daemon.log)
    context = ssl.create_default_context(cadata=world.stranger.pem.decode())
    plain = connect(world.daemon.ip, OTHERS_PORT)
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsTalk(plain.sock, context, name=HOST)
    line = world.daemon.wait_for_log("connection ended", since=since, outcome="client-handshake")
    assert line["detail"].startswith("alert: "), line
    plain.close()
