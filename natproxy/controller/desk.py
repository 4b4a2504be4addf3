"""Answers what the admin side and the commands ask. I/O: none of its own; asks the engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from natproxy.controller.engine import Engine
from natproxy.controller.status import ports_document, routes_document
from natproxy.documents import ReloadVerdict


class Desk:
    """The ``web.AdminSource`` of a running daemon."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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

    def ports(self) -> dict[str, Any]:
        """Return the port map as a document."""
        return ports_document(self._engine.knowledge.portmap, datetime.now(UTC))

    async def reload(self) -> ReloadVerdict:
        """Read the config again, all or nothing."""
        return await self._engine.reload()

    def release(self, name: str) -> str:
        """Give a gone node's port back."""
        return self._engine.release(name)
