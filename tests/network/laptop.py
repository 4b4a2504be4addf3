"""A developer's laptop with ``natproxy connect`` on it, in the guide's network, and the operator who lets it in.

I/O: runs natproxy, its commands, caches and clients, as root.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.network.capture import Capture
from tests.network.cluster import ADDRESSES, CLUSTER_ID, GuideCluster
from tests.network.guide import LAPTOP, MEMCACHED_PORT, NODE_IPS, NODES, PUBLIC_IP, REDIS_PORT, GuideNetwork
from tests.network.namespaces import Spawned
from tests.network.natproxy import GuideProxy
from tests.scenarios.waiting import PATIENCE_SECONDS, eventually

ROOT = Path(__file__).parents[2]
NATPROXY = (sys.executable, "-m", "natproxy")

REDIS_ID, MEMCACHED_ID = "my-redis", "my-memcached"
REDIS_IP = NODE_IPS[0]
MEMCACHED_IPS = NODE_IPS[20:23]
FIRST_CLUSTER_PORT, FIRST_MEMCACHED_PORT = 7000, 11211
CLUSTER_PORTS = tuple(range(FIRST_CLUSTER_PORT, FIRST_CLUSTER_PORT + len(ADDRESSES)))
CLUSTER_SEED_PORT = CLUSTER_PORTS[-1] + 1
MEMCACHED_PORTS = tuple(range(FIRST_MEMCACHED_PORT, FIRST_MEMCACHED_PORT + len(MEMCACHED_IPS)))
CONFIGURATION_PORT = MEMCACHED_PORTS[-1] + 1
ROUTES = 1 + len(CLUSTER_PORTS) + 1 + len(MEMCACHED_PORTS) + 1
CACHES = [
    {"id": REDIS_ID, "ports": f"{REDIS_PORT}-{REDIS_PORT}"},
    {"id": CLUSTER_ID, "ports": f"{FIRST_CLUSTER_PORT}-{FIRST_CLUSTER_PORT + 9}"},
    {"id": MEMCACHED_ID, "ports": f"{FIRST_MEMCACHED_PORT}-{FIRST_MEMCACHED_PORT + 9}"},
]
SERVING = "Ctrl-C ends it."
OTHER_OFFSET = 10_000
LIST_VERSION = 12
FIRST_CLEAR_PORT = 21_230
"""Of the memcacheds themselves, on the nodes' loopback."""


class Operator:
    """Who has the developers' CA, in a directory of its own, and copies to the NAT instance what belongs there."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._instance = directory / "etc"
        self._instance.mkdir()
        self._pki("init", "--host", PUBLIC_IP)
        for name in ("server.crt", "server.key", "ca.crt"):
            self._copy(name)
        self.publish_list()

    def _pki(self, *words: str) -> str:
        argv = [*NATPROXY, "pki", *words, "--dir", str(self._directory / "pki")]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def _copy(self, name: str) -> None:
        """As ``install`` does: nobody ever reads half a file."""
        part = self._instance / f".{name}"
        shutil.copy(self._directory / "pki" / name, part)
        part.replace(self._instance / name)

    def section(self) -> Mapping[str, str]:
        """Return the config's ``tls``."""
        names = {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt", "crl": "clients.crl"}
        return {key: str(self._instance / name) for key, name in names.items()}

    def issue(self, name: str) -> Path:
        """Make a developer's bundle."""
        bundle = self._directory / f"{name}.zip"
        self._pki("issue", name, "--out", str(bundle))
        return bundle

    def revoke(self, name: str) -> None:
        """Revoke a developer's certificate, and copy the list to the instance; nothing is told natproxy."""
        self._pki("revoke", name)
        self.publish_list()

    def publish_list(self) -> None:
        """Copy it as it is."""
        self._copy("clients.crl")


class Connect:
    """A running ``natproxy connect``, as a developer types it."""

    def __init__(self, network: GuideNetwork, bundle: Path, *words: str) -> None:
        self.process: Spawned = network.spawn(LAPTOP, connect_argv(bundle, *words), cwd=ROOT)
        eventually(self._is_serving, "natproxy connect serves")

    def _is_serving(self) -> bool:
        if not self.process.is_running:
            raise RuntimeError(f"natproxy connect has ended: {self.said}")
        return SERVING in self.said

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.process.output()

    def wait_until_said(self, text: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until it has printed this."""
        eventually(lambda: text in self.said, f"it says {text}", seconds)

    def end(self) -> None:
        """End it by Ctrl-C; it has to end well."""
        self.process.signal(signal.SIGINT)
        assert self.process.wait() == 0, self.said
        assert "Traceback" not in self.said


def connect_argv(bundle: Path, *words: str) -> list[str]:
    """Return the command line."""
    return [*NATPROXY, "connect", PUBLIC_IP, "--bundle", str(bundle), *words]


class Memcacheds:
    """Real memcacheds on three of the nodes' addresses, each behind what tells the node list as ElastiCache does."""

    def __init__(self, network: GuideNetwork, hosts: Mapping[str, str]) -> None:
        """``hosts``: what AWS calls each address."""
        pairs = []
        for number, ip in enumerate(hosts):
            network.start_memcached("127.0.0.1", clear := FIRST_CLEAR_PORT + number)
            pairs.append(f"{ip}:{MEMCACHED_PORT}=127.0.0.1:{clear}")
        prefix = ["ip", "netns", "exec", network.namespaces.name(NODES)]
        argv = [*prefix, sys.executable, "-m", "tests.standins.memcached_front", *pairs]
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        told = " ".join(f"{host}|{ip}|{MEMCACHED_PORT}" for ip, host in hosts.items())
        try:
            self._say(None, "ready")
            self._say(f"{LIST_VERSION} {told}\n", "told")
        except BaseException:
            self.close()
            raise

    def _say(self, line: str | None, answer: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line is not None:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == answer

    def close(self) -> None:
        """End the fronts."""
        self._process.communicate(timeout=PATIENCE_SECONDS)


class Laptop:
    """Everything, and whoever is on the laptop: a context manager that leaves nothing behind.

    A capture on the laptop's only link begins before anything else.
    """

    def __init__(self) -> None:
        with contextlib.ExitStack() as stack:
            self.network = stack.enter_context(GuideNetwork())
            self.capture = stack.enter_context(Capture(self.network, LAPTOP, "eth0"))
            self.guide = stack.enter_context(GuideCluster(self.network, None))
            self._add_caches(stack)
            self.operator = Operator(self.network.directory / "operator")
            self.bundles = {name: self.operator.issue(name) for name in ("dev1", "dev2")}
            config = {"caches": CACHES, "public_ip": PUBLIC_IP, "tls": self.operator.section(), "portal": {}}
            self.proxy = GuideProxy(self.network, self.guide.aws, config, routes=ROUTES)
            stack.callback(self.proxy.stop)
            self.connect = Connect(self.network, self.bundles["dev1"])
            stack.callback(self.connect.end)
            self._stack = stack.pop_all()

    def _add_caches(self, stack: contextlib.ExitStack) -> None:
        aws = self.guide.aws
        aws.do("add_standalone", cluster_id=REDIS_ID, address=REDIS_IP, port=REDIS_PORT)
        self.network.start_redis(REDIS_IP)
        aws.do("add_memcached", cluster_id=MEMCACHED_ID, addresses=MEMCACHED_IPS)
        hosts = {ip: f"{MEMCACHED_ID}.{number:04d}.example.com" for number, ip in enumerate(MEMCACHED_IPS, 1)}
        stack.callback(Memcacheds(self.network, hosts).close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def another(self, name: str) -> Iterator[Connect]:
        """Run one more ``natproxy connect``, of another developer, whose ports are OTHER_OFFSET higher."""
        connect = Connect(self.network, self.bundles[name], "--port-offset", str(OTHER_OFFSET))
        yield connect
        connect.end()
