"""What the controller and its workers say to each other: few, typed, one way each. Pure.

Controller to worker: Tls, Book, Serve, Unserve, End, Policy, Stop. Worker to controller: Ready, Counts, Finished,
DialFailed, DialRecovered, Hint, Learnt, Stopped. Listening sockets travel beside ``Serve`` as file descriptors (see
channel.py).
"""

from __future__ import annotations

import msgspec


class ServerTls(msgspec.Struct, frozen=True):
    """What natproxy needs to be a TLS server. All PEM; the controller has found it good before it is sent."""

    certificate: bytes
    """The server's certificate, then its intermediates."""
    key: bytes
    client_ca: bytes | None = None
    """Who vouches for clients; None = no certificate is asked of them."""
    crl: bytes | None = None
    """The revocation lists of those."""
    min_version: str = "1.2"
    """1.2 | 1.3."""

    def __repr__(self) -> str:
        """Leave the key out: whatever is shown may end up in a log."""
        return f"<{type(self).__name__}>"


class ClientTls(msgspec.Struct, frozen=True):
    """What natproxy shows to nodes that ask for a certificate. All PEM; whoever sends it has found it good."""

    certificate: bytes
    """Natproxy's certificate, then its intermediates."""
    key: bytes

    def __repr__(self) -> str:
        """Leave the key out: whatever is shown may end up in a log."""
        return f"<{type(self).__name__}>"


class Tls(msgspec.Struct, frozen=True, tag=True):
    """Speak TLS with these from now on, to clients and to nodes; sent before the ports that need it.

    Live connections stay, but those whose client certificate this no longer lets in are closed at once.
    """

    server: ServerTls | None
    node_cas: dict[str, bytes]
    """Serve.node_ca -> the CAs in it. The system's roots, whose name is empty, need no entry."""
    client: ClientTls | None = None
    """None = a node that asks for a certificate is shown none."""


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
    client_tls: str = "off"
    """off | passthrough | terminate."""
    certificates: tuple[str, ...] | None = None
    """Names that a client's certificate must have one of (``tls.identity.is_named``); None = any good one will do."""
    node_tls: bool = False
    node_ca: str = ""
    names: tuple[str, ...] = ()
    """For each of ``addresses`` what the certificate there must name; empty where ``node_tls`` is false."""
    handshake_seconds: float = 5.0
    """For each of the two handshakes."""
    sniffs: bool = False
    """True where a client that begins with a TLS handshake is wrong here, and is to be told from others."""
    rewrite: str = ""
    """How replies that carry addresses are rewritten: cluster | replication | memcached; empty = not at all."""
    book: str = ""
    """The name of the Book that it is done by; one that was never sent is empty."""
    sockets: int = 0
    """How many listening sockets travel with this message."""


class Book(msgspec.Struct, frozen=True, tag=True):
    """Rewrite addresses by these from now on, on live connections too (see wire/book.py)."""

    name: str
    """What Serve.book calls it: a cache's id, or another name where it stands for no cache."""
    ports: tuple[tuple[str, int, int], ...]
    """(host name or address, port, natproxy's port for it)."""
    public_host: str
    public_ip: str
    version: int


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
    client_handshakes: dict[str, int] = {}
    """``ok`` or a HandshakeFailure -> TLS handshakes with clients."""
    node_handshakes: dict[str, int] = {}
    rewritten: dict[str, int] = {}
    """wire.rewriter.Reply -> replies."""
    fallbacks: dict[str, int] = {}
    """wire.rewriter.Fallback -> connections."""


DIAL_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds of the dial time histogram."""


class Counts(msgspec.Struct, frozen=True, tag=True):
    """Sent about once a second, also when nothing happened: it is the worker's sign of life."""

    open: int
    routes: tuple[RouteCounts, ...]
    """Ports on which something happened, or connections are open."""
    accept_pauses: int = 0
    dropped_logs: int = 0
    sessions: tuple[tuple[str, str, str, bool, int], ...] = ()
    """(client | node, TLS version, cipher suite, resumed, how many) of the handshakes since the last Counts."""


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
    certificate: str = ""
    """The name in the client's certificate; empty where it showed none."""
    serial: str = ""
    """That certificate's serial number (hexadecimal, as openssl prints it)."""
    client_tls: str = ""
    """The TLS version spoken with the client; empty = none, or not by natproxy."""
    node_tls: str = ""
    is_verified: bool = True
    """False where the handshake failed, so that name and serial are what the client claims."""
    unread: str = ""
    """Why nobody reads along any more (wire.rewriter.Fallback); empty = somebody does, or none ever did."""


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


class Hint(msgspec.Struct, frozen=True, tag=True):
    """What passed by on a port says that AWS and DNS may tell something new. At most one a second of each sort."""

    port: int
    hint: str
    """A wire.rewriter.Hint value."""


class Learnt(msgspec.Struct, frozen=True, tag=True):
    """Roles that topology replies told of on their way. At most one a second of each book, where they are new."""

    book: str
    roles: tuple[tuple[str, int, str], ...]
    """(host name or address, port, model.Role value)."""


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """All connections have ended; nothing follows."""


Down = Tls | Book | Serve | Unserve | End | Policy | Stop
Up = Ready | Counts | Finished | DialFailed | DialRecovered | Hint | Learnt | Stopped
