"""Answers what the admin side and the commands ask. I/O: none of its own; asks the engine."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from natproxy import __version__
from natproxy.config import Config
from natproxy.controller.directory import directory_document
from natproxy.controller.engine import Engine
from natproxy.controller.status import ports_document, routes_document
from natproxy.controller.statusview import Standing, status_document
from natproxy.documents import DirectoryDocument, ReloadVerdict, RoutesDocument, StatusDocument
from natproxy.model import Route
from natproxy.tls.identity import Identity

FRESH_SECONDS = 0.5
"""How long the portal tells the same, unless the config has changed."""


class Desk:
    """The ``web.AdminSource`` of a running daemon."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: tuple[Config, float, RoutesDocument, tuple[Route, ...]] | None = None
        """By which config, when, and what the portal chooses from: many developers may ask at once."""

    def metrics(self) -> tuple[bytes, str]:
        """Return the metrics and their content type."""
        return self._engine.metrics.render()

    def health(self) -> tuple[bool, str]:
        """Say whether the controller and its workers answer."""
        workers = self._engine.workers
        silent = workers.silent()
        if silent:
            return False, f"worker {silent[0]} does not answer"
        if workers.running < workers.count:
            return False, f"{workers.running} of {workers.count} workers run"
        return True, "ok"

    def readiness(self) -> tuple[bool, str]:
        """Say whether discovery has succeeded at least once, where there is anything to discover."""
        if waiting := self._engine.waiting():
            return False, f"waiting for {waiting}"
        return True, "; ".join(["ready", *self._engine.troubles()])

    def routes(self) -> dict[str, Any]:
        """Return the routes document."""
        engine = self._engine
        return routes_document(
            engine.config,
            engine.knowledge.snapshot,
            engine.statuses(),
            datetime.now(UTC),
            unplaced={one.key: one.reason for one in engine.knowledge.desired.unplaced},
            waiting=engine.waiting(),
            outage="; ".join(engine.troubles()),
        )

    def status(self) -> StatusDocument:
        """Return what the status page shows."""
        engine, now = self._engine, time.monotonic()
        is_ready, readiness = self.readiness()
        standing = Standing(
            version=__version__,
            uptime_seconds=now - engine.began_at,
            is_ready=is_ready,
            readiness=readiness,
            troubles=tuple(engine.troubles()),
            discovery=engine.discovery_view(),
            workers_running=engine.workers.running,
            workers_wanted=engine.workers.count,
        )
        return status_document(
            standing,
            msgspec.convert(self.routes(), RoutesDocument),
            traffic=engine.activity.traffic,
            total=engine.activity.total(),
            expiries=engine.credentials.expiries,
            events=engine.recent.events(),
            now=time.time(),
        )

    def directory(self, identity: Identity, ip: str) -> DirectoryDocument:
        """Return what the portal tells the owner of a certificate who asks from ``ip``."""
        config, now = self._engine.config, time.monotonic()
        if self._known is None or self._known[0] is not config or now - self._known[1] >= FRESH_SECONDS:
            routes = tuple(status.route for status in self._engine.statuses())
            self._known = config, now, msgspec.convert(self.routes(), RoutesDocument), routes
        _, _, whole, routes = self._known
        return directory_document(whole, routes, identity, ip)

    def ports(self) -> dict[str, Any]:
        """Return the port map as a document."""
        return ports_document(self._engine.knowledge.portmap, datetime.now(UTC))

    async def reload(self) -> ReloadVerdict:
        """Read the config again, all or nothing."""
        return await self._engine.reload()

    def release(self, name: str) -> str:
        """Give a gone node's port back."""
        return self._engine.release(name)
