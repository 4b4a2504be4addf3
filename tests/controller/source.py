"""A source of everything that the admin side shows, and a thread that serves it on a control socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natproxy.controller.web import Admin
from natproxy.documents import DiscoveryView, ReloadVerdict, StatusDocument
from natproxy.errors import NatproxyError

ROUTES: dict[str, Any] = {
    "version": 1,
    "public_host": "cache.dev.example.com",
    "public_ip": "203.0.113.73",
    "portal_port": 7000,
    "generated": "2025-01-31T12:00:00Z",
    "notes": ["AWS knows no cache called my-radis"],
    "caches": [
        {
            "id": "my-redis",
            "engine": "redis",
            "mode": "cluster-enabled",
            "tls": "off",
            "reason": None,
            "routes": [
                {
                    "port": 6379,
                    "kind": "node",
                    "node": {"cluster": "my-redis-0001-001", "id": "0001"},
                    "role": "primary",
                    "zone": "eu-west-1a",
                    "target": "my-redis-0001-001.abcdef.0001.euw1.cache.amazonaws.com:6379",
                    "addresses": ["10.0.1.230:6379"],
                    "state": "open",
                    "reason": None,
                    "tls": "off",
                    "rewrite": "off",
                    "connections": 12,
                },
                {
                    "port": 6380,
                    "kind": "configuration",
                    "node": None,
                    "role": None,
                    "zone": None,
                    "target": "my-redis.abcdef.clustercfg.euw1.cache.amazonaws.com:6379",
                    "addresses": [],
                    "state": "unreachable",
                    "reason": "10.0.1.231:6379 refused the connection",
                    "tls": "off",
                    "rewrite": "off",
                    "connections": 0,
                },
                {
                    "port": None,
                    "kind": "node",
                    "node": {"cluster": "my-redis-0001-002", "id": "0001"},
                    "state": "error",
                    "reason": "the range 6379-6380 is full",
                },
            ],
        },
        {
            "id": "my-radis",
            "engine": None,
            "mode": None,
            "tls": None,
            "reason": "AWS knows no such cache",
            "routes": [],
        },
    ],
}

PORTS: dict[str, Any] = {
    "version": 1,
    "generated": "2025-01-31T12:00:00Z",
    "ports": [
        {
            "port": 6379,
            "name": "my-redis-0001-001/0001",
            "cache": "my-redis",
            "kind": "node",
            "node": {"cluster": "my-redis-0001-001", "id": "0001"},
            "gone_since": None,
        },
        {
            "port": 6381,
            "name": "my-redis-0001-003/0001",
            "cache": "my-redis",
            "kind": "node",
            "node": {"cluster": "my-redis-0001-003", "id": "0001"},
            "gone_since": "2025-01-30T08:15:00Z",
        },
    ],
}


@dataclass
class Source:
    """What the admin side is told, and what it was asked."""

    is_good: bool = True
    routes_answer: dict[str, Any] = field(default_factory=lambda: ROUTES)
    ports_answer: dict[str, Any] = field(default_factory=lambda: PORTS)
    verdict: ReloadVerdict = field(default_factory=lambda: ReloadVerdict(True, "reloaded natproxy.yaml"))
    release_error: NatproxyError | None = None
    failure: Exception | None = None
    released: list[str] = field(default_factory=list)
    reloads: int = 0

    def metrics(self) -> tuple[bytes, str]:
        return b"natproxy_workers 1\n", "text/plain; version=0.0.4; charset=utf-8"

    def health(self) -> tuple[bool, str]:
        return self.is_good, "the controller and 1 of 1 workers answer"

    def readiness(self) -> tuple[bool, str]:
        return self.is_good, "ready" if self.is_good else "waiting for AWS (denied)"

    def routes(self) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        return self.routes_answer

    def status(self) -> StatusDocument:
        return StatusDocument(
            natproxy="0.1.0",
            generated="2025-01-31T12:00:00Z",
            uptime_seconds=1.0,
            is_ready=self.is_good,
            readiness=self.readiness()[1],
            discovery=DiscoveryView(state="ok", age_seconds=1.0, interval_seconds=15.0),
            workers_running=1,
            workers_wanted=1,
            step_seconds=5.0,
        )

    def ports(self) -> dict[str, Any]:
        return self.ports_answer

    async def reload(self) -> ReloadVerdict:
        self.reloads += 1
        return self.verdict

    def release(self, name: str) -> str:
        if self.release_error is not None:
            raise self.release_error
        self.released.append(name)
        return f"port 6381 of {name} is free"


@contextmanager
def serving(source: Source, state_dir: Path) -> Iterator[None]:
    """Serve ``source`` on ``state_dir``'s control socket, in a thread of its own."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        admin = Admin(source)
        await admin.start_control(state_dir / "control.sock")
        started.set()
        await stop.wait()
        await admin.stop()

    def work() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
