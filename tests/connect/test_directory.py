from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from natproxy.connect.directory import MOST_BYTES, Directory, fetch
from natproxy.connect.faults import Attempt, RefusedError
from natproxy.connect.papers import Papers, read_papers
from natproxy.errors import PortalError, PortalUnreachableError
from tests.connect.bundles import bundle_of
from tests.standins.certificates import Authority, Issued
from tests.standins.portal import Portal

IP = "127.0.0.1"
SECONDS = 5.0


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def dev(ca: Authority) -> Issued:
    return ca.issue("dev1", usage="client")


@pytest.fixture
def papers(tmp_path: Path, ca: Authority, dev: Issued) -> Papers:
    return read_papers(bundle_of(tmp_path / "dev1.zip", ca, dev), time.time())


@pytest.fixture
def portal(ca: Authority) -> Iterator[Portal]:
    with Portal(IP, ca) as made:
        yield made


def ask(port: int, papers: Papers, host: str = IP, seconds: float = SECONDS) -> Directory:
    attempt = Attempt(host, port, papers.name, papers.expires_on, papers.host)
    return fetch(attempt, papers.context(), seconds)


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[int]:
    """Say something to whoever comes, and close."""
    with socket.create_server((IP, 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError), listening.accept()[0] as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1000):
                    pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_the_directory_of_one_certificate(portal: Portal, papers: Papers) -> None:
    portal.document |= {
        "public_host": "cache.example.com",
        "certificate": "dev1",
        "caches": [{"id": "my-redis", "routes": [{"port": 6379, "kind": "primary", "state": "open", "new": 1}]}],
    }
    found = ask(portal.port, papers)
    assert found.addresses == (IP,)
    assert (found.document.certificate, found.document.caches[0].routes[0].port) == ("dev1", 6379)
    assert portal.asked == ["/directory"]


def test_a_name_has_several_addresses_and_the_one_that_answered_is_first(ca: Authority, papers: Papers) -> None:
    with Portal(IP, ca, certificate=ca.issue("natproxy", dns=["localhost"])) as portal:
        found = ask(portal.port, papers, "localhost")
    assert found.addresses[0] == IP


def refused(port: int, papers: Papers, match: str, kind: type[PortalError], host: str = IP) -> None:
    with pytest.raises(PortalError, match=match) as caught:
        ask(port, papers, host)
    assert type(caught.value) is kind


def test_a_certificate_that_is_not_let_in(portal: Portal, papers: Papers, dev: Issued) -> None:
    portal.revoke(dev)
    refused(portal.port, papers, "the certificate of dev1 has been revoked", RefusedError)


def test_a_certificate_of_another_ca_or_an_expired_one(portal: Portal, ca: Authority, tmp_path: Path) -> None:
    stranger = Authority("Other CA").issue("dev1", usage="client")
    other = read_papers(bundle_of(tmp_path / "other.zip", ca, stranger), time.time())
    refused(portal.port, other, "natproxy does not know the CA that issued", RefusedError)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    old = ca.issue("dev1", usage="client", not_after=yesterday)
    expired = read_papers(bundle_of(tmp_path / "old.zip", ca, old), time.time() - 86400 - 60)
    refused(portal.port, expired, "takes the certificate of dev1 for expired", RefusedError)


def test_a_server_that_is_not_to_be_trusted(ca: Authority, papers: Papers) -> None:
    with Portal(IP, ca, certificate=ca.issue("other", dns=["other.example.com"])) as wrong:
        refused(wrong.port, papers, "natproxy connect cache.example.com", PortalUnreachableError)
    with Portal(IP, Authority("Other CA")) as foreign:
        refused(foreign.port, papers, "does not vouch for the certificate", PortalUnreachableError)
    old = ca.issue("natproxy", ips=[IP], not_after=datetime.now(UTC) - timedelta(hours=1))
    with Portal(IP, ca, certificate=old) as expired:
        refused(expired.port, papers, "natproxy's own certificate .* has expired", PortalUnreachableError)


def test_nobody_there(papers: Papers) -> None:
    with socket.create_server((IP, 0)) as gone:
        port = gone.getsockname()[1]
    refused(port, papers, f"nobody listens on {IP}:{port}", PortalUnreachableError)
    refused(6378, papers, "cannot be resolved|there is no host", PortalUnreachableError, "no-such-host.invalid")
    refused(6378, papers, "cannot be resolved|there is no host", PortalUnreachableError, "a" * 70 + ".example")


def test_who_does_not_answer_is_not_waited_for_without_end(papers: Papers) -> None:
    with socket.create_server((IP, 0)) as silent, pytest.raises(PortalUnreachableError, match="does not answer: is"):
        ask(silent.getsockname()[1], papers, seconds=0.2)


@pytest.mark.parametrize(
    ("data", "match"),
    [(b"", "without a word"), (b"-ERR unknown command\r\n" * 10, "does not speak TLS")],
)
def test_what_is_no_portal_at_all(papers: Papers, data: bytes, match: str) -> None:
    with answering(data) as port:
        refused(port, papers, match, PortalError)


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (404, b"", "answers HTTP 404"),
        (403, b"", "does not let the certificate of dev1 in"),
        (200, b"hello", "it answers no directory"),
        (200, b"[]", "it answers no directory"),
        (200, b"[" * 100_000, "it answers no directory"),
        (200, json.dumps({"version": 1, "caches": 7, "generated": ""}).encode(), "it answers no directory"),
        (200, b'{"version": 2, "caches": "otherwise"}', "answers in version 2, and this natproxy reads 1"),
        (200, b" " * (MOST_BYTES + 1), "more than"),
    ],
)
def test_an_answer_that_is_no_directory(portal: Portal, papers: Papers, status: int, body: bytes, match: str) -> None:
    portal.status, portal.body = status, body
    refused(portal.port, papers, match, RefusedError if status == 403 else PortalError)


def test_a_verdict_that_comes_before_the_question_is_heard(portal: Portal, papers: Papers, dev: Issued) -> None:
    """The server is gone with its alert said, and whoever asks then is told of a broken pipe first."""

    class Late(ssl.SSLSocket):
        def sendall(self, data: Any, flags: int = 0) -> None:
            assert select.select([self], [], [], 20)[0]
            for _ in range(3):  # the first piece that finds nobody there is answered by a reset
                super().sendall(data[:1])
                threading.Event().wait(0.05)

    portal.revoke(dev)
    context = papers.context()
    context.sslsocket_class = Late
    with pytest.raises(PortalError, match="has been revoked"):
        fetch(Attempt(IP, portal.port, "dev1"), context, SECONDS)


def test_the_same_is_said_in_tls_1_2(portal: Portal, papers: Papers, dev: Issued) -> None:
    portal.revoke(dev)
    context = papers.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(PortalError, match="has been revoked"):
        fetch(Attempt(IP, portal.port, "dev1"), context, SECONDS)


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"caches": [{"id": "c", "routes": [{"port": -5, "kind": "primary", "state": "open"}]}]}, "port -5"),
        ({"caches": [{"id": "c", "routes": [{"port": 2**70, "kind": "primary", "state": "open"}]}]}, f"port {2**70}"),
        ({"public_host": "h" * 254}, "a host name of 254 characters"),
        ({"public_ip": "1" * 254}, "a host name of 254 characters"),
    ],
    ids=["negative", "huge", "host", "ip"],
)
def test_what_no_natproxy_tells_of_is_not_taken_up(
    portal: Portal, papers: Papers, told: dict[str, Any], match: str
) -> None:
    portal.document |= told
    with pytest.raises(PortalError, match=f"is not natproxy's portal: it tells of {match}"):
        ask(portal.port, papers)


@pytest.mark.parametrize(
    ("beginning", "again"),
    [(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 200 OK\r\n", b"X"), (b"HTTP/1.1 200 OK\r\n\r\n", b" ")],
    ids=["continue", "header", "body"],
)
def test_an_answer_without_end_is_cut_short(ca: Authority, papers: Papers, beginning: bytes, again: bytes) -> None:
    with Portal(IP, ca, talk=trickle(beginning, again)) as portal, pytest.raises(PortalUnreachableError, match="well"):
        ask(portal.port, papers, seconds=0.3)


def trickle(beginning: bytes, again: bytes) -> Callable[[ssl.SSLSocket], None]:
    """Say one thing, then another for as long as somebody listens, or for longer than the test waits."""

    def talk(tls: ssl.SSLSocket) -> None:
        tls.recv(1000)
        tls.sendall(beginning)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            tls.sendall(again)
            time.sleep(0.01)

    return talk
