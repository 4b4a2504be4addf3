from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from natproxy.documents import (
    CacheView,
    LiveCache,
    LiveRoute,
    NodeName,
    RouteView,
    ShardView,
    Snippet,
    SnippetsDocument,
)
from natproxy.pages.cache import cache_page
from natproxy.pages.portal import portal_page
from natproxy.pages.problem import problem_page
from natproxy.pages.rendering import HEADERS, POLICY, render
from natproxy.pages.status import status_page
from tests.pages import samples
from tests.pages.samples import LINES, Element, cache_view, read, routes_document, status

PAGES: dict[str, Callable[[], str]] = {
    "status": lambda: status_page(status()),
    "empty status": lambda: status_page(status(caches=(), events=(), certificates=(), troubles=(), notes=())),
    "cache": lambda: cache_page(
        cache_view(), LINES, is_portal=False, public_host="cache.dev.example.com", local_lines=LINES
    ),
    "cache with connect": lambda: cache_page(cache_view(), LINES, is_portal=True, local_lines=LINES),
    "cache without ports": lambda: cache_page(
        cache_view(routes=(), reason="none yet"), SnippetsDocument(cache="orders"), is_portal=False, local_lines=LINES
    ),
    "portal": lambda: portal_page(routes_document(), certificate="dev1", expires=None, portal_port=6378),
    "empty portal": lambda: portal_page(routes_document(caches=()), certificate="x", expires=None, portal_port=1),
    "problem": lambda: problem_page(404, "There is no such cache", "Look again.", is_portal=False),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_sound(page: str) -> None:
    tree = read(PAGES[page]())
    html = tree.one("html")
    assert html.attributes["lang"] == "en"
    assert tree.one("title").text
    assert len(tree.find("h1")) == 1
    assert len(tree.find("main")) == len(tree.find("header")) == len(tree.find("footer")) == 1
    assert tree.one("a", class_="skip").attributes["href"] == "#main"
    assert tree.one("main").attributes["id"] == "main"
    assert [nav for nav in tree.find("nav") if not nav.attributes["aria-label"]] == []
    ids = [one.attributes["id"] for one in tree.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids)), "an id stands twice"
    for name in ("aria-labelledby", "aria-describedby"):
        for one in tree.all():
            assert set(one.attributes.get(name, "").split()) <= set(ids), one
    levels = [int(one.name[1]) for one in tree.all() if re.fullmatch(r"h[1-6]", one.name)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels


@pytest.mark.parametrize("page", PAGES)
def test_tables_can_be_read_aloud(page: str) -> None:
    for table in read(PAGES[page]()).find("table"):
        assert table.attributes["aria-labelledby"]
        assert all(head.attributes["scope"] == "col" for head in table.one("thead").find("th"))
        labels = [head.text for head in table.one("thead").find("th")]
        for row in [row for body in table.find("tbody") for row in body.find("tr")]:
            (head,) = row.find("th")
            if row.attributes.get("class") == "shard":
                assert head.attributes["scope"] == "rowgroup"
                continue
            assert head.attributes["scope"] == "row"
            cells = [cell for cell in row.children if isinstance(cell, Element)]
            assert [cell.attributes["data-label"] for cell in cells] == labels
        # Laid out as cards they are no tables to the browser any more: roles say it all the same.
        roles = {"table": "table", "thead": "rowgroup", "tbody": "rowgroup", "tr": "row", "td": "cell"}
        for one in [table, *table.all()]:
            assert one.attributes.get("role") == roles.get(one.name, one.attributes.get("role"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_obeys_its_own_policy(page: str) -> None:
    for one in read(PAGES[page]()).all():
        assert "style" not in one.attributes
        assert not any(name.startswith("on") for name in one.attributes)
        assert one.name not in ("style", "form", "base", "iframe", "object")
        if one.name == "script":
            assert one.raw == ""
        for name in ("src", "href"):
            assert re.fullmatch(r"[/#][^/]?.*", one.attributes.get(name, "/"), re.DOTALL), one


def test_the_policy_allows_nothing_that_is_not_ours() -> None:
    assert HEADERS["Content-Security-Policy"] == POLICY
    parts = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert parts.pop("img-src") == "'self' data:"
    assert parts.pop("default-src") == "'none'"
    assert set(parts.values()) == {"'none'", "'self'"}
    assert {name for name, value in parts.items() if value == "'self'"} == {"style-src", "script-src", "connect-src"}


def test_a_name_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("problem.html", status=404)


# Nothing that comes from outside gets out as markup.

HOSTILE = st.text(st.sampled_from("<>&\"'`=/ \\{}%#-!ax\x00\x1b\u202e\u2028\r\n\té"), min_size=1, max_size=30).map(
    lambda text: f"<q9>{text}\"'><q9 onload=q9>"
)
NAMES = st.fixed_dictionaries(dict.fromkeys("abcde", HOSTILE))


def hostile_route(kind: type[RouteView], n: dict[str, str]) -> RouteView:
    return kind(
        port=6379,
        kind=n["a"],
        node=NodeName(n["b"], n["c"]),
        role=n["d"],
        zone=n["e"],
        target=n["a"],
        addresses=(n["b"], n["c"]),
        state=n["d"],
        reason=n["e"],
        tls=n["a"],
        node_tls=n["b"],
        rewrite=n["c"],
        rewrite_note=n["d"],
    )


def hostile_pages(n: dict[str, str]) -> list[str]:
    route = hostile_route(LiveRoute, n)
    assert isinstance(route, LiveRoute)
    cache = LiveCache(
        id=n["a"],
        engine=n["b"],
        mode=n["c"],
        tls=n["d"],
        reason=n["e"],
        endpoints=(route,),
        shards=(ShardView(name=n["a"], nodes=(route,)),),
    )
    events = tuple(
        msgspec.structs.replace(event, text=n["a"], cache=n["b"], kind=n["c"], level=n["d"], time=n["e"])
        for event in samples.EVENTS
    )
    certificates = (msgspec.structs.replace(status().certificates[0], use=n["a"], subject=n["b"], state=n["c"]),)
    plain = CacheView(
        id=n["a"], engine=n["b"], mode=n["c"], tls=n["d"], reason=n["e"], routes=(hostile_route(RouteView, n),)
    )
    snippet = Snippet(client=n["a"], title=n["b"], language=n["c"], text=n["d"], note=n["e"])
    lines = SnippetsDocument(cache=n["a"], remarks=(n["b"],), snippets=(snippet,))
    whole = status(
        natproxy=n["a"],
        generated=n["b"],
        public_host=n["c"],
        is_ready=False,
        readiness=n["d"],
        troubles=(n["e"],),
        notes=(n["a"],),
        caches=(cache,),
        events=events,
        certificates=certificates,
    )
    directory = routes_document(public_host=n["a"], caches=(plain,))
    return [
        status_page(whole),
        cache_page(plain, lines, is_portal=False, public_host=n["e"], local_lines=lines),
        cache_page(plain, lines, is_portal=True, public_host=n["e"], local_lines=lines),
        portal_page(directory, certificate=n["b"], expires=n["c"], portal_port=6378),
        problem_page(404, n["a"], n["b"], is_portal=True),
    ]


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_nothing_from_outside_becomes_markup(names: dict[str, str]) -> None:
    for page in hostile_pages(names):
        tree = read(page)
        assert not tree.find("q9")
        assert not any("onload" in one.attributes or "q9" in one.attributes for one in tree.all())
        assert "<q9>" in tree.raw, "it is shown as the text that it is"
        assert not set(page) & set("\x00\x1b\u202e\u2028\r"), "control characters are shown, not sent"


def test_lines_to_be_copied_arrive_as_they_are() -> None:
    text = "if a < b && \"c\" {\n\tprint('d')\n}\n"
    lines = SnippetsDocument(cache="c", snippets=(Snippet(client="x", title="x", language="go", text=text),))
    tree = read(cache_page(cache_view(), lines, is_portal=False, local_lines=lines))
    assert tree.one("code", id="snippet-1").raw == text
