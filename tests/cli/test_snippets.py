from __future__ import annotations

import json
from pathlib import Path

import pytest

from natproxy.snippets import CLIENTS
from tests.cli.running import Run
from tests.controller.source import ROUTES, Source, serving

WHERE = "--state-dir"


def test_all_clients_lines_are_printed(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        done = natproxy("snippets", "my-redis", WHERE, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("# my-redis\n\n")
    assert "redis-cli -h cache.dev.example.com -p 6379" in done.out


def test_one_client_s_lines_are_all_of_stdout(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        done = natproxy("snippets", "my-redis", "--client", "telnet", WHERE, tmp_path)
    assert (done.code, done.out) == (0, "telnet cache.dev.example.com 6379\n")
    assert "Nothing is encrypted here" in done.err
    assert "type PING" in done.err


def test_behind_connect(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        lines = [
            natproxy("snippets", "my-redis", "--connect", "--client", name, WHERE, tmp_path).out
            for name in ("natproxy-connect", "telnet")
        ]
    assert lines == [
        "natproxy connect cache.dev.example.com:7000 --bundle dev1.zip --cache my-redis\n",
        "telnet 127.0.0.1 6379\n",
    ]


def test_without_a_portal_there_are_no_lines_behind_connect(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(routes_answer={**ROUTES, "portal_port": None}), tmp_path):
        done = natproxy("snippets", "my-redis", "--connect", WHERE, tmp_path)
    assert done.code == 1
    assert "the operator has to switch `portal` on" in done.out


def test_json_holds_the_same(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        whole = json.loads(natproxy("snippets", "my-redis", "--json", WHERE, tmp_path).out)
        one = json.loads(natproxy("snippets", "my-redis", "--json", "--client", "telnet", WHERE, tmp_path).out)
    assert (whole["version"], whole["cache"]) == (1, "my-redis")
    assert one == {**whole, "snippets": [each for each in whole["snippets"] if each["client"] == "telnet"]}


def test_a_client_that_nobody_knows_is_wrong_usage(natproxy: Run, tmp_path: Path) -> None:
    done = natproxy("snippets", "my-redis", "--client", "redis\npy", WHERE, tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"natproxy: no client is called 'redis\\npy'; there are {', '.join(CLIENTS)}\n"


def test_a_cache_that_nobody_knows_is_told_with_those_that_are(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        done = natproxy("snippets", "my-redos", WHERE, tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == "natproxy: no cache or static route is called 'my-redos'; there are: my-redis, my-radis\n"
    with serving(Source(routes_answer={"version": 1, "generated": "x", "caches": []}), tmp_path):
        assert natproxy("snippets", "x", WHERE, tmp_path).err.endswith("there are: none yet\n")


def test_a_client_that_the_cache_is_not_for_is_told_with_those_that_it_is(natproxy: Run, tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        done = natproxy("snippets", "my-redis", "--client", "pymemcache", WHERE, tmp_path)
        connect = natproxy("snippets", "my-redis", "--client", "natproxy-connect", WHERE, tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("natproxy: pymemcache is not for this cache as it is served; these are: redis-cli, ")
    assert "natproxy-connect" not in done.err
    assert connect.err.endswith(" (natproxy-connect: with --connect)\n")


@pytest.mark.parametrize("words", [[], ["--connect"]])
def test_a_cache_without_a_port_says_why(natproxy: Run, tmp_path: Path, words: list[str]) -> None:
    why = "It has no port yet: AWS knows no such cache."
    with serving(Source(), tmp_path):
        whole = natproxy("snippets", "my-radis", *words, WHERE, tmp_path)
        one = natproxy("snippets", "my-radis", *words, "--client", "redis-py", WHERE, tmp_path)
        as_json = natproxy("snippets", "my-radis", *words, "--json", WHERE, tmp_path)
    assert (whole.code, whole.out) == (1, f"# my-radis\n\n{why}\n")
    assert (one.code, one.out, one.err) == (1, "", f"{why}\n")
    assert (as_json.code, json.loads(as_json.out)["remarks"]) == (1, [why])


def test_no_daemon_is_exit_3(natproxy: Run, tmp_path: Path) -> None:
    done = natproxy("snippets", "my-redis", WHERE, tmp_path)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("natproxy: no natproxy runs with the state_dir ")
