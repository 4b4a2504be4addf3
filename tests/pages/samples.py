"""A status document with something of everything, and pages read back as elements."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from natproxy.documents import (
    CacheView,
    CertificateView,
    DiscoveryView,
    EventView,
    LiveCache,
    LiveRoute,
    NodeName,
    RoutesDocument,
    RouteView,
    ShardView,
    Snippet,
    SnippetsDocument,
    StatusDocument,
    Traffic,
)

BUSY = Traffic(
    client_bytes_per_second=1_234_567.0,
    node_bytes_per_second=45_600.0,
    history=tuple(round(600_000 * (1 + math.sin(step / 5))) for step in range(60)),
    dial_p50_seconds=0.00042,
    dial_p99_seconds=0.0123,
    refusals=3,
)


def live(port: int | None, cluster: str, role: str | None, zone: str, **fields: object) -> LiveRoute:
    """A node's route; ``fields`` are more of LiveRoute's."""
    values = {
        "kind": "node",
        "node": NodeName(cluster, "0001"),
        "role": role,
        "zone": zone,
        "target": f"{cluster}.abc123.0001.euw1.cache.amazonaws.com:6379",
        "addresses": (f"10.0.1.{(port or 0) % 200}:6379",),
        "state": "open",
        "tls": "terminate",
        "certificate": True,
        "node_tls": "on",
        "rewrite": "redis",
        **fields,
    }
    return LiveRoute(port=port, **values)  # type: ignore[arg-type]


def status(**fields: object) -> StatusDocument:
    """A document; ``fields`` replace those of StatusDocument."""
    sharded = LiveCache(
        id="orders",
        engine="valkey",
        mode="cluster-enabled",
        tls="required",
        endpoints=(
            LiveRoute(port=6383, kind="configuration", target="orders.abc123.clustercfg:6379", state="open", tls="off"),
        ),
        shards=(
            ShardView(
                name="0001",
                nodes=(
                    live(6379, "orders-0001-001", "primary", "eu-west-1a", traffic=BUSY, connections=12),
                    live(6380, "orders-0001-002", "replica", "eu-west-1b", traffic=Traffic(refusals=1)),
                ),
            ),
            ShardView(
                name="0002",
                nodes=(
                    live(6381, "orders-0002-001", "replica", "eu-west-1b"),
                    live(6382, "orders-0002-002", "primary", "eu-west-1a", traffic=BUSY, connections=4),
                ),
            ),
        ),
    )
    plain = LiveCache(
        id="sessions",
        engine="redis",
        mode="cluster-disabled",
        tls="off",
        shards=(
            ShardView(
                nodes=(
                    live(
                        6390,
                        "sessions-001",
                        "primary",
                        "eu-west-1a",
                        state="unreachable",
                        reason="connect-timeout: no answer within 3 s",
                        node_tls="off",
                    ),
                    live(6391, "sessions-002", "replica", "eu-west-1c", state="absent", reason="AWS gives no address"),
                    live(
                        None, "sessions-003", "replica", "eu-west-1c", state="error", reason="no free port in 6390-6391"
                    ),
                )
            ),
        ),
    )
    waiting = LiveCache(id="reports", reason="AWS knows no cache of this id")
    values: dict[str, object] = {
        "natproxy": "0.1.0",
        "generated": "2026-01-31T12:00:00Z",
        "uptime_seconds": 93_784.5,
        "public_host": "cache.dev.example.com",
        "is_ready": True,
        "readiness": "ready",
        "troubles": ("natproxy's certificate has expired",),
        "notes": ("reports: AWS knows no cache of this id",),
        "discovery": DiscoveryView(state="ok", age_seconds=7.2, interval_seconds=15.0),
        "workers_running": 2,
        "workers_wanted": 2,
        "step_seconds": 2.0,
        "total": BUSY,
        "certificates": (
            certificate("certificate", "CN=cache.dev.example.com", "expired", -2),
            certificate("client_ca", "CN=natproxy clients", "valid", 3000),
            certificate("crl", "CN=natproxy clients", "expiring", 3),
        ),
        "caches": (sharded, plain, waiting),
        "events": EVENTS,
        **fields,
    }
    return StatusDocument(**values)  # type: ignore[arg-type]


def certificate(use: str, subject: str, state: str, days: int) -> CertificateView:
    """One certificate in use."""
    return CertificateView(use=use, subject=subject, expires="2026-02-02T00:00:00Z", days_left=days, state=state)


EVENTS = (
    EventView(
        id=4,
        time="2026-01-31T11:59:40Z",
        kind="refusal",
        level="warning",
        text="turned away on port 6380: address not allowed (3)",
        cache="orders",
        port=6380,
        count=3,
    ),
    EventView(
        id=3,
        time="2026-01-31T11:58:00Z",
        kind="failover",
        level="info",
        text="orders-0002-002/0001 is primary now; it was replica",
        cache="orders",
        node="orders-0002-002/0001",
    ),
    EventView(
        id=2,
        time="2026-01-31T11:50:00Z",
        kind="reload",
        level="error",
        text="reload refused, the old config stays: natproxy.yaml:3: caches[0].ports: must be a range",
    ),
    EventView(id=1, time="2026-01-30T23:10:00Z", kind="life", level="info", text="natproxy 0.1.0 runs"),
)


def cache_view(**fields: object) -> CacheView:
    """The cache ``orders`` as the page of a cache gets it."""
    routes = (
        RouteView(
            port=6379,
            kind="node",
            node=NodeName("orders-0001-001", "0001"),
            role="primary",
            zone="eu-west-1a",
            target="orders-0001-001.abc123.cache.amazonaws.com:6379",
            addresses=("10.0.1.20:6379",),
            state="open",
            tls="terminate",
            certificate=True,
            node_tls="on",
            rewrite="redis",
        ),
        RouteView(port=6383, kind="configuration", state="unreachable", reason="not resolved yet", tls="passthrough"),
    )
    values = {"id": "orders", "engine": "valkey", "mode": "cluster-enabled", "tls": "required", "routes": routes}
    return CacheView(**{**values, **fields})  # type: ignore[arg-type]


LINES = SnippetsDocument(
    cache="orders",
    remarks=("The files are those of your bundle.",),
    snippets=(
        Snippet(
            client="redis-cli",
            title="redis-cli",
            language="shell",
            text="redis-cli -c --tls -h cache.dev.example.com -p 6379 \\\n    --cacert ca.crt\n",
        ),
        Snippet(
            client="go-redis",
            title="go-redis",
            language="go",
            text='package main\n\nfunc main() {\n\tprintln("<hello> & goodbye")\n}\n',
            note="Needs go-redis 9 or newer.",
        ),
    ),
)


def routes_document(**fields: object) -> RoutesDocument:
    """What a developer may use."""
    values = {"public_host": "cache.dev.example.com", "generated": "2026-01-31T12:00:00Z", "caches": (cache_view(),)}
    return RoutesDocument(**{**values, **fields})  # type: ignore[arg-type]


# --- pages read back

_VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})


@dataclass
class Element:
    """One element of a page."""

    name: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def all(self) -> Iterator[Element]:
        """Yield all elements below it, in the page's order."""
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.all()

    def find(self, name: str = "", **attributes: str) -> list[Element]:
        """Return the elements of that name below it that have these attributes (``data_x`` is ``data-x``)."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [
            one for one in self.all() if one.name == (name or one.name) and wanted.items() <= one.attributes.items()
        ]

    def one(self, name: str = "", **attributes: str) -> Element:
        """Return the one element that ``find`` finds."""
        (found,) = self.find(name, **attributes)
        return found

    @property
    def raw(self) -> str:
        """All text in it, as it is."""
        return "".join(child if isinstance(child, str) else child.raw for child in self.children)

    @property
    def text(self) -> str:
        """All text in it, with single spaces."""
        return " ".join(self.raw.split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> where </{self.open[-1].name}> is due"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: str) -> Element:
    """Return the page as a tree; AssertionError where its tags do not match."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].name}> is left open"
    return reader.open[0]
