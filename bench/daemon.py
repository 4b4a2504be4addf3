"""A natproxy process for measurements. I/O: runs the daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import programs
from bench.accounts import children

ROOT = Path(__file__).parents[1]
READY_SECONDS = 60.0
LOOK_SECONDS = 0.5


class Daemon:
    """The daemon on a config text; ``{state_dir}`` in it is filled in. Its log goes to ``log``.

    ``pin``: the core to stay on; ``prefix``: what stands before the command; ``python``: another interpreter's.
    """

    def __init__(
        self,
        config: str,
        environ: Mapping[str, str],
        *,
        pin: str | None = None,
        prefix: Sequence[str] = (),
        python: Sequence[str] = (),
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="natproxy-bench-")
        self.directory = Path(self._directory.name)
        self.config = self.directory / "config.yaml"
        self.config.write_text(config.replace("{state_dir}", str(self.directory / "state")))
        self.log = self.directory / "log"
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._environ = {**os.environ, "PYTHONPATH": path, **environ}
        self._prefix = [*prefix, *(programs.pin(pin) if pin is not None else [])]
        self._python = [*(python or [sys.executable])]
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
                [*self._prefix, *self._python, "-m", "natproxy", "run", "-c", str(self.config)],
                env={**self._environ, "NOTIFY_SOCKET": str(path)},
                cwd=ROOT,
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
            [*self._python, "-m", "natproxy", *words, "-c", str(self.config)],
            check=True,
            stdout=subprocess.DEVNULL,
            env=self._environ,
            cwd=ROOT,
        )
        return time.monotonic() - started

    def metric(self, port: int, name: str) -> float:
        """Return a metric without labels; ``port``: that of the admin side."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def pids(self) -> list[int]:
        """Return the process ids: the controller's first, then the workers'."""
        if self.process is None:
            return []
        return [self.process.pid, *children(self.process.pid)]

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
