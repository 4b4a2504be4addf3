from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from natproxy.pki.bundle import bundle_files, zipped
from natproxy.pki.terms import ServerNames
from tests.pki.samples import LOCAL, PARTS, issue, make
from tests.scenarios.waiting import eventually

IOREDIS = Path(__file__).parents[1] / "clients/node_modules/ioredis"
EXPIRES = datetime(2025, 5, 1, 12, 0, 0, tzinfo=UTC)

needs_redis = pytest.mark.skipif(
    None in (shutil.which("redis-server"), shutil.which("redis-cli")), reason="redis is not installed"
)


def files(host: str = "cache.dev.example.com", portal_port: int = 7000) -> dict[str, bytes]:
    return bundle_files("dev1", host, portal_port, EXPIRES, certificate=b"certificate", key=b"key", ca=b"ca")


def lines_for(readme: str, program: str) -> str:
    """Return the indented lines of a README's section."""
    (section,) = [part for part in readme.split("\n\n\n") if part.startswith(program)]
    return textwrap.dedent("".join(line for line in section.splitlines(keepends=True)[1:] if line[:4].isspace()))


# --- what is in it


def test_the_parts() -> None:
    assert sorted(files()) == PARTS
    assert [files()[name] for name in ("client.crt", "client.key", "ca.crt")] == [b"certificate", b"key", b"ca"]


def test_the_manifest() -> None:
    assert json.loads(files()["manifest.json"]) == {
        "version": 1,
        "name": "dev1",
        "host": "cache.dev.example.com",
        "portal_port": 7000,
        "expires": "2025-05-01T12:00:00Z",
    }


def test_the_readme_fits_on_a_screen_and_names_all_files() -> None:
    readme = files()["README.txt"].decode("ascii")
    assert readme.startswith("dev1's access to the caches behind cache.dev.example.com, until 2025-05-01\n")
    assert max(map(len, readme.splitlines())) <= 120
    for name in PARTS[1:]:
        assert readme.count(name) >= 2 or name == "manifest.json"
    for heading in ("Without TLS", "Directly", "redis-cli", "redis-py", "ioredis", "openssl", "When it does not work"):
        assert f"\n{heading}" in readme


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("a.example.com", "-connect a.example.com:6379 -servername a.example.com -verify_hostname a.example.com"),
        ("203.0.113.73", "-connect 203.0.113.73:6379 -verify_ip 203.0.113.73"),
        ("2001:db8::1", "-connect '[2001:db8::1]:6379' -verify_ip 2001:db8::1"),
    ],
)
def test_openssl_is_told_what_to_check(host: str, words: str) -> None:
    line = " ".join(lines_for(files(host)["README.txt"].decode(), "openssl").split())
    assert line.replace(" \\", "") == (
        f"openssl s_client -quiet {words} -verify_return_error -CAfile ca.crt -cert client.crt -key client.key"
    )


def test_a_zip_unpacks_readable_for_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "dev1.zip").write_bytes(zipped(files(), EXPIRES))
    with zipfile.ZipFile(tmp_path / "dev1.zip") as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == files()
        assert {oct(info.external_attr >> 16) for info in archive.infolist()} == {"0o100600"}
        assert {info.date_time for info in archive.infolist()} == {(2025, 5, 1, 12, 0, 0)}


# --- its lines, run as they stand against a Redis that demands a certificate


def is_listening(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port)).close()
    return True


@contextmanager
def redis_with_tls(pki: Path) -> Iterator[int]:
    """Run a Redis with the server's certificate, which lets in whom the CA has vouched for; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    argv = ["redis-server", "--bind", "127.0.0.1", "--port", "0", "--tls-port", str(port), "--save", ""]
    argv += ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key"]
    argv += ["--tls-ca-cert-file", "ca.crt", "--tls-auth-clients", "yes"]
    with subprocess.Popen(argv, cwd=pki, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        try:
            eventually(lambda: is_listening(port), "Redis listens")
            yield port
        finally:
            child.kill()


class Handed:
    """A bundle that was handed out, and the Redis that it is for."""

    def __init__(self, directory: Path, readme: str, port: int) -> None:
        self.directory = directory
        self._readme = readme
        self._port = port

    def lines(self, program: str) -> str:
        """Return the README's lines with the cache's real port."""
        return re.sub(r"\b6379\b", str(self._port), lines_for(self._readme, program))

    def run(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, cwd=self.directory, input=text, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module", params=[LOCAL, ServerNames((), ("127.0.0.1",))], ids=["name", "address"])
def handed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handed]:
    authority = make(tmp_path_factory.mktemp("pki"), names=request.param)
    bundle = issue(authority, "dev1")
    with redis_with_tls(authority.directory) as port:
        yield Handed(bundle, (bundle / "README.txt").read_text(encoding="utf-8"), port)


@needs_redis
def test_the_line_for_redis_cli_works(handed: Handed) -> None:
    done = handed.run("sh", "-c", handed.lines("redis-cli").strip() + " PING")
    assert (done.stdout, done.stderr) == ("PONG\n", "")


@needs_redis
def test_without_the_certificate_it_would_not(handed: Handed) -> None:
    line = handed.lines("redis-cli").strip().replace(" --cert client.crt --key client.key", "")
    done = handed.run("sh", "-c", line + " PING")
    assert "PONG" not in done.stdout


@needs_redis
def test_the_lines_for_redis_py_work(handed: Handed) -> None:
    done = handed.run(sys.executable, "-c", handed.lines("redis-py"))
    assert (done.stdout, done.stderr) == ("True\n", "")


@needs_redis
def test_the_line_for_openssl_works(handed: Handed) -> None:
    done = handed.run("sh", "-c", handed.lines("openssl"), text="PING\nQUIT\n")
    assert done.stdout == "+PONG\n+OK\n"


@needs_redis
def test_the_line_for_openssl_checks_the_name(handed: Handed) -> None:
    line = re.sub(r"(-verify_hostname|-verify_ip) \S+", r"-verify_hostname other.example.com", handed.lines("openssl"))
    done = handed.run("sh", "-c", line, text="PING\nQUIT\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ostname mismatch" in done.stderr


@pytest.mark.skipif(shutil.which("node") is None or not IOREDIS.exists(), reason="ioredis is not installed")
@needs_redis
def test_the_lines_for_ioredis_work(handed: Handed) -> None:
    (handed.directory / "ping.mjs").write_text(handed.lines("ioredis"), encoding="utf-8")
    (handed.directory / "node_modules").symlink_to(IOREDIS.parent)
    done = handed.run("node", "ping.mjs")
    assert (done.stdout, done.stderr) == ("PONG\n", "")


@pytest.mark.parametrize(
    ("host", "port", "where", "portal"),
    [
        ("a.example.com", 6378, "a.example.com", "https://a.example.com:6378/snippets/CACHE"),
        ("a.example.com", 7000, "a.example.com:7000", "https://a.example.com:7000/snippets/CACHE"),
        ("2001:db8::1", 6378, "2001:db8::1", "'https://[2001:db8::1]:6378/snippets/CACHE'"),
        ("2001:db8::1", 7000, "'[2001:db8::1]:7000'", "'https://[2001:db8::1]:7000/snippets/CACHE'"),
    ],
)
def test_the_lines_without_tls_and_for_the_portal(host: str, port: int, where: str, portal: str) -> None:
    readme = files(host, port)["README.txt"].decode()
    assert lines_for(readme, "Without TLS").strip() == f"natproxy connect {where} --bundle dev1.zip"
    assert lines_for(readme, "Directly").strip() == (
        f"curl --cacert ca.crt --cert client.crt --key client.key {portal}"
    )
