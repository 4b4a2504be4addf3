from __future__ import annotations

from typing import Any

import msgspec
import pytest

from natproxy.documents import CacheView
from natproxy.snippets import connect_snippets, snippets
from tests.snippets.samples import (
    CLEAR,
    HOST,
    IP,
    MUTUAL,
    PASSTHROUGH,
    TLS,
    alone,
    cluster,
    group,
    memcached,
    node,
    route,
    static,
)


def remarks(cache: CacheView, public_host: str | None = HOST, public_ip: str | None = IP) -> str:
    return "\n".join(snippets(cache, public_host=public_host, public_ip=public_ip).remarks)


def local(cache: CacheView) -> str:
    return "\n".join(connect_snippets(cache, public_host=HOST, portal_port=6378).remarks)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (MUTUAL, "client.crt, client.key and ca.crt are those of your bundle"),
        (TLS, "ca.crt is the certificate of the CA that has signed natproxy's own"),
        (CLEAR, "Nothing is encrypted here"),
        (PASSTHROUGH, "TLS is spoken with the node itself"),
    ],
)
def test_what_is_spoken(terms: dict[str, Any], words: str) -> None:
    said = remarks(alone(**terms))
    assert said.count(words) == said.count("\n") + 1 == 1


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        (cluster(), "Port 6385 is all that a cluster client needs"),
        (cluster(rewrite="off"), "on port 6379 replies are passed on as they are"),
        (group(), "Write to port 6391 (primary, also after a failover); read from port 6392 (reader)."),
        (group(**PASSTHROUGH), "for reading take port 6392 and the name reader.example.com."),
        (msgspec.structs.replace(group(), routes=group().routes[:2]), "Port 6390 is one node's."),
        (memcached(), "Clients with auto discovery take port 11214 alone"),
        (static(), "natproxy does not know what is behind this port"),
    ],
)
def test_what_the_ports_are_for(cache: CacheView, words: str) -> None:
    assert words in remarks(cache)


def test_a_port_that_leads_nowhere_now_is_told() -> None:
    routes = (route(6391, "primary", state="unreachable"), route(6392, "reader"))
    said = remarks(msgspec.structs.replace(group(), routes=routes))
    assert said.startswith("Port 6391 is unreachable at the moment; `natproxy routes` shows the operator why.\n")


def test_names_that_lead_nowhere_are_told_where_to_lead() -> None:
    assert '/etc/hosts: "203.0.113.73 node1.example.com"' in remarks(alone(**PASSTHROUGH))
    assert '/etc/hosts: "127.0.0.1 node1.example.com"' in local(alone(**PASSTHROUGH))
    said = remarks(memcached(**PASSTHROUGH))
    assert said.count("203.0.113.73 node") == 3
    unknown = remarks(alone(**PASSTHROUGH, target=None))
    assert "NODE-NAME" in unknown
    assert "Ask the operator what to write in place of NODE-NAME" in unknown


def test_without_a_public_host_it_is_said_what_to_do() -> None:
    assert "public_host" not in remarks(alone())
    assert "203.0.113.73 is natproxy's public address; the operator may set public_host" in remarks(alone(), None)
    document = snippets(alone(), public_host=None)
    assert "in place of NATPROXY-HOST, and have the operator set public_host" in document.remarks[0]
    assert all("NATPROXY-HOST" in snippet.text for snippet in document.snippets)


def test_behind_connect_it_is_said_what_leaves_the_computer() -> None:
    assert "what leaves that computer is encrypted" in local(alone(**MUTUAL))
    assert "is not encrypted" in local(alone(**CLEAR))
    assert "encrypted" not in local(alone(**PASSTHROUGH))


def test_what_has_no_port_says_why() -> None:
    routes = (node(None, 1, reason="the range 1-2 is full"),)
    for make in (remarks, local):
        assert make(CacheView(id="x", routes=routes)) == "It has no port yet: the range 1-2 is full."
        assert make(CacheView(id="x", reason="waiting\nfor AWS")) == "It has no port yet: waiting\\nfor AWS."
        assert make(CacheView(id="x")) == "It has no port yet: `natproxy routes` shows the operator why."
