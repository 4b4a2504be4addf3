"""ROLE and INFO: what primaries and replicas say of each other without cluster mode, and with it. Pure.

A replica that has no port is left out, where a primary lists it. A primary that has none stays as its replica names it,
since a replica without a primary cannot be said; but it is missed, so that it has a port when it is asked for again.
https://valkey.io/commands/role/ https://valkey.io/commands/info/
"""

from __future__ import annotations

import re

from natproxy.wire.resp import UnlikeError, Value, decode, items_of, number_of, text_of, with_items, with_text
from natproxy.wire.translation import Translation

_primary_host = re.compile(rb"master_host:([^\r\n]+)").fullmatch
_primary_port = re.compile(rb"master_port:(\d{1,5})").fullmatch
_replica = re.compile(rb"slave\d+:ip=([^,]*),port=(\d{1,5})((?:,.*)?)", re.DOTALL).fullmatch
_connected = re.compile(rb"connected_slaves:(\d{1,9})").fullmatch
_readable = re.compile(rb"[A-Za-z\d.:]+").fullmatch


def rewrite_role(reply: bytes, translation: Translation) -> bytes:
    """Rewrite a reply to ROLE; raises UnlikeError where it is none, or names no address.

    ``[master, offset, [[ip, port, offset]..]]`` (all strings within) or ``[slave, ip, port, state, offset]``.
    """
    value = decode(reply)
    items = items_of(value)
    match text_of(items[0]) if items else None:
        case b"master" if len(items) >= 3 and items_of(items[2]):
            shown = [told for one in items[2].items if (told := _told(one, 0, translation)) is not None]
            return with_items(value, (*items[:2], with_items(items[2], shown), *items[3:])).raw
        case b"slave":
            return (_told(value, 1, translation) or value).raw
        case _:
            raise UnlikeError


def _told(value: Value, at: int, translation: Translation) -> Value | None:
    """Return an array that holds ``ip, port`` at ``at`` with what clients are told; None: there is no port for it."""
    items = items_of(value)
    if len(items) < at + 2:
        raise UnlikeError
    public = translation.port_for((text_of(items[at]) or b"",), (number_of(items[at + 1]),))
    if public is None:
        return None
    told = with_text(items[at], translation.host), with_text(items[at + 1], b"%d" % public)
    return with_items(value, (*items[:at], *told, *items[at + 2 :]))


def rewrite_info(reply: bytes, translation: Translation) -> bytes:
    """Rewrite a reply to INFO with whatever sections; raises UnlikeError where it is none, or names no address.

    Replicas that stay are counted through, and ``connected_slaves`` with them, so that whoever asks for ``slave0`` up
    to that number finds each. Nodes count through, too, where they cannot tell a replica's address.
    """
    value = decode(reply)
    text = text_of(value)
    if text is None:
        raise UnlikeError
    lines = text.split(b"\r\n")
    is_changed = _tell_replicas(lines, translation)
    if not (_tell_primary(lines, translation) or is_changed):
        raise UnlikeError
    return with_text(value, b"\r\n".join(lines)).raw


def _tell_primary(lines: list[bytes], translation: Translation) -> bool:
    """Tell clients of a replica's primary; return whether one is named."""
    hosts = [(at, found) for at, line in enumerate(lines) if (found := _primary_host(line))]
    ports = [(at, found) for at, line in enumerate(lines) if (found := _primary_port(line))]
    if not (len(hosts) == len(ports) == 1):
        return False
    (host_at, host), (port_at, port) = hosts[0], ports[0]
    public = translation.port_for((host[1],), (int(port[1]),))
    if public is not None:
        lines[host_at], lines[port_at] = b"master_host:" + translation.host, b"master_port:%d" % public
    return True


def _tell_replicas(lines: list[bytes], translation: Translation) -> bool:
    """Tell clients of a primary's replicas; return whether there are any."""
    host = _host_for_info(translation)
    kept: list[bytes] = []
    shown = left_out = 0
    for line in lines:
        found = _replica(line)
        if found is None:
            kept.append(line)
            continue
        public = translation.port_for((found[1],), (int(found[2]),))
        if public is None:
            left_out += 1
        else:
            kept.append(b"slave%d:ip=%b,port=%d%b" % (shown, host, public, found[3]))
            shown += 1
    if left_out:
        kept = [
            b"connected_slaves:%d" % max(0, int(found[1]) - left_out) if (found := _connected(line)) else line
            for line in kept
        ]
    lines[:] = kept
    return shown + left_out > 0


def _host_for_info(translation: Translation) -> bytes:
    """Lettuce reads no line of a replica whose address has a hyphen in it: then an address is better than a name."""
    return translation.host if _readable(translation.host) else translation.ip
