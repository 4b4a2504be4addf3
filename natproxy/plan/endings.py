"""Which live connections end, when, and why: the one decision. Pure.

The controller asks for each address that live connections of a port were dialled to, whenever something it knows has
changed. All else leaves a connection alone.

==========================================================  ==========  ==================
what is the case                                            ending      outcome
==========================================================  ==========  ==================
a reload no longer allows the client's address              at once     not-allowed
``primary``: the name's answer no longer holds the address  at once     role-moved
``reader``: the answer no longer holds the address, and     at once     role-moved
its node has become the primary
a node's or static name has been without the address for    at once     address-changed
5 s, and the address does not answer either
the same, but the address still answers                     drained     address-changed
a node or cache is gone                                     drained     node-gone
a reload removed the route                                  drained     route-removed
a reload changed the route's target or TLS mode             drained     route-changed
the daemon stops                                            in `stop`   stopped
a name that rotates (reader, configuration, serverless)     kept
has been without the address for however long
an answer was empty, partial or failed                      kept
AWS says that a cache takes TLS now, or takes it no more    kept
a reload left the route as it was                           kept
==========================================================  ==========  ==================

Where several apply, at once beats drained beats kept; of two drains the shorter counts.

What bytes do is not decided here: an EOF, a reset, `idle`, unanswered keepalive probes, unacknowledged data and a limit
that is reached belong to the relay, and come back from the worker as outcomes (``client-closed``, ``node-reset``,
``idle``, ``node-timeout``, ``limit`` ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from natproxy.model import Address, Cache, Kind, Mode, Outcome, Role, Route
from natproxy.plan.addresses import Addresses, membership

SETTLE_SECONDS = 5.0
"""How long a node's or static name has to be without an address before its connections are drained."""


class How(IntEnum):
    """How a live connection ends; a greater one is more severe."""

    KEEP = 0
    DRAIN = 1
    NOW = 2


@dataclass(frozen=True, slots=True)
class Ending:
    """What is to be done with live connections."""

    how: How
    seconds: float | None = None
    """How long they may live on: 0 for NOW, None for KEEP (which takes an earlier drain back)."""
    outcome: Outcome | None = None
    """What the connection is counted and logged as; None for KEEP."""


KEPT = Ending(How.KEEP)


@dataclass(frozen=True, slots=True)
class Live:
    """Live connections of one port that were dialled to one address."""

    port: int
    kind: Kind
    mode: Mode
    address: Address
    count: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the decision looks at. The defaults describe a connection about which nothing has changed."""

    kind: Kind
    is_rotating: bool = False
    """Its name rotates among many addresses."""
    is_answered: bool = True
    """The name's newest answer holds its address, or there never was one."""
    is_current: bool = True
    """The set that counts holds its address: the newest answer, or a rotating name's union of the last minute."""
    missing_seconds: float = 0.0
    """How long that set has been without its address."""
    answers: bool = True
    """False where a dial of its address, or keepalive probes to it, went unanswered since."""
    role_moved: bool = False
    """The node at its address has the other role now: ``reader``'s became the primary."""
    is_gone: bool = False
    is_route_changed: bool = False
    is_route_removed: bool = False
    is_client_allowed: bool = True
    is_stopping: bool = False
    drain_seconds: float = 30.0
    stop_seconds: float = 5.0


def ending(facts: Facts) -> Ending:
    """Decide how the connection ends, if at all; see the module's table."""
    reasons = [
        (not facts.is_client_allowed, How.NOW, Outcome.NOT_ALLOWED),
        (_has_moved(facts), How.NOW, Outcome.ROLE_MOVED),
        (_has_left(facts) and not facts.answers, How.NOW, Outcome.ADDRESS_CHANGED),
        (facts.is_gone, How.DRAIN, Outcome.GONE),
        (facts.is_route_removed, How.DRAIN, Outcome.ROUTE_REMOVED),
        (facts.is_route_changed, How.DRAIN, Outcome.ROUTE_CHANGED),
        (_has_left(facts), How.DRAIN, Outcome.ADDRESS_CHANGED),
        (facts.is_stopping, How.DRAIN, Outcome.STOPPED),
    ]
    applying = [Ending(how, _seconds(facts, how, outcome), outcome) for applies, how, outcome in reasons if applies]
    # min() takes the first of equals: the order above is the order of what is named.
    return min(applying, key=lambda one: (-one.how, one.seconds), default=KEPT)


def facts_of(
    live: Live, route: Route, cache: Cache | None, book: Mapping[str, Addresses], now: float, *, answers: bool = True
) -> Facts:
    """Gather what names and roles say about ``live``, which runs on ``route``.

    ``cache`` is the route's, as known now (None for a static one); ``book`` the answers of every host that
    ``routes.hosts_to_watch`` names. Events (gone, reload, stop) are the caller's to add.
    """
    stands = membership(route, book, live.address, now)
    other = {Kind.PRIMARY: Role.REPLICA, Kind.READER: Role.PRIMARY}.get(live.kind)
    return Facts(
        kind=live.kind,
        is_rotating=stands.is_rotating,
        is_answered=stands.is_answered,
        is_current=stands.is_current,
        missing_seconds=stands.missing_seconds,
        answers=answers,
        role_moved=other is not None and cache is not None and role_at(cache, book, live.address) is other,
        drain_seconds=route.limits.drain_seconds,
    )


def role_at(cache: Cache, book: Mapping[str, Addresses], address: Address) -> Role | None:
    """Return the role of the node at ``address``; None where no node is, none has a role, or two disagree.

    During a resize AWS may show two nodes at one host (see lettuce issue 3910), which then says nothing.
    """
    roles = {
        node.role
        for node in cache.nodes
        if node.endpoint is not None
        and node.endpoint.port == address.port
        and address.ip in book.get(node.endpoint.host, Addresses()).current
    }
    return roles.pop() if len(roles) == 1 else None


def _has_moved(facts: Facts) -> bool:
    """``primary`` names one node, so a new answer is a new node; of ``reader``'s many only a promoted one ends."""
    if facts.kind is Kind.PRIMARY:
        return not facts.is_rotating and not facts.is_current
    return facts.kind is Kind.READER and not facts.is_answered and facts.role_moved


def _has_left(facts: Facts) -> bool:
    is_settled = not facts.is_current and facts.missing_seconds >= SETTLE_SECONDS
    return facts.kind in {Kind.NODE, Kind.STATIC} and not facts.is_rotating and is_settled


def _seconds(facts: Facts, how: How, outcome: Outcome) -> float:
    if how is How.NOW:
        return 0.0
    return facts.stop_seconds if outcome is Outcome.STOPPED else facts.drain_seconds
