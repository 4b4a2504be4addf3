"""Makes it so: opens, retargets and closes ports, and ends the connections that should end. I/O: sockets and workers.

What should be served comes from ``plan`` by way of ``Knowledge``; what runs is kept here, and the difference is carried
out. One bad port stops nothing else. Live connections are looked at again and again (``look_after``) rather than once
for each event: an order that came too early for a connection still under way is simply given again.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from natproxy import messages
from natproxy.controller.books import Books
from natproxy.controller.knowledge import Knowledge
from natproxy.controller.logs import event
from natproxy.controller.outofreach import OutOfReach
from natproxy.controller.prober import Prober
from natproxy.controller.sockets import BindError, Sockets
from natproxy.controller.tally import Tally
from natproxy.controller.terms import serve_message
from natproxy.controller.workers import Workers
from natproxy.model import Address, Outcome, Route
from natproxy.plan.changes import destination, ends_connections, plan_changes
from natproxy.plan.endings import Ending, Facts, How, Live, ending, facts_of

_log = logging.getLogger(__name__)

BIND_RETRY_SECONDS = 5.0
AGAIN_SECONDS = {How.DRAIN: 5.0, How.NOW: 1.0}
"""An order is repeated so often, for connections that were still being dialled when it was first given."""
EMPTY_SECONDS = 1.5
"""A drained port counts as empty once every worker has had time to say so."""


@dataclass(slots=True)
class Draining:
    """A port that is about to close."""

    route: Route
    outcome: Outcome
    since: float
    until: float


@dataclass(slots=True)
class NotOpen:
    """A port that could not be opened."""

    route: Route
    reason: str
    retry_at: float


@dataclass(slots=True)
class Leftovers:
    """Connections that drain, whatever their address, because their port's route was changed or removed."""

    until: float
    addresses: set[Address]
    """Where they lead to, without what the port's route of now was ever dialled at. The route of now says nothing of
    them: a port that becomes ``primary`` would otherwise cut those of the node it belonged to."""


class Serving:
    """The routes that run."""

    def __init__(
        self, knowledge: Knowledge, sockets: Sockets, workers: Workers, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._knowledge = knowledge
        self._sockets = sockets
        self._workers = workers
        self._clock = clock
        self._prober = Prober(self._probed)
        self._books = Books(knowledge, workers, self._running, on_told=self._books_told, clock=clock)
        self.current: dict[int, Route] = {}
        self.draining: dict[int, Draining] = {}
        self.not_open: dict[int, NotOpen] = {}
        self.out_of_reach = OutOfReach()
        self._sent: dict[int, messages.Serve] = {}
        self._tally = Tally()
        self._orders: dict[tuple[int, Address], tuple[How, float]] = {}
        """(port, address) -> the order that stands for its connections, and when it was given last."""
        self._leftovers: dict[int, Leftovers] = {}
        """Port -> the connections of its route as it was before."""
        self._awaiting_book: set[int] = set()
        """Ports that lead somewhere once the books tell where."""
        self._silent: set[Address] = set()
        """Addresses that did not answer when last asked."""

    # What should be served.

    def apply(self, routes: Iterable[Route], *, is_reload: bool) -> tuple[int, int, int]:
        """Carry out the difference to what runs; return how many routes were opened, changed, closed."""
        routes = tuple(routes)
        wanted = {route.port: route for route in routes if self._is_wanted(route)}
        barred = {(route.port, route.key) for route in routes if route.error is not None}
        plan = plan_changes(self.current, wanted.values())
        self.not_open = {port: one for port, one in self.not_open.items() if port in wanted}
        for route in plan.close:
            is_barred = (route.port, route.key) in barred
            facts = Facts(
                route.key.kind,
                is_gone=not is_reload and not is_barred,
                is_route_removed=is_reload and not is_barred,
                is_route_changed=is_barred,
                drain_seconds=route.limits.drain_seconds,
            )
            self._drain(route, ending(facts))
        opened = [(route, sockets) for route in plan.open if (sockets := self._bind_if_new(route)) is not None]
        self._books.tell((*plan.retarget, *(route for route, _ in opened)))
        for route in plan.retarget:
            self._retarget(route, is_reload=is_reload)
        for route, sockets in opened:
            self._open(route, sockets)
        return len(opened), len(plan.retarget), len(plan.close)

    def _is_wanted(self, route: Route) -> bool:
        # A node that is still being created has nowhere to lead to; one that is rebuilt keeps its port open.
        return route.error is None and (route.target is not None or route.port in self.current)

    def _bind_if_new(self, route: Route) -> Sequence[socket.socket] | None:
        known = self.not_open.get(route.port)
        return self._bind(route) if known is None or known.route != route else None

    def _bind(self, route: Route) -> Sequence[socket.socket] | None:
        port = route.port
        try:
            sockets = self._sockets.open(port, destination(route))
        except BindError as error:
            known = self.not_open.get(port)
            if known is None or known.reason != str(error):
                event(_log, logging.ERROR, "port not opened", port=port, route=route.key, reason=error)
            self.not_open[port] = NotOpen(route, str(error), self._clock() + BIND_RETRY_SECONDS)
            return None
        self.not_open.pop(port, None)
        return sockets

    def _open(self, route: Route, sockets: Sequence[socket.socket]) -> None:
        port = route.port
        self.current[port] = route
        drained = self.draining.pop(port, None)
        self._workers.serve(self._message(route), sockets)
        if drained is not None and not ends_connections(drained.route, route, is_reload=True):
            self._leftovers.pop(port, None)
            self._forget_orders(port)
            self._workers.end(messages.End(port, None, None, drained.outcome))
        event(_log, logging.INFO, "port opened", port=port, route=route.key, target=route.target)

    def _running(self) -> tuple[Iterable[Route], Iterable[Route]]:
        return self.current.values(), (drained.route for drained in self.draining.values())

    def _retarget(self, route: Route, *, is_reload: bool) -> None:
        old = self.current[route.port]
        dialled_before = self.addresses(route.port)
        self.current[route.port] = route
        self._sockets.open(route.port, destination(route))  # it is; but kept from now on for where it leads now
        self._send(route)
        if ends_connections(old, route, is_reload=is_reload):
            facts = Facts(route.key.kind, is_route_changed=True, drain_seconds=route.limits.drain_seconds)
            self._order_all(route.port, ending(facts), dialled_before)
            self.out_of_reach.forget(route.port)
        elif _node_side(old) != _node_side(route):
            self.out_of_reach.forget(route.port)  # it has not been tried by these terms
        event(_log, logging.INFO, "route changed", port=route.port, route=route.key, target=route.target)

    def _drain(self, route: Route, order: Ending) -> None:
        now, port = self._clock(), route.port
        outcome = order.outcome or Outcome.GONE
        del self.current[port]
        self.draining[port] = Draining(route, outcome, now, now + (order.seconds or 0.0))
        self.out_of_reach.forget(port)
        dialled_before = self.addresses(port)
        self._workers.serve(self._message(route, refuse=outcome), ())
        self._order_all(port, order, dialled_before)
        event(_log, logging.INFO, "port drains", port=port, route=route.key, reason=outcome, seconds=order.seconds)

    def _order_all(self, port: int, order: Ending, dialled_before: Iterable[Address]) -> None:
        if order.outcome is None:
            return
        # Whoever is still being dialled, and not counted yet, is on the way to one of those dialled before.
        addresses = self._tally.addresses(port).union(dialled_before)
        if port in self.current:
            addresses.difference_update(self.addresses(port))
        self._leftovers[port] = Leftovers(self._clock() + (order.seconds or 0.0), addresses)
        self._forget_orders(port)
        self._workers.end(messages.End(port, None, order.seconds, order.outcome))

    def _forget_orders(self, port: int) -> None:
        self._orders = {key: order for key, order in self._orders.items() if key[0] != port}

    def _message(self, route: Route, refuse: Outcome | None = None) -> messages.Serve:
        self._sent[route.port] = serve = serve_message(route, self._knowledge.book, self._clock(), refuse)
        if refuse is None and (leftovers := self._leftovers.get(route.port)) is not None:
            leftovers.addresses.difference_update(self.addresses(route.port))
        return serve

    def _send(self, route: Route) -> None:
        before = self._sent.get(route.port)
        serve = self._message(route)
        if serve != before:
            self._workers.serve(serve, ())

    # What happens meanwhile.

    def names_changed(self, hosts: Iterable[str]) -> None:
        """Dial new addresses from now on, and end what has to end for it."""
        self._books.tell_soon()
        changed = frozenset(hosts)
        for route in self.current.values():
            names = (route.target, *route.fallback)
            if any(name is not None and name.host in changed for name in names):
                if route.book and self._books.are_behind and not self.addresses(route.port):
                    # Whoever got through now would be told of a cluster without nodes.
                    self._awaiting_book.add(route.port)
                else:
                    self._send(route)
        self.look_after()

    def _books_told(self) -> None:
        ports, self._awaiting_book = self._awaiting_book, set()
        for port in ports & self.current.keys():
            self._send(self.current[port])

    def counted(self, worker: int, counts: messages.Counts) -> None:
        """Take in what a worker has open, and whether nodes are trusted again."""
        self._tally.take(worker, counts)
        for port in self.out_of_reach.counted(counts.routes):
            event(_log, logging.INFO, "node answers again", port=port, route=self.current[port].key)

    def worker_lost(self, worker: int) -> None:
        """Forget what a dead worker had open."""
        self._tally.forget(worker)

    def dial_failed(self, port: int, outcome: str, detail: str) -> Route | None:
        """No address of the route answers, or the node there cannot be trusted; return the route if that is news."""
        route = self.current.get(port)
        return route if route is not None and self.out_of_reach.failed(port, outcome, detail) else None

    def dial_recovered(self, port: int) -> Route | None:
        """The route answers; return it if that is news."""
        return self.current.get(port) if self.out_of_reach.forget(port) else None

    def tick(self) -> None:
        """Do what time asks for; to be called about once a second."""
        now = self._clock()
        due = [one.route for one in self.not_open.values() if one.retry_at <= now]
        bound = [(route, sockets) for route in due if (sockets := self._bind(route)) is not None]
        self._books.tell(route for route, _ in bound)
        for route, sockets in bound:
            self._open(route, sockets)
        for port, drained in list(self.draining.items()):
            is_empty = now - drained.since >= EMPTY_SECONDS and not self.connections(port)
            if is_empty or now >= drained.until:
                self._close(port, drained)
        self._leftovers = {port: leftovers for port, leftovers in self._leftovers.items() if leftovers.until > now}
        self._forget_old_addresses()
        self.look_after()

    def _forget_old_addresses(self) -> None:
        """Dial no more what a name that comes and goes has been without for too long; no answer tells of that."""
        book = self._knowledge.book
        for route in self.current.values():
            known = None if route.target is None else book.get(route.target.host)
            if known is not None and known.left:
                self._send(route)

    def _close(self, port: int, drained: Draining) -> None:
        del self.draining[port]
        self._sent.pop(port, None)
        self._leftovers.pop(port, None)
        self._workers.unserve(port, drained.outcome)
        self._sockets.close(port)
        event(_log, logging.INFO, "port closed", port=port, route=drained.route.key, reason=drained.outcome)

    def look_after(self) -> None:
        """Decide anew which live connections end, and ask the addresses that are in doubt."""
        now = self._clock()
        live = self._tally.live()
        self._orders = {key: order for key, order in self._orders.items() if key in live}
        doubtful: dict[Address, float] = {}
        for (port, address), number in live.items():
            route = self.current.get(port)
            if route is None or self._is_leftover(port, address):
                continue
            cache = self._knowledge.filled.cache(route.key.cache)
            group = Live(port, route.key.kind, route.mode, address, number)
            answers = address not in self._silent
            facts = facts_of(group, route, cache, self._knowledge.book, now, answers=answers)
            if not facts.is_current and not facts.is_rotating:
                doubtful[address] = route.limits.connect_seconds
            self._order(port, address, ending(facts), now)
        for port in self.out_of_reach.to_be_asked():
            for ip, number in self._sent[port].addresses:
                doubtful[Address(ip, number)] = self.current[port].limits.connect_seconds
        self._silent &= doubtful.keys()
        self._prober.watch(doubtful.items())

    def _is_leftover(self, port: int, address: Address) -> bool:
        leftovers = self._leftovers.get(port)
        return leftovers is not None and address in leftovers.addresses

    def _order(self, port: int, address: Address, order: Ending, now: float) -> None:
        before, given_at = self._orders.get((port, address), (How.KEEP, now))
        if order.how is How.KEEP:
            if before is not How.KEEP and port not in self._leftovers:
                self._workers.end(messages.End(port, address, None, Outcome.ADDRESS_CHANGED))
                event(_log, logging.INFO, "connections stay after all", port=port, address=address)
            self._orders.pop((port, address), None)
            return
        if order.outcome is None or (order.how is before and now - given_at < AGAIN_SECONDS[order.how]):
            return
        if order.how is not before:
            event(
                _log,
                logging.INFO,
                "connections end",
                port=port,
                address=address,
                reason=order.outcome,
                seconds=order.seconds,
            )
        self._orders[port, address] = (order.how, now)
        self._workers.end(messages.End(port, address, order.seconds, order.outcome))

    def _probed(self, address: Address, answers: bool) -> None:
        if not answers:
            self._silent.add(address)
            return
        self._silent.discard(address)
        for port in self.out_of_reach.to_be_asked():
            if (address.ip, address.port) not in self._sent[port].addresses:
                continue
            self.out_of_reach.forget(port)
            event(_log, logging.INFO, "node answers again", port=port, route=self.current[port].key, address=address)

    def connections(self, port: int) -> int:
        """Return how many connections are open on ``port``, as last told."""
        return self._tally.connections(port)

    def addresses(self, port: int) -> tuple[Address, ...]:
        """Return what is dialled for ``port``."""
        serve = self._sent.get(port)
        return () if serve is None else tuple(Address(ip, number) for ip, number in serve.addresses)

    def ports(self) -> frozenset[int]:
        """Name all ports that have a listener."""
        return frozenset(chain(self.current, self.draining))

    async def close(self) -> None:
        """Ask and tell no more; the sockets and workers are the caller's to end."""
        self._books.close()
        await self._prober.close()


def _node_side(route: Route) -> tuple[str, str, str | None]:
    """Return what a handshake with the node depends on."""
    return route.node_tls, route.node_ca, route.server_name
