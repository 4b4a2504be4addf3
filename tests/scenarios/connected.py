"""``natproxy connect`` as a developer runs it: started, listened to, ended by its pid. I/O: processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from natproxy.documents import ConnectEvent, LocalRoute
from tests.scenarios.waiting import PATIENCE_SECONDS, Heard, eventually


class Connected:
    """One run with ``--json``; ``prefix`` runs it through another command."""

    def __init__(self, where: str, bundle: Path, *words: str, prefix: Iterable[str] = ()) -> None:
        self.events: Heard[ConnectEvent] = Heard()
        self.strange_lines: list[str] = []
        """What it wrote that is not an event."""
        argv = [*prefix, sys.executable, "-m", "natproxy", "connect", where, "--bundle", str(bundle), "--json", *words]
        self.process = subprocess.Popen(
            argv,
            env={**os.environ, "PYTHONWARNINGS": "default", "PYTHONDEVMODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, name="events", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                try:
                    self.events.add(msgspec.json.decode(line, type=ConnectEvent))
                except ValueError:
                    self.strange_lines.append(line)
        self.events.end()

    def wait_for(
        self, event: str, text: str = "", *, since: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> ConnectEvent:
        """Block until an event of that name has this text in its line; return the first."""
        return self.events.wait_for(
            lambda one: one.event == event and text in one.message,
            f"{event}: {text} in {self.events.all()} {self.strange_lines}",
            since=since,
            seconds=seconds,
        )

    def routes(self) -> dict[str, LocalRoute]:
        """Every route as last told of: by ``cluster/node``, ``cache:kind``, or a static route's name."""
        self.wait_for("serving")
        found: dict[str, LocalRoute] = {}
        for event in self.events.all():
            for route in event.routes:
                if event.event == "closing":
                    found.pop(_name(route), None)
                else:
                    found[_name(route)] = route
        return found

    def port(self, name: str) -> int:
        """Return the local port of a route, once it has one."""
        return eventually(lambda: self.routes()[name].local_port if name in self.routes() else None, name) or 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it as a user does; return the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE_SECONDS)
        self._thread.join(PATIENCE_SECONDS)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._thread.join(PATIENCE_SECONDS)
        for event in self.events.all():
            print(event)
        print(*self.strange_lines, sep="")


def _name(route: LocalRoute) -> str:
    if route.node is not None:
        return str(route.node)
    return route.cache if route.kind == "static" else f"{route.cache}:{route.kind}"
