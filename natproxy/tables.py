"""The tables that the commands show, for a wide and a narrow terminal. Pure: builds Rich's renderables.

What comes from outside is never read as Rich's markup, and cannot carry control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from natproxy.documents import CacheView, LocalRoute, PortsDocument, RoutesDocument, RouteView
from natproxy.printable import escaped

_STATE_STYLES = {"open": "green", "unreachable": "yellow", "absent": "bright_black", "error": "red"}
_STANDING_STYLES = {"valid": "green", "expiring": "yellow", "expired": "bright_black", "revoked": "red"}
_SECURITY = {"tls": ("TLS", "green"), "passthrough": ("client's TLS", ""), "off": ("not encrypted", "red")}
_GONE_STYLE = "yellow"
_WIDE = (
    "PORT", "CACHE", "KIND", "NODE", "ROLE", "ZONE", "STATE", "TLS", "NODE-TLS", "REWRITE", "TARGET", "CONNECTIONS",
)  # fmt: skip
_SPOKEN = {"terminate": " (TLS)", "passthrough": " (TLS passthrough)"}


def routes_wide(document: RoutesDocument) -> Table:
    """Return the routes with a column for everything."""
    table = _table()
    for name in _WIDE:
        table.add_column(name, no_wrap=True, justify="right" if name in ("PORT", "CONNECTIONS") else "left")
    for cache, route in _each(document):
        node = str(route.node) if route.node is not None else ""
        table.add_row(
            _port(route),
            _text(cache.id),
            _text(route.kind),
            _text(node),
            _text(route.role),
            _text(route.zone),
            _state(route),
            _text(route.tls if route.port is not None else None),
            _text(route.node_tls if route.port is not None else None),
            _text(route.rewrite if route.port is not None else None),
            _text(route.target),
            str(route.connections),
        )
    return table


def routes_narrow(document: RoutesDocument) -> Table:
    """Return the routes with the cache, what it leads to and the target one below the other; lines may break.

    Where clients speak TLS, that is said behind what the port leads to; where replies are rewritten, behind the cache.
    """
    table = _table()
    table.add_column("PORT", justify="right", no_wrap=True)
    table.add_column("CACHE, NODE, TARGET", overflow="fold", ratio=1)
    for name in ("ROLE", "ZONE", "STATE"):
        table.add_column(name, no_wrap=True)
    table.add_column("CONNS", justify="right", no_wrap=True)
    shown = None
    for cache, route in _each(document):
        if cache.id != shown:
            table.add_row("", _text(cache.id, "bold").append(_rewritten(cache), "not bold bright_black"))
            shown = cache.id
        what = _text(str(route.node) if route.node is not None else route.kind)
        if route.tls != "off":
            what.append(_SPOKEN.get(route.tls, f" ({escaped(route.tls)})"), "bright_black")
        if route.target is not None:
            what.append("\n").append_text(_text(route.target, "bright_black"))
        table.add_row(_port(route), what, _text(route.role), _text(route.zone), _state(route), str(route.connections))
    return table


def route_remarks(document: RoutesDocument) -> list[Text]:
    """Return a line for each route and cache that has a reason to be other than expected, then the notes.

    What is noted of how replies are rewritten is the same for all routes of a cache, as a rule, and said once.
    """
    remarks = []
    for cache in document.caches:
        if cache.reason:
            remarks.append(_text(f"{cache.id}: {cache.reason}"))
        for route in cache.routes:
            if route.reason:
                where = str(route.port) if route.port is not None else f"{cache.id} {route.node or route.kind}"
                remarks.append(_text(f"{where} {route.state}: {route.reason}"))
        noted = dict.fromkeys(route.rewrite_note for route in cache.routes if route.rewrite_note)
        remarks += [_text(f"{cache.id}: {note}") for note in noted]
    return remarks + [_text(note) for note in document.notes]


def ports_table(document: PortsDocument) -> Table:
    """Return the port map."""
    table = _table()
    table.add_column("PORT", justify="right", no_wrap=True)
    table.add_column("NODE", overflow="fold")
    table.add_column("CACHE", overflow="fold")
    table.add_column("KIND", no_wrap=True)
    table.add_column("GONE SINCE", no_wrap=True)
    for port in document.ports:
        table.add_row(
            str(port.port), _text(port.name), _text(port.cache), _text(port.kind), _text(port.gone_since, _GONE_STYLE)
        )
    return table


def local_wide(routes: Iterable[LocalRoute]) -> Table:
    """Return where everything is found on this computer."""
    table = _table()
    for name in ("CACHE", "KIND", "NODE", "ROLE", "HERE", "STATE", "INTERNET", "TRY", "NOTE"):
        table.add_column(name, no_wrap=name != "NOTE", overflow="fold")
    for route in routes:
        table.add_row(
            _text(route.cache),
            _text(route.kind),
            _text("" if route.node is None else str(route.node)),
            _text(route.role),
            _text(_here(route)),
            _text(route.state, _STATE_STYLES.get(route.state, "")),
            _text(*_SECURITY[route.security]),
            _text(route.command),
            _text(route.note),
        )
    return table


def local_narrow(routes: Iterable[LocalRoute]) -> Table:
    """Return the same with what a port leads to, and what is noted of it, below the cache; lines may break."""
    table = _table()
    table.add_column("HERE", no_wrap=True)
    table.add_column("CACHE, NODE, TRY", overflow="fold", ratio=1)
    for name in ("STATE", "INTERNET"):
        table.add_column(name, no_wrap=True)
    shown = None
    for route in routes:
        if route.cache != shown:
            table.add_row("", _text(route.cache, "bold"))
            shown = route.cache
        what = _text(str(route.node) if route.node is not None else route.kind)
        if route.role is not None:
            what.append(f" ({escaped(route.role)})", "bright_black")
        for more in (route.command, route.note):
            if more is not None:
                what.append("\n").append_text(_text(more, "bright_black"))
        state = _text(route.state, _STATE_STYLES.get(route.state, ""))
        table.add_row(_text(_here(route)), what, state, _text(*_SECURITY[route.security]))
    return table


def certificates_wide(rows: Iterable[tuple[str, str, str, str, str]]) -> Table:
    """Return the CA's certificates; a row is a name, a kind, a serial, a day and how it stands."""
    table = _table()
    for name in ("NAME", "KIND", "SERIAL", "UNTIL", "STATE"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*map(_text, row[:4]), _standing(row[4]))
    return table


def certificates_narrow(rows: Iterable[tuple[str, str, str, str, str]]) -> Table:
    """Return the same with the serial below the name; lines may break."""
    table = _table()
    table.add_column("NAME, SERIAL", overflow="fold", ratio=1)
    for name in ("KIND", "UNTIL", "STATE"):
        table.add_column(name, no_wrap=True)
    for owner, kind, serial, until, standing in rows:
        who = _text(owner).append("\n").append_text(_text(serial, "bright_black"))
        table.add_row(who, _text(kind), _text(until), _standing(standing))
    return table


def _each(document: RoutesDocument) -> Iterator[tuple[CacheView, RouteView]]:
    for cache in document.caches:
        for route in cache.routes:
            yield cache, route


def _here(route: LocalRoute) -> str:
    return "-" if route.local_port is None else f"{route.local_host}:{route.local_port}"


def _rewritten(cache: CacheView) -> str:
    kinds = dict.fromkeys(route.rewrite for route in cache.routes if route.rewrite != "off")
    return f" (rewrite: {escaped(', '.join(kinds))})" if kinds else ""


def _standing(standing: str) -> Text:
    return _text(standing, _STANDING_STYLES.get(standing.partition(" ")[0], ""))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")


def _port(route: RouteView) -> str:
    return "-" if route.port is None else str(route.port)


def _state(route: RouteView) -> Text:
    return _text(route.state, _STATE_STYLES.get(route.state, ""))


def _text(value: str | None, style: str = "") -> Text:
    return Text(escaped(value or ""), style)
