from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Run, process
from tests.standins.echo import EchoNodes
from tests.test_layout import run_python

NO_AWS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_REGION": "us-east-1",
}


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in NO_AWS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def node() -> Iterator[int]:
    """A port where somebody says again what they hear."""
    nodes = EchoNodes()
    nodes.start()
    nodes.open("127.0.0.1", 0)
    yield nodes.where()[0][1]
    nodes.stop()


@pytest.fixture
def config(tmp_path: Path, node: int) -> Path:
    """Loopback alone, with a route to that port."""
    path = tmp_path / "natproxy.yaml"
    path.write_text(
        f"state_dir: {tmp_path}\nlisten: {{address: 127.250.8.8}}\nadmin: {{address: 127.250.8.8}}\n"
        f"static: [{{name: a, port: 6390, target: '127.0.0.1:{node}'}}]\n"
    )
    return path


def test_nothing_bad_is_0(natproxy: Run, config: Path) -> None:
    done = natproxy("doctor", "-c", config)
    assert done.code == 0, done.out
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith("config           good")
    assert lines[-1].startswith(f"{config}: ")


def test_something_bad_is_1(natproxy: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("target: '127.0.0.1:", "target: '127.250.8.9:"))
    done = natproxy("doctor", "-c", config)
    assert done.code == 1
    assert "    bad: a: 127.250.8.9:" in done.out
    assert "        mend: " in done.out
    assert done.out.splitlines()[-1] == f"{config}: something is wrong; begin with reach, a"


def test_a_config_that_cannot_be_used_is_2(natproxy: Run, config: Path) -> None:
    config.write_text("static: [{name: a}]")
    done = natproxy("doctor", "-c", config)
    assert done.code == 2
    assert f"bad: {config}:1: static[0]" in done.out
    assert natproxy("doctor", "-c", config, "--json").code == 2


def test_json_for_scripts(natproxy: Run, config: Path) -> None:
    done = natproxy("doctor", "-c", config, "--json")
    document = json.loads(done.out)
    assert document["version"] == 1
    assert document["verdict"] != "bad"
    assert {"check", "subject", "verdict", "evidence", "mend"} == set(document["findings"][0])


def test_verbose_shows_what_is_good(natproxy: Run, config: Path) -> None:
    assert "good: a:" not in natproxy("doctor", "-c", config).out
    assert "good: a:" in natproxy("doctor", "-c", config, "--verbose").out


def test_the_config_is_found_as_every_command_finds_it(
    natproxy: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATPROXY_CONFIG", str(config))
    assert str(config) in natproxy("doctor").out
    monkeypatch.delenv("NATPROXY_CONFIG")
    assert "/etc/natproxy/config.yaml" in natproxy("doctor").out


def test_what_is_meant_for_clients_needs_a_host(natproxy: Run) -> None:
    done = natproxy("doctor", "--ports", "6379")
    assert done.code == 2
    assert "it needs --from-client HOST" in done.err


def test_the_usual_ports_are_told(natproxy: Run) -> None:
    assert "Default: 6379-6388,11211-11220." in " ".join(natproxy("doctor", "--help").out.replace("│", " ").split())


def test_from_a_client(natproxy: Run, node: int) -> None:
    done = natproxy("doctor", "--from-client", "127.0.0.1", "--ports", f"{node}", "--json")
    document = json.loads(done.out)
    assert done.code in (0, 1)
    assert {one["check"] for one in document["findings"]} >= {"reach"}
    shown = natproxy("doctor", "--from-client", "127.250.8.9", "--ports", f"{node}")
    assert shown.code == 1
    assert shown.out.splitlines()[-1].startswith("127.250.8.9: something is wrong")


def test_what_a_client_was_given_and_cannot_be_used_is_wrong_usage(natproxy: Run, tmp_path: Path) -> None:
    done = natproxy("doctor", "--from-client", "127.0.0.1", "--bundle", str(tmp_path / "none.zip"), "--json")
    assert done.code == 2
    assert json.loads(done.out)["findings"][0]["check"] == "config"


def test_a_laptop_loads_neither_boto3_nor_the_daemon() -> None:
    code = (
        "import json, sys\n"
        "from natproxy.cli import app\n"
        "try:\n"
        "    app(['doctor', '--from-client', '127.0.0.1', '--ports', '1', '--json'], standalone_mode=False)\n"
        "finally:\n"
        "    print(); print(json.dumps(sorted(sys.modules)))"
    )
    loaded = set(json.loads(run_python(code).splitlines()[-1]))
    assert {name.partition(".")[0] for name in loaded} & {"boto3", "botocore", "uvloop", "aiohttp"} == set()
    assert "natproxy.doctor.checkup" not in loaded


def test_output_that_cannot_be_written_is_said_without_a_traceback(config: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = process("doctor", "-c", config, stdout=full.fileno())
    assert done.code == 1
    assert "No space left" in done.err
    assert "Traceback" not in done.err


def test_a_config_that_this_user_may_not_read_is_not_refused_before_it_is_a_finding(
    natproxy: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert natproxy("doctor", "-c", config).out.startswith("config ")
