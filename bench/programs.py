"""Runs what measurements need: pinned to a core, waited for, ended. I/O: starts processes.

Proxies are pinned to one core, everything else to the other, unless a part says otherwise.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

PROXY_CORE, PEER_CORE, BOTH_CORES = "0", "1", "0,1"
START_SECONDS = 10.0
DESCRIPTORS = 65536
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
"""Where Debian has haproxy and nginx, for who is not root too."""

Probe = Callable[[int], bool]
"""Whether someone listens on a port."""


def prepare() -> None:
    """Let this process and those it starts have enough descriptors; let a SIGTERM end what it started."""
    os.environ["PATH"] = PATH
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, DESCRIPTORS),) * 2)
    except (OSError, ValueError):  # only root may raise it beyond this
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def descriptors() -> int:
    """Return how many descriptors a process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def missing(*programs: str) -> str | None:
    """Say which of these programs are not installed; None where all are."""
    lacking = [name for name in programs if shutil.which(name, path=PATH) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


def pin(core: str) -> list[str]:
    """Return what stands before a command that runs on this core."""
    return ["taskset", "-c", core]


@contextlib.contextmanager
def running(
    core: str, *command: str, port: int, prefix: Sequence[str] = (), probe: Probe | None = None
) -> Iterator[int]:
    """Run a program on a core until the end of the block; yield its process id once it listens on ``port``.

    ``prefix`` stands before the command and enters another namespace, say; ``probe`` then looks at the port there.
    """
    is_there = probe or is_listening
    if is_there(port):  # it might be HAProxy's, which would share it
        raise RuntimeError(f"port {port}, for {command[0]}, is taken: does another bench run?")
    with tempfile.TemporaryFile() as said:
        argv = [*prefix, *pin(core), *command]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not is_there(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"{command[0]} does not listen on port {port}: {said.read().decode()[-1000:]}")
                time.sleep(0.02)
            yield process.pid
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and wait until it has."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_listening(port: int) -> bool:
    """Whether someone listens on this port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
