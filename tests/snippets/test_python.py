from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator

import pytest

from natproxy.documents import CacheView
from natproxy.snippets.python import django_elastipymemcache, emcache, pymemcache, redis_py, valkey_glide
from natproxy.snippets.scene import Files, Scene
from tests.snippets.samples import (
    ALL,
    CACHES,
    HOSTILE,
    MUTUAL,
    PASSTHROUGH,
    REDIS,
    WAYS,
    alone,
    group,
    memcached,
    node,
    scene,
)

WRITERS = (redis_py, valkey_glide, pymemcache, django_elastipymemcache)


def fitting(write: Callable[[Scene], str]) -> list[str]:
    """Return which kinds of cache a client is for."""
    return list(REDIS) if write in (redis_py, valkey_glide) else [name for name in ALL if name not in REDIS]


def calls(code: str) -> Iterator[dict[str, object]]:
    """Yield the keywords of all calls that are literals."""
    for call in ast.walk(ast.parse(code)):
        if isinstance(call, ast.Call):
            yield {key.arg or "**": key.value.value for key in call.keywords if isinstance(key.value, ast.Constant)}


def strings(code: str) -> list[str]:
    found = (each.value for each in ast.walk(ast.parse(code)) if isinstance(each, ast.Constant))
    return [value for value in found if isinstance(value, str)]


@pytest.mark.parametrize(("write", "name"), [(write, name) for write in WRITERS for name in fitting(write)])
def test_each_is_a_whole_program(write: Callable[[Scene], str], name: str) -> None:
    text = write(ALL[name])
    compile(text, name, "exec")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert max(map(len, text.splitlines())) <= 120
    assert ("client.crt" in text) == ("client.key" in text) == name.endswith("-mutual")
    assert ("ca.crt" in text) == name.endswith(("-mutual", "-tls"))


def test_redis_py_is_told_all_that_it_has_to_check() -> None:
    (options,) = [found for found in calls(redis_py(scene(alone(**MUTUAL)))) if found]
    assert options == {
        "host": "cache.dev.example.com",
        "port": 6400,
        "decode_responses": True,
        "socket_timeout": 5,
        "ssl": True,
        "ssl_ca_certs": "ca.crt",
        "ssl_certfile": "client.crt",
        "ssl_keyfile": "client.key",
        "ssl_check_hostname": True,
    }
    assert "client = RedisCluster(" in redis_py(ALL["cluster-tls"])


def test_where_tls_is_the_node_s_own_its_name_is_dialled() -> None:
    for write in (redis_py, valkey_glide):
        assert "primary.example.com" in strings(write(scene(group(**PASSTHROUGH))))
    told = strings(pymemcache(scene(memcached(**PASSTHROUGH))))
    assert {"node1.example.com", "node2.example.com", "node3.example.com"} <= set(told)


def test_discovery_is_asked_where_it_is() -> None:
    found = scene(memcached())
    assert "cache.dev.example.com:11214" in strings(django_elastipymemcache(found))
    assert "11214" in emcache(found)
    compile(emcache(found), "emcache", "exec")
    assert "11213" in pymemcache(found)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_strange_name_is_that_name(text: str) -> None:
    files = Files(f"{text}1", f"{text}2", f"{text}3")
    for write, (name, make), way in itertools.product(WRITERS, CACHES.items(), WAYS.values()):
        if f"{name}-clear" not in fitting(write):
            continue
        told = strings(write(scene(make(**way), text, files=files)))
        wanted = {text} if way is not PASSTHROUGH and write is not django_elastipymemcache else set()
        wanted |= {files.certificate, files.key, files.ca} if way is MUTUAL else set()
        assert wanted <= set(told)


def test_many_nodes_stand_below_each_other() -> None:
    routes = tuple(node(port, port, tls="off") for port in range(11211, 11251))
    text = pymemcache(scene(CacheView(id="x", engine="memcached", mode="memcached", routes=routes)))
    assert max(map(len, text.splitlines())) <= 120
    assert sum('("cache.dev.example.com", 112' in line for line in text.splitlines()) == 40
    compile(text, "x", "exec")
