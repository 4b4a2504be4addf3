"""The portal: developers see over mutual TLS what their certificate may use, and nobody can make it a burden."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl

import msgspec
import pytest

from natproxy.documents import DirectoryDocument
from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.peers import Talk, connect
from tests.scenarios.tlspeers import HOST, Papers, TlsTalk, alert_of, prepare_tls, secure
from tests.scenarios.waiting import eventually
from tests.standins.certificates import Issued
from tests.standins.cloud import Cloud

PORTAL_PORT = 6378
REQUEST = f"GET /directory HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


class Portal:
    """The portal of a daemon, as its clients see it."""

    def __init__(self, daemon: Daemon, papers: Papers) -> None:
        self.daemon = daemon
        self.papers = papers

    def talk(self, who: Issued | None, source: str | None = None) -> TlsTalk:
        """Connect, and show a certificate."""
        return secure(self.daemon.ip, PORTAL_PORT, self.papers.client(who), source=source)

    def get(self, who: Issued, path: str = "/directory") -> tuple[int, str]:
        """Ask for one page; return status and body."""
        context = self.papers.client(who)
        context.check_hostname = False  # it is dialled by its address
        connection = http.client.HTTPSConnection(self.daemon.ip, PORTAL_PORT, timeout=20, context=context)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": HOST})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def directory(self, who: Issued) -> DirectoryDocument:
        """Ask what a certificate may use."""
        return msgspec.json.decode(self.get(who)[1], type=DirectoryDocument)

    def refusal(self, who: Issued | None, source: str | None = None) -> str:
        """Be turned away; return how."""
        try:
            with self.talk(who, source) as talk:
                talk.say(REQUEST)
                return talk.ended()
        except (ssl.SSLEOFError, ConnectionError):
            return "cut"
        except ssl.SSLError as error:
            return alert_of(error)


@pytest.fixture
def portal(paper_cloud: Cloud, natproxy: Natproxies, echo: str) -> Portal:
    """A portal, not started yet: a group and a memcached of AWS, and a static route for another certificate."""
    paper_cloud.replication_group("my-redis", replicas=1)
    paper_cloud.memcached("mc", nodes=1)
    daemon, papers = prepare_tls(
        natproxy,
        paper_cloud,
        caches=[{"id": "my-redis", "clients": {"certificates": ["dev1"]}}, {"id": "mc"}],
        static=[{"name": "theirs", "port": FIRST_PORT + 200, "target": echo, "clients": {"certificates": ["dev2"]}}],
        portal={"allow": ["127.0.0.1/32"]},
        public_host=HOST,
    )
    return Portal(daemon, papers)


def test_a_developer_sees_what_his_certificate_may_use(portal: Portal) -> None:
    daemon, papers = portal.daemon.start(), portal.papers
    dev1, dev2 = papers.dev, papers.clients.issue("dev2", usage="client")
    runs = daemon.wait_for_log("natproxy runs", portal=6378)
    assert runs["admin"].startswith("127.")
    eventually(lambda: len(daemon.routes()) >= 6, "AWS has answered")
    whole = daemon.document()
    document = portal.directory(dev1)
    assert (document.public_host, document.certificate) == (HOST, "dev1")
    assert [cache.id for cache in document.caches] == ["my-redis", "mc"]
    for told, known in zip(document.caches, whole.caches, strict=False):
        assert [(one.port, one.kind, one.node, one.tls) for one in told.routes] == [
            (one.port, one.kind, one.node, one.tls) for one in known.routes
        ]
    assert [cache.id for cache in portal.directory(dev2).caches] == ["mc", "theirs"]
    raw = portal.get(dev1)[1]
    for secret in ("theirs", "amazonaws", "127.0.0.1", str(FIRST_PORT + 200)):
        assert secret not in raw
    for path in ("/caches/my-redis", "/snippets/my-redis", "/snippets/my-redis?client=redis-cli"):
        status, text = portal.get(dev1, path)
        assert (status, HOST in text) == (200, True), path
        strange, unknown = portal.get(dev2, path), portal.get(dev2, path.replace("my-redis", "none-such"))
        assert strange == unknown
        assert strange[0] == 404
    for path in ("/metrics", "/routes", "/status", "/healthz"):
        assert portal.get(dev1, path) == (404, "not found\n")
    assert portal.refusal(dev1, source="127.0.0.2") == "cut"
    daemon.wait_for_metric(1, "natproxy_portal_refusals_total", reason="network")
    assert daemon.metric("natproxy_portal_requests_total", code="200") == 6
    assert daemon.metric("natproxy_portal_requests_total", code="404") == 10


def test_who_is_revoked_is_cut_off_and_told(portal: Portal) -> None:
    daemon, papers = portal.daemon.start(), portal.papers
    dev2 = papers.clients.issue("dev2", usage="client")
    with portal.talk(papers.dev) as revoked, portal.talk(dev2) as other:
        for talk in (revoked, other):
            talk.say(REQUEST)
            assert talk.hear(12) == b"HTTP/1.1 200"
        papers.crl.write_bytes(papers.clients.crl([papers.dev]))  # no reload: the file is watched
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            while revoked.receive(1 << 16):
                pass
        other.say(REQUEST)
        while b"dev2" not in other.receive(1 << 16):
            pass
    assert portal.refusal(papers.dev) == "CERTIFICATE_REVOKED"
    assert portal.refusal(None) == "CERTIFICATE_REQUIRED"
    assert portal.refusal(papers.nodes.issue("dev1", usage="client")) == "UNKNOWN_CA"
    fresh = papers.new_server()
    fresh.write(papers.directory)
    daemon.reload()
    with portal.talk(dev2) as talk:
        shown = talk.tls.getpeercert()
        assert shown is not None
        assert int(str(shown["serialNumber"]), 16) == fresh.serial


def test_a_reload_leaves_the_portal_as_it_is(portal: Portal) -> None:
    daemon, papers = portal.daemon.start(), portal.papers
    daemon.config["portal"] = {"port": 16378}
    daemon.config["admin"]["allow"] = ["192.0.2.1"]
    daemon.write()
    done = daemon.cli("reload")
    assert done.returncode == 0
    assert "only taken up by a restart: admin.allow, portal\n" in done.stderr
    assert portal.get(papers.dev)[0] == 200
    del daemon.config["portal"], daemon.config["tls"]["client_ca"], daemon.config["tls"]["crl"]
    daemon.config["clients"] = {"allow": ["127.0.0.0/8"]}
    for entry in (*daemon.config["caches"], *daemon.config["static"]):
        entry.pop("clients", None)
    daemon.write()
    done = daemon.cli("reload")
    assert done.returncode == 1
    assert "portal: needs tls.certificate, tls.key and tls.client_ca" in done.stdout + done.stderr
    assert portal.get(papers.dev)[0] == 200


def test_a_taken_port_is_told_at_the_start(portal: Portal) -> None:
    with socket.create_server((portal.daemon.ip, PORTAL_PORT)):
        portal.daemon.start(is_ready=False)
        assert portal.daemon.wait() == 1
    said = json.dumps(portal.daemon.log.all()) + "".join(portal.daemon.strange_lines)
    assert f"cannot open the portal: port {PORTAL_PORT} cannot be opened on {portal.daemon.ip}" in said
    portal.daemon.strange_lines.clear()


def test_whoever_besets_the_portal_stops_neither_it_nor_discovery(portal: Portal, paper_cloud: Cloud) -> None:
    portal.daemon.config["portal"] = {}
    daemon, papers = portal.daemon.start(), portal.papers
    eventually(lambda: len(daemon.routes()) >= 6, "AWS has answered")
    known = set(daemon.routes())
    slow = [connect(daemon.ip, PORTAL_PORT, source=f"127.0.9.{number % 5 + 1}") for number in range(400)]
    for talk in slow[::3]:
        with contextlib.suppress(OSError):
            talk.say(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a handshake, and no more
    for talk in slow[1::3]:
        with contextlib.suppress(OSError):
            talk.say(b"GET / HTTP/1.1\r\n" + b"x" * 5000)
    idle = _idle(portal, 20)
    paper_cloud.add_replica("my-redis")
    eventually(lambda: set(daemon.routes()) > known, "discovery goes on")
    assert portal.get(papers.dev)[0] == 200
    assert daemon.get("/healthz")[0] == 200
    assert daemon.metric("natproxy_portal_refusals_total", reason="limit") > 100
    daemon.wait_for_metric(0, "natproxy_connections_open")
    for talk in (*slow, *idle):
        talk.close()
    assert not [line for line in daemon.log.all() if line["level"] in ("warning", "error") and "portal" in str(line)]


def _idle(portal: Portal, number: int) -> list[Talk]:
    """Hold connections open with half a request on each."""
    talks: list[Talk] = []
    for _ in range(number):
        talk = portal.talk(portal.papers.dev)
        talk.say(b"GET /directory HTTP/1.1\r\nHo")
        talks.append(talk)
    return talks
