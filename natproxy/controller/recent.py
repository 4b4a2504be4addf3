"""What happened of late, for the status page: chosen lines of the log, in sentences, and refusals. Pure but for that.

At most 70 events and 30 refusals are kept, apart, so that a scanner cannot push a failover out. Clients' addresses are
not among what is kept. What happens to many nodes or ports of a cache at once, as at a start, is one event with a
count; refusals are one event a minute for each port.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from natproxy.controller.logs import Value, shown
from natproxy.documents import EventView
from natproxy.model import Kind, NodeId, Outcome, RouteKey
from natproxy.printable import escaped

MOST_EVENTS = 70
MOST_REFUSALS = 30
MOST_CHARACTERS = 300
"""Of one text."""
TOGETHER_SECONDS = 2.0
"""What can be taken together is, where no more than this lies between one and the next."""
REFUSALS_SECONDS = 60.0


class Noted(StrEnum):
    """What an event is about: a closed list."""

    FAILOVER = "failover"
    REPLACEMENT = "replacement"
    NODES = "nodes"
    PORTS = "ports"
    REACH = "reach"
    REFUSAL = "refusal"
    RELOAD = "reload"
    TLS = "tls"
    DISCOVERY = "discovery"
    WORKER = "worker"
    STATE = "state"
    LIFE = "life"


class Sentence(NamedTuple):
    """How a line of the log is told; braces hold the line's fields, and ``subject`` what it is about."""

    kind: Noted
    one: str
    many: str = ""
    """How several at once are told, with ``count``; empty = each by itself."""


NOTED = {
    "node role-moved": Sentence(Noted.FAILOVER, "{subject} is {after} now; it was {before}"),
    "node address-changed": Sentence(Noted.REPLACEMENT, "{subject} is at {after} now; it was at {before}"),
    "endpoint address-changed": Sentence(Noted.REPLACEMENT, "{subject} is at {after} now; it was at {before}"),
    "name resolves anew": Sentence(Noted.REPLACEMENT, "{host} leads to {after} now; it led to {before}"),
    "node added": Sentence(Noted.NODES, "{subject} is new", "{count} nodes are new"),
    "endpoint added": Sentence(Noted.NODES, "{subject} is new", "{count} endpoints are new"),
    "node returned": Sentence(Noted.NODES, "{subject} is back", "{count} nodes are back"),
    "endpoint returned": Sentence(Noted.NODES, "{subject} is back", "{count} endpoints are back"),
    "node gone": Sentence(Noted.NODES, "{subject} is gone", "{count} nodes are gone"),
    "endpoint gone": Sentence(Noted.NODES, "{subject} is gone", "{count} endpoints are gone"),
    "node health changed": Sentence(Noted.REACH, "{subject} is called {after} by the cluster; it was {before}"),
    "port opened": Sentence(Noted.PORTS, "port {port} is open for {subject}", "{count} ports are open"),
    "port drains": Sentence(
        Noted.PORTS, "port {port} takes no new connections ({reason})", "{count} ports take no new connections"
    ),
    "port closed": Sentence(Noted.PORTS, "port {port} is closed ({reason})", "{count} ports are closed"),
    "port not opened": Sentence(Noted.PORTS, "port {port} could not be opened: {reason}"),
    "port released": Sentence(Noted.PORTS, "port {port} of {subject} is free again"),
    "route has no port": Sentence(Noted.PORTS, "{subject} has no port: {reason}"),
    "route changed": Sentence(Noted.PORTS, "port {port} leads elsewhere, or on other terms", "{count} routes changed"),
    "node does not answer": Sentence(Noted.REACH, "{subject} does not answer: {detail} ({reason})"),
    "TLS handshake with node fails": Sentence(Noted.REACH, "the TLS handshake with {subject} fails: {detail}"),
    "node answers again": Sentence(Noted.REACH, "{subject} answers again"),
    "name does not resolve, its last addresses stay": Sentence(Noted.REACH, "{host} does not resolve: {reason}"),
    "nodes do not tell their roles": Sentence(Noted.REACH, "{subject}: nodes do not tell their roles: {reason}"),
    "nodes tell their roles again": Sentence(Noted.REACH, "{subject}: nodes tell their roles again"),
    "config reloaded": Sentence(
        Noted.RELOAD, "reload accepted; routes opened: {opened}, changed: {changed}, closed: {closed}"
    ),
    "reload refused, the old config stays": Sentence(Noted.RELOAD, "reload refused, the old config stays: {error}"),
    "TLS file taken up": Sentence(Noted.TLS, "{key} was taken up from {file}"),
    "TLS files are bad, the old ones stay in use": Sentence(
        Noted.TLS, "TLS files are bad, the old ones stay in use: {detail}"
    ),
    "TLS files are good again": Sentence(Noted.TLS, "TLS files are good again"),
    "discovery failed, the last known routes stay": Sentence(
        Noted.DISCOVERY, "AWS could not be asked, the last known routes stay: {error} ({reason})"
    ),
    "discovery works again": Sentence(Noted.DISCOVERY, "AWS answers again"),
    "worker is gone and is replaced, its connections are lost": Sentence(
        Noted.WORKER, "worker {worker} {why}; its connections are lost, another takes its place"
    ),
    "worker hangs and is killed": Sentence(Noted.WORKER, "worker {worker} hangs and is killed"),
    "worker not started, it will be tried again": Sentence(Noted.WORKER, "a worker could not be started: {error}"),
    "state cannot be saved": Sentence(Noted.STATE, "the state cannot be saved: {error}"),
    "state cannot be saved, new ports stay closed": Sentence(
        Noted.STATE, "the state cannot be saved, new ports stay closed: {error}"
    ),
    "state can be saved again": Sentence(Noted.STATE, "the state can be saved again"),
    "natproxy runs": Sentence(Noted.LIFE, "natproxy {version} runs"),
}
"""The log's words for an event -> how it is told."""

_WHY = {
    Outcome.NOT_ALLOWED: "address not allowed",
    Outcome.LIMIT: "too many connections",
    Outcome.CLIENT_LIMIT: "too many connections of one client",
    Outcome.NO_DESCRIPTORS: "too many open files",
    Outcome.HANDSHAKE_LIMIT: "too many handshakes at once",
    Outcome.CLIENT_HANDSHAKE: "TLS handshake failed",
    Outcome.TLS_ON_CLEAR_PORT: "TLS on a port without TLS",
    Outcome.REVOKED: "certificate revoked",
    Outcome.CERTIFICATE_NOT_ALLOWED: "certificate not allowed",
}


@dataclass(slots=True)
class _Event:
    id: int
    at: float
    kind: Noted
    level: str
    text: str
    cache: str | None = None
    node: str | None = None
    port: int | None = None
    count: int = 1
    last_at: float = 0.0
    together: tuple[str, str | None] | None = None
    """What others must be, to be taken together with it; None = it stands alone."""
    outcomes: Counter[str] = field(default_factory=Counter)


class Recent:
    """Keeps it; ``hear`` is for ``logs.listen``. ``now`` is the Unix time."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._ids = itertools.count(1)
        self._events: deque[_Event] = deque(maxlen=MOST_EVENTS)
        self._refusals: deque[_Event] = deque(maxlen=MOST_REFUSALS)

    def hear(self, level: int, message: str, fields: Mapping[str, Value]) -> None:
        """Take in one line of the log, if it is of those that are told."""
        sentence = NOTED.get(message)
        if sentence is None or level < logging.INFO:
            return
        now, key, named = self._now(), fields.get("route"), fields.get("cache")
        cache = key.cache if isinstance(key, RouteKey) else None if named is None else shown(named)
        node = key.node if isinstance(key, RouteKey) else fields.get("node")
        together = (message, cache) if sentence.many else None
        if together is not None and (last := self._last_of(together, now)) is not None:
            last.count += 1
            last.last_at, last.node, last.port = now, None, None
            last.text = sentence.many.format(count=last.count)
            return
        port = fields.get("port")
        kind = Noted.FAILOVER if _follows_roles(message, key) else sentence.kind
        event = _Event(next(self._ids), now, kind, _level(level), "", cache, last_at=now, together=together)
        event.text = _short(_told(sentence.one, fields))
        event.node = str(node) if isinstance(node, NodeId) else None
        event.port = port if isinstance(port, int) else None
        self._events.append(event)

    def _last_of(self, together: tuple[str, str | None], now: float) -> _Event | None:
        """Return the event that one of ``together`` may still be added to."""
        for event in reversed(self._events):
            if now - event.last_at > TOGETHER_SECONDS:
                return None
            if event.together == together:
                return event
        return None

    def refused(self, port: int, key: RouteKey, outcomes: Mapping[str, int]) -> None:
        """Take in connections that were turned away on ``port``, by Outcome value."""
        now = self._now()
        event = next((one for one in self._refusals if one.port == port and now - one.at < REFUSALS_SECONDS), None)
        if event is None:
            node = None if key.node is None else str(key.node)
            event = _Event(next(self._ids), now, Noted.REFUSAL, "warning", "", key.cache, node, port, count=0)
            self._refusals.append(event)
        event.outcomes.update(outcomes)
        event.count = event.outcomes.total()
        whys = [f"{_WHY.get(Outcome(outcome), outcome)} ({number})" for outcome, number in event.outcomes.most_common()]
        event.text = f"turned away on port {port}: {', '.join(whys)}"

    def events(self) -> tuple[EventView, ...]:
        """Return what is kept, the newest first."""
        kept = sorted((*self._events, *self._refusals), key=lambda event: event.id, reverse=True)
        return tuple(
            EventView(
                id=event.id,
                time=datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                kind=event.kind,
                level=event.level,
                text=event.text,
                cache=event.cache,
                node=event.node,
                port=event.port,
                count=event.count,
            )
            for event in kept
        )


def _follows_roles(message: str, key: Value) -> bool:
    """Tell whether a name leads elsewhere because a role has moved, not a node."""
    return message == "name resolves anew" and isinstance(key, RouteKey) and key.kind in {Kind.PRIMARY, Kind.READER}


def _told(sentence: str, fields: Mapping[str, Value]) -> str:
    words = {name: shown(value) for name, value in fields.items() if value is not None}
    about = next((words[name] for name in ("route", "node", "cache") if name in words), "")
    if "kind" in words and "node" not in words:
        about = f"{about}:{words['kind']}"
    return sentence.format_map(_Words(words, subject=about))


class _Words(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def _short(text: str) -> str:
    plain = escaped(text)
    return plain if len(plain) <= MOST_CHARACTERS else f"{plain[: MOST_CHARACTERS - 1]}…"


def _level(level: int) -> str:
    return "error" if level >= logging.ERROR else "warning" if level >= logging.WARNING else "info"
