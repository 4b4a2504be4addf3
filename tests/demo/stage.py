"""What the story plays on: a small AWS with its caches, natproxy, and the clients. I/O: processes, sockets, files.

Everything is on this machine's loopback addresses and ends with the ``with`` of the Stage, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple, Self

from natproxy.pki.authority import Authority
from natproxy.pki.terms import ServerNames
from tests.demo.client import HOST, Asks, Client
from tests.demo.laptop import Laptop
from tests.demo.processes import end, start
from tests.demo.words import Line
from tests.standins.caches import is_port_free
from tests.standins.cloud import Cloud

REDIS_ID = "my-redis"
MEMCACHED_ID = "my-memcached"
SERVERLESS_ID = "my-serverless"
STATIC_NAME = "for-laptops"
DEVELOPER = "dev1"

RANGE_SIZE = 10
REDIS_FIRST_PORTS = (6379, 16379, 26379, 36379)
MEMCACHED_FIRST_PORTS = (11211, 21211, 31211, 41211)
SERVERLESS_FIRST_PORTS = (6400, 16400, 26400, 36400)
ADMIN_PORTS = (9479, 19479, 29479, 39479)
STATIC_PORTS = (6490, 16490, 26490, 36490)
PORTAL_PORTS = (6378, 16378, 26378, 36378)
"""The customary ones first; those that are in use are passed over."""

POLL_SECONDS = 0.05

CONFIG = """\
listen: {{address: {host}}}
caches:
  - {{id: {redis_id}, ports: {redis_ports}}}
  - {{id: {memcached_id}, ports: {memcached_ports}}}
  - {{id: {serverless_id}, ports: {serverless_ports}}}

# For the demonstration only: AWS and DNS are on this machine, and are asked more often than every 15 s; so is the CA of
# what speaks TLS, as all serverless caches do.
resolver: "{resolver}"
nodes: {{ca: {authority}}}
aws: {{refresh: 2s}}
admin: {{port: {admin_port}}}

# One port speaks TLS, and the portal tells who has a certificate of it: the laptop in the last chapter.
tls: {{certificate: {pki}/server.crt, key: {pki}/server.key, client_ca: {pki}/ca.crt, crl: {pki}/clients.crl}}
clients: {{tls: "off"}}
static:
  - {{name: {static_name}, port: {static_port}, target: "{primary}", clients: {{tls: terminate}}}}
portal: {{port: {portal_port}}}
state_dir: {state_dir}
log: {{format: json}}
"""


class StageError(Exception):
    """The demonstration cannot be set up here."""


class StopAskedError(Exception):
    """Somebody pressed Ctrl-C, or wants this process to end."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


class Signals:
    """Remembers the first signal that asks for an end, so that nothing is cut off halfway; ``check`` acts on it."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.asked = self.asked or signal.Signals(number)

    def check(self) -> None:
        """Raise StopAskedError if an end was asked for."""
        if self.asked is not None:
            raise StopAskedError(self.asked)

    def wait_until(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``is_so()``, at most so long; return whether it is. Raises StopAskedError."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
            self.check()
        return True


class Ports(NamedTuple):
    """Where natproxy listens on 127.0.0.1."""

    redis: int
    """The first of ten."""
    memcached: int
    """The first of ten."""
    serverless: int
    """The first of two."""
    admin: int
    static: int
    portal: int


def free_ports() -> Ports:
    """Find ports that nobody uses; raises StageError."""
    return Ports(
        _first_free(REDIS_FIRST_PORTS, RANGE_SIZE),
        _first_free(MEMCACHED_FIRST_PORTS, RANGE_SIZE),
        _first_free(SERVERLESS_FIRST_PORTS, 2),
        _first_free(ADMIN_PORTS, 1),
        _first_free(STATIC_PORTS, 1),
        _first_free(PORTAL_PORTS, 1),
    )


def _first_free(choice: tuple[int, ...], count: int) -> int:
    for first in choice:
        if all(is_port_free(HOST, port) for port in range(first, first + count)):
            return first
    wanted = " or ".join(str(first) if count == 1 else f"{first}-{first + count - 1}" for first in choice)
    raise StageError(f"the demonstration needs the ports {wanted} on {HOST}, and some of each are in use")


class Natproxy:
    """The real daemon, ``natproxy run``, as a process of its own."""

    def __init__(self, directory: Path, config: str, environ: dict[str, str]) -> None:
        self.config_path = directory / "natproxy.yaml"
        self.config_path.write_text(config, encoding="utf-8")
        log_path = directory / "natproxy.log"
        self._process = start(["run", "-c", str(self.config_path)], log_path, environ)
        self._log = log_path.open(encoding="utf-8")
        self._half_a_line = ""
        self.said: list[Line] = []
        """Its log so far."""
        self.strange_words: list[str] = []
        """What it wrote beside its log: why it could not start, for instance."""

    @property
    def is_running(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def listen(self) -> list[Line]:
        """Return what it has logged since this was last asked."""
        *lines, self._half_a_line = (self._half_a_line + self._log.read()).split("\n")
        new: list[Line] = []
        for line in lines:
            try:
                new.append(json.loads(line))
            except ValueError:
                self.strange_words.append(line)
        self.said += new
        return new

    def stop(self) -> None:
        """Ask it to stop, and see to it that it does."""
        end(self._process)
        self._log.close()


class Stage:
    """All of it; a context manager. ``start_natproxy`` and the clients are left to the story."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.ports = free_ports()
        try:
            self.cloud = Cloud()
        except RuntimeError as error:  # no free port for its nodes
            raise StageError(str(error)) from error
        self.clients: list[Client] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            temporary = tempfile.TemporaryDirectory(prefix="natproxy-demo-")
            self._directory = Path(stack.enter_context(temporary))
            self._start_cloud(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start_cloud(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(self.cloud)
        self.cloud.replication_group(REDIS_ID, replicas=2)
        self.cloud.memcached(MEMCACHED_ID, nodes=2)
        self.cloud.serverless(SERVERLESS_ID, speaks_tls=True)
        self._authority.write_bytes(self.cloud.authority.pem)
        self._pki.init(ServerNames((), (HOST,)), self.ports.portal)

    @property
    def _authority(self) -> Path:
        return self._directory / "authority.crt"

    @property
    def _pki(self) -> Authority:
        return Authority(self._directory / "pki")

    @property
    def config(self) -> str:
        """natproxy's config file."""
        return CONFIG.format(
            host=HOST,
            redis_id=REDIS_ID,
            redis_ports=f"{self.ports.redis}-{self.ports.redis + RANGE_SIZE - 1}",
            memcached_id=MEMCACHED_ID,
            memcached_ports=f"{self.ports.memcached}-{self.ports.memcached + RANGE_SIZE - 1}",
            serverless_id=SERVERLESS_ID,
            serverless_ports=f"{self.ports.serverless}-{self.ports.serverless + 1}",
            resolver=self.cloud.resolver,
            authority=self._authority,
            admin_port=self.ports.admin,
            pki=self._directory / "pki",
            static_name=STATIC_NAME,
            static_port=self.ports.static,
            primary=self._primary(),
            portal_port=self.ports.portal,
            state_dir=self._directory / "state",
        )

    def _primary(self) -> str:
        """Return the name and port that follow the primary."""
        group = self.cloud.world.group(REDIS_ID)
        return f"{self.cloud.world.group_names(group).primary()}:{group.port}"

    def start_natproxy(self) -> Natproxy:
        """Start the daemon; it ends with the stage."""
        natproxy = Natproxy(self._directory, self.config, self.cloud.environ)
        self._stack.callback(natproxy.stop)
        return natproxy

    def start_laptop(self) -> Laptop:
        """Hand the developer a bundle, as `natproxy pki issue` does, and connect; it ends with the stage."""
        bundle = self._directory / f"{DEVELOPER}.zip"
        self._pki.issue(DEVELOPER, 1, bundle)
        laptop = Laptop(bundle, STATIC_NAME, self._directory / "laptop.log")
        self._stack.callback(laptop.stop)
        return laptop

    def start_client(self, port: int, what: str, asks: Asks) -> Client:
        """Let one more client talk; it ends with the stage, before natproxy does."""
        client = Client(port, what, asks)
        self.clients.append(client)
        client.start()
        self._stack.callback(client.stop)
        return client
