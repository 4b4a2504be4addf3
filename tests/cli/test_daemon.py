from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from natproxy.cli import daemon as daemon_commands
from natproxy.documents import ReloadVerdict
from natproxy.errors import ReleaseError
from tests.cli.running import GOOD, ROOT, PutDaemon, Run
from tests.controller.source import PORTS, ROUTES, Source, serving

# --- check


def test_a_good_file_is_called_good(natproxy: Run, config: Path) -> None:
    done = natproxy("check", "-c", config)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{config}: good (1 cache entry, 1 static route)\n"


def test_all_problems_are_printed_to_stderr(natproxy: Run, config: Path) -> None:
    config.write_text(GOOD + "foo: 1\nworkers: many\nstate_dir: [x]\n")
    done = natproxy("check", "-c", config)
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert all(re.match(rf"{re.escape(str(config))}:\d+: (foo|workers|state_dir): ", line) for line in lines)


def test_warnings_are_printed_and_harm_nothing(natproxy: Run, config: Path) -> None:
    config.write_text(GOOD.replace("198.51.100.27/32", "0.0.0.0/0"))
    done = natproxy("check", "-c", config)
    assert done.code == 0
    assert done.err.startswith(f"warning: {config}:")
    assert "0.0.0.0/0" in done.err
    assert "good" in done.out


def test_what_cannot_be_rewritten_is_told_with_its_place(natproxy: Run, config: Path) -> None:
    config.write_text(GOOD.replace("{id: my-redis}", "{id: my-redis, clients: {tls: passthrough}, rewrite: redis}"))
    done = natproxy("check", "-c", config)
    assert done.code == 0
    assert done.err.startswith(f"warning: {config}:4: caches[0].rewrite: nothing is rewritten with clients.tls: pass")
    assert done.err.count("\n") == 1


def test_clients_that_would_be_told_the_wrong_host_are_warned_of(natproxy: Run, config: Path) -> None:
    config.write_text(GOOD.replace("public_host", "# public_host"))
    done = natproxy("check", "-c", config)
    assert done.code == 0
    assert done.err.startswith(f"warning: {config}:")
    assert "public_host is missing" in done.err
    assert done.err.count("\n") == 1


def test_a_missing_file_is_exit_2(natproxy: Run, tmp_path: Path) -> None:
    done = natproxy("check", "-c", tmp_path / "missing.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"{tmp_path / 'missing.yaml'}: cannot be read: No such file or directory\n"


def test_the_environment_may_name_the_file(natproxy: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATPROXY_CONFIG", str(config))
    assert str(config) in natproxy("check").out


def test_json_tells_what_a_good_file_asks_of_the_host(natproxy: Run, config: Path) -> None:
    done = natproxy("check", "--json", "-c", config)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {
        "version": 1,
        "ok": True,
        "problems": [],
        "warnings": [],
        "ports": {"lowest": 6379, "highest": 6490},
        "needs_bind_capability": False,
        "portal": None,
    }
    config.write_text(GOOD.replace("198.51.100.27/32", "0.0.0.0/0").replace("port: 6490", "port: 1023"))
    told = json.loads(natproxy("check", "--json", "-c", config).out)
    assert (told["ports"], told["needs_bind_capability"]) == ({"lowest": 1023, "highest": 6478}, True)
    (warning,) = told["warnings"]
    assert warning.startswith(f"{config}:")


def test_json_tells_every_problem_with_its_place(natproxy: Run, config: Path, tmp_path: Path) -> None:
    config.write_text(GOOD + "foo: 1\nworkers: many\n")
    done = natproxy("check", "--json", "-c", config)
    assert (done.code, done.err) == (2, "")
    told = json.loads(done.out)
    assert (told["ok"], told["needs_bind_capability"]) == (False, False)
    places = [(problem["file"], problem["line"], problem["path"]) for problem in told["problems"]]
    assert places == [(str(config), 7, "foo"), (str(config), 8, "workers")]
    assert all(problem["message"] for problem in told["problems"])
    missing = natproxy("check", "--json", "-c", tmp_path / "missing.yaml")
    (problem,) = json.loads(missing.out)["problems"]
    assert (missing.code, problem["line"], problem["path"]) == (2, None, "")


# --- run


def test_run_is_the_daemon_with_its_exit_code(natproxy: Run, config: Path, daemon: PutDaemon) -> None:
    seen = []

    def run(path: Path) -> int:
        seen.append(path)
        return len(seen) - 1

    daemon(run)
    assert [natproxy("run", "-c", config).code for _ in range(2)] == [0, 1]
    assert seen == [config, config]


# --- what asks the daemon


def test_a_reload_that_was_done_is_exit_0(natproxy: Run, config: Path, tmp_path: Path) -> None:
    with serving(Source(verdict=ReloadVerdict(True, "reloaded", ("workers", "admin.port"))), tmp_path):
        done = natproxy("reload", "-c", config)
    assert (done.code, done.out) == (0, "reloaded\n")
    assert done.err == "warning: changed, but only taken up by a restart: workers, admin.port\n"


def test_a_reload_that_was_refused_is_exit_1(natproxy: Run, config: Path, tmp_path: Path) -> None:
    with serving(Source(verdict=ReloadVerdict(False, "f:1: x\nf:2: y")), tmp_path):
        done = natproxy("reload", "-c", config)
    assert (done.code, done.out, done.err) == (1, "", "f:1: x\nf:2: y\n")


ASKING = [["reload"], ["routes"], ["routes", "--json"], ["ports", "list"], ["ports", "list", "--json"]]


@pytest.mark.parametrize("command", [*ASKING, ["ports", "release", "x"]])
def test_no_daemon_is_exit_3(natproxy: Run, config: Path, tmp_path: Path, command: list[str]) -> None:
    for place in (["-c", config], ["--state-dir", tmp_path]):
        done = natproxy(*command, *place)
        assert (done.code, done.out) == (3, "")
        assert done.err.startswith(f"natproxy: no natproxy runs with the state_dir {tmp_path}: ")


def test_a_config_that_is_named_has_to_exist(natproxy: Run, tmp_path: Path) -> None:
    done = natproxy("routes", "-c", tmp_path / "missing.yaml")
    assert (done.code, "cannot be read" in done.err) == (2, True)


def test_without_a_config_the_usual_state_dir_is_asked(
    natproxy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_commands, "DEFAULT_CONFIG", tmp_path / "missing.yaml")
    done = natproxy("routes")
    assert done.code == 3
    assert "/var/lib/natproxy" in done.err


@pytest.mark.parametrize("text", ["state_dir: {}\nfoo: [", "foo: 1\nstate_dir: '{}'\n", GOOD + "state_dir: {}  # here"])
def test_a_broken_config_still_tells_where_the_daemon_is(
    natproxy: Run, config: Path, tmp_path: Path, text: str
) -> None:
    config.write_text(text.replace("{}", str(tmp_path)))
    with serving(Source(), tmp_path):
        assert natproxy("routes", "-c", config).code == 0


@pytest.mark.parametrize(("command", "document"), [(["routes"], ROUTES), (["ports", "list"], PORTS)])
def test_json_is_the_daemon_s_own(
    natproxy: Run, tmp_path: Path, command: list[str], document: dict[str, object]
) -> None:
    with serving(Source(), tmp_path):
        done = natproxy(*command, "--json", "--state-dir", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == document


def test_routes_are_a_table_and_remarks(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        done = natproxy("routes", "--state-dir", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "my-redis-0001-001.abcdef.0001.euw1.cache.amazonaws.com:6379" in done.out
    assert "6380 unreachable: 10.0.1.231:6379 refused the connection" in done.out
    assert "\x1b" not in done.out


def test_at_80_columns_routes_stay_within_them(natproxy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with serving(Source(), tmp_path):
        table = natproxy("routes", "--state-dir", tmp_path).out.partition("\n\n")[0]
    assert all(len(line.rstrip()) <= 80 for line in table.splitlines())
    assert "eu-west-1a" in table


def test_without_a_terminal_every_route_has_its_line(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    argv = [sys.executable, "-m", "natproxy", "routes", "--state-dir", str(tmp_path)]
    with serving(Source(), tmp_path):
        done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("6379")]
    assert line.split()[-2:] == ["my-redis-0001-001.abcdef.0001.euw1.cache.amazonaws.com:6379", "12"]


def test_nothing_to_show_is_said(natproxy: Run, tmp_path: Path) -> None:
    source = Source(
        routes_answer={"version": 1, "generated": "x", "caches": [{"id": "c", "reason": "waiting for AWS (denied)"}]},
        ports_answer={"version": 1, "generated": "x", "ports": []},
    )
    with serving(source, tmp_path):
        assert natproxy("routes", "--state-dir", tmp_path).out == "no routes yet\n\nc: waiting for AWS (denied)\n"
        assert natproxy("ports", "list", "--state-dir", tmp_path).out == "no ports are assigned yet\n"


def test_ports_show_since_when_a_node_is_gone(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        done = natproxy("ports", "list", "--state-dir", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"6381 +my-redis-0001-003/0001 +my-redis +node +2025-01-30T08:15:00Z", done.out)


def test_a_port_is_released(natproxy: Run, tmp_path: Path) -> None:
    source = Source()
    with serving(source, tmp_path):
        done = natproxy("ports", "release", "my-redis-0001-003/0001", "--state-dir", tmp_path)
    assert (done.code, done.out, done.err) == (0, "port 6381 of my-redis-0001-003/0001 is free\n", "")
    assert source.released == ["my-redis-0001-003/0001"]


def test_a_port_that_cannot_be_released_is_exit_1(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(release_error=ReleaseError("its node still exists")), tmp_path):
        done = natproxy("ports", "release", "x", "--state-dir", tmp_path)
    assert (done.code, done.out, done.err) == (1, "", "natproxy: its node still exists\n")
