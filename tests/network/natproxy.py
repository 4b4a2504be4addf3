"""natproxy on the guide's NAT instance, with the config that a reader of the guide would write.

I/O: runs the daemon inside the nat namespace; asks it over its control socket, which is a file and known everywhere.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from natproxy.control import SOCKET_NAME
from natproxy.documents import RoutesDocument, RouteView
from tests.network.aws import MEMCACHED_ID, REDIS_ID, GuideAws
from tests.network.guide import LAPTOP_IP, NAT, PUBLIC_IP, GuideNetwork
from tests.network.namespaces import Spawned
from tests.scenarios.waiting import PATIENCE_SECONDS, eventually

ROOT = Path(__file__).parents[2]
ADMIN_PORT = 9479
NODES = tuple(f"{REDIS_ID}-00{number}/0001" for number in (1, 2, 3))
"""What natproxy calls the guide's three Redis nodes, in GUIDE_NODES' order."""
ROUTES = 9
"""Three nodes, the primary and the reader; three memcached nodes and their configuration endpoint."""

GUIDE_CONFIG = {
    "public_host": PUBLIC_IP,
    "listen": {"address": "0.0.0.0"},
    "caches": [{"id": REDIS_ID, "ports": "6379-6388"}, {"id": MEMCACHED_ID, "ports": "11211-11220"}],
    "clients": {"allow": [f"{LAPTOP_IP}/32"]},
}

Line = dict[str, Any]


class GuideProxy:
    """A running natproxy that has opened its ports; it ends with the network at the latest.

    ``config`` replaces keys of GUIDE_CONFIG. Names are asked where the NAT instance's resolv.conf says.
    """

    def __init__(
        self, network: GuideNetwork, aws: GuideAws, config: Mapping[str, object], *, routes: int = ROUTES
    ) -> None:
        self._network = network
        self._route_count = routes
        directory = network.directory / "natproxy"
        directory.mkdir()
        self._state_dir = directory / "state"
        path = directory / "natproxy.yaml"
        written = {**GUIDE_CONFIG, "state_dir": str(self._state_dir), "log": {"format": "json"}, **config}
        path.write_text(json.dumps(written), encoding="utf-8")  # JSON is YAML, too
        argv = [sys.executable, "-m", "natproxy", "run", "-c", str(path)]
        self.process: Spawned = network.spawn(NAT, argv, env=aws.environ, cwd=ROOT)
        eventually(self._is_complete, f"natproxy knows where its {routes} ports lead")

    def _is_complete(self) -> bool:
        if not self.process.is_running:
            raise RuntimeError(f"natproxy has ended: {self.process.output()}")
        routes = self.routes()
        return len(routes) == self._route_count and all(route.addresses for route in routes.values())

    # Its log

    def log(self) -> list[Line]:
        """Return every line it has logged."""
        *lines, _unfinished = self.process.output().split("\n")
        return [json.loads(line) for line in lines]

    def logged(self, event: str, **fields: object) -> list[Line]:
        """Return the lines of an event that have these fields."""
        return [line for line in self.log() if line["event"] == event and fields.items() <= line.items()]

    def wait_for_log(self, event: str, *, seconds: float = PATIENCE_SECONDS, **fields: object) -> Line:
        """Wait until such a line is there; return the first."""
        return eventually(lambda: self.logged(event, **fields), f"{event} {fields}", seconds)[0]

    # What it says when asked

    def get(self, path: str) -> tuple[int, str]:
        """Ask over the control socket; return status and body."""
        connection = http.client.HTTPConnection("natproxy")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.sock.connect(str(self._state_dir / SOCKET_NAME))
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def routes(self) -> Mapping[int, RouteView]:
        """Return the routes by port."""
        document = msgspec.json.decode(self.get("/routes")[1], type=RoutesDocument)
        return {route.port: route for cache in document.caches for route in cache.routes if route.port is not None}

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of that name that have these labels."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        assert samples, f"there is no metric {name}"
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def stop(self) -> None:
        """End it as an operator would; it has to end well, and may not have failed in anything meanwhile."""
        assert self.process.end() == 0, self.process.output()
        assert not [line for line in self.log() if line["level"] == "critical" or "traceback" in line]
