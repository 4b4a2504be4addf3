from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from natproxy import __version__, cli
from natproxy.errors import ConfigError, DiscoveryError, NatproxyError, Problem, StateError
from tests.cli.running import ROOT, PutDaemon, Run, process

HEAVY = {
    "aiohttp",
    "asyncio",
    "boto3",
    "cryptography",
    "msgspec",
    "pydantic",
    "prometheus_client",
    "rich.console",
    "uvloop",
    "yaml",
}

COMMANDS = [
    [],
    ["run"],
    ["check"],
    ["reload"],
    ["routes"],
    ["ports"],
    ["ports", "list"],
    ["ports", "release"],
    ["pki"],
    ["pki", "init"],
    ["pki", "issue"],
    ["pki", "revoke"],
    ["pki", "list"],
    ["pki", "renew-server"],
    ["pki", "crl"],
]


# --- help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_is_a_command(natproxy: Run, command: list[str]) -> None:
    for flag in ("--help", "-h"):
        done = natproxy(*command, flag)
        assert (done.code, done.err) == (0, "")
        example = done.out.rpartition("Example: ")[2].split()
        assert example[: len(command) + 1] == ["natproxy", *command] or not command or command == ["ports"]
        assert example[0] == "natproxy"
        assert example[1] in {words[0] for words in COMMANDS if words}


def test_the_help_tells_a_stranger_what_this_is(natproxy: Run) -> None:
    text = " ".join(natproxy("--help").out.split())
    for word in ("ElastiCache", "VPC", "port", "run", "check", "reload", "routes", "ports", "Exit codes"):
        assert word in text
    assert "…" not in text


def test_no_argument_is_a_question_for_help(natproxy: Run) -> None:
    done = natproxy()
    assert done.code == 2
    assert "Usage: natproxy" in done.out + done.err


@pytest.mark.parametrize("args", [["rotes"], ["check", "--nope"], ["ports", "release"], ["routes", "extra"]])
def test_wrong_usage_is_exit_2(natproxy: Run, args: list[str]) -> None:
    done = natproxy(*args)
    assert done.code == 2
    assert "Error: " in done.err
    assert done.out == ""


def test_the_version_is_told(natproxy: Run) -> None:
    done = natproxy("--version")
    assert (done.code, done.out, done.err) == (0, f"natproxy {__version__}\n", "")


def test_help_loads_nothing_heavy() -> None:
    code = f"""
import sys
sys.argv = ["natproxy", "--help"]
import natproxy.cli
try:
    natproxy.cli.main()
except SystemExit:
    print(sorted(set(sys.modules) & {HEAVY}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- errors


@pytest.mark.parametrize(
    ("error", "code_and_words"),
    [
        (ConfigError((Problem("f", 1, "a", "x"), Problem("f", 2, "b", "y"))), (2, "f:1: a: x\nf:2: b: y\n")),
        (NatproxyError("cannot open the admin side"), (1, "natproxy: cannot open the admin side\n")),
        (StateError("version 9"), (1, "natproxy: version 9\n")),
        (DiscoveryError("denied", "AWS said no"), (3, "natproxy: AWS said no\n")),
        (OSError(28, "No space left on device"), (1, "natproxy: [Errno 28] No space left on device\n")),
        (KeyError("x"), (1, "natproxy: unexpected KeyError: 'x'; with NATPROXY_TRACEBACK=1 it tells where\n")),
        (KeyboardInterrupt(), (130, "")),
    ],
)
def test_errors_end_in_one_line_and_their_exit_code(
    natproxy: Run, config: Path, daemon: PutDaemon, error: BaseException, code_and_words: tuple[int, str]
) -> None:
    def run(_: Path) -> int:
        raise error

    daemon(run)
    saved = os.dup(1)
    done = natproxy("run", "-c", config)
    os.dup2(saved, 1)
    os.close(saved)
    assert (done.code, done.err) == code_and_words


def test_a_traceback_is_there_for_who_wants_it(
    config: Path, daemon: PutDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Path) -> int:
        raise KeyError("x")

    daemon(run)
    monkeypatch.setenv("NATPROXY_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["natproxy", "run", "-c", str(config)])
    with pytest.raises(KeyError):
        cli.main()


# --- a process of its own


def test_it_runs_as_a_module(config: Path) -> None:
    done = process("check", "-c", config)
    assert (done.code, done.err) == (0, "")
    assert "good" in done.out
