from __future__ import annotations

from typing import Any

import msgspec
import pytest

from natproxy.connect.routes import Remote
from natproxy.connect.shown import called, changed, happened, local_route, opened, summary, where
from natproxy.documents import LocalRoute, NodeName
from tests.connect.test_routes import remote, view

NODE = NodeName("my-redis-001", "0001")


def line(local_port: int | None = 6379, **more: Any) -> LocalRoute:
    return local_route(remote(**more), local_port)


def test_where_it_is_and_what_it_leads_to() -> None:
    assert (called(line(node=NODE)), where(line())) == ("my-redis my-redis-001/0001", "127.0.0.1:6379")
    assert called(line(kind="primary")) == "my-redis primary"
    assert called(line(kind="static", cache="legacy")) == "legacy"
    assert where(line(None)) == "nowhere here"
    assert opened(line(6382, kind="reader")) == "my-redis reader is at 127.0.0.1:6382 now (6379 is taken here)"


@pytest.mark.parametrize(
    ("one", "command"),
    [
        (remote(), "redis-cli -c -p 6379"),
        (remote(mode="serverless"), "redis-cli -c -p 6379"),
        (remote(mode="cluster-disabled"), "redis-cli -p 6379"),
        (remote(tls="passthrough"), "redis-cli --tls -p 6379"),
        (Remote("mc", "memcached", "memcached", view(rewrite="memcached")), "nc 127.0.0.1 6379"),
        (
            Remote("mc", "memcached", "memcached", view(tls="passthrough")),
            "openssl s_client -quiet -connect 127.0.0.1:6379",
        ),
        (Remote("legacy", "", "static", view(kind="static")), "nc 127.0.0.1 6379"),
        (Remote("legacy", "", "static", view(kind="static", rewrite="memcached")), "nc 127.0.0.1 6379"),
        (
            Remote("legacy", "", "static", view(kind="static", tls="passthrough")),
            "openssl s_client -quiet -connect 127.0.0.1:6379",
        ),
        (Remote("legacy", "", "static", view(kind="static", rewrite="redis")), "redis-cli -p 6379"),
    ],
)
def test_what_can_be_typed(one: Remote, command: str) -> None:
    assert local_route(one, 6379).command == command


def test_what_is_not_as_one_would_expect_is_noted() -> None:
    assert line().note is None
    assert local_route(remote(), 16379, offset=10_000).note is None
    assert line(6380).note == "6379 is taken here"
    assert local_route(remote(), None, why_not="no port is left for it here").note == "no port is left for it here"
    assert line(None, state="error").note == "natproxy does not serve its port 6379 now"
    assert local_route(remote(None), None).note == "it has no port at natproxy"
    assert line(tls="off").note == "NOT ENCRYPTED on the Internet"
    assert "the node itself" in (line(tls="passthrough").note or "")
    assert (line(tls="off").security, line().security) == ("off", "tls")


def test_what_is_new_about_a_route_is_told() -> None:
    assert changed(line(role="replica"), line(role="primary")) == "my-redis node (127.0.0.1:6379) is the primary now"
    assert changed(line(role="primary"), line(role="replica")) == "my-redis node (127.0.0.1:6379) is a replica now"
    assert changed(line(), line(state="unreachable")).endswith("is unreachable at natproxy")
    assert changed(line(state="absent"), line()).endswith("is open again at natproxy")
    assert changed(line(), line(tls="off")).endswith("NOT ENCRYPTED on the Internet from now on")
    assert changed(line(zone="eu-west-1a"), line(zone="eu-west-1b")) == ""
    assert changed(line(role="primary"), line(role=None)) == ""


def test_an_event_says_when_in_utc() -> None:
    event = happened("opened", "it is open", 1_795_000_000.9, [line()])
    assert msgspec.to_builtins(event) | {"routes": None} == {
        "version": 1,
        "time": "2026-11-18T11:06:40Z",
        "event": "opened",
        "message": "it is open",
        "routes": None,
    }


def test_the_summary_counts_what_is_served() -> None:
    both = [line(), line(6380, cache="other"), line(None, state="error")]
    assert (
        summary("h", "dev1", "2027-01-01", both)
        == "2 ports of 2 caches behind h, as dev1 (certificate valid until 2027-01-01)"
    )
    assert summary("h", "dev1", "2027-01-01", [line()]).startswith("1 port of 1 cache behind")
