from __future__ import annotations

import re

import pytest

from natproxy.snippets.golang import go_redis
from natproxy.snippets.literals import golang
from natproxy.snippets.scene import Files
from tests.snippets.samples import HOSTILE, MUTUAL, PASSTHROUGH, REDIS, cluster, group, scene


@pytest.mark.parametrize("name", REDIS)
def test_what_is_imported_is_used_and_the_other_way_round(name: str) -> None:
    """Go compiles nothing else."""
    text = go_redis(REDIS[name])
    imported = {path.rpartition("/")[2] for path in re.findall(r'^\t"([\w./-]+)"$', text, flags=re.MULTILINE)}
    body = re.sub(r'"[^"]*"', "", text.partition("func main")[2])
    assert {"redis" if name == "v9" else name for name in imported} == set(re.findall(r"\b([a-z]\w+)\.[A-Z]", body)) - {
        "client",
        "primary",
        "reader",
        "roots",
    }
    assert ("LoadX509KeyPair" in text) == name.endswith("-mutual")
    assert ("RootCAs" in text) == name.endswith(("-mutual", "-tls"))
    assert ("TLSConfig" in text) != name.endswith("-clear")
    assert max(map(len, text.splitlines())) <= 120


def test_a_cluster_a_group_and_a_node_s_own_name() -> None:
    assert '&redis.ClusterOptions{\n\t\tAddrs: []string{"cache.dev.example.com:6385"},' in go_redis(scene(cluster()))
    assert re.findall(r"(\w+) := redis.NewClient.*\n.*:(\d+)", go_redis(scene(group()))) == [
        ("primary", "6391"),
        ("reader", "6392"),
    ]
    assert 'tls.Config{ServerName: "primary.example.com"}' in go_redis(scene(group(**PASSTHROUGH)))
    assert '"[fd00::1]:6385"' in go_redis(scene(cluster(), "fd00::1"))


@pytest.mark.parametrize("text", [text for text in HOSTILE if text])
def test_strange_names_stand_in_strings_and_change_nothing_around_them(text: str) -> None:
    program = go_redis(scene(cluster(**MUTUAL), text, files=Files(text, text, text)))
    assert program.count(golang(text)) == 3
    assert program.isascii()
    assert outline(program) == outline(go_redis(scene(cluster(**MUTUAL), "a", files=Files("b", "c", "d"))))


@pytest.mark.parametrize("name", REDIS)
def test_it_is_indented_by_tabs(name: str) -> None:
    for line in go_redis(REDIS[name]).splitlines():
        assert not re.match(r"\t* ", line)
        assert line == line.rstrip()


def outline(program: str) -> list[str]:
    """Return the lines without what their strings say."""
    return [re.sub(r'"(?:[^"\\]|\\.)*"', '""', line) for line in program.splitlines()]
