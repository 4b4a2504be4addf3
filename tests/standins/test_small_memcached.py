from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheUnknownCommandError

from tests.standins.loop import LoopThread
from tests.standins.small_memcached import SmallMemcached

ADDRESS = "127.0.0.1"


@pytest.fixture
def client() -> Iterator[Client]:
    server = SmallMemcached()
    with LoopThread("memcached") as thread:
        thread.call(server.listen(ADDRESS, 0))
        assert server.port is not None
        client = Client((ADDRESS, server.port), default_noreply=False, timeout=5)
        yield client
        client.close()
        thread.call(server.close())


def test_values_are_kept_as_a_client_expects(client: Client) -> None:
    assert client.set("a", b"1\r\nEND\r\n")
    assert client.get("a") == b"1\r\nEND\r\n"
    assert not client.add("a", b"2")
    assert client.replace("a", b"3")
    assert client.get_many(["a", "b"]) == {"a": b"3"}
    assert client.gets("a") == (b"3", b"1")
    assert client.touch("a")
    assert client.delete("a")
    assert not client.delete("a")
    assert client.get("a") is None


def test_numbers_are_counted(client: Client) -> None:
    client.set("n", b"9")
    assert client.incr("n", 2) == 11
    assert client.decr("n", 20) == 0
    assert client.incr("other", 1) is None


def test_the_rest(client: Client) -> None:
    assert b"standin" in client.version()
    client.set("a", b"1", noreply=True)
    assert client.get("a") == b"1", "an order that wants no reply gets none"
    client.flush_all()
    assert client.get("a") is None
    with pytest.raises(MemcacheUnknownCommandError):
        client.raw_command(b"config get cluster")
