from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from natproxy.snippets.javascript import ioredis, memcached_elasticache, node_redis
from natproxy.snippets.literals import javascript
from natproxy.snippets.scene import Files, Scene
from tests.snippets.samples import HOSTILE, MUTUAL, PASSTHROUGH, REDIS, cluster, group, memcached, scene

WRITERS = (ioredis, node_redis)


@pytest.mark.parametrize("name", REDIS)
@pytest.mark.parametrize("write", WRITERS)
def test_files_are_named_where_they_are_wanted(write: Callable[[Scene], str], name: str) -> None:
    text = write(REDIS[name])
    assert text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("readFileSync('client.crt')") == text.count("readFileSync('client.key')")
    assert ("client.crt" in text) == name.endswith("-mutual")
    assert ("readFileSync('ca.crt')" in text) == ("import { readFileSync }" in text)
    assert ("ca.crt" in text) == name.endswith(("-mutual", "-tls"))


def test_where_tls_is_the_node_s_own_its_name_is_checked() -> None:
    for write in WRITERS:
        text = write(scene(group(**PASSTHROUGH)))
        assert "servername: 'primary.example.com'" in text
        assert "host: 'cache.dev.example.com', port: 6391" in text


def test_discovery_is_asked_where_it_is() -> None:
    assert "new Memcached('cache.dev.example.com:11214')" in memcached_elasticache(scene(memcached()))


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_strange_names_leave_it_a_program(tmp_path: Path) -> None:
    """All of them in one: each program's imports and names have a block of their own."""
    bodies = []
    for text in HOSTILE:
        files = Files(f"{text}1", f"{text}2", f"{text}3")
        scenes = [scene(make(**MUTUAL), text, files=files) for make in (cluster, group)]
        programs = [write(each) for write in WRITERS for each in scenes]
        programs.append(memcached_elasticache(scene(memcached(), text)))
        for program in programs:
            assert javascript(text)[1:-1] in program
            bodies.append("".join(f"{line}\n" for line in program.splitlines() if not line.startswith("import ")))
    path = tmp_path / "all.mjs"
    path.write_text("".join(f"async () => {{\n{body}}}\n;\n" for body in bodies), encoding="ascii")
    done = subprocess.run(["node", "--check", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
