"""What a node answers to CLUSTER SHARDS, or SLOTS: which nodes there are, in which role, and how they are. Pure.

Sources: https://valkey.io/commands/cluster-shards/ and https://valkey.io/commands/cluster-slots/. A node may be named
by its address, by a host name, by both, or (the one that is asked) not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from natproxy.model import Address, Role
from natproxy.wire.resp import UnlikeError, Value, decode, items_of, number_of, pairs_of, text_of

ONLINE = "online"
HEALTHS = frozenset({ONLINE, "failed", "fail", "loading"})
_ROLES = {b"master": Role.PRIMARY, b"primary": Role.PRIMARY, b"slave": Role.REPLICA, b"replica": Role.REPLICA}
_UNNAMED = frozenset({"", "?"})
_PORTS = (b"port", b"tls-port")
_HOSTS = (b"endpoint", b"hostname", b"ip")


class Topology(NamedTuple):
    """What was told of nodes, each by every name and port that it has: (host name or address, port, what)."""

    roles: tuple[tuple[str, int, Role], ...]
    health: tuple[tuple[str, int, str], ...] = ()
    """One of HEALTHS."""


def read_shards(reply: bytes, asked: Address) -> Topology | None:
    """Read what ``asked`` answered to CLUSTER SHARDS; None where that is something else.

    The role of a node that has failed is left out: it may be the one that it had before.
    """
    roles: dict[tuple[str, int, Role], None] = {}
    health: dict[tuple[str, int, str], None] = {}
    try:
        for fields in _shard_nodes(reply):
            ports = [number_of(fields[name]) for name in _PORTS if name in fields]
            hosts = (text_of(fields[name]) for name in _HOSTS if name in fields)
            spots = [(host, port) for host in _hosts(hosts, asked) for port in ports]
            state = _word(text_of(fields[b"health"])) if b"health" in fields else ONLINE
            role = _ROLES.get(text_of(fields[b"role"]) or b"") if b"role" in fields else None
            for spot in spots:
                if state in HEALTHS:
                    health[(*spot, state)] = None
                if role is not None and state == ONLINE:
                    roles[(*spot, role)] = None
    except UnlikeError:
        return None
    return Topology(tuple(roles), tuple(health))


def _shard_nodes(reply: bytes) -> Iterator[dict[bytes, Value]]:
    for shard in items_of(_whole(reply)):
        for name, nodes in pairs_of(shard):
            if text_of(name) == b"nodes":
                for node in items_of(nodes):
                    yield {text_of(key) or b"": value for key, value in pairs_of(node)}


def read_slots(reply: bytes, asked: Address) -> Topology | None:
    """Read what ``asked`` answered to CLUSTER SLOTS; None where that is something else.

    Of each range of slots the first node is the primary, the others are its replicas.
    """
    roles: dict[tuple[str, int, Role], None] = {}
    try:
        for slots in items_of(_whole(reply)):
            nodes = items_of(slots)[2:]
            for role, node in zip([Role.PRIMARY, *[Role.REPLICA] * len(nodes)], nodes, strict=False):
                for spot in _slot_node(items_of(node), asked):
                    roles[(*spot, role)] = None
    except UnlikeError:
        return None
    return Topology(tuple(roles))


def _slot_node(fields: Sequence[Value], asked: Address) -> Iterator[tuple[str, int]]:
    if len(fields) < 2:
        raise UnlikeError
    more = [text_of(value) for _, value in pairs_of(fields[3])] if len(fields) > 3 else []
    for host in _hosts((text_of(fields[0]), *more), asked):
        yield host, number_of(fields[1])


def _whole(reply: bytes) -> Value:
    value = decode(reply)
    if value is None:
        raise UnlikeError
    return value


def _hosts(told: Iterable[bytes | None], asked: Address) -> tuple[str, ...]:
    """Return what a node is called; the one that does not know its own name is the one that is asked."""
    named = {_word(host) for host in told if host is not None} - _UNNAMED
    return tuple(sorted(named)) or (asked.ip,)


def _word(text: bytes | None) -> str:
    return "" if text is None else text.decode("latin-1")
