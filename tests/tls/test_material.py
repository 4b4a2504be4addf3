"""The files: who may read them, what is in them, and who is blamed."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.errors import TlsError
from natproxy.messages import ServerTls
from natproxy.tls.contexts import server_context
from natproxy.tls.material import MAX_BYTES, Expiry, MaterialError, expiries, load_ca, load_server, unnamed
from tests.tls.handshakes import shake
from tests.tls.samples import CLIENTS, DAY, DEV1, HOST, IP, NOW, OTHERS, OWN, SERVERS, peer, weak

CRL = CLIENTS.crl([DEV1])


class Files:
    """Good files in a directory, one of which a test makes bad."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate, self.key = OWN.write(directory, "server")
        self.client_ca, self.crl = directory / "clients.crt", directory / "clients.crl"
        self.client_ca.write_bytes(CLIENTS.pem)
        self.crl.write_bytes(CRL)

    def load(self, min_version: str = "1.2") -> ServerTls:
        return load_server(self.certificate, self.key, self.client_ca, self.crl, min_version)

    def refusal(self) -> MaterialError:
        with pytest.raises(MaterialError) as caught:
            self.load()
        assert str(caught.value).isprintable()
        assert "PRIVATE KEY-----" not in str(caught.value)
        return caught.value


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_good_files_make_a_server(files: Files) -> None:
    server = files.load("1.3")
    assert (server.certificate, server.key, server.client_ca, server.min_version) == (
        OWN.certificate, OWN.key, CLIENTS.pem, "1.3",
    )  # fmt: skip
    one, _ = shake(server_context(server), peer(is_server=False, shows=CLIENTS.issue("dev2", usage="client")))
    assert one.is_done
    assert unnamed(server, [HOST, IP, "x"]) == ("x",)
    assert [expiry.use for expiry in expiries(server, {})] == ["certificate", "client_ca", "crl"]
    assert isinstance(expiries(server, {})[0], Expiry)


def test_what_is_optional_may_be_missing(files: Files) -> None:
    server = load_server(files.certificate, files.key, None, None, "1.2")
    assert (server.client_ca, server.crl) == (None, None)
    server = load_server(files.certificate, files.key, files.client_ca, None, "1.2")
    assert server.crl is None


def test_a_list_without_a_ca_is_refused(files: Files) -> None:
    with pytest.raises(MaterialError, match="means nothing without client_ca") as caught:
        load_server(files.certificate, files.key, None, files.crl, "1.2")
    assert caught.value.key == "crl"


def test_expired_and_early_certificates_and_lists_are_loaded(files: Files) -> None:
    for begin, end in ((NOW - 2 * DAY, NOW - DAY), (NOW + DAY, NOW + 2 * DAY)):
        SERVERS.issue(HOST, dns=[HOST], not_before=begin, not_after=end).write(files.directory, "server")
        files.crl.write_bytes(CLIENTS.crl(this_update=begin, next_update=end))
        ends = {expiry.use: expiry.expires for expiry in expiries(files.load(), {})}
        assert ends["certificate"] == ends["crl"] == int(end.timestamp())


def test_a_server_and_its_parts_are_not_shown(files: Files) -> None:
    assert "KEY" not in repr(files.load())


def test_certificate_and_key_may_be_one_file(files: Files) -> None:
    both = files.directory / "both.pem"
    both.touch(0o600)
    both.write_bytes(OWN.key + OWN.certificate)
    server = load_server(both, both, None, None, "1.2")
    assert (server.certificate, server.key) == (OWN.certificate, OWN.key)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o440, 0o700, 0o650])
def test_modes_a_key_may_have(files: Files, mode: int) -> None:
    files.key.chmod(mode)
    files.load()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666, 0o660, 0o620, 0o642, 0o777])
def test_modes_a_key_may_not_have(files: Files, mode: int) -> None:
    files.key.chmod(mode)
    refusal = files.refusal()
    assert refusal.key == "key"
    assert str(files.key) in str(refusal)
    assert f"its mode {mode:04o} lets" in str(refusal)


def test_it_is_the_file_s_mode_that_counts_not_the_link_s(files: Files) -> None:
    link = files.directory / "link.key"
    link.symlink_to(files.key)
    load_server(files.certificate, link, None, None, "1.2")
    files.key.chmod(0o644)
    with pytest.raises(MaterialError, match="0644"):
        load_server(files.certificate, link, None, None, "1.2")


def test_a_key_that_lies_in_another_file_is_seen_too(files: Files) -> None:
    files.certificate.write_bytes(OWN.certificate + OWN.key)
    files.certificate.chmod(0o644)
    refusal = files.refusal()
    assert refusal.key == "certificate"
    assert "there is a key in it" in str(refusal)
    files.certificate.chmod(0o640)
    assert files.load().certificate == OWN.certificate


KEYS = ["certificate", "key", "client_ca", "crl"]


@pytest.mark.parametrize("key", KEYS)
def test_a_file_that_is_not_there(files: Files, key: str) -> None:
    path: Path = getattr(files, key)
    path.unlink()
    refusal = files.refusal()
    assert (refusal.key, str(refusal)) == (key, f"{path}: it cannot be read: No such file or directory")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", ["directory", "pipe", "socket", "device"])
def test_what_is_no_file(files: Files, key: str, kind: str) -> None:
    path: Path = getattr(files, key)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        if kind == "directory":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)  # nobody writes to it: a plain open would wait for ever
        elif kind == "socket":
            sock.bind(str(path))
        else:
            path.symlink_to("/dev/zero")
        refusal = files.refusal()
    assert refusal.key == key
    assert str(refusal).startswith(f"{path}: it ")


@pytest.mark.parametrize("key", KEYS)
def test_a_file_that_is_too_large(files: Files, key: str) -> None:
    path: Path = getattr(files, key)
    content = path.read_bytes()
    path.write_bytes(content + b"\n" * (MAX_BYTES - len(content)))
    files.load()
    with path.open("ab") as file:
        file.write(b"\n")
    refusal = files.refusal()
    assert refusal.key == key
    assert "it is larger than 1048576 bytes" in str(refusal)


@pytest.mark.root
def test_a_file_that_this_user_may_not_read(files: Files) -> None:
    files.directory.chmod(0o755)
    files.key.chmod(0o600)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for parent in (files.directory, *files.directory.parents):
                if parent != Path("/") and parent.stat().st_mode & 0o005 != 0o005:
                    parent.chmod(0o755)
            os.setresuid(65534, 65534, 65534)
            files.load()
        except MaterialError as error:
            status = 0 if error.key == "key" and "Permission denied" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("path", [Path("/nowhere/\0"), Path("/" + "x" * 300)])
def test_a_path_that_cannot_be(path: Path) -> None:
    with pytest.raises(MaterialError, match="it cannot be read"):
        load_ca(path)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100, b"-----BEGIN CERTIFICATE-----\n"])
def test_a_file_that_holds_something_else(files: Files, key: str, content: bytes) -> None:
    path: Path = getattr(files, key)
    path.write_bytes(content)
    refusal = files.refusal()
    assert refusal.key == key
    assert str(refusal).startswith(f"{path}: there is no ")


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("certificate", SERVERS.pem + OWN.certificate, "did not issue the one before it"),
        ("certificate", OWN.certificate + OTHERS.pem, "did not issue the one before it"),
        ("certificate", SERVERS.issue(HOST, usage="client").certificate, "is not for servers"),
        ("key", OTHERS.issue("x").key, "the key does not belong to the certificate"),
        ("key", OWN.key * 2, "there are 2 private keys in it"),
        ("client_ca", OWN.certificate, "is not that of a CA"),
        ("crl", OTHERS.crl(), "which is none of the CAs in client_ca"),
        ("crl", CLIENTS.crl() + OTHERS.crl(), "which is none of the CAs in client_ca"),
    ],
)
def test_files_that_do_not_fit(files: Files, key: str, content: bytes, message: str) -> None:
    path: Path = getattr(files, key)
    path.write_bytes(content)
    refusal = files.refusal()
    assert refusal.key == key
    assert str(refusal).startswith(f"{path}: ")
    assert message in str(refusal)


@pytest.mark.parametrize("kind", ["key", "signature"])
def test_a_weak_certificate_of_ours(files: Files, kind: str) -> None:
    weak(kind, "server").write(files.directory, "server")
    refusal = files.refusal()
    assert refusal.key == "certificate"
    assert "the certificate is too weak" in str(refusal)


def test_the_cas_of_nodes(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_bytes(b"# words\n" + SERVERS.pem + OTHERS.pem)
    path.chmod(0o644)
    assert load_ca(path) == SERVERS.pem + OTHERS.pem
    path.write_bytes(OWN.certificate)
    with pytest.raises(MaterialError, match="is not that of a CA") as caught:
        load_ca(path)
    assert caught.value.key == "ca"
    assert isinstance(caught.value, TlsError)


def test_every_certificate_of_the_system_s_roots_is_a_ca(tmp_path: Path) -> None:
    roots = ssl.get_default_verify_paths().cafile
    if roots is not None:
        load_ca(Path(roots))


@given(key=st.sampled_from(KEYS), data=st.data())
def test_nothing_but_an_error_comes_of_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, key: str, data: st.DataObject
) -> None:
    files = Files(tmp_path_factory.mktemp("damaged"))
    path: Path = getattr(files, key)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(MaterialError):
        files.load()
