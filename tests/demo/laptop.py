"""A developer's laptop: the real ``natproxy connect`` on a bundle, and what it tells. I/O: a process, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.demo.processes import end, start


class Laptop:
    """Brings one of the caches to this computer, until it is stopped; ``log_path`` takes what it says."""

    def __init__(self, bundle: Path, cache: str, log_path: Path) -> None:
        self._process = start(["connect", "--bundle", str(bundle), "--cache", cache, "--json"], log_path)
        self._log_path = log_path

    @property
    def port(self) -> int | None:
        """Where the cache is found on this computer; None where it is not, yet."""
        ports = (route["local_port"] for event in self._events() for route in event["routes"])
        return next((int(port) for port in ports if port is not None), None)

    def stop(self) -> None:
        """Go home."""
        end(self._process)

    def _events(self) -> list[dict[str, Any]]:
        """Return what it has told so far; half a line is none yet, nor is what it says when it cannot begin."""
        lines = self._log_path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]
