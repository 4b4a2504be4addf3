from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import commands
from bench.results import HAPROXY, NATPROXY, Results, decode, encode
from tests.bench.samples import PART
from tests.network.namespaces import Namespaces, why_impossible

ROOT = Path(__file__).parents[2]


def test_an_unknown_part_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["relay", "speed"]) == 2
    said = capsys.readouterr().err
    assert "no part is called speed; there are relay, tls, rewrite, memory" in said


@pytest.mark.parametrize("action", ["plot", "write"])
def test_what_was_not_measured_cannot_be_shown(action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main([action, "--json", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err


def test_the_document_beside_the_results_is_filled(tmp_path: Path) -> None:
    path, document = tmp_path / "found.json", tmp_path / commands.DOCUMENT
    path.write_bytes(encode(Results({"relay": PART})))
    document.write_text("<!-- bench: table relay -->\n<!-- bench: end -->\n", encoding="utf-8")
    assert commands.main(["write", "--json", str(path)]) == 0
    assert "| GET, 50 clients | 0.90 |" in document.read_text(encoding="utf-8")


def test_results_that_cannot_be_read_count_as_none(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert commands.read(path) == Results({})
    path.write_text("{", encoding="utf-8")
    assert commands.read(path) == Results({})


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "row", "unneeded"),
    [
        ("relay", "GET, 50 clients", {HAPROXY, "nginx"}),
        ("rewrite", "cluster: GET, 50 clients", {"memcached"}),
        ("laptop", "laptop: GET, 50 clients", set()),
    ],
)
def test_a_part_is_measured_and_written_down(name: str, row: str, unneeded: set[str], tmp_path: Path) -> None:
    if reason := why_impossible():
        pytest.skip(reason)
    path = tmp_path / "found.json"
    argv = [sys.executable, "-m", "bench", name, "--quick", "--rounds", "1", "--seconds", "0.01"]
    inside = Namespaces(("bench",))  # its ports are fixed, and may be taken outside
    try:
        enter = ["ip", "netns", "exec", inside.name("bench")]
        done = subprocess.run(
            [*enter, *argv, "--json", str(path)], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
        )
    finally:
        inside.close()
    assert done.returncode == 0, done.stderr
    part = decode(path.read_bytes()).parts[name]
    assert not part.has_failed
    assert set(part.left_out) <= unneeded
    assert all(one.readings[NATPROXY][0].cost > 0 for one in part.rows)
    assert f"| {row} |" in done.stdout
    assert json.loads(path.read_text(encoding="utf-8"))["version"] == 2
