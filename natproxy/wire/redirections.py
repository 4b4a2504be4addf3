"""MOVED, ASK and REDIRECT: the errors by which a node sends clients to another one. Pure.

``-MOVED 3999 10.0.1.231:6379``, ``-ASK 3999 ...``, and of Valkey 8 without cluster mode ``-REDIRECT 10.0.1.231:6379``.
The host may be a name, or empty, or ``?`` where the node knows none: that is the node itself. An IPv6 address has no
brackets: the port stands behind the last colon. https://valkey.io/topics/cluster-spec/#moved-redirection
"""

from __future__ import annotations

import re
from typing import NamedTuple

from natproxy.wire.book import View
from natproxy.wire.rewriter import Hint, Reply
from natproxy.wire.translation import MOST_PORT

MOST_SLOT = 16383
TRY_AGAIN = b"-TRYAGAIN natproxy has no port yet for the node that this is to be asked of\r\n"
"""Cluster clients wait a little after a TRYAGAIN, and send the command again."""

_redirection = re.compile(rb"-(?:(MOVED|ASK) (\d{1,5})|(REDIRECT)) (\S*):(\d{1,5})\r\n").fullmatch
_REPLIES = {b"MOVED": Reply.MOVED, b"ASK": Reply.ASK, b"REDIRECT": Reply.REDIRECT}


class Redirected(NamedTuple):
    """A redirection as the client gets it."""

    line: bytes
    reply: Reply
    hint: Hint | None


def redirect(line: bytes, view: View) -> Redirected | None:
    """Rewrite one whole error line; None: it is no redirection, and goes on untouched."""
    found = _redirection(line)
    if found is None:
        return None
    with_slot, slot, without, host, port = found.groups()
    if not 0 < int(port) <= MOST_PORT or (slot is not None and int(slot) > MOST_SLOT):
        return None
    public = view.find(host.decode("latin-1"), int(port))
    if public is None:
        return Redirected(TRY_AGAIN, Reply.TRYAGAIN, Hint.UNKNOWN_NODE)
    reply = _REPLIES[with_slot or without]
    start = line[: found.start(2)] + slot if slot is not None else b"-REDIRECT"
    is_to_itself = reply is Reply.MOVED and public == view.own
    hint = Hint.MOVED_TO_SELF if is_to_itself else None
    return Redirected(b"%b %b:%d\r\n" % (start, view.host.encode(), public), reply, hint)
