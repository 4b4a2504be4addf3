"""The client programs, how each is started, and why one cannot be here. I/O: looks at the file system."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GLIDE_PYTHON = ROOT / ".venv/clients/bin/python"
"""Of the environment that `make clients` makes."""


@dataclass(frozen=True)
class Program:
    """One client program, to be run in ROOT."""

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Programs and files without which it cannot be run."""

    def argv(
        self, host: str, port: int, name: str, *, live: bool = False, tls: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return its command line; journey.py says what it means, and what is printed."""
        return [*self.words, json.dumps({"host": host, "port": port, "name": name, "live": live, "tls": tls})]

    def why_missing(self) -> str | None:
        """Return why it cannot be run here, or None where it can."""
        missing = [each for each in self.needs if shutil.which(each) is None and not (ROOT / each).exists()]
        return f"not installed: {', '.join(missing)} (`make clients` does that)" if missing else None


def _python(module: str, python: str = sys.executable, needs: tuple[str, ...] = ()) -> Program:
    return Program((python, "-m", f"tests.clients.{module}"), needs)


def _node(file: str, *words: str, package: str) -> Program:
    return Program(("node", f"tests/clients/{file}", *words), ("node", f"tests/clients/node_modules/{package}"))


PROGRAMS = {
    "redis-py": _python("redispy"),
    "redis-py-asyncio": _python("redispy_asyncio"),
    "valkey-glide": _python("valkeyglide", str(GLIDE_PYTHON), (str(GLIDE_PYTHON.relative_to(ROOT)),)),
    "ioredis": _node("ioredis.mjs", package="ioredis"),
    "ioredis-5": _node("ioredis.mjs", "ioredis5", package="ioredis5"),
    "node-redis": _node("noderedis.mjs", package="redis"),
    "redis-cli": _python("rediscli", needs=("redis-cli",)),
}
"""By the names that their makers call them."""
