"""Command lines, run in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

GOOD = """
public_host: cache.dev.example.com
listen: {ports: 6379-6478}
caches: [{id: my-redis}]
static: [{name: legacy, port: 6490, target: "legacy.internal:6379"}]
clients: {allow: [198.51.100.27/32]}
"""


class Done:
    """How a command ended."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Done]
PutDaemon = Callable[[Callable[[Path], int]], None]


def process(*args: object, stdout: int = subprocess.PIPE, env: Mapping[str, str] | None = None) -> Done:
    """Run a command line in a process of its own, as a user does."""
    argv = [sys.executable, "-m", "natproxy", *map(str, args)]
    environ = os.environ | (env or {})
    done = subprocess.run(
        argv, cwd=ROOT, env=environ, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    return Done(done.returncode, done.stdout or "", done.stderr)
