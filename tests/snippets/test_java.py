from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from natproxy.snippets.java import lettuce
from natproxy.snippets.literals import java
from natproxy.snippets.scene import Files
from tests.snippets.samples import HOSTILE, MUTUAL, PASSTHROUGH, REDIS, cluster, group, scene

PARSE = """
import com.sun.source.util.JavacTask;
import java.nio.file.*;
import java.util.*;
import javax.tools.*;

public class Parse {
  public static void main(String[] names) throws Exception {
    var compiler = ToolProvider.getSystemJavaCompiler();
    var found = new DiagnosticCollector<JavaFileObject>();
    var files = compiler.getStandardFileManager(found, null, null);
    var task = compiler.getTask(null, files, found, null, null, files.getJavaFileObjects(names));
    ((JavacTask) task).parse();
    for (var each : found.getDiagnostics()) System.out.println(each);
  }
}
"""
"""Prints what is no Java; what the imported names are is not looked at."""


@pytest.mark.parametrize("name", REDIS)
def test_what_is_imported_is_used_and_the_other_way_round(name: str) -> None:
    text = lettuce(REDIS[name])
    body = text.partition("public class")[2]
    imported = re.findall(r"^import [\w.]+\.(\w+);$", text, flags=re.MULTILINE)
    used = set(re.findall(r"\b[A-Z]\w+\b", re.sub(r'"[^"]*"', "", body))) - {"Builder", "Ping", "String", "System"}
    assert set(imported) == used
    assert len(imported) == len(used)
    assert max(map(len, text.splitlines())) <= 120
    assert (".keyManager(" in text) == name.endswith("-mutual")
    assert (".trustManager(" in text) == name.endswith(("-mutual", "-tls"))
    assert (".withSsl(true)" in text) != name.endswith("-clear")


def test_a_cluster_s_topology_is_read_again_and_a_group_has_two_addresses() -> None:
    text = lettuce(scene(cluster()))
    assert "enableAllAdaptiveRefreshTriggers()" in text
    assert 'RedisURI.Builder.redis("cache.dev.example.com", 6385)' in text
    assert re.findall(r"RedisURI (\w+) = .*, (\d+)\)", lettuce(scene(group()))) == [
        ("primary", "6391"),
        ("reader", "6392"),
    ]
    assert '"primary.example.com", 6391' in lettuce(scene(group(**PASSTHROUGH)))


@pytest.mark.skipif(shutil.which("javac") is None, reason="a JDK is not installed")
def test_a_compiler_can_read_them_whatever_the_names(tmp_path: Path) -> None:
    programs = [lettuce(each) for each in REDIS.values()]
    for text in HOSTILE:
        strange = scene(cluster(**MUTUAL), text, files=Files(text, text, text))
        programs.append(lettuce(strange))
        assert programs[-1].count(java(text)) == 4 or not text
    for number, program in enumerate(programs):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "Ping.java").write_text(program, encoding="ascii")
    (tmp_path / "Parse.java").write_text(PARSE, encoding="ascii")
    names = [f"{number}/Ping.java" for number in range(len(programs))]
    done = subprocess.run(["java", "Parse.java", *names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
