"""One whole topology reply, rewritten so that clients can dial what it names. Pure.

    slots.py         CLUSTER SLOTS, CLUSTER SHARDS
    nodes.py         CLUSTER NODES, CLUSTER REPLICAS
    replication.py   ROLE, INFO
    redirections.py  MOVED, ASK, REDIRECT: single lines, for which see ``redirect``
    translation.py   what all of these ask: which port, which name

Only what stands in the book is ever told as an address. A node that the book has no port for is left out, and that is
said (``is_missing``), so that discovery can look for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from natproxy.wire.book import View
from natproxy.wire.nodes import rewrite_nodes, rewrite_replicas
from natproxy.wire.redirections import Redirected, redirect
from natproxy.wire.replication import rewrite_info, rewrite_role
from natproxy.wire.resp import UnlikeError
from natproxy.wire.rewriter import Reply, Told
from natproxy.wire.slots import rewrite_shards, rewrite_slots
from natproxy.wire.translation import Translation

__all__ = ["Redirected", "Rewritten", "redirect", "rewrite"]

_REWRITING: Mapping[Reply, Callable[[bytes, Translation], bytes]] = {
    Reply.SLOTS: rewrite_slots,
    Reply.SHARDS: rewrite_shards,
    Reply.NODES: rewrite_nodes,
    Reply.REPLICAS: rewrite_replicas,
    Reply.ROLE: rewrite_role,
    Reply.INFO: rewrite_info,
}


class Rewritten(NamedTuple):
    """A topology reply as the client gets it, and what it told."""

    data: bytes
    is_missing: bool
    """It names a node that the book has no port for."""
    roles: tuple[Told, ...]
    """The role of each node that is named, by the name or address that the book knows it by, if any."""


def rewrite(reply: Reply, data: bytes, view: View) -> Rewritten | None:
    """Rewrite one whole reply; None: it is not of that shape, or names no node, and goes on untouched."""
    rewriting = _REWRITING.get(reply)
    if rewriting is None:
        return None
    translation = Translation(view)
    try:
        told = rewriting(data, translation)
    except UnlikeError:
        return None
    return Rewritten(told, translation.is_missing, translation.roles)
