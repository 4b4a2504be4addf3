"""The command line of a developer's computer; tests/scenarios/test_connect.py has a daemon behind it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import ROOT, Run, process
from tests.connect.bundles import bundle_of
from tests.connect.freeports import free_ports
from tests.standins.certificates import Authority
from tests.standins.portal import Portal

IP = "127.0.0.1"
FOREIGN = frozenset(
    ("aiodns", "aiohttp", "boto3", "botocore", "jinja2", "prometheus_client", "pydantic", "uvloop", "yaml")
)
"""What a laptop needs not load, and some of it does not run everywhere."""


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def portal(authority: Authority) -> Iterator[Portal]:
    with Portal(IP, authority) as made:
        port = free_ports(2)[0]
        route = {"port": port, "kind": "primary", "state": "open", "tls": "terminate", "rewrite": "redis"}
        clear = {"port": port + 1, "kind": "static", "state": "open", "tls": "off"}
        made.document["caches"] = [
            {"id": "my-redis", "engine": "redis", "mode": "cluster-disabled", "routes": [route]},
            {"id": "le\x1b[31mgacy", "mode": "static", "routes": [clear]},
        ]
        yield made


@pytest.fixture
def bundle(tmp_path: Path, authority: Authority, portal: Portal) -> Path:
    issued = authority.issue("dev1", usage="client")
    return bundle_of(tmp_path / "dev1.zip", authority, issued, host=IP, port=portal.port)


def test_a_terminal_gets_a_table_and_one_line_for_each_thing_that_happens(bundle: Path) -> None:
    argv = [sys.executable, "-m", "natproxy", "connect", "--bundle", str(bundle)]
    environ = os.environ | {"COLUMNS": "200"}
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        lines: list[str] = []
        for line in iter(running.stdout.readline, ""):
            lines.append(line.rstrip())
            if "Ctrl-C" in line:
                break
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait(20) == 0
    assert lines[0].split() == ["CACHE", "KIND", "NODE", "ROLE", "HERE", "STATE", "INTERNET", "TRY", "NOTE"]
    assert lines[2].split()[:2] == ["my-redis", "primary"]
    assert "redis-cli -p " in lines[2]
    assert lines[3].startswith("le\\x1b[31mgacy  static")
    assert "not encrypted" in lines[3]
    assert lines[-1].startswith("2 ports of 2 caches behind 127.0.0.1, as dev1 (certificate valid until ")
    assert "natproxy connect has ended" in rest
    assert "PRIVATE KEY" not in rest + "".join(lines)


def test_json_is_one_object_a_line(bundle: Path, portal: Portal) -> None:
    argv = [sys.executable, "-m", "natproxy", "connect", f"{IP}:{portal.port}", "--bundle", str(bundle)]
    argv += ["--json", "--cache", "my-redis"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        serving = json.loads(running.stdout.readline())
        running.send_signal(signal.SIGTERM)
        ended = json.loads(running.stdout.read())
        assert running.wait(20) == 0
    assert (serving["version"], serving["event"], ended["event"]) == (1, "serving", "ended")
    (route,) = serving["routes"]
    assert (route["cache"], route["local_host"], route["security"]) == ("my-redis", IP, "tls")


def test_the_exit_codes(bundle: Path, portal: Portal, tmp_path: Path) -> None:
    missing = process("connect", IP, "--bundle", tmp_path / "missing.zip")
    assert missing.code == 2
    assert missing.err == f"natproxy: the bundle {tmp_path / 'missing.zip'} cannot be read: No such file or directory\n"
    unknown = process("connect", "--bundle", bundle, "--cache", "yours")
    assert unknown.code == 1
    assert "no cache called yours; there are: my-redis, " in unknown.err
    assert "\x1b" not in unknown.err
    beyond = process("connect", "--bundle", bundle, "--port-offset", "60000")
    assert beyond.code == 2
    assert "--port-offset 60000 takes port" in beyond.err
    with socket.create_server((IP, 0)) as gone:
        port = gone.getsockname()[1]
    closed = process("connect", f"{IP}:{port}", "--bundle", bundle)
    assert closed.code == 3
    assert "nobody listens on" in closed.err
    assert portal.asked


@pytest.mark.parametrize(
    "host", ["", ":6378", "host:", "host:0", "host:65536", "host:redis", "https://host", "[::1]:x"]
)
def test_what_is_no_host_is_a_usage_error(natproxy: Run, bundle: Path, host: str) -> None:
    done = natproxy("connect", host, "--bundle", bundle)
    assert done.code == 2
    assert "HOST:PORT" in done.err


def test_hosts_are_taken_apart() -> None:
    from natproxy.cli.connect import _apart

    assert _apart(None) == (None, None)
    assert _apart("cache.example.com") == ("cache.example.com", None)
    assert _apart("cache.example.com:7000") == ("cache.example.com", 7000)
    assert _apart("203.0.113.73:7000") == ("203.0.113.73", 7000)
    assert _apart("2001:db8::1") == ("2001:db8::1", None)
    assert _apart("[2001:db8::1]") == ("2001:db8::1", None)
    assert _apart("[2001:db8::1]:7000") == ("2001:db8::1", 7000)


def test_a_bundle_has_to_be_given(natproxy: Run) -> None:
    assert natproxy("connect", IP).code == 2


def test_a_laptop_loads_neither_the_daemon_nor_its_libraries() -> None:
    code = (
        "import json, sys, natproxy.cli, natproxy.connect.session, natproxy.printable, natproxy.tables;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert {name.partition(".")[0] for name in loaded} & FOREIGN == set()
    ours = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("natproxy.")}
    assert ours & {"natproxy.config", "natproxy.controller", "natproxy.discover", "natproxy.plan"} == set()


def test_it_serves_without_anything_that_only_linux_has(bundle: Path) -> None:
    code = "import tests.standins.kqueue_only; from natproxy.cli import main; main()"
    argv = [sys.executable, "-c", code, "connect", "--bundle", str(bundle), "--json"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        serving = json.loads(running.stdout.readline())
        for route in serving["routes"]:
            socket.create_connection((IP, route["local_port"]), timeout=10).close()
        running.send_signal(signal.SIGTERM)
        assert json.loads(running.stdout.read())["event"] == "ended"
        assert running.wait(20) == 0


def test_words_of_the_portal_are_no_trouble_for_a_terminal_or_a_locale(bundle: Path, portal: Portal) -> None:
    portal.document["caches"][1]["id"] = "\x9b31m\u4e2d"
    for words, shown in (((), "\\x9b31m\\u4e2d"), (("--json",), "\\u009b31m\\u4e2d")):
        argv = [sys.executable, "-m", "natproxy", "connect", "--bundle", str(bundle), *words]
        environ = os.environ | {"PYTHONIOENCODING": "latin-1"}
        with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
            assert running.stdout is not None
            text = b""
            while shown.encode() not in text and (line := running.stdout.readline()):
                text += line
            running.send_signal(signal.SIGINT)
            text += running.stdout.read()
        assert shown in text.decode("ascii", "replace")
        assert b"\x9b" not in text
        assert running.returncode == 0


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((IP, port)) == 0


def test_standard_output_may_be_closed(bundle: Path, portal: Portal) -> None:
    argv = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "natproxy", "connect", "--bundle", str(bundle)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as running:
        port = portal.document["caches"][0]["routes"][0]["port"]
        until = time.monotonic() + 30
        while not answers(port) and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 0
