from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal

import msgspec
import pytest
from rich.console import Console
from rich.table import Table

from natproxy.documents import CacheView, LocalRoute, NodeName, PortsDocument, RoutesDocument, RouteView
from natproxy.tables import (
    certificates_narrow,
    certificates_wide,
    local_narrow,
    local_wide,
    ports_table,
    route_remarks,
    routes_narrow,
    routes_wide,
)
from tests.controller.source import PORTS, ROUTES

DOCUMENT = msgspec.convert(ROUTES, RoutesDocument)
TARGET = "my-redis-0001-001.abcdef.0001.euw1.cache.amazonaws.com:6379"


def shown(table: Table, width: int, *, colours: bool = False) -> str:
    stream = io.StringIO()
    system: Literal["standard"] | None = "standard" if colours else None
    Console(file=stream, width=width, highlight=False, force_terminal=colours, color_system=system).print(table)
    return stream.getvalue()


def test_a_wide_table_has_a_line_for_each_route() -> None:
    lines = [line.split() for line in shown(routes_wide(DOCUMENT), 200).splitlines()]
    assert lines[0] == [
        "PORT",
        "CACHE",
        "KIND",
        "NODE",
        "ROLE",
        "ZONE",
        "STATE",
        "TLS",
        "NODE-TLS",
        "REWRITE",
        "TARGET",
        "CONNECTIONS",
    ]
    assert lines[2] == [
        *(
            "6379",
            "my-redis",
            "node",
            "my-redis-0001-001/0001",
            "primary",
            "eu-west-1a",
            "open",
            "off",
            "off",
            "off",
            TARGET,
            "12",
        )
    ]
    assert lines[3][:4] == ["6380", "my-redis", "configuration", "unreachable"]
    assert lines[4] == ["-", "my-redis", "node", "my-redis-0001-002/0001", "error", "0"]
    assert len(lines) == 5


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_table_fits_and_loses_nothing(width: int) -> None:
    text = shown(routes_narrow(DOCUMENT), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    for word in ("6379", "my-redis", "primary", "eu-west-1a", "open", "unreachable", "configuration", "12"):
        assert word in text
    assert TARGET in "".join(text.split())


def test_a_cache_is_named_once_in_a_narrow_table() -> None:
    lines = [line.strip() for line in shown(routes_narrow(DOCUMENT), 100).splitlines()]
    assert lines.count("my-redis") == 1


@pytest.mark.parametrize(
    ("tls", "wide", "narrow"),
    [
        ("off", "off", "primary"),
        ("terminate", "terminate", "primary (TLS)"),
        ("passthrough", "passthrough", "primary (TLS passthrough)"),
        ("[b]later", "[b]later", "primary ([b]later)"),
    ],
)
def test_both_tables_say_what_clients_speak(tls: str, wide: str, narrow: str) -> None:
    route = RouteView(port=6379, kind="primary", state="open", tls=tls, target="a.example:6379")
    document = RoutesDocument(generated="", caches=(CacheView(id="my-redis", routes=(route,)),))
    assert shown(routes_wide(document), 200).splitlines()[2].split()[4] == wide
    assert f"{narrow} " in shown(routes_narrow(document), 80)
    assert ("TLS" in shown(routes_narrow(document), 80)) is ("TLS" in narrow)


@pytest.mark.parametrize(
    ("rewrite", "narrow"), [("redis", " (rewrite: redis)"), ("[b]x", " (rewrite: [b]x)"), ("off", "")]
)
def test_both_tables_say_what_is_rewritten(rewrite: str, narrow: str) -> None:
    route = RouteView(port=6379, kind="primary", state="open", rewrite=rewrite, target="a.example:6379")
    views = tuple(
        CacheView(id=name, routes=(route, RouteView(port=None, kind="reader", state="error"))) for name in "cd"
    )
    document = RoutesDocument(generated="", caches=views)
    lines = [line.split() for line in shown(routes_wide(document), 200).splitlines()]
    assert lines[2][4:8] == ["off", "off", rewrite, "a.example:6379"]
    assert lines[3] == ["-", "c", "reader", "error", "0"]
    text = [line.strip() for line in shown(routes_narrow(document), 80).splitlines()]
    assert f"c{narrow}" in text
    assert f"d{narrow}" in text


def test_what_is_noted_of_rewriting_is_said_once_for_each_cache() -> None:
    def view(name: str, *notes: str | None) -> CacheView:
        return CacheView(
            id=name, routes=tuple(RouteView(port=1, kind="node", state="open", rewrite_note=note) for note in notes)
        )

    document = RoutesDocument(
        generated="", caches=(view("a", "x", "x", None), view("b", "x", "[red]"), view("c", None))
    )
    assert [str(remark) for remark in route_remarks(document)] == ["a: x", "b: x", "b: [red]"]


def test_remarks_tell_every_reason_and_note() -> None:
    assert [str(remark) for remark in route_remarks(DOCUMENT)] == [
        "6380 unreachable: 10.0.1.231:6379 refused the connection",
        "my-redis my-redis-0001-002/0001 error: the range 6379-6380 is full",
        "my-radis: AWS knows no such cache",
        "AWS knows no cache called my-radis",
    ]


def test_the_port_map_names_what_release_takes() -> None:
    lines = [line.split() for line in shown(ports_table(msgspec.convert(PORTS, PortsDocument)), 100).splitlines()]
    assert lines[0] == ["PORT", "NODE", "CACHE", "KIND", "GONE", "SINCE"]
    assert lines[2] == ["6379", "my-redis-0001-001/0001", "my-redis", "node"]
    assert lines[3] == ["6381", "my-redis-0001-003/0001", "my-redis", "node", "2025-01-30T08:15:00Z"]


def test_states_have_colours_on_a_terminal() -> None:
    text = shown(routes_wide(DOCUMENT), 200, colours=True)
    assert "\x1b[32mopen" in text
    assert "\x1b[31merror" in text


@pytest.mark.parametrize("table", [routes_wide, routes_narrow])
def test_what_comes_from_outside_is_neither_markup_nor_control(table: Callable[[RoutesDocument], Table]) -> None:
    route = RouteView(port=1, kind="node", state="[blink]x", zone="\x1b[2J", target="a\nb[/]", role="[red]")
    text = shown(table(RoutesDocument(generated="", caches=(CacheView(id="[bold]c", routes=(route,)),))), 200)
    assert "\x1b" not in text
    for shown_as_is in ("[blink]x", r"\x1b[2J", r"a\nb[/]", "[red]", "[bold]c"):
        assert shown_as_is in text


SERIAL = "4C2F6DF3804EBB4189504BA7F3D3D04F91335191"
CERTIFICATES = [
    ("cache.dev.example.com", "server", SERIAL, "2026-03-04", "valid"),
    ("x" * 64, "client", SERIAL, "2025-05-01", "revoked 2025-01-31"),
]


def test_certificates_have_a_line_each_where_there_is_room() -> None:
    lines = [line.split() for line in shown(certificates_wide(CERTIFICATES), 200).splitlines()]
    assert lines[0] == ["NAME", "KIND", "SERIAL", "UNTIL", "STATE"]
    assert lines[2] == ["cache.dev.example.com", "server", SERIAL, "2026-03-04", "valid"]
    assert lines[3] == ["x" * 64, "client", SERIAL, "2025-05-01", "revoked", "2025-01-31"]


def test_certificates_fit_into_80_columns() -> None:
    text = shown(certificates_narrow(CERTIFICATES), 80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count(SERIAL) == 2
    assert text.count("x") == 64 + "cache.dev.example.com".count("x")


@pytest.mark.parametrize("table", [certificates_wide, certificates_narrow])
def test_how_a_certificate_stands_has_its_colour(
    table: Callable[[list[tuple[str, str, str, str, str]]], Table],
) -> None:
    text = shown(table(CERTIFICATES), 200, colours=True)
    assert "\x1b[32mvalid" in text
    assert "\x1b[31mrevoked 2025-01-31" in text


LOCAL = (
    LocalRoute(
        cache="my-redis",
        kind="node",
        node=NodeName("my-redis-0001-001", "0001"),
        role="primary",
        port=6379,
        local_host="127.0.0.1",
        local_port=6380,
        state="open",
        security="tls",
        command="redis-cli -c -p 6380",
        note="6379 is taken here",
    ),
    LocalRoute(cache="le\x1b[31mgacy", kind="static", port=6490, state="error", security="off"),
)


def test_what_is_on_this_computer_has_a_line_for_each_route() -> None:
    lines = shown(local_wide(LOCAL), 200).splitlines()
    assert lines[0].split() == ["CACHE", "KIND", "NODE", "ROLE", "HERE", "STATE", "INTERNET", "TRY", "NOTE"]
    first = ["my-redis", "node", "my-redis-0001-001/0001", "primary", "127.0.0.1:6380", "open", "TLS"]
    assert lines[2].split() == [*first, *["redis-cli", "-c", "-p", "6380", "6379", "is", "taken", "here"]]
    assert lines[3].split() == ["le\\x1b[31mgacy", "static", "-", "error", "not", "encrypted"]


def test_a_narrow_terminal_gets_the_same_below_each_other() -> None:
    lines = shown(local_narrow(LOCAL), 80).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for words in (
        "my-redis 127.0.0.1:6380 my-redis-0001-001/0001 (primary) open TLS redis-cli -c -p 6380 6379 is taken",
    ):
        assert words in text
    assert "le\\x1b[31mgacy" in text
