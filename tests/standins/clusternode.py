"""One node of a real Redis cluster. I/O: a process, its Unix socket.

With a ``certificate`` it speaks TLS only, and calls itself by its ``host``, as those of ElastiCache do. It is given its
orders on a Unix socket, so that a ``prefix`` may run it in another network namespace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.standins.caches import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    SOCKET_FILE,
    CacheError,
    CacheProcess,
    CacheServer,
    redis_program,
)
from tests.standins.certificates import Issued
from tests.standins.resp import Reply, ask, converse

BUS_PORT = 1122
"""Where nodes talk with each other, as on ElastiCache."""
NODE_TIMEOUT_SECONDS = 2.0
"""How long a node may be silent until the others hold it for dead."""
ORDER_SECONDS = 20.0
BATCH = 1000
"""Commands that are sent at once."""

Order = tuple[str, ...]


class ClusterNode(CacheServer):
    """A redis-server, or valkey-server, in cluster mode, as a child process; at first it knows nobody."""

    is_real = True

    def __init__(
        self,
        address: str,
        port: int,
        *,
        host: str = "",
        certificate: Issued | None = None,
        ca: bytes = b"",
        prefix: Sequence[str] = (),
    ) -> None:
        """``certificate`` has to be good for clients too, and for each other by ``ca``: they speak TLS on the bus."""
        super().__init__(address, port)
        program = redis_program()
        if program is None:
            raise CacheError("redis-server is not installed")
        if not prefix:
            self._refuse_taken_ports()
        self.host = host
        self._port_option = "port" if certificate is None else "tls-port"
        argv = [*prefix, program, *_words(address, port), *(() if certificate is None else _tls_words(port, host))]
        self._process = CacheProcess(argv, ("", 0), ("PING", "+PONG"), certificate, ca if certificate else None)
        self.id = str(self.ask("CLUSTER", "MYID"))
        if certificate is not None:
            self.clear_port = 0

    def __repr__(self) -> str:
        return f"<ClusterNode {self.address}:{self.port}>"

    @property
    def pid(self) -> int | None:
        return self._process.child.pid

    @property
    def is_running(self) -> bool:
        """False once it has ended."""
        return self._process.child.poll() is None

    def stop(self) -> None:
        self._process.end()

    def kill(self) -> None:
        self._process.kill()

    def let_clients_in(self) -> None:
        """Listen where clients expect it, from now on."""
        self.ask("CONFIG", "SET", self._port_option, str(self.port))

    def ask(self, *words: str, seconds: float = ORDER_SECONDS) -> Reply:
        """Give it an order, not as its clients do but on its own socket."""
        return ask(self._process.socket_path, 0, *words, seconds=seconds)

    def ask_all(self, orders: Sequence[Order]) -> list[Reply]:
        """Give it many."""
        batches = (orders[start : start + BATCH] for start in range(0, len(orders), BATCH))
        return [
            reply for batch in batches for reply in converse(self._process.socket_path, 0, batch, seconds=ORDER_SECONDS)
        ]

    def info(self, section: str, field: str) -> str:
        """Return one field of INFO; empty where there is none."""
        lines = str(self.ask("INFO", section)).splitlines()
        return next((line.partition(":")[2] for line in lines if line.startswith(f"{field}:")), "")

    def view(self) -> dict[str, Member]:
        """Return the cluster as this node sees it, by node id."""
        return {member.id: member for member in map(_member, str(self.ask("CLUSTER", "NODES")).splitlines())}


def _words(address: str, port: int) -> list[str]:
    options = {
        "bind": address,
        "bind-source-addr": address,
        "port": "0",  # let_clients_in
        "unixsocket": SOCKET_FILE,
        "dir": ".",
        "save": "",
        "appendonly": "no",
        "protected-mode": "no",
        "enable-debug-command": "yes",
        "repl-diskless-sync-delay": "0",
        "repl-ping-replica-period": "1",  # topologies list no replica that has heard nothing yet
        "cluster-enabled": "yes",
        "cluster-config-file": "nodes.conf",
        "cluster-port": str(BUS_PORT),
        "cluster-announce-ip": address,
        "cluster-announce-port": str(port),
        "cluster-node-timeout": str(int(NODE_TIMEOUT_SECONDS * 1000)),
        "cluster-allow-replica-migration": "no",
        "cluster-require-full-coverage": "no",  # ElastiCache's default
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _tls_words(port: int, host: str) -> list[str]:
    options = {
        "cluster-announce-port": "0",
        "cluster-announce-tls-port": str(port),
        "tls-cert-file": CERTIFICATE_FILE,
        "tls-key-file": KEY_FILE,
        "tls-ca-cert-file": CA_FILE,
        "tls-auth-clients": "no",
        "tls-replication": "yes",
        "tls-cluster": "yes",
    }
    if host:
        options |= {"cluster-announce-hostname": host, "cluster-preferred-endpoint-type": "hostname"}
    return [word for name, value in options.items() for word in (f"--{name}", value)]


@dataclass(frozen=True)
class Member:
    """One line of CLUSTER NODES."""

    id: str
    host: str
    flags: frozenset[str]
    primary: str
    """Whom it follows; ``-`` = nobody."""
    is_linked: bool
    slots: frozenset[int]


def _member(line: str) -> Member:
    node_id, where, flags, primary, _ping, _pong, _epoch, link, *ranges = line.split()
    slots: set[int] = set()
    for one in ranges:
        if not one.startswith("["):
            first, _, last = one.partition("-")
            slots.update(range(int(first), int(last or first) + 1))
    host = where.partition(",")[2].partition(",")[0]
    return Member(node_id, host, frozenset(flags.split(",")), primary, link == "connected", frozenset(slots))
