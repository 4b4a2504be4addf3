"""A natproxy process for measurements. I/O: runs the daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

READY_SECONDS = 60.0
LOOK_SECONDS = 0.5


class Daemon:
    """The daemon on a config text; ``{state_dir}`` in it is filled in. Its log goes to ``log``."""

    def __init__(self, config: str, environ: Mapping[str, str], *, pin: str | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="natproxy-bench-")
        self.directory = Path(self._directory.name)
        self.config = self.directory / "config.yaml"
        self.config.write_text(config.replace("{state_dir}", str(self.directory / "state")))
        self.log = self.directory / "log"
        self._environ = {**os.environ, **environ}
        self._pin = ["taskset", "-c", pin] if pin is not None else []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; return the seconds until it said READY."""
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = self.directory / "notify"
        path.unlink(missing_ok=True)
        with notify, self.log.open("ab") as log:
            notify.bind(str(path))
            notify.settimeout(LOOK_SECONDS)
            started = time.monotonic()
            self.process = subprocess.Popen(
                [*self._pin, sys.executable, "-m", "natproxy", "run", "-c", str(self.config)],
                env={**self._environ, "NOTIFY_SOCKET": str(path)},
                stderr=log,
            )
            while not _is_ready(notify):
                if self.process.poll() is not None or time.monotonic() - started > READY_SECONDS:
                    self.stop()
                    raise RuntimeError(f"natproxy does not become ready: {self.log.read_text()}")
            return time.monotonic() - started

    def stop(self) -> None:
        """Stop it and wait for its end."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def command(self, *words: str) -> float:
        """Run a natproxy command against it; return its seconds."""
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "natproxy", *words, "-c", str(self.config)],
            check=True,
            stdout=subprocess.DEVNULL,
            env=self._environ,
        )
        return time.monotonic() - started

    def pids(self) -> list[int]:
        """Return the process ids: the controller's first, then the workers'."""
        if self.process is None:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._directory.cleanup()


def _is_ready(notify: socket.socket) -> bool:
    try:
        return b"READY=1" in notify.recv(65536)
    except TimeoutError:
        return False


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
