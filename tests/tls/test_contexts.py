"""Both kinds of context: what they load, what they refuse, what they speak with real peers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from natproxy.errors import TlsError
from natproxy.messages import ClientTls, ServerTls
from natproxy.tls.contexts import node_context, server_context
from tests.standins.certificates import Authority
from tests.tls.handshakes import Side, fed, pump, shake
from tests.tls.samples import CLIENTS, DEV1, HOST, IP, NODE, OTHERS, OWN, SERVERS, VERSIONS, own, peer, proxy, weak

both_versions = pytest.mark.parametrize("version", VERSIONS)


def is_welcome(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None) -> bool:
    one, other = shake(server, client, name)
    assert (one.error is None) == (other.error is None)
    return one.is_done and one.error is None


@both_versions
def test_a_client_is_spoken_to_with_today_s_ciphers(version: str) -> None:
    server, _ = shake(proxy(), peer(is_server=False, trusts=SERVERS.pem, version=version))
    assert server.tls.version() == f"TLSv{version}"
    cipher = server.tls.cipher()
    assert cipher is not None
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]
    assert server.tls.compression() is None


def test_nothing_old_is_offered() -> None:
    for context in (proxy(), node_context(SERVERS.pem)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        names = {cipher["name"] for cipher in context.get_ciphers()}
        assert {name for name in names if not name.startswith(("ECDHE-", "TLS_"))} == set()
        assert {name for name in names if not any(good in name for good in ("GCM", "CHACHA20"))} == set()
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.security_level == 2
    assert proxy(min_version="1.3").minimum_version is ssl.TLSVersion.TLSv1_3


@both_versions
def test_the_proxy_s_chain_verifies_with_no_tricks(version: str) -> None:
    between = Authority("Issuing CA", parent=SERVERS)
    issued = between.issue(HOST, dns=[HOST], ips=[IP])
    client = node_context(SERVERS.pem)
    client.minimum_version = client.maximum_version = VERSIONS[version]
    context = server_context(own(issued=issued))
    assert is_welcome(context, client, HOST)
    assert is_welcome(context, client, IP)


@both_versions
def test_only_who_the_client_ca_vouches_for_comes_in(version: str) -> None:
    context = proxy(CLIENTS.pem, CLIENTS.crl())
    assert is_welcome(context, peer(is_server=False, shows=DEV1, version=version))
    assert not is_welcome(context, peer(is_server=False, shows=OTHERS.issue("dev1", usage="client"), version=version))
    assert not is_welcome(context, peer(is_server=False, version=version))


def test_nobody_is_asked_for_a_certificate_without_a_client_ca() -> None:
    server, _ = shake(proxy(), peer(is_server=False, shows=DEV1))
    assert server.tls.getpeercert(binary_form=True) is None


@both_versions
def test_an_intermediate_may_be_all_that_is_trusted(version: str) -> None:
    between = Authority("Issuing CA", parent=CLIENTS)
    context = proxy(between.pem, between.crl())
    assert is_welcome(context, peer(is_server=False, shows=between.issue("dev1", usage="client"), version=version))
    assert not is_welcome(context, peer(is_server=False, shows=DEV1, version=version))


@both_versions
def test_below_an_intermediate_its_own_revocation_list_counts(version: str) -> None:
    between = Authority("Issuing CA", parent=CLIENTS)
    dev2 = peer(is_server=False, shows=between.issue("dev2", usage="client"), version=version)
    assert is_welcome(proxy(CLIENTS.pem, between.crl()), dev2)
    assert not is_welcome(proxy(CLIENTS.pem, CLIENTS.crl()), dev2)  # the root's list does not tell


def test_a_certificate_among_the_revocation_lists_is_not_trusted() -> None:
    context = proxy(CLIENTS.pem, CLIENTS.crl() + OTHERS.pem + OTHERS.crl())
    assert not is_welcome(context, peer(is_server=False, shows=OTHERS.issue("dev1", usage="client")))


def test_several_cas_and_words_between_them() -> None:
    context = proxy("# Médecins\n".encode() + CLIENTS.pem + b"\n# other\n" + OTHERS.pem)
    for ca in (CLIENTS, OTHERS):
        assert is_welcome(context, peer(is_server=False, shows=ca.issue("dev1", usage="client")))


def test_sessions_are_resumed_where_nobody_shows_a_certificate() -> None:
    for version in VERSIONS:
        context, client = proxy(), peer(is_server=False, version=version)
        _, first = shake(context, client)
        again, _ = shake(context, client, session=first.tls.session)
        assert again.tls.session_reused, version


def test_no_tickets_are_given_where_a_certificate_is_shown() -> None:
    context, client = proxy(CLIENTS.pem), peer(is_server=False, shows=DEV1, version="1.3")
    _, first = shake(context, client)
    session = first.tls.session
    assert session is None or not session.has_ticket
    client = peer(is_server=False, shows=DEV1, version="1.2")
    _, first = shake(context, client)
    session = first.tls.session
    assert session is not None
    assert not session.has_ticket


def test_a_client_cannot_renegotiate() -> None:
    hello = fed(peer(is_server=False, version="1.2"), b"", is_server=False).outgoing.read()
    assert hello
    with served(proxy()) as port:
        asked = s_client(port, "-tls1_2", text="R\n")
    assert "no renegotiation" in asked.lower() or "unsafe legacy" in asked.lower(), asked


@both_versions
def test_a_node_that_asks_is_shown_what_is_natproxy_s_own(version: str) -> None:
    context = node_context(SERVERS.pem, ClientTls(DEV1.certificate, DEV1.key))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    node, ours = shake(proxy(CLIENTS.pem), context, HOST)
    assert (node.error, ours.error) == (None, None)
    assert node.tls.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(DEV1.certificate.decode())
    assert not is_welcome(proxy(CLIENTS.pem), node_context(SERVERS.pem), HOST)


def test_what_is_natproxy_s_own_has_to_fit_together() -> None:
    with pytest.raises(TlsError, match="the key does not belong to the certificate"):
        node_context(SERVERS.pem, ClientTls(DEV1.certificate, OWN.key))
    assert repr(ClientTls(DEV1.certificate, DEV1.key)) == "<ClientTls>"


@both_versions
def test_a_node_is_verified_by_name(version: str) -> None:
    node = peer(is_server=True, shows=SERVERS.issue(NODE, dns=[NODE], ips=["10.0.1.220"]), version=version)
    assert is_welcome(node, node_context(SERVERS.pem), NODE)
    assert is_welcome(node, node_context(SERVERS.pem), "10.0.1.220")
    assert not is_welcome(node, node_context(SERVERS.pem), "other.example.com")
    assert not is_welcome(node, node_context(OTHERS.pem), NODE)
    assert is_welcome(node, node_context(OTHERS.pem + SERVERS.pem), NODE)


def test_a_node_s_wildcard_certificate() -> None:
    node = peer(is_server=True, shows=SERVERS.issue(None, dns=["*.abc.0001.euw1.cache.example.com"]))
    assert is_welcome(node, node_context(SERVERS.pem), NODE)
    assert not is_welcome(node, node_context(SERVERS.pem), f"a.{NODE}")


@both_versions
def test_sessions_are_resumed_towards_a_node(version: str) -> None:
    node = peer(is_server=True, shows=SERVERS.issue(NODE, dns=[NODE]), version=version)
    context = node_context(SERVERS.pem)
    _, first = shake(node, context, NODE)
    _, again = shake(node, context, NODE, first.tls.session)
    assert again.tls.session_reused


def test_the_system_s_roots_vouch_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(SERVERS.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    node = peer(is_server=True, shows=SERVERS.issue(NODE, dns=[NODE]))
    assert is_welcome(node, node_context(None), NODE)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert not is_welcome(node, node_context(None), NODE)


def locked(form: serialization.PrivateFormat) -> bytes:
    key = serialization.load_pem_private_key(OWN.key, None)
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret"))


OTHER_KEY = OTHERS.issue("x").key
BROKEN = b"-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"
BAD_SERVERS = [
    (own(min_version="1.1"), "'1.1' is not a TLS version"),
    (msgspec.structs.replace(own(), certificate=b""), "there is no certificate in it"),
    (msgspec.structs.replace(own(), certificate=BROKEN), "the certificate or its key cannot be used"),
    (msgspec.structs.replace(own(), key=b""), "there is no private key in it"),
    (msgspec.structs.replace(own(), key=OWN.certificate), "there is no private key in it"),
    (msgspec.structs.replace(own(), key=OTHER_KEY), "the key does not belong to the certificate"),
    (msgspec.structs.replace(own(), key=SERVERS.issue("x", key="rsa2048").key), "does not belong to the certificate"),
    (msgspec.structs.replace(own(), key=OWN.key.replace(b"\nM", b"\nX", 1)), "cannot be used"),
    (msgspec.structs.replace(own(), key=locked(serialization.PrivateFormat.PKCS8)), "the key is encrypted"),
    (
        msgspec.structs.replace(own(), key=locked(serialization.PrivateFormat.TraditionalOpenSSL)),
        "the key is encrypted",
    ),
    (own(issued=weak("key", "server")), "too weak"),
    (own(issued=weak("signature", "server")), "too weak"),
    (own(b"hello"), "there is no CA certificate in it"),
    (own(BROKEN), "a CA certificate cannot be read"),
    (own(CLIENTS.pem, b"hello"), "there is no revocation list in it"),
    (own(CLIENTS.pem, OTHERS.pem), "there is no revocation list in it"),
    (own(CLIENTS.pem, BROKEN.replace(b"CERTIFICATE", b"X509 CRL")), "a revocation list cannot be read"),
    (own(None, CLIENTS.crl()), "means nothing without"),
]


@pytest.mark.parametrize(("server", "message"), BAD_SERVERS)
def test_what_makes_no_server(server: ServerTls, message: str) -> None:
    with pytest.raises(TlsError, match=message) as caught:
        server_context(server)
    assert "_ssl.c" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ca", [b"", b"hello", BROKEN, OWN.key])
def test_what_vouches_for_no_node(ca: bytes) -> None:
    with pytest.raises(TlsError, match="CA certificate"):
        node_context(ca)


@given(st.binary(max_size=200))
def test_nothing_but_an_error_comes_of_garbage(content: bytes) -> None:
    for label in (b"CERTIFICATE", b"PRIVATE KEY", b"X509 CRL"):
        block = b"-----BEGIN " + label + b"-----\n" + content + b"\n-----END " + label + b"-----\n"
        for server in (
            own(block),
            own(CLIENTS.pem, block),
            msgspec.structs.replace(own(), certificate=block),
            msgspec.structs.replace(own(), key=block),
        ):
            with pytest.raises(TlsError):
                server_context(server)


def test_nothing_of_a_key_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for server in (own(CLIENTS.pem, CLIENTS.crl()), BAD_SERVERS[5][0]):
        with contextlib.suppress(TlsError):
            server_context(server)
    assert list(tmp_path.iterdir()) == []
    assert [link for link in links() if "natproxy-tls" in link] == []


def links() -> Iterator[str]:
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            yield str(path.readlink())


def test_a_system_without_files_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert is_welcome(server_context(own(CLIENTS.pem, CLIENTS.crl())), peer(is_server=False, shows=DEV1))
    with pytest.raises(TlsError):
        server_context(BAD_SERVERS[5][0])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(TlsError, match="no room for a private file"):
        server_context(own())


@both_versions
def test_bytes_go_both_ways_and_goodbyes_are_said(version: str) -> None:
    server, client = shake(proxy(), peer(is_server=False, trusts=SERVERS.pem, version=version))
    client.tls.write(b"PING\r\n")
    server.tls.write(b"+PONG\r\n")
    pump(server, client)
    assert (server.received, client.received) == (b"PING\r\n", b"+PONG\r\n")
    assert_goodbye(client, server)


def assert_goodbye(leaving: Side, staying: Side) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        leaving.tls.unwrap()
    staying.incoming.write(leaving.outgoing.read())
    with contextlib.suppress(ssl.SSLZeroReturnError):
        assert staying.tls.read(1) == b""


def test_the_light_modules_do_without_cryptography() -> None:
    code = (
        "import json, sys, natproxy.tls.contexts, natproxy.tls.first_bytes, natproxy.tls.failures;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert {name.partition(".")[0] for name in json.loads(done.stdout)} & {"cryptography", "asyncio"} == set()


@contextlib.contextmanager
def served(context: ssl.SSLContext) -> Iterator[int]:
    """Serve one connection that echoes, on a port that is given."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as tls:
                while data := tls.recv(4096):
                    tls.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(30)


def s_client(port: int, *options: str, text: str) -> str:
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", HOST, *options]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_openssl_as_a_client(option: str, tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(SERVERS.pem)
    certificate, key = DEV1.write(tmp_path, "dev1")
    options = ["-CAfile", str(ca), "-verify_return_error", "-verify_hostname", HOST, option]
    with served(proxy(CLIENTS.pem, CLIENTS.crl())) as port:
        said = s_client(port, *options, "-cert", str(certificate), "-key", str(key), text="PING\n")
    assert "Verify return code: 0 (ok)" in said
    with served(proxy(CLIENTS.pem, CLIENTS.crl())) as port:
        said = s_client(port, *options, "-ign_eof", text="")
    assert "alert" in said


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_openssl_as_a_node(option: str, tmp_path: Path) -> None:
    certificate, key = SERVERS.issue(NODE, dns=[NODE]).write(tmp_path)
    argv = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", str(certificate), "-key", str(key), option]
    node = subprocess.Popen([*argv, "-rev"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert node.stdout is not None
        line = next(line for line in node.stdout if line.startswith("ACCEPT"))
        port = int(line.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
            node_context(SERVERS.pem).wrap_socket(plain, server_hostname=NODE) as tls,
        ):
            tls.sendall(b"hello\n")
            assert tls.recv(100) == b"olleh\n"
    finally:
        os.kill(node.pid, signal.SIGTERM)
        node.communicate(timeout=30)
