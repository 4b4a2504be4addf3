"""natproxy as the machine's service: what an operator and a bad day do to it. I/O: talks to the machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from natproxy.documents import RoutesDocument, RouteView
from tests.scenarios.waiting import PATIENCE_SECONDS, eventually
from tests.system.machine import Machine

UNIT = "natproxy.service"
CONFIG = "/etc/natproxy/config.yaml"
STATE_DIRECTORY = "/var/lib/natproxy"
DROP_INS = f"/etc/systemd/system/{UNIT}.d"


class Service:
    """The unit, wherever it came from."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def show(self, name: str) -> str:
        """Return a property of the unit, such as ``NRestarts``."""
        return self.machine.run("systemctl", "show", "--value", f"--property={name}", UNIT).strip()

    def control(self, verb: str) -> None:
        """Have systemd ``start``, ``stop``, ``restart`` or ``reload`` it; RuntimeError where that fails."""
        self.machine.run("systemctl", verb, UNIT, seconds=120)

    @property
    def pid(self) -> int:
        """The controller, as the machine knows it; 0 where none runs."""
        return int(self.show("MainPID"))

    def children(self) -> list[int]:
        """Return what the controller has started, as the machine knows it."""
        said = self.machine.attempt("pgrep", f"--parent={self.pid}").stdout
        return [int(line) for line in said.split()]

    def kill(self, pid: int, name: str) -> None:
        """Send a process of it a signal."""
        self.machine.run("kill", f"-{name}", str(pid))

    def status(self, pid: int) -> Mapping[str, str]:
        """Return what /proc says of a process."""
        lines = self.machine.read(f"/proc/{pid}/status").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    # What it says when asked

    def routes(self) -> Mapping[int, RouteView]:
        """Return the routes by port, as ``natproxy routes`` knows them; AssertionError where it does not answer."""
        done = self.machine.attempt("natproxy", "routes", "--json")
        assert done.returncode == 0, done.stderr
        document = msgspec.json.decode(done.stdout, type=RoutesDocument)
        return {route.port: route for cache in document.caches for route in cache.routes if route.port is not None}

    def targets(self) -> Mapping[int, str | None]:
        """Return what each port is for, without what may change from minute to minute."""
        return {port: f"{route.kind} {route.node} {route.target}" for port, route in self.routes().items()}

    def wait_for_routes(self, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until it is active and knows where so many ports lead."""

        def complete() -> bool:
            assert self.show("ActiveState") == "active"
            routes = self.routes()
            return len(routes) == count and all(route.addresses for route in routes.values())

        eventually(complete, f"natproxy is active with {count} routes", seconds)

    def wait_for_another(self, pid: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until it is active with another controller than this one."""
        eventually(
            lambda: self.pid not in {0, pid} and self.show("ActiveState") == "active",
            f"a controller in the place of {pid}",
            seconds,
        )

    # Its files and its log

    def config(self) -> dict[str, Any]:
        """Return the config file, which JSON or the role wrote."""
        return dict(yaml.safe_load(self.machine.read(CONFIG)))

    def write_config(self, config: Mapping[str, Any] | str) -> None:
        """Write the config file as an operator with an editor would."""
        text = config if isinstance(config, str) else json.dumps(config, indent=1)
        self.machine.put(CONFIG, text, mode="0640", owner="root:natproxy")

    def change_unit(self, name: str, text: str) -> None:
        """Write a drop-in, as ``systemctl edit`` does; it counts from the next start on."""
        self.machine.put(f"{DROP_INS}/{name}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def restore_unit(self, name: str) -> None:
        """Take a drop-in away."""
        self.machine.run("rm", f"{DROP_INS}/{name}.conf")
        self.machine.run("systemctl", "daemon-reload")

    def said(self) -> list[str]:
        """Return what is in the journal of it, systemd's words about it among them."""
        return [str(entry["MESSAGE"]) for entry in self.machine.journal(UNIT)]

    def heard(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Return the lines of natproxy's own log that tell of an event, with these fields."""
        lines = [json.loads(line) for line in self.said() if line.startswith("{")]
        return [line for line in lines if line["event"] == event and fields.items() <= line.items()]
