from __future__ import annotations

import re
import textwrap
from functools import partial
from pathlib import Path

import msgspec
import pytest

from natproxy.documents import CacheView, Snippet, SnippetsDocument
from natproxy.snippets import CLIENTS, Files, as_text, connect_snippets, snippets
from tests.scenarios.docblocks import Block, read_blocks
from tests.snippets.samples import (
    CACHES,
    CLEAR,
    HOST,
    HOSTILE,
    MUTUAL,
    PASSTHROUGH,
    TLS,
    WAYS,
    alone,
    cluster,
    group,
    memcached,
    static,
)

PAGE = (Path(__file__).parents[2] / "docs/clients.md").read_text(encoding="utf-8")
REDIS = ["redis-cli", "redis-py", "ioredis", "node-redis", "lettuce", "go-redis", "valkey-glide"]


def names(document: SnippetsDocument) -> list[str]:
    return [snippet.client for snippet in document.snippets]


@pytest.mark.parametrize(
    ("cache", "clients"),
    [
        (cluster(**MUTUAL), [*REDIS, "openssl"]),
        (group(**CLEAR), [*REDIS, "telnet"]),
        (alone(**PASSTHROUGH), [*REDIS, "openssl"]),
        (memcached(**TLS), ["pymemcache", "django-elastipymemcache", "openssl"]),
        (
            memcached(**CLEAR),
            ["pymemcache", "django-elastipymemcache", "emcache", "memcached-elasticache", "telnet"],
        ),
        (memcached(**PASSTHROUGH), ["pymemcache", "openssl"]),
        (static(), [*REDIS, "pymemcache", "telnet"]),
        (static(rewrite="redis"), [*REDIS, "telnet"]),
        (CacheView(id="x"), []),
    ],
)
def test_which_clients_a_cache_is_for(cache: CacheView, clients: list[str]) -> None:
    assert names(snippets(cache, public_host=HOST)) == clients


def test_behind_connect_the_first_line_is_connect_itself() -> None:
    document = connect_snippets(memcached(**MUTUAL), public_host=HOST, portal_port=6378, bundle="me.zip")
    assert document.snippets[0].text == f"natproxy connect {HOST} --bundle me.zip --cache my-memcached\n"
    clear = snippets(memcached(**CLEAR), public_host="127.0.0.1")
    assert document.snippets[1:] == clear.snippets
    assert connect_snippets(CacheView(id="x"), public_host=HOST, portal_port=6378).snippets == ()


def test_a_portal_on_another_port_is_named_and_without_one_there_is_no_line() -> None:
    lines = [connect_snippets(alone(), public_host=host, portal_port=7000).snippets[0].text for host in (HOST, "::1")]
    assert [line.split()[2] for line in lines] == [f"{HOST}:7000", "'[::1]:7000'"]
    off = connect_snippets(alone(), public_host=HOST, portal_port=None)
    assert (off.snippets, "has to switch `portal` on" in off.remarks[0]) == ((), True)


def test_all_names_are_of_one_list() -> None:
    used = {
        name
        for make in CACHES.values()
        for way in WAYS.values()
        for write in (snippets, partial(connect_snippets, portal_port=6378))
        for name in names(write(make(**way), public_host=HOST))
    }
    assert used == set(CLIENTS)
    assert len(used) == len(CLIENTS)


def test_files_are_named_as_they_are_called() -> None:
    document = snippets(alone(**MUTUAL), public_host=HOST, files=Files("a.pem", "b.pem", "c.pem"))
    for snippet in document.snippets:
        assert all(name in snippet.text for name in ("a.pem", "b.pem", "c.pem"))
        assert not re.search(r"ca\.crt|client\.(crt|key)", snippet.text)
    assert "a.pem" in document.remarks[0]


def test_a_document_can_be_read_from_its_json() -> None:
    document = snippets(group(), public_host=HOST)
    assert msgspec.json.decode(msgspec.json.encode(document), type=SnippetsDocument) == document


# as text


def test_as_text_each_client_has_a_heading_its_note_and_a_fence() -> None:
    document = snippets(cluster(**MUTUAL), public_host=HOST)
    text = as_text(document)
    assert text.startswith(f"# my-cluster\n\n{document.remarks[0]}\n")
    blocks = read_blocks(text.replace("```javascript", "```js"))
    assert [(block.title, block.code) for block in blocks] == [(each.title, each.text) for each in document.snippets]
    assert all(each.note in text for each in document.snippets)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_strange_name_ends_no_fence_and_begins_no_line(text: str) -> None:
    document = SnippetsDocument(cache=text, snippets=(Snippet(client="x", title="x", language="go", text=f"{text}\n"),))
    shown = as_text(document)
    heading, _, fence = shown.split("\n\n", 2)
    assert heading.removeprefix("# ").isprintable()
    opening, rest = fence.split("\n", 1)
    marks = opening.removesuffix("go")
    assert set(marks) == {"`"}
    assert rest == f"{text}\n{marks}\n"
    assert marks not in text


# docs/clients.md: its blocks are run by tests/scenarios/test_clients_doc.py, and are these lines with an example

EXAMPLE = re.compile(r"key:|number|greeting|\b[cC]ache\.set\b|const set = ")
CHECK = re.compile(r"key:0|\bping\(\)")


def documented() -> dict[str, Block]:
    """Return the blocks that snippets are printed for, by heading."""
    return {block.title: block for block in read_blocks(PAGE)}


def example_of(title: str) -> tuple[str, SnippetsDocument, SnippetsDocument]:
    """Return a client's name, and what is printed for the page's caches with TLS and without."""
    client = title.removeprefix("Group: ").removeprefix("Django: ").removesuffix(", without TLS")
    make = group if title.startswith("Group: ") else cluster if client in REDIS else memcached
    with_tls, clear = (snippets(make(**terms), public_host=HOST) for terms in (MUTUAL, CLEAR))
    return client, with_tls, clear


TITLES = [title for title in documented() if example_of(title)[0] in CLIENTS]


def lines_of(code: str) -> list[str]:
    """Return what connects: no example, no comment on TLS."""
    kept = (re.sub(r"\s*(#|//) TLS.*$", "", line) for line in re.sub(r"\\\n\s*", "", code).splitlines())
    return [line for line in kept if line and not EXAMPLE.search(line) and not CHECK.search(line)]


@pytest.mark.parametrize("title", TITLES)
def test_the_page_s_blocks_are_these_lines(title: str) -> None:
    block = documented()[title]
    client, with_tls, clear = example_of(title)
    pairs = [(clear, block.without_tls().code)]
    pairs += [] if title.endswith("without TLS") else [(with_tls, block.code)]
    for document, code in pairs:
        (snippet,) = [each for each in document.snippets if each.client == client]
        assert lines_of(code) == lines_of(snippet.text)


def test_the_page_has_all_that_is_printed() -> None:
    assert {example_of(title)[0] for title in TITLES} == set(CLIENTS) - {
        *("lettuce", "go-redis", "openssl", "telnet", "natproxy-connect"),
    }


@pytest.mark.parametrize(("client", "language"), [("lettuce", "java"), ("go-redis", "go")])
def test_what_nobody_has_run_stands_there_as_it_is_printed(client: str, language: str) -> None:
    found = re.findall(rf"^  ```{language}\n(.*?)^  ```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    document = snippets(cluster(**MUTUAL), public_host=HOST)
    printed = [snippet.text for snippet in document.snippets if snippet.client == client]
    assert [textwrap.dedent(code) for code in found] == [text.replace("\t", "    ") for text in printed]


def test_what_is_to_be_said_of_tls_is_said_where_there_is_any() -> None:
    for way, terms in WAYS.items():
        note = next(
            one.note for one in snippets(alone(**terms), public_host=HOST).snippets if one.client == "redis-cli"
        )
        assert ("but not the name in it" in note) == (way != "clear")
