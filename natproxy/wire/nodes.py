"""The rows of CLUSTER NODES and CLUSTER REPLICAS. Pure.

``<id> <ip:port@bus[,hostname[,key=value..]]> <flags> <primary's id or -> <ping> <pong> <epoch> <link> <slots..>``

The ip may be a name (ElastiCache with TLS), an IPv6 address has no brackets, the bus port came with 4.0, the host name
with 7.0, keys and values with 7.2. https://valkey.io/commands/cluster-nodes/

What stands in the place of the ip is what clients dial, whatever it was before: Lettuce and Redisson read nothing else,
and know a node by it again when a MOVED names it. A row of a node that has no port is left out. That hurts nobody who
finds its id as another one's primary (redis-cli warns, Redisson and Lettuce pass such replicas over); but Lettuce gives
an answer up that lacks the row of the node that was asked, so that one stays: it then says that its address is not
known, as nodes do.
"""

from __future__ import annotations

import re

from natproxy.model import Role
from natproxy.wire.resp import UnlikeError, decode, items_of, text_of, with_items, with_text
from natproxy.wire.translation import ROLES, Translation

_COLUMNS = 8
"""Without the slots."""
_address = re.compile(rb"([^@,]*):(\d{1,5})(@\d+)?(?:,([^=,]*))?((?:,[^,]*)*)").fullmatch
_GONE = {b"fail", b"noaddr"}
"""Flags of a node whose role is that of days gone by."""


def rewrite_nodes(reply: bytes, translation: Translation) -> bytes:
    """Rewrite a reply to CLUSTER NODES; raises UnlikeError where it is none."""
    value = decode(reply)
    text = text_of(value)
    if text is None:
        raise UnlikeError
    rows = [_translated(row, translation) if row else row for row in text.split(b"\n")]
    if not any(row != b"" for row in rows):
        raise UnlikeError
    return with_text(value, b"\n".join([row for row in rows if row is not None])).raw


def rewrite_replicas(reply: bytes, translation: Translation) -> bytes:
    """Rewrite a reply to CLUSTER REPLICAS, an array of rows; raises UnlikeError where it is none, or empty."""
    value = decode(reply)
    rows = items_of(value)
    if not rows:
        raise UnlikeError
    translated = []
    for row in rows:
        text = text_of(row)
        if text is None or b"\n" in text[:-1]:
            raise UnlikeError
        end = b"\n" if text.endswith(b"\n") else b""
        if (kept := _translated(text.removesuffix(end), translation)) is not None:
            translated.append(with_text(row, kept + end))
    return with_items(value, translated).raw


def _translated(row: bytes, translation: Translation) -> bytes | None:
    """Return a row as clients are to see it; None: it is to be left out."""
    if row.count(b" ") < _COLUMNS - 1:
        raise UnlikeError
    node, address, flags, rest = row.split(b" ", 3)
    found = _address(address)
    if found is None:
        raise UnlikeError
    ip, digits, bus, hostname, more = found.groups()
    words = flags.split(b",")
    is_own = b"myself" in words
    hosts, port = (ip, hostname or b""), int(digits)
    public = translation.port_for(hosts, (port,), is_own=is_own, role=_role(words))
    if public is not None:
        name = translation.hostname if hostname else b""
        shown = b"%b:%d%b%b" % (translation.host, public, bus or b"", _tail(hostname, name, more))
    elif is_own or not (ip or port):
        shown = b":0%b%b" % (b"@0" if bus else b"", _tail(hostname, b"", more))
        flags = flags if b"noaddr" in words else flags + b",noaddr"
    else:
        return None
    return b" ".join((node, shown, flags, rest))


def _tail(hostname: bytes | None, name: bytes, more: bytes) -> bytes:
    """Return what follows the ports: ``name`` in the place of a host name, if there was one, then all else."""
    return more if hostname is None or (hostname and not name and not more) else b"," + name + more


def _role(flags: list[bytes]) -> Role | None:
    if not _GONE.isdisjoint(flags):
        return None
    return next((ROLES[flag] for flag in flags if flag in ROLES), None)
