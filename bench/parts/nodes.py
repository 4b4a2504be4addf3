"""The nodes behind the proxies, and room for their configs. I/O: runs redis-server."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import bulk
from bench.parts.how import CannotError
from bench.peers.ports import BULK_PORT, NODE_HOSTS, NODE_PORT
from bench.programs import PEER_CORE, missing, running

NEEDED = ("redis-server", "redis-benchmark", "taskset")


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Yield a directory that nginx's worker, another user, can read."""
    with tempfile.TemporaryDirectory(prefix="natproxy-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def redis_server(
    *options: str, port: int = NODE_PORT, core: str = PEER_CORE, prefix: Sequence[str] = ()
) -> Iterator[None]:
    """Run the node, ``prefix`` in front; raises CannotError where it is not installed."""
    if reason := missing(*NEEDED):
        raise CannotError(reason)
    command = [*prefix, "redis-server", "--port", str(port), "--save", "", "--maxclients", "60000"]
    command += ["--bind", "127.0.0.1", *NODE_HOSTS.values(), "--protected-mode", "no", *options]
    with running(core, *command, port=port):
        yield


@contextlib.contextmanager
def bulk_server() -> Iterator[None]:
    """Run the node for streams."""
    serve = [sys.executable, "-I", "-S", str(Path(bulk.__file__)), "serve", str(BULK_PORT)]
    with running(PEER_CORE, *serve, port=BULK_PORT):
        yield
