from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.control import SOCKET_NAME
from natproxy.doctor.environment import Surroundings, surroundings, worn

OTHER_USER = 65533 if os.geteuid() == 65534 else 65534
SAID = {"AWS_REGION": "eu-west-1", "https_proxy": "http://proxy:1", "SSL_CERT_DIR": "", "HOME": "/nowhere", "PATH": "/"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The state_dir of a natproxy that is this process."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / SOCKET_NAME))
        sock.listen()
        yield tmp_path


def write_process(proc: Path, said: dict[str, str], uid: int) -> Path:
    directory = proc / str(os.getpid())
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "environ").write_bytes(b"".join(f"{name}={value}\0".encode() for name, value in said.items()))
    (directory / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t7\t7\t7\t7\n")
    return proc


def look(state_dir: Path, said: dict[str, str] | None = None, uid: int | None = None) -> Surroundings:
    proc = state_dir / "proc"
    if said is not None:
        write_process(proc, said, os.geteuid() if uid is None else uid)
    return surroundings(state_dir, state_dir / "config.yaml", state_dir / "environment", proc)


def test_the_running_one_s_own_is_taken_and_only_what_matters_for_aws(running: Path) -> None:
    (running / "environment").write_text("AWS_REGION=us-east-1\n")
    found = look(running, SAID)
    assert found.told == f"with the environment of the running natproxy (pid {os.getpid()})"
    assert found.variables == {name: value for name, value in SAID.items() if name != "PATH"}
    assert found.surer == ""


def test_one_that_may_not_be_read_is_a_doubt(running: Path) -> None:
    found = look(running)
    assert found.variables is None
    assert found.told == "as this shell's environment has it; the running natproxy's may differ"
    assert found.surer == "sudo natproxy doctor"


def test_another_user_s_makes_this_one_read_nothing_that_it_could_have_written(running: Path) -> None:
    said = {**SAID, "AWS_CA_BUNDLE": "/etc/passwd", "AWS_ACCESS_KEY_ID": "AKIA", "AWS_CONFIG_FILE": "/dev/null"}
    good = look(running, said, OTHER_USER)
    assert good.surer == ""
    assert good.variables == {
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIA",
        "https_proxy": "http://proxy:1",
        "SSL_CERT_DIR": "",
        "AWS_CA_BUNDLE": "/etc/passwd",
        "AWS_CONFIG_FILE": "/dev/null",  # not this user's own, either
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    evil = running / "config"
    evil.write_text("[default]\ncredential_process = touch /tmp/owned\n")
    evil.chmod(0o666)
    found = look(
        running,
        {
            "AWS_CONFIG_FILE": str(evil),
            "AWS_WEB_IDENTITY_TOKEN_FILE": "relative",
            "AWS_CA_BUNDLE": "/tmp/natproxy-none/not-yet",
            "SSL_CERT_FILE": "/etc/natproxy-none",
            "SSL_CERT_DIR": "/" + 300 * "a",
            "HOME": "/nowhere",
        },
        OTHER_USER,
    )
    assert found.variables == {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/dev/null",
        "AWS_CA_BUNDLE": "/dev/null",
        "SSL_CERT_FILE": "/etc/natproxy-none",  # only root could make it
        "SSL_CERT_DIR": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    assert (
        "but for AWS_CONFIG_FILE, AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CA_BUNDLE, SSL_CERT_DIR, as the user " in found.told
    )
    assert found.surer.startswith("sudo -u ")


def test_another_user_s_cannot_make_this_one_read_what_that_user_may_not(running: Path) -> None:
    secret = running / "secret"
    secret.touch(0o600)
    found = look(running, {"AWS_WEB_IDENTITY_TOKEN_FILE": str(secret)}, OTHER_USER)
    assert (found.variables or {})["AWS_WEB_IDENTITY_TOKEN_FILE"] == "/dev/null"


def test_where_none_runs_the_unit_s_file_is_taken_for_the_config_beside_it(tmp_path: Path) -> None:
    assert look(tmp_path) == Surroundings("with the environment of this shell")
    (tmp_path / "environment").write_text("# keys\nAWS_REGION='eu-west-1'\nPATH=/\nHOME=/\n")
    found = look(tmp_path)
    assert found.variables == {"AWS_REGION": "eu-west-1"}
    assert found.told == f"with the environment that natproxy's unit takes from {tmp_path / 'environment'}"
    elsewhere = surroundings(tmp_path, tmp_path / "a" / "config.yaml", tmp_path / "environment")
    assert elsewhere == Surroundings("with the environment of this shell")


def test_a_unit_s_file_that_cannot_be_read_is_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "environment").mkdir()
    found = look(tmp_path)
    assert (found.variables, found.surer) == (None, "sudo natproxy doctor")
    assert f"{tmp_path / 'environment'}, which natproxy's unit reads, may differ" in found.told


def test_what_is_worn_replaces_the_shell_s_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("NATPROXY_TEST", "kept")
    before = dict(os.environ)
    with worn({"AWS_REGION": "eu-west-1", "HOME": "/nowhere"}):
        assert (os.environ["AWS_REGION"], os.environ["HOME"], os.environ["NATPROXY_TEST"]) == (
            "eu-west-1",
            "/nowhere",
            "kept",
        )
        assert "AWS_PROFILE" not in os.environ
    assert dict(os.environ) == before
    with worn(None):
        assert dict(os.environ) == before
