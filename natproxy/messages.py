"""What the controller and its workers say to each other: few, typed, one way each. Pure.

Controller to worker: Serve, Unserve, End, Policy, Stop. Worker to controller: Ready, Counts, Finished, DialFailed,
DialRecovered, Stopped. Listening sockets travel beside ``Serve`` as file descriptors (see channel.py).
"""

from __future__ import annotations

import msgspec


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Serve this port from now on; a port already served takes the new values and keeps its connections."""

    port: int
    cache: str
    kind: str
    node: str
    """What the log calls the node: ``cluster/id``, or empty for an endpoint."""
    addresses: tuple[tuple[str, int], ...]
    """(ip, port) to dial, best first; empty = none known: connections are closed at once with ``no-address``."""
    rotates: bool
    """True where the addresses are equals and new connections should be spread over them."""
    allow: tuple[str, ...] | None
    """Networks in CIDR form; None = everyone."""
    connect_seconds: float
    idle_seconds: float | None
    keepalive_seconds: float
    refuse: str | None = None
    """An Outcome value: every new connection is closed at once with it (a node that is being drained)."""
    limit_group: str = ""
    """Ports of one group are counted together: empty for the global limits, a cache's id where it has its own."""
    max_connections: int = 4096
    max_connections_per_client: int = 512
    sockets: int = 0
    """How many listening sockets travel with this message."""


class Unserve(msgspec.Struct, frozen=True, tag=True):
    """Close the listener of this port; live connections end with ``outcome`` at once."""

    port: int
    outcome: str


class End(msgspec.Struct, frozen=True, tag=True):
    """Live connections of ``port`` that were dialled to ``address`` (None: to any) end within ``seconds``.

    ``seconds`` None takes an earlier order back. Only connections that exist now are meant. A later order never
    lengthens an earlier one.
    """

    port: int
    address: tuple[str, int] | None
    seconds: float | None
    outcome: str


class Policy(msgspec.Struct, frozen=True, tag=True):
    """What holds for all ports of a worker."""

    log_connections: bool
    """Whether ``Finished`` is wanted."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Stop accepting, let live connections end for ``seconds``, close the rest, say Stopped, exit."""

    seconds: float


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker's loop runs."""

    pid: int


class RouteCounts(msgspec.Struct, frozen=True, array_like=True):
    """What happened on one port since the last Counts."""

    port: int
    open: int
    """Connections open now."""
    opened: int
    ended: dict[str, int]
    """Outcome -> connections."""
    client_bytes: int
    """Bytes received from clients and sent on to the node."""
    node_bytes: int
    dials: tuple[int, ...]
    """Successful dials by bucket of DIAL_BUCKETS, one more for +Inf; not cumulative. Empty where there was none."""
    dial_seconds: float
    live: tuple[tuple[str, int, int], ...]
    """(ip, port, connections) of all addresses that live connections were dialled to."""


DIAL_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds of the dial time histogram."""


class Counts(msgspec.Struct, frozen=True, tag=True):
    """Sent about once a second, also when nothing happened: it is the worker's sign of life."""

    open: int
    routes: tuple[RouteCounts, ...]
    """Ports on which something happened, or connections are open."""
    accept_pauses: int = 0
    dropped_logs: int = 0


class FinishedConnection(msgspec.Struct, frozen=True, array_like=True):
    """One connection that ended, for one log line."""

    port: int
    cache: str
    kind: str
    node: str
    client: str
    """``ip:port`` of the client."""
    address: str
    """``ip:port`` dialled; empty where none was."""
    client_bytes: int
    node_bytes: int
    seconds: float
    outcome: str
    detail: str = ""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Connections that ended since the last one."""

    connections: tuple[FinishedConnection, ...]


class DialFailed(msgspec.Struct, frozen=True, tag=True):
    """No address of the port's route could be dialled. Sent at most once a second for each port."""

    port: int
    outcome: str
    detail: str


class DialRecovered(msgspec.Struct, frozen=True, tag=True):
    """The port's route answers again after DialFailed."""

    port: int


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """All connections have ended; nothing follows."""


Down = Serve | Unserve | End | Policy | Stop
Up = Ready | Counts | Finished | DialFailed | DialRecovered | Stopped
