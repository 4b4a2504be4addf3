"""A real Prometheus, with a config, data and an address of its own. I/O: a process, files, HTTP.

with Prometheus(directory, {"static_configs": [{"targets": ["127.0.0.1:9479"]}]}, rules=[RULES]) as prometheus:
    prometheus.wait_until_scraped()
    prometheus.query("up == 1")
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import pytest

from tests.scenarios.daemon import OwnAddress
from tests.scenarios.waiting import PATIENCE_SECONDS, eventually

PORT = 25990
JOB = "natproxy"
COMMAND = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(COMMAND is None, reason="prometheus is not installed")
Series = dict[str, Any]


class QueryError(Exception):
    """Prometheus refused a query, or could not answer it."""


class Prometheus:
    """It scrapes every second, as the job ``natproxy``: ``scrape`` is what that job's config has beside its name."""

    def __init__(self, directory: Path, scrape: Mapping[str, Any], rules: Sequence[Path] = ()) -> None:
        self._claim = OwnAddress()
        self._directory = directory
        self._log = directory / "prometheus.log"
        self._config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": JOB, **scrape}],
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        assert COMMAND is not None
        path = self._directory / "prometheus.yml"
        path.write_text(json.dumps(self._config), encoding="utf-8")
        argv = [COMMAND, f"--config.file={path}", f"--storage.tsdb.path={self._directory / 'data'}"]
        argv += [f"--web.listen-address={self._claim.ip}:{PORT}", "--log.level=warn"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually(self._is_ready, "Prometheus is ready")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, and show what it said."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_SECONDS)
            print("--- the log of Prometheus", self._log.read_text(encoding="utf-8"), sep="\n")
        self._claim.close()

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(self._log.read_text(encoding="utf-8"))
        return self._get("/-/ready")[0] == 200

    def _get(self, path: str) -> tuple[int, bytes]:
        with contextlib.closing(http.client.HTTPConnection(self._claim.ip, PORT, timeout=20)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def ask(self, path: str, **parameters: str) -> Any:
        """Return ``data`` of what the HTTP API answers. Raises QueryError."""
        _, body = self._get(f"/api/v1/{path}?{urlencode(parameters)}")
        answer = json.loads(body)
        if answer["status"] != "success":
            message = f"{parameters}: {answer}"
            raise QueryError(message)
        return answer["data"]

    def query(self, expr: str) -> list[Series]:
        """Return what an expression is now."""
        found: list[Series] = self.ask("query", query=expr)["result"]
        return found

    def history(self, expr: str, since: float, until: float) -> list[Series]:
        """Return what an expression was, second by second; from and to are Unix times."""
        found: list[Series] = self.ask("query_range", query=expr, start=f"{since:.3f}", end=f"{until:.3f}", step="1s")[
            "result"
        ]
        return found

    def wait_until_scraped(self) -> None:
        """Block until every target answers."""

        def all_answer() -> bool:
            targets = self.ask("targets")["activeTargets"]
            assert all(target["health"] == "up" for target in targets), targets
            return bool(targets)

        eventually(all_answer, "all targets are up")

    def wait_for(self, expr: str) -> None:
        """Block until an expression has a result."""
        eventually(lambda: self.query(expr), expr)
