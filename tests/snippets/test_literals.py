from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.snippets import literals
from tests.snippets.samples import HOSTILE

texts = st.text(st.characters(exclude_categories=["Cs"]))


def read_again(literal: str) -> str:
    """Read a literal whose escapes Python has as well; surrogates are put together."""
    value = ast.literal_eval(literal)
    assert isinstance(value, str)
    return value.encode("utf-16", "surrogatepass").decode("utf-16")


@given(texts)
def test_a_word_of_the_shell_is_one_word(text: str) -> None:
    assert shlex.split(f"echo {literals.shell(text)} more") == ["echo", text, "more"]


@given(texts)
def test_literals_are_read_as_the_same_text_and_show_all_that_is_in_them(text: str) -> None:
    for write in (literals.python, literals.java, literals.golang):
        literal = write(text)
        assert read_again(literal) == text
        assert literal.isascii()
        assert literal.isprintable()
    literal = literals.javascript(text)
    assert literal.isascii()
    assert literal.isprintable()
    assert json.loads('"' + literal[1:-1].replace("\\'", "'").replace('"', '\\"') + '"') == text


def test_plain_ones_look_as_one_would_write_them() -> None:
    assert literals.shell("a.example.com") == "a.example.com"
    assert literals.python("a.b") == literals.java("a.b") == literals.golang("a.b") == '"a.b"'
    assert literals.javascript("a.b") == "'a.b'"


def test_a_control_character_is_none_of_java_s_unicode_escapes() -> None:
    """They are read before anything else: ``\\u000a`` would break the line, ``\\u0022`` end the literal."""
    assert literals.java('\n"\x7f') == '"\\012\\"\\177"'


@pytest.mark.parametrize(("host", "text"), [("a.b", "a.b:1"), ("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1")])
def test_an_ipv6_address_stands_in_brackets(host: str, text: str) -> None:
    assert literals.host_and_port(host, 1) == text


def test_the_shell_itself_reads_them(tmp_path: Path) -> None:
    words = [text for text in HOSTILE if "\0" not in text]
    code = "printf '%s\\0' " + " ".join(map(literals.shell, words))
    done = subprocess.run(["sh", "-c", code], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_node_itself_reads_them() -> None:
    code = f"console.log(JSON.stringify([{', '.join(map(literals.javascript, HOSTILE))}]))"
    done = subprocess.run(["node", "-e", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == list(HOSTILE)


@pytest.mark.skipif(shutil.which("javac") is None, reason="a JDK is not installed")
def test_java_itself_reads_them(tmp_path: Path) -> None:
    rows = "".join(f"    show({literals.java(text)});\n" for text in HOSTILE)
    show = "static void show(String text) { System.out.println(text.chars().boxed().toList()); }"
    code = f"public class Show {{\n  {show}\n  public static void main(String[] args) {{\n{rows}  }}\n}}\n"
    (tmp_path / "Show.java").write_text(code, encoding="ascii")
    done = subprocess.run(["java", "Show.java"], cwd=tmp_path, capture_output=True, check=True)
    units = [text.encode("utf-16-be") for text in HOSTILE]
    wanted = [[int.from_bytes(unit[at : at + 2]) for at in range(0, len(unit), 2)] for unit in units]
    assert list(map(json.loads, done.stdout.splitlines())) == wanted
