"""The real process: started, watched, asked, and ended by its pid. I/O: processes, sockets, files."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from natproxy.control import SOCKET_NAME
from natproxy.documents import RoutesDocument, RouteView
from tests.scenarios.waiting import PATIENCE_SECONDS, Heard, eventually

FIRST_PORT = 25001
ADMIN_PORT = 25900
Line = dict[str, Any]
"""One line of the log, as the JSON it is."""


class OwnAddress:
    """A loopback address that nobody else of these tests uses, for as long as this is open."""

    def __init__(self) -> None:
        chosen = random.Random(os.urandom(8))
        while True:
            self.ip = f"127.{chosen.randrange(240, 255)}.{chosen.randrange(256)}.{chosen.randrange(1, 255)}"
            # An abstract Unix socket belongs to the network namespace, as loopback does, and ends with us.
            self._claim = socket.socket(socket.AF_UNIX)
            try:
                self._claim.bind(f"\0natproxy-scenario-{self.ip}")
            except OSError:
                self._claim.close()
            else:
                return

    def close(self) -> None:
        """Let others have it."""
        self._claim.close()


class Daemon:
    """``natproxy run`` with a config, an address, a state_dir and an admin port of its own.

    ``config`` is the file's content and may be changed between ``write`` and ``reload``; ``prefix`` runs the command
    through another one (prlimit, setpriv).
    """

    def __init__(self, directory: Path, environ: Mapping[str, str], config: Mapping[str, Any]) -> None:
        self._claim = OwnAddress()
        self.ip = self._claim.ip
        self.path = directory / "natproxy.yaml"
        self.state_dir = directory / "state"
        self.environ = dict(environ)
        self.config: dict[str, Any] = {
            "listen": {"address": self.ip, "ports": f"{FIRST_PORT}-{FIRST_PORT + 98}"},
            "aws": {"refresh": "300ms"},
            "admin": {"address": self.ip, "port": ADMIN_PORT},
            "state_dir": str(self.state_dir),
            "log": {"format": "json"},
            **config,
            "timeouts": {"drain": "1s", "stop": "300ms", **config.get("timeouts", {})},
        }
        self.prefix: Sequence[str] = ()
        self.log: Heard[Line] = Heard()
        self.may_read_log = threading.Event()
        """Cleared, nobody reads what it writes."""
        self.may_read_log.set()
        self.strange_lines: list[str] = []
        """What it wrote that is not a log line."""
        self.notified: Heard[str] = Heard()
        self._notify_path = directory / "notify"
        self._process: subprocess.Popen[str] | None = None
        self._threads: list[threading.Thread] = []

    # life

    def write(self, text: str | None = None) -> None:
        """Write the config file: ``config``, or any text."""
        self.path.write_text(json.dumps(self.config, indent=1) if text is None else text, encoding="utf-8")

    def start(self, *, is_ready: bool = True) -> Self:
        """Write the config file, start, and wait for READY=1."""
        self.write()
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify_path.unlink(missing_ok=True)
        notify.bind(str(self._notify_path))
        self._process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "natproxy", "run", "-c", str(self.path)],
            env={**os.environ, **self.environ, "NOTIFY_SOCKET": str(self._notify_path), "PYTHONWARNINGS": "default"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = len(self.notified)
        self._threads = [
            threading.Thread(target=self._read_log, args=(self._process,), name="log", daemon=True),
            threading.Thread(target=self._read_notifications, args=(notify, self._process), name="sd", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        if is_ready:
            eventually(lambda: self._is_ready(said), "READY=1", seconds=60)
        return self

    def _is_ready(self, since: int) -> bool:
        if not self.is_running:
            message = f"natproxy has ended with {self.wait()}: {''.join(self.strange_lines)}"
            raise RuntimeError(message)
        return any("READY=1" in text.split("\n") for text in self.notified.all(since))

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.may_read_log.wait()
                try:
                    self.log.add(dict(json.loads(line)))
                except ValueError:
                    self.strange_lines.append(line)

    def _read_notifications(self, notify: socket.socket, process: subprocess.Popen[str]) -> None:
        notify.settimeout(0.1)
        with notify:
            while True:
                is_over = process.poll() is not None
                try:
                    self.notified.add(notify.recv(4096).decode())
                except TimeoutError:
                    if is_over:
                        return

    @property
    def process(self) -> subprocess.Popen[str]:
        """The process, running or ended."""
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the controller."""
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return the exit status."""
        status = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        return status

    def stop(self) -> int:
        """SIGTERM, and wait."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill the controller as by kill -9, and wait until its workers have noticed."""
        workers = self.workers()
        self.process.kill()
        self.wait()
        for pid in workers:
            wait_for_end(pid)

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.is_running:
            self.process.kill()
            self.wait()
        self._claim.close()

    def workers(self) -> list[int]:
        """The pids of its workers."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((directory / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"natproxy.worker" in (directory / "cmdline").read_bytes():
                    found.append(int(directory.name))
        return sorted(found)

    # the log

    def logged(self, event: str, since: int = 0, **fields: object) -> list[Line]:
        """The lines of an event that have these fields."""
        return [line for line in self.log.all(since) if _is_line(line, event, fields)]

    def wait_for_log(self, event: str, *, since: int = 0, seconds: float = PATIENCE_SECONDS, **fields: object) -> Line:
        """Block until a line of that event has these fields; return the first."""
        what = f"{event} {fields}"
        return self.log.wait_for(lambda line: _is_line(line, event, fields), what, since=since, seconds=seconds)

    # asking it

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of natproxy's that talks to this daemon."""
        return subprocess.run(
            [sys.executable, "-m", "natproxy", *words, "-c", str(self.path)],
            env={**os.environ, "COLUMNS": "400"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def reload(self) -> None:
        """Write the config file and have it taken up, as ``natproxy reload`` does but quicker."""
        self.write()
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(str(self.state_dir / SOCKET_NAME))
        with contextlib.closing(connection):
            connection.request("POST", "/reload")
            verdict = json.loads(connection.getresponse().read())
        assert verdict["ok"], verdict

    def get(self, path: str) -> tuple[int, str]:
        """Ask the admin side; return status and body."""
        if not self.is_running:
            message = f"natproxy has ended with {self.process.poll()}"
            raise RuntimeError(message)
        with contextlib.closing(http.client.HTTPConnection(self.ip, ADMIN_PORT, timeout=10)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def document(self) -> RoutesDocument:
        """What /routes answers."""
        return msgspec.json.decode(self.get("/routes")[1], type=RoutesDocument)

    def routes(self) -> dict[str, RouteView]:
        """Every route by its name: ``cluster/node``, ``cache:kind``, or a static route's name."""
        return {_name(cache.id, route): route for cache in self.document().caches for route in cache.routes}

    def ports(self) -> dict[str, int | None]:
        """The port of every route, by its name."""
        return {name: route.port for name, route in self.routes().items()}

    def wait_for_route(self, name: str, state: str = "open", seconds: float = PATIENCE_SECONDS) -> int:
        """Block until a route has that state; return its port."""

        def port() -> int | None:
            route = self.routes()[name]
            assert route.state == state, route
            return route.port

        def found() -> int | None:
            return port() if name in self.routes() else None

        return eventually(found, f"{name} is {state}", seconds) or 0

    def wait_until_gone(self, name: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Block until a route is shown no more."""
        eventually(lambda: name not in self.routes(), f"{name} is gone", seconds)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name that have these labels."""
        status, text = self.get("/metrics")
        assert status == 200
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def wait_for_metric(self, value: float, name: str, **labels: str) -> None:
        """Block until the sum of these samples is ``value``."""

        def is_so() -> bool:
            now = self.metric(name, **labels)
            assert now == value, now
            return True

        eventually(is_so, f"{name}{labels} is {value:g}")

    def resident_bytes(self) -> int:
        """The memory its workers hold."""
        return sum(map(resident_bytes, self.workers()))


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child has ended; whoever it belongs to may take note later."""

    def has_ended() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state in "ZX"

    eventually(has_ended, f"process {pid} ends")


def _name(cache: str, route: RouteView) -> str:
    if route.node is not None:
        return str(route.node)
    return cache if route.kind == "static" else f"{cache}:{route.kind}"


def _is_line(line: Line, event: str, fields: Mapping[str, object]) -> bool:
    return line.get("event") == event and fields.items() <= line.items()
