from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymemcache.client.base import Client

from tests.standins.caches import is_port_free
from tests.standins.memcached_front import (
    CONFIG_GET,
    CONFIG_ITEM,
    NOOP,
    AutoDiscoveringClient,
    FrontedMemcached,
    block_bytes,
    node_list,
    packet,
    split_words,
)
from tests.standins.resp import ask_line

needs_memcached = pytest.mark.skipif(shutil.which("memcached") is None, reason="memcached is not installed")
either = pytest.mark.parametrize("prefer_real", [pytest.param(True, marks=needs_memcached), False])
ADDRESS = "127.3.1.1"
NODES = [("a.example", "10.0.1.230", 11211), ("b.example", "", 11212)]
LIST = b"12\na.example|10.0.1.230|11211 b.example||11212\n"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def node(port: int) -> Iterator[FrontedMemcached]:
    with FrontedMemcached(ADDRESS, port) as node:
        node.front.tell(12, NODES)
        yield node


def converse(port: int, asked: bytes, size: int) -> bytes:
    """Send all at once, and read so many bytes, which must be all that comes."""
    with socket.create_connection((ADDRESS, port), 5) as connection, connection.makefile("rb") as stream:
        connection.sendall(asked)
        answer = stream.read(size)
        connection.shutdown(socket.SHUT_WR)
        return answer + stream.read()


@either
def test_the_list_is_told_in_turn_and_all_else_passes(port: int, prefer_real: bool) -> None:
    asked = (
        b"set a 0 0 20\r\nconfig get cluster\r\n\r\n"
        b"get a\r\nversion\r\nconfig get cluster\r\nget a\r\n"
        b"set b 0 0 1 noreply\r\nx\r\nversion\r\nconfig get cluster\n"
    )
    told = b"CONFIG cluster 0 %d\r\n" % len(LIST) + LIST + b"\r\nEND\r\n"
    value = b"VALUE a 0 20\r\nconfig get cluster\r\n\r\nEND\r\n"
    with FrontedMemcached(ADDRESS, port, prefer_real=prefer_real) as node:
        node.front.tell(12, NODES)
        version = ask_line(ADDRESS, port, "version").encode() + b"\r\n"
        expected = b"STORED\r\n" + value + version + told + value + version + told
        assert converse(port, asked, len(expected)) == expected
        assert node.front.asked == 2
    assert is_port_free(ADDRESS, port)


@needs_memcached
def test_the_list_is_told_in_binary_too(node: FrontedMemcached) -> None:
    ask = packet(CONFIG_GET, b"1234", b"", b"", key=b"cluster", magic=0x80)
    noop = packet(NOOP, b"5678", b"", b"", magic=0x80)
    told = packet(CONFIG_GET, b"1234", bytes(4), LIST)
    other = packet(NOOP, b"5678", b"", b"")
    expected = other + told + other + told
    assert converse(node.port, noop + ask + noop + ask, len(expected)) == expected


@needs_memcached
def test_an_old_one_has_the_list_as_an_item(port: int) -> None:
    with FrontedMemcached(ADDRESS, port, is_old=True) as node:
        node.front.tell(12, NODES)
        assert ask_line(ADDRESS, port, "config get cluster") == "ERROR"
        client = Client((ADDRESS, port), timeout=5)
        assert client.get_many([CONFIG_ITEM, "other"]) == {CONFIG_ITEM: LIST}
        client.close()


def test_a_client_discovers_the_nodes_hashes_and_follows(port: int) -> None:
    with FrontedMemcached(ADDRESS, port) as node, FrontedMemcached("127.3.1.2", port) as other:
        node.front.tell(1, [("a.example", ADDRESS, port)])
        client = AutoDiscoveringClient((ADDRESS, port), timeout=5, default_noreply=False)
        keys = [f"key-{number}" for number in range(50)]
        assert client.set_many(dict.fromkeys(keys, b"1")) == []
        node.front.tell(2, [("a.example", ADDRESS, port), ("b.example", "127.3.1.2", port)])
        assert client.discover() == [(ADDRESS, str(port)), ("127.3.1.2", str(port))]
        assert 0 < len(client.get_many(keys)) < len(keys), "some keys are the new node's now"
        client.close()
        other.front.tell(3, [("127.3.1.2", "", port)])
        by_name = AutoDiscoveringClient(("127.3.1.2", port), by_name=True, timeout=5)
        assert list(by_name.clients) == [f"127.3.1.2:{port}"]
        by_name.close()


def test_an_empty_list_fails_a_client_at_once(port: int) -> None:
    with FrontedMemcached(ADDRESS, port) as node:
        node.front.tell(0, [])
        with pytest.raises(IndexError):
            AutoDiscoveringClient((ADDRESS, port), timeout=5)


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"set k 0 0 5\r\n", 7),
        (b"set k 0 0 5 noreply\r\n", 7),
        (b"set k 0 -1 0\r\n", 2),
        (b"cas k 0 0 5 9\r\n", 7),
        (b"ms k 5 T0\r\n", 7),
        (b"set k 0 0 5 noreply more\r\n", 0),
        (b"set k 0 0\r\n", 0),
        (b"set k x 0 5\r\n", 0),
        (b"set k 0 0 -5\r\n", 0),
        (b"cas k 0 0 5\r\n", 0),
        (b"ms k S5\r\n", 0),
        (b"set " + b"k" * 251 + b" 0 0 5\r\n", 0),
        (b"get k\r\n", 0),
        (b"\r\n", 0),
    ],
)
def test_what_memcached_takes_after_a_line(line: bytes, size: int) -> None:
    assert block_bytes(split_words(line)) == size


@needs_memcached
def test_it_runs_as_a_program_and_follows_what_it_is_told(port: int) -> None:
    with FrontedMemcached(ADDRESS, port) as node:
        pair = f"127.3.1.3:{port}={ADDRESS}:{node.clear_port}"
        with subprocess.Popen(
            [sys.executable, "-m", "tests.standins.memcached_front", pair],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            print(f"3 a.example|127.3.1.3|{port}", file=program.stdin, flush=True)
            assert program.stdout.readline() == "told\n"
            client = AutoDiscoveringClient(("127.3.1.3", port), timeout=5)
            assert list(client.clients) == [f"127.3.1.3:{port}"]
            client.close()
            program.stdin.close()
            assert program.wait(10) == 0


def test_a_list_reads_as_aws_documents_it() -> None:
    assert node_list(12, NODES) == LIST
