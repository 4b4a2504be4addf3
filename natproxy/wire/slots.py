"""CLUSTER SLOTS and CLUSTER SHARDS. Pure.

What clients are told of a node: as endpoint the public host, always (NULL, "the same that you asked", is none that
redis-py takes, and "?" asks clients to guess); as ``ip`` the public address, where it is known; as host name the public
one, if it is a name: else the field is left out, as nodes do that have none.

A node that has no port is left out. Where that is a range's primary, the next node moves up, and clients take it for
the primary: it sends them on by a MOVED, which is right as soon as the primary has a port, and a TRYAGAIN until then. A
range or shard without any node left is left out whole: clients look at its first node unasked.

https://valkey.io/commands/cluster-slots/ https://valkey.io/commands/cluster-shards/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from natproxy.model import Role
from natproxy.wire.resp import (
    UnlikeError,
    Value,
    decode,
    items_of,
    number_of,
    pairs_of,
    read,
    text_of,
    with_items,
    with_text,
)
from natproxy.wire.translation import ROLES, UNNAMED, Translation

_reply_begins = re.compile(rb"\*([1-9]\d{0,5})\r\n").match
_range_begins = re.compile(rb"\*(\d{1,4})\r\n:(\d{1,5})\r\n:(\d{1,5})\r\n").match
_ALIKE_BYTES = 128
"""Lists of nodes that begin alike for so long are compared whole: the primary's name or id tells most apart."""
_LONGEST_NODE = 4096
"""Bytes of a node in CLUSTER SLOTS; names and addresses are shorter."""
_FAILED = (b"fail", b"failed")
_PORTS = (b"port", b"tls-port")


class _Nodes(NamedTuple):
    """The nodes of a range of slots."""

    raw: bytes
    told: bytes
    how_many: int
    """Of those that are told."""


def rewrite_slots(reply: bytes, translation: Translation) -> bytes:
    """Rewrite a reply to CLUSTER SLOTS; raises UnlikeError where it is none, or empty.

    ``[[first slot, last slot, node, node..]..]``. A fragmented cluster has thousands of ranges, and few lists of nodes:
    each is read once. Where all of its bytes stand again it is the same list, since no value is another's beginning.
    """
    begins = _reply_begins(reply)
    if begins is None:
        raise UnlikeError
    at = begins.end()
    seen: dict[tuple[bytes, bytes], _Nodes] = {}
    ranges = []
    for _ in range(int(begins[1])):
        header = _range_begins(reply, at)
        if header is None or int(header[1]) < 2:
            raise UnlikeError
        at = header.end()
        key = header[1], reply[at : at + _ALIKE_BYTES]
        nodes = seen.get(key)
        if nodes is None or not reply.startswith(nodes.raw, at):
            nodes = seen[key] = _read_nodes(reply, at, int(header[1]) - 2, translation)
        at += len(nodes.raw)
        if nodes.how_many:
            ranges.append(b"*%d\r\n:%b\r\n:%b\r\n%b" % (nodes.how_many + 2, header[2], header[3], nodes.told))
    if at != len(reply):
        raise UnlikeError
    return b"*%d\r\n%b" % (len(ranges), b"".join(ranges))


def _read_nodes(reply: bytes, at: int, count: int, translation: Translation) -> _Nodes:
    start, told = at, []
    role = Role.PRIMARY
    for _ in range(count):
        node, length = read(reply[at : at + _LONGEST_NODE], 0)
        at += length
        if (shown := _slots_node(node, role, translation)) is not None:
            told.append(shown.raw)
        role = Role.REPLICA
    return _Nodes(reply[start:at], b"".join(told), len(told))


def _slots_node(node: Value, role: Role, translation: Translation) -> Value | None:
    """``[endpoint, port, id, {ip, hostname}]``; the last came with 7.0."""
    items = items_of(node)
    if len(items) < 2:
        raise UnlikeError
    endpoint, port, *rest = items
    fields = _fields(rest[1]) if len(rest) > 1 else {}
    fields[b"endpoint"] = text_of(endpoint) or b""
    public = _public_port(fields, [number_of(port)], role, translation)
    if public is None:
        return None
    if fields.keys() - {b"endpoint"}:
        rest[1] = _with_names(rest[1], translation)
    return with_items(node, (with_text(endpoint, translation.host), with_text(port, b"%d" % public), *rest))


def rewrite_shards(reply: bytes, translation: Translation) -> bytes:
    """Rewrite a reply to CLUSTER SHARDS; raises UnlikeError where it is none, or empty.

    ``[{slots: [..], nodes: [node..]}..]``
    """
    tree = decode(reply)
    if not items_of(tree):
        raise UnlikeError
    shown = [_shard(shard, translation) for shard in items_of(tree)]
    return with_items(tree, [shard for shard in shown if shard is not None]).raw


def _shard(shard: Value, translation: Translation) -> Value | None:
    kept: list[Value] = []
    nodes: list[Value] | None = None
    for key, value in pairs_of(shard):
        if text_of(key) == b"nodes":
            shown = (_shards_node(node, translation) for node in items_of(value))
            nodes = [node for node in shown if node is not None]
            kept += [key, with_items(value, nodes)]
        else:
            kept += [key, value]
    if nodes is None:
        raise UnlikeError
    return with_items(shard, kept) if nodes else None


def _shards_node(node: Value, translation: Translation) -> Value | None:
    """``{id, port and/or tls-port, ip, endpoint, hostname, role, replication-offset, health}``."""
    fields = _fields(node)
    ports = [number_of(value) for key, value in pairs_of(node) if text_of(key) in _PORTS]
    role = None if fields.get(b"health") in _FAILED else ROLES.get(fields.get(b"role", b""))
    public = _public_port(fields, ports, role, translation)
    return None if public is None else _with_port(_with_names(node, translation), public, translation)


def _public_port(
    fields: Mapping[bytes, bytes], ports: list[int], role: Role | None, translation: Translation
) -> int | None:
    """A node knows the address of each other one: of one that has a port, and no address, it means itself."""
    endpoint, ip, hostname = (fields.get(key, b"") for key in (b"endpoint", b"ip", b"hostname"))
    is_own = any(ports) and endpoint in UNNAMED and ip in UNNAMED
    return translation.port_for((endpoint, ip, hostname), ports, is_own=is_own, role=role)


def _with_names(fields: Value, translation: Translation) -> Value:
    """Return the fields of a node, or those about its address, with what clients are told in them."""
    told = {b"endpoint": translation.host, b"ip": translation.ip, b"hostname": translation.hostname}
    kept: list[Value] = []
    for key, value in pairs_of(fields):
        new = told.get(text_of(key) or b"")
        if new is None:
            kept += [key, value]
        elif new:
            kept += [key, with_text(value, new)]
    return with_items(fields, kept)


def _with_port(node: Value, public: int, translation: Translation) -> Value:
    """Return a node with one port, which has the name that clients look for who speak as this one does."""
    kept: list[Value] = []
    is_told = False
    for key, value in pairs_of(node):
        if text_of(key) not in _PORTS:
            kept += [key, value]
        elif not is_told:
            is_told = True
            name = b"tls-port" if translation.speaks_tls else b"port"
            kept += [with_text(key, name), with_text(value, b"%d" % public)]
    return with_items(node, kept)


def _fields(value: Value) -> dict[bytes, bytes]:
    """Return what is a string or a number of a map's values; nothing for nil."""
    if not value.items:
        return {}
    named = ((text_of(key), text_of(one)) for key, one in pairs_of(value))
    return {key: one for key, one in named if key is not None and one is not None}
