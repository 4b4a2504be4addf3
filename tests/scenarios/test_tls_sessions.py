"""Sessions are resumed with nodes, and with clients where no certificate is asked of them: none is looked at then."""

from __future__ import annotations

import ssl
import subprocess

import pytest

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon
from tests.scenarios.peers import connect
from tests.scenarios.tlspeers import NODE_HOST, Papers, TlsNode, Version, prepare_tls, secure
from tests.scenarios.waiting import eventually

PORT, NODE_PORT = FIRST_PORT, FIRST_PORT + 1
both_versions = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])


@pytest.fixture(scope="module", params=[False, True], ids=["without client_ca", "with client_ca"])
def door(request: pytest.FixtureRequest, module_natproxy: Natproxies, echo: str) -> tuple[Daemon, Papers, bool]:
    daemon, papers = prepare_tls(module_natproxy, client_ca=request.param)
    daemon.config["static"] = [{"name": "a", "port": PORT, "target": echo}]
    return daemon.start(), papers, not request.param


@both_versions
def test_a_client_gets_a_ticket_only_where_no_certificate_is_asked_of_it(
    door: tuple[Daemon, Papers, bool], version: Version
) -> None:
    daemon, papers, may_resume = door
    context = papers.client(papers.dev, version=version)
    with secure(daemon.ip, PORT, context) as first:
        assert first.echoes()
        session = first.tls.session
        assert not first.tls.session_reused
    assert session is not None
    assert session.has_ticket is may_resume
    with secure(daemon.ip, PORT, context, session=session) as again:
        # TLS 1.2 also knows sessions without tickets, and Python's ssl cannot switch them off.
        assert again.tls.session_reused is may_resume or version == "TLSv1.2"
        assert again.echoes()
    if may_resume:
        resumed = {"side": "client", "version": version, "resumed": "true"}
        eventually(lambda: daemon.metric("natproxy_tls_sessions_total", **resumed) >= 1, "it is counted")


def test_openssl_resumes_its_session(door: tuple[Daemon, Papers, bool]) -> None:
    daemon, papers, may_resume = door
    certificate, key = papers.write(papers.dev)
    kept = papers.directory / "session.pem"
    argv = ["openssl", "s_client", "-connect", f"{daemon.ip}:{PORT}", "-cert", str(certificate), "-key", str(key)]
    first = s_client([*argv, "-sess_out", str(kept)])
    assert b"are you there?" in first
    assert kept.exists() is may_resume
    if may_resume:
        assert b"Reused, TLSv1.3" in s_client([*argv, "-sess_in", str(kept)])


def s_client(argv: list[str]) -> bytes:
    """Return what openssl says of a connection whose echo it has heard."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"are you there?\n")
        client.stdin.flush()
        said = b""
        while not said.endswith(b"\nare you there?\n") and (line := client.stdout.readline()):
            said += line
        client.stdin.close()
        return said + client.stdout.read()


@both_versions
def test_sessions_with_a_node_are_resumed_and_its_certificate_is_looked_at_again_when_it_changes(
    natproxy: Natproxies, version: Version
) -> None:
    daemon, papers = prepare_tls(natproxy)
    with TlsNode(papers.node_side(version=version)) as node:
        daemon.config["static"] = [
            {
                "name": "a",
                "port": NODE_PORT,
                "target": node.target,
                "clients": {"tls": "off"},
                "nodes": papers.tls_node(),
            }
        ]
        daemon.start()

        def is_resumed() -> bool:
            with connect(daemon.ip, NODE_PORT) as talk, node.accept() as peer:
                talk.say(b"hello")
                assert peer.hear(5) == b"hello"
                peer.say(b"hello yourself")
                assert talk.hear(14) == b"hello yourself"
                return bool(peer.tls.session_reused)

        assert not is_resumed()
        assert is_resumed()
        assert is_resumed()
        resumed = {"side": "node", "version": version, "resumed": "true"}
        eventually(lambda: daemon.metric("natproxy_tls_sessions_total", **resumed) == 2, "it is counted")

        node.context = papers.node_side(version=version)
        assert not is_resumed(), "a node that was started anew knows no session, and is none the worse"
        assert is_resumed()

        other = papers.nodes.issue("other", dns=["other.example.com"])
        node.context = papers.node_side(other, version=version)
        with connect(daemon.ip, NODE_PORT) as talk:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                node.accept()
            assert talk.ended() in ("eof", "reset")
        line = daemon.wait_for_log("connection ended", outcome="node-handshake")
        assert NODE_HOST in line["detail"]
        node.context = papers.node_side(version=version)
        assert not is_resumed(), "what failed is forgotten"
